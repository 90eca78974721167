//! An approved change goes into the target branch: merged in our own store, handed to the project
//! as objects, and made visible by one compare-and-swap of the branch, there or at a distance.
//!
//! Nobody's working directory or index is touched. Where the branch is checked out, `git status`
//! then shows the change as if it had been undone there; `git restore --source=HEAD --staged
//! --worktree -- <paths>` or `git reset --hard` (with nothing else to lose) brings it in.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::merge::{self, Merged};
use super::objects::Objects;
use super::project::{self, ProjectCheck};
use super::remote::{self, Mirrors, Pushed};
use super::{Applied, ApplyRequest, NotApplied, ProjectSpec, Reached, WorkspaceError, internal};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// Where a branch is moved, and with what.
pub(super) struct Site<'a> {
    pub(super) git: &'a Git,
    pub(super) objects: &'a Objects,
    pub(super) mirrors: &'a Mirrors,
    pub(super) project: &'a ProjectSpec,
    pub(super) cancel: &'a CancellationToken,
}

impl Site<'_> {
    /// The project as it is now. Call with the lock held.
    pub(super) async fn look(&self) -> Result<ProjectCheck, WorkspaceError> {
        let (git, project) = (self.git, self.project);
        self.mirrors.look_held(git, project, self.cancel).await
    }
}

/// Apply it. Safe to repeat after a crash at any point: what was done is found and not done twice.
pub(super) async fn apply(site: &Site<'_>, request: &ApplyRequest) -> Result<Applied, NotApplied> {
    let at = |reached| move |error| NotApplied { error, reached };
    let _lock = site.objects.lock().await.map_err(at(Reached::Nothing))?;
    let mut reached = Reached::Nothing;
    for _ in 0..limits::APPLY_TRIES_MAX {
        let check = site.look().await.map_err(at(reached))?;
        if let Some(done) = already(site, &check, request).await.map_err(at(reached))? {
            return Ok(done);
        }
        reached = Reached::Looked;
        let merged = merge_here(site, &check, &check.tip, request)
            .await
            .map_err(at(reached))?;
        let commit = match merged {
            Merged::Commit(commit) => commit.to_string(),
            // Somebody made the same change meanwhile.
            Merged::Nothing => check.tip.clone(),
            Merged::Conflicts(paths) => {
                return Ok(Applied::Conflicted {
                    target_ref: check.target_ref,
                    tip: check.tip,
                    paths,
                });
            }
        };
        if publish(site, &check, request, &commit)
            .await
            .map_err(at(Reached::Published))?
        {
            return Ok(done(request, &check.target_ref, check.tip.clone(), commit));
        }
        tracing::debug!(
            change.id = request.change,
            "the branch moved; merging again"
        );
    }
    let error = internal(format!(
        "the target branch of project {} moved {} times while the change was being applied; try again",
        site.project.name,
        limits::APPLY_TRIES_MAX
    ));
    Err(at(reached)(error))
}

/// Fetch what the merge needs and try it on this tip of the branch.
pub(super) async fn merge_here(
    site: &Site<'_>,
    check: &ProjectCheck,
    tip: &str,
    request: &ApplyRequest,
) -> Result<Merged, WorkspaceError> {
    let (git, objects, cancel) = (site.git, site.objects, site.cancel);
    objects
        .ensure_base(git, check, &request.base_commit, cancel)
        .await?;
    objects.ensure_base(git, check, tip, cancel).await?;
    objects
        .ensure_result(git, &request.result_commit, request.pack.as_deref(), cancel)
        .await?;
    let (results, request, tip) = (objects.results(), request.clone(), tip.to_owned());
    crate::blocking::run(move || merge::merge(&results, &request, &tip))
        .await
        .map_err(|error| internal(error.to_string()))?
}

/// Numbers of changes begin anew with every database, and a repository may have seen several: the
/// result belongs to the name.
fn ref_name(kind: &str, request: &ApplyRequest) -> String {
    let result: String = request.result_commit.chars().take(12).collect();
    format!("refs/dispatch/{kind}/{}-{result}", request.change)
}

fn undo_ref(request: &ApplyRequest) -> String {
    ref_name("undo", request)
}

fn applied_ref(request: &ApplyRequest) -> String {
    ref_name("applied", request)
}

fn done(request: &ApplyRequest, target_ref: &str, before: String, commit: String) -> Applied {
    Applied::Done {
        target_ref: target_ref.to_owned(),
        before,
        commit,
        undo_ref: undo_ref(request),
    }
}

/// Whether an earlier call did it: its commit, noted before the branch moved, is in the branch.
async fn already(
    site: &Site<'_>,
    check: &ProjectCheck,
    request: &ApplyRequest,
) -> Result<Option<Applied>, WorkspaceError> {
    let (git, cancel) = (site.git, site.cancel);
    let name = applied_ref(request);
    let applied = project::resolve(git, &check.git_dir, &name, cancel).await?;
    let name = undo_ref(request);
    let before = project::resolve(git, &check.git_dir, &name, cancel).await?;
    if let (Some(commit), Some(before)) = (applied, before)
        && contains(git, check, &commit, cancel).await?
    {
        return Ok(Some(done(request, &check.target_ref, before, commit)));
    }
    match site.project.remote {
        Some(_) => pushed_by_another(site, check, request).await,
        None => Ok(None),
    }
}

