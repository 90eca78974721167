//! The built-in agent: a loop of requests to a model and calls of tools. The requests are made here,
//! by the worker, which has the keys; the tools run in a program of their own inside the sandbox
//! (`toolhost`), which has none.

mod budget;
mod capture;
pub mod choose;
pub mod clock;
mod compact;
mod ended;
pub mod gate;
mod mcp;
mod meter;
mod patience;
pub(crate) mod probe;
mod prompt;
mod step;
mod todo;
mod tool_host;
mod toolbox;
mod turn;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::process::ChildStdout;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::conversation::{Conversation, Remembered};
use super::environment;
use super::llm::Llm;
use super::options::check_listed;
use super::permission::Permission;
use super::process::{AgentProcess, Input, Launch, Manner};
use super::{Agent, AgentError, AgentEvent, EventSink, TurnOutcome, TurnRequest};
use crate::config::agent_spec::AgentSpec;
use crate::domain::attempt::{ExecutionPath, Started};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::llm::{Message, Role};
use crate::toolhost;

pub use clock::{Clock, RealTime};
pub use gate::ProviderGate;

use capture::Capturing;
use choose::Chosen;
use ended::Ended;
use mcp::Servers;
use step::Stage;
use tool_host::{Connection, ToolHost};
use toolbox::{Mode, Surroundings, Toolbox};
use turn::Turn;

/// What only a native turn needs.
#[derive(Clone)]
pub struct NativeTurn {
    /// Name of the turn, unique for ever; its steps are `turn#n`.
    pub turn_id: String,
    /// What was said before, and where what is said is kept.
    pub conversation: Arc<dyn Conversation>,
    /// Who may ask a provider now.
    pub gate: ProviderGate,
    /// Asks providers.
    pub llm: Arc<dyn Llm>,
    /// The repository's instructions for agents, as its base commit has them.
    pub instructions: Option<String>,
    /// What the model should know of where it is, by name.
    pub facts: Vec<(&'static str, String)>,
    /// Attempts of the task that gave their slot back.
    pub given_back: u32,
    /// The same for all turns of the conversation, and for no other.
    pub cache_key: String,
    /// Waits for providers.
    pub clock: Arc<dyn Clock>,
}

impl NativeTurn {
    /// A number in 0..1 for spreading waits.
    fn jitter(&self) -> f64 {
        let bits = uuid::Uuid::new_v4().as_u128() & 0xffff_ffff;
        f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

impl fmt::Debug for NativeTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeTurn")
            .field("turn_id", &self.turn_id)
            .finish_non_exhaustive()
    }
}

/// The native agent of an entry.
#[derive(Debug)]
pub struct NativeAgent {
    spec: Arc<AgentSpec>,
}

impl NativeAgent {
    /// Of this entry.
    pub fn new(spec: Arc<AgentSpec>) -> Self {
        Self { spec }
    }

    async fn turn(
        &self,
        turn: TurnRequest,
        events: EventSink,
        permission: &dyn Permission,
        cancel: CancellationToken,
    ) -> Result<TurnOutcome, AgentError> {
        let Some(native) = turn.native.clone() else {
            let message = "the native agent was started without a conversation";
            return Err(AgentError::new(ErrorClass::Internal, message));
        };
        check_listed(&self.spec, &turn)?;
        let chosen = self.choose(&turn)?;
        let mode = self.mode(&turn)?;
        let launch = self.launch(&turn)?;
        let mut process = launch.start()?;
        let (host, mut connection) = connect(&mut process, &turn, events.clone())?;
        let stop = cancel.child_token();
        let over_limit = process.over_limit();
        tokio::pin!(over_limit);
        let starting = self.servers(&turn, mode, &process, &events, &stop);
        let (mut servers, fault) = until_started(starting, over_limit.as_mut(), &stop).await;
        let talk = Talk {
            spec: &self.spec,
            turn: &turn,
            native: &native,
            chosen,
            mode,
            events: events.clone(),
            stop,
        };
        let surroundings = Surroundings {
            host,
            servers: servers.take(),
            conversation: Arc::clone(&native.conversation),
            permission,
            events,
            secrets: turn.secrets.clone(),
        };
        let ended = match fault {
            Some(fault) => Ended::with(fault),
            None => {
                let talking = talk.until_over(&mut connection, surroundings, over_limit);
                talking.await
            }
        };
        let rest = connection.into_reader();
        let (of_servers, exit) =
            futures::join!(servers.end(), process.end(Manner::Firm, Some(rest)));
        let Ended { result, usage, .. } = ended;
        let mut exit = exit?;
        // They are ended by us, always: how is no fact about the turn.
        (exit.code, exit.signal) = (None, None);
        match result.and_then(|reason| of_servers.map(|()| reason)) {
            Ok(reason) => Ok(TurnOutcome {
                stop_reason: reason.to_owned(),
                native_session_id: None,
                usage,
                exit,
            }),
            Err(error) => Err(AgentError {
                usage: error.usage.clone().or(usage),
                exit,
                ..error
            }),
        }
    }

