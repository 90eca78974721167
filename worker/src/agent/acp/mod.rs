//! Agents that speak the Agent Client Protocol (version 1) over stdio.

mod beneath;
mod calls;
mod files;
mod host;
mod offers;
pub mod project;
mod session;
mod usage;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::host::Host;
use self::session::{Opened, Session};
use super::event::Started;
use super::jsonrpc::{Dialect, Peer};
use super::options::{self, Choice};
use super::process::{AgentProcess, Input, Launch, Manner};
use super::{
    Agent, AgentError, AgentEvent, EventSink, Permission, TurnOutcome, TurnRequest, classify,
    environment,
};
use crate::config::agent_spec::AgentSpec;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// The reason of a turn whose agent answered to its cancel.
pub(crate) const CANCELLED: &str = "cancelled";

/// An agent behind the protocol.
#[derive(Debug)]
pub struct AcpAgent {
    spec: Arc<AgentSpec>,
}

impl AcpAgent {
    /// The agent of this entry.
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
        options::check_listed(&self.spec, &turn)?;
        environment::seed_home(&self.spec, &turn).await?;
        let launch = launch(&self.spec, &turn)?;
        let command = launch.shown(&turn.prompt);
        let mut process = launch.start()?;
        let mut session = connect(&self.spec, &mut process, &turn, events.clone(), permission)?;
        let over_limit = process.over_limit();
        let talk = tokio::select! {
            result = converse(&mut session, &turn, command, &events) => result,
            error = over_limit => Err(error),
            // What it left behind may hold its output open.
            () = ended(&mut process) => Err(AgentError::new(
                ErrorClass::Protocol,
                "the agent ended in the middle of its turn",
            )),
            () = cancel.cancelled() => {
                // Its answer brings usage and lets it end its tools; an agent that does not
                // answer is ended all the same.
                let answer = timeout(limits::CANCEL_ANSWER_TIMEOUT, session.cancel()).await;
                Err(AgentError {
                    stop_reason: matches!(answer, Ok(Ok(()))).then(|| CANCELLED.to_owned()),
                    ..AgentError::new(ErrorClass::Cancelled, "the attempt was cancelled")
                })
            }
        };
        let manner = if talk.is_ok() {
            Manner::Gentle
        } else {
            Manner::Firm
        };
        let usage = session.usage();
        let native_session_id = session.session_id().map(str::to_owned);
        let rest = session.close_down().await;
        let exit = process.end(manner, Some(rest)).await?;
        match talk {
            Ok(stop_reason) => Ok(TurnOutcome {
                stop_reason,
                native_session_id,
                usage,
                exit,
            }),
            Err(mut error) => {
                explain(&mut error, &exit);
                Err(AgentError {
                    usage,
                    native_session_id,
                    exit,
                    ..error
                })
            }
        }
    }
}

impl Agent for AcpAgent {
    fn path(&self) -> ExecutionPath {
        ExecutionPath::Acp
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

fn launch(spec: &AgentSpec, turn: &TurnRequest) -> Result<Launch, AgentError> {
    let args = spec.command.iter().skip(1).cloned().collect();
    Launch::of(spec, turn, args, Input::Pipe, "dumb")
}

fn connect<'a>(
    spec: &'a AgentSpec,
    process: &mut AgentProcess,
    turn: &TurnRequest,
    events: EventSink,
    permission: &'a dyn Permission,
) -> Result<Session<'a>, AgentError> {
    let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(AgentError::new(
            ErrorClass::Internal,
            "the agent was started without pipes",
        ));
    };
    let peer = Peer::new(stdout, stdin, Dialect::Versioned);
    let host = Host::new(spec, turn, process.set())?;
    Ok(Session::new(spec, peer, host, turn, events, permission))
}

async fn converse(
    session: &mut Session<'_>,
    turn: &TurnRequest,
    command: Vec<String>,
    events: &EventSink,
) -> Result<String, AgentError> {
    let opened = session.open(turn).await?;
    session.choose(turn).await?;
    let started = Started {
        command,
        version: version(&opened.agent),
        model: session.offers().current(Choice::Model),
        mode_id: session.offers().current(Choice::Mode),
        native_session_id: session.session_id().map(str::to_owned),
        resume_failed: opened.resume_failed,
    };
    events.send(AgentEvent::Started(started)).await;
    let answer = session.prompt(&turn.prompt).await?;
    session.judge(&answer)
}

