//! Native turns without a worker: a scripted provider over the real wire, real tools in a real
//! sandbox, a conversation in memory, and a clock that does not wait.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dispatch_worker::agent::conversation::{
    Compaction, Conversation, Inbox, ProviderPause, Remembered, Step,
};
use dispatch_worker::agent::llm::GenaiLlm;
use dispatch_worker::agent::native::{Clock, NativeTurn, ProviderGate};
use dispatch_worker::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use dispatch_worker::agent::{
    AgentError, AgentEvent, EventSink, TurnOutcome, TurnRequest, catalog,
};
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::config::native_spec::Api;
use dispatch_worker::domain::llm::{Message, Role};
use futures::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::llm::{FakeLlm, script};
use super::sandbox;

/// Longest wait for anything in a turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// A conversation that lasts as long as its test.
#[derive(Default)]
pub struct Memory(Mutex<State>);

#[derive(Default)]
pub struct State {
    pub messages: Vec<Message>,
    pub steps: Vec<Step>,
    pub inbox: Vec<String>,
    pub compact: bool,
    pub todos: Option<Value>,
    pub pauses: Vec<ProviderPause>,
    pub compactions: Vec<Compaction>,
    /// What `load` gives beside the messages.
    pub remembered: Remembered,
}

impl Memory {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Conversation for Memory {
    fn load(&self) -> BoxFuture<'_, Result<Remembered, AgentError>> {
        let state = self.lock();
        let remembered = Remembered {
            messages: state.messages.clone(),
            ..state.remembered.clone()
        };
        Box::pin(async move { Ok(remembered) })
    }

    fn keep(&self, step: Step) -> BoxFuture<'_, Result<(), AgentError>> {
        let mut state = self.lock();
        state.messages.extend(step.messages.clone());
        state.steps.push(step);
        Box::pin(async { Ok(()) })
    }

    fn take_inbox(&self, _n: u32) -> BoxFuture<'_, Result<Inbox, AgentError>> {
        let mut state = self.lock();
        let messages = std::mem::take(&mut state.inbox);
        if !messages.is_empty() {
            state.messages.push(Message::user(messages.join("\n\n")));
        }
        let compact = std::mem::take(&mut state.compact);
        Box::pin(async move { Ok(Inbox { messages, compact }) })
    }

    fn compact(&self, compaction: Compaction) -> BoxFuture<'_, Result<(), AgentError>> {
        let mut state = self.lock();
        let replaced = ..compaction.replaced;
        state
            .messages
            .splice(replaced, [compaction.summary.clone()]);
        state.compactions.push(compaction);
        Box::pin(async { Ok(()) })
    }

    fn keep_todos(&self, todos: Value) -> BoxFuture<'_, Result<(), AgentError>> {
        self.lock().todos = Some(todos);
        Box::pin(async { Ok(()) })
    }

    fn pause_provider(&self, pause: ProviderPause) -> BoxFuture<'_, ()> {
        self.lock().pauses.push(pause);
        Box::pin(async {})
    }
}

/// A clock whose waits are over at once.
pub struct FastClock {
    began: Instant,
    slept: Mutex<Vec<Duration>>,
}

impl FastClock {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            slept: Mutex::default(),
        }
    }

    /// The waits so far.
    pub fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

impl Clock for FastClock {
    fn now(&self) -> Instant {
        self.began + self.slept().iter().sum()
    }

    fn wait(&self, wait: Duration) -> BoxFuture<'_, ()> {
        self.slept.lock().unwrap().push(wait);
        Box::pin(async {})
    }
}

/// What a native turn needs beside the rest, without anything that was said before.
pub fn native_turn(memory: Arc<Memory>) -> NativeTurn {
    NativeTurn {
        turn_id: "7.1".to_owned(),
        conversation: memory,
        gate: ProviderGate::default(),
        llm: Arc::new(GenaiLlm::new().unwrap()),
        instructions: None,
        facts: Vec::new(),
        given_back: 0,
        cache_key: "conversation-7".to_owned(),
        clock: Arc::new(FastClock::new()),
    }
}

