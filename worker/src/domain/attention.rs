//! What waits for a person, as a filter of tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which tasks wait for a person; the kinds are those of `task_status.attention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionFilter {
    /// For whatever it is.
    Any,
    /// Its agent asks.
    Permission,
    /// Its approved change does not apply.
    Conflict,
    /// Its change is to be decided.
    Review,
    /// No live worker offers its agent.
    Blocked,
    /// It failed, and nothing came of it since.
    Failed,
}

impl AttentionFilter {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Any,
        Self::Permission,
        Self::Conflict,
        Self::Review,
        Self::Blocked,
        Self::Failed,
    ];

    /// The name that is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Permission => "permission",
            Self::Conflict => "conflict",
            Self::Review => "review",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }

    /// The kind it asks for; `None`: all of them.
    pub fn kind(self) -> Option<&'static str> {
        (self != Self::Any).then_some(self.as_str())
    }

    /// The filter with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}
