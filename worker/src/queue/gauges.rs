//! Figures of the worker and of the queue, counted from time to time for `/metrics`.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, fleet};

use super::slots::Slots;

/// How often the queue is counted, and the slots.
const COUNT_EVERY: Duration = Duration::from_secs(30);
const GAUGE_EVERY: Duration = Duration::from_secs(5);

/// Count until stopped.
pub async fn run(slots: Slots, store: Store, stop: CancellationToken) {
    let mut counted_at: Option<Instant> = None;
    loop {
        let (total, used) = slots.usage();
        metrics::gauge!("dispatch_slots").set(f64::from(total));
        metrics::gauge!("dispatch_slots_used").set(f64::from(used));
        let (open, waiting) = store.pool_status();
        metrics::gauge!("dispatch_pool_connections").set(open as f64);
        metrics::gauge!("dispatch_pool_waiting").set(waiting as f64);
        if counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            counted_at = Some(Instant::now());
            match fleet::queue_depth(&store).await {
                Ok(depth) => show_depth(&depth),
                Err(error) => tracing::debug!(%error, "the queue could not be counted"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(GAUGE_EVERY) => {}
        }
    }
}

fn show_depth(depth: &fleet::QueueDepth) {
    let tables = [
        ("ready", depth.ready),
        ("later", depth.later),
        ("parked", depth.parked),
        ("running", depth.running),
    ];
    for (place, tasks) in tables {
        metrics::gauge!("dispatch_tasks", "place" => place).set(tasks as f64);
    }
    metrics::gauge!("dispatch_oldest_ready_seconds").set(depth.oldest_ready_s);
}