    /// Its MCP servers. Nobody knows which of their tools only look, so that a plan has none.
    async fn servers(
        &self,
        turn: &TurnRequest,
        mode: Mode,
        process: &AgentProcess,
        events: &EventSink,
        stop: &CancellationToken,
    ) -> Servers {
        match mode {
            Mode::Build => Servers::start(&self.spec, turn, process.set(), events, stop).await,
            Mode::Plan => Servers::default(),
        }
    }

    fn choose(&self, turn: &TurnRequest) -> Result<Chosen, AgentError> {
        choose::choose(
            &self.spec,
            turn.model.as_deref(),
            turn.thinking_option_id.as_deref(),
            |provider| provider.key().is_ok(),
        )
    }

    fn mode(&self, turn: &TurnRequest) -> Result<Mode, AgentError> {
        let wanted = turn.mode_id.as_deref().or(self.spec.mode.as_deref());
        let wanted = wanted.unwrap_or("build");
        Mode::parse(wanted).ok_or_else(|| {
            let message = format!(
                "agent {} does not offer the mode `{wanted}`; it offers: build, plan",
                self.spec.name
            );
            AgentError::new(ErrorClass::InvalidOption, message)
        })
    }

    /// The program that runs the tools: this one, once more, inside the sandbox.
    fn launch(&self, turn: &TurnRequest) -> Result<Launch, AgentError> {
        Ok(Launch {
            program: self_again(turn),
            args: vec![toolhost::WORD.to_owned()],
            cwd: turn.worktree.clone(),
            variables: environment::variables(&self.spec, turn, "dumb")?,
            mark: turn.mark.clone(),
            stdin: Input::Pipe,
            kill_grace: self.spec.kill_grace,
            confinement: turn.confinement.clone(),
            secrets: turn.secrets.clone(),
        })
    }
}

impl Agent for NativeAgent {
    fn path(&self) -> ExecutionPath {
        ExecutionPath::Native
    }

    fn run_turn<'a>(
        &'a self,
        turn: TurnRequest,
        events: EventSink,
        permission: &'a dyn Permission,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<TurnOutcome, AgentError>> {
        Box::pin(self.turn(turn, events, permission, cancel))
    }
}

/// What runs the tools: the helper that confines becomes itself once more. Named by what it is where that
/// is possible, because the attempt's user may be kept from the directory that it stands in.
fn self_again(turn: &TurnRequest) -> PathBuf {
    match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => turn.confinement.helper().to_owned(),
    }
}

/// Wait for the servers; what uses too much meanwhile ends their start.
async fn until_started(
    starting: impl Future<Output = Servers>,
    over_limit: impl Future<Output = AgentError>,
    stop: &CancellationToken,
) -> (Servers, Option<AgentError>) {
    tokio::pin!(starting);
    tokio::select! {
        servers = &mut starting => (servers, None),
        error = over_limit => {
            stop.cancel();
            (starting.await, Some(error))
        }
    }
}

type Tools = Connection<ChildStdout, tokio::process::ChildStdin>;

fn connect(
    process: &mut AgentProcess,
    turn: &TurnRequest,
    events: EventSink,
) -> Result<(ToolHost, Tools), AgentError> {
    let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
        let message = "the tools were started without pipes";
        return Err(AgentError::new(ErrorClass::Internal, message));
    };
    Ok(tool_host::connect(
        stdout,
        stdin,
        events,
        turn.secrets.clone(),
    ))
}

/// A turn before it is on its way.
struct Talk<'a> {
    spec: &'a AgentSpec,
    turn: &'a TurnRequest,
    native: &'a NativeTurn,
    chosen: Chosen,
    mode: Mode,
    events: EventSink,
    /// Stops it: the attempt's, or ours when it cannot go on.
    stop: CancellationToken,
}

