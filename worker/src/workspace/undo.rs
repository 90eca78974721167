//! An applied change goes out of its branch again: the branch moves back to where it was, by one
//! compare-and-swap, as long as nothing stands on the change.

use super::apply::{Site, contains, update_refs};
use super::objects;
use super::project::ProjectCheck;
use super::remote::{self, Pushed};
use super::{ProjectSpec, UndoRequest, Undone, WorkspaceError, internal};
use crate::domain::limits;

/// Undo it. Safe to repeat after a crash at any point.
pub(super) async fn undo(site: &Site<'_>, request: &UndoRequest) -> Result<Undone, WorkspaceError> {
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
        ..site.project.clone()
    };
    let site = Site {
        project: &project,
        ..*site
    };
    let _lock = site.objects.lock().await?;
    for _ in 0..limits::APPLY_TRIES_MAX {
        let check = site.look().await?;
        if check.tip == *applied {
            match back(&site, &check, request).await? {
                Pushed::Done => return Ok(Undone::Done(before.clone())),
                Pushed::Moved => continue,
                Pushed::Refused(why) => {
                    return Ok(Undone::Refused(format!(
                        "{why}\nRevert it instead: `git revert {applied}`"
                    )));
                }
            }
        }
        if !contains(site.git, &check, applied, site.cancel).await? {
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

/// Move the branch from the change's commit to the one before it.
async fn back(
    site: &Site<'_>,
    check: &ProjectCheck,
    request: &UndoRequest,
) -> Result<Pushed, WorkspaceError> {
    let (before, applied) = (&request.before, &request.applied_commit);
    if let Some(url) = &site.project.remote {
        return remote::push(site.git, url, check, (applied, before), site.cancel).await;
    }
    let line = format!("update {} {before} {applied}\n", check.target_ref);
    let note = format!("dispatch: undo change {}", request.change);
    match update_refs(site.git, check, &line, &note, site.cancel).await? {
        true => Ok(Pushed::Done),
        false => Ok(Pushed::Moved),
    }
}
