//! Attempts that end well and leave nothing are completed many at a time, in one statement.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::domain::attempt::AttemptEnd;
use crate::run::RunContext;
use crate::run::finish::{self, Ending};
use crate::run::leash::Leash;
use crate::run::stream::AttemptStream;
use crate::store::claims::{self, Claimed, PlainFinish};
use crate::telemetry::figures::{self, End};

use super::lease::LeaseBook;
use super::maintainer::Poke;
use super::slots::SlotGuard;

/// Attempts in one statement.
const BATCH: usize = 1_000;

/// An attempt that is over, with the slot it still holds.
pub struct Over {
    /// The task.
    pub claimed: Claimed,
    /// Freed when the end is stored.
    pub slot: SlotGuard,
}

/// Stores plain ends until every sender is gone. Never waits for more: what ends while one batch is
/// being stored is the next one, so that batches are as large as the load makes them.
pub async fn run(
    context: Arc<RunContext>,
    book: LeaseBook,
    mut over: mpsc::Receiver<Over>,
    poke: Poke,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while over.recv_many(&mut batch, BATCH).await > 0 {
        let gated = batch.iter().any(|over| over.claimed.gated);
        store(&context, &book, &mut batch).await;
        if gated {
            poke.now();
        }
    }
}

async fn store(context: &RunContext, book: &LeaseBook, batch: &mut Vec<Over>) {
    let plain: Vec<PlainFinish> = batch
        .iter()
        .map(|o| PlainFinish {
            lease: o.claimed.lease.clone(),
            seq: o.claimed.next_seq,
        })
        .collect();
    let done = claims::finish_plain(&context.store, &plain)
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "a batch of ends goes one by one");
            Vec::new()
        });
    let done: std::collections::HashSet<i64> = done.into_iter().map(|task| task.0).collect();
    figures::attempts("noop", End::Completed, done.len() as u64);
    for over in batch.drain(..) {
        let task = over.claimed.lease.task().0;
        if !done.contains(&task) {
            // A cancel request, another owner, or a database that was away: the careful way.
            let stream = AttemptStream::new(
                context.writer.clone(),
                &over.claimed,
                over.claimed.conversation.unwrap_or(task),
                Leash::default(),
            );
            let ending = Ending {
                end: AttemptEnd::Succeeded,
                driven: None,
                snapshot: None,
                conversation: None,
                catalogue: context.catalogue(),
            };
            finish::store_end(context, &over.claimed, &stream, ending).await;
        }
        book.leave(over.claimed.lease.token().0);
        drop(over.slot);
    }
}
