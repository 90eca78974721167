//! Agents of the fleet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::doctor::{Diagnosis, Finding, Verdict};
use super::page::Page;
use super::{
    CheckDepth, Effect, Example, Method, Op, OpContext, OpError, ProbeReport, Prober, Spec,
};
use crate::domain::scope::Scope;
use crate::store::{StoreErrorKind, audit, catalogue};

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
        let prober = prober(
            context,
            "Probe on a host that has an agents.toml: dispatch agents probe NAME.",
        )?;
        let subject = format!("agent {}", self.name);
        audit::note(&context.store, &context.actor, Self::SPEC.name, &subject).await?;
        let probed = prober.probe(&self.name).await?;
        probed.ok_or_else(|| unknown(&self.name))
    }
}

/// Run an agent on this host through small tasks of its own, to see what works.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CheckAgent {
    /// Name in agents.toml
    #[arg(value_name = "AGENT")]
    pub name: String,
    /// Only what costs nothing: no prompt is sent
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_prompt: bool,
}

impl Op for CheckAgent {
    const SPEC: Spec = Spec {
        name: "agent.check",
        method: Method::Post,
        path: "/agents/{name}/check",
        effect: Effect::Write,
        scope: Scope::Admin,
        summary: "Run an agent through small tasks of its own and say what works; prompts cost tokens",
    };
    type Output = Diagnosis;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "All of it, which costs a few thousand tokens",
                cli: &["opencode"],
                input: json!({"name": "opencode"}),
            },
            Example {
                about: "Only what costs nothing",
                cli: &["opencode", "--without-prompt"],
                input: json!({"name": "opencode", "without_prompt": true}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let prober = prober(
            context,
            "Check on a host that has an agents.toml: dispatch agents check NAME.",
        )?;
        let mut findings = Vec::new();
        findings.extend(noted(context, &self.name).await?);
        let depth = match self.without_prompt {
            true => CheckDepth::WithoutPrompt,
            false => CheckDepth::Whole,
        };
        let checked = prober.check(&self.name, depth).await?;
        findings.extend(checked.ok_or_else(|| unknown(&self.name))?);
        Ok(Diagnosis::of(findings))
    }
}

/// Record the check. It is about this machine alone, so that a database that is away does not keep
/// anybody from it: then it is said that nobody else will know.
async fn noted(context: &OpContext, name: &str) -> Result<Option<Finding>, OpError> {
    if context.store.is_absent() {
        return Ok(None);
    }
    let subject = format!("agent {name}");
    let action = CheckAgent::SPEC.name;
    match audit::note(&context.store, &context.actor, action, &subject).await {
        Ok(()) => Ok(None),
        Err(error)
            if matches!(
                error.kind,
                StoreErrorKind::Unavailable | StoreErrorKind::Schema
            ) =>
        {
            let advice = "The check went on without its row in the audit log: dispatch doctor looks at the database.";
            let found = Finding::ok("database", "record", error.to_string());
            Ok(Some(found.but(Verdict::Warn, advice)))
        }
        Err(error) => Err(error.into()),
    }
}

fn prober<'a>(context: &'a OpContext, instead: &str) -> Result<&'a dyn Prober, OpError> {
    context.prober.as_deref().ok_or_else(|| {
        OpError::unavailable("this process runs no agents")
            .code("no_agents_here")
            .hint(instead)
    })
}

fn unknown(name: &str) -> OpError {
    OpError::not_found(format!("agents.toml has no agent {name:?}"))
        .hint("dispatch agents list shows the agents of the fleet, dispatch agents add --list those that can be added here.")
}
