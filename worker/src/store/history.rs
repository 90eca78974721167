//! What happened to a task: attempts, what they used, the numbered stream, the conversation.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};
use crate::domain::ids::TaskId;

crate::statements! {
    /// The attempts of a task with what they used.
    ATTEMPTS = "task_attempts";
    /// A page of a conversation.
    ITEMS = "conversation_items";
    /// A page of conversations.
    CONVERSATIONS = "conversation_list";
    /// Its tasks.
    CONVERSATION_TASKS = "conversation_tasks";
    /// How many messages wait in it.
    CONVERSATION_WAITING = "conversation_waiting";
    /// What it used.
    CONVERSATION_USAGE = "conversation_usage";
}

crate::record! {
    /// A conversation: tasks that go on from each other.
    pub struct ConversationView {
        /// Its number: that of the task that began it.
        pub id: i64,
        /// Its project.
        pub project: String,
        /// The agent of its last task.
        pub agent: String,
        /// How many tasks it has.
        pub tasks: i64,
        /// Its last task.
        pub last_task_id: i64,
        /// Where that stands.
        pub last_state: String,
        /// When it began.
        pub began_at: DateTime<Utc>,
        /// When its last task was submitted.
        pub last_at: DateTime<Utc>,
        /// Who began it.
        pub submitted_by: String,
        /// The first line of what it began with.
        pub title: String,
        /// What waits for a person in any of its tasks: permission, conflict, review, blocked or failed, the
        /// first of them; absent: nothing.
        pub attention: Option<String>,
    }
}

/// Conversations that began before this one, newest first.
pub async fn conversations(
    store: &Store,
    before: i64,
    project: Option<&str>,
    most: i64,
) -> Result<Vec<ConversationView>, StoreError> {
    let rows = store
        .query(&CONVERSATIONS, &[&i64::MIN, &before, &project, &most])
        .await?;
    rows.iter().map(ConversationView::read).collect()
}

/// The conversation that began with this task.
pub async fn conversation(store: &Store, id: i64) -> Result<Option<ConversationView>, StoreError> {
    let after = id.saturating_add(1);
    let params: super::Params<'_> = &[&id, &after, &None::<&str>, &1_i64];
    let row = store.query_opt(&CONVERSATIONS, params).await?;
    row.as_ref().map(ConversationView::read).transpose()
}

crate::record! {
    /// A task of a conversation.
    pub struct ConversationTask {
        /// Its number.
        pub id: i64,
        /// pending, running, completed, failed or cancelled.
        pub state: String,
        /// What it waits for, while it is pending.
        pub waiting_reason: Option<String>,
        /// The agent that was asked for.
        pub agent: String,
        /// The model that was asked for or used.
        pub model: Option<String>,
        /// Who submitted it.
        pub submitted_by: String,
        /// When it was submitted.
        pub created_at: DateTime<Utc>,
        /// When it ended.
        pub ended_at: Option<DateTime<Utc>>,
        /// Why it failed, as a class.
        pub error_class: Option<String>,
        /// Tokens of all attempts; absent: unknown.
        pub cost_tokens: Option<i64>,
        /// Its latest pending change.
        pub change_id: Option<i64>,
        /// Where that change stands.
        pub change_state: Option<String>,
        /// What waits for a person: permission, conflict, review, blocked or failed; absent: nothing.
        pub attention: Option<String>,
        /// The first line of what its agent was to do.
        pub title: String,
    }
}

/// The newest tasks of a conversation, at most so many, in order.
pub async fn conversation_tasks(
    store: &Store,
    id: i64,
    most: i64,
) -> Result<Vec<ConversationTask>, StoreError> {
    let rows = store.query(&CONVERSATION_TASKS, &[&id, &most]).await?;
    rows.iter().map(ConversationTask::read).collect()
}

/// How many messages of a conversation no agent has yet.
pub async fn conversation_waiting(store: &Store, id: i64) -> Result<i64, StoreError> {
    let row = store.query_one(&CONVERSATION_WAITING, &[&id]).await?;
    Ok(row.try_get("waiting")?)
}

crate::record! {
    /// What the attempts of a conversation used, in one currency.
    pub struct ConversationUsage {
        /// Attempts that are counted.
        pub attempts: i64,
        /// Those of them that told no tokens.
        pub unknown: i64,
        /// All tokens; absent: unknown.
        pub total_tokens: Option<i64>,
        /// Cost, exact; absent: unknown.
        pub cost: Option<String>,
        /// Currency of the cost; absent: these told none.
        pub currency: Option<String>,
    }
}

