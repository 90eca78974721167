//! The stored stream of a task: numbered records of what happened.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One record of a task's stream as readers get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskEvent {
    /// Number in the stream of the task: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// Attempt that caused it; 0: none did.
    pub attempt: i16,
    /// What happened, see the list in docs/events.md.
    pub kind: String,
    /// Its facts.
    pub payload: Value,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

impl TaskEvent {
    /// Whether this is the one record that ends the task's run.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "task_completed" | "task_failed" | "task_cancelled"
        )
    }
}
