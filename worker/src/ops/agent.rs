//! Agents of the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::catalogue;

pub use crate::store::catalogue::{AgentView, OfferView};

/// List the agents that tasks can ask for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListAgents {}

impl Op for ListAgents {
    const SPEC: Spec = Spec {
        name: "agent.list",
        method: Method::Get,
        path: "/agents",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List agents with their status, models, modes and commands",
    };
    type Output = Page<AgentView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "All of them",
            cli: &[],
            input: json!({}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        Ok(Page::whole(catalogue::list(&context.store).await?))
    }
}

/// Show an agent: all that its workers say of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowAgent {
    /// Its name
    #[arg(value_name = "AGENT")]
    pub name: String,
}

/// An agent with what each worker says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentDetail {
    /// The agent, as the freshest ready offer has it.
    #[serde(flatten)]
    pub agent: AgentView,
    /// Its offers: one of each worker that has it in its agents.toml.
    pub offers: Vec<OfferView>,
}

impl Op for ShowAgent {
    const SPEC: Spec = Spec {
        name: "agent.show",
        method: Method::Get,
        path: "/agents/{name}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show an agent: what it offers, and which workers have it",
    };
    type Output = AgentDetail;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One agent",
            cli: &["opencode"],
            input: json!({"name": "opencode"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let agent = catalogue::get(&context.store, &self.name).await?;
        let agent = agent.ok_or_else(|| {
            OpError::not_found(format!("no agent is called {:?}", self.name))
                .hint("dispatch agents list shows those of the fleet.")
        })?;
        Ok(AgentDetail {
            agent,
            offers: catalogue::offers(&context.store, &self.name).await?,
        })
    }
}
