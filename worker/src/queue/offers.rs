//! What this worker offers: probes its agents, publishes the answers, reloads the catalogue.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::catalog::{self, Probe};
use crate::config::agent_spec::AgentSpec;
use crate::config::agents::Catalogue;
use crate::domain::error_class::ErrorClass;
use crate::run::{RunContext, secrets};
use crate::sandbox::Sandbox;
use crate::store::fleet::{self, Offer};
use crate::store::{Store, StoreError};
use crate::telemetry::figures;

use super::pauses;
use super::slots::Slots;
use super::tries::Fresh;

/// How long an offer holds; it is renewed at a third of that.
const TTL: Duration = Duration::from_secs(300);

/// A ready agent is probed again this often: a probe costs seconds and up to a gigabyte.
const PROBE_EVERY: Duration = Duration::from_secs(3_600);

/// How often agents.toml is looked at for changes.
const RELOAD_LOOK: Duration = Duration::from_secs(2);

/// Probes at the same time: agents take a core and a gigabyte to start.
const PROBES_AT_ONCE: usize = 2;

/// Keeps the offers of a worker true.
pub struct Offers {
    /// What attempts share, the catalogue among it.
    pub context: Arc<RunContext>,
    /// Told what is ready.
    pub slots: Slots,
    /// The catalogue's file; absent: it never changes.
    pub file: Option<PathBuf>,
    /// A directory for probes, outside of any project.
    pub scratch: PathBuf,
    /// What was found out last.
    pub current: BTreeMap<String, Offer>,
    /// The worker takes no tasks because somebody said so.
    pub held: bool,
    /// Agents whose provider wants to be left alone, with why.
    pub paused: BTreeMap<String, String>,
    /// What somebody else found out since.
    pub fresh: Fresh,
}

/// Which agents a look probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that were not ready.
    NotReady,
}

impl Offers {
    /// Probe, publish what came out, and open the slots of what is ready.
    pub async fn run_once(&mut self, which: Which) -> Result<(), StoreError> {
        let catalogue = self.context.catalogue();
        self.current
            .retain(|name, _| catalogue.agents.contains_key(name));
        let wanted: Vec<AgentSpec> = catalogue
            .agents
            .values()
            .filter(|spec| which == Which::All || !self.is_ready(&spec.name))
            .cloned()
            .collect();
        for spec in &wanted {
            let loading = Offer {
                status: "loading",
                ..empty(spec)
            };
            self.current.entry(spec.name.clone()).or_insert(loading);
        }
        self.publish(&catalogue).await?;
        self.open(&catalogue);
        let (scratch, context) = (self.scratch.clone(), self.context.clone());
        let probes = futures::stream::iter(wanted)
            .map(|spec| {
                let (scratch, context) = (scratch.join(&spec.name), context.clone());
                async move {
                    let mut probe = probe(&spec, &context.sandbox, &scratch).await;
                    probe.redact(&secrets::of_attempt(&context, &spec).await);
                    offer(&spec, probe)
                }
            })
            .buffer_unordered(PROBES_AT_ONCE);
        tokio::pin!(probes);
        // Each agent opens as soon as it is known to be ready, not when the slowest one is.
        loop {
            let offer = tokio::select! {
                offer = probes.next() => offer,
                () = self.fresh.some() => {
                    self.heed_fresh().await?;
                    continue;
                }
            };
            let Some(offer) = offer else { return Ok(()) };
            tracing::info!(
                agent.name = offer.name,
                status = offer.status,
                version = offer.version,
                error = offer.error,
                "agent probed"
            );
            self.current.insert(offer.name.clone(), offer);
            self.publish(&catalogue).await?;
            self.open(&catalogue);
        }
    }

    fn is_ready(&self, name: &str) -> bool {
        self.current
            .get(name)
            .is_some_and(|offer| offer.status == "ready")
    }

    async fn publish(&self, catalogue: &Catalogue) -> Result<(), StoreError> {
        let store: &Store = &self.context.store;
        let default = catalogue.default_agent.as_deref();
        if default.is_some() {
            fleet::set_setting(store, "default_agent", default).await?;
        }
        let offers: Vec<Offer> = self.current.values().map(|o| self.now(o)).collect();
        fleet::publish(store, self.context.worker, &offers, TTL).await
    }

    fn open(&self, catalogue: &Catalogue) {
        self.slots.offer(self.current.values().filter_map(|offer| {
            let spec = catalogue.agents.get(&offer.name)?;
            let ready = self.now(offer).status == "ready";
            Some((spec.name.clone(), spec.slots, ready))
        }));
    }

    /// An offer as it holds now: what is ready and paused gets no tasks.
    fn now(&self, offer: &Offer) -> Offer {
        if self.held && offer.status == "ready" {
            let name = &self.context.worker_name;
            return Offer {
                status: "error",
                error: Some(format!(
                    "worker {name} is drained: `dispatch workers resume {name}` lets it take tasks"
                )),
                ..offer.clone()
            };
        }
        match self.paused.get(&offer.name) {
            Some(why) if offer.status == "ready" => Offer {
                status: "error",
                error: Some(why.clone()),
                ..offer.clone()
            },
            Some(_) | None => offer.clone(),
        }
    }

