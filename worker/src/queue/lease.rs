//! The leases a worker holds, and the heartbeat that keeps them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::WorkerId;
use crate::domain::limits;
use crate::domain::sandbox::Rung;
use crate::run::leash::{Leash, Stop};
use crate::store::{Store, StoreError, fleet};
use crate::telemetry::figures;

use super::slots::Slots;

/// Attempts younger than this are not named in heartbeats: they cannot have lost their lease yet.
const YOUNG: Duration = Duration::from_secs(2);

/// Which attempts run here, by token: a task may be claimed again while an earlier attempt of it,
/// whose lease was lost, still winds down. Cheap to clone.
#[derive(Clone, Default)]
pub struct LeaseBook(Arc<Mutex<HashMap<i64, Entry>>>);

struct Entry {
    task: i64,
    leash: Leash,
    since: Instant,
}

impl LeaseBook {
    /// An attempt begins.
    pub fn enter(&self, task: i64, token: i64) -> Leash {
        let leash = Leash::default();
        let entry = Entry {
            task,
            leash: leash.clone(),
            since: Instant::now(),
        };
        self.entries().insert(token, entry);
        leash
    }

    /// Its end is stored.
    pub fn leave(&self, token: i64) {
        self.entries().remove(&token);
    }

    /// Whether the task runs here.
    pub fn runs(&self, task: i64) -> bool {
        self.entries().values().any(|e| e.task == task)
    }

    /// The database says that somebody wants the task cancelled. `false`: it does not run here.
    pub fn cancel(&self, task: i64) -> bool {
        let mut runs_here = false;
        for entry in self.entries().values().filter(|e| e.task == task) {
            entry.leash.pull(Stop::Cancel);
            runs_here = true;
        }
        runs_here
    }

    /// The lease with this token is gone.
    pub fn revoke(&self, token: i64) {
        if let Some(entry) = self.entries().get(&token) {
            entry.leash.pull(Stop::LeaseLost);
        }
    }

    /// The database refuses what the attempt with this token tells.
    pub fn refuse(&self, token: i64, error: String) {
        if let Some(entry) = self.entries().get(&token) {
            entry.leash.refuse(error);
        }
    }

    /// Stop everything.
    pub fn pull_all(&self, why: Stop) {
        for entry in self.entries().values() {
            entry.leash.pull(why);
        }
    }

    /// How many attempts run here.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Task and token of attempts that run for at least this long.
    pub fn held(&self, at_least: Duration) -> Vec<(i64, i64)> {
        let now = Instant::now();
        let entries = self.entries();
        let old = entries
            .iter()
            .filter(|(_, e)| now.duration_since(e.since) >= at_least);
        old.map(|(token, e)| (e.task, *token)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Shows life on a connection of its own, so that a full pool cannot fake death.
pub struct Heartbeat {
    /// A store with one connection.
    pub store: Store,
    /// The worker.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// Its slots.
    pub slots: u32,
    /// Best rung of the sandbox on its machine.
    pub sandbox: Rung,
    /// What it may take, which is nothing while somebody says so.
    pub slots_open: Slots,
    /// What it runs.
    pub book: LeaseBook,
    /// Set once the worker drains.
    pub draining: CancellationToken,
}

impl Heartbeat {
    /// One beat.
    pub async fn run_once(&self) -> Result<(), StoreError> {
        let held = self.book.held(YOUNG);
        let draining = self.draining.is_cancelled();
        let pulse = fleet::heartbeat(&self.store, self.worker, draining, &held).await?;
        if !pulse.known {
            // Somebody forgot us while we were away; what we held was rescued.
            tracing::warn!("this worker was forgotten; registering again");
            let slots = i32::try_from(self.slots).unwrap_or(i32::MAX);
            fleet::register(&self.store, self.worker, &self.name, slots, self.sandbox).await?;
        }
        if self.slots_open.hold(pulse.held) {
            tracing::info!(held = pulse.held, "told whether to take tasks");
        }
        for task in pulse.cancelled {
            self.book.cancel(task);
        }
        for token in pulse.lost {
            tracing::warn!(attempt.id = token, "lease lost; stopping the agent");
            figures::leases_lost(1);
            self.book.revoke(token);
        }
        Ok(())
    }

    /// Beat until stopped. When no beat gets through for long, by our own monotonic clock, stop
    /// the agents before others may start the same tasks.
    pub async fn run(self, stop: CancellationToken) {
        let mut last_good = Instant::now();
        loop {
            // What counts is when the database was asked, not when it answered.
            let asked_at = Instant::now();
            let beat = tokio::time::timeout(patience(last_good.elapsed()), self.run_once()).await;
            let good = match beat {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "heartbeat failed");
                    false
                }
                Err(_elapsed) => {
                    tracing::warn!("heartbeat got no answer");
                    false
                }
            };
            if good {
                last_good = asked_at;
            } else if last_good.elapsed() >= limits::SELF_STOP && !self.book.is_empty() {
                tracing::error!(
                    "the database is away for too long: stopping all agents, their tasks go back"
                );
                self.book.pull_all(Stop::LeaseLost);
            }
            let pause = if good {
                limits::HEARTBEAT
            } else {
                Duration::from_secs(1)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// How long a beat may wait for its answer, so that the agents are stopped in time when none comes.
fn patience(since_good: Duration) -> Duration {
    let left = limits::SELF_STOP.saturating_sub(since_good);
    left.clamp(Duration::from_secs(1), limits::HEARTBEAT * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_winds_down_leaves_only_its_own_entry() {
        let book = LeaseBook::default();
        let old = book.enter(7, 1);
        book.revoke(1);
        // The task was rescued and claimed again here before the old attempt was over.
        let new = book.enter(7, 2);
        book.leave(1);
        assert_eq!(book.held(Duration::ZERO), [(7, 2)]);
        assert!(book.cancel(7));
        assert_eq!(
            (old.why(), new.why()),
            (Some(Stop::LeaseLost), Some(Stop::Cancel))
        );
    }

    #[test]
    fn a_beat_without_an_answer_ends_when_the_agents_must_stop() {
        let silent = limits::HEARTBEAT;
        assert_eq!(silent + patience(silent), limits::SELF_STOP);
        assert_eq!(patience(Duration::ZERO), limits::HEARTBEAT * 2);
        assert_eq!(patience(limits::SELF_STOP * 2), Duration::from_secs(1));
    }
}
