//! What the attempts used, added up. Unknown stays absent: a sum says how many attempts told
//! nothing.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};

crate::statements! {
    /// Sums of usage by one dimension.
    SUMS = "usage_sums";
}

crate::record! {
    /// What a group of attempts used.
    pub struct UsageSum {
        /// The group: a task id, a name or a day.
        pub key: String,
        /// Attempts in the group.
        pub attempts: i64,
        /// Attempts in the group that told no tokens.
        pub unknown: i64,
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
        /// Currency of the cost; a group with two currencies has two rows.
        pub currency: Option<String>,
    }
}

/// What to add up.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// task, agent, model, project or day.
    pub by: String,
    /// Only of this task.
    pub task: Option<i64>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only of this project.
    pub project: Option<String>,
    /// Only since this time.
    pub since: Option<DateTime<Utc>>,
    /// Only of the last so many seconds.
    pub last_s: Option<f64>,
    /// At most so many groups.
    pub most: i64,
}

/// Sums by one dimension, the latest or largest group first.
pub async fn sums(store: &Store, filter: &UsageFilter) -> Result<Vec<UsageSum>, StoreError> {
    let rows = store
        .query(
            &SUMS,
            &[
                &filter.by,
                &filter.task,
                &filter.agent,
                &filter.project,
                &filter.since,
                &filter.last_s,
                &filter.most,
            ],
        )
        .await?;
    rows.iter().map(UsageSum::read).collect()
}
