//! Agents that the fleet knows and what its workers offer now.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};

crate::statements! {
    /// Every known agent with its freshest offer.
    LIST = "agent_list";
}

crate::record! {
    /// An agent that tasks can ask for.
    pub struct AgentView {
        /// Its name in agents.toml.
        pub name: String,
        /// ready, loading, error or unavailable.
        pub status: String,
        /// Why it is not ready, and what to do.
        pub error: Option<String>,
        /// Live workers that offer it.
        pub workers: i64,
        /// How it is driven.
        pub execution_path: Option<String>,
        /// Version it told.
        pub version: Option<String>,
        /// Models it offers.
        pub models: Value,
        /// Modes it offers.
        pub modes: Value,
        /// Thinking options it offers.
        pub thinking_options: Value,
        /// Commands it offers.
        pub commands: Value,
        /// What its protocol says it can do.
        pub capabilities: Value,
        /// When it was last probed.
        pub probed_at: Option<DateTime<Utc>>,
        /// When this stops being trusted.
        pub expires_at: Option<DateTime<Utc>>,
    }
}

/// Every known agent, by name.
pub async fn list(store: &Store) -> Result<Vec<AgentView>, StoreError> {
    let rows = store.query(&LIST, &[]).await?;
    rows.iter().map(AgentView::read).collect()
}
