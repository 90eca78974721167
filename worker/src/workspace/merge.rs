//! The merge of an approved change onto the tip of its branch, in our own store: nothing outside of it
//! is touched, and what comes out is checked against what was approved.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use git2::{MergeOptions, Oid, Repository, Signature, Time};

use super::walk::Slot;
use super::{ApplyRequest, WorkspaceError, approval, diff, diff_failed, objects, snapshot};
use crate::domain::change::{FileChange, show_path};
use crate::domain::error_class::ErrorClass;

/// What came out.
pub(super) enum Merged {
    /// This commit, which no branch has yet.
    Commit(Oid),
    /// The branch has all of it.
    Nothing,
    /// These paths do not merge.
    Conflicts(Vec<String>),
}

/// Merge it onto this tip.
pub(super) fn merge(
    results: &Path,
    request: &ApplyRequest,
    tip: &str,
) -> Result<Merged, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot merge: {error}"));
    let repo = objects::open(results)?;
    let base = snapshot::tree_of(&repo, &request.base_commit)?;
    let theirs = snapshot::tree_of(&repo, tip)?;
    let (approved, rows) = match approved_tree(&repo, request)? {
        Approved::Tree { tree, rows } => (tree, rows),
        Approved::Inseparable(paths) => return Ok(Merged::Conflicts(paths)),
    };
    let ours = repo.find_tree(approved).map_err(failed)?;
    let mut index = trees(&repo, &base, &theirs, &ours)?;
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

fn trees(
    repo: &Repository,
    base: &git2::Tree<'_>,
    theirs: &git2::Tree<'_>,
    ours: &git2::Tree<'_>,
) -> Result<git2::Index, WorkspaceError> {
    let mut options = MergeOptions::new();
    options.find_renames(true);
    repo.merge_trees(base, theirs, ours, Some(&options))
        .map_err(|error| diff_failed(format!("cannot merge: {error}")))
}

/// The merge itself, conflicts and all; `None`: the approved files cannot even be told apart.
pub(super) fn index(
    repo: &Repository,
    request: &ApplyRequest,
    tip: &str,
) -> Result<Option<git2::Index>, WorkspaceError> {
    let Approved::Tree { tree, .. } = approved_tree(repo, request)? else {
        return Ok(None);
    };
    let ours = repo
        .find_tree(tree)
        .map_err(|error| diff_failed(format!("cannot merge: {error}")))?;
    let base = snapshot::tree_of(repo, &request.base_commit)?;
    let theirs = snapshot::tree_of(repo, tip)?;
    trees(repo, &base, &theirs, &ours).map(Some)
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
