//! The durable request and the five states it is shown in.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a task; all else is a waiting reason or a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Not begun, or waiting to be tried again.
    Pending,
    /// A worker holds a lease on it.
    Running,
    /// The agent ended its turn well; what it left, if anything, is a pending change.
    Completed,
    /// It will not be tried again.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the task has ended.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled => true,
            Self::Pending | Self::Running => false,
        }
    }

    /// Whether a task may go from this state to another, and by that name.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // claim; cancel before it began; no catalogue knows the agent
            (Self::Pending, Self::Running | Self::Cancelled | Self::Failed) => true,
            // give back or retry; the ends
            (Self::Running, Self::Pending) => true,
            (Self::Running, Self::Completed | Self::Failed | Self::Cancelled) => true,
            // requeue
            (Self::Completed | Self::Failed | Self::Cancelled, Self::Pending) => true,
            (Self::Pending | Self::Running, _) => false,
            (Self::Completed | Self::Failed | Self::Cancelled, _) => false,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
