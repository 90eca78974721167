//! One try at a task by one worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error_class::ErrorClass;

/// Environment variable that marks every process of an attempt, its hooks' included; its value is
/// the attempt's mark. Leftovers of a crashed worker are found by it.
pub const MARK_VARIABLE: &str = "DISPATCH_ATTEMPT";

/// How an agent is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionPath {
    /// The built-in loop of requests to a model and calls of tools.
    Native,
    /// Agent Client Protocol over stdio.
    Acp,
    /// A program in a pseudo-terminal.
    Pty,
    /// A program on plain pipes, optionally with a JSON stream.
    Pipe,
    /// Does nothing, well: exists for benchmarks only.
    Noop,
}

impl ExecutionPath {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Acp => "acp",
            Self::Pty => "pty",
            Self::Pipe => "pipe",
            Self::Noop => "noop",
        }
    }
}

/// Where a running attempt is; progress only, never used for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The worktree is being made.
    Preparing,
    /// The agent is starting.
    Launching,
    /// The agent works.
    Turn,
    /// The agent asked for permission and waits.
    AwaitingPermission,
    /// What it left is being recorded.
    Snapshotting,
    /// The result is being stored.
    Finishing,
}

impl Phase {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Launching => "launching",
            Self::Turn => "turn",
            Self::AwaitingPermission => "awaiting_permission",
            Self::Snapshotting => "snapshotting",
            Self::Finishing => "finishing",
        }
    }
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The agent ended its turn well.
    Succeeded,
    /// Something went wrong.
    Failed {
        /// What kind of thing.
        class: ErrorClass,
        /// In words, for the person who has to act.
        message: String,
    },
    /// Somebody asked to cancel.
    Cancelled,
    /// The worker is stopping; the task goes back, the attempt does not count.
    Interrupted,
    /// The worker could not let the agent begin, through no fault of the task or the agent: the task
    /// goes back, the attempt does not count.
    NotBegun {
        /// What kind of thing; counts if it happens again and again.
        class: ErrorClass,
        /// In words.
        message: String,
    },
    /// The agent waits for its provider and gave its slot back: the task goes on after the wait from
    /// what is there, the attempt does not count.
    Yielded {
        /// Why it waits; counts if it happens again and again.
        class: ErrorClass,
        /// In words.
        message: String,
        /// How long.
        wait: Duration,
    },
    /// Another worker owns the task now; nothing more may be written.
    LeaseLost,
}

impl AttemptEnd {
    /// The name in `attempts.end_kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed {
                class: ErrorClass::Timeout,
                ..
            } => "timed_out",
            Self::Failed {
                class: ErrorClass::IdleTimeout,
                ..
            } => "stalled",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted | Self::NotBegun { .. } | Self::Yielded { .. } => "interrupted",
            Self::LeaseLost => "lease_lost",
        }
    }
}

/// How the agent's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The end of its stderr, lossily decoded.
    pub stderr_tail: String,
}

/// Facts about the agent that really runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Resolved program and arguments, the prompt left out.
    pub command: Vec<String>,
    /// What the agent says its version is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Model in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Mode in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_id: Option<String>,
    /// The agent's own session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_session_id: Option<String>,
    /// Set when a session was to be continued and could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_failed: Option<String>,
}
