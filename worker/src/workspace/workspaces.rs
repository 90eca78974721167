//! The workspace of one worker: every operation on worktrees and changes, in one place.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::apply::{self, Site};
use super::git::Git;
use super::layout::{AttemptDir, Place};
use super::objects::{self, Objects};
use super::places::Places;
use super::project::{self, ProjectCheck};
use super::remote::Mirrors;
use super::worktree::{self, Plan};
use super::{
    Applied, ApplyRequest, HooksPolicy, NotApplied, ProjectSpec, Reached, Snapshot, Start,
    UndoRequest, Undone, WorkspaceError, Worktree, WorktreeKey, diff, hooks, internal, preview,
    remove, snapshot, undo,
};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::lookup::{FileText, Preview, Side};
use crate::domain::redact::Redactor;
use crate::sandbox::{self, Means, Sandbox};

/// Worktrees, snapshots and applications under one root directory. Cheap to clone. Several
/// processes may share a root: what is in use is locked.
#[derive(Clone, Debug)]
pub struct Workspaces {
    pub(super) inner: Arc<Inner>,
    /// Marks of attempts begin with this; their tokens follow.
    marks: Arc<str>,
    /// What hooks are confined with.
    sandbox: Option<Arc<Sandbox>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    pub(super) places: Places,
    mirrors: Mirrors,
    hooks: HooksPolicy,
    git: Git,
    /// Commits found free of filters.
    plain: Mutex<HashSet<String>>,
    /// Removals under way.
    background: TaskTracker,
}

impl Workspaces {
    /// Use this directory, made when it is missing.
    pub fn open(root: impl AsRef<Path>, hooks: HooksPolicy) -> Result<Self, WorkspaceError> {
        let root = root.as_ref();
        let git = Git::find()?;
        let failed = |error: io::Error| {
            WorkspaceError::new(
                ErrorClass::Workspace,
                format!("cannot use {} for worktrees: {error}", root.display()),
            )
        };
        for part in ["stores", "mirrors", "worktrees", "places", "trash"] {
            sandbox::passage(&root.join(part)).map_err(failed)?;
        }
        // git resolves links in the paths it writes down; ours must look the same.
        let root = root.canonicalize().map_err(failed)?;
        Ok(Self {
            inner: Arc::new(Inner {
                places: Places::new(&root),
                mirrors: Mirrors::new(&root),
                root,
                hooks,
                git,
                plain: Mutex::default(),
                background: TaskTracker::new(),
            }),
            marks: Arc::from(""),
            sandbox: None,
        })
    }

    /// The same, whose hooks carry the marks of this worker's attempts, so that what a killed one
    /// left of them is found.
    pub fn with_marks(self, prefix: &str) -> Self {
        Self {
            marks: Arc::from(prefix),
            ..self
        }
    }

    /// The same, whose hooks are confined like the agents of their attempts.
    pub fn with_sandbox(self, sandbox: Sandbox) -> Self {
        Self {
            sandbox: Some(Arc::new(sandbox)),
            ..self
        }
    }

    fn mark(&self, key: WorktreeKey) -> String {
        format!("{}{}", self.marks, key.token)
    }

    /// Whether attempts can work in this project, with its target branch. Every refusal says what
    /// to do.
    pub async fn check_project(
        &self,
        project: &ProjectSpec,
    ) -> Result<ProjectCheck, WorkspaceError> {
        let cancel = CancellationToken::new();
        let objects = Objects::open(&self.inner.root, project)?;
        let check = self.look(&objects, project, &cancel).await?;
        self.refuse_filters(project, &check, &check.tip, &cancel)
            .await?;
        Ok(check)
    }

    /// Make the directory for an attempt. What an earlier try for the same key left is put away.
    /// Attempts of one conversation get the same working directory, one after the other.
    pub async fn create(
        &self,
        project: &ProjectSpec,
        key: WorktreeKey,
        conversation: Option<i64>,
        start: Start,
        means: &Means,
        cancel: &CancellationToken,
    ) -> Result<Worktree, WorkspaceError> {
        let git = &self.inner.git;
        worktree::refuse_linked(project, means)?;
        let objects = Objects::open(&self.inner.root, project)?;
        let check = self.look(&objects, project, cancel).await?;
        let dir = AttemptDir::new(&self.inner.root, key);
        if dir.0.exists() {
            self.put_away(&dir)?;
        }
        let plan = Plan {
            git,
            hooks: self.inner.hooks,
            project,
            check: &check,
            objects: &objects,
            dir: dir.clone(),
            places: &self.inner.places,
            place: conversation.map(|id| Place::new(&self.inner.root, id)),
            key,
            mark: self.mark(key),
            means,
            sandbox: self.sandbox.as_deref(),
            cancel,
        };
        let commits = worktree::prepare_commits(&plan, &start).await?;
        self.refuse_filters(project, &check, &commits.base, cancel)
            .await?;
        let made = worktree::create(plan, commits).await;
        if made.is_err() && dir.0.exists() {
            self.put_away(&dir)?;
        }
        made
    }