async fn ended(process: &mut AgentProcess) {
    process.wait().await;
    tokio::time::sleep(limits::DRAIN_TIMEOUT).await;
}

fn version(agent: &Value) -> Option<String> {
    agent
        .pointer("/agentInfo/version")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

/// An agent that ended in the middle says why on its way out, if anywhere.
fn explain(error: &mut AgentError, exit: &super::Exit) {
    if error.class != ErrorClass::Protocol {
        return;
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => return,
    };
    let said = exit.stderr_tail.trim();
    // A non-zero exit of its own accord may be a login problem told on stderr only.
    let told = classify::reported(said);
    if matches!(told.class, ErrorClass::Auth) && exit.code.is_some_and(|code| code != 0) {
        error.class = told.class;
    }
    // Programs put the reason before hints, with empty lines between: fast-agent says nine lines.
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let tail = lines
        .get(lines.len().saturating_sub(10)..)
        .unwrap_or_default();
    let tail = tail.join("\n");
    error.message = format!("{}; it ended with {how}", error.message);
    if !tail.is_empty() {
        error.message.push_str(&format!(" and said: {tail}"));
    }
}

/// What a probe learns from a session that is opened, within so long, and closed again.
pub(crate) async fn probe(
    spec: &AgentSpec,
    turn: &TurnRequest,
    permission: &dyn Permission,
    most: Duration,
) -> Result<Probed, AgentError> {
    environment::seed_home(spec, turn).await?;
    let mut process = launch(spec, turn)?.start()?;
    let (events, mut received) = EventSink::channel();
    let mut session = connect(spec, &mut process, turn, events, permission)?;
    let opened = timeout(most, session.open(turn)).await;
    let values = |session: &Session<'_>, choice| session.offers().values(choice);
    let mut probed = Probed {
        modes: values(&session, Choice::Mode),
        models: values(&session, Choice::Model),
        thinking_options: values(&session, Choice::Thinking),
        ..Probed::default()
    };
    if matches!(opened, Ok(Ok(_))) {
        // The list of commands comes after the answer, if at all.
        tokio::select! {
            _ended = session.listen() => {}
            commands = timeout(limits::COMMANDS_WAIT, first_commands(&mut received)) => {
                probed.commands = commands.unwrap_or_default();
            }
        }
    }
    let greeting = session.greeting.take();
    let rest = session.close_down().await;
    let exit = process.end(Manner::Gentle, Some(rest)).await?;
    let opened = opened.unwrap_or_else(|_| {
        let what = match greeting {
            Some(_) => "open a session",
            None => "answer to initialize",
        };
        let message = format!("the agent did not {what} within {} s", most.as_secs());
        Err(AgentError::new(ErrorClass::StartTimeout, message))
    });
    let agent = match (opened, greeting) {
        (Ok(Opened { agent, .. }), _) => agent,
        (Err(mut error), greeting) => {
            explain(&mut error, &exit);
            let Some(agent) = greeting else {
                return Err(error);
            };
            probed.refused = Some(error);
            agent
        }
    };
    probed.version = version(&agent);
    probed.capabilities = agent
        .get("agentCapabilities")
        .cloned()
        .unwrap_or(Value::Null);
    Ok(probed)
}

async fn first_commands(received: &mut mpsc::Receiver<AgentEvent>) -> Option<Value> {
    while let Some(event) = received.recv().await {
        if let AgentEvent::Commands { commands } = event {
            return Some(commands);
        }
    }
    None
}

/// What an agent offers.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    /// Why there is no session, where it said who it is and nothing more came of it.
    pub(crate) refused: Option<AgentError>,
    pub(crate) version: Option<String>,
    pub(crate) models: Vec<String>,
    pub(crate) modes: Vec<String>,
    pub(crate) thinking_options: Vec<String>,
    pub(crate) commands: Option<Value>,
    pub(crate) capabilities: Value,
}
