//! How many tasks with a key run at a time.

use super::{Store, StoreError};

crate::statements! {
    /// A page of limits by key.
    LIST = "limit_list";
    /// Make or change the limit of a key.
    SET = "limit_set";
}

crate::record! {
    /// How many tasks with a key run at a time.
    pub struct LimitView {
        /// The key; `project:` and a name: the limit that the project has itself.
        pub key: String,
        /// At most so many at a time, 0: none; absent: no limit, as of a project that had one.
        pub max_running: Option<i32>,
        /// Tasks under it that run.
        pub running: i64,
        /// Tasks under it that were let out and wait for a slot; they take a place as those that run do.
        pub ready: i64,
        /// Tasks under it that wait, for a place or for their conversation.
        pub waiting: i64,
    }
}

/// Limits by key, after `after`, at most `most`.
pub async fn list(
    store: &Store,
    after: Option<&str>,
    most: i64,
) -> Result<Vec<LimitView>, StoreError> {
    let rows = store.query(&LIST, &[&after, &most]).await?;
    rows.iter().map(LimitView::read).collect()
}

/// Make or change the limit of a key.
pub async fn set(
    store: &Store,
    key: &str,
    max_running: i32,
    actor: &str,
) -> Result<LimitView, StoreError> {
    let row = store.query_one(&SET, &[&key, &max_running, &actor]).await?;
    LimitView::read(&row)
}