    /// Record what is there now: tree, commit, ref, rows, pack. Nothing in the worktree changes,
    /// and the same files give the same result. Call it when no process of the attempt is left.
    pub async fn snapshot(
        &self,
        project: &ProjectSpec,
        worktree: &Worktree,
    ) -> Result<Snapshot, WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let (results, of) = (objects.results(), worktree.clone());
        let (recorded, files) = crate::blocking::run(move || {
            let recorded = snapshot::record(&results, &of.dir, &of.tree, &of.meta)?;
            let repo = objects::open(&results)?;
            let base = snapshot::tree_of(&repo, &of.base_commit)?;
            let files = diff::rows(&repo, base.id(), recorded.tree)?;
            Ok::<_, WorkspaceError>((recorded, files))
        })
        .await
        .map_err(|error| internal(error.to_string()))??;
        let commit = recorded.commit.to_string();
        let base = worktree.base_commit.clone();
        let max = limits::CHANGE_PACK_BYTES_MAX;
        let pack = objects
            .pack(
                &self.inner.git,
                &commit,
                &base,
                max,
                &CancellationToken::new(),
            )
            .await?;
        let tree = recorded.tree.to_string();
        Ok(Snapshot {
            digest: diff::digest(&base, &tree, &files),
            base_commit: base,
            result_tree: tree,
            result_commit: commit,
            result_ref: recorded.name,
            files,
            notices: recorded.notices,
            pack,
        })
    }

    /// Flag the files of a result that hold a secret, and say so.
    pub async fn flag_secrets(
        &self,
        project: &ProjectSpec,
        snapshot: &mut Snapshot,
        secrets: &Redactor,
    ) -> Result<(), WorkspaceError> {
        if secrets.is_empty() || snapshot.files.is_empty() {
            return Ok(());
        }
        let results = Objects::open(&self.inner.root, project)?.results();
        let (mut files, secrets) = (snapshot.files.clone(), secrets.clone());
        let (files, skipped) = crate::blocking::run(move || {
            let repo = objects::open(&results)?;
            let skipped = diff::flag_secrets(&repo, &mut files, &secrets);
            Ok::<_, WorkspaceError>((files, skipped))
        })
        .await
        .map_err(|error| internal(error.to_string()))??;
        snapshot.files = files;
        if skipped > 0 {
            snapshot.notices.push(format!(
                "{skipped} files were not searched for secrets: there is too much in the change"
            ));
        }
        Ok(())
    }

    /// Give the directory up: the teardown hook runs, the name is free at once, the files go in
    /// the background. Whatever was worth keeping is in the snapshot by now.
    pub async fn discard(&self, project: &ProjectSpec, worktree: Worktree) {
        let teardown = project.teardown.as_deref();
        if let Some(line) = teardown.filter(|_| self.inner.hooks == HooksPolicy::Allowed)
            && let Err(error) = self.tear_down(project, &worktree, line).await
        {
            tracing::warn!(task.id = worktree.key.task, %error, "the teardown hook failed");
        }
        if let Err(error) = self.put_away(&worktree.dir) {
            tracing::warn!(task.id = worktree.key.task, %error, "a worktree stays on disk");
        }
    }

    async fn tear_down(
        &self,
        project: &ProjectSpec,
        worktree: &Worktree,
        line: &str,
    ) -> Result<(), WorkspaceError> {
        let held = match &self.sandbox {
            Some(sandbox) => Some(hooks::held_later(sandbox, project, worktree).await?),
            None => None,
        };
        let hook = hooks::Hook {
            name: "teardown",
            line,
            project,
            tree: &worktree.tree,
            dir: &worktree.dir,
            key: worktree.key,
            mark: self.mark(worktree.key),
            held,
        };
        hooks::run(hook, &CancellationToken::new()).await
    }

    /// Bring an approved change into the target branch. Safe to repeat.
    pub async fn apply(
        &self,
        project: &ProjectSpec,
        request: ApplyRequest,
    ) -> Result<Applied, NotApplied> {
        let objects = Objects::open(&self.inner.root, project).map_err(|error| NotApplied {
            error,
            reached: Reached::Nothing,
        })?;
        let cancel = CancellationToken::new();
        let site = self.site(&objects, project, &cancel);
        apply::apply(&site, &request).await
    }

    /// Take an applied change out of its branch, if nothing stands on it. Safe to repeat.
    pub async fn undo(
        &self,
        project: &ProjectSpec,
        request: &UndoRequest,
    ) -> Result<Undone, WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let cancel = CancellationToken::new();
        undo::undo(&self.site(&objects, project, &cancel), request).await
    }

    /// What would become of the target branch if this were applied now. Moves nothing.
    pub async fn preview(
        &self,
        project: &ProjectSpec,
        request: &ApplyRequest,
    ) -> Result<Preview, WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let cancel = CancellationToken::new();
        preview::preview(&self.site(&objects, project, &cancel), request).await
    }

    /// What a file of a change has on one side of it.
    pub async fn file(
        &self,
        project: &ProjectSpec,
        request: &ApplyRequest,
        path: &str,
        side: Side,
    ) -> Result<FileText, WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let cancel = CancellationToken::new();
        preview::file(&self.site(&objects, project, &cancel), request, path, side).await
    }

    /// Have a result that another host recorded, so that an attempt can continue from it.
    pub async fn import(
        &self,
        project: &ProjectSpec,
        base_commit: &str,
        result_commit: &str,
        pack: &[u8],
    ) -> Result<(), WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let cancel = CancellationToken::new();
        let git = &self.inner.git;
        let check = self.look(&objects, project, &cancel).await?;
        let lock = objects.lock().await?;
        objects
            .ensure_base(git, &check, base_commit, &cancel)
            .await?;
        drop(lock);
        objects
            .ensure_result(git, result_commit, Some(pack), &cancel)
            .await
    }

    /// Whether a result is here without its objects being brought.
    pub async fn has_result(&self, project: &ProjectSpec, commit: &str) -> bool {
        let Ok(objects) = Objects::open(&self.inner.root, project) else {
            return false;
        };
        let (git, cancel) = (&self.inner.git, CancellationToken::new());
        let there = objects.ensure_result(git, commit, None, &cancel).await;
        there.is_ok()
    }

    /// Keep the project's object store quick: for the janitor, now and then.
    pub async fn maintain(&self, project: &ProjectSpec) -> Result<(), WorkspaceError> {
        let objects = Objects::open(&self.inner.root, project)?;
        let (git, cancel) = (&self.inner.git, CancellationToken::new());
        let _lock = objects.lock().await?;
        objects.repack(git, &cancel).await?;
        self.inner.mirrors.maintain(git, project, &cancel).await
    }

    fn site<'a>(
        &'a self,
        objects: &'a Objects,
        project: &'a ProjectSpec,
        cancel: &'a CancellationToken,
    ) -> Site<'a> {
        Site {
            git: &self.inner.git,
            objects,
            mirrors: &self.inner.mirrors,
            project,
            cancel,
        }
    }

    async fn look(
        &self,
        objects: &Objects,
        project: &ProjectSpec,
        cancel: &CancellationToken,
    ) -> Result<ProjectCheck, WorkspaceError> {
        let inner = &self.inner;
        inner
            .mirrors
            .look(&inner.git, objects, project, cancel)
            .await
    }

    /// Wait until everything discarded is off the disk.
    pub async fn close(&self) {
        self.inner.background.close();
        self.inner.background.wait().await;
        self.inner.background.reopen();
    }

    async fn refuse_filters(
        &self,
        project: &ProjectSpec,
        check: &ProjectCheck,
        commit: &str,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let known = |plain: &Mutex<HashSet<String>>, add: Option<String>| {
            let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
            if plain.len() > limits::PLAIN_COMMITS_MAX {
                plain.clear();
            }
            plain.extend(add);
            plain.contains(commit)
        };
        if known(&self.inner.plain, None) {
            return Ok(());
        }
        project::refuse_filters(&self.inner.git, project, check, commit, cancel).await?;
        known(&self.inner.plain, Some(commit.to_owned()));
        Ok(())
    }

    /// A rename frees the name; the slow part is later.
    pub(super) fn put_away(&self, dir: &AttemptDir) -> Result<(), WorkspaceError> {
        if let Some((common_dir, tree)) = dir.linked()
            && let Err(error) = worktree::forget_linked(&common_dir, &tree)
        {
            tracing::warn!(path = %tree.display(), %error, "a linked worktree stays listed");
        }
        let places = &self.inner.places;
        let bin = places
            .put_away(dir)
            .map_err(|error| worktree::disk(&dir.0, "put a worktree away", &error))?;
        self.remove_later(bin);
        Ok(())
    }

    pub(super) fn remove_later(&self, path: PathBuf) {
        self.inner.background.spawn(async move {
            let shown = path.clone();
            match crate::blocking::run(move || remove::remove(&path)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(path = %shown.display(), %error, "trash stays on disk");
                }
                Err(error) => {
                    tracing::warn!(path = %shown.display(), %error, "trash stays on disk");
                }
            }
        });
    }
}
