//! Worker processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::workers_list;

pub use crate::store::workers_list::WorkerView;

/// List workers, the latest start first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListWorkers {}

impl Op for ListWorkers {
    const SPEC: Spec = Spec {
        name: "worker.list",
        method: Method::Get,
        path: "/workers",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List workers with their slots and agents",
    };
    type Output = Page<WorkerView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "All of them",
            cli: &[],
            input: json!({}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        Ok(Page::whole(workers_list::list(&context.store).await?))
    }
}

/// Let a worker finish what it has and take no more tasks, until it is resumed or starts anew.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DrainWorker {
    /// The worker: its name when no other has it, or its id or the beginning of it
    #[arg(value_name = "WORKER")]
    pub worker: String,
}

/// Let a drained worker take tasks again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ResumeWorker {
    /// The worker: its name when no other has it, or its id or the beginning of it
    #[arg(value_name = "WORKER")]
    pub worker: String,
}

/// A worker that was told whether to take tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToldWorker {
    /// Whether it had been told otherwise before.
    pub news: bool,
    /// The worker.
    #[serde(flatten)]
    pub worker: WorkerView,
}

impl Op for DrainWorker {
    const SPEC: Spec = Spec {
        name: "worker.drain",
        method: Method::Post,
        path: "/workers/{worker}/drain",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Let a worker finish what it has and take no more tasks",
    };
    type Output = ToldWorker;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Before its machine goes down",
            cli: &["build-7"],
            input: json!({"worker": "build-7"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let found = one(context, &self.worker).await?;
        let news = workers_list::drain(&context.store, found.id, &context.actor).await?;
        told(context, found, news).await
    }
}

impl Op for ResumeWorker {
    const SPEC: Spec = Spec {
        name: "worker.resume",
        method: Method::Post,
        path: "/workers/{worker}/resume",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Let a drained worker take tasks again",
    };
    type Output = ToldWorker;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Its machine is well again",
            cli: &["build-7"],
            input: json!({"worker": "build-7"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let found = one(context, &self.worker).await?;
        let news = workers_list::resume(&context.store, found.id, &context.actor).await?;
        told(context, found, news).await
    }
}

/// The worker that is meant; of several with a name only the living ones count.
pub(super) async fn one(context: &OpContext, wanted: &str) -> Result<WorkerView, OpError> {
    let all = workers_list::list(&context.store).await?;
    let fits = |worker: &&WorkerView| {
        let id = worker.id.to_string();
        worker.name == wanted || (wanted.len() >= 4 && id.starts_with(wanted))
    };
    let named: Vec<&WorkerView> = all.iter().filter(fits).collect();
    let living: Vec<&WorkerView> = named
        .iter()
        .filter(|worker| worker.status != "lost")
        .copied()
        .collect();
    match (living.as_slice(), named.is_empty()) {
        ([worker], _) => Ok((*worker).clone()),
        ([], true) => Err(OpError::not_found(format!("there is no worker {wanted:?}"))
            .hint("dispatch workers list shows them.")),
        ([], false) => Err(OpError::wrong_state(format!("worker {wanted:?} is lost"))
            .hint("Its tasks are given to others; there is nothing to tell it.")),
        (several, _) => {
            let ids: Vec<String> = several.iter().map(|w| w.id.to_string()).collect();
            Err(OpError::invalid(format!(
                "{} workers are called {wanted:?}: {}",
                several.len(),
                ids.join(", ")
            ))
            .code("ambiguous")
            .hint("Name the id of one."))
        }
    }
}

async fn told(context: &OpContext, found: WorkerView, news: bool) -> Result<ToldWorker, OpError> {
    let all = workers_list::list(&context.store).await?;
    let now = all.into_iter().find(|worker| worker.id == found.id);
    Ok(ToldWorker {
        news,
        worker: now.unwrap_or(found),
    })
}
