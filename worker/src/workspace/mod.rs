//! Git: worktrees, snapshots, changes and their application. Knows nothing about agents or
//! Postgres.
//!
//! Rules that hold everywhere in here: the worker never lets git discover a repository inside a
//! directory that an agent could write; it names its own store and its own index; hooks, filters,
//! attributes, external diffs and replace refs are off; patch text is a rendering and never
//! applied; nobody's checkout is touched.

mod apply;
mod approval;
mod copied;
mod diff;
mod flag_rules;
mod flags;
mod git;
mod hooks;
mod ignores;
mod instructions;
mod layout;
mod leftovers;
mod merge;
mod objects;
mod places;
mod preview;
mod process;
mod project;
mod remote;
mod remove;
mod snapshot;
mod survey;
pub(crate) mod tree_check;
mod undo;
mod walk;
mod workspaces;
mod worktree;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

pub use git::version as git_version;
pub use project::ProjectCheck;
pub use survey::{Survey, survey, top_of};
pub use workspaces::Workspaces;

use crate::domain::change::ShownFile;
pub use crate::domain::change::Snapshot;
use crate::domain::error_class::ErrorClass;
use crate::domain::remote::RemoteUrl;
use crate::domain::sandbox::Demand;
use crate::sandbox::Means;

/// The operator's switch for setup and teardown lines: they run the repository's content, confined like its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HooksPolicy {
    /// Lines of projects are run.
    Allowed,
    /// They are not.
    Off,
}

/// A project as the workspace needs it.
#[derive(Clone, Debug)]
pub struct ProjectSpec {
    /// Its name: a slug, safe in paths.
    pub name: String,
    /// Absolute path of its repository (bare or not), or the address in `remote`.
    pub path: PathBuf,
    /// Where its repository is, when it is elsewhere.
    pub remote: Option<RemoteUrl>,
    /// Branch that results go to (`refs/heads/…`); `None`: the branch that HEAD names.
    pub target_ref: Option<String>,
    /// How attempts get their checkout.
    pub mode: WorktreeMode,
    /// The operator trusts whatever runs in this project.
    pub trusted: bool,
    /// What is demanded of the sandbox here, unless the agent's entry demands less.
    pub demand: Demand,
    /// Globs of untracked files copied into each worktree.
    pub copy_files: Vec<String>,
    /// Shell line run in a fresh worktree, when the operator allows hooks.
    pub setup: Option<String>,
    /// Shell line run before a worktree is removed, likewise.
    pub teardown: Option<String>,
}

/// How an attempt gets its checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorktreeMode {
    /// Its own directory and its own git directory, borrowing objects read-only.
    Private,
    /// A plain `git worktree add`, for trusted agents.
    Linked,
}

/// Which attempt a worktree belongs to; its directory and refs carry all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorktreeKey {
    /// The task.
    pub task: i64,
    /// The attempt's number.
    pub attempt: i16,
    /// The attempt's lease token.
    pub token: i64,
}

/// What a worktree starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The tip of the project's target branch.
    Tip,
    /// A commit or branch by name.
    Named(String),
    /// On top of an earlier result, reviewed against that result's own base.
    Continue {
        /// Commit the earlier change was based on.
        base: String,
        /// Result commit of the earlier change.
        result: String,
    },
}

/// The directory an attempt works in. While a clone of this lives, no janitor takes it.
#[derive(Clone, Debug)]
pub struct Worktree {
    /// Whose it is.
    pub key: WorktreeKey,
    /// Name of the project.
    pub project: String,
    /// Working directory of the agent.
    pub tree: PathBuf,
    /// Its home directory, empty at first.
    pub home: PathBuf,
    /// Its directory for temporary files.
    pub tmp: PathBuf,
    /// Commit that the change is against.
    pub base_commit: String,
    /// Repository that the agent's git borrows objects from: it must be readable to the agent,
    /// and should not be writable.
    pub borrowed: PathBuf,
    /// For a linked worktree, the repository that it is a part of: the agent may read it.
    pub common_dir: Option<PathBuf>,
    /// How it was made.
    pub mode: WorktreeMode,
    /// What its agent was confined with; absent: the worker that made it is gone.
    means: Option<Means>,
    dir: layout::AttemptDir,
    meta: Arc<layout::Meta>,
    /// Held for its lock alone.
    _lock: Arc<File>,
}

