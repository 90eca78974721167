//! Requests to models as they were sent.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::claims::Lease;
use super::finish::clean;
use super::{Store, StoreError};
use crate::domain::ids::TaskId;

crate::statements! {
    /// A request and its body.
    KEEP = "capture_keep";
    /// What became of one.
    ENDED = "capture_ended";
    /// A page of those of a task.
    LIST = "capture_list";
    /// One with its body.
    SHOW = "capture_show";
    /// Those that are too old or too many.
    PRUNE = "capture_prune", slow;
    /// Bodies without a request.
    PRUNE_BODIES = "capture_prune_bodies", slow;
}

crate::record! {
    /// A request to a model that was kept as it was sent.
    pub struct RequestView {
        /// Attempt of the task.
        pub attempt: i16,
        /// Its number in the attempt, from 0: summaries and what failed counted.
        pub n: i32,
        /// The model, as provider/model.
        pub model: String,
        /// SHA-256 of its body, as it is stored.
        pub hash: String,
        /// Length of its body.
        pub bytes: i32,
        /// HTTP status, where it failed with one.
        pub status: Option<i32>,
        /// Why it failed; absent: it was answered, or has no end.
        pub error: Option<String>,
        /// When it was made.
        pub at: DateTime<Utc>,
        /// When its answer was complete, or it failed; absent: it broke off, or runs.
        pub ended_at: Option<DateTime<Utc>>,
    }
}

/// Keep a request of the attempt that holds the lease. Harmless to repeat.
pub async fn keep(
    store: &Store,
    lease: &Lease,
    (n, model): (i32, &str),
    body: &str,
) -> Result<(), StoreError> {
    let (task, token) = (lease.task().0, lease.token().0);
    store
        .query(&KEEP, &[&task, &token, &n, &clean(model), &clean(body)])
        .await?;
    Ok(())
}

/// Say what became of it.
pub async fn ended(
    store: &Store,
    lease: &Lease,
    n: i32,
    (status, error): (Option<i32>, Option<&str>),
) -> Result<(), StoreError> {
    let (task, token) = (lease.task().0, lease.token().0);
    let error = error.map(clean);
    store
        .query(&ENDED, &[&task, &token, &n, &status, &error])
        .await?;
    Ok(())
}

/// Requests of a task after this one, in order.
pub async fn list(
    store: &Store,
    task: TaskId,
    (attempt, n): (i16, i32),
    most: i64,
) -> Result<Vec<RequestView>, StoreError> {
    let rows = store.query(&LIST, &[&task.0, &attempt, &n, &most]).await?;
    rows.iter().map(RequestView::read).collect()
}

/// One of them with its body; without an attempt, of the last one that has it.
pub async fn show(
    store: &Store,
    task: TaskId,
    attempt: Option<i16>,
    n: i32,
) -> Result<Option<(RequestView, String)>, StoreError> {
    let row = store.query_opt(&SHOW, &[&task.0, &attempt, &n]).await?;
    row.map(|row| Ok((RequestView::read(&row)?, row.try_get("body")?)))
        .transpose()
}

/// Forget what is older than this, and the oldest ones beyond so many bytes.
pub async fn prune(store: &Store, keep: Duration, bytes: i64) -> Result<(), StoreError> {
    store.query(&PRUNE, &[&keep.as_secs_f64(), &bytes]).await?;
    store.query(&PRUNE_BODIES, &[]).await?;
    Ok(())
}
