//! agents.toml: which agents a worker can run and how. Unknown keys are refused; an error names
//! the line and the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use toml::Spanned;

use super::agent_check::{check, check_name};
use super::agent_spec::{
    AcpSpec, AgentSpec, AskDefault, CliSpec, PermissionPolicy, Timeouts, UsageSpec, Verdict,
};
use crate::domain::attempt::ExecutionPath;
use crate::domain::hosts::Policy;
use crate::domain::limits;
use crate::domain::sandbox::{Demand, Network, ResourceLimits};
use crate::domain::usage::Price;

/// All agents of one agents.toml.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The agent of a task that names none.
    pub default_agent: Option<String>,
    /// By name.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Prices by model.
    pub prices: BTreeMap<String, Price>,
}

/// agents.toml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It cannot be read.
    #[error("cannot read the agents file {path}: {source}; name another with --agents")]
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
        let mut agents = BTreeMap::new();
        for (name, span) in &typed.agents {
            let at = At {
                line: line_of(text, span.span().start),
                name,
            };
            check_name(name).map_err(|message| at.error("name", message))?;
            let merged = merged(name, &tables.agents, &mut Vec::new())
                .map_err(|message| at.error("extends", message))?;
            let entry: Entry = merged.try_into().map_err(syntax)?;
            agents.insert(name.clone(), entry.resolve(&at, config_dir)?);
        }
        for (name, spec) in &agents {
            if let Some(fallback) = &spec.fallback
                && (!agents.contains_key(fallback) || fallback == name)
            {
                let start = typed.agents.get(name).map_or(0, |span| span.span().start);
                let at = At {
                    line: line_of(text, start),
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
            prices: typed.prices,
        })
    }
}

impl AgentSpec {
    /// The effective entry for people, values of the environment masked.
    pub fn describe(&self) -> Value {
        let masked: BTreeMap<_, _> = self.env.keys().map(|name| (name, "***")).collect();
        json!({
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
        })
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
    prices: BTreeMap<String, Price>,
}

/// The same file as tables.
#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    agents: BTreeMap<String, toml::Table>,
}

/// One entry as written: everything may come from the entry it extends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "extends")]
    _extends: Option<String>,
    label: Option<String>,
    enabled: Option<bool>,
    path: Option<PathName>,
    command: Option<Vec<String>>,
    version_args: Option<Vec<String>>,
    install: Option<String>,
    env: Option<BTreeMap<String, String>>,
    env_allow: Option<Vec<String>>,
    inherit_home: Option<bool>,
    home_files: Option<Vec<PathBuf>>,
    models: Option<Vec<String>>,
    modes: Option<Vec<String>>,
    thinking_options: Option<Vec<String>>,
    model: Option<String>,
    mode: Option<String>,
    thinking: Option<String>,
    permissions: Option<Permissions>,
    start_timeout: Option<Span>,
    idle_timeout: Option<Span>,
    total_timeout: Option<Span>,
    kill_grace: Option<Span>,
    memory_mb: Option<u64>,
    pids: Option<u64>,
    cpu_time: Option<Span>,
    file_mb: Option<u64>,
    disk_mb: Option<u64>,
    slots: Option<u32>,
    fallback: Option<String>,
    sandbox: Option<Demand>,
    network: Option<Network>,
    hosts: Option<Vec<String>>,
    readable: Option<Vec<PathBuf>>,
    nested_sandbox: Option<bool>,
    usage: Option<UsageSpec>,
    acp: Option<AcpSpec>,
    cli: Option<CliSpec>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathName {
    Acp,
    Pty,
    Pipe,
    Noop,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permissions {
    default: Option<Verdict>,
    #[serde(default)]
    kinds: BTreeMap<String, Verdict>,
    ask_timeout: Option<Span>,
    ask_default: Option<AskDefault>,
}

/// A duration written as `"1500ms"`, `"90s"`, `"10m"` or `"2h"`.
#[derive(Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration; write a number and ms, s, m or h, such as \"90s\""
            ))
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// Where in the file an entry stands.
struct At<'a> {
    line: usize,
    name: &'a str,
}

