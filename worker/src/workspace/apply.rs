//! An approved change goes into the target branch: merged in our own store, handed to the project
//! as objects, and made visible by one compare-and-swap of the branch.
//!
//! Nobody's working directory or index is touched. Where the branch is checked out, `git status`
//! then shows the change as if it had been undone there; `git restore --source=HEAD --staged
//! --worktree -- <paths>` or `git reset --hard` (with nothing else to lose) brings it in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use git2::{MergeOptions, Oid, Repository, Signature, Time};
use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::objects::{self, Objects};
use super::project::{self, ProjectCheck};
use super::walk::Slot;
use super::{
    Applied, ApplyRequest, NotApplied, ProjectSpec, Reached, WorkspaceError, approval, diff,
    diff_failed, internal, snapshot,
};
use crate::domain::change::{FileChange, show_path};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// Apply it. Safe to repeat after a crash at any point: what was done is found and not done twice.
pub(super) async fn apply(
    git: &Git,
    objects: &Objects,
    project: &ProjectSpec,
    request: &ApplyRequest,
    cancel: &CancellationToken,
) -> Result<Applied, NotApplied> {
    let at = |reached| move |error| NotApplied { error, reached };
    let _lock = objects.lock().await.map_err(at(Reached::Nothing))?;
    let mut reached = Reached::Nothing;
    for _ in 0..limits::APPLY_TRIES_MAX {
        let check = project::inspect(git, project, cancel)
            .await
            .map_err(at(reached))?;
        if let Some(done) = already(git, &check, request, cancel)
            .await
            .map_err(at(reached))?
        {
            return Ok(done);
        }
        reached = Reached::Looked;
        let merged = merge_here(git, objects, &check, request, cancel)
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
        if publish(git, objects, &check, request, &commit, cancel)
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
        project.name,
        limits::APPLY_TRIES_MAX
    ));
    Err(at(reached)(error))
}

/// Fetch what the merge needs and try it on the branch as it stands.
async fn merge_here(
    git: &Git,
    objects: &Objects,
    check: &ProjectCheck,
    request: &ApplyRequest,
    cancel: &CancellationToken,
) -> Result<Merged, WorkspaceError> {
    objects
        .ensure_base(git, check, &request.base_commit, cancel)
        .await?;
    objects.ensure_base(git, check, &check.tip, cancel).await?;
    objects
        .ensure_result(git, &request.result_commit, request.pack.as_deref(), cancel)
        .await?;
    let (results, request, tip) = (objects.results(), request.clone(), check.tip.clone());
    crate::blocking::run(move || merge(&results, &request, &tip))
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
    git: &Git,
    check: &ProjectCheck,
    request: &ApplyRequest,
    cancel: &CancellationToken,
) -> Result<Option<Applied>, WorkspaceError> {
    let applied = applied_ref(request);
    let Some(commit) = project::resolve(git, &check.git_dir, &applied, cancel).await? else {
        return Ok(None);
    };
    let undo = undo_ref(request);
    let Some(before) = project::resolve(git, &check.git_dir, &undo, cancel).await? else {
        return Ok(None);
    };
    let contained = contains(git, check, &commit, cancel).await?;
    Ok(contained.then(|| done(request, &check.target_ref, before, commit)))
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

enum Merged {
    Commit(Oid),
    Nothing,
    Conflicts(Vec<String>),
}

fn merge(results: &Path, request: &ApplyRequest, tip: &str) -> Result<Merged, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot merge: {error}"));
    let repo = objects::open(results)?;
    let base = snapshot::tree_of(&repo, &request.base_commit)?;
    let theirs = snapshot::tree_of(&repo, tip)?;
    let (approved, rows) = match approved_tree(&repo, request)? {
        Approved::Tree { tree, rows } => (tree, rows),
        Approved::Inseparable(paths) => return Ok(Merged::Conflicts(paths)),
    };
    let ours = repo.find_tree(approved).map_err(failed)?;
    let mut options = MergeOptions::new();
    options.find_renames(true);
    let mut index = repo
        .merge_trees(&base, &theirs, &ours, Some(&options))
        .map_err(failed)?;
    if index.has_conflicts() {
        return Ok(Merged::Conflicts(conflicts(&index).map_err(failed)?));
    }
    let tree = index.write_tree_to(&repo).map_err(failed)?;
    if tree == theirs.id() {
        return Ok(Merged::Nothing);
    }
    verify(&repo, (base.id(), theirs.id(), tree), &rows)?;
    let tree = repo.find_tree(tree).map_err(failed)?;
    let parent = repo.find_commit(objects::parse(tip)?).map_err(failed)?;
    let when = Time::new(request.authored_at, 0);
    let (name, mail) = identity(&request.author);
    let author = Signature::new(&name, &mail, &when).map_err(failed)?;
    let committer = Signature::new("dispatch", "dispatch@localhost", &when).map_err(failed)?;
    let commit = repo
        .commit(
            None,
            &author,
            &committer,
            &request.message,
            &tree,
            &[&parent],
        )
        .map_err(failed)?;
    Ok(Merged::Commit(commit))
}

