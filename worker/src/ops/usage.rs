//! What the work cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::values::{Span, TaskRef, Timestamp};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::usage::{self, UsageFilter};

pub use crate::store::usage::UsageSum;

/// By what usage is added up.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// A sum for each task.
    Task,
    /// A sum for each agent.
    Agent,
    /// A sum for each model.
    Model,
    /// A sum for each project.
    Project,
    /// A sum for each day, in UTC.
    Day,
}

impl Dimension {
    fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Project => "project",
            Self::Day => "day",
        }
    }
}

/// Add up tokens and cost. Unknown stays unknown: `unknown` counts the attempts that told nothing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowUsage {
    /// By what; else by day
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<Dimension>,
    /// Only of this task
    #[arg(long, short)]
    pub task: Option<TaskRef>,
    /// Only of this agent
    #[arg(long, short)]
    pub agent: Option<String>,
    /// Only of this project
    #[arg(long, short)]
    pub project: Option<String>,
    /// Only since this time
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Only of the last so long, such as 7d
    #[arg(long, value_name = "TIME")]
    pub last: Option<Span>,
}

impl Op for ShowUsage {
    const SPEC: Spec = Spec {
        name: "usage.show",
        method: Method::Get,
        path: "/usage",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Add up tokens and cost by task, agent, model, project or day",
    };
    type Output = Page<UsageSum>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The agents of a project in the last week",
            cli: &["--by", "agent", "--project", "shop", "--last", "7d"],
            input: json!({"by": "agent", "project": "shop", "last": "7d"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let filter = UsageFilter {
            by: self.by.unwrap_or(Dimension::Day).as_str().to_owned(),
            task: self.task.map(|task| task.0.0),
            agent: self.agent,
            project: self.project,
            since: self.since.map(|since| since.0),
            last_s: self.last.map(Span::seconds),
            most: limits::PAGE_MAX,
        };
        Ok(Page::whole(usage::sums(&context.store, &filter).await?))
    }
}
