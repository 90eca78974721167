//! The steps that cost tokens: a prompt, a refusal, a cancel, a session that goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::memory::Memory;
use super::rows::{Rows, Step};
use super::turn::{self, Answers, Late, Left, Ran, Stop};
use super::{Subject, failed, start};
use crate::agent::acp::CANCELLED;
use crate::agent::conversation::Conversation;
use crate::agent::llm::{GenaiLlm, Llm};
use crate::agent::native::{NativeTurn, ProviderGate, RealTime, choose};
use crate::agent::{Agent, AgentError, TurnRequest, catalog};
use crate::blocking;
use crate::config::agent_spec::{AgentSpec, PermissionPolicy, Verdict};
use crate::config::credentials;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::usage::UsageReport;

/// The file that the prompt asks for, and the one that a refusal must prevent.
const WANTED: &str = "dispatch-check.txt";
const UNWANTED: &str = "dispatch-refused.txt";

// Each has a line that the example agents take for a directive (examples/agents).
const PROMPT: &str = "Do this in the working directory and nothing else, then stop: make the file \
                      dispatch-check.txt with the one word \"dispatch\" in it.\n\
                      write dispatch-check.txt: dispatch\n";
const REFUSED: &str = "Run this one command in the working directory with your shell tool, then stop. If it is \
                       refused, do not try another way: stop.\n\
                       run: touch dispatch-refused.txt\n";
const CANCELLED_PROMPT: &str = "Do not use any tool. Count from one to one thousand in words, one number a \
                                line, and leave none out.\nwait: 30\n";
const RESUMED: &str = "Which word did you write into dispatch-check.txt? Answer with that word alone.\n\
                       say: dispatch\n";

/// A signal that no program can obey.
const KILL: i32 = 9;

/// All of them. `turn` is of an agent that is there and speaks.
pub(super) async fn all(of: &Subject<'_>, turn: TurnRequest, rows: &mut Rows) {
    let spec = of.spec;
    let llm = match spec.path {
        ExecutionPath::Native => match GenaiLlm::new() {
            Ok(llm) => Some(Arc::new(llm) as Arc<dyn Llm>),
            Err(error) => {
                let error = AgentError::new(ErrorClass::Internal, error.to_string());
                failed(rows, Step::Prompt, spec, &error);
                return;
            }
        },
        ExecutionPath::Acp | ExecutionPath::Pipe | ExecutionPath::Pty | ExecutionPath::Noop => None,
    };
    let marks = &of.marks;
    let course = Course {
        spec,
        turn,
        llm,
        marks,
    };
    let mut left = Leftovers::default();
    let memory: Arc<dyn Conversation> = Arc::new(Memory::default());
    rows.begin(Step::Prompt);
    let first = course.prompt(&memory, rows).await;
    left.note("the prompt", &first);
    // Another would do no better, and cost more.
    if matches!(first.result, Some(Ok(_))) {
        rows.begin(Step::Permission);
        left.note_all("the refusal", course.permission(rows).await);
        rows.begin(Step::Cancel);
        left.note("the cancel", &course.cancel(rows).await);
        rows.begin(Step::Resume);
        left.note_all("the resumed turn", course.resume(first, memory, rows).await);
    }
    left.tell(rows);
}

/// Who would be asked when nobody names a model, and where that is.
pub(super) fn native_address(spec: &AgentSpec) -> Result<(String, (String, u16)), AgentError> {
    let (model, thinking) = (spec.model.as_deref(), spec.thinking.as_deref());
    let chosen = choose::choose(spec, model, thinking, |provider| provider.key().is_ok())?;
    let name = chosen.provider.name.clone();
    let address = chosen.provider.address().ok_or_else(|| {
        let message = format!("the base_url of provider {name} names no host");
        AgentError::new(ErrorClass::AgentUnavailable, message)
    })?;
    Ok((name, address))
}

/// One agent and what all of its turns have.
struct Course<'a> {
    spec: &'a AgentSpec,
    turn: TurnRequest,
    llm: Option<Arc<dyn Llm>>,
    marks: &'a str,
}

