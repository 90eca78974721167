//! Agents that the fleet knows and what its workers offer now.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Store, StoreError};

crate::statements! {
    /// Every known agent with its freshest offer.
    LIST = "agent_list";
    /// What each worker says of it.
    OFFERS = "agent_offers";
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
    let rows = store.query(&LIST, &[&None::<&str>]).await?;
    rows.iter().map(AgentView::read).collect()
}

/// The agent of this name, if anybody knows one.
pub async fn get(store: &Store, name: &str) -> Result<Option<AgentView>, StoreError> {
    let row = store.query_opt(&LIST, &[&Some(name)]).await?;
    row.as_ref().map(AgentView::read).transpose()
}

crate::record! {
    /// What one worker says of an agent.
    pub struct OfferView {
        /// The worker.
        pub worker_id: Uuid,
        /// Its name.
        pub worker: Option<String>,
        /// ready, loading, error or unavailable.
        pub status: String,
        /// Why it is not ready there.
        pub error: Option<String>,
        /// Version it told there.
        pub version: Option<String>,
        /// How many tasks it takes there at a time.
        pub slots: i32,
        /// The agent that runs in its place when nobody offers it.
        pub fallback: Option<String>,
        /// When it was last probed there.
        pub probed_at: DateTime<Utc>,
        /// When this stops being trusted.
        pub expires_at: DateTime<Utc>,
    }
}

/// What each worker says of an agent, those that offer it first.
pub async fn offers(store: &Store, name: &str) -> Result<Vec<OfferView>, StoreError> {
    let rows = store.query(&OFFERS, &[&name]).await?;
    rows.iter().map(OfferView::read).collect()
}
