//! Execution paths behind one trait. Knows nothing about Postgres, task states or git.
//!
//! Contract of every adapter, tested by one suite against each of them:
//! cancelling (or dropping) leaves no process of the attempt alive; every call ends with one
//! outcome or one error, and only after the whole process set is gone; events are bounded in
//! size and number; usage is that of the turn alone; stderr is never protocol; the working
//! directory is the worktree; the child's environment is a list of what is allowed.
//! Deadlines, stall detection, persistence, retries and diffs are not here: `run` has them once.

pub mod acp;
pub mod catalog;
mod classify;
mod cli;
pub mod confine;
pub mod conversation;
mod environment;
pub mod event;
mod figures;
pub mod jsonrpc;
mod last_words;
pub mod lines;
pub mod llm;
pub mod native;
pub mod noop;
mod options;
pub mod permission;
pub mod pipe;
pub mod process;
pub mod pty;
mod regex_usage;
mod seed;
pub(crate) mod utf8;

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::redact::Redactor;
use crate::domain::usage::{SessionUsage, UsageReport};
use crate::sandbox::Confinement;

pub use crate::domain::attempt::Exit;
pub use event::{AgentEvent, EventSink};
pub use native::NativeTurn;
pub use permission::Permission;

pub use crate::domain::attempt::MARK_VARIABLE;

/// One way to have a prompt worked on inside a worktree.
pub trait Agent: Send + Sync {
    /// How it is driven; recorded on the attempt.
    fn path(&self) -> ExecutionPath;

    /// Run one turn: from prompt to the end of the agent's answer. Returns only when no process of
    /// the attempt is left. Cancelling ends with `AgentError::Cancelled`.
    fn run_turn<'a>(
        &'a self,
        turn: TurnRequest,
        events: EventSink,
        permission: &'a dyn Permission,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<TurnOutcome, AgentError>>;
}

/// What a turn needs.
#[derive(Clone, Debug)]
pub struct TurnRequest {
    /// What the agent shall do; data, never part of a shell line.
    pub prompt: String,
    /// The worktree: absolute, and the only place the agent should write.
    pub worktree: PathBuf,
    /// A HOME of the attempt's own, empty or seeded from the agent's entry.
    pub home: PathBuf,
    /// A temporary directory of the attempt's own.
    pub tmp: PathBuf,
    /// What its processes may do.
    pub confinement: Confinement,
    /// What must be taken out of a text before it is cut; the run takes it out of all that it keeps.
    pub secrets: Redactor,
    /// Value of `DISPATCH_ATTEMPT` in the environment of every process of the attempt.
    pub mark: String,
    /// Model to use; the turn fails with `InvalidOption` when the agent does not offer it.
    pub model: Option<String>,
    /// Mode to use; likewise.
    pub mode_id: Option<String>,
    /// Thinking option (reasoning effort) to use; likewise.
    pub thinking_option_id: Option<String>,
    /// The agent's own session to continue, when the conversation has one.
    pub resume: Option<String>,
    /// The worktree in which that session was used last, when it was with this home.
    pub session_worktree: Option<PathBuf>,
    /// What was recorded for that session so far, to be taken off totals of the session.
    pub session_used: SessionUsage,
    /// What only the native agent needs.
    pub native: Option<NativeTurn>,
}

impl TurnRequest {
    /// A turn of the path that does nothing: no worktree, no home.
    pub fn bare(prompt: String) -> Self {
        Self {
            prompt,
            worktree: PathBuf::new(),
            home: PathBuf::new(),
            tmp: PathBuf::new(),
            confinement: Confinement::none(PathBuf::new()),
            secrets: Redactor::default(),
            mark: String::new(),
            model: None,
            mode_id: None,
            thinking_option_id: None,
            resume: None,
            session_worktree: None,
            session_used: SessionUsage::default(),
            native: None,
        }
    }
}

/// A turn that ended by itself and well.
#[derive(Clone, Debug, Default)]
pub struct TurnOutcome {
    /// The agent's word for why it stopped (end_turn, exit 0, …).
    pub stop_reason: String,
    /// The agent's own session id, for the next turn of the conversation.
    pub native_session_id: Option<String>,
    /// What the turn used; `None`: the agent says nothing.
    pub usage: Option<UsageReport>,
    /// How the process ended, when there was one.
    pub exit: Exit,
}

/// A turn that did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// What kind of failure; `Cancelled` when `cancel` was honoured.
    pub class: ErrorClass,
    /// What was being done to what, and what to do about it.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// The turn goes on after this time, on whatever worker has a slot then: nothing is wrong with
    /// the task, and nothing of it is lost.
    pub go_on_after: Option<Duration>,
    /// The agent's word for why it stopped, if it has one.
    pub stop_reason: Option<String>,
    /// Usage up to the failure, when the agent said something.
    pub usage: Option<UsageReport>,
    /// The agent's own session id, if one began.
    pub native_session_id: Option<String>,
    /// How the process ended, when there was one.
    pub exit: Exit,
}

impl AgentError {
    /// An error of this class with nothing else known.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            go_on_after: None,
            stop_reason: None,
            usage: None,
            native_session_id: None,
            exit: Exit::default(),
        }
    }
}
