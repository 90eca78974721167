//! Cancel requests, as soon as they are made. Anybody may send a notification: it says when to look,
//! and the database says what is to be cancelled.

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::lease::LeaseBook;
use crate::domain::ids::WorkerId;
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, fleet};

/// Look whenever a notification names a task that runs here, until stopped. What is missed comes with
/// the next heartbeat.
pub async fn run(
    store: Store,
    worker: WorkerId,
    listener: Listener,
    book: LeaseBook,
    stop: CancellationToken,
) {
    let mut wakeups = listener.subscribe();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = wakeups.recv() => heard,
        };
        match heard {
            Ok(Wakeup::Cancel(task)) if book.runs(task) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        }
        match fleet::cancel_requests(&store, worker).await {
            Ok(tasks) => {
                for task in tasks {
                    book.cancel(task);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cancel requests wait for the next heartbeat");
            }
        }
    }
}
