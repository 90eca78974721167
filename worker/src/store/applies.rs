//! Approved changes from the applier's side.

use chrono::{DateTime, Utc};
use serde_json::Value;
use std::time::Duration;

use tokio_postgres::Row;

use super::{Store, StoreError};
use crate::domain::change::ShownFile;

crate::statements! {
    CLAIM_CHANGE = "claim_change";
    RENEW_APPLY = "renew_apply";
    CHANGE_SHOWN = "change_shown", slow;
    CHANGE_PACK = "change_pack", slow;
    CHANGE_TASK = "change_task";
    MARK_APPLIED = "mark_applied";
    MARK_CONFLICTED = "mark_conflicted";
    APPLY_FAILED = "apply_failed";
}

/// An approved change, claimed for a while.
#[derive(Clone, Debug)]
pub struct ApplyClaim {
    /// The change.
    pub change: i64,
    /// Fence of this claim.
    pub token: i64,
    /// Another worker began to apply it and did not say what became of it.
    pub resumed: bool,
    /// Task it came from.
    pub task: i64,
    /// Project it goes to.
    pub project: String,
    /// What it is based on.
    pub base_commit: String,
    /// What it is.
    pub result_commit: String,
    /// Who approved it.
    pub decided_by: Option<String>,
    /// When; also the date of the commit, so that applying again makes the same one.
    pub decided_at: DateTime<Utc>,
    /// Digest that was approved.
    pub digest: String,
    /// Its files as they were shown.
    pub files: Vec<ShownFile>,
    /// Exact approved paths; `None`: all files.
    pub only_paths: Option<Vec<Vec<u8>>>,
    /// First line of the task, for the commit's subject.
    pub input: String,
    /// Agent that made it.
    pub agent: String,
}

/// Claim one approved change for `time`; `None`: there is none.
pub async fn claim(store: &Store, time: Duration) -> Result<Option<ApplyClaim>, StoreError> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let Some(row) = store.query_opt(&CLAIM_CHANGE, &[&ms]).await? else {
        return Ok(None);
    };
    let (change, task): (i64, i64) = (row.try_get("id")?, row.try_get("task_id")?);
    let mut approved = Vec::new();
    let mut files = Vec::new();
    for row in store.query(&CHANGE_SHOWN, &[&change]).await? {
        let file = shown(&row)?;
        if row.try_get("approved")? {
            approved.push(file.path.clone());
        }
        files.push(file);
    }
    // Nothing shown is nothing approved, and not everything.
    let all = !files.is_empty() && approved.len() == files.len();
    let asked = store.query_one(&CHANGE_TASK, &[&task]).await?;
    Ok(Some(ApplyClaim {
        change,
        token: row.try_get("apply_token")?,
        resumed: row.try_get("resumed")?,
        task,
        project: row.try_get("project")?,
        base_commit: row.try_get("base_commit")?,
        result_commit: row.try_get("result_commit")?,
        decided_by: row.try_get("decided_by")?,
        decided_at: row.try_get("decided_at")?,
        digest: row.try_get("digest")?,
        files,
        only_paths: (!all).then_some(approved),
        input: asked.try_get("input")?,
        agent: asked.try_get("agent")?,
    }))
}

/// The files of a change as they are shown, in their order.
pub(super) async fn shown_files(store: &Store, change: i64) -> Result<Vec<ShownFile>, StoreError> {
    let rows = store.query(&CHANGE_SHOWN, &[&change]).await?;
    rows.iter().map(shown).collect()
}

fn shown(row: &Row) -> Result<ShownFile, StoreError> {
    Ok(ShownFile {
        path: row.try_get("path_bytes")?,
        old_path: row.try_get("old_path_bytes")?,
        path_text: row.try_get("path")?,
        old_path_text: row.try_get("old_path")?,
        operation: row.try_get("operation")?,
        kind: row.try_get("kind")?,
        modes: (row.try_get("old_mode")?, row.try_get("new_mode")?),
        blobs: (row.try_get("old_blob")?, row.try_get("new_blob")?),
        lines: (row.try_get("added_lines")?, row.try_get("removed_lines")?),
        patch: row.try_get("patch")?,
        patch_cut: row.try_get("patch_cut")?,
    })
}

/// Keep it for so long from now on.
pub async fn renew(store: &Store, claim: &ApplyClaim, time: Duration) -> Result<(), StoreError> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    store
        .query(&RENEW_APPLY, &[&claim.change, &claim.token, &ms])
        .await?;
    Ok(())
}

/// The objects of a change, if they are kept here.
pub async fn pack(store: &Store, change: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let row = store.query_opt(&CHANGE_PACK, &[&change]).await?;
    Ok(row.map(|row| row.try_get("pack")).transpose()?)
}

/// The branch holds the change.
pub async fn mark_applied(
    store: &Store,
    claim: &ApplyClaim,
    target_ref: &str,
    before: &str,
    commit: &str,
    undo_ref: &str,
) -> Result<(), StoreError> {
    let params: super::Params<'_> = &[
        &claim.change,
        &claim.token,
        &target_ref,
        &before,
        &commit,
        &undo_ref,
    ];
    store.query(&MARK_APPLIED, params).await?;
    Ok(())
}

/// The change does not merge.
pub async fn mark_conflicted(
    store: &Store,
    claim: &ApplyClaim,
    target_ref: &str,
    tip: &str,
    paths: &[String],
) -> Result<(), StoreError> {
    let params: super::Params<'_> = &[
        &claim.change,
        &claim.token,
        &target_ref,
        &tip,
        &Value::from(paths.to_vec()),
    ];
    store.query(&MARK_CONFLICTED, params).await?;
    Ok(())
}

/// It could not be applied now; somebody tries again after `wait`. `untouched`: it is certain that
/// the branch does not have it.
pub async fn mark_failed(
    store: &Store,
    claim: &ApplyClaim,
    error: &str,
    wait: Duration,
    untouched: bool,
) -> Result<(), StoreError> {
    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    store
        .query(
            &APPLY_FAILED,
            &[&claim.change, &claim.token, &error, &ms, &untouched],
        )
        .await?;
    Ok(())
}