impl At<'_> {
    fn error(&self, key: &str, message: impl Into<String>) -> CatalogueError {
        CatalogueError::Entry {
            line: self.line,
            key: format!("agents.{}.{key}", self.name),
            message: message.into(),
        }
    }
}

impl Entry {
    fn resolve(self, at: &At<'_>, config_dir: &Path) -> Result<AgentSpec, CatalogueError> {
        let path = match self.path {
            Some(PathName::Acp) => ExecutionPath::Acp,
            Some(PathName::Pty) => ExecutionPath::Pty,
            Some(PathName::Pipe) => ExecutionPath::Pipe,
            Some(PathName::Noop) => ExecutionPath::Noop,
            None => return Err(at.error("path", "is missing; write acp, pty, pipe or noop")),
        };
        let in_dir = |text: String| text.replace("{config_dir}", &config_dir.to_string_lossy());
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        let permissions = self.permissions;
        let spec = AgentSpec {
            name: at.name.to_owned(),
            label: self.label.unwrap_or_else(|| at.name.to_owned()),
            enabled: self.enabled.unwrap_or(true),
            path,
            command: self
                .command
                .unwrap_or_default()
                .into_iter()
                .map(&in_dir)
                .collect(),
            version_args: self.version_args.unwrap_or_default(),
            install: self.install,
            env: self
                .env
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, in_dir(v)))
                .collect(),
            env_allow: self.env_allow.unwrap_or_default(),
            inherit_home: self.inherit_home.unwrap_or(false),
            home_files: self.home_files.unwrap_or_default(),
            models: self.models.unwrap_or_default(),
            modes: self.modes.unwrap_or_default(),
            thinking_options: self.thinking_options.unwrap_or_default(),
            model: self.model,
            mode: self.mode,
            thinking: self.thinking,
            permissions: PermissionPolicy {
                default: permissions
                    .as_ref()
                    .and_then(|p| p.default)
                    .unwrap_or(Verdict::Ask),
                ask_timeout: span(
                    permissions.as_ref().and_then(|p| p.ask_timeout),
                    limits::PERMISSION_ASK_TIMEOUT,
                ),
                ask_default: permissions
                    .as_ref()
                    .and_then(|p| p.ask_default)
                    .unwrap_or(AskDefault::Deny),
                kinds: permissions.map(|p| p.kinds).unwrap_or_default(),
            },
            timeouts: Timeouts {
                start: span(self.start_timeout, limits::AGENT_START_TIMEOUT),
                idle: span(self.idle_timeout, limits::AGENT_IDLE_TIMEOUT),
                total: span(self.total_timeout, limits::AGENT_TOTAL_TIMEOUT),
            },
            kill_grace: span(self.kill_grace, limits::KILL_GRACE),
            limits: ResourceLimits {
                memory_mb: self.memory_mb.or(ResourceLimits::USUAL.memory_mb),
                pids: self.pids.or(ResourceLimits::USUAL.pids),
                cpu_s: self.cpu_time.map(|span| span.0.as_secs().max(1)),
                file_mb: self.file_mb.or(ResourceLimits::USUAL.file_mb),
                disk_mb: self.disk_mb.or(ResourceLimits::USUAL.disk_mb),
            },
            slots: self.slots.unwrap_or(1),
            fallback: self.fallback,
            sandbox: self.sandbox.unwrap_or_default(),
            network: self.network.unwrap_or_default(),
            hosts: Policy::parse(&self.hosts.unwrap_or_default())
                .map_err(|error| at.error("hosts", error.to_string()))?,
            readable: self.readable.unwrap_or_default(),
            nested_sandbox: self.nested_sandbox.unwrap_or(false),
            usage: self.usage.unwrap_or_default(),
            acp: self.acp.unwrap_or_default(),
            cli: self.cli.unwrap_or_default(),
        };
        check(&spec).map_err(|(key, message)| at.error(key, message))?;
        Ok(spec)
    }
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
        for name in [
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
