//! Agents of the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::{Effect, Example, Method, Op, OpContext, OpError, ProbeReport, Spec};
use crate::domain::scope::Scope;
use crate::store::{audit, catalogue};

pub use crate::store::catalogue::AgentView;

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

/// Start an agent on this host to see whether it works and what it offers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ProbeAgent {
    /// Name in agents.toml
    #[arg(value_name = "AGENT")]
    pub name: String,
}

impl Op for ProbeAgent {
    const SPEC: Spec = Spec {
        name: "agent.probe",
        method: Method::Post,
        path: "/agents/{name}/probe",
        effect: Effect::Write,
        scope: Scope::Admin,
        summary: "Start an agent to see whether it works and what it offers",
    };
    type Output = ProbeReport;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One agent",
            cli: &["opencode"],
            input: json!({"name": "opencode"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let Some(prober) = &context.prober else {
            return Err(OpError::unavailable("this process runs no agents")
                .code("no_agents_here")
                .hint("Probe on a host that has an agents.toml: dispatch agents probe NAME."));
        };
        let subject = format!("agent {}", self.name);
        audit::note(&context.store, &context.actor, Self::SPEC.name, &subject).await?;
        prober.probe(&self.name).await?.ok_or_else(|| {
            OpError::not_found(format!("agents.toml has no agent {:?}", self.name))
                .hint("dispatch agents list shows the agents of the fleet.")
        })
    }
}
