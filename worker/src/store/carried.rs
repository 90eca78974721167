//! What outlives an attempt: the work that the next one of the task goes on from, and messages that it
//! did not take.

use super::claims::Lease;
use super::finish::{AttemptFacts, Disposition, Ender};
use super::{Store, StoreError, Tx, new_changes};

crate::statements! {
    RESUME_WORK = "resume_work", slow;
    KEEP_CARRIED = "keep_carried", slow;
    FORGET_CARRIED = "forget_carried";
    SETTLE = "settle";
    SETTLE_WITHOUT_WORK = "settle_without_work";
}

/// Where the next attempt of a task that goes back begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgainFrom {
    /// Where this one did: at its base.
    #[default]
    Base,
    /// At what this one left.
    Snapshot,
}

/// What an attempt left for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedWork {
    /// Commit that it was compared with.
    pub base: String,
    /// Commit that holds what it left.
    pub result: String,
    /// Whether the two differ.
    pub changed: bool,
    /// The objects between them; `None`: only the host of that attempt has them.
    pub pack: Option<Vec<u8>>,
}

/// What an attempt may go on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// What the attempt before left.
    pub carried: Option<CarriedWork>,
    /// Why the attempt before ended, as one line; `None`: there was none.
    pub ended: Option<String>,
    /// Attempts that gave their slot back for their provider since it answered last.
    pub provider_waits: u32,
}

/// What the attempt that holds the lease may go on from; `None`: the lease is gone.
pub async fn resume(
    store: &Store,
    lease: &Lease,
    conversation: i64,
) -> Result<Option<Resumed>, StoreError> {
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0, &conversation];
    let row = store.query_opt(&RESUME_WORK, params).await?;
    row.map(|row| {
        let base: Option<String> = row.try_get("base_commit")?;
        let carried = base
            .map(|base| {
                Ok::<_, StoreError>(CarriedWork {
                    base,
                    result: row.try_get("result_commit")?,
                    changed: row.try_get("changed")?,
                    pack: row.try_get("pack")?,
                })
            })
            .transpose()?;
        Ok(Resumed {
            carried,
            ended: row.try_get("ended")?,
            provider_waits: u32::try_from(row.try_get::<_, i64>("provider_waits")?)
                .unwrap_or(u32::MAX),
        })
    })
    .transpose()
}

/// The part of an attempt's end that is about the next one; in its transaction, once the task is placed.
pub(super) async fn at_end(
    tx: &Tx,
    lease: &Lease,
    ender: Ender,
    disposition: &Disposition,
    facts: Option<&AttemptFacts>,
) -> Result<(), StoreError> {
    let task = lease.task().0;
    match (disposition, ender) {
        (Disposition::Completed | Disposition::Failed | Disposition::Cancelled, _) => {
            let settle = match (ender, facts.map(|facts| facts.again_from)) {
                (Ender::Owner, Some(AgainFrom::Snapshot)) => &SETTLE,
                // It kept nothing of a native attempt: its worker is gone, or another agent ended it.
                (Ender::Owner, Some(AgainFrom::Base) | None) | (Ender::Rescuer(_), _) => {
                    &SETTLE_WITHOUT_WORK
                }
            };
            tx.query(settle, &[&task]).await?;
        }
        // What it had done went with its worker, and what it said of it must not be believed.
        (Disposition::Again { .. }, Ender::Rescuer(_)) => {
            tx.query(&FORGET_CARRIED, &[&task]).await?;
        }
        (Disposition::Again { .. }, Ender::Owner) => {
            if let Some(facts) = facts {
                keep(tx, lease, facts).await?;
            }
        }
    }
    Ok(())
}

async fn keep(tx: &Tx, lease: &Lease, facts: &AttemptFacts) -> Result<(), StoreError> {
    let task = lease.task().0;
    match (facts.again_from, &facts.snapshot) {
        (AgainFrom::Snapshot, Some(snapshot)) => {
            let params: super::Params<'_> = &[
                &task,
                &lease.attempt(),
                &snapshot.base_commit,
                &snapshot.result_commit,
                &!snapshot.files.is_empty(),
                &snapshot.pack,
            ];
            tx.query(&KEEP_CARRIED, params).await?;
            new_changes::carry(tx, lease, facts, snapshot).await?;
        }
        // Nothing is known of what it left; `resume` finds out whether it had said anything.
        (AgainFrom::Snapshot, None) => {}
        (AgainFrom::Base, _) => {
            tx.query(&FORGET_CARRIED, &[&task]).await?;
        }
    }
    Ok(())
}
