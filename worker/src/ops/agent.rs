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
        idempotent: false,
        scope: Scope::Admin,
        summary: "Start an agent on the host that answers, to see whether it works there and what it offers",
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
        // What is not there is not done, and leaves no row.
        if !prober.knows(&self.name)? {
            return Err(unknown(&self.name));
        }
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
        idempotent: false,
        scope: Scope::Admin,
        summary: "Run an agent on the host that answers through small tasks of its own and say what works; prompts cost tokens",
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
        if !prober.knows(&self.name)? {
            return Err(unknown(&self.name));
        }
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
    OpError::not_found(format!("the agents.toml of this host has no agent {name:?}"))
        .hint("dispatch agents show NAME tells of the workers that have it, dispatch agents add --list what can be added here.")
}
