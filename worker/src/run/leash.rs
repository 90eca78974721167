//! How the queue stops a running attempt, and why.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why an attempt is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked to cancel the task.
    Cancel,
    /// The worker is stopping; the task goes back.
    Interrupt,
    /// Another worker owns the task; nothing more may be written.
    LeaseLost,
    /// The database refuses what the attempt tells; `Leash::refusal` has its words.
    Refused,
}

/// The string that a running attempt hangs on. The first pull counts.
#[derive(Clone, Debug, Default)]
pub struct Leash(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    why: OnceLock<Stop>,
    refusal: OnceLock<String>,
    pulled: CancellationToken,
}

impl Leash {
    /// Stop the attempt; `false` when it was being stopped already.
    pub fn pull(&self, why: Stop) -> bool {
        let first = self.0.why.set(why).is_ok();
        self.0.pulled.cancel();
        first
    }

    /// Why it is being stopped, if it is.
    pub fn why(&self) -> Option<Stop> {
        self.0.why.get().copied()
    }

    /// Stop the attempt because an event of it cannot be stored, and never will be.
    pub fn refuse(&self, error: String) {
        // The first refusal says it; the rest of the stream is left out after it.
        let _told_already = self.0.refusal.set(error);
        self.pull(Stop::Refused);
    }

    /// Why its stream ends before the attempt does, if it does.
    pub fn refusal(&self) -> Option<&str> {
        self.0.refusal.get().map(String::as_str)
    }

    /// Resolves when the lease is gone: nothing more will be stored.
    pub async fn lost(&self) {
        self.0.pulled.cancelled().await;
        if self.why() != Some(Stop::LeaseLost) {
            std::future::pending().await
        }
    }

    /// Resolves when it is being stopped.
    pub fn pulled(&self) -> CancellationToken {
        self.0.pulled.clone()
    }
}
