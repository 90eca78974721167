//! Worker processes as operators see them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::limits::LEASE_TTL;

crate::statements! {
    /// Every worker that was seen lately.
    LIST = "worker_list";
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
        /// live, draining or lost.
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
    }
}

/// Workers, the latest start first.
pub async fn list(store: &Store) -> Result<Vec<WorkerView>, StoreError> {
    let rows = store.query(&LIST, &[&LEASE_TTL.as_secs_f64()]).await?;
    rows.iter().map(WorkerView::read).collect()
}
