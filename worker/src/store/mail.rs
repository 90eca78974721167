//! What people send into conversations: messages, and the wish that one be compacted.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::domain::ids::TaskId;

crate::statements! {
    /// Send a message.
    SEND = "message_send";
    /// Send a message, once for its key.
    SEND_ONCE = "message_send_once";
    /// Take one back.
    CANCEL = "message_cancel";
    /// A page of what was sent into a conversation.
    LIST = "message_list";
    /// Ask for a summary.
    COMPACT = "conversation_compact";
}

crate::record! {
    /// A message that somebody sent.
    pub struct MessageView {
        /// Its number.
        pub id: i64,
        /// The conversation: the id of the task that began it.
        pub conversation_id: i64,
        /// waiting, held, delivered, carried or cancelled.
        pub state: String,
        /// What was sent.
        pub text: String,
        /// Who sent it.
        pub sent_by: String,
        /// When.
        pub sent_at: DateTime<Utc>,
        /// The task that it waits for, was delivered in, or became.
        pub task_id: Option<i64>,
        /// The attempt in which it was delivered.
        pub attempt: Option<i16>,
        /// When it was delivered.
        pub delivered_at: Option<DateTime<Utc>>,
    }
}

/// What became of a message at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub id: i64,
    /// waiting, carried or held.
    pub state: String,
    /// The task that it waits for or became.
    pub task: Option<i64>,
    /// Whether it had been sent before.
    pub replayed: bool,
}

/// Send a message to the conversation of a task. A key that is taken there gives the first message as it is
/// now, and a `Duplicate` when that says something else.
pub async fn send(
    store: &Store,
    target: TaskId,
    text: &str,
    key: Option<&str>,
    actor: &str,
) -> Result<Sent, StoreError> {
    let row = match key {
        None => store.query_one(&SEND, &[&target.0, &text, &actor]).await?,
        Some(key) => {
            let params: super::Params<'_> = &[&target.0, &text, &key, &actor];
            store.query_one(&SEND_ONCE, params).await?
        }
    };
    Ok(Sent {
        id: row.try_get("message_id")?,
        state: row.try_get("state")?,
        task: row.try_get("task_id")?,
        replayed: key.is_some() && row.try_get("replayed")?,
    })
}

/// Take a message back that no agent has yet; says what it is now.
pub async fn cancel(store: &Store, id: i64, actor: &str) -> Result<String, StoreError> {
    let row = store.query_one(&CANCEL, &[&id, &actor]).await?;
    Ok(row.try_get("state")?)
}

/// Messages of a conversation after a number, in order.
pub async fn list(
    store: &Store,
    conversation: i64,
    after: i64,
    most: i64,
) -> Result<Vec<MessageView>, StoreError> {
    let params: super::Params<'_> = &[&conversation, &after, &most];
    let rows = store.query(&LIST, params).await?;
    rows.iter().map(MessageView::read).collect()
}

/// Ask that a summary take the place of what was said; says when that happens.
pub async fn compact(store: &Store, target: TaskId, actor: &str) -> Result<String, StoreError> {
    let row = store.query_one(&COMPACT, &[&target.0, &actor]).await?;
    Ok(row.try_get("at")?)
}
