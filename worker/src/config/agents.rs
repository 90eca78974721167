//! agents.toml: which agents a worker can run and how. Unknown keys are refused; an error names
//! the line and the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use super::agent_check::check_name;
use super::agent_entry::{At, Entry, Surroundings};
use super::agent_spec::AgentSpec;
use super::native_spec::{ProviderSpec, price_of};
use super::providers::ProviderEntry;
use super::secret_file;
use crate::domain::attempt::ExecutionPath;
use crate::domain::limits;
use crate::domain::usage::Price;

/// All agents of one agents.toml.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The agent of a task that names none.
    pub default_agent: Option<String>,
    /// By name.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Providers of the native agents, by name.
    pub providers: Arc<BTreeMap<String, Arc<ProviderSpec>>>,
    /// Prices by model.
    pub prices: Arc<BTreeMap<String, Price>>,
}

/// agents.toml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It cannot be read.
    #[error(
        "cannot read the agents file {path}: {source}; name another with DISPATCH_AGENTS, or where there is the option with --agents"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or holds an unknown key or a value of the wrong type.
    #[error("agents file: {0}")]
    Syntax(Box<toml::de::Error>),
    /// An entry makes no sense.
    #[error("agents file, line {line}, {key}: {message}")]
    Entry {
        /// 1-based line of the entry's head.
        line: usize,
        /// The key in question.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Catalogue {
    /// Read and check a file; `{config_dir}` in it is the file's directory.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let read = |source| CatalogueError::Read {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let full = path.canonicalize().map_err(read)?;
        Self::parse_in(&text, full.parent().unwrap_or(Path::new("/")))
    }

    /// Check a text; `{config_dir}` in it is the working directory.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        Self::parse_in(text, Path::new("."))
    }

    /// Check a text that belongs to this directory.
    pub fn parse_in(text: &str, config_dir: &Path) -> Result<Self, CatalogueError> {
        let syntax = |error| CatalogueError::Syntax(Box::new(error));
        // Typed first, because those errors know their line; then as tables, for `extends`.
        let typed: Document = toml::from_str(text).map_err(syntax)?;
        let tables: Tables = toml::from_str(text).map_err(syntax)?;
        let mut providers = BTreeMap::new();
        for (name, entry) in typed.providers {
            let at = At {
                line: line_of(text, entry.span().start),
                table: "providers",
                name: &name,
            };
            let provider = entry.into_inner().resolve(&at, config_dir)?;
            providers.insert(name, Arc::new(provider));
        }
        let around = Surroundings {
            config_dir,
            providers: Arc::new(providers),
            prices: Arc::new(typed.prices),
        };
        let mut agents = BTreeMap::new();
        for (name, span) in &typed.agents {
            let at = At {
                line: line_of(text, span.span().start),
                table: "agents",
                name,
            };
            check_name(name).map_err(|message| at.error("name", message))?;
            let merged = merged(name, &tables.agents, &mut Vec::new())
                .map_err(|message| at.error("extends", message))?;
            let entry: Entry = merged.try_into().map_err(syntax)?;
            agents.insert(name.clone(), entry.resolve(&at, &around)?);
        }
        for (name, spec) in &agents {
            if let Some(fallback) = &spec.fallback
                && (!agents.contains_key(fallback) || fallback == name)
            {
                let start = typed.agents.get(name).map_or(0, |span| span.span().start);
                let at = At {
                    line: line_of(text, start),
                    table: "agents",
                    name,
                };
                return Err(at.error("fallback", format!("no other agent is named `{fallback}`")));
            }
        }
        if let Some(default) = &typed.default_agent
            && !agents.contains_key(default.as_ref())
        {
            return Err(CatalogueError::Entry {
                line: line_of(text, default.span().start),
                key: "default_agent".to_owned(),
                message: format!("no agent is named `{}`", default.as_ref()),
            });
        }
        Ok(Self {
            default_agent: typed.default_agent.map(Spanned::into_inner),
            agents,
            providers: around.providers,
            prices: around.prices,
        })
    }

    /// Files with the keys of providers and of agents: what an agent gets of them, it gets as a variable.
    pub fn key_files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let providers = self.providers.values();
        let agents = self.agents.values();
        let allowed = agents.flat_map(|spec| &spec.env_allow);
        providers
            .flat_map(|provider| provider.key_files())
            .chain(allowed.filter_map(|name| secret_file::file_of(name)))
    }

    /// The price of a model as this agent names it.
    pub fn price(&self, agent: &str, model: &str) -> Option<&Price> {
        let path = self.agents.get(agent).map(|spec| spec.path);
        match path {
            Some(ExecutionPath::Native) => price_of(&self.prices, model),
            Some(
                ExecutionPath::Acp | ExecutionPath::Pty | ExecutionPath::Pipe | ExecutionPath::Noop,
            )
            | None => self.prices.get(model),
        }
    }
}

