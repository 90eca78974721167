//! Worktrees that a crash left behind: their content is recorded first, then they go. Fails closed:
//! what this database does not know, or what somebody still works in, is not touched.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::limits::{self, PAGE_MAX};
use crate::run::prepare::project_spec;
use crate::store::{Store, StoreError, attempts, captures, projects};
use crate::workspace::{Workspaces, WorktreeKey};

use super::lease::LeaseBook;
use super::maintainer::Poke;

/// How often to look.
const TICK: Duration = Duration::from_secs(60);

/// How often the stores of all projects are repacked.
const REPACK_EVERY: Duration = Duration::from_secs(3_600);

/// Look once; returns how many worktrees were removed.
pub async fn run_once(
    store: &Store,
    workspaces: &Workspaces,
    book: &LeaseBook,
) -> Result<usize, StoreError> {
    let mut removed = 0;
    for (key, path) in workspaces.leftovers().await {
        if book.held(Duration::ZERO).contains(&(key.task, key.token)) {
            continue;
        }
        let Some(lost) = attempts::lost_attempt(store, key.task, key.token).await? else {
            tracing::debug!(path = %path.display(), "a worktree that this database does not know is left alone");
            continue;
        };
        if lost.live || !lost.ended {
            continue;
        }
        let Some(project) = projects::get(store, &lost.project).await? else {
            continue;
        };
        if keep_and_remove(store, workspaces, &project_spec(project), key).await? {
            removed += 1;
        }
    }
    Ok(removed)
}

async fn keep_and_remove(
    store: &Store,
    workspaces: &Workspaces,
    project: &crate::workspace::ProjectSpec,
    key: WorktreeKey,
) -> Result<bool, StoreError> {
    let worktree = match workspaces.adopt(project, key).await {
        Ok(worktree) => worktree,
        Err(error) => {
            tracing::warn!(task.id = key.task, %error, "a worktree left by a crash cannot be opened");
            return Ok(false);
        }
    };
    match workspaces.snapshot(project, &worktree).await {
        Ok(snapshot) => {
            let (commit, reference) = (&snapshot.result_commit, &snapshot.result_ref);
            attempts::record_result(store, key.task, key.token, commit, reference).await?;
            workspaces.discard(project, worktree).await;
            tracing::info!(
                task.id = key.task,
                commit,
                "a worktree left by a crash was recorded and removed"
            );
            Ok(true)
        }
        Err(error) => {
            workspaces.keep(&worktree, &error);
            Ok(false)
        }
    }
}

/// Keep the stores quick.
async fn repack(store: &Store, workspaces: &Workspaces) {
    let mut after: Option<String> = None;
    loop {
        let page = match projects::list(store, after.as_deref(), PAGE_MAX).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "projects could not be listed");
                return;
            }
        };
        let Some(last) = page.last() else { return };
        after = Some(last.name.clone());
        for project in page {
            let project = project_spec(project);
            if let Err(error) = workspaces.maintain(&project).await {
                tracing::warn!(%error, project = project.name, "its store could not be repacked");
            }
        }
    }
}

/// Look until stopped.
pub async fn run(
    store: Store,
    workspaces: Workspaces,
    book: LeaseBook,
    poke: Poke,
    stop: CancellationToken,
) {
    let mut repacked_at = Instant::now();
    loop {
        if repacked_at.elapsed() >= REPACK_EVERY {
            repack(&store, &workspaces).await;
            let (keep, bytes) = (limits::CAPTURE_KEEP, limits::CAPTURE_TOTAL_BYTES_MAX);
            if let Err(error) = captures::prune(&store, keep, bytes).await {
                tracing::warn!(%error, "old requests to models could not be removed");
            }
            repacked_at = Instant::now();
        }
        if let Err(error) = run_once(&store, &workspaces, &book).await {
            tracing::warn!(%error, "looking for leftovers failed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = poke.asked() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}
