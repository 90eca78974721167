//! Permission requests from the attempt's side: ask, look, close.

use serde_json::Value;
use std::time::Duration;

use super::claims::Lease;
use super::{Store, StoreError};

crate::statements! {
    ASK_PERMISSION = "ask_permission";
    NOTE_PERMISSION = "note_permission";
    PERMISSION_STATUS = "permission_status";
    CLOSE_PERMISSION = "close_permission";
}

/// A question as it is stored.
#[derive(Clone, Debug)]
pub struct Question {
    /// Kind of the tool.
    pub kind: String,
    /// One line for people.
    pub title: String,
    /// The rest, for people.
    pub detail: Value,
    /// What the agent offers.
    pub options: Value,
}

/// Store a question for a person; `None`: the lease is lost.
pub async fn ask(
    store: &Store,
    lease: &Lease,
    question: &Question,
    deadline: Duration,
) -> Result<Option<i64>, StoreError> {
    let ms = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    let Question {
        kind,
        title,
        detail,
        options,
    } = question;
    let params: super::Params<'_> = &[
        &lease.task().0,
        &lease.token().0,
        kind,
        title,
        detail,
        options,
        &ms,
    ];
    let row = store.query_opt(&ASK_PERMISSION, params).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

/// Record a question that policy answered.
pub async fn note(
    store: &Store,
    lease: &Lease,
    question: &Question,
    status: &str,
) -> Result<Option<i64>, StoreError> {
    let Question {
        kind,
        title,
        detail,
        options,
    } = question;
    let params: super::Params<'_> = &[
        &lease.task().0,
        &lease.token().0,
        kind,
        title,
        detail,
        options,
        &status,
    ];
    let row = store.query_opt(&NOTE_PERMISSION, params).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

/// Where a question stands: status, and who decided.
pub async fn status(store: &Store, id: i64) -> Result<(String, Option<String>), StoreError> {
    let row = store.query_one(&PERMISSION_STATUS, &[&id]).await?;
    Ok((row.try_get("status")?, row.try_get("decided_by")?))
}

/// Close a question that nobody answered. `false`: an answer came first.
pub async fn close(store: &Store, id: i64, status: &str, by: &str) -> Result<bool, StoreError> {
    Ok(store
        .query_opt(&CLOSE_PERMISSION, &[&id, &status, &by])
        .await?
        .is_some())
}