impl Worktree {
    fn new(
        key: WorktreeKey,
        dir: &layout::AttemptDir,
        mode: WorktreeMode,
        meta: layout::Meta,
        lock: Arc<File>,
        borrowed: PathBuf,
        common_dir: Option<PathBuf>,
    ) -> Self {
        Self {
            key,
            project: meta.project.clone(),
            tree: dir.tree(key, mode),
            home: dir.home(),
            tmp: dir.tmp(),
            base_commit: meta.base_commit.clone(),
            borrowed,
            common_dir,
            mode,
            means: None,
            dir: dir.clone(),
            meta: Arc::new(meta),
            _lock: lock,
        }
    }

    /// The same, whose agent is confined with these.
    fn with_means(self, means: Means) -> Self {
        Self {
            means: Some(means),
            ..self
        }
    }

    /// What its agent may read outside of it, for its git.
    pub fn lent(&self) -> Vec<PathBuf> {
        let common_dir = self.common_dir.iter();
        common_dir.chain([&self.borrowed]).cloned().collect()
    }
}

/// An approved change on its way into the target.
#[derive(Clone, Debug)]
pub struct ApplyRequest {
    /// The change's id, for messages and the undo ref.
    pub change: i64,
    /// Commit the change is based on.
    pub base_commit: String,
    /// Result commit of the change.
    pub result_commit: String,
    /// Digest that was approved.
    pub digest: String,
    /// The files as they were shown to whoever approved, all of them, in their order.
    pub files: Vec<ShownFile>,
    /// Objects, for a store that does not have them.
    pub pack: Option<Vec<u8>>,
    /// Exact paths that were approved; `None`: all of them. A rename is named by its new path.
    pub only_paths: Option<Vec<Vec<u8>>>,
    /// Subject and body of the commit, trailers included.
    pub message: String,
    /// `Name <mail>` of the author.
    pub author: String,
    /// Seconds since the epoch: with it fixed, applying again makes the same commit.
    pub authored_at: i64,
}

/// What became of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The target branch holds the change now (or already did).
    Done {
        /// Full name of the branch.
        target_ref: String,
        /// Its tip before.
        before: String,
        /// The commit that applies the change.
        commit: String,
        /// Ref that keeps `before`, for undoing.
        undo_ref: String,
    },
    /// It does not merge.
    Conflicted {
        /// Full name of the branch.
        target_ref: String,
        /// Its tip.
        tip: String,
        /// Paths that conflict, as shown to people.
        paths: Vec<String>,
    },
}

/// A change was not applied, or nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotApplied {
    /// Why.
    #[source]
    pub error: WorkspaceError,
    /// How far it came.
    pub reached: Reached,
}

/// How far an application came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Whether an earlier call did it was not found out.
    Nothing,
    /// No earlier call did it, and this one moved nothing.
    Looked,
    /// This one may have moved the branch.
    Published,
}

/// What is needed to take an applied change out again: what its application told.
#[derive(Clone, Debug)]
pub struct UndoRequest {
    /// The change.
    pub change: i64,
    /// Full name of the branch it went to.
    pub target_ref: String,
    /// Tip of the branch before.
    pub before: String,
    /// The commit that brought it in.
    pub applied_commit: String,
}

/// What became of a wish to undo an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The target branch does not have it; its tip is this.
    Done(String),
    /// It stays as it is, for this reason.
    Refused(String),
}

/// Something about the project, its repository or the worktree went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct WorkspaceError {
    /// `Workspace` (a person must act), `Budget` (too much was left), `Cancelled`, `DiffFailed` or
    /// `Internal` (trying again may help).
    pub class: ErrorClass,
    /// What was being done to what, and what to do about it.
    pub message: String,
}

impl WorkspaceError {
    /// An error of this class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }
}

fn internal(message: impl Into<String>) -> WorkspaceError {
    WorkspaceError::new(ErrorClass::Internal, message)
}

fn diff_failed(message: impl Into<String>) -> WorkspaceError {
    WorkspaceError::new(ErrorClass::DiffFailed, message)
}