impl AgentSpec {
    /// The effective entry for people, values of the environment masked.
    pub fn describe(&self) -> Value {
        let masked: BTreeMap<_, _> = self.env.keys().map(|name| (name, "***")).collect();
        let native = (self.path == ExecutionPath::Native).then(|| self.native.describe());
        let mut shown = json!({
            "name": self.name, "label": self.label, "enabled": self.enabled,
            "path": self.path.as_str(), "command": self.command,
            "env": masked, "env_allow": self.env_allow,
            "inherit_home": self.inherit_home, "home_files": self.home_files,
            "models": self.models, "modes": self.modes,
            "thinking_options": self.thinking_options,
            "model": self.model, "mode": self.mode, "thinking": self.thinking,
            "permissions": {
                "default": self.permissions.default, "kinds": self.permissions.kinds,
                "ask_timeout_ms": self.permissions.ask_timeout.as_millis() as u64,
                "ask_default": self.permissions.ask_default,
            },
            "start_timeout_ms": self.timeouts.start.as_millis() as u64,
            "idle_timeout_ms": self.timeouts.idle.as_millis() as u64,
            "total_timeout_ms": self.timeouts.total.as_millis() as u64,
            "kill_grace_ms": self.kill_grace.as_millis() as u64,
            "limits": self.limits, "slots": self.slots, "fallback": self.fallback,
            "sandbox": self.sandbox, "network": self.network, "hosts": self.hosts.rules().collect::<Vec<_>>(),
            "readable": self.readable, "nested_sandbox": self.nested_sandbox,
        });
        if let Some(native) = native {
            shown["native"] = native;
        }
        shown
    }
}

/// The whole file, typed. Agents keep their span, for errors that name a line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    default_agent: Option<Spanned<String>>,
    #[serde(default)]
    agents: BTreeMap<String, Spanned<Entry>>,
    #[serde(default)]
    providers: BTreeMap<String, Spanned<ProviderEntry>>,
    #[serde(default)]
    prices: BTreeMap<String, Price>,
}

/// The same file as tables.
#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    agents: BTreeMap<String, toml::Table>,
}

/// The entry laid over the one it extends: tables merge, everything else is replaced.
fn merged<'a>(
    name: &'a str,
    tables: &'a BTreeMap<String, toml::Table>,
    seen: &mut Vec<&'a str>,
) -> Result<toml::Table, String> {
    if seen.contains(&name) {
        return Err(format!(
            "`{}` and `{name}` extend each other",
            seen.join("`, `")
        ));
    }
    if seen.len() >= limits::EXTENDS_DEPTH_MAX {
        return Err(format!("more than {} entries in a row", seen.len()));
    }
    seen.push(name);
    let own = tables
        .get(name)
        .ok_or_else(|| format!("no agent is named `{name}`"))?;
    let Some(toml::Value::String(base)) = own.get("extends") else {
        return Ok(own.clone());
    };
    let mut table = merged(base, tables, seen)?;
    overlay(&mut table, own);
    Ok(table)
}