impl Talk<'_> {
    /// Run it. What makes it impossible to go on stops it as somebody's wish does, so that what it
    /// has is kept and counted.
    async fn until_over(
        self,
        connection: &mut Tools,
        around: Surroundings<'_>,
        over_limit: impl Future<Output = AgentError>,
    ) -> Ended {
        let (stop, events, began) = (self.stop.clone(), self.events.clone(), Instant::now());
        let talking = self.run(connection, around);
        tokio::pin!(talking, over_limit);
        let mut fault = None;
        let mut ended = loop {
            tokio::select! {
                ended = &mut talking => break ended,
                error = &mut over_limit, if fault.is_none() => {
                    fault = Some(error);
                    stop.cancel();
                }
                // As in every adapter: what is not over soon after it was told to stop is dropped.
                () = stopped_long_ago(&stop) => break Ended::dropped(began),
            }
        };
        if let Some(error) = fault {
            ended.result = Err(AgentError {
                stop_reason: Some("resource-limit".to_owned()),
                ..error
            });
        }
        ended.tell(&events).await;
        ended
    }

    async fn run(self, connection: &mut Tools, around: Surroundings<'_>) -> Ended {
        let ready = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ended::with(turn::aborted()),
            ready = timeout(limits::TOOLS_START_TIMEOUT, connection.ready()) => ready,
        };
        match ready {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Ended::with(error),
            Err(_) => {
                let message = "the tools of the attempt did not start in time";
                return Ended::with(AgentError::new(ErrorClass::SpawnFailed, message));
            }
        }
        let began = Instant::now();
        let model = self.chosen.id();
        let toolbox = Toolbox::new(self.spec, self.mode, around);
        let span = tracing::info_span!("turn", turn.id = self.native.turn_id, model);
        let stop = self.stop.clone();
        let turning = self.turning(&toolbox).instrument(span);
        tokio::pin!(turning);
        let ended = tokio::select! {
            ended = &mut turning => ended,
            error = connection.run() => {
                stop.cancel();
                Ended {
                    result: Err(error),
                    ..turning.await
                }
            }
        };
        Ended {
            began: Some(began),
            ..ended
        }
    }

    async fn turning(self, toolbox: &Toolbox<'_>) -> Ended {
        let started = Started {
            model: Some(self.chosen.id()),
            mode_id: self.turn.mode_id.clone(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..Started::default()
        };
        self.events.send(AgentEvent::Started(started)).await;
        self.events
            .send(AgentEvent::TurnStarted {
                turn_id: self.native.turn_id.clone(),
                model: self.chosen.id(),
                effort: self.chosen.effort.map(|effort| effort.as_str().to_owned()),
            })
            .await;
        let remembered = match self.native.conversation.load().await {
            Ok(remembered) => remembered,
            Err(error) => return Ended::with(error),
        };
        let words = first_words(&self.turn.prompt, &remembered);
        let mut llm = Arc::clone(&self.native.llm);
        if self.spec.native.capture_requests {
            llm = Arc::new(Capturing::new(llm, Arc::clone(&self.native.conversation)));
        }
        let stage = Stage {
            llm,
            toolbox,
            events: self.events.clone(),
            cancel: self.stop.clone(),
            secrets: self.turn.secrets.clone(),
            eager: self.spec.native.eager,
        };
        let system = prompt::system(self.spec, self.turn, self.native, self.mode);
        let turn = Turn::new(
            stage,
            self.native,
            &self.spec.native,
            self.chosen,
            system,
            remembered,
        );
        match turn {
            Ok(mut turn) => {
                let result = turn.run(words).await;
                Ended {
                    result,
                    usage: Some(turn.meter.report()),
                    began: None,
                }
            }
            Err(error) => Ended::with(error),
        }
    }
}

/// What the turn begins with: the prompt, or, when an attempt goes on where one before it ended, that it
/// does. An attempt may have ended before it told the prompt.
fn first_words(prompt: &str, remembered: &Remembered) -> Vec<Message> {
    let last = remembered.messages.last().map(|message| message.role);
    let text = match (remembered.begun, last, &remembered.resumed) {
        (false, None, _) => prompt.to_owned(),
        (false, Some(_), _) => format!(
            "{prompt}\n\n[The files may have changed since you looked last: look again before you edit.]"
        ),
        (true, Some(Role::Assistant), Some(why)) => format!(
            "[You were interrupted: {why}. The files are as you left them. Go on where you were.]"
        ),
        // It cannot be, but if it is, the prompt once more does no harm.
        (true, None | Some(Role::Assistant), _) => prompt.to_owned(),
        // The model has yet to answer.
        (true, Some(Role::User | Role::Tool), _) => return Vec::new(),
    };
    vec![Message::user(text)]
}

/// Long after the attempt was told to stop.
async fn stopped_long_ago(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(ENDING_MAX).await;
}

/// What a stopped turn has to store what it has; the database may be slow.
const ENDING_MAX: Duration = Duration::from_secs(20);
