//! Pending changes as reviewers see them, and their decisions. Making and applying changes is the
//! queue's side.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};
use crate::domain::change::ChangeState;
use crate::domain::ids::{ChangeId, TaskId};

crate::statements! {
    /// One change.
    GET = "change_get";
    /// A page of changes, newest first.
    LIST = "change_list";
    /// The files of a change.
    FILES = "change_files";
    /// The decisions on a change.
    REVIEWS = "change_reviews";
    /// Approve.
    APPROVE = "change_approve";
    /// Reject.
    REJECT = "change_reject";
    /// Take an applied change out again.
    UNDO = "change_undo";
    /// Set files aside.
    DECIDE_FILES = "change_decide_files";
    /// Ask for more work on it.
    REQUEST_CHANGES = "change_request_changes";
}

crate::record! {
    /// What an attempt left, for review.
    pub struct ChangeView {
        /// Its number.
        pub id: i64,
        /// Task that it came from.
        pub task_id: i64,
        /// Attempt that it came from.
        pub attempt: i16,
        /// Project that it is for.
        pub project: String,
        /// Agent that was asked.
        pub agent: String,
        /// Beginning of what was asked.
        pub input: String,
        /// pending, approved, rejected, applied, conflicted, superseded or undone.
        pub state: String,
        /// Whether the attempt did not succeed: this is what it had written when it ended.
        pub partial: bool,
        /// SHA-256 over base, result and files; a decision names it.
        pub digest: String,
        /// Commit that the work started from.
        pub base_commit: String,
        /// Commit that holds the result.
        pub result_commit: String,
        /// Ref in the project's repository that holds the result.
        pub result_ref: String,
        /// Number of changed files.
        pub files: i32,
        /// Lines added in all files.
        pub added_lines: i64,
        /// Lines removed in all files.
        pub removed_lines: i64,
        /// What a reviewer should know: caps, nested repositories, and the like.
        pub notices: Value,
        /// Warnings of all its files, each once, the worst first: runs_in_ci, steers_agents, …
        pub flags: Vec<String>,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// When it was decided on.
        pub decided_at: Option<DateTime<Utc>>,
        /// Who decided.
        pub decided_by: Option<String>,
        /// Task that was asked to work on it further.
        pub follow_up_task_id: Option<i64>,
        /// Change that took its place.
        pub superseded_by: Option<i64>,
        /// Branch that it was applied to.
        pub target_ref: Option<String>,
        /// Commit by which it was applied.
        pub applied_commit: Option<String>,
        /// When it was applied.
        pub applied_at: Option<DateTime<Utc>>,
        /// Ref that holds the branch as it was before.
        pub undo_ref: Option<String>,
        /// When somebody asked to undo it.
        pub undo_asked_at: Option<DateTime<Utc>>,
        /// When it was taken out of the branch again.
        pub undone_at: Option<DateTime<Utc>>,
        /// Paths that do not merge, with reasons.
        pub conflicts: Option<Value>,
        /// Why the last try to apply or undo it failed.
        pub apply_error: Option<String>,
    }
}

crate::record! {
    /// One file of a change.
    pub struct FileView {
        /// Its number within the change, from 1.
        pub n: i32,
        /// Its path; bytes that are not UTF-8 are shown as \xNN.
        pub path: String,
        /// Its former path, when it was renamed.
        pub old_path: Option<String>,
        /// create, edit, delete, rename or mode.
        pub operation: String,
        /// text, binary, symlink or submodule.
        pub kind: String,
        /// Git mode before.
        pub old_mode: Option<i32>,
        /// Git mode after.
        pub new_mode: Option<i32>,
        /// Lines added; absent for what has no lines.
        pub added_lines: Option<i32>,
        /// Lines removed; absent for what has no lines.
        pub removed_lines: Option<i32>,
        /// Unified diff for people; never what is applied.
        pub patch: Option<String>,
        /// Whether the patch leaves something out.
        pub patch_cut: bool,
        /// pending, approved or rejected.
        pub state: String,
        /// Warnings for the reviewer, the worst first: runs_in_ci, steers_agents, …
        pub flags: Vec<String>,
    }
}

crate::record! {
    /// One decision on a change.
    pub struct ReviewView {
        /// When it was made.
        pub at: DateTime<Utc>,
        /// Who made it.
        pub actor: String,
        /// approved, rejected or changes_requested.
        pub verdict: String,
        /// The files it is about; absent: all.
        pub files: Option<Vec<String>>,
        /// Digest that the reviewer saw.
        pub digest: Option<String>,
        /// Why.
        pub comment: Option<String>,
    }
}

