//! Questions of an agent during a run, and who answers them.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an agent asks to be allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PermissionAsk {
    /// Id of the tool call it is about, when it is about one.
    pub tool_call_id: Option<String>,
    /// Kind of the tool (edit, execute, fetch, …) or `other`.
    pub kind: String,
    /// One line for people.
    pub title: String,
    /// The rest, for people: command, path, input; cut at `TOOL_TEXT_BYTES_MAX`.
    pub detail: Value,
    /// It is not known to be about files in the worktree only: it names another one, or none. What
    /// is changed elsewhere no review shows.
    pub outside: bool,
    /// Options the agent offers, as they came; answers are chosen by kind, never by id.
    pub options: Value,
}

/// The answer. It is for this once, always: "always" answers outlive the attempt in the agents'
/// own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionAnswer {
    /// Allow once.
    Allow,
    /// Refuse once.
    Deny,
    /// The attempt is ending: tell the agent that nobody answers.
    Cancelled,
}

/// Answers an agent's questions: policy, a person, or the deadline. Implemented by `run`.
pub trait Permission: Send + Sync {
    /// Wait for the answer. Resolves to `Cancelled` as soon as the attempt is cancelled.
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer>;
}
