//! What an attempt left, as a pending change: the row, its files, its objects.

use serde_json::Value;

use crate::domain::change::{FileChange, Snapshot, show_path};
use crate::domain::flag;

use super::claims::Lease;
use super::finish::{AttemptFacts, Disposition, append_last_events, clean};
use super::{StoreError, Tx};

crate::statements! {
    INSERT_CHANGE = "insert_change";
    INSERT_CHANGE_FILES = "insert_change_files", slow;
    INSERT_PACK = "insert_pack", slow;
    SUPERSEDE_CHANGES = "supersede_changes";
    CARRY_CHANGE = "carry_change", slow;
}

/// A change is made when the task ends and something is different.
pub(super) async fn store(
    tx: &Tx,
    lease: &Lease,
    disposition: &Disposition,
    facts: &AttemptFacts,
    next_seq: &mut i64,
) -> Result<Option<i64>, StoreError> {
    let Some(snapshot) = facts.snapshot.as_ref().filter(|s| !s.files.is_empty()) else {
        return Ok(None);
    };
    let partial = match disposition {
        Disposition::Completed => false,
        Disposition::Failed | Disposition::Cancelled => true,
        Disposition::Again { .. } => return Ok(None),
    };
    // What a failed attempt left stands beside a good change, it does not replace it.
    if !partial {
        let nobody: Option<i64> = None;
        tx.query(&SUPERSEDE_CHANGES, &[&facts.conversation, &nobody])
            .await?;
    }
    let sums = Sums::of(snapshot);
    let change = insert(tx, lease, facts, snapshot, &sums, partial).await?;
    if let Some(pack) = &snapshot.pack {
        tx.query(&INSERT_PACK, &[&change, pack]).await?;
    }
    let payload = serde_json::json!({
        "change_id": change, "files": sums.files, "added_lines": sums.added,
        "removed_lines": sums.removed, "partial": partial, "digest": snapshot.digest,
        "flags": sums.flags,
    });
    append_last_events(tx, lease, *next_seq, &[("change_ready", payload)]).await?;
    *next_seq += 1;
    Ok(Some(change))
}

/// Put the change beside carried work, which has its objects: nobody sees it unless the task ends
/// before another attempt begins.
pub(super) async fn carry(
    tx: &Tx,
    lease: &Lease,
    facts: &AttemptFacts,
    snapshot: &Snapshot,
) -> Result<(), StoreError> {
    if snapshot.files.is_empty() {
        return Ok(());
    }
    let change = insert(tx, lease, facts, snapshot, &Sums::of(snapshot), true).await?;
    tx.query(&CARRY_CHANGE, &[&change]).await?;
    Ok(())
}

/// What the row of a change says of its files.
struct Sums {
    files: i32,
    added: i64,
    removed: i64,
    flags: Vec<String>,
}

impl Sums {
    fn of(snapshot: &Snapshot) -> Self {
        let lines = |of: fn(&FileChange) -> Option<i32>| -> i64 {
            snapshot.files.iter().filter_map(of).map(i64::from).sum()
        };
        Self {
            files: i32::try_from(snapshot.files.len()).unwrap_or(i32::MAX),
            added: lines(|f| f.added_lines),
            removed: lines(|f| f.removed_lines),
            flags: flag::union(snapshot.files.iter().map(|f| f.flags.as_slice())),
        }
    }
}

async fn insert(
    tx: &Tx,
    lease: &Lease,
    facts: &AttemptFacts,
    snapshot: &Snapshot,
    sums: &Sums,
    partial: bool,
) -> Result<i64, StoreError> {
    let rows = tx
        .query(
            &INSERT_CHANGE,
            &[
                &lease.task().0,
                &lease.attempt(),
                &lease.token().0,
                &facts.project,
                &partial,
                &snapshot.base_commit,
                &snapshot.result_tree,
                &snapshot.result_commit,
                &snapshot.result_ref,
                &snapshot.digest,
                &sums.files,
                &sums.added,
                &sums.removed,
                &Value::from(snapshot.notices.clone()),
                &sums.flags,
            ],
        )
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::no_row(INSERT_CHANGE.name))?;
    let change: i64 = row.try_get("id")?;
    store_files(tx, change, &snapshot.files).await?;
    Ok(change)
}

async fn store_files(tx: &Tx, change: i64, files: &[FileChange]) -> Result<(), StoreError> {
    let numbers: Vec<i32> = (1..).take(files.len()).collect();
    let path: Vec<String> = files.iter().map(|f| show_path(&f.path)).collect();
    let path_bytes: Vec<&[u8]> = files.iter().map(|f| f.path.as_slice()).collect();
    let old: Vec<Option<String>> = files
        .iter()
        .map(|f| f.old_path.as_deref().map(show_path))
        .collect();
    let old_bytes: Vec<Option<&[u8]>> = files.iter().map(|f| f.old_path.as_deref()).collect();
    let operation: Vec<&str> = files.iter().map(|f| f.operation.as_str()).collect();
    let kind: Vec<&str> = files.iter().map(|f| f.kind.as_str()).collect();
    let old_mode: Vec<Option<i32>> = files.iter().map(|f| f.old_mode).collect();
    let new_mode: Vec<Option<i32>> = files.iter().map(|f| f.new_mode).collect();
    let old_blob: Vec<Option<&str>> = files.iter().map(|f| f.old_blob.as_deref()).collect();
    let new_blob: Vec<Option<&str>> = files.iter().map(|f| f.new_blob.as_deref()).collect();
    let added: Vec<Option<i32>> = files.iter().map(|f| f.added_lines).collect();
    let removed: Vec<Option<i32>> = files.iter().map(|f| f.removed_lines).collect();
    let patch: Vec<Option<String>> = files
        .iter()
        .map(|f| f.patch.as_deref().map(clean))
        .collect();
    let cut: Vec<bool> = files.iter().map(|f| f.patch_cut).collect();
    let flags: Vec<String> = files.iter().map(|f| f.flags.join(",")).collect();
    tx.query(
        &INSERT_CHANGE_FILES,
        &[
            &change,
            &numbers,
            &path,
            &path_bytes,
            &old,
            &old_bytes,
            &operation,
            &kind,
            &old_mode,
            &new_mode,
            &old_blob,
            &new_blob,
            &added,
            &removed,
            &patch,
            &cut,
            &flags,
        ],
    )
    .await?;
    Ok(())
}
