//! Tries an agent when somebody asks: a probe, whose result is offered at once, or a check.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::agent::catalog;
use crate::check::{self, Subject, Tell};
use crate::config::agent_spec::AgentSpec;
use crate::domain::lookup::{Answer, CheckDepth, ProbeReport, Question};
use crate::run::{self, RunContext, secrets};
use crate::sandbox;
use crate::store::fleet::Offer;

use super::lookups::UNKNOWN;
use super::maintainer::Poke;
use super::offers;

/// Tries the agents of a worker.
#[derive(Clone)]
pub struct Tries {
    /// What attempts share, the catalogue and the sandbox among it.
    pub context: Arc<RunContext>,
    /// Where each try has a directory of its own, outside of any project.
    pub scratch: PathBuf,
    /// Told what a probe found.
    pub fresh: Fresh,
}

impl Tries {
    /// Find it out; the error is the reason why that cannot be.
    pub(super) async fn answer(&self, question: Option<&Question>) -> Result<Answer, String> {
        match question {
            Some(Question::Probe { agent }) => {
                let found = self.probe(agent).await?;
                Ok(Answer::Probe(Box::new(found)))
            }
            Some(Question::Check {
                agent,
                without_prompt,
            }) => {
                let depth = CheckDepth::without_prompt(*without_prompt);
                self.check(agent, depth).await
            }
            Some(
                Question::Preview { .. } | Question::File { .. } | Question::CheckProject { .. },
            )
            | None => Err(UNKNOWN.to_owned()),
        }
    }

    async fn probe(&self, agent: &str) -> Result<ProbeReport, String> {
        let spec = self.spec(agent)?;
        let scratch = self.scratch()?;
        let mut probe = catalog::probe(&spec, &self.context.sandbox, scratch.path()).await;
        probe.redact(&secrets::of_attempt(&self.context, &spec).await);
        let offer = offers::offer(&spec, probe.clone());
        let report = probe.report(&spec, Some(self.context.worker_name.clone()));
        self.fresh.put(spec, offer);
        Ok(report)
    }

    async fn check(&self, agent: &str, depth: CheckDepth) -> Result<Answer, String> {
        let spec = self.spec(agent)?;
        let scratch = self.scratch()?;
        let subject = Subject {
            spec: &spec,
            sandbox: self.context.sandbox.clone(),
            scratch: scratch.path(),
            secrets: secrets::of_attempt(&self.context, &spec).await,
            // What a turn leaves is ended with what attempts leave.
            marks: run::marks_of(self.context.worker),
            tell: Tell::Nobody,
        };
        Ok(Answer::Check(check::check(&subject, depth).await))
    }

    fn spec(&self, agent: &str) -> Result<AgentSpec, String> {
        let catalogue = self.context.catalogue();
        let spec = catalogue.agents.get(agent).cloned();
        spec.ok_or_else(|| format!("its agents.toml has no agent {agent:?} any more"))
    }

    fn scratch(&self) -> Result<tempfile::TempDir, String> {
        let dir = self
            .scratch
            .join(tries_of(&self.context.worker.to_string()));
        let made = || {
            sandbox::passage(&dir)?;
            let scratch = tempfile::tempdir_in(&dir)?;
            sandbox::passage(scratch.path())?;
            Ok(scratch)
        };
        made().map_err(|error: std::io::Error| {
            format!("cannot make a directory to try it in: {error}")
        })
    }
}

/// Directory for probes and tries, below the worker's data directory.
pub(super) const PROBES: &str = "probes";

/// Where a worker tries agents, below the directory of probes.
pub(super) fn tries_of(worker: &str) -> String {
    format!("try-{worker}")
}

/// What probes beside the regular ones found out, until it is offered.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    found: Arc<Mutex<Vec<(AgentSpec, Offer)>>>,
    poke: Poke,
}

impl Fresh {
    fn put(&self, entry: AgentSpec, offer: Offer) {
        self.found().push((entry, offer));
        self.poke.now();
    }

    /// All that was not taken yet, each with the entry that was probed.
    pub(super) fn take(&self) -> Vec<(AgentSpec, Offer)> {
        std::mem::take(&mut *self.found())
    }

    /// Until there may be something.
    pub(super) async fn some(&self) {
        self.poke.asked().await;
    }

    fn found(&self) -> MutexGuard<'_, Vec<(AgentSpec, Offer)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