/// Which changes to list.
#[derive(Clone, Debug, Default)]
pub struct ChangeFilter {
    /// Only in this state.
    pub state: Option<ChangeState>,
    /// Only of this project.
    pub project: Option<String>,
    /// Only of this task.
    pub task: Option<i64>,
    /// Only older than this one.
    pub before: Option<i64>,
    /// At most so many.
    pub most: i64,
}

/// Changes, newest first.
pub async fn list(store: &Store, filter: &ChangeFilter) -> Result<Vec<ChangeView>, StoreError> {
    let before = filter.before.unwrap_or(i64::MAX);
    let state = filter.state.map(ChangeState::as_str);
    let rows = store
        .query(
            &LIST,
            &[&before, &state, &filter.project, &filter.task, &filter.most],
        )
        .await?;
    rows.iter().map(ChangeView::read).collect()
}

/// One change.
pub async fn get(store: &Store, id: ChangeId) -> Result<Option<ChangeView>, StoreError> {
    let row = store.query_opt(&GET, &[&id.0]).await?;
    row.as_ref().map(ChangeView::read).transpose()
}

/// The files of a change in order; only this path, when one is given.
pub async fn files(
    store: &Store,
    id: ChangeId,
    path: Option<&str>,
) -> Result<Vec<FileView>, StoreError> {
    let rows = store.query(&FILES, &[&id.0, &path]).await?;
    rows.iter().map(FileView::read).collect()
}

/// The decisions on a change, first to last.
pub async fn reviews(store: &Store, id: ChangeId) -> Result<Vec<ReviewView>, StoreError> {
    let rows = store.query(&REVIEWS, &[&id.0]).await?;
    rows.iter().map(ReviewView::read).collect()
}

/// Who decides, what they saw, and why.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// Who decides.
    pub actor: &'a str,
    /// Digest of the change that they saw.
    pub digest: &'a str,
    /// Why.
    pub comment: Option<&'a str>,
}

/// Approve the whole change, or only these files of it.
pub async fn approve(
    store: &Store,
    id: ChangeId,
    only_files: Option<&[String]>,
    decision: Decision<'_>,
) -> Result<(), StoreError> {
    store
        .query_one(
            &APPROVE,
            &[
                &id.0,
                &decision.digest,
                &only_files,
                &decision.actor,
                &decision.comment,
            ],
        )
        .await?;
    Ok(())
}

/// Reject the whole change.
pub async fn reject(
    store: &Store,
    id: ChangeId,
    reason: Option<&str>,
    actor: &str,
) -> Result<(), StoreError> {
    store.query_one(&REJECT, &[&id.0, &reason, &actor]).await?;
    Ok(())
}

/// Ask a worker to take an applied change out of its branch.
pub async fn undo(
    store: &Store,
    change: ChangeId,
    reason: Option<&str>,
    actor: &str,
) -> Result<(), StoreError> {
    store.query(&UNDO, &[&change.0, &reason, &actor]).await?;
    Ok(())
}

/// Set files aside before the rest is approved; says how many.
pub async fn reject_files(
    store: &Store,
    id: ChangeId,
    paths: &[String],
    decision: Decision<'_>,
) -> Result<i32, StoreError> {
    decide_files(store, id, paths, "rejected", decision).await
}

/// Take files back that were set aside; says how many. A comment is not kept.
pub async fn restore_files(
    store: &Store,
    id: ChangeId,
    paths: &[String],
    decision: Decision<'_>,
) -> Result<i32, StoreError> {
    decide_files(store, id, paths, "pending", decision).await
}

async fn decide_files(
    store: &Store,
    id: ChangeId,
    paths: &[String],
    verdict: &str,
    decision: Decision<'_>,
) -> Result<i32, StoreError> {
    let row = store
        .query_one(
            &DECIDE_FILES,
            &[
                &id.0,
                &decision.digest,
                &paths,
                &verdict,
                &decision.actor,
                &decision.comment,
            ],
        )
        .await?;
    Ok(row.try_get("hit")?)
}

/// Keep the change and send a follow-up task into its conversation.
pub async fn request_changes(
    store: &Store,
    id: ChangeId,
    comment: &str,
    actor: &str,
) -> Result<TaskId, StoreError> {
    let row = store
        .query_one(&REQUEST_CHANGES, &[&id.0, &comment, &actor])
        .await?;
    Ok(TaskId(row.try_get("follow_up")?))
}
