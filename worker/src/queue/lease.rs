//! The leases a worker holds, and the heartbeat that keeps them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::WorkerId;
use crate::domain::limits;
use crate::run::leash::{Leash, Stop};
use crate::store::{Store, StoreError, fleet};

/// Attempts younger than this are not named in heartbeats: they cannot have lost their lease yet.
const YOUNG: Duration = Duration::from_secs(2);

/// Which attempts run here, by task. Cheap to clone.
#[derive(Clone, Default)]
pub struct LeaseBook(Arc<Mutex<HashMap<i64, Entry>>>);

struct Entry {
    token: i64,
    leash: Leash,
    since: Instant,
}

impl LeaseBook {
    /// An attempt begins.
    pub fn enter(&self, task: i64, token: i64) -> Leash {
        let leash = Leash::default();
        let entry = Entry {
            token,
            leash: leash.clone(),
            since: Instant::now(),
        };
        self.entries().insert(task, entry);
        leash
    }

    /// Its end is stored.
    pub fn leave(&self, task: i64) {
        self.entries().remove(&task);
    }

    /// Somebody wants the task cancelled. `false`: it does not run here.
    pub fn cancel(&self, task: i64) -> bool {
        match self.entries().get(&task) {
            Some(entry) => {
                entry.leash.pull(Stop::Cancel);
                true
            }
            None => false,
        }
    }

    /// The lease with this token is gone.
    pub fn revoke(&self, token: i64) {
        if let Some(entry) = self.entries().values().find(|e| e.token == token) {
            entry.leash.pull(Stop::LeaseLost);
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
        old.map(|(task, e)| (*task, e.token)).collect()
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
            fleet::register(&self.store, self.worker, &self.name, slots).await?;
        }
        for task in pulse.cancelled {
            self.book.cancel(task);
        }
        for token in pulse.lost {
            tracing::warn!(attempt.id = token, "lease lost; stopping the agent");
            metrics::counter!("dispatch_leases_lost_total").increment(1);
            self.book.revoke(token);
        }
        Ok(())
    }

    /// Beat until stopped. When no beat gets through for long, by our own monotonic clock, stop
    /// the agents before others may start the same tasks.
    pub async fn run(self, stop: CancellationToken) {
        let mut last_good = Instant::now();
        loop {
            let beat = tokio::time::timeout(limits::HEARTBEAT * 2, self.run_once()).await;
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
                last_good = Instant::now();
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