/// A native agent, a provider, and a place for them.
pub struct NativeBench {
    pub llm: FakeLlm,
    pub spec: AgentSpec,
    pub memory: Arc<Memory>,
    pub clock: Arc<FastClock>,
    pub gate: ProviderGate,
    pub turn: TurnRequest,
    pub given_back: u32,
    pub permission: Answers,
    pub instructions: Option<String>,
    real: Option<Arc<dyn Clock>>,
    dir: TempDir,
}

/// What came of a turn.
pub struct Ran {
    pub result: Result<TurnOutcome, AgentError>,
    pub events: Vec<AgentEvent>,
}

impl NativeBench {
    /// With a provider that speaks Chat Completions.
    pub fn new() -> Self {
        Self::speaking(Api::Openai, "")
    }

    /// With lines for the entry's native section.
    pub fn with(native: &str) -> Self {
        Self::speaking(Api::Openai, native)
    }

    /// With a provider of this format.
    pub fn speaking(api: Api, native: &str) -> Self {
        let llm = FakeLlm::start();
        let spec = Catalogue::parse(&catalogue(&llm, api, native))
            .unwrap()
            .agents["native"]
            .clone();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let turn = TurnRequest {
            worktree: root.join("worktree"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            mark: format!("test-{}", uuid::Uuid::new_v4()),
            ..TurnRequest::bare(String::new())
        };
        std::fs::create_dir(&turn.worktree).unwrap();
        Self {
            llm,
            spec,
            memory: Arc::default(),
            clock: Arc::new(FastClock::new()),
            gate: ProviderGate::default(),
            turn,
            given_back: 0,
            permission: Answers::always(PermissionAnswer::Allow),
            instructions: None,
            real: None,
            dir,
        }
    }

    /// Wait for real.
    pub fn real_clock(&mut self, clock: Arc<dyn Clock>) {
        self.real = Some(clock);
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn worktree(&self) -> &Path {
        &self.turn.worktree
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.worktree().join(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.worktree().join(path)).unwrap()
    }

    /// Run a scripted turn to its end.
    pub async fn run(&self, answers: Value) -> Ran {
        self.start(answers).finish().await
    }

    /// Begin a scripted turn.
    pub fn start(&self, answers: Value) -> Running<'_> {
        self.start_prompt(&script(&answers))
    }

    /// Begin a turn.
    pub fn start_prompt(&self, prompt: &str) -> Running<'_> {
        let native = NativeTurn {
            gate: self.gate.clone(),
            instructions: self.instructions.clone(),
            given_back: self.given_back,
            clock: self.real.clone().unwrap_or_else(|| self.clock.clone()),
            ..native_turn(self.memory.clone())
        };
        let turn = TurnRequest {
            prompt: prompt.to_owned(),
            native: Some(native),
            ..self.turn.clone()
        };
        let agent = catalog::build(&self.spec);
        let (sink, receiver) = EventSink::channel();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let (spec, permission) = (&self.spec, &self.permission);
        let turn = Box::pin(async move {
            let places = [&turn.worktree, &turn.home, &turn.tmp];
            let confinement = sandbox::confinement(spec, places[0], places[1], places[2]).await;
            let turn = TurnRequest {
                confinement,
                ..turn
            };
            agent.run_turn(turn, sink, permission, token).await
        });
        Running {
            turn,
            receiver,
            cancel,
            events: Vec::new(),
        }
    }

    /// Living processes in the worktree.
    pub fn processes(&self) -> Vec<PathBuf> {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let cwd = std::fs::read_link(path.join("cwd"));
                cwd.is_ok_and(|cwd| cwd.starts_with(self.worktree()))
            })
            .collect()
    }
}

/// An agents.toml with one native agent on one scripted provider.
pub fn catalogue(llm: &FakeLlm, api: Api, native: &str) -> String {
    let base_url = llm.base_url(api);
    let name = match api {
        Api::Openai => "openai",
        Api::OpenaiResponses => "openai-responses",
        Api::Anthropic => "anthropic",
        Api::Gemini => "gemini",
        Api::Ollama => "ollama",
    };
    format!(
        r#"
[providers.stub]
api = "{name}"
base_url = "{base_url}"
default_model = "m1"

[providers.stub.models.m1]
context_window = 100000

[agents.native]
path = "native"
kill_grace = "200ms"
slots = 8
permissions = {{ default = "allow" }}

[agents.native.native]
providers = ["stub"]
{native}

[prices."stub/m1"]
input = "3"
output = "15"
cache_read = "0.3"
"#
    )
}

