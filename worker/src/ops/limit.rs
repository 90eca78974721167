//! Limits: how many tasks with a key run at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::limit_keys;

pub use crate::store::limit_keys::LimitView;

/// What the key of a project's own limit begins with; its name follows.
const OF_PROJECT: &str = "project:";

/// List limits by key. Each key that a task ever named has one, which is 1 until somebody sets it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListLimits {
    /// Rows of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(length(min = 1, max = 200))]
    pub cursor: Option<String>,
}

impl Op for ListLimits {
    const SPEC: Spec = Spec {
        name: "limit.list",
        method: Method::Get,
        path: "/limits",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List how many tasks with a key run at a time, and how many wait",
    };
    type Output = Page<LimitView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The page after one",
            cli: &["--limit", "10", "--cursor", "shop"],
            input: json!({"limit": 10, "cursor": "shop"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = page::text(self.cursor.as_deref(), limits::LIMIT_KEY_BYTES_MAX)?;
        let rows = limit_keys::list(&context.store, after, size + 1).await?;
        Ok(Page::cut(rows, size, |limit| limit.key.clone()))
    }
}

/// Say how many tasks with a key run at a time. Those that run go on when it is lowered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// The key, as tasks name it (`--limit-key`)
    #[arg(value_name = "KEY")]
    #[schemars(length(min = 1, max = 200))]
    pub key: String,
    /// Tasks with it that may run at a time; 0 holds them back
    #[arg(value_name = "N", allow_negative_numbers = true)]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_running: i32,
}

impl Op for SetLimit {
    const SPEC: Spec = Spec {
        name: "limit.set",
        method: Method::Post,
        path: "/limits/{key}",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Say how many tasks with a key run at a time",
    };
    type Output = LimitView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Three at a time",
            cli: &["shop-lockfile", "3"],
            input: json!({"key": "shop-lockfile", "max_running": 3}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if !(1..=limits::LIMIT_KEY_BYTES_MAX).contains(&self.key.len()) {
            return Err(OpError::invalid(format!(
                "the key of a limit has 1 to {} bytes, not {}",
                limits::LIMIT_KEY_BYTES_MAX,
                self.key.len()
            ))
            .hint("Name it as the tasks do: dispatch limits list shows the keys."));
        }
        if let Some(project) = self.key.strip_prefix(OF_PROJECT) {
            return Err(of_project(project));
        }
        let (key, most) = (&self.key, self.max_running);
        Ok(limit_keys::set(&context.store, key, most, &context.actor).await?)
    }
}

/// The project has the number, and what is set here would differ from it.
fn of_project(name: &str) -> OpError {
    let message = format!("{OF_PROJECT}{name} is the limit that project {name:?} has itself");
    OpError::invalid(message)
        .code("limit_of_project")
        .hint(format!(
            "dispatch projects update {name} --max-running N changes it; 0 takes it away."
        ))
}
