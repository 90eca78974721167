//! What operations work with.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::OpError;
use super::doctor::{Examiner, Finding};
use crate::broker::Broker;
use crate::store::Store;
use crate::store::listen::Listener;

pub use crate::domain::lookup::{CheckDepth, ProbeReport};

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
    /// When whoever asks is told that it takes too long; absent: they wait.
    pub patience: Option<Duration>,
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
            patience: None,
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
            patience: None,
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

    /// The same context for somebody else, who is told after so long that it takes too long.
    pub fn for_caller(&self, actor: String, patience: Duration) -> Self {
        Self {
            actor,
            patience: Some(patience),
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