impl Course<'_> {
    fn is_native(&self) -> bool {
        self.spec.path == ExecutionPath::Native
    }

    fn request(&self, prompt: &str, memory: &Arc<dyn Conversation>) -> TurnRequest {
        let id = uuid::Uuid::new_v4();
        let native = self.llm.as_ref().map(|llm| NativeTurn {
            turn_id: format!("check-{id}"),
            conversation: Arc::clone(memory),
            gate: ProviderGate::default(),
            llm: Arc::clone(llm),
            instructions: None,
            facts: Vec::new(),
            given_back: 0,
            cache_key: format!("dispatch-check-{id}"),
            clock: Arc::new(RealTime),
        });
        TurnRequest {
            prompt: prompt.to_owned(),
            mark: format!("{}check-{id}", self.marks),
            model: self.spec.model.clone(),
            mode_id: self.spec.mode.clone(),
            thinking_option_id: self.spec.thinking.clone(),
            native,
            ..self.turn.clone()
        }
    }

    async fn run(
        &self,
        agent: &dyn Agent,
        request: TurnRequest,
        answers: &Answers<'_>,
        stop: Stop,
        rows: &mut Rows,
    ) -> Ran {
        let ran = turn::run(agent, request, answers, stop, start(self.spec)).await;
        self.renew(rows).await;
        ran
    }

    /// Agents renew the tokens in their HOME: those are no more for anybody than the old ones.
    async fn renew(&self, rows: &mut Rows) {
        let (spec, home) = (self.spec.clone(), self.turn.home.clone());
        let before = rows.redactor().clone();
        let with = blocking::run(move || before.with(credentials::of_home(&spec, &home)));
        match with.await {
            Ok(redactor) => rows.redact(redactor),
            Err(error) => tracing::error!(%error, "the secrets of an agent could not be gathered"),
        }
    }

    async fn prompt(&self, memory: &Arc<dyn Conversation>, rows: &mut Rows) -> Ran {
        let agent = catalog::build(self.spec);
        let answers = Answers::by_entry(&self.spec.permissions);
        let request = self.request(PROMPT, memory);
        let ran = self
            .run(agent.as_ref(), request, &answers, Stop::WhenLate, rows)
            .await;
        let Some(reason) = self.ended_well(Step::Prompt, &ran, rows) else {
            return ran;
        };
        let used = used(ran.usage());
        let took = ran.took.as_secs_f64();
        let asked = match answers.asked().len() {
            0 => String::new(),
            count => format!(", {count} questions"),
        };
        let told = format!("{reason} after {took:.1} s{asked}; {used}");
        match is_file(&self.turn.worktree, WANTED) {
            true => rows.ok(Step::Prompt, &format!("{told}; it made the file")),
            false => rows.warn(
                Step::Prompt,
                &format!(
                    "{told}; it ended well and made no file; it said: {}",
                    ran.said
                ),
                "May it write? See mode, permissions and sandbox of its entry, and what it says.",
            ),
        }
        ran
    }

    /// Nothing: there was nothing to run.
    async fn permission(&self, rows: &mut Rows) -> Option<Ran> {
        if matches!(self.spec.path, ExecutionPath::Pipe | ExecutionPath::Pty) {
            rows.ok(
                Step::Permission,
                "not applicable: it does not ask; the sandbox holds it",
            );
            return None;
        }
        // What its entry allows the native agent does not ask for.
        let asking = AgentSpec {
            permissions: PermissionPolicy {
                default: Verdict::Ask,
                kinds: BTreeMap::new(),
                ..self.spec.permissions.clone()
            },
            ..self.spec.clone()
        };
        let agent = catalog::build(&asking);
        let answers = Answers::deny_all();
        let memory: Arc<dyn Conversation> = Arc::new(Memory::default());
        let request = self.request(REFUSED, &memory);
        let ran = self
            .run(agent.as_ref(), request, &answers, Stop::WhenLate, rows)
            .await;
        let asked = answers.asked();
        let made = is_file(&self.turn.worktree, UNWANTED);
        let times = format!("it asked {} times ({})", asked.len(), asked.join(", "));
        match (asked.is_empty(), made) {
            (false, true) => rows.fail(
                Step::Permission,
                &format!("{times}, was refused, and did it all the same"),
                "Its questions mean nothing: rely on its sandbox, and do not give it what must be asked for.",
            ),
            (_, _) if ran.late.is_some() || ran.result.is_none() => {
                let _failed = self.ended_well(Step::Permission, &ran, rows);
            }
            (false, false) => rows.ok(Step::Permission, &format!("{times}, and obeyed the refusal")),
            (true, true) => rows.warn(
                Step::Permission,
                "it ran a command without asking",
                "`permissions` in agents.toml decide nothing for it; if it can be told to ask, do so in its own settings or its mode.",
            ),
            (true, false) => rows.warn(
                Step::Permission,
                &format!("it asked nothing and did nothing; it said: {}", ran.said),
                "Whether it asks is not known: try it with a task.",
            ),
        }
        Some(ran)
    }

    async fn cancel(&self, rows: &mut Rows) -> Ran {
        let agent = catalog::build(self.spec);
        let answers = Answers::deny_all();
        let memory: Arc<dyn Conversation> = Arc::new(Memory::default());
        let request = self.request(CANCELLED_PROMPT, &memory);
        let ran = self
            .run(agent.as_ref(), request, &answers, Stop::AtFirstSign, rows)
            .await;
        let by_force = "A cancelled task ends by force here: what it was writing may be half done.";
        let Some(ending) = ran.ending.filter(|_| ran.late.is_none()) else {
            match &ran.result {
                Some(Ok(_)) => rows.warn(
                    Step::Cancel,
                    "it was done before it could be cancelled",
                    "Whether it obeys is not known: cancel a longer task.",
                ),
                Some(Err(_)) | None => drop(self.ended_well(Step::Cancel, &ran, rows)),
            }
            return ran;
        };
        let took = format!("{:.1} s", ending.as_secs_f64());
        match &ran.result {
            None => rows.fail(
                Step::Cancel,
                &format!("it could not be ended within {took}"),
                by_force,
            ),
            Some(Ok(outcome)) => rows.ok(
                Step::Cancel,
                &format!(
                    "it was done ({}) {took} after the cancel",
                    outcome.stop_reason
                ),
            ),
            Some(Err(error)) if error.class != ErrorClass::Cancelled => {
                failed(rows, Step::Cancel, self.spec, error);
            }
            Some(Err(error)) => match self.obeyed(error, ending) {
                true => rows.ok(Step::Cancel, &format!("it ended {took} after the cancel")),
                // The task ends all the same, and nothing is left.
                false => rows.warn(
                    Step::Cancel,
                    &format!("it ignored the cancel, and was ended by force after {took}"),
                    by_force,
                ),
            },
        }
        ran
    }

    /// Whether it did something about a cancel by itself.
    fn obeyed(&self, error: &AgentError, ending: Duration) -> bool {
        match self.spec.path {
            // One that answers with an error, or ends, obeys too.
            ExecutionPath::Acp => {
                let answered = error.stop_reason.as_deref() == Some(CANCELLED);
                answered || ending < limits::CANCEL_ANSWER_TIMEOUT
            }
            ExecutionPath::Pipe | ExecutionPath::Pty => error.exit.signal != Some(KILL),
            ExecutionPath::Native | ExecutionPath::Noop => true,
        }
    }

    async fn resume(
        &self,
        first: Ran,
        memory: Arc<dyn Conversation>,
        rows: &mut Rows,
    ) -> Option<Ran> {
        let Some(Ok(outcome)) = first.result else {
            return None;
        };
        let session = outcome.native_session_id;
        if session.is_none() && !self.is_native() {
            rows.ok(Step::Resume, "not offered: it names no session");
            return None;
        }
        let agent = catalog::build(self.spec);
        let answers = Answers::deny_all();
        let request = TurnRequest {
            resume: session,
            session_worktree: Some(self.turn.worktree.clone()),
            ..self.request(RESUMED, &memory)
        };
        let ran = self
            .run(agent.as_ref(), request, &answers, Stop::WhenLate, rows)
            .await;
        let refused = ran
            .started
            .as_ref()
            .and_then(|one| one.resume_failed.clone());
        match refused {
            Some(why) => rows.ok(
                Step::Resume,
                &format!("not offered: {why}; a follow-up begins a new session"),
            ),
            None => {
                if self.ended_well(Step::Resume, &ran, rows).is_some() {
                    rows.ok(Step::Resume, "it went on with its session");
                }
            }
        }
        Some(ran)
    }

    /// The reason of a turn that ended by itself and well; else its step has failed.
    fn ended_well(&self, step: Step, ran: &Ran, rows: &mut Rows) -> Option<String> {
        let spec = self.spec;
        if let Some(late) = ran.late {
            let (class, message) = match late {
                Late::Start(most) => (
                    ErrorClass::StartTimeout,
                    format!("it did not begin within {} s", most.as_secs()),
                ),
                Late::Total(most) => (
                    ErrorClass::Timeout,
                    format!(
                        "it did not end within {} s; it said: {}",
                        most.as_secs(),
                        ran.said
                    ),
                ),
            };
            failed(rows, step, spec, &AgentError::new(class, message));
            return None;
        }
        match &ran.result {
            Some(Ok(outcome)) => Some(outcome.stop_reason.clone()),
            Some(Err(error)) => {
                failed(rows, step, spec, error);
                None
            }
            None => {
                let error = AgentError::new(ErrorClass::Internal, "it could not be ended");
                failed(rows, step, spec, &error);
                None
            }
        }
    }
}

