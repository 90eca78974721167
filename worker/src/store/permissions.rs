//! Questions of agents, and the answers of people.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};
use crate::domain::ids::PermissionId;

crate::statements! {
    /// A page of permission requests, newest first.
    LIST = "permission_list";
    /// Answer one.
    ANSWER = "permission_answer";
}

crate::record! {
    /// A question of an agent during a run.
    pub struct PermissionView {
        /// Its number.
        pub id: i64,
        /// Task that waits for the answer.
        pub task_id: i64,
        /// Attempt that waits for the answer.
        pub attempt: i16,
        /// Agent that asks.
        pub agent: String,
        /// What kind of thing it wants to do.
        pub kind: String,
        /// What it wants to do, in its words.
        pub title: String,
        /// The facts it gave.
        pub detail: Value,
        /// pending, allowed, denied, expired or cancelled.
        pub status: String,
        /// Who answered.
        pub decided_by: Option<String>,
        /// Why.
        pub note: Option<String>,
        /// When it asked.
        pub requested_at: DateTime<Utc>,
        /// When the question answers itself.
        pub deadline_at: Option<DateTime<Utc>>,
        /// When it was answered.
        pub decided_at: Option<DateTime<Utc>>,
    }
}

/// Which requests to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct PermissionFilter<'a> {
    /// Only with this status.
    pub status: Option<&'a str>,
    /// Only of this task.
    pub task: Option<i64>,
    /// Only older than this one.
    pub before: Option<i64>,
    /// At most so many.
    pub most: i64,
}

/// Requests, newest first.
pub async fn list(
    store: &Store,
    filter: PermissionFilter<'_>,
) -> Result<Vec<PermissionView>, StoreError> {
    let before = filter.before.unwrap_or(i64::MAX);
    let rows = store
        .query(
            &LIST,
            &[&before, &filter.status, &filter.task, &filter.most],
        )
        .await?;
    rows.iter().map(PermissionView::read).collect()
}

/// Answer a request with `allow` or `deny`.
pub async fn answer(
    store: &Store,
    id: PermissionId,
    answer: &str,
    why: Option<&str>,
    actor: &str,
) -> Result<(), StoreError> {
    store
        .query_one(&ANSWER, &[&id.0, &answer, &actor, &why])
        .await?;
    Ok(())
}
