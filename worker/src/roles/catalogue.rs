//! The catalogue of agents as the roles find it, and probing by its entries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::doctor::Machine;
use crate::agent::catalog::{self, Probe};
use crate::check::{self, Subject, Tell};
use crate::config::agent_spec::AgentSpec;
use crate::config::agents::{Catalogue, CatalogueError};
use crate::config::credentials;
use crate::domain::error_class::ErrorClass;
use crate::domain::redact::Redactor;
use crate::ops::doctor::{Examiner, Finding};
use crate::ops::{CheckDepth, OpError, ProbeReport, Prober};
use crate::run::secrets;
use crate::sandbox::{self, Sandbox};
use crate::surface::cli::roles::{ConfigCheckArgs, OnlyRung, Report};

/// Used when no agents.toml is found: the ready-made entries. The user only needs the programs.
pub(super) const READY_MADE: &str = include_str!("../../../agents.toml");

/// The file that is looked for when none is named.
pub(super) const DEFAULT_FILE: &str = "agents.toml";

/// Read the catalogue. A file that was named must be there; the default one may be missing.
pub(super) fn load(file: &Path) -> Result<Catalogue, OpError> {
    if is_absent(file) {
        tracing::info!("no agents.toml here: using the ready-made entries");
    }
    read(file)
}

/// The same without a word.
fn read(file: &Path) -> Result<Catalogue, OpError> {
    let read = match is_absent(file) {
        true => Catalogue::parse(READY_MADE),
        false => Catalogue::load(file),
    };
    read.map_err(|error| match error {
        CatalogueError::Read { .. } => invalid(&error).hint("Is it there, and readable?"),
        CatalogueError::Syntax(_) | CatalogueError::Entry { .. } => invalid(&error),
    })
}

/// Whether nobody named a file, and there is none.
pub(super) fn is_absent(file: &Path) -> bool {
    file == Path::new(DEFAULT_FILE) && !file.exists()
}

fn invalid(error: &dyn std::fmt::Display) -> OpError {
    OpError::invalid(error.to_string())
        .code("invalid_agents_toml")
        .hint("Mend the file; `dispatch config check` reads it as a worker would.")
}

/// Read the catalogue and say what is wrong with it, or show it as a worker sees it.
pub(super) fn config_check(args: &ConfigCheckArgs) -> Result<Report, OpError> {
    let catalogue = load(&args.agents)?;
    let agents: serde_json::Map<String, serde_json::Value> = catalogue
        .agents
        .values()
        .map(|spec| (spec.name.clone(), spec.describe()))
        .collect();
    let providers: serde_json::Map<String, serde_json::Value> = catalogue
        .providers
        .values()
        .map(|provider| (provider.name.clone(), provider.describe()))
        .collect();
    let mut view = serde_json::json!({
        "default_agent": catalogue.default_agent, "agents": agents, "providers": providers,
        "prices": &*catalogue.prices,
    });
    let secrets = catalogue.agents.values().flat_map(credentials::of_agent);
    Redactor::new(secrets).clean_value(&mut view);
    let shown = serde_json::to_string_pretty(&view)
        .map_err(|error| OpError::internal(error.to_string()))?;
    Ok(Report {
        text: shown,
        document: view,
    })
}

/// Probes by the catalogue of this directory (or of `DISPATCH_AGENTS`), in silence.
pub(super) fn prober() -> Option<Arc<dyn Prober>> {
    let tell = Tell::Nobody;
    Some(Arc::new(CatalogueProber { file: file(), tell }))
}

/// The same for a person who waits for it.
pub(super) fn telling_prober() -> Option<Arc<dyn Prober>> {
    let tell = Tell::Terminal;
    Some(Arc::new(CatalogueProber { file: file(), tell }))
}

/// Looks at this machine with the same catalogue.
pub(super) fn examiner(data: Option<&Path>) -> Option<Arc<dyn Examiner>> {
    let named = std::env::var_os("DISPATCH_DATA").filter(|name| !name.is_empty());
    let data = data.map(Path::to_owned).or(named.map(PathBuf::from));
    Some(Arc::new(Machine {
        agents: file(),
        data,
    }))
}

fn file() -> PathBuf {
    let named = std::env::var_os("DISPATCH_AGENTS").filter(|name| !name.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT_FILE), PathBuf::from)
}

struct CatalogueProber {
    file: PathBuf,
    tell: Tell,
}

impl Prober for CatalogueProber {
    fn knows(&self, agent: &str) -> Result<bool, OpError> {
        Ok(read(&self.file)?.agents.contains_key(agent))
    }

    fn probe<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<Option<ProbeReport>, OpError>> {
        async move {
            let catalogue = load(&self.file)?;
            let Some(spec) = catalogue.agents.get(agent) else {
                return Ok(None);
            };
            let probe = self.probe_entry(spec).await;
            let mut probe =
                probe.unwrap_or_else(|why| Probe::failed(spec, ErrorClass::Internal, why));
            probe.redact(&secrets::of_host(spec).await);
            Ok(Some(probe.report(spec, None)))
        }
        .boxed()
    }

    fn check<'a>(
        &'a self,
        agent: &'a str,
        depth: CheckDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<Finding>>, OpError>> {
        async move {
            let catalogue = load(&self.file)?;
            let Some(spec) = catalogue.agents.get(agent) else {
                return Ok(None);
            };
            let scratch = scratch().map_err(OpError::unavailable)?;
            let sandbox = self.sandbox(scratch.path()).await;
            let subject = Subject {
                spec,
                sandbox: sandbox.map_err(OpError::unavailable)?,
                scratch: scratch.path(),
                secrets: secrets::of_host(spec).await,
                marks: String::new(),
                tell: self.tell,
            };
            Ok(Some(check::check(&subject, depth).await))
        }
        .boxed()
    }
}

fn scratch() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("cannot make a directory to try it in: {error}"))
}

impl CatalogueProber {
    /// Probe it in a place of its own; the error is one of this machine.
    async fn probe_entry(&self, spec: &AgentSpec) -> Result<Probe, String> {
        let scratch = scratch()?;
        let sandbox = self.sandbox(scratch.path()).await?;
        Ok(catalog::probe(spec, &sandbox, scratch.path()).await)
    }

    /// What a worker here would confine it with.
    async fn sandbox(&self, scratch: &Path) -> Result<Sandbox, String> {
        let only = std::env::var("DISPATCH_SANDBOX").ok();
        let only = only.filter(|rung| !rung.is_empty());
        let only: Option<OnlyRung> = only
            .map(|rung| rung.parse())
            .transpose()
            .map_err(|why| format!("DISPATCH_SANDBOX {why}"))?;
        let found = Sandbox::find(sandbox::Settings {
            data_dir: scratch.to_owned(),
            hidden: vec![self.file.clone()],
            only: only.and_then(|only| only.0),
            ..sandbox::Settings::default()
        });
        found
            .await
            .map_err(|why| format!("cannot set up a sandbox to try it in: {why}"))
    }
}