enum Approved {
    Tree {
        tree: Oid,
        rows: Vec<FileChange>,
    },
    /// These approved paths need others that were not approved.
    Inseparable(Vec<String>),
}

/// The base tree with the approved rows and nothing else.
fn approved_tree(repo: &Repository, request: &ApplyRequest) -> Result<Approved, WorkspaceError> {
    let base = snapshot::tree_of(repo, &request.base_commit)?;
    let result = snapshot::tree_of(repo, &request.result_commit)?;
    let mut rows = diff::rows(repo, base.id(), result.id())?;
    approval::refuse_other(request, &result.id().to_string(), &rows)?;
    let Some(only) = &request.only_paths else {
        return Ok(Approved::Tree {
            tree: result.id(),
            rows,
        });
    };
    let wanted: HashSet<&[u8]> = only.iter().map(Vec::as_slice).collect();
    let there: HashSet<&[u8]> = rows.iter().map(|row| row.path.as_slice()).collect();
    if let Some(unknown) = wanted.iter().find(|path| !there.contains(**path)) {
        return Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!(
                "change {} has no file {}",
                request.change,
                show_path(unknown)
            ),
        ));
    }
    rows.retain(|row| only.contains(&row.path));
    let changes = entries(&rows)?;
    let clashes = clashes(&base, &changes)?;
    if !clashes.is_empty() {
        return Ok(Approved::Inseparable(clashes));
    }
    Ok(Approved::Tree {
        tree: snapshot::build_tree(repo, &base, &changes)?,
        rows,
    })
}

/// What the rows make of each path.
fn entries(rows: &[FileChange]) -> Result<BTreeMap<Vec<u8>, Slot>, WorkspaceError> {
    let mut changes = BTreeMap::new();
    // First what goes: one row's old path may be another one's new path.
    for row in rows {
        if let Some(old) = &row.old_path {
            changes.insert(old.clone(), None);
        }
    }
    for row in rows {
        let slot = match (row.new_mode, &row.new_blob) {
            (Some(mode), Some(oid)) => {
                let mode = u32::try_from(mode).unwrap_or(0);
                Some((mode, objects::parse(oid)?))
            }
            _ => None,
        };
        changes.insert(row.path.clone(), slot);
    }
    Ok(changes)
}

/// Approved files that stand where the base has a directory or below where it has a file, unless
/// what is in their way is approved to go, too. Adding them would remove things silently.
fn clashes(
    base: &git2::Tree<'_>,
    changes: &BTreeMap<Vec<u8>, Slot>,
) -> Result<Vec<String>, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot read the base: {error}"));
    let mut index = git2::Index::new().map_err(failed)?;
    index.read_tree(base).map_err(failed)?;
    let stays = |path: &[u8]| changes.get(path).is_none_or(Option::is_some);
    let files: BTreeSet<Vec<u8>> = index
        .iter()
        .map(|entry| entry.path)
        .filter(|path| stays(path))
        .collect();
    let mut clashes = BTreeSet::new();
    for path in changes
        .iter()
        .filter(|(_, slot)| slot.is_some())
        .map(|(path, _)| path)
    {
        let mut below = path.clone();
        below.push(b'/');
        if let Some(inside) = files.range(below.clone()..).next()
            && inside.starts_with(&below)
        {
            clashes.insert(show_path(path));
            clashes.insert(show_path(inside));
        }
        for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if files.contains(&path[..slash]) {
                clashes.insert(show_path(path));
                clashes.insert(show_path(&path[..slash]));
            }
        }
    }
    Ok(clashes.into_iter().collect())
}