/// A turn in progress. Dropping it drops the adapter's future.
pub struct Running<'a> {
    turn: BoxFuture<'a, Result<TurnOutcome, AgentError>>,
    receiver: mpsc::Receiver<AgentEvent>,
    cancel: CancellationToken,
    events: Vec<AgentEvent>,
}

impl Running<'_> {
    /// Let it run until it has told something like this.
    pub async fn until(mut self, what: &str, holds: impl Fn(&AgentEvent) -> bool) -> Self {
        let wait = async {
            loop {
                tokio::select! {
                    result = &mut self.turn => panic!("it ended before {what}: {result:?}"),
                    Some(event) = self.receiver.recv() => {
                        let found = holds(&event);
                        self.events.push(event);
                        if found {
                            return;
                        }
                    }
                }
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("waited too long for {what}"));
        self
    }

    /// Let it run until something outside holds.
    pub async fn while_running(mut self, outside: impl Future<Output = ()>) -> Self {
        tokio::pin!(outside);
        loop {
            tokio::select! {
                result = &mut self.turn => panic!("it ended early: {result:?}"),
                Some(event) = self.receiver.recv() => self.events.push(event),
                () = &mut outside => return self,
            }
        }
    }

    /// Stop it, and give what came of it with the time that took.
    pub async fn cancel(self) -> (Ran, Duration) {
        self.cancel.cancel();
        let began = Instant::now();
        let ran = self.finish().await;
        (ran, began.elapsed())
    }

    pub async fn finish(mut self) -> Ran {
        let over = async {
            loop {
                tokio::select! {
                    result = &mut self.turn => break result,
                    Some(event) = self.receiver.recv() => self.events.push(event),
                }
            }
        };
        let result = timeout(PATIENCE, over)
            .await
            .expect("the turn does not end");
        while let Ok(event) = self.receiver.try_recv() {
            self.events.push(event);
        }
        Ran {
            result,
            events: self.events,
        }
    }
}

impl Ran {
    /// The answer's words.
    pub fn text(&self) -> String {
        let texts = self.events.iter().filter_map(|event| match event {
            AgentEvent::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// The events as JSON, of this kind.
    pub fn told(&self, kind: &str) -> Vec<Value> {
        let all = self.events.iter().map(|e| serde_json::to_value(e).unwrap());
        all.filter(|event| event["kind"] == kind).collect()
    }

    /// Why the turn was over, as it was told; there is exactly one such word, and it is the last.
    pub fn reason(&self) -> String {
        let done = self.told("turn_done");
        assert_eq!(done.len(), 1, "{done:?}");
        assert!(
            matches!(self.events.last(), Some(AgentEvent::TurnDone { .. })),
            "something came after the end: {:?}",
            self.events.last()
        );
        done[0]["reason"].as_str().unwrap().to_owned()
    }

    pub fn error(&self) -> &AgentError {
        self.result.as_ref().expect_err("it should have failed")
    }
}

/// Somebody who answers every question in the same way.
pub struct Answers {
    answer: PermissionAnswer,
    pub asked: Mutex<Vec<PermissionAsk>>,
}

impl Answers {
    pub fn always(answer: PermissionAnswer) -> Self {
        Self {
            answer,
            asked: Mutex::default(),
        }
    }
}

impl Permission for Answers {
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        self.asked.lock().unwrap().push(ask);
        Box::pin(async move { self.answer })
    }
}

/// That no call is without its result, and no result without its call.
pub fn assert_no_dangling(messages: &[Message]) {
    for (at, message) in messages.iter().enumerate() {
        let calls: Vec<_> = message.calls().map(|call| &call.id).collect();
        let next = messages.get(at + 1).filter(|next| next.role == Role::Tool);
        let results: Vec<_> = next
            .into_iter()
            .flat_map(Message::tool_results)
            .map(|result| &result.call_id)
            .collect();
        if message.role == Role::Assistant {
            assert_eq!(calls, results, "message {at} of {messages:#?}");
        }
    }
}
