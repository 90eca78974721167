//! What operations work with.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::broker::Broker;
use crate::store::Store;

/// Everything an operation may use, and who asks.
#[derive(Clone)]
pub struct OpContext {
    /// The database.
    pub store: Store,
    /// The streams.
    pub broker: Broker,
    /// Who asks; recorded with every write.
    pub actor: String,
    /// Starts agents to see what they offer; absent where no agents can run.
    pub prober: Option<Arc<dyn Prober>>,
}

impl OpContext {
    /// The same context for somebody else.
    pub fn for_actor(&self, actor: String) -> Self {
        Self {
            actor,
            ..self.clone()
        }
    }
}

/// Starts an agent to see whether it works and what it offers. The edge to the adapters, which
/// operations do not know.
pub trait Prober: Send + Sync {
    /// Probe the agent of this name; `None`: the catalogue here has no such agent.
    fn probe<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Option<ProbeReport>>;
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    /// The agent's name in agents.toml.
    pub name: String,
    /// ready, error or unavailable.
    pub status: String,
    /// Why it is not ready, and what to do.
    pub error: Option<String>,
    /// How it is driven.
    pub execution_path: String,
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
}