/// Whether it made this file. Links lead out, and count for nothing.
fn is_file(worktree: &Path, name: &str) -> bool {
    let facts = worktree.join(name).symlink_metadata();
    facts.is_ok_and(|facts| facts.is_file())
}

fn used(usage: Option<&UsageReport>) -> String {
    let Some(usage) = usage else {
        return "it told no usage".to_owned();
    };
    let tokens = &usage.tokens;
    let parts = [
        ("in", tokens.input),
        ("out", tokens.output),
        ("cached", tokens.cache_read),
        ("reasoning", tokens.reasoning),
    ];
    let mut told: Vec<String> = parts
        .iter()
        .filter_map(|(what, count)| Some(format!("{} {what}", (*count)?)))
        .collect();
    let cost = usage.cost.as_ref();
    told.extend(cost.map(|cost| format!("{} {}", cost.amount, cost.currency)));
    match told.is_empty() {
        true => "it told no usage".to_owned(),
        false => format!("usage {}", told.join(", ")),
    }
}

/// What turns left behind.
#[derive(Debug, Default)]
struct Leftovers {
    bad: Vec<String>,
}

impl Leftovers {
    fn note_all(&mut self, what: &str, ran: Option<Ran>) {
        if let Some(ran) = ran {
            self.note(what, &ran);
        }
    }

    fn note(&mut self, what: &str, ran: &Ran) {
        match &ran.left {
            Left::Nothing => {}
            Left::Ended(count) => self.bad.push(format!("{count} processes outlived {what}")),
            Left::Living(why) => self.bad.push(format!("after {what}: {why}")),
        }
        if ran.detached > 0 {
            self.bad.push(format!(
                "{} processes detached themselves from it during {what}",
                ran.detached
            ));
        }
    }

    fn tell(self, rows: &mut Rows) {
        match self.bad.is_empty() {
            true => rows.ok(Step::Leftovers, "no process is left"),
            false => rows.fail(
                Step::Leftovers,
                &self.bad.join("; "),
                "They end with the attempt, so that what they do for later is lost: have it start no daemons.",
            ),
        }
    }
}
