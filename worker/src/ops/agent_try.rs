//! Trying an agent: a worker does it, or this host where that is asked for.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::doctor::{Diagnosis, Finding, Verdict};
use super::{
    CheckDepth, Effect, Example, Method, Op, OpContext, OpError, ProbeReport, Prober, Spec, lookup,
    worker,
};
use crate::domain::limits;
use crate::domain::lookup::Answer;
use crate::domain::scope::Scope;
use crate::store::{StoreError, StoreErrorKind, audit, lookups};

/// How long a worker's probe is waited for: it has its own limit, and may stand behind others.
const PROBE_PATIENCE: Duration = limits::PROBE_TIMEOUT.saturating_mul(4);

/// How long a worker's check is waited for: as long as it may take, and another before it.
const CHECK_PATIENCE: Duration = limits::AGENT_TRY_MAX.saturating_mul(2);

/// Start an agent to see whether it works and what it offers: on a worker that has it, or on this host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ProbeAgent {
    /// Its name
    #[arg(value_name = "AGENT")]
    pub name: String,
    /// On this worker: its name when no other has it, or its id or the beginning of it
    #[arg(long, conflicts_with = "here")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// On the host that answers, by its own agents.toml; needs no database
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub here: bool,
}

impl Op for ProbeAgent {
    const SPEC: Spec = Spec {
        name: "agent.probe",
        method: Method::Post,
        path: "/agents/{name}/probe",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Admin,
        summary: "Let a worker start an agent to see whether it works there and what it offers",
    };
    type Output = ProbeReport;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "Where it is ready, when a worker has it ready",
                cli: &["opencode"],
                input: json!({"name": "opencode"}),
            },
            Example {
                about: "On one worker",
                cli: &["opencode", "--worker", "build-7"],
                input: json!({"name": "opencode", "worker": "build-7"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let spec = Self::SPEC;
        match Place::of(context, self.here, self.worker.as_deref()).await? {
            Place::Worker(worker) => {
                let (store, actor) = (&context.store, &context.actor);
                let asked = lookups::probe_agent(store, &self.name, worker, actor);
                match answer(context, asked, PROBE_PATIENCE).await? {
                    (_, Answer::Probe(report)) => Ok(*report),
                    _ => Err(lookup::something_else()),
                }
            }
            Place::Here => {
                let prober = prober(context, &self.name)?;
                if let Some(note) = noted(context, spec.name, &self.name).await? {
                    // Its report has no place for it.
                    tracing::warn!(why = note.found, "the probe leaves no row in the audit log");
                }
                let probed = prober.probe(&self.name).await?;
                probed.ok_or_else(|| unknown(&self.name))
            }
        }
    }
}

/// Run an agent through small tasks of its own, to see what works: on a worker that has it, or on this
/// host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CheckAgent {
    /// Its name
    #[arg(value_name = "AGENT")]
    pub name: String,
    /// Only what costs nothing: no prompt is sent
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_prompt: bool,
    /// On this worker: its name when no other has it, or its id or the beginning of it
    #[arg(long, conflicts_with = "here")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// On the host that answers, by its own agents.toml; needs no database
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub here: bool,
}

impl Op for CheckAgent {
    const SPEC: Spec = Spec {
        name: "agent.check",
        method: Method::Post,
        path: "/agents/{name}/check",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Admin,
        summary: "Let a worker run an agent through small tasks of its own and say what works; prompts cost tokens",
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
            Example {
                about: "On one worker",
                cli: &["opencode", "--worker", "build-7"],
                input: json!({"name": "opencode", "worker": "build-7"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let depth = CheckDepth::without_prompt(self.without_prompt);
        let findings = match Place::of(context, self.here, self.worker.as_deref()).await? {
            Place::Worker(worker) => {
                let (store, actor) = (&context.store, &context.actor);
                let asked = lookups::check_agent(store, (&self.name, depth), worker, actor);
                match answer(context, asked, CHECK_PATIENCE).await? {
                    (by, Answer::Check(found)) => {
                        let by = Finding::ok("fleet", "worker", by);
                        std::iter::once(by).chain(found).collect()
                    }
                    _ => return Err(lookup::something_else()),
                }
            }
            Place::Here => {
                let prober = prober(context, &self.name)?;
                let note = noted(context, Self::SPEC.name, &self.name).await?;
                let checked = prober.check(&self.name, depth).await?;
                let checked = checked.ok_or_else(|| unknown(&self.name))?;
                note.into_iter().chain(checked).collect()
            }
        };
        Ok(Diagnosis::of(findings))
    }
}

/// Where an agent is tried.
enum Place {
    /// On the host that answers.
    Here,
    /// On this worker, or on one that has it.
    Worker(Option<Uuid>),
}

impl Place {
    async fn of(context: &OpContext, here: bool, wanted: Option<&str>) -> Result<Self, OpError> {
        match wanted {
            Some(_) if here => Err(OpError::invalid(
                "an agent is tried here or on a worker, not both",
            )
            .hint("Leave out `here` or `worker`.")),
            Some(wanted) => {
                let found = worker::one(context, wanted).await?;
                Ok(Self::Worker(Some(found.id)))
            }
            None if here => Ok(Self::Here),
            None => Ok(Self::Worker(None)),
        }
    }
}

/// Record that an agent is tried on this host. It is about this machine alone, so that a database that is
/// away does not keep anybody from it: then it is said that nobody else will know.
async fn noted(context: &OpContext, action: &str, name: &str) -> Result<Option<Finding>, OpError> {
    if context.store.is_absent() {
        return Ok(None);
    }
    let subject = format!("agent {name}");
    match audit::note(&context.store, &context.actor, action, &subject).await {
        Ok(()) => Ok(None),
        Err(error)
            if matches!(
                error.kind,
                StoreErrorKind::Unavailable | StoreErrorKind::Schema
            ) =>
        {
            let advice = "It was tried without a row in the audit log: dispatch doctor looks at the database.";
            let found = Finding::ok("database", "record", error.to_string());
            Ok(Some(found.but(Verdict::Warn, advice)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Who answered the question of this number, and what.
async fn answer(
    context: &OpContext,
    asked: impl Future<Output = Result<i64, StoreError>>,
    patience: Duration,
) -> Result<(String, Answer), OpError> {
    let asked = asked.await.map_err(|error| or_here(context, error))?;
    lookup::of_one(context, asked, patience).await
}

/// Where no database is, nobody can ask a worker.
fn or_here(context: &OpContext, error: StoreError) -> OpError {
    let error = OpError::from(error);
    if !context.store.is_absent() {
        return error;
    }
    let usual = error.hint.clone().unwrap_or_default();
    error.hint(format!("{usual} Or try it on this machine: --here.").trim_start())
}

/// What tries this agent here. One that is not in the catalogue is not tried, and leaves no row.
fn prober<'a>(context: &'a OpContext, agent: &str) -> Result<&'a dyn Prober, OpError> {
    let prober = context.prober.as_deref().ok_or_else(|| {
        OpError::unavailable("this process runs no agents")
            .code("no_agents_here")
            .hint("Leave out `here`: a worker tries it.")
    })?;
    match prober.knows(agent)? {
        true => Ok(prober),
        false => Err(unknown(agent)),
    }
}

fn unknown(name: &str) -> OpError {
    OpError::not_found(format!("the agents.toml of this host has no agent {name:?}"))
        .hint("dispatch agents show NAME tells of the workers that have it, dispatch agents add --list what can be added here.")
}
