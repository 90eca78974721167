//! `[agents.NAME.native]` of agents.toml: what only the native agent has, and what it takes instead
//! of a program.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;

use super::agent_check::{ENV_FORBIDDEN, check_name};
use super::agent_entry::Surroundings;
use super::agent_spec::AgentSpec;
use super::native_spec::{Budgets, McpServer, NativeSpec};
use crate::domain::limits;
use crate::domain::llm::Effort;
use crate::domain::tool_names::BUILT_IN;

/// What it does with the worktree: work on it, or only look.
const MODES: [&str; 2] = ["build", "plan"];

/// The key in question and what is wrong with it.
type Fault = (&'static str, String);

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NativeEntry {
    providers: Option<Vec<String>>,
    max_steps: Option<u32>,
    max_tokens: Option<i64>,
    max_cost: Option<Decimal>,
    max_concurrent: Option<u32>,
    eager: Option<bool>,
    compact_at_percent: Option<u32>,
    compact_keep: Option<u32>,
    disabled_tools: Vec<String>,
    instructions: Option<String>,
    capture_requests: Option<bool>,
    mcp: BTreeMap<String, McpServer>,
}

impl NativeEntry {
    /// The section with its defaults, checked. Other paths have the providers too: their keys are
    /// kept out of every agent's sight.
    pub(super) fn resolve(self, around: &Surroundings<'_>) -> Result<NativeSpec, Fault> {
        self.check_budgets()?;
        let usual = || {
            around
                .providers
                .values()
                .filter(|provider| provider.enabled)
        };
        let allowed = match self.providers {
            Some(named) => named,
            None => usual().map(|provider| provider.name.clone()).collect(),
        };
        if let Some(name) = allowed
            .iter()
            .find(|name| !around.providers.contains_key(*name))
        {
            return Err(("native.providers", format!("no provider is named `{name}`")));
        }
        let mut mcp = self.mcp;
        for (name, server) in &mut mcp {
            check_server(name, server)
                .map_err(|what| ("native.mcp", format!("`{name}`: {what}")))?;
            for text in server.command.iter_mut().chain(server.env.values_mut()) {
                *text = around.in_dir(text);
            }
        }
        for tool in &self.disabled_tools {
            check_tool(tool, &mcp).map_err(|what| ("native.disabled_tools", what))?;
        }
        let compact_at_percent = self
            .compact_at_percent
            .unwrap_or(limits::NATIVE_COMPACT_AT_PERCENT);
        if compact_at_percent > 100 {
            let message = "is a part of the model's window in hundredths: at most 100, 0 for never";
            return Err(("native.compact_at_percent", message.to_owned()));
        }
        Ok(NativeSpec {
            providers: around.providers.clone(),
            allowed,
            prices: around.prices.clone(),
            budgets: Budgets {
                max_steps: self.max_steps,
                max_tokens: self.max_tokens,
                max_cost: self.max_cost,
            },
            max_concurrent: self.max_concurrent.unwrap_or(limits::NATIVE_TOOLS_AT_ONCE),
            eager: self.eager.unwrap_or(true),
            compact_at_percent,
            compact_keep: self.compact_keep.unwrap_or(limits::NATIVE_COMPACT_KEEP),
            disabled_tools: self.disabled_tools,
            mcp,
            instructions: self.instructions,
            capture_requests: self.capture_requests.unwrap_or(false),
        })
    }

    fn check_budgets(&self) -> Result<(), Fault> {
        let message = "must be more than 0; leave it out for no budget";
        if self.max_tokens.is_some_and(|tokens| tokens < 1) {
            return Err(("native.max_tokens", message.to_owned()));
        }
        if self.max_cost.is_some_and(|cost| cost <= Decimal::ZERO) {
            return Err(("native.max_cost", message.to_owned()));
        }
        Ok(())
    }
}

fn check_server(name: &str, server: &McpServer) -> Result<(), String> {
    check_name(name)?;
    if server.command.first().is_none_or(String::is_empty) {
        return Err("command is missing; write the program and its arguments as a list".to_owned());
    }
    if let Some(name) = server
        .env
        .keys()
        .find(|name| ENV_FORBIDDEN.contains(&name.as_str()))
    {
        return Err(format!("{name} is never passed to an agent"));
    }
    if server.timeout_s == Some(0) {
        return Err("timeout_s must be at least 1".to_owned());
    }
    Ok(())
}

/// A name that is of no tool would take nothing away, and look as if it did.
fn check_tool(tool: &str, servers: &BTreeMap<String, McpServer>) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let of_server = |server: &String| {
        let rest = tool.strip_prefix("mcp__");
        let rest = rest.and_then(|rest| rest.strip_prefix(server.as_str()));
        let own = rest.and_then(|rest| rest.strip_prefix("__"));
        own.is_some_and(|own| !own.is_empty() && own.chars().all(plain))
    };
    if BUILT_IN.contains(&tool) || servers.keys().any(of_server) {
        return Ok(());
    }
    let mut known = BUILT_IN.map(str::to_owned).to_vec();
    known.extend(servers.keys().map(|server| format!("mcp__{server}__TOOL")));
    let known = known.join(", ");
    Err(format!("{tool:?} is no name of a tool; known are {known}"))
}

