//! What operations work with.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OpError;
use super::doctor::{Examiner, Finding};
use crate::broker::Broker;
use crate::store::Store;
use crate::store::listen::Listener;

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
    /// Looks at this machine; absent where no agents can run.
    pub examiner: Option<Arc<dyn Examiner>>,
}

impl OpContext {
    /// A context on this database, and what has to listen for its streams to be live. Connects
    /// with the first use.
    pub fn open(url: &str, connections: usize, actor: String) -> Result<(Self, Listener), OpError> {
        let store = Store::connect(url, connections)?;
        let listener = Listener::new();
        let context = Self {
            broker: Broker::new(store.clone(), listener.clone()),
            store,
            actor,
            prober: None,
            examiner: None,
        };
        Ok((context, listener))
    }

    /// A context where no database is: operations that need one fail for this reason.
    pub fn without_database(why: &OpError, actor: String) -> Result<Self, OpError> {
        let store = Store::absent(why.message.clone(), why.hint.clone())?;
        Ok(Self {
            broker: Broker::new(store.clone(), Listener::new()),
            store,
            actor,
            prober: None,
            examiner: None,
        })
    }

    /// The schema's version, when the database answers and what runs may go on with it. A newer one
    /// serves the programs before it: its migrations only add.
    pub async fn check(&self) -> Result<i64, OpError> {
        let found = self.store.schema_version().await?;
        let wanted = crate::store::migrate::wanted_version();
        if found >= wanted {
            return Ok(found);
        }
        Err(OpError::unavailable(format!(
            "the database has schema version {found}, this program needs {wanted}"
        ))
        .code("schema_mismatch"))
    }

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
    /// Whether the catalogue here has an agent of this name; an error means that there is none to look into.
    fn knows(&self, agent: &str) -> Result<bool, OpError>;

    /// Probe the agent of this name; `None`: the catalogue here has no such agent. What keeps it from
    /// being probed is in the report; an error means that there is no catalogue to look into.
    fn probe<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<Option<ProbeReport>, OpError>>;

    /// Run the agent of this name through small tasks, and say what works; likewise.
    fn check<'a>(
        &'a self,
        agent: &'a str,
        depth: CheckDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<Finding>>, OpError>>;
}

/// How much of an agent is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDepth {
    /// All of it; prompts cost tokens.
    Whole,
    /// Only what costs nothing.
    WithoutPrompt,
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
