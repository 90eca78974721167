//! Why an attempt did not succeed, as one closed list that retries, exit codes and people share.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The class of an attempt's failure; stored as its snake_case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The agent is not in a catalogue, not installed, or its probe failed.
    AgentUnavailable,
    /// The agent's program could not be started.
    SpawnFailed,
    /// The agent broke its protocol: garbage, an oversized line, an early exit.
    Protocol,
    /// The agent is not logged in, or its credentials were refused.
    Auth,
    /// The provider behind the agent asked to wait.
    RateLimited,
    /// The agent or its model declined the work.
    Refused,
    /// The agent ended the turn with an error of its own (exit code, error text, token limit).
    AgentFailed,
    /// A mode, model or thinking option that the agent does not offer.
    InvalidOption,
    /// The agent did not begin its turn in time.
    StartTimeout,
    /// The attempt used up its total time.
    Timeout,
    /// The agent was silent for too long.
    IdleTimeout,
    /// A token, cost or size budget was used up.
    Budget,
    /// Somebody asked to cancel.
    Cancelled,
    /// The worker that ran the attempt disappeared.
    Orphaned,
    /// The project, its repository or the worktree cannot be used.
    Workspace,
    /// What the agent left could not be recorded.
    DiffFailed,
    /// A fault of ours.
    Internal,
}

impl ErrorClass {
    /// Every class, for tables, documentation and tests.
    pub const ALL: [Self; 17] = [
        Self::AgentUnavailable,
        Self::SpawnFailed,
        Self::Protocol,
        Self::Auth,
        Self::RateLimited,
        Self::Refused,
        Self::AgentFailed,
        Self::InvalidOption,
        Self::StartTimeout,
        Self::Timeout,
        Self::IdleTimeout,
        Self::Budget,
        Self::Cancelled,
        Self::Orphaned,
        Self::Workspace,
        Self::DiffFailed,
        Self::Internal,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentUnavailable => "agent_unavailable",
            Self::SpawnFailed => "spawn_failed",
            Self::Protocol => "protocol",
            Self::Auth => "auth",
            Self::RateLimited => "rate_limited",
            Self::Refused => "refused",
            Self::AgentFailed => "agent_failed",
            Self::InvalidOption => "invalid_option",
            Self::StartTimeout => "start_timeout",
            Self::Timeout => "timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
            Self::Orphaned => "orphaned",
            Self::Workspace => "workspace",
            Self::DiffFailed => "diff_failed",
            Self::Internal => "internal",
        }
    }

    /// The class with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// Whether another attempt may fare better without a person doing something first.
    pub fn retryable(self) -> bool {
        match self {
            Self::SpawnFailed
            | Self::Protocol
            | Self::RateLimited
            | Self::StartTimeout
            | Self::IdleTimeout
            | Self::Orphaned
            | Self::DiffFailed
            | Self::Internal => true,
            Self::AgentUnavailable
            | Self::Auth
            | Self::Refused
            | Self::AgentFailed
            | Self::InvalidOption
            | Self::Timeout
            | Self::Budget
            | Self::Cancelled
            | Self::Workspace => false,
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
