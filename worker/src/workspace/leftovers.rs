//! What workers that died left: worktrees to record and give up, half-made ones, old trash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{self, AttemptDir};
use super::objects::Objects;
use super::workspaces::Workspaces;
use super::{ProjectSpec, WorkspaceError, Worktree, WorktreeKey, WorktreeMode};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

impl Workspaces {
    /// Complete worktrees that nobody uses: their worker died. Half-made ones and old trash are
    /// removed on the way; those that `keep` was called for are left alone.
    pub async fn leftovers(&self) -> Vec<(WorktreeKey, PathBuf)> {
        let this = self.clone();
        let found = crate::blocking::run(move || this.scan()).await;
        match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look for leftover worktrees");
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for leftover worktrees");
                Vec::new()
            }
        }
    }

    /// Take over a leftover, to record and discard it.
    pub async fn adopt(
        &self,
        project: &ProjectSpec,
        key: WorktreeKey,
    ) -> Result<Worktree, WorkspaceError> {
        let dir = AttemptDir::new(&self.inner.root, key);
        let unusable = |text: String| {
            WorkspaceError::new(
                ErrorClass::Workspace,
                format!("cannot take over {}: {text}", dir.0.display()),
            )
        };
        let meta = dir
            .read_meta()
            .map_err(|error| unusable(error.to_string()))?;
        if meta.project != project.name {
            return Err(unusable(format!("it belongs to project {}", meta.project)));
        }
        let lock = dir
            .claim()
            .map_err(|error| unusable(error.to_string()))?
            .ok_or_else(|| unusable("it is in use".to_owned()))?;
        let mode = if meta.linked {
            WorktreeMode::Linked
        } else {
            WorktreeMode::Private
        };
        let objects = Objects::open(&self.inner.root, project)?;
        let borrowed = objects.base();
        Ok(Worktree::new(
            key,
            &dir,
            mode,
            meta,
            Arc::new(lock),
            borrowed,
            // Its agent is gone; its hook is not.
            dir.linked().map(|(common_dir, _)| common_dir),
        ))
    }

    /// Keep a worktree that cannot be recorded, for this reason. One with too much in it is for a
    /// person; others are tried again later.
    pub fn keep(&self, worktree: &Worktree, why: &WorkspaceError) {
        let noted = worktree.dir.note_unrecorded(why);
        tracing::warn!(
            task.id = worktree.key.task, path = %worktree.tree.display(), %why, noted = noted.is_ok(),
            "the worktree is kept: its content could not be recorded"
        );
    }

    fn scan(&self) -> Result<Vec<(WorktreeKey, PathBuf)>, io::Error> {
        for entry in fs::read_dir(self.inner.root.join("trash"))?.flatten() {
            // Two removals of the same tree do no harm; an empty bin may be about to be filled.
            if entry.path().join("gone").exists() || settled(&entry.path()) {
                self.remove_later(entry.path());
            }
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(self.inner.root.join("worktrees"))?.flatten() {
            let Some(key) = layout::key_of(&entry.file_name().to_string_lossy()) else {
                continue;
            };
            let dir = AttemptDir(entry.path());
            if !dir.has_lock() && !settled(&dir.0) {
                continue;
            }
            let Some(lock) = dir.claim()? else {
                continue;
            };
            if dir.read_meta().is_ok() {
                if dir.may_be_recorded() {
                    found.push((key, dir.0));
                }
            } else if let Err(error) = self.put_away(&dir) {
                tracing::warn!(%error, "a half-made worktree stays on disk");
            }
            drop(lock);
        }
        for bin in self.inner.places.sweep()? {
            self.remove_later(bin);
        }
        found.sort_by_key(|(key, _)| (key.task, key.attempt, key.token));
        Ok(found)
    }
}

/// Old enough that nobody is just making it.
fn settled(path: &Path) -> bool {
    let age = fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .map(|at| at.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > limits::DIRECTORY_SETTLED)
}
