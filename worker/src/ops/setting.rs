//! Fleet-wide settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::settings;

/// What there is to set.
struct Known {
    name: &'static str,
    /// What holds while nobody has set it.
    unset: Option<&'static str>,
    about: &'static str,
    /// Why it is not set here, and where it is.
    elsewhere: Option<(&'static str, &'static str)>,
}

static KNOWN: [Known; 2] = [
    Known {
        name: "default_agent",
        unset: None,
        about: "agent of tasks that name none, in projects that name none",
        elsewhere: Some((
            "workers write it as their agents.toml says it, and would write over this",
            "Write default_agent = \"NAME\" into agents.toml; for one project: \
             dispatch projects update PROJECT --default-agent NAME.",
        )),
    },
    Known {
        name: "four_eyes",
        unset: Some("off"),
        about: "on: nobody approves a change that their own words led to, as if every project had it; \
                off: what each project says",
        elsewhere: None,
    },
];

impl Known {
    fn view(&self, value: Option<String>) -> SettingView {
        SettingView {
            name: self.name.to_owned(),
            value: value.or_else(|| self.unset.map(str::to_owned)),
            about: self.about.to_owned(),
        }
    }
}

/// A setting of the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SettingView {
    /// Its name.
    pub name: String,
    /// What it is; absent: it is not set, and nothing stands in for it.
    pub value: Option<String>,
    /// What it means.
    pub about: String,
}

/// List the settings of the whole fleet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListSettings {}

impl Op for ListSettings {
    const SPEC: Spec = Spec {
        name: "setting.list",
        method: Method::Get,
        path: "/settings",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List the settings of the whole fleet",
    };
    type Output = Page<SettingView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "All of them",
            cli: &[],
            input: json!({}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let names = KNOWN.each_ref().map(|known| known.name);
        let mut set = settings::list(&context.store, &names).await?;
        let view = |known: &Known| known.view(set.remove(known.name));
        Ok(Page::whole(KNOWN.iter().map(view).collect()))
    }
}

/// Set a setting of the whole fleet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct SetSetting {
    /// Its name: four_eyes
    #[arg(value_name = "SETTING")]
    #[schemars(regex(pattern = "^four_eyes$"))]
    pub name: String,
    /// What it shall be: on or off
    #[arg(value_name = "VALUE")]
    #[schemars(regex(pattern = "^(on|off)$"))]
    pub value: String,
}

impl Op for SetSetting {
    const SPEC: Spec = Spec {
        name: "setting.set",
        method: Method::Post,
        path: "/settings/{name}",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Set a setting of the whole fleet",
    };
    type Output = SettingView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "In every project somebody else has to approve",
            cli: &["four_eyes", "on"],
            input: json!({"name": "four_eyes", "value": "on"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let known = KNOWN.iter().find(|known| known.name == self.name);
        let known = known.ok_or_else(|| unknown(&self.name))?;
        if let Some((why, hint)) = known.elsewhere {
            let message = format!("{} is not set here: {why}", known.name);
            return Err(OpError::invalid(message).code("set_elsewhere").hint(hint));
        }
        // What a value may be is the rule of the table.
        let value = settings::set(&context.store, known.name, &self.value, &context.actor).await?;
        Ok(known.view(Some(value)))
    }
}

fn unknown(name: &str) -> OpError {
    let names = KNOWN.each_ref().map(|known| known.name).join(", ");
    OpError::not_found(format!("there is no setting {name:?}"))
        .code("unknown_setting")
        .hint(format!("There are: {names}."))
}
