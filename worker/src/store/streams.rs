//! The stream of a task in rows, and the items of a conversation.

use serde_json::Value;

use crate::domain::event::TaskEvent;
use crate::domain::ids::TaskId;

use super::{Store, StoreError};

crate::statements! {
    APPEND_EVENTS = "append_events";
    PUT_ITEMS = "put_items";
    READ_EVENTS = "read_events";
    STREAM_IS_TOLD = "stream_is_told";
    NOTIFY = "notify";
}

/// One event of a running attempt on its way into the stream.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Task of the stream.
    pub task: i64,
    /// Token of the attempt.
    pub token: i64,
    /// Number in the stream.
    pub seq: i64,
    /// The attempt.
    pub attempt: i16,
    /// What happened.
    pub kind: &'static str,
    /// Its facts.
    pub payload: Value,
}

/// One finished piece of a conversation.
#[derive(Clone, Debug)]
pub struct ItemRow {
    /// Task it belongs to.
    pub task: i64,
    /// Token of the attempt.
    pub token: i64,
    /// The attempt.
    pub attempt: i16,
    /// Number within the attempt; 0 is the prompt.
    pub n: i32,
    /// Conversation it belongs to.
    pub conversation: i64,
    /// text, thinking, tool_call, plan, notice or error.
    pub kind: &'static str,
    /// Its text.
    pub text: Option<String>,
    /// Its facts.
    pub detail: Option<Value>,
}

/// Append events and items in one transaction. Returns the tokens that still hold their lease;
/// rows of the others were left out.
pub async fn append(
    store: &Store,
    events: &[EventRow],
    items: &[ItemRow],
) -> Result<Vec<i64>, StoreError> {
    let task: Vec<i64> = events.iter().map(|e| e.task).collect();
    let token: Vec<i64> = events.iter().map(|e| e.token).collect();
    let seq: Vec<i64> = events.iter().map(|e| e.seq).collect();
    let attempt: Vec<i16> = events.iter().map(|e| e.attempt).collect();
    let kind: Vec<&str> = events.iter().map(|e| e.kind).collect();
    let payload: Vec<&Value> = events.iter().map(|e| &e.payload).collect();
    let tx = store.begin().await?;
    let rows = tx
        .query(
            &APPEND_EVENTS,
            &[&task, &token, &seq, &attempt, &kind, &payload],
        )
        .await?;
    let held = rows
        .iter()
        .map(|row| row.try_get("token"))
        .collect::<Result<Vec<i64>, _>>()?;
    put_items(&tx, items).await?;
    let mut woken: Vec<i64> = task;
    woken.sort_unstable();
    woken.dedup();
    for task in woken {
        tx.query(&NOTIFY, &[&format!("events {task}")]).await?;
    }
    tx.commit().await?;
    Ok(held)
}

async fn put_items(tx: &super::Tx, items: &[ItemRow]) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let task: Vec<i64> = items.iter().map(|i| i.task).collect();
    let token: Vec<i64> = items.iter().map(|i| i.token).collect();
    let attempt: Vec<i16> = items.iter().map(|i| i.attempt).collect();
    let n: Vec<i32> = items.iter().map(|i| i.n).collect();
    let conversation: Vec<i64> = items.iter().map(|i| i.conversation).collect();
    let kind: Vec<&str> = items.iter().map(|i| i.kind).collect();
    let text: Vec<Option<&str>> = items.iter().map(|i| i.text.as_deref()).collect();
    let detail: Vec<Option<&Value>> = items.iter().map(|i| i.detail.as_ref()).collect();
    let params: super::Params<'_> = &[
        &task,
        &token,
        &attempt,
        &n,
        &conversation,
        &kind,
        &text,
        &detail,
    ];
    tx.query(&PUT_ITEMS, params).await?;
    Ok(())
}

/// A page of a task's stream after a number.
pub async fn read(
    store: &Store,
    task: TaskId,
    after_seq: i64,
    most: i32,
) -> Result<Vec<TaskEvent>, StoreError> {
    let rows = store
        .query(&READ_EVENTS, &[&task.0, &after_seq, &most])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(TaskEvent {
                seq: row.try_get("seq")?,
                attempt: row.try_get("attempt")?,
                kind: row.try_get("kind")?,
                payload: row.try_get("payload")?,
                at: row.try_get("at")?,
            })
        })
        .collect()
}

/// Whether a reader that has everything up to this number has the end of the task too.
pub async fn is_told(store: &Store, task: TaskId, up_to: i64) -> Result<bool, StoreError> {
    Ok(store
        .query_one(&STREAM_IS_TOLD, &[&task.0, &up_to])
        .await?
        .try_get("told")?)
}
