//! Looks for ready tasks that cheap claims are blind to. It walks over dead index entries, so it does
//! so beside the claims, where none of them waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::store::claims::{self, LowWaterMarks};

use super::slots::Slots;

/// Time between two looks, backing off to the second figure while nothing is claimed.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_IDLE_MAX: Duration = Duration::from_secs(5);

/// A look may take this share of the time: one part in so many; but one slow look must not leave the
/// worker blind for long.
const SHARE: u32 = 100;
const SWEEP_MAX: Duration = Duration::from_secs(15);

/// Says that the next claim must look at everything. Cheap to clone.
#[derive(Clone)]
pub struct Late(Arc<Inner>);

struct Inner {
    found: AtomicBool,
    told: Notify,
}

impl Default for Late {
    /// Nobody has looked yet, so the first claim looks at everything.
    fn default() -> Self {
        Self(Arc::new(Inner {
            found: AtomicBool::new(true),
            told: Notify::new(),
        }))
    }
}

impl Late {
    /// Something may be behind the marks.
    pub fn tell(&self) {
        self.0.found.store(true, Ordering::Release);
        self.0.told.notify_one();
    }

    /// Whether something may be, which the caller now looks at.
    pub fn take(&self) -> bool {
        self.0.found.swap(false, Ordering::AcqRel)
    }

    /// Until somebody tells.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }
}

/// Look until stopped.
pub async fn run(
    store: Store,
    slots: Slots,
    marks: LowWaterMarks,
    late: Late,
    stop: CancellationToken,
) {
    let mut every = SWEEP;
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let (demand, _) = slots.demand();
        let agents: Vec<&str> = demand.iter().map(|d| d.agent.as_str()).collect();
        let now = marks.of(&agents);
        if now.is_empty() {
            continue;
        }
        let began = Instant::now();
        let found = match claims::behind_marks(&store, &agents, &now).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "late tasks could not be looked for");
                true
            }
        };
        if found {
            late.tell();
        }
        let busy = found || now != seen;
        every = next_look(every, began.elapsed(), busy);
        seen = now;
    }
}

/// When to look again: a walk over many dead entries must not eat more than its share, and one that
/// hung must not be the last for long.
fn next_look(every: Duration, took: Duration, busy: bool) -> Duration {
    let least = (took * SHARE).clamp(SWEEP, SWEEP_MAX);
    let next = if busy { SWEEP } else { every * 2 };
    next.clamp(least, SWEEP_IDLE_MAX.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_look_is_followed_by_a_pause_and_not_by_blindness() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(next_look(s(1), ms(1), true), s(1));
        assert_eq!(next_look(s(1), ms(1), false), s(2));
        assert_eq!(next_look(s(4), ms(1), false), SWEEP_IDLE_MAX);
        assert_eq!(next_look(s(1), ms(80), true), s(8), "its share of the time");
        assert_eq!(next_look(s(1), s(30), true), SWEEP_MAX, "a look that hung");
    }
}
