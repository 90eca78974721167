//! Providers of models that nobody asks for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::{pauses, resumes};

pub use crate::store::pauses::PauseView;

/// List the providers that are paused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListProviders {}

impl Op for ListProviders {
    const SPEC: Spec = Spec {
        name: "provider.list",
        method: Method::Get,
        path: "/providers",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List the providers of models that are paused, why and for how long",
    };
    type Output = Page<PauseView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "All of them",
            cli: &[],
            input: json!({}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        Ok(Page::whole(pauses::list(&context.store).await?))
    }
}

/// Ask a provider again before its pause is over. Doing it twice is harmless.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ResumeProvider {
    /// Name of the provider
    #[arg(value_name = "PROVIDER")]
    pub name: String,
}

/// A provider that may be asked again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResumedProvider {
    /// Its name.
    pub name: String,
    /// Whether it was paused.
    pub was_paused: bool,
}

impl Op for ResumeProvider {
    const SPEC: Spec = Spec {
        name: "provider.resume",
        method: Method::Post,
        path: "/providers/{name}/resume",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Ask a provider again before its pause is over",
    };
    type Output = ResumedProvider;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "After its bill was paid",
            cli: &["anthropic"],
            input: json!({"name": "anthropic"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let was_paused = resumes::resume(&context.store, &self.name, &context.actor).await?;
        if !was_paused && !resumes::is_named(&context.store, &self.name).await? {
            return Err(OpError::not_found(format!(
                "no worker has a provider {:?}, and none of this name is paused",
                self.name
            ))
            .hint(
                "dispatch providers list shows those that are paused; agents.toml names them all.",
            ));
        }
        Ok(ResumedProvider {
            name: self.name,
            was_paused,
        })
    }
}
