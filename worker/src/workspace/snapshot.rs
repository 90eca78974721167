//! What an attempt left, as a tree and a commit in the project's hidden store. Repeatable: the
//! same files give the same commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::{Index, IndexEntry, IndexTime, Oid, Repository, Signature, Tree};

use super::ignores::Ignores;
use super::layout::{AttemptDir, Meta, Prepared};
use super::objects::{self, Objects};
use super::tree_check::{self, Symlink};
use super::walk::{self, Found, Keep, Known, MODE_LINK, Slot, Start, Stat};
use super::{WorkspaceError, diff_failed, internal};
use crate::domain::change::show_path;
use crate::domain::limits;

/// A recorded tree.
pub(super) struct Recorded {
    pub(super) tree: Oid,
    pub(super) commit: Oid,
    pub(super) name: String,
    pub(super) notices: Vec<String>,
}

/// Record what is in the tree and pin it. Blocking.
pub(super) fn record(
    results: &Path,
    dir: &AttemptDir,
    tree: &Path,
    meta: &Meta,
) -> Result<Recorded, WorkspaceError> {
    let repo = objects::open(results)?;
    let (mut found, start) = look(&repo, dir, tree, meta, Keep::Objects)?;
    for prepared in &meta.prepared {
        let slot = slot_of(prepared)?;
        if found.changes.get(&prepared.path) == Some(&slot) {
            found.changes.remove(&prepared.path);
        }
    }
    leave_out_bad_paths(&mut found, &start);
    cap_notices(&mut found);
    let failed = |error: git2::Error| diff_failed(format!("cannot record the result: {error}"));
    let base = repo
        .find_commit(objects::parse(&meta.base_commit)?)
        .map_err(failed)?;
    let from = tree_of(&repo, &meta.start_commit)?;
    let result = build_tree(&repo, &from, &found.changes)?;
    let message = format!("Result of task {}, attempt {}\n", meta.task, meta.attempt);
    // The base's date, so that recording the same files again makes the same commit.
    let by = Signature::new("dispatch", "dispatch@localhost", &base.time()).map_err(failed)?;
    let result_tree = repo.find_tree(result).map_err(failed)?;
    let commit = repo
        .commit(None, &by, &by, &message, &result_tree, &[&base])
        .map_err(failed)?;
    let name = format!("refs/dispatch/{}/{}", meta.task, meta.attempt);
    objects::set_ref(&repo, &name, commit).map_err(failed)?;
    Ok(Recorded {
        tree: result,
        commit,
        name,
        notices: found.notices,
    })
}

/// What copying and the setup hook made different, before the agent starts.
pub(super) async fn prepared(
    objects: &Objects,
    dir: &AttemptDir,
    tree: &Path,
    meta: &Meta,
) -> Result<Vec<Prepared>, WorkspaceError> {
    let (results, dir) = (objects.results(), dir.clone());
    let (tree, meta) = (tree.to_path_buf(), meta.clone());
    crate::blocking::run(move || {
        let repo = objects::open(&results)?;
        let (found, _) = look(&repo, &dir, &tree, &meta, Keep::Nothing)?;
        let changes = found.changes.into_iter();
        Ok(changes
            .map(|(path, slot)| Prepared {
                path,
                entry: slot.map(|(mode, oid)| (mode, oid.to_string())),
            })
            .collect())
    })
    .await
    .map_err(|error| internal(error.to_string()))?
}

fn look(
    repo: &Repository,
    dir: &AttemptDir,
    tree: &Path,
    meta: &Meta,
    keep: Keep,
) -> Result<(Found, Start), WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot read the index: {error}"));
    let index = Index::open(&dir.index()).map_err(failed)?;
    let files = index
        .iter()
        .map(|entry| {
            let known = Known {
                mode: entry.mode,
                oid: entry.id,
                stat: Stat {
                    ctime: (entry.ctime.seconds(), entry.ctime.nanoseconds()),
                    mtime: (entry.mtime.seconds(), entry.mtime.nanoseconds()),
                    ino: entry.ino,
                    size: entry.file_size,
                },
            };
            (entry.path, known)
        })
        .collect::<HashMap<_, _>>();
    let base = tree_of(repo, &meta.base_commit)?;
    let start = Start {
        files,
        index_time: (meta.index_seconds, meta.index_nanoseconds),
        ignores: Ignores::of(repo, &base)?,
    };
    let odb = repo
        .odb()
        .map_err(|error| diff_failed(format!("cannot open the object store: {error}")))?;
    let found = walk::walk(tree, &start, &odb, keep)?;
    Ok((found, start))
}

