//! Ends leases whose worker is gone, and those whose claim was never answered.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::error_class::ErrorClass;
use crate::domain::ids::WorkerId;
use crate::domain::limits;
use crate::domain::retry::{self, RetryDecision, Tries};
use crate::store::claims::{self, Expired};
use crate::store::finish::{self, Disposition, Ender, Finish, Finished, FirstSeq};
use crate::store::{Store, StoreError, fleet};
use crate::telemetry::figures;

use super::lease::LeaseBook;
use super::maintainer::Poke;

/// How often to look.
const TICK: Duration = Duration::from_secs(5);

/// How often rows of workers that died long ago are removed.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// A claim's answer is under way for at most this long: a statement's patience, and a little for what
/// the worker knows by the time it is asked.
const CLAIM_GRACE: Duration = limits::QUERY_TIMEOUT.saturating_add(Duration::from_secs(10));

/// End the leases of workers not seen for `ttl`. Returns how many.
pub async fn run_once(store: &Store, ttl: Duration) -> Result<usize, StoreError> {
    let expired = claims::expired(store, ttl).await?;
    let mut rescued = 0;
    for lease in &expired {
        let record = lost(lease);
        // One that cannot be ended must not keep the others waiting.
        match end(store, lease, Ender::Rescuer(ttl), record).await {
            Ok(Finished::Lost) => continue,
            Ok(
                Finished::Stored(_)
                | Finished::CancelFirst
                | Finished::NotAsked
                | Finished::TooLate,
            ) => {}
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::error!(%error, task.id = lease.lease.task().0, "a task could not be rescued");
                continue;
            }
        }
        rescued += 1;
        figures::leases_rescued(1);
        tracing::warn!(
            task.id = lease.lease.task().0, attempt.id = lease.lease.token().0, worker.id = %lease.worker,
            "its worker is gone; the task was rescued"
        );
    }
    Ok(rescued)
}

/// Give back leases of this worker that it does not know of.
pub async fn reclaim_forgotten(
    store: &Store,
    worker: WorkerId,
    book: &LeaseBook,
    grace: Duration,
) -> Result<usize, StoreError> {
    let known: Vec<i64> = book
        .held(Duration::ZERO)
        .into_iter()
        .map(|(_, token)| token)
        .collect();
    let forgotten = claims::forgotten(store, worker, &known, grace).await?;
    for lease in &forgotten {
        tracing::warn!(
            task.id = lease.lease.task().0,
            "a claim was never answered; the task goes back"
        );
        match end(store, lease, Ender::Owner, give_back(lease)).await {
            Ok(_) => {}
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::error!(%error, task.id = lease.lease.task().0, "a task could not be given back");
            }
        }
    }
    Ok(forgotten.len())
}

/// Look until stopped. After a rescue the services in `pokes` have work: a dead worker of this machine
/// left worktrees, and what waited behind the task may go.
pub async fn run(
    store: Store,
    worker: WorkerId,
    book: LeaseBook,
    pokes: [Poke; 2],
    stop: CancellationToken,
) {
    let mut forgot_at: Option<Instant> = None;
    loop {
        match run_once(&store, limits::LEASE_TTL).await {
            Ok(0) => {}
            Ok(_) => pokes.iter().for_each(Poke::now),
            Err(error) => {
                // Some may have been rescued before it failed.
                pokes.iter().for_each(Poke::now);
                tracing::warn!(%error, "rescue failed");
            }
        }
        match reclaim_forgotten(&store, worker, &book, CLAIM_GRACE).await {
            Ok(0) => {}
            Ok(_) => pokes.iter().for_each(Poke::now),
            Err(error) => tracing::warn!(%error, "looking for unanswered claims failed"),
        }
        if forgot_at.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
            forgot_at = Some(Instant::now());
            if let Err(error) = fleet::forget_dead(&store).await {
                tracing::warn!(%error, "old workers could not be forgotten");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn end(
    store: &Store,
    lease: &Expired,
    ender: Ender,
    record: Finish,
) -> Result<Finished, StoreError> {
    match finish::finish(store, &lease.lease, ender, &record).await? {
        Finished::CancelFirst => {
            let cancelled = Finish {
                disposition: Disposition::Cancelled,
                error_class: Some(ErrorClass::Cancelled.as_str()),
                error: None,
                events: Vec::new(),
                ..record
            };
            finish::finish(store, &lease.lease, ender, &cancelled).await
        }
        Finished::TooLate => {
            let class = record
                .error_class
                .unwrap_or_else(|| ErrorClass::Timeout.as_str());
            let what = record.error.as_deref().unwrap_or("its worker lost it");
            let failed = Finish {
                disposition: Disposition::Failed,
                error_class: Some(class),
                error: Some(retry::too_late(what)),
                events: Vec::new(),
                ..record
            };
            finish::finish(store, &lease.lease, ender, &failed).await
        }
        done => {
            if let (Some(class), Finished::Stored(_)) = (record.retried(), done) {
                figures::retries(class, 1);
            }
            Ok(done)
        }
    }
}

fn lost(lease: &Expired) -> Finish {
    let class = ErrorClass::Orphaned;
    let message = format!("worker {} was not seen any more", lease.worker);
    let disposition = match retry::decide(class, tries(lease), None, 0.5) {
        RetryDecision::GiveUp => Disposition::Failed,
        RetryDecision::Again { wait, charged } => Disposition::Again {
            wait,
            charged,
            reason: format!("retry after {class}: {message}"),
        },
    };
    let mut events = Vec::new();
    if let Disposition::Again { wait, .. } = &disposition {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let payload = json!({
            "class": class, "error": message, "wait_ms": wait_ms,
            "attempt": lease.lease.attempt() + 1,
        });
        events.push(("retry_scheduled", payload));
    }
    Finish {
        disposition,
        end_kind: "lease_lost",
        error_class: Some(class.as_str()),
        error: Some(message),
        output_summary: None,
        events,
        seq: FirstSeq::AfterStored,
        facts: None,
    }
}

/// Back without a charge, but not for ever: an end that can never be stored looks the same.
fn give_back(lease: &Expired) -> Finish {
    let reason = "the answer to its claim was lost".to_owned();
    let again = match retry::give_back(tries(lease), None, 0.5) {
        RetryDecision::Again { wait, charged } => Some((wait, charged)),
        RetryDecision::GiveUp => None,
    };
    let Some((wait, charged)) = again else {
        return Finish {
            disposition: Disposition::Failed,
            end_kind: "interrupted",
            error_class: Some(ErrorClass::Internal.as_str()),
            error: Some("it was claimed again and again and no end of it could be stored: the logs of the workers say why".to_owned()),
            output_summary: None,
            events: Vec::new(),
            seq: FirstSeq::AfterStored,
            facts: None,
        };
    };
    Finish {
        disposition: Disposition::Again {
            // The first answer may be lost by chance.
            wait: if lease.lease.uncharged() == 0 {
                Duration::ZERO
            } else {
                wait
            },
            charged,
            reason: reason.clone(),
        },
        end_kind: "interrupted",
        error_class: None,
        error: None,
        output_summary: None,
        events: vec![("given_back", json!({ "reason": reason }))],
        seq: FirstSeq::AfterStored,
        facts: None,
    }
}

fn tries(lease: &Expired) -> Tries {
    Tries {
        attempt: lease.lease.attempt(),
        uncharged: lease.lease.uncharged(),
        max_attempts: lease.max_attempts,
    }
}
