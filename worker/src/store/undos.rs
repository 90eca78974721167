//! Applied changes that shall be taken out again, from the applier's side.

use std::time::Duration;

use super::{Store, StoreError};

crate::statements! {
    CLAIM_UNDO = "claim_undo";
    MARK_UNDONE = "mark_undone";
    UNDO_REFUSED = "undo_refused";
    UNDO_FAILED = "undo_failed";
}

/// An applied change, claimed for a while to undo it.
#[derive(Clone, Debug)]
pub struct UndoClaim {
    /// The change.
    pub change: i64,
    /// Fence of this claim.
    pub token: i64,
    /// Project whose branch holds it.
    pub project: String,
    /// Branch it went to.
    pub target_ref: String,
    /// Tip of the branch before.
    pub before: String,
    /// The commit that brought it in.
    pub applied_commit: String,
    /// How long ago somebody asked.
    pub asked: Duration,
}

/// Claim one for `time`; `None`: there is none.
pub async fn claim(store: &Store, time: Duration) -> Result<Option<UndoClaim>, StoreError> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let row = store.query_opt(&CLAIM_UNDO, &[&ms]).await?;
    row.map(|row| {
        Ok(UndoClaim {
            change: row.try_get("id")?,
            token: row.try_get("apply_token")?,
            project: row.try_get("project")?,
            target_ref: row.try_get("target_ref")?,
            before: row.try_get("target_before")?,
            applied_commit: row.try_get("applied_commit")?,
            asked: Duration::from_millis(row.try_get::<_, i64>("asked_ms")?.unsigned_abs()),
        })
    })
    .transpose()
}

/// The branch is back at `commit`.
pub async fn mark_undone(store: &Store, claim: &UndoClaim, commit: &str) -> Result<(), StoreError> {
    store
        .query(&MARK_UNDONE, &[&claim.change, &claim.token, &commit])
        .await?;
    Ok(())
}

/// It stays: the reason goes to who asked.
pub async fn mark_refused(store: &Store, claim: &UndoClaim, why: &str) -> Result<(), StoreError> {
    store
        .query(&UNDO_REFUSED, &[&claim.change, &claim.token, &why])
        .await?;
    Ok(())
}

/// It could not be done now; somebody tries again after `wait`.
pub async fn mark_failed(
    store: &Store,
    claim: &UndoClaim,
    error: &str,
    wait: Duration,
) -> Result<(), StoreError> {
    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    store
        .query(&UNDO_FAILED, &[&claim.change, &claim.token, &error, &ms])
        .await?;
    Ok(())
}
