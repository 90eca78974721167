//! Who may ask a provider now: pauses that hold for the whole worker, and requests at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::config::native_spec::ProviderSpec;

/// One for a worker; cheap to clone.
#[derive(Clone, Debug)]
pub struct ProviderGate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pauses: watch::Sender<HashMap<String, Pause>>,
    slots: Mutex<HashMap<String, (u32, Arc<Semaphore>)>>,
}

/// A provider that wants to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until when, by this worker's clock.
    pub until: Instant,
    /// Why: `rate_limited`, `auth` or `billing`.
    pub class: String,
    /// In the provider's words.
    pub message: String,
}

impl Pause {
    /// How long it still holds; nothing: it is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

/// The right to have one request under way; dropping it gives it back.
#[derive(Debug)]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for ProviderGate {
    fn default() -> Self {
        Self(Arc::new(Inner {
            pauses: watch::Sender::new(HashMap::new()),
            slots: Mutex::new(HashMap::new()),
        }))
    }
}

impl ProviderGate {
    /// The pause of a provider, if it has one now.
    pub fn pause_of(&self, provider: &str, now: Instant) -> Option<Pause> {
        let pause = self.0.pauses.borrow().get(provider).cloned();
        pause.filter(|pause| pause.left(now).is_some())
    }

    /// Whether any provider has a pause now.
    pub fn has_pauses(&self, now: Instant) -> bool {
        let pauses = self.0.pauses.borrow();
        pauses.values().any(|pause| pause.left(now).is_some())
    }

    /// Leave a provider alone. A pause that ends later stays.
    pub fn pause(&self, provider: &str, pause: Pause) {
        self.0.pauses.send_if_modified(|pauses| {
            let longer = pauses
                .get(provider)
                .is_none_or(|known| known.until < pause.until);
            if longer {
                pauses.insert(provider.to_owned(), pause);
            }
            longer
        });
    }

    /// Take what the fleet knows in place of what this worker knew.
    pub fn replace(&self, pauses: HashMap<String, Pause>) {
        self.0.pauses.send_replace(pauses);
    }

    /// Told of each change of the pauses.
    pub fn changes(&self) -> watch::Receiver<HashMap<String, Pause>> {
        self.0.pauses.subscribe()
    }

    /// A slot of this provider, if one is free at once.
    pub fn try_slot(&self, provider: &ProviderSpec) -> Option<Slot> {
        let Some(slots) = self.slots_of(provider) else {
            return Some(Slot { _permit: None });
        };
        let permit = slots.try_acquire_owned().ok()?;
        Some(Slot {
            _permit: Some(permit),
        })
    }

    /// Wait for one, first come first served.
    pub async fn slot(&self, provider: &ProviderSpec) -> Slot {
        let permit = match self.slots_of(provider) {
            Some(slots) => slots.acquire_owned().await.ok(),
            None => None,
        };
        Slot { _permit: permit }
    }

    /// One set of slots for each provider and number of them: a reload that changes the number
    /// begins anew, and requests under way end in the old set.
    fn slots_of(&self, provider: &ProviderSpec) -> Option<Arc<Semaphore>> {
        let most = provider.max_concurrent?;
        let mut all = self.lock();
        let fresh = || (most, Arc::new(Semaphore::new(most as usize)));
        let entry = all.entry(provider.name.clone()).or_insert_with(fresh);
        if entry.0 != most {
            *entry = fresh();
        }
        Some(Arc::clone(&entry.1))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u32, Arc<Semaphore>)>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