/// Fill in what every native agent offers, and check what the entry names of it.
pub(super) fn complete(spec: &mut AgentSpec) -> Result<(), Fault> {
    if spec.modes.is_empty() {
        spec.modes = MODES.map(str::to_owned).to_vec();
    }
    if let Some(mode) = spec
        .modes
        .iter()
        .find(|mode| !MODES.contains(&mode.as_str()))
    {
        return Err((
            "modes",
            format!("`{mode}` is no mode of it; known are {}", MODES.join(", ")),
        ));
    }
    if spec.mode.is_none() {
        let usual = spec.modes.iter().find(|mode| *mode == MODES[0]);
        spec.mode = usual.or(spec.modes.first()).cloned();
    }
    let efforts = Effort::ALL.map(Effort::as_str);
    if spec.thinking_options.is_empty() {
        spec.thinking_options = efforts.map(str::to_owned).to_vec();
    }
    let thinking = spec.thinking_options.iter().chain(&spec.thinking);
    if let Some(option) = thinking
        .into_iter()
        .find(|option| Effort::parse(option).is_none())
    {
        let message = format!("`{option}` is no effort; known are {}", efforts.join(", "));
        return Err(("thinking_options", message));
    }
    check_models(spec)
}

fn check_models(spec: &AgentSpec) -> Result<(), Fault> {
    let single = spec.model.iter().map(|id| ("model", id));
    let listed = spec.models.iter().map(|id| ("models", id));
    for (key, id) in single.chain(listed) {
        let Some((provider, model)) = id.split_once('/').filter(|(_, model)| !model.is_empty())
        else {
            return Err((
                key,
                format!("`{id}` names no provider; write PROVIDER/MODEL"),
            ));
        };
        let native = &spec.native;
        if !native.providers.contains_key(provider) {
            let known: Vec<&str> = native.providers.keys().map(String::as_str).collect();
            let message = format!(
                "`{model}` is to come from `{provider}`, which is no provider of this file ({})",
                known.join(", ")
            );
            return Err((key, message));
        }
        // One that is switched off may come back: its tasks say so until then.
        let off = native
            .providers
            .get(provider)
            .is_some_and(|provider| !provider.enabled);
        if !off && !native.allowed.iter().any(|name| name == provider) {
            let message =
                format!("`{id}`: native.providers of this entry does not list {provider}");
            return Err((key, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    const PROVIDERS: &str = "[providers.b]\napi = \"openai\"\n[providers.a]\napi = \"anthropic\"\n\
                             [providers.off]\napi = \"openai\"\nenabled = false\n";

    fn parsed(rest: &str) -> Result<AgentSpec, String> {
        let text = format!("{PROVIDERS}[agents.n]\npath = \"native\"\n{rest}\n");
        let catalogue = Catalogue::parse(&text).map_err(|error| error.to_string())?;
        Ok(catalogue.agents["n"].clone())
    }

    #[test]
    fn a_native_entry_needs_nothing_but_its_path() {
        let spec = parsed("").unwrap();
        assert!(spec.command.is_empty());
        assert_eq!(spec.modes, ["build", "plan"]);
        assert_eq!(spec.mode.as_deref(), Some("build"));
        assert_eq!(spec.thinking_options, Effort::ALL.map(Effort::as_str));
        let native = &spec.native;
        assert_eq!(
            native.allowed,
            ["a", "b"],
            "those that are switched on, by name"
        );
        assert_eq!((native.max_concurrent, native.eager), (4, true));
        assert_eq!((native.compact_at_percent, native.compact_keep), (80, 10));
        assert_eq!(native.budgets, Budgets::default());
    }

    #[test]
    fn every_key_of_the_section_is_read() {
        let spec = parsed(
            "model = \"b/maker/large\"\nmodes = [\"plan\"]\n[agents.n.native]\nproviders = [\"b\", \"off\"]\n\
             max_steps = 50\nmax_tokens = 1000000\nmax_cost = \"2.50\"\nmax_concurrent = 0\neager = false\n\
             compact_at_percent = 0\ncompact_keep = 4\ndisabled_tools = [\"shell\", \"mcp__files__write\"]\n\
             instructions = \"Be brief.\"\n[agents.n.native.mcp.files]\n\
             command = [\"{config_dir}/files\"]\nenv = { A = \"1\" }\ntools = [\"read\"]\ntimeout_s = 5",
        );
        let spec = spec.unwrap();
        assert_eq!(spec.mode.as_deref(), Some("plan"));
        let native = &spec.native;
        assert_eq!(native.allowed, ["b", "off"]);
        let offered: Vec<&str> = native.offered().map(|one| one.name.as_str()).collect();
        assert_eq!(offered, ["b"]);
        assert_eq!(native.budgets.max_steps, Some(50));
        assert_eq!(native.budgets.max_tokens, Some(1_000_000));
        assert_eq!(native.budgets.max_cost, Some(Decimal::new(250, 2)));
        assert_eq!((native.max_concurrent, native.eager), (0, false));
        assert_eq!((native.compact_at_percent, native.compact_keep), (0, 4));
        assert_eq!(native.disabled_tools, ["shell", "mcp__files__write"]);
        assert_eq!(native.instructions.as_deref(), Some("Be brief."));
        let server = &native.mcp["files"];
        assert_eq!(
            (server.command[0].as_str(), server.timeout_s),
            ("./files", Some(5))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line_and_key() {
        for (rest, key, hint) in [
            ("command = [\"x\"]", "command", "starts no program"),
            ("acp = { offer_fs = true }", "acp", "starts no program"),
            (
                "usage = { format = \"none\" }",
                "usage",
                "starts no program",
            ),
            ("modes = [\"ask\"]", "modes", "build, plan"),
            ("mode = \"ask\"", "mode", "build, plan"),
            ("thinking = \"hard\"", "thinking_options", "xhigh"),
            ("model = \"large\"", "model", "PROVIDER/MODEL"),
            ("model = \"c/large\"", "model", "(a, b, off)"),
            ("models = [\"a/\"]", "models", "PROVIDER/MODEL"),
            (
                "model = \"a/x\"\nnative = { providers = [\"b\"] }",
                "model",
                "does not list a",
            ),
            (
                "native = { providers = [\"c\"] }",
                "native.providers",
                "`c`",
            ),
            (
                "native = { max_tokens = 0 }",
                "native.max_tokens",
                "leave it out",
            ),
            (
                "native = { max_cost = \"-1\" }",
                "native.max_cost",
                "leave it out",
            ),
            (
                "native = { compact_at_percent = 101 }",
                "native.compact_at_percent",
                "at most 100",
            ),
            (
                "native = { disabled_tools = [\"a b\"] }",
                "native.disabled_tools",
                "a b",
            ),
            (
                "native.mcp.x = { command = [] }",
                "native.mcp",
                "`x`: command is missing",
            ),
            (
                "native.mcp.X = { command = [\"a\"] }",
                "native.mcp",
                "lower-case",
            ),
            (
                "native.mcp.x = { command = [\"a\"], env = { PGPASSWORD = \"p\" } }",
                "native.mcp",
                "never",
            ),
        ] {
            let error = parsed(rest).unwrap_err();
            let place = format!("line 8, agents.n.{key}:");
            assert!(
                error.contains(&place) && error.contains(hint),
                "{rest}: {error}"
            );
        }
        let error = parsed("[agents.n.native]\nmax_step = 1").unwrap_err();
        assert!(
            error.contains("line 11") && error.contains("max_steps"),
            "{error}"
        );
        let text = "[agents.x]\npath = \"acp\"\ncommand = [\"x\"]\nnative = { eager = true }\n";
        let error = Catalogue::parse(text).unwrap_err().to_string();
        assert!(
            error.contains("agents.x.native") && error.contains("only for"),
            "{error}"
        );
    }

    #[test]
    fn a_disabled_tool_that_is_none_is_refused_with_those_there_are() {
        let server = "mcp = { x = { command = [\"a\"] } }";
        let known = "known are read, list, glob, grep, edit, write, apply_patch, shell, todo_write";
        for tool in ["bash", "mcp__y__a", "mcp__x__", "mcp__x", "x", ""] {
            let native = format!("native = {{ disabled_tools = [\"shell\", {tool:?}], {server} }}");
            let error = parsed(&native).unwrap_err();
            let told = format!("{tool:?} is no name of a tool; {known}, mcp__x__TOOL");
            assert!(error.contains(&told), "{error}");
        }
        let native = format!("native = {{ disabled_tools = [\"mcp__x__a\"], {server} }}");
        assert!(parsed(&native).is_ok());
    }

    #[test]
    fn a_model_of_a_provider_that_is_switched_off_keeps_the_file_valid() {
        assert!(parsed("model = \"off/large\"").is_ok());
    }

    #[test]
    fn entries_share_the_providers_and_prices_and_the_whole_id_has_the_first_price() {
        let price =
            |name: &str, input| format!("[prices.{name:?}]\ninput = \"{input}\"\noutput = \"1\"\n");
        let prices = price("a/large", 3) + &price("large", 2) + &price("maker/large", 1);
        let text = format!(
            "{PROVIDERS}[agents.n]\npath = \"native\"\n[agents.m]\nextends = \"n\"\n{prices}"
        );
        let catalogue = Catalogue::parse(&text).unwrap();
        let native = &catalogue.agents["n"].native;
        assert!(std::sync::Arc::ptr_eq(
            &native.providers,
            &catalogue.agents["m"].native.providers
        ));
        let input = |provider, model| native.price(provider, model).map(|price| price.input);
        assert_eq!(input("a", "large"), Some(Decimal::from(3)));
        assert_eq!(input("b", "large"), Some(Decimal::from(2)));
        assert_eq!(input("b", "maker/large"), Some(Decimal::from(1)));
        assert_eq!(input("b", "small"), None);
        assert!(catalogue.price("n", "b/large").is_some());
        assert!(catalogue.price("gone", "b/large").is_none());
    }
}
