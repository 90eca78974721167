//! The requests to models that a task made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page, Parts};
use super::task;
use super::values::TaskRef;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::steps::{self, StepPlace};

pub use crate::store::steps::StepView;

/// List the requests to models that a task made, with tokens, cost and times.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskSteps {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Steps of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = STEP))]
    pub cursor: Option<String>,
}

impl Op for TaskSteps {
    const SPEC: Spec = Spec {
        name: "task.steps",
        method: Method::Get,
        path: "/tasks/{id}/steps",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List the requests to models that a task made, with tokens, cost and times",
    };
    type Output = Page<StepView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The page after step 19 of attempt 1",
            cli: &["42", "--limit", "20", "--cursor", "1.19.model"],
            input: json!({"id": 42, "limit": 20, "cursor": "1.19.model"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = self.cursor.as_deref().map(place).transpose()?;
        let after = after.unwrap_or_default();
        let rows = steps::list(&context.store, self.id.0, &after, size + 1).await?;
        if rows.is_empty() {
            task::existing(&context.store, self.id.0).await?;
        }
        Ok(Page::cut(rows, size, |step| {
            format!("{}.{}.{}", step.attempt, step.n, step.kind)
        }))
    }
}

/// What the cursor of a step looks like: attempt, number and kind.
const STEP: &str = r"^[0-9]{1,4}\.[0-9]{1,9}\.(model|compaction)$";

fn place(cursor: &str) -> Result<StepPlace, OpError> {
    let mut parts = Parts::of(cursor, '.');
    let place = StepPlace {
        attempt: parts.figure()?,
        n: parts.figure()?,
        kind: parts.word(&["model", "compaction"])?,
    };
    parts.whole(place)
}
