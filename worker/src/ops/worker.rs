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