    /// Take a change of the pauses, if there is one.
    async fn heed_pauses(&mut self) -> Result<(), StoreError> {
        let catalogue = self.context.catalogue();
        let works = |agent: &str, provider: &str| {
            let offer = self.current.get(agent);
            let found = offer.and_then(|offer| offer.capabilities.get("providers")?.as_array());
            found.is_some_and(|all| {
                let this = |one: &&Value| one["name"] == provider && one["usable"] == true;
                all.iter().any(|one| this(&one))
            })
        };
        let paused = pauses::of_agents(&catalogue, &self.context.gate, works);
        let held = self.slots.is_held();
        if paused == self.paused && held == self.held {
            return Ok(());
        }
        self.paused = paused;
        self.held = held;
        self.open(&catalogue);
        self.publish(&catalogue).await
    }

    /// Offer what somebody else found out since, if they did.
    async fn heed_fresh(&mut self) -> Result<(), StoreError> {
        let catalogue = self.context.catalogue();
        let mut news = false;
        for (entry, offer) in self.fresh.take() {
            // The file may have another entry by now, or none.
            if catalogue.agents.get(&offer.name) == Some(&entry) {
                self.current.insert(offer.name.clone(), offer);
                news = true;
            }
        }
        if !news {
            return Ok(());
        }
        self.open(&catalogue);
        self.publish(&catalogue).await
    }

    /// Keep offers fresh and the catalogue current until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        // Nothing yet: the file may have changed since the worker read it.
        let mut seen = None;
        let mut which = Which::All;
        let mut probed_at = Instant::now();
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = self.run_once(which) => done,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "offers could not be published");
            }
            let renew_at = Instant::now() + TTL / 3;
            which = Which::NotReady;
            let mut pauses = self.context.gate.changes();
            while Instant::now() < renew_at {
                if let Err(error) = self.heed_pauses().await {
                    tracing::warn!(%error, "a pause could not be published");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RELOAD_LOOK) => {}
                    // The sender lives as long as the context.
                    _ = pauses.changed() => {}
                    () = self.fresh.some() => {}
                }
                if let Err(error) = self.heed_fresh().await {
                    tracing::warn!(%error, "what a probe found could not be published");
                }
                let now = modified(self.file.as_deref());
                if now != seen {
                    seen = now;
                    if self.reload() {
                        which = Which::All;
                        break;
                    }
                }
            }
            if probed_at.elapsed() >= PROBE_EVERY {
                which = Which::All;
            }
            if which == Which::All {
                probed_at = Instant::now();
            }
        }
    }

    /// Take a changed catalogue; a broken one is reported and the old one stays. `true`: it says
    /// something else than before.
    fn reload(&self) -> bool {
        let Some(file) = &self.file else { return false };
        match Catalogue::load(file) {
            Ok(catalogue) if catalogue == *self.context.catalogue() => false,
            Ok(catalogue) => {
                figures::begin_agents(&catalogue);
                let fresh = Arc::new(catalogue);
                match self.context.agents.write() {
                    Ok(mut agents) => *agents = fresh,
                    Err(poisoned) => *poisoned.into_inner() = fresh,
                }
                tracing::info!(file = %file.display(), "agents.toml was reloaded");
                true
            }
            Err(error) => {
                tracing::error!(%error, "agents.toml changed but cannot be read; the old one stays in force");
                false
            }
        }
    }
}

fn modified(file: Option<&Path>) -> Option<SystemTime> {
    file.and_then(|f| std::fs::metadata(f).ok())
        .and_then(|m| m.modified().ok())
}

async fn probe(spec: &AgentSpec, sandbox: &Sandbox, scratch: &Path) -> Probe {
    match tokio::fs::create_dir_all(scratch).await {
        Ok(()) => catalog::probe(spec, sandbox, scratch).await,
        Err(error) => {
            let message = format!("cannot make {}: {error}", scratch.display());
            Probe::failed(spec, ErrorClass::Workspace, message)
        }
    }
}

fn nothing() -> Value {
    Value::Array(Vec::new())
}

fn empty(spec: &AgentSpec) -> Offer {
    Offer {
        name: spec.name.clone(),
        status: "unavailable",
        error: None,
        execution_path: spec.path.as_str(),
        version: None,
        models: nothing(),
        modes: nothing(),
        thinking_options: nothing(),
        commands: nothing(),
        capabilities: Value::Object(serde_json::Map::new()),
        slots: i32::try_from(spec.slots).unwrap_or(i32::MAX),
        fallback: spec.fallback.clone(),
    }
}

/// What this worker offers of an agent when a probe found this.
pub(super) fn offer(spec: &AgentSpec, probe: Probe) -> Offer {
    Offer {
        status: probe.status.as_str(),
        error: probe.error,
        version: probe.version,
        models: probe.models.into(),
        modes: probe.modes.into(),
        thinking_options: probe.thinking_options.into(),
        commands: probe.commands,
        capabilities: probe.capabilities,
        ..empty(spec)
    }
}
