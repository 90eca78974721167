//! Looking at a change without touching anything: what the target branch would get, and what a file of
//! it has.

use git2::{Index, MergeFileOptions, Repository};

use super::apply::{Site, merge_here};
use super::merge::{self, Merged};
use super::objects;
use super::{ApplyRequest, WorkspaceError, diff, diff_failed, internal, snapshot};
use crate::domain::change::{show_path, unified};
use crate::domain::limits;
use crate::domain::lookup::{Conflict, FileText, Outcome, Preview, Side};

/// Merge it as an application would, and say what came out.
pub(super) async fn preview(
    site: &Site<'_>,
    request: &ApplyRequest,
) -> Result<Preview, WorkspaceError> {
    let _lock = site.objects.lock().await?;
    let check = site.look().await?;
    let merged = merge_here(site, &check, &check.tip, request).await?;
    let (results, request, tip) = (site.objects.results(), request.clone(), check.tip.clone());
    let shown = move || {
        let repo = objects::open(&results)?;
        match merged {
            Merged::Nothing => Ok((Outcome::Nothing, (String::new(), false), Vec::new())),
            Merged::Commit(commit) => {
                let before = snapshot::tree_of(&repo, &tip)?;
                let after = snapshot::tree_of(&repo, &commit.to_string())?;
                let rows = diff::rows(&repo, before.id(), after.id())?;
                let patches = rows.iter().map(|row| (row.patch.as_deref(), row.patch_cut));
                let text = unified(patches, limits::PREVIEW_BYTES_MAX);
                Ok((Outcome::Clean, text, Vec::new()))
            }
            Merged::Conflicts(paths) => {
                let index = merge::index(&repo, &request, &tip)?;
                let conflicts = paths
                    .into_iter()
                    .map(|path| marked(&repo, index.as_ref(), path));
                Ok((
                    Outcome::Conflicts,
                    (String::new(), false),
                    conflicts.collect(),
                ))
            }
        }
    };
    let (outcome, (unified, cut), conflicts) = crate::blocking::run(shown)
        .await
        .map_err(|error| internal(error.to_string()))??;
    Ok(Preview {
        outcome,
        target_ref: check.target_ref,
        tip: check.tip,
        unified,
        cut,
        conflicts,
    })
}

/// A path that does not merge, with the marks where both sides have a text.
fn marked(repo: &Repository, index: Option<&Index>, path: String) -> Conflict {
    let text = index.and_then(|index| {
        let conflict = index.conflicts().ok()?.flatten().find(|conflict| {
            let sides = [&conflict.ancestor, &conflict.our, &conflict.their];
            let mut named = sides.into_iter().flatten();
            named.any(|entry| show_path(&entry.path) == path)
        })?;
        let (base, ours, theirs) = (conflict.ancestor?, conflict.our?, conflict.their?);
        let small = [&base, &ours, &theirs].into_iter().all(|entry| {
            let blob = repo.find_blob(entry.id);
            blob.is_ok_and(|blob| {
                !blob.is_binary() && blob.size() <= limits::CONFLICT_FILE_BYTES_MAX
            })
        });
        if !small {
            return None;
        }
        let mut options = MergeFileOptions::new();
        options.our_label("branch").their_label("change");
        let merged = repo
            .merge_file_from_index(&base, &ours, &theirs, Some(&mut options))
            .ok()?;
        Some(String::from_utf8_lossy(merged.content()).into_owned())
    });
    Conflict { path, text }
}

/// What a file of the change has on one side. Its objects are brought when they are not here.
pub(super) async fn file(
    site: &Site<'_>,
    request: &ApplyRequest,
    path: &str,
    side: Side,
) -> Result<FileText, WorkspaceError> {
    let _lock = site.objects.lock().await?;
    let (git, cancel) = (site.git, site.cancel);
    let results = site.objects.results();
    let result = &request.result_commit;
    // What is here already needs no look at the project, which may be far away.
    if site
        .objects
        .ensure_result(git, result, None, cancel)
        .await
        .is_err()
    {
        let check = site.look().await?;
        let base = &request.base_commit;
        site.objects.ensure_base(git, &check, base, cancel).await?;
        let pack = request.pack.as_deref();
        site.objects
            .ensure_result(git, result, pack, cancel)
            .await?;
    }
    let (request, path) = (request.clone(), path.to_owned());
    crate::blocking::run(move || read(&objects::open(&results)?, &request, &path, side))
        .await
        .map_err(|error| internal(error.to_string()))?
}

fn read(
    repo: &Repository,
    request: &ApplyRequest,
    path: &str,
    side: Side,
) -> Result<FileText, WorkspaceError> {
    let base = snapshot::tree_of(repo, &request.base_commit)?;
    let result = snapshot::tree_of(repo, &request.result_commit)?;
    let rows = diff::rows(repo, base.id(), result.id())?;
    let row = rows.iter().find(|row| show_path(&row.path) == path);
    let row =
        row.ok_or_else(|| diff_failed(format!("change {} has no file {path}", request.change)))?;
    let blob = match side {
        Side::Before => &row.old_blob,
        Side::After => &row.new_blob,
    };
    let nothing = FileText {
        path: path.to_owned(),
        bytes: None,
        text: None,
        cut: false,
    };
    let Some(blob) = blob else {
        return Ok(nothing);
    };
    // A submodule's commit is no file.
    let Ok(blob) = repo.find_blob(objects::parse(blob)?) else {
        return Ok(nothing);
    };
    let most = limits::PREVIEW_BYTES_MAX;
    let kept = &blob.content()[..blob.size().min(most)];
    let cut = blob.size() > most;
    let text = match std::str::from_utf8(kept) {
        Ok(text) => Some(text.to_owned()),
        // Only the cut went through a character.
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&kept[..error.valid_up_to()])
                .ok()
                .map(str::to_owned)
        }
        Err(_) => None,
    };
    Ok(FileText {
        bytes: u64::try_from(blob.size()).ok(),
        // As git tells it in a diff; and no answer can hold it.
        text: text.filter(|text| !text.contains('\0')),
        cut,
        ..nothing
    })
}