fn overlay(base: &mut toml::Table, own: &toml::Table) {
    for (key, value) in own {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(own)) => overlay(base, own),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Catalogue::parse(text)
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agents.toml");
        let catalogue = Catalogue::load(&path).unwrap();
        assert_eq!(catalogue.default_agent.as_deref(), Some("native"));
        let native = &catalogue.agents["native"].native;
        assert_eq!(native.offered().count(), catalogue.providers.len());
        for name in [
            "native",
            "opencode",
            "claude",
            "claude-print",
            "codex",
            "codex-exec",
            "example-acp",
        ] {
            assert!(catalogue.agents.contains_key(name), "{name}");
        }
        let example = &catalogue.agents["example-acp"];
        assert!(
            !example
                .command
                .iter()
                .any(|part| part.contains("{config_dir}"))
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_line_and_key() {
        let text = "[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\ncolour = \"red\"\n";
        let error = refused(text);
        assert!(
            error.contains("line 4") && error.contains("colour"),
            "{error}"
        );
    }

    #[test]
    fn faults_of_meaning_name_line_and_key() {
        let rule = "network = \"gateway\"\nhosts = [\"https://a.example\"]\n";
        let error = refused(&format!(
            "[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\n{rule}"
        ));
        assert!(error.contains("without a scheme"), "{error}");
        let error = refused("\n[agents.a]\npath = \"pipe\"\ncommand = [\"a\"]\n");
        assert!(
            error.contains("line 2") && error.contains("agents.a.command"),
            "{error}"
        );
        let error = refused("default_agent = \"b\"\n");
        assert!(
            error.contains("line 1") && error.contains("default_agent"),
            "{error}"
        );
        let error =
            refused("[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\nidle_timeout = \"5\"\n");
        assert!(
            error.contains("line 4") && error.contains("not a duration"),
            "{error}"
        );
        let error = refused("[agents.A]\npath = \"acp\"\ncommand = [\"a\"]\n");
        assert!(error.contains("lower-case"), "{error}");
        let text =
            "[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\nenv_allow = [\"DATABASE_URL\"]\n";
        assert!(refused(text).contains("never passed"));
    }

    #[test]
    fn an_entry_extends_another_and_circles_are_refused() {
        let text = "[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\nslots = 3\n\
                    env = { X = \"1\", Y = \"2\" }\n\
                    [agents.b]\nextends = \"a\"\nlabel = \"B\"\nenv = { Y = \"3\" }\n";
        let catalogue = Catalogue::parse(text).unwrap();
        let b = &catalogue.agents["b"];
        assert_eq!((b.slots, b.label.as_str()), (3, "B"));
        assert_eq!((b.env["X"].as_str(), b.env["Y"].as_str()), ("1", "3"));
        assert!(
            refused("[agents.a]\nextends = \"b\"\n[agents.b]\nextends = \"a\"\n")
                .contains("extend each other")
        );
    }

    #[test]
    fn a_long_chain_of_entries_is_refused_and_no_crash() {
        let chain = |length: usize| {
            let entry = |n| format!("[agents.a{n}]\nextends = \"a{}\"\n", n + 1);
            let last = format!("[agents.a{length}]\npath = \"acp\"\ncommand = [\"a\"]\n");
            (1..length).map(entry).collect::<String>() + &last
        };
        assert!(Catalogue::parse(&chain(limits::EXTENDS_DEPTH_MAX)).is_ok());
        assert!(refused(&chain(limits::EXTENDS_DEPTH_MAX + 1)).contains("in a row"));
        assert!(refused(&chain(20_000)).contains("extends"));
    }

    #[test]
    fn values_of_the_environment_are_masked() {
        let text = "[agents.a]\npath = \"acp\"\ncommand = [\"a\"]\nenv = { KEY = \"s3cret\" }\n";
        let shown = Catalogue::parse(text).unwrap().agents["a"]
            .describe()
            .to_string();
        assert!(shown.contains("KEY") && !shown.contains("s3cret"));
    }
}
