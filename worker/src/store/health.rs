//! What the health of a fleet is judged by, as the database tells it.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};

crate::statements! {
    /// All of it, in one row.
    FACTS = "health_facts";
}

crate::record! {
    /// The database's side.
    pub struct HealthFacts {
        /// Version of Postgres, for people.
        pub version: String,
        /// The same as a number, such as 150018.
        pub version_num: i32,
        /// Its clock.
        pub now: DateTime<Utc>,
        /// Connections of everybody.
        pub connections: i64,
        /// Connections that it allows.
        pub max_connections: i32,
        /// Age of the oldest open transaction.
        pub oldest_transaction_s: f64,
        /// Transactions that were prepared and not ended.
        pub prepared_transactions: i64,
        /// Replication slots that nobody reads.
        pub idle_slots: i64,
        /// Workers that are there.
        pub live_workers: i64,
        /// Agents of all catalogues.
        pub known_agents: i64,
        /// Agents that a worker offers now.
        pub ready_agents: i64,
        /// Providers that nobody asks now.
        pub paused_providers: i64,
        /// Questions of agents that wait for a person.
        pub open_questions: i64,
    }
}

/// Read it.
pub async fn facts(store: &Store) -> Result<HealthFacts, StoreError> {
    let row = store.query_one(&FACTS, &[]).await?;
    HealthFacts::read(&row)
}
