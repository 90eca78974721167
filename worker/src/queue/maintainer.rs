//! Moves tasks between waiting states: due ones become ready, parked ones come out, stranded ones
//! fall back. Any worker does it; it sleeps exactly until the next scheduled task is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast::error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::store::claims::{self, Maintained};
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError};

/// Longest time between two looks: while LISTEN is up, which tells of scheduled and parked tasks,
/// and while it is down.
const TICK: Duration = Duration::from_secs(5);
const TICK_DEAF: Duration = Duration::from_secs(1);

/// Shortest time between two looks that moved little: a due row may be locked by somebody.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks for a look now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Poke(Arc<Notify>);

impl Poke {
    /// Look as soon as possible.
    pub fn now(&self) {
        self.0.notify_one();
    }

    /// Until somebody asked.
    pub async fn asked(&self) {
        self.0.notified().await;
    }
}

/// One look.
pub async fn run_once(store: &Store, listener: &Listener) -> Result<Maintained, StoreError> {
    let done = claims::maintain(store).await?;
    if done.moved > 0 {
        listener.publish(Wakeup::Moved);
    }
    Ok(done)
}

/// Look until stopped.
pub async fn run(store: Store, listener: Listener, poke: Poke, stop: CancellationToken) {
    let mut wakeups = listener.subscribe();
    let connected = listener.connected();
    let mut busy = PAUSE;
    loop {
        let tick = if *connected.borrow() { TICK } else { TICK_DEAF };
        let pause = match run_once(&store, &listener).await {
            // As many as one look moves: there may be more.
            Ok(done) if done.moved >= 500 => Duration::ZERO,
            // Somebody else is at it, and may be for long.
            Ok(done) if done.moved == 0 && done.next_due == Some(Duration::ZERO) => {
                busy = (busy * 2).min(TICK_DEAF);
                busy
            }
            Ok(done) => {
                busy = PAUSE;
                done.next_due.unwrap_or(tick).clamp(PAUSE, tick)
            }
            Err(error) => {
                tracing::warn!(%error, "maintenance failed");
                tick
            }
        };
        let timer = tokio::time::sleep(pause);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut timer => break,
                () = poke.asked() => break,
                heard = wakeups.recv() => match heard {
                    Ok(Wakeup::Later | Wakeup::Gap) | Err(RecvError::Lagged(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }
}