fn slot_of(prepared: &Prepared) -> Result<Slot, WorkspaceError> {
    match &prepared.entry {
        Some((mode, oid)) => Ok(Some((*mode, objects::parse(oid)?))),
        None => Ok(None),
    }
}

/// Paths that the start tree has are the project's own choice. New ones are checked.
fn leave_out_bad_paths(found: &mut Found, start: &Start) {
    let links: Vec<Vec<u8>> = found
        .changes
        .iter()
        .filter(|(path, slot)| {
            start.files.contains_key(*path)
                && slot.is_some_and(|(mode, _)| mode == MODE_LINK)
                && tree_check::refuse_path(path, Symlink::No).is_none()
                && tree_check::refuse_path(path, Symlink::Yes).is_some()
        })
        .map(|(path, _)| path.clone())
        .collect();
    for path in links {
        found.changes.remove(&path);
        found.notices.push(format!(
            "{} became a link, which it must not be: the former content stays",
            show_path(&path)
        ));
    }
    let added: Vec<(Vec<u8>, u32)> = found
        .changes
        .iter()
        .filter(|(path, _)| !start.files.contains_key(*path))
        .filter_map(|(path, slot)| slot.map(|(mode, _)| (path.clone(), mode)))
        .collect();
    if added.is_empty() {
        return;
    }
    let mut exact: HashSet<Vec<u8>> = HashSet::new();
    let mut folded: HashSet<Vec<u8>> = HashSet::new();
    for path in start.files.keys() {
        if found.changes.get(path).is_some_and(Option::is_none) {
            continue;
        }
        for prefix in prefixes(path)
            .filter(|prefix| !exact.contains(*prefix))
            .collect::<Vec<_>>()
        {
            exact.insert(prefix.to_vec());
            folded.insert(tree_check::fold_case(prefix));
        }
    }
    for (path, mode) in added {
        let symlink = if mode == MODE_LINK {
            Symlink::Yes
        } else {
            Symlink::No
        };
        let reason = tree_check::refuse_path(&path, symlink).or_else(|| {
            prefixes(&path)
                .any(|p| !exact.contains(p) && folded.contains(&tree_check::fold_case(p)))
                .then_some("another path differs from it in case only")
        });
        if let Some(reason) = reason {
            found.changes.remove(&path);
            found
                .notices
                .push(format!("{} was left out: {reason}", show_path(&path)));
            continue;
        }
        for prefix in prefixes(&path) {
            exact.insert(prefix.to_vec());
            folded.insert(tree_check::fold_case(prefix));
        }
    }
}

/// `a`, `a/b`, `a/b/c`.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    slashes
        .chain(std::iter::once(path.len()))
        .map(|end| &path[..end])
}

fn cap_notices(found: &mut Found) {
    let notices = &mut found.notices;
    notices.sort();
    let more = found.unnoticed + notices.len().saturating_sub(limits::NOTICES_MAX);
    if more > 0 {
        notices.truncate(limits::NOTICES_MAX);
        notices.push(format!("… and {more} more"));
    }
}

/// The tree of a commit.
pub(super) fn tree_of<'r>(repo: &'r Repository, commit: &str) -> Result<Tree<'r>, WorkspaceError> {
    repo.find_commit(objects::parse(commit)?)
        .and_then(|commit| commit.tree())
        .map_err(|error| diff_failed(format!("cannot read commit {commit}: {error}")))
}

/// The tree `from` with these entries changed.
pub(super) fn build_tree(
    repo: &Repository,
    from: &Tree<'_>,
    changes: &BTreeMap<Vec<u8>, Slot>,
) -> Result<Oid, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot build the tree: {error}"));
    let mut index = Index::new().map_err(failed)?;
    index.read_tree(from).map_err(failed)?;
    // Removals first: a file may become a directory of the same name.
    for (path, _) in changes.iter().filter(|(_, slot)| slot.is_none()) {
        let path = std::ffi::OsStr::from_bytes(path);
        index.remove(Path::new(path), 0).map_err(failed)?;
    }
    for (path, slot) in changes {
        let Some((mode, oid)) = slot else { continue };
        index
            .add(&index_entry(path, *mode, *oid))
            .map_err(|error| diff_failed(format!("cannot add {}: {error}", show_path(path))))?;
    }
    index.write_tree_to(repo).map_err(failed)
}

fn index_entry(path: &[u8], mode: u32, id: Oid) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.to_vec(),
    }
}