fn conflicts(index: &git2::Index) -> Result<Vec<String>, git2::Error> {
    let mut paths = BTreeSet::new();
    for conflict in index.conflicts()? {
        let conflict = conflict?;
        let sides = [conflict.ancestor, conflict.our, conflict.their];
        for entry in sides.into_iter().flatten() {
            paths.insert(show_path(&entry.path));
        }
    }
    Ok(paths.into_iter().collect())
}

/// Whatever the merge did: an approved file that the branch has not touched since the base must
/// come out exactly as approved, and a file that was not approved exactly as the branch has it.
fn verify(
    repo: &Repository,
    (base, tip, merged): (Oid, Oid, Oid),
    rows: &[FileChange],
) -> Result<(), WorkspaceError> {
    let read = |tree: Oid| slots(repo, tree);
    let (base, tip, merged) = (read(base)?, read(tip)?, read(merged)?);
    let approved = entries(rows)?;
    for (path, slot) in &approved {
        if base.get(path) == tip.get(path) && merged.get(path).copied() != *slot {
            return Err(diff_failed(format!(
                "the merge would change {} to something that was not approved; nothing was applied",
                show_path(path)
            )));
        }
    }
    let paths: BTreeSet<&Vec<u8>> = merged.keys().chain(tip.keys()).collect();
    // A rename on the branch takes an approved edit along to its new path; that path is not among
    // the approved ones, but the branch touched it.
    let stray = paths.into_iter().find(|path| {
        !approved.contains_key(*path)
            && merged.get(*path) != tip.get(*path)
            && base.get(*path) == tip.get(*path)
    });
    match stray {
        Some(path) => Err(diff_failed(format!(
            "the merge would change {}, which was not approved; nothing was applied",
            show_path(path)
        ))),
        None => Ok(()),
    }
}

fn slots(repo: &Repository, tree: Oid) -> Result<BTreeMap<Vec<u8>, (u32, Oid)>, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot read a tree: {error}"));
    let tree = repo.find_tree(tree).map_err(failed)?;
    let mut index = git2::Index::new().map_err(failed)?;
    index.read_tree(&tree).map_err(failed)?;
    Ok(index
        .iter()
        .map(|entry| (entry.path, (entry.mode, entry.id)))
        .collect())
}

/// `Name <mail>`, without what a commit header cannot hold.
fn identity(author: &str) -> (String, String) {
    let clean = |text: &str| {
        text.chars()
            .filter(|c| !c.is_control() && !matches!(c, '<' | '>'))
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let (name, mail) = author.split_once('<').unwrap_or((author, ""));
    let (name, mail) = (clean(name), clean(mail));
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    (or(name, "dispatch"), or(mail, "dispatch@localhost"))
}

/// Hand the objects over, note the commit, then swap the branch. `false`: the branch moved.
async fn publish(
    git: &Git,
    objects: &Objects,
    check: &ProjectCheck,
    request: &ApplyRequest,
    commit: &str,
    cancel: &CancellationToken,
) -> Result<bool, WorkspaceError> {
    let tip = &check.tip;
    let mut keep = None;
    if commit != tip {
        let pack = objects.pack_file(git, commit, tip, cancel).await?;
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
    let swapped = swap(git, check, request, commit, cancel).await;
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
    git: &Git,
    check: &ProjectCheck,
    request: &ApplyRequest,
    commit: &str,
    cancel: &CancellationToken,
) -> Result<bool, WorkspaceError> {
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
    let act = format!("update {} {commit} {tip}\n", check.target_ref);
    update_refs(git, check, &act, &note, cancel).await
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