/// Whether another worker, whose notes are in its own mirror, pushed it and did not say so: then the
/// branch has the commit that this application makes of the one before it, and no other has that name.
async fn pushed_by_another(
    site: &Site<'_>,
    check: &ProjectCheck,
    request: &ApplyRequest,
) -> Result<Option<Applied>, WorkspaceError> {
    let base = &request.base_commit;
    let known = project::resolve(site.git, &check.git_dir, base, site.cancel).await?;
    let since = known.map_or_else(
        || check.tip.clone(),
        |base| format!("{base}..{}", check.tip),
    );
    let call = Call::new(&check.git_dir)
        .args(["log", "--format=%H %P", "--max-count=32"])
        .args([format!("--grep=^Dispatch-Change: {}$", request.change)])
        .args([since, "--".to_owned()]);
    let listed = site.git.line(call, site.cancel).await?;
    for line in listed.lines() {
        let Some((commit, parent)) = line.split_once(' ') else {
            continue;
        };
        if parent.contains(' ') {
            continue;
        }
        match merge_here(site, check, parent, request).await {
            Ok(Merged::Commit(made)) if made.to_string() == commit => {
                let (before, commit) = (parent.to_owned(), commit.to_owned());
                return Ok(Some(done(request, &check.target_ref, before, commit)));
            }
            Ok(Merged::Commit(_) | Merged::Nothing | Merged::Conflicts(_)) => {}
            Err(error) => tracing::debug!(%error, commit, "not this change"),
        }
    }
    Ok(None)
}

/// Whether the target branch has this commit.
pub(super) async fn contains(
    git: &Git,
    check: &ProjectCheck,
    commit: &str,
    cancel: &CancellationToken,
) -> Result<bool, WorkspaceError> {
    let call = Call::new(&check.git_dir)
        .args(["merge-base", "--is-ancestor"])
        .args([commit, check.tip.as_str()]);
    match git.run(call, cancel).await? {
        output if output.code == Some(0) => Ok(true),
        output if output.code == Some(1) => Ok(false),
        output => Err(internal(format!(
            "cannot tell whether {} has {commit}: {}",
            check.target_ref, output.stderr
        ))),
    }
}

/// Hand the objects over, note the commit, then swap the branch. `false`: the branch moved.
async fn publish(
    site: &Site<'_>,
    check: &ProjectCheck,
    request: &ApplyRequest,
    commit: &str,
) -> Result<bool, WorkspaceError> {
    let (git, cancel) = (site.git, site.cancel);
    let tip = &check.tip;
    let mut keep = None;
    if commit != tip {
        let pack = site.objects.pack_file(git, commit, tip, cancel).await?;
        let call = Call::new(&check.common_dir)
            .args(["index-pack", "--stdin"])
            // Until a ref names them, a collection in the project must not take them.
            .args([format!("--keep=dispatch change {}", request.change)])
            .stdin_file(pack.file.clone())
            .owned_as_git_dir();
        let said = git.line(call, cancel).await?;
        keep = said.split_whitespace().last().map(|hash| {
            let packs = check.common_dir.join("objects").join("pack");
            packs.join(format!("pack-{hash}.keep"))
        });
    }
    let swapped = swap(site, check, request, commit).await;
    if let Some(keep) = keep {
        unkeep(&keep);
    }
    swapped
}

/// From now on the refs hold the objects, or nothing does and they may go.
fn unkeep(keep: &Path) {
    if let Err(error) = std::fs::remove_file(keep)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %keep.display(), %error, "cannot remove a keep file");
    }
}

async fn swap(
    site: &Site<'_>,
    check: &ProjectCheck,
    request: &ApplyRequest,
    commit: &str,
) -> Result<bool, WorkspaceError> {
    let (git, cancel) = (site.git, site.cancel);
    let tip = &check.tip;
    let note = format!("dispatch: apply change {}", request.change);
    let intent = format!(
        "update {} {commit}\nupdate {} {tip}\n",
        applied_ref(request),
        undo_ref(request)
    );
    if !update_refs(git, check, &intent, &note, cancel).await? {
        return Err(internal(format!(
            "cannot write {} in {}",
            undo_ref(request),
            check.common_dir.display()
        )));
    }
    let Some(url) = site.project.remote.as_ref() else {
        let act = format!("update {} {commit} {tip}\n", check.target_ref);
        return update_refs(git, check, &act, &note, cancel).await;
    };
    if commit == tip {
        return Ok(true);
    }
    match remote::push(git, url, check, (tip, commit), cancel).await? {
        Pushed::Done => Ok(true),
        Pushed::Moved => Ok(false),
        Pushed::Refused(why) => Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!("project {}: {why}", site.project.name),
        )),
    }
}

/// `false`: a ref was not where it was expected.
pub(super) async fn update_refs(
    git: &Git,
    check: &ProjectCheck,
    lines: &str,
    note: &str,
    cancel: &CancellationToken,
) -> Result<bool, WorkspaceError> {
    let call = Call::new(&check.git_dir)
        .args(["update-ref", "-m", note, "--stdin"])
        .stdin(lines)
        .owned_as_git_dir();
    let output = git.run(call, cancel).await?;
    if output.code == Some(0) {
        return Ok(true);
    }
    let said = output.stderr;
    if said.contains("but expected") {
        return Ok(false);
    }
    let class = if said.contains("Permission denied") || said.contains("Read-only") {
        ErrorClass::Workspace
    } else {
        ErrorClass::Internal
    };
    Err(WorkspaceError::new(
        class,
        format!("cannot move refs in {}: {said}", check.common_dir.display()),
    ))
}
