//! Time, as the waits for providers see it: a part of its own, so that a test of an hour's wait takes
//! none.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

/// Tells the time and waits.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Instant;

    /// Until so much later. May be dropped.
    fn wait(&self, wait: Duration) -> BoxFuture<'_, ()>;
}

/// The time of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealTime;

impl Clock for RealTime {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&self, wait: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}
