//! An applied change goes out of its branch again: the branch moves back to where it was, by one
//! compare-and-swap, as long as nothing stands on the change.

use tokio_util::sync::CancellationToken;

use super::apply::{contains, update_refs};
use super::git::Git;
use super::objects::{self, Objects};
use super::project;
use super::{ProjectSpec, UndoRequest, Undone, WorkspaceError, internal};
use crate::domain::limits;

/// Undo it. Safe to repeat after a crash at any point.
pub(super) async fn undo(
    git: &Git,
    objects: &Objects,
    project: &ProjectSpec,
    request: &UndoRequest,
    cancel: &CancellationToken,
) -> Result<Undone, WorkspaceError> {
    let (before, applied) = (&request.before, &request.applied_commit);
    objects::parse(before)?;
    objects::parse(applied)?;
    if before == applied {
        return Ok(Undone::Refused(format!(
            "the branch had the same already when change {} was applied: nothing was added, so there is nothing to take out",
            request.change
        )));
    }
    // The branch it went to, wherever HEAD points by now.
    let project = ProjectSpec {
        target_ref: Some(request.target_ref.clone()),
        ..project.clone()
    };
    let _lock = objects.lock().await?;
    for _ in 0..limits::APPLY_TRIES_MAX {
        let check = project::inspect(git, &project, cancel).await?;
        if check.tip == *applied {
            let line = format!("update {} {before} {applied}\n", check.target_ref);
            let note = format!("dispatch: undo change {}", request.change);
            if update_refs(git, &check, &line, &note, cancel).await? {
                return Ok(Undone::Done(before.clone()));
            }
            continue;
        }
        if !contains(git, &check, applied, cancel).await? {
            // An earlier try did it, or somebody else.
            return Ok(Undone::Done(check.tip));
        }
        return Ok(Undone::Refused(format!(
            "later work stands on the change in {}; revert it with `git revert {applied}`",
            check.target_ref
        )));
    }
    Err(internal(format!(
        "{} moved {} times meanwhile; try again",
        request.target_ref,
        limits::APPLY_TRIES_MAX
    )))
}
