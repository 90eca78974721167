//! Whether the workers of the fleet can work in a project.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::doctor::{Diagnosis, Finding, Verdict};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec, lookup, project};
use crate::domain::lookup::{Answer, Question};
use crate::domain::scope::Scope;
use crate::store::lookups::Lookup;
use crate::store::{catalogue, projects};

/// Let each live worker look whether it can work in a project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CheckProject {
    /// The project
    #[arg(value_name = "PROJECT")]
    pub name: String,
}

impl Op for CheckProject {
    const SPEC: Spec = Spec {
        name: "project.check",
        method: Method::Get,
        path: "/projects/{name}/check",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Let each worker look whether it can work in a project",
    };
    type Output = Diagnosis;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One project",
            cli: &["shop"],
            input: json!({"name": "shop"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let known = projects::get(&context.store, &self.name).await?;
        let known = known.ok_or_else(|| project::missing(&self.name))?;
        let question = Question::CheckProject { project: self.name };
        let told = lookup::everyone(context, &question).await?;
        let mut findings: Vec<Finding> = told.iter().map(of_worker).collect();
        if findings.is_empty() {
            findings.push(Finding::ok("fleet", "workers", "none is live").but(
                Verdict::Fail,
                "Nobody can look. Start one: dispatch worker.",
            ));
        }
        findings.push(default_agent(context, known.default_agent.as_deref()).await?);
        Ok(Diagnosis::of(findings))
    }
}

/// Whether tasks that name no agent have one that somebody offers.
async fn default_agent(context: &OpContext, own: Option<&str>) -> Result<Finding, OpError> {
    let finding = |found: String| Finding::ok("project", "default agent", found);
    let Some(agent) = own else {
        return Ok(finding("none of its own: the fleet's".to_owned()));
    };
    let offers = catalogue::list(&context.store).await?;
    let Some(offer) = offers.iter().find(|offer| offer.name == agent) else {
        return Ok(
            finding(format!("{agent:?}, which no worker ever had")).but(
                Verdict::Fail,
                "Tasks that name no agent are refused. Set another: dispatch projects update PROJECT --default-agent AGENT; dispatch agents list shows them.",
            ),
        );
    };
    let found = finding(format!("{agent}, {}", offer.status));
    Ok(match offer.status.as_str() {
        "ready" | "loading" => found,
        _ => found.but(
            Verdict::Warn,
            "Tasks that name no agent wait until a worker has it ready: dispatch agents show AGENT says why.",
        ),
    })
}

fn of_worker(told: &Lookup) -> Finding {
    let name = told.worker.as_deref().unwrap_or("a worker that is gone");
    let finding = |found: String| Finding::ok("worker", name, found);
    match &told.answer {
        Some(Answer::Project(facts)) => {
            let short: String = facts.tip.chars().take(12).collect();
            let place = if facts.mirrored {
                "a mirror"
            } else {
                "a directory"
            };
            let found = finding(format!("{place}, {} at {short}", facts.target_ref));
            match facts.shallow {
                true => found.but(
                    Verdict::Warn,
                    "Its history is cut off: agents see what is there, and results still apply.",
                ),
                false => found,
            }
        }
        Some(Answer::Failed(why)) => finding(why.clone()).but(
            Verdict::Fail,
            "It says what to mend; until then the tasks it takes of this project fail.",
        ),
        Some(_) | None => finding("no answer".to_owned()).but(
            Verdict::Warn,
            "It may be of an older version, or busy with a first fetch: ask again.",
        ),
    }
}
