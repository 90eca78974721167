//! Requests to models as they were sent, of agents whose entry asks for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page, Parts};
use super::task;
use super::values::TaskRef;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::captures;

pub use crate::store::captures::RequestView;

/// List the requests to models that were kept as they were sent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListRequests {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Requests of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = CURSOR))]
    pub cursor: Option<String>,
}

impl Op for ListRequests {
    const SPEC: Spec = Spec {
        name: "task.requests",
        method: Method::Get,
        path: "/tasks/{id}/requests",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "List the requests to models that were kept as they were sent (native.capture_requests)",
    };
    type Output = Page<RequestView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Of one task",
            cli: &["42", "--limit", "20"],
            input: json!({"id": 42, "limit": 20}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = self.cursor.as_deref().map(place).transpose()?;
        let after = after.unwrap_or((0, -1));
        let rows = captures::list(&context.store, self.id.0, after, size + 1).await?;
        if rows.is_empty() {
            task::existing(&context.store, self.id.0).await?;
        }
        Ok(Page::cut(rows, size, |one| {
            format!("{}.{}", one.attempt, one.n)
        }))
    }
}

/// Show one of them with its body.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Its number in the attempt, from 0
    #[schemars(range(min = 0))]
    pub n: i32,
    /// The attempt; else the last one that has it
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 1))]
    pub attempt: Option<i16>,
}

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequestDetail {
    /// The request.
    #[serde(flatten)]
    pub request: RequestView,
    /// Its body, without secrets.
    pub body: String,
}

impl Op for ShowRequest {
    const SPEC: Spec = Spec {
        name: "task.request",
        method: Method::Get,
        path: "/tasks/{id}/requests/{n}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Show a request to a model as it was sent",
    };
    type Output = RequestDetail;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The fourth of the first attempt",
            cli: &["42", "3", "--attempt", "1"],
            input: json!({"id": 42, "n": 3, "attempt": 1}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let found = captures::show(&context.store, self.id.0, self.attempt, self.n).await?;
        match found {
            Some((request, body)) => Ok(RequestDetail { request, body }),
            None => {
                task::existing(&context.store, self.id.0).await?;
                let message = format!("request {} of task {} was not kept", self.n, self.id.0.0);
                Err(OpError::not_found(message).hint(
                    "dispatch tasks requests TASK lists those that were. Agents of path native keep them with native.capture_requests = true, for seven days.",
                ))
            }
        }
    }
}

/// What the cursor of a request looks like: attempt and number.
const CURSOR: &str = r"^[0-9]{1,4}\.[0-9]{1,9}$";

fn place(cursor: &str) -> Result<(i16, i32), OpError> {
    let mut parts = Parts::of(cursor, '.');
    let place = (parts.figure()?, parts.figure()?);
    parts.whole(place)
}
