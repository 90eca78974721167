//! Worker processes as operators see them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::limits::LEASE_TTL;

crate::statements! {
    /// Every worker that was seen lately.
    LIST = "worker_list";
    /// It takes no more.
    DRAIN = "worker_drain";
    /// It takes tasks again.
    RESUME = "worker_resume";
}

crate::record! {
    /// A worker process.
    pub struct WorkerView {
        /// Its identity, new at each start.
        pub id: Uuid,
        /// Host name, or the name it was given.
        pub name: String,
        /// Version of the program.
        pub version: String,
        /// live, draining (takes nothing more), drained (and runs nothing) or lost.
        pub status: String,
        /// Attempts it may run at a time.
        pub slots: i32,
        /// Best rung of the sandbox ladder on its machine: bubblewrap, landlock+uid, landlock or none.
        pub sandbox: String,
        /// Attempts it runs now.
        pub running: i64,
        /// Agents it offers and that are ready.
        pub agents: Vec<String>,
        /// When it started.
        pub started_at: DateTime<Utc>,
        /// When it last showed that it lives.
        pub last_seen: DateTime<Utc>,
        /// Since when it takes no tasks because somebody said so.
        pub held_at: Option<DateTime<Utc>>,
        /// Who said so.
        pub held_by: Option<String>,
    }
}

/// Workers, the latest start first.
pub async fn list(store: &Store) -> Result<Vec<WorkerView>, StoreError> {
    let rows = store.query(&LIST, &[&LEASE_TTL.as_secs_f64()]).await?;
    rows.iter().map(WorkerView::read).collect()
}

/// Let it finish what it has and take no more. Says whether that is news.
pub async fn drain(store: &Store, worker: Uuid, actor: &str) -> Result<bool, StoreError> {
    let row = store.query_one(&DRAIN, &[&worker, &actor]).await?;
    Ok(row.try_get("news")?)
}

/// Let it take tasks again. Says whether that is news.
pub async fn resume(store: &Store, worker: Uuid, actor: &str) -> Result<bool, StoreError> {
    let row = store.query_one(&RESUME, &[&worker, &actor]).await?;
    Ok(row.try_get("news")?)
}
