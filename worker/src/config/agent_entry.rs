//! One entry of agents.toml as it is written, and what it means: defaults filled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::agent_check::check;
use super::agent_spec::{
    AcpSpec, AgentSpec, AskDefault, CliSpec, ErrorRule, PermissionPolicy, Timeouts, UsageSpec,
    Verdict,
};
use super::agents::CatalogueError;
use super::native_entry::{self, NativeEntry};
use super::native_spec::ProviderSpec;
use crate::domain::attempt::ExecutionPath;
use crate::domain::hosts::Policy;
use crate::domain::limits;
use crate::domain::sandbox::{Demand, Network, ResourceLimits};
use crate::domain::usage::Price;

/// What the file says beside its entries, and where it lies.
pub(super) struct Surroundings<'a> {
    pub(super) config_dir: &'a Path,
    pub(super) providers: Arc<BTreeMap<String, Arc<ProviderSpec>>>,
    pub(super) prices: Arc<BTreeMap<String, Price>>,
}

impl Surroundings<'_> {
    /// The text with the file's directory filled in.
    pub(super) fn in_dir(&self, text: &str) -> String {
        text.replace("{config_dir}", &self.config_dir.to_string_lossy())
    }
}

/// One entry as written: everything may come from the entry it extends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
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
    errors: Option<Vec<ErrorRule>>,
    usage: Option<UsageSpec>,
    acp: Option<AcpSpec>,
    cli: Option<CliSpec>,
    native: Option<NativeEntry>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathName {
    Native,
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
pub(super) struct At<'a> {
    pub(super) line: usize,
    /// `agents` or `providers`.
    pub(super) table: &'static str,
    pub(super) name: &'a str,
}

impl At<'_> {
    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> CatalogueError {
        CatalogueError::Entry {
            line: self.line,
            key: format!("{}.{}.{key}", self.table, self.name),
            message: message.into(),
        }
    }
}

impl Entry {
    /// The complete entry.
    pub(super) fn resolve(
        self,
        at: &At<'_>,
        around: &Surroundings<'_>,
    ) -> Result<AgentSpec, CatalogueError> {
        let path = match self.path {
            Some(PathName::Native) => ExecutionPath::Native,
            Some(PathName::Acp) => ExecutionPath::Acp,
            Some(PathName::Pty) => ExecutionPath::Pty,
            Some(PathName::Pipe) => ExecutionPath::Pipe,
            Some(PathName::Noop) => ExecutionPath::Noop,
            None => {
                return Err(at.error("path", "is missing; write native, acp, pty, pipe or noop"));
            }
        };
        let fault = |(key, message): (&str, String)| at.error(key, message);
        self.check_sections(path).map_err(fault)?;
        let in_dir = |text: String| around.in_dir(&text);
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        let native = self.native.unwrap_or_default();
        let mut spec = AgentSpec {
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
            permissions: self
                .permissions
                .map_or_else(usual_policy, Permissions::policy),
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
            errors: self.errors.unwrap_or_default(),
            usage: self.usage.unwrap_or_default(),
            acp: self.acp.unwrap_or_default(),
            cli: self.cli.unwrap_or_default(),
            native: native.resolve(around).map_err(fault)?,
        };
        if path == ExecutionPath::Native {
            native_entry::complete(&mut spec).map_err(fault)?;
        }
        check(&spec).map_err(fault)?;
        Ok(spec)
    }

    /// Sections of another path would say nothing, and look as if they did.
    fn check_sections(&self, path: ExecutionPath) -> Result<(), (&'static str, String)> {
        let given = match path {
            ExecutionPath::Native => [
                ("command", self.command.is_some()),
                ("version_args", self.version_args.is_some()),
                ("install", self.install.is_some()),
                ("acp", self.acp.is_some()),
                ("cli", self.cli.is_some()),
                ("errors", self.errors.is_some()),
                ("usage", self.usage.is_some()),
            ]
            .into_iter()
            .find(|(_, given)| *given),
            ExecutionPath::Acp | ExecutionPath::Pty | ExecutionPath::Pipe | ExecutionPath::Noop => {
                self.native.is_some().then_some(("native", true))
            }
        };
        match (given, path) {
            (None, _) => Ok(()),
            (Some((key, _)), ExecutionPath::Native) => Err((
                key,
                "is not for path = \"native\", which starts no program: it is part of the worker"
                    .to_owned(),
            )),
            (Some((key, _)), _) => Err((key, "is only for path = \"native\"".to_owned())),
        }
    }
}

fn usual_policy() -> PermissionPolicy {
    PermissionPolicy {
        default: Verdict::Ask,
        kinds: BTreeMap::new(),
        ask_timeout: limits::PERMISSION_ASK_TIMEOUT,
        ask_default: AskDefault::Deny,
    }
}

impl Permissions {
    fn policy(self) -> PermissionPolicy {
        let usual = usual_policy();
        PermissionPolicy {
            default: self.default.unwrap_or(usual.default),
            kinds: self.kinds,
            ask_timeout: self.ask_timeout.map_or(usual.ask_timeout, |span| span.0),
            ask_default: self.ask_default.unwrap_or(usual.ask_default),
        }
    }
}
