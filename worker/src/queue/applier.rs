//! Approved changes go into their target branch. The intent (approved) is durable before, the fact
//! (applied) is written after; a crash between them is found out by asking git, so doing it twice
//! is harmless.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::domain::error_class::ErrorClass;
use crate::run::prepare::project_spec;
use crate::run::text::head_chars;
use crate::store::applies::{self, ApplyClaim};
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError, projects, undos};
use crate::telemetry::figures::{self, ChangeEnd};
use crate::workspace::{
    Applied, ApplyRequest, NotApplied, Reached, UndoRequest, Undone, WorkspaceError, Workspaces,
};

/// How often to look although nothing woke us.
const TICK: Duration = Duration::from_secs(5);

/// Exclusive time for one application; renewed while it goes on.
const CLAIM_TIME: Duration = Duration::from_secs(120);

/// When to try again what could not be applied here.
const RETRY_IN: Duration = Duration::from_secs(30);

/// For so long a worker that can undo a change is waited for.
const UNDO_PATIENCE: Duration = Duration::from_secs(300);

/// Apply one approved change, or undo an applied one. `false`: there was none.
pub async fn run_once(store: &Store, workspaces: &Workspaces) -> Result<bool, StoreError> {
    Ok(apply_once(store, workspaces).await? || undo_once(store, workspaces).await?)
}

async fn undo_once(store: &Store, workspaces: &Workspaces) -> Result<bool, StoreError> {
    let Some(claim) = undos::claim(store, CLAIM_TIME).await? else {
        return Ok(false);
    };
    let undone = match projects::get(store, &claim.project).await? {
        Some(project) => {
            let request = UndoRequest {
                change: claim.change,
                target_ref: claim.target_ref.clone(),
                before: claim.before.clone(),
                applied_commit: claim.applied_commit.clone(),
            };
            workspaces
                .undo(&project_spec(project), &request)
                .await
                .map_err(|error| error.to_string())
        }
        None => Err(removed(&claim.project)),
    };
    // A wish that nobody can fulfil must not stand for ever.
    let undone = match undone {
        Err(message) if claim.asked > UNDO_PATIENCE => Ok(Undone::Refused(message)),
        other => other,
    };
    match undone {
        Ok(Undone::Done(before)) => {
            undos::mark_undone(store, &claim, &before).await?;
            tracing::info!(change.id = claim.change, commit = before, "change undone");
            figures::changes(ChangeEnd::Undone, 1);
        }
        Ok(Undone::Refused(why)) => {
            undos::mark_refused(store, &claim, &why).await?;
            tracing::info!(change.id = claim.change, why, "change not undone");
            figures::changes(ChangeEnd::UndoRefused, 1);
        }
        Err(message) => {
            undos::mark_failed(store, &claim, &message, RETRY_IN).await?;
            tracing::warn!(
                change.id = claim.change,
                error = message,
                "change not undone yet"
            );
            figures::changes(ChangeEnd::UndoFailed, 1);
        }
    }
    Ok(true)
}

fn removed(project: &str) -> String {
    format!("the project \"{project}\" was removed: add it again")
}

async fn apply_once(store: &Store, workspaces: &Workspaces) -> Result<bool, StoreError> {
    let Some(claim) = applies::claim(store, CLAIM_TIME).await? else {
        return Ok(false);
    };
    let applied = tokio::select! {
        applied = apply(store, workspaces, &claim) => applied?,
        never = keep(store, &claim) => match never {},
    };
    match applied {
        Ok(Applied::Done {
            target_ref,
            before,
            commit,
            undo_ref,
        }) => {
            applies::mark_applied(store, &claim, &target_ref, &before, &commit, &undo_ref).await?;
            tracing::info!(
                change.id = claim.change,
                target_ref,
                commit,
                "change applied"
            );
            figures::changes(ChangeEnd::Applied, 1);
        }
        Ok(Applied::Conflicted {
            target_ref,
            tip,
            paths,
        }) => {
            applies::mark_conflicted(store, &claim, &target_ref, &tip, &paths).await?;
            tracing::info!(
                change.id = claim.change,
                target_ref,
                ?paths,
                "change conflicts"
            );
            figures::changes(ChangeEnd::Conflicted, 1);
        }
        Err(failure) => {
            let untouched = match failure.reached {
                Reached::Nothing => !claim.resumed,
                Reached::Looked => true,
                Reached::Published => false,
            };
            let message = failure.error.to_string();
            applies::mark_failed(store, &claim, &message, RETRY_IN, untouched).await?;
            tracing::warn!(
                change.id = claim.change,
                error = message,
                "change not applied yet"
            );
            figures::changes(ChangeEnd::Failed, 1);
        }
    }
    Ok(true)
}

/// Keeps the claim while the change is applied: it can be taken back as soon as nobody applies it,
/// so that two may never work on it at a time, one of them unseen.
async fn keep(store: &Store, claim: &ApplyClaim) -> Infallible {
    loop {
        tokio::time::sleep(CLAIM_TIME / 4).await;
        if let Err(error) = applies::renew(store, claim, CLAIM_TIME).await {
            tracing::warn!(%error, change.id = claim.change, "the claim of a change could not be renewed");
        }
    }
}

async fn apply(
    store: &Store,
    workspaces: &Workspaces,
    claim: &ApplyClaim,
) -> Result<Result<Applied, NotApplied>, StoreError> {
    let Some(project) = projects::get(store, &claim.project).await? else {
        return Ok(Err(NotApplied {
            error: WorkspaceError::new(ErrorClass::Workspace, removed(&claim.project)),
            reached: Reached::Nothing,
        }));
    };
    let request = ApplyRequest {
        change: claim.change,
        base_commit: claim.base_commit.clone(),
        result_commit: claim.result_commit.clone(),
        digest: claim.digest.clone(),
        files: claim.files.clone(),
        pack: applies::pack(store, claim.change).await?,
        only_paths: claim.only_paths.clone(),
        message: message(claim),
        author: "dispatch <dispatch@localhost>".to_owned(),
        authored_at: claim.decided_at.timestamp(),
    };
    Ok(workspaces.apply(&project_spec(project), request).await)
}

/// Subject from the task; who did what in trailers.
fn message(claim: &ApplyClaim) -> String {
    let line = claim
        .input
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or("Apply change");
    let subject: String = line.chars().filter(|c| !c.is_control()).collect();
    let one_line = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut text = format!(
        "{}\n\nDispatch-Task: {}\nDispatch-Change: {}\nAgent: {}\n",
        head_chars(&subject, 72),
        claim.task,
        claim.change,
        one_line(&claim.agent),
    );
    if let Some(reviewer) = &claim.decided_by {
        text.push_str(&format!("Approved-by: {}\n", one_line(reviewer)));
    }
    text
}

/// Apply until stopped.
pub async fn run(
    store: Store,
    workspaces: Workspaces,
    listener: Listener,
    stop: CancellationToken,
) {
    let mut wakeups = listener.subscribe();
    loop {
        loop {
            match run_once(&store, &workspaces).await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "applying failed");
                    break;
                }
            }
        }
        let timer = tokio::time::sleep(TICK);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut timer => break,
                heard = wakeups.recv() => match heard {
                    Ok(Wakeup::Change(_) | Wakeup::Gap) | Err(RecvError::Lagged(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }
}