/// What the attempts of a conversation used, by currency.
pub async fn conversation_usage(
    store: &Store,
    id: i64,
) -> Result<Vec<ConversationUsage>, StoreError> {
    let rows = store.query(&CONVERSATION_USAGE, &[&id]).await?;
    rows.iter().map(ConversationUsage::read).collect()
}

crate::record! {
    /// One try at a task, and what it used.
    pub struct AttemptView {
        /// Its number, from 1.
        pub attempt: i16,
        /// The agent that ran.
        pub agent: String,
        /// The agent that was asked for, when another one ran.
        pub fallback_from: Option<String>,
        /// How the agent was driven.
        pub execution_path: String,
        /// Version the agent told.
        pub agent_version: Option<String>,
        /// Model that was used.
        pub model: Option<String>,
        /// Rung of the sandbox ladder that it ran on: bubblewrap, landlock+uid, landlock or none.
        pub sandbox: String,
        /// What it could reach over the network: full, gateway or none.
        pub network: String,
        /// Commit it started from.
        pub base_commit: Option<String>,
        /// When it began.
        pub started_at: DateTime<Utc>,
        /// When the agent said its first word.
        pub first_output_at: Option<DateTime<Utc>>,
        /// When it ended.
        pub ended_at: Option<DateTime<Utc>>,
        /// How it ended.
        pub end_kind: Option<String>,
        /// Class of its error.
        pub error_class: Option<String>,
        /// Its error in words.
        pub error: Option<String>,
        /// Exit code of the agent's process.
        pub exit_code: Option<i32>,
        /// Signal that ended the agent's process.
        pub exit_signal: Option<i32>,
        /// The end of what the agent wrote to stderr.
        pub stderr_tail: Option<String>,
        /// Commit that holds what it left.
        pub result_commit: Option<String>,
        /// Where its figures come from: metered, reported or none.
        pub usage_source: Option<String>,
        /// Prompt tokens that were not cached; absent: unknown.
        pub input_tokens: Option<i64>,
        /// Answer tokens; absent: unknown.
        pub output_tokens: Option<i64>,
        /// Prompt tokens read from a cache; absent: unknown.
        pub cache_read_tokens: Option<i64>,
        /// Prompt tokens written to a cache; absent: unknown.
        pub cache_write_tokens: Option<i64>,
        /// Reasoning tokens; absent: unknown.
        pub reasoning_tokens: Option<i64>,
        /// All tokens; absent: unknown.
        pub total_tokens: Option<i64>,
        /// Cost, exact; absent: unknown.
        pub cost: Option<String>,
        /// Currency of the cost.
        pub currency: Option<String>,
    }
}

crate::record! {
    /// One thing said or done in a conversation.
    pub struct ItemView {
        /// Task whose turn it belongs to.
        pub task_id: i64,
        /// Attempt of that task.
        pub attempt: i16,
        /// Number within the attempt.
        pub n: i32,
        /// Turn within the attempt.
        pub turn: i16,
        /// user, text, thinking, tool_call, plan, notice or error.
        pub kind: String,
        /// What was said.
        pub text: Option<String>,
        /// Facts of a tool call, a plan and the like.
        pub detail: Option<Value>,
        /// When it began.
        pub at: DateTime<Utc>,
        /// When it was complete.
        pub ended_at: Option<DateTime<Utc>>,
    }
}

/// Attempts of a task, first to last.
pub async fn attempts(store: &Store, task: TaskId) -> Result<Vec<AttemptView>, StoreError> {
    let rows = store.query(&ATTEMPTS, &[&task.0]).await?;
    rows.iter().map(AttemptView::read).collect()
}

/// A place in a conversation: task, attempt, item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemPlace {
    /// Task of the item.
    pub task_id: i64,
    /// Attempt of the item.
    pub attempt: i16,
    /// Number of the item.
    pub n: i32,
}

/// Items of a conversation after a place, in order.
pub async fn items(
    store: &Store,
    conversation: i64,
    after: ItemPlace,
    most: i64,
) -> Result<Vec<ItemView>, StoreError> {
    let rows = store
        .query(
            &ITEMS,
            &[
                &conversation,
                &after.task_id,
                &after.attempt,
                &after.n,
                &most,
            ],
        )
        .await?;
    rows.iter().map(ItemView::read).collect()
}
