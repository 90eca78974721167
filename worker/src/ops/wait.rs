//! Waiting for the end of a task.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::task::{self, TaskView};
use super::values::{Span, TaskRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::limits;
use crate::domain::scope::Scope;

/// How long one call waits when nobody says.
const USUAL: Duration = Duration::from_secs(30);

/// Wait until a task has ended. Ask again when it has not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WaitTask {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// How long to wait at most; on the command line else for ever, in other calls 30s, and 50s at most
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// A task after the wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitedTask {
    /// Whether it has ended; if not, ask again.
    pub ended: bool,
    /// Where it stands.
    #[serde(flatten)]
    pub task: TaskView,
}

impl Op for WaitTask {
    const SPEC: Spec = Spec {
        name: "task.wait",
        method: Method::Get,
        path: "/tasks/{id}/wait",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Wait until a task has ended, or the time is over",
    };
    type Output = WaitedTask;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Ten seconds at most",
            cli: &["42", "--timeout", "10s"],
            input: json!({"id": 42, "timeout": "10s"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let wanted = self.timeout.map_or(USUAL, |span| span.0);
        if wanted > limits::WAIT_MAX {
            let most = limits::WAIT_MAX.as_secs();
            return Err(OpError::invalid(format!("one call waits {most}s at most"))
                .hint("Ask again when the task has not ended by then."));
        }
        let task = task::existing(&context.store, self.id.0).await?;
        if task.ended_at.is_some() {
            return Ok(WaitedTask { ended: true, task });
        }
        let ended = context.broker.ended(self.id.0, wanted).await?;
        let task = task::existing(&context.store, self.id.0).await?;
        Ok(WaitedTask { ended, task })
    }
}
