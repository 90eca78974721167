//! Two trees → one row per file, with a patch for people. The patch is a view, cut at limits and
//! never applied; ids and modes say what the change is.

use std::collections::HashSet;

use git2::{Delta, Diff, DiffFile, DiffFindOptions, DiffOptions, Oid, Patch, Repository};
use sha2::{Digest, Sha256};

use super::flags::{self, Contents};
use super::walk::{MODE_GITLINK, MODE_LINK};
use super::{WorkspaceError, diff_failed};
use crate::domain::change::{FileChange, FileKind, FileOperation};
use crate::domain::flag::Flag;
use crate::domain::limits;
use crate::domain::redact::Redactor;

/// The rows of a change, in path order, renames found.
pub(super) fn rows(
    repo: &Repository,
    base: Oid,
    result: Oid,
) -> Result<Vec<FileChange>, WorkspaceError> {
    let failed = |error: git2::Error| diff_failed(format!("cannot compare the trees: {error}"));
    let diff = compare(repo, base, result, Renames::Found).map_err(failed)?;
    let mut order: Vec<usize> = (0..diff.deltas().len()).collect();
    order.sort_by_key(|n| diff.get_delta(*n).map(|delta| path_of(&delta).to_vec()));
    let mut view = View::default();
    let mut rows = Vec::with_capacity(order.len());
    for n in order {
        let Some(delta) = diff.get_delta(n) else {
            continue;
        };
        let mut row = row(&delta);
        flag(repo, &mut row);
        view.fill(&diff, n, &mut row).map_err(failed)?;
        rows.push(row);
    }
    Ok(rows)
}

/// How a file with a new name is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renames {
    /// As one row.
    Found,
    /// As a deletion and a creation.
    Listed,
}

fn compare(
    repo: &Repository,
    base: Oid,
    result: Oid,
    renames: Renames,
) -> Result<Diff<'_>, git2::Error> {
    let base = repo.find_tree(base)?;
    let result = repo.find_tree(result)?;
    let mut options = DiffOptions::new();
    options
        .context_lines(3)
        .interhunk_lines(0)
        .id_abbrev(40)
        .ignore_submodules(false)
        // One row per path: a file that became a link is an edit, not a deletion and a creation.
        .include_typechange(true)
        .max_size(limits::DIFF_FILE_BYTES_MAX);
    let mut diff = repo.diff_tree_to_tree(Some(&base), Some(&result), Some(&mut options))?;
    if renames == Renames::Listed {
        return Ok(diff);
    }
    let pairs = diff
        .deltas()
        .filter(|delta| matches!(delta.status(), Delta::Added | Delta::Deleted))
        .count();
    let mut find = DiffFindOptions::new();
    find.renames(true)
        .copies(false)
        .break_rewrites(false)
        .rename_limit(limits::RENAME_FILES_MAX)
        // Among very many files only identical ones are matched; that costs nothing.
        .exact_match_only(pairs > limits::RENAME_FILES_MAX);
    diff.find_similar(Some(&mut find))?;
    // Where something new took the place of a file that moved, one path is in two rows. A
    // decision names paths, so then renames are shown as what they are made of.
    let mut seen = HashSet::new();
    let twice = diff.deltas().any(|delta| {
        let old = delta.old_file().path_bytes().unwrap_or_default().to_vec();
        let moved = delta.status() == Delta::Renamed;
        !seen.insert(path_of(&delta).to_vec()) || (moved && !seen.insert(old))
    });
    if twice {
        return compare(repo, base.id(), result.id(), Renames::Listed);
    }
    Ok(diff)
}

fn path_of<'d>(delta: &git2::DiffDelta<'d>) -> &'d [u8] {
    delta
        .new_file()
        .path_bytes()
        .or_else(|| delta.old_file().path_bytes())
        .unwrap_or_default()
}

fn row(delta: &git2::DiffDelta<'_>) -> FileChange {
    let (old, new) = (delta.old_file(), delta.new_file());
    let (had, has) = (
        delta.status() != Delta::Added,
        delta.status() != Delta::Deleted,
    );
    let path = path_of(delta).to_vec();
    let operation = match delta.status() {
        Delta::Added => FileOperation::Create,
        Delta::Deleted => FileOperation::Delete,
        Delta::Renamed => FileOperation::Rename,
        _ if old.id() == new.id() => FileOperation::Mode,
        _ => FileOperation::Edit,
    };
    let mode = |file: &DiffFile<'_>| i32::try_from(u32::from(file.mode())).unwrap_or(0);
    let newest = if has { mode(&new) } else { mode(&old) };
    let kind = match u32::try_from(newest).unwrap_or(0) {
        MODE_LINK => FileKind::Symlink,
        MODE_GITLINK => FileKind::Submodule,
        _ => FileKind::Text,
    };
    FileChange {
        old_path: (operation == FileOperation::Rename)
            .then(|| old.path_bytes().unwrap_or_default().to_vec()),
        path,
        operation,
        kind,
        old_mode: had.then(|| mode(&old)),
        new_mode: has.then(|| mode(&new)),
        old_blob: had.then(|| old.id().to_string()),
        new_blob: has.then(|| new.id().to_string()),
        added_lines: None,
        removed_lines: None,
        patch: None,
        patch_cut: false,
        flags: Vec::new(),
    }
}

/// What a reviewer must not overlook.
fn flag(repo: &Repository, row: &mut FileChange) {
    let blob = |id: &Option<String>| {
        let id = Oid::from_str(id.as_deref()?).ok()?;
        let blob = repo.find_blob(id).ok()?;
        (blob.size() <= limits::PATCH_FILE_BYTES_MAX).then(|| blob.content().to_vec())
    };
    let (old, new) = match flags::needs_contents(row) {
        true => (blob(&row.old_blob), blob(&row.new_blob)),
        false => (None, None),
    };
    let contents = Contents {
        old: old.as_deref(),
        new: new.as_deref(),
    };
    let found = flags::of(row, contents).into_iter();
    row.flags = found.map(|flag| flag.as_str().to_owned()).collect();
}

/// Flag the files that hold a secret. The bytes stay: a reviewer approves bytes. Returns how many
/// were not searched because there was too much.
pub(super) fn flag_secrets(
    repo: &Repository,
    rows: &mut [FileChange],
    secrets: &Redactor,
) -> usize {
    let mut room = limits::SECRET_SCAN_BYTES_MAX;
    let mut skipped = 0;
    for row in rows {
        let new = row
            .new_blob
            .as_deref()
            .filter(|_| row.kind != FileKind::Submodule);
        let blob = new.and_then(|id| repo.find_blob(Oid::from_str(id).ok()?).ok());
        let mut found = secrets.finds(&row.path);
        if let Some(blob) = blob {
            match room.checked_sub(blob.size()) {
                Some(rest) => {
                    room = rest;
                    found |= secrets.finds(blob.content());
                }
                None => skipped += 1,
            }
        }
        if found {
            row.flags.insert(0, Flag::Secret.as_str().to_owned());
        }
    }
    skipped
}

/// What has been shown so far, against the limits for the whole change.
#[derive(Default)]
struct View {
    bytes: usize,
    lines: usize,
}

impl View {
    fn fill(&mut self, diff: &Diff<'_>, n: usize, row: &mut FileChange) -> Result<(), git2::Error> {
        if row.kind == FileKind::Submodule {
            row.patch = Some(pointer_patch(row));
            return Ok(());
        }
        let patch = Patch::from_diff(diff, n)?;
        let binary = patch.as_ref().is_none_or(|patch| {
            let delta = patch.delta();
            delta.flags().is_binary()
        });
        if binary && row.old_blob != row.new_blob {
            if row.kind == FileKind::Text {
                row.kind = FileKind::Binary;
            }
            return Ok(());
        }
        let Some(mut patch) = patch else {
            return Ok(());
        };
        let (_, added, removed) = patch.line_stats()?;
        row.added_lines = Some(i32::try_from(added).unwrap_or(i32::MAX));
        row.removed_lines = Some(i32::try_from(removed).unwrap_or(i32::MAX));
        self.show(&mut patch, row, added + removed)
    }

    fn show(
        &mut self,
        patch: &mut Patch<'_>,
        row: &mut FileChange,
        lines: usize,
    ) -> Result<(), git2::Error> {
        let room = limits::PATCH_FILE_BYTES_MAX
            .min(limits::PATCH_TOTAL_BYTES_MAX.saturating_sub(self.bytes));
        if self.lines + lines > limits::PATCH_LINES_MAX || room == 0 {
            row.patch_cut = true;
            return Ok(());
        }
        let mut text = Vec::new();
        let mut cut = false;
        patch.print(&mut |_, _, line| {
            let origin = line.origin();
            let marked = matches!(origin, '+' | '-' | ' ');
            if cut || text.len() + line.content().len() + usize::from(marked) > room {
                cut = true;
                return true;
            }
            if marked {
                text.push(u8::try_from(origin).unwrap_or(b' '));
            }
            text.extend_from_slice(line.content());
            true
        })?;
        self.bytes += text.len();
        self.lines += lines;
        row.patch_cut = cut;
        if std::str::from_utf8(&text).is_err() {
            row.flags.push(Flag::NotUtf8.as_str().to_owned());
        }
        // Postgres has no NUL in text.
        row.patch = Some(String::from_utf8_lossy(&text).replace('\0', "\u{fffd}"));
        Ok(())
    }
}

fn pointer_patch(row: &FileChange) -> String {
    let mut text = String::new();
    if let Some(old) = &row.old_blob {
        text.push_str(&format!("-Subproject commit {old}\n"));
    }
    if let Some(new) = &row.new_blob {
        text.push_str(&format!("+Subproject commit {new}\n"));
    }
    text
}

/// SHA-256 over what a change is: its base, its tree, and every row's paths, operation, modes and
/// ids. Each part carries its length, so that no two changes read alike.
pub(super) fn digest(base_commit: &str, result_tree: &str, rows: &[FileChange]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            hash.update([1]);
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        }
        None => hash.update([0]),
    };
    part(Some(b"dispatch change 1"));
    part(Some(base_commit.as_bytes()));
    part(Some(result_tree.as_bytes()));
    for row in rows {
        part(Some(&row.path));
        part(row.old_path.as_deref());
        part(Some(row.operation.as_str().as_bytes()));
        part(row.old_mode.map(i32::to_be_bytes).as_ref().map(|b| &b[..]));
        part(row.new_mode.map(i32::to_be_bytes).as_ref().map(|b| &b[..]));
        part(row.old_blob.as_deref().map(str::as_bytes));
        part(row.new_blob.as_deref().map(str::as_bytes));
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::change::edited as edit;

    #[test]
    fn the_digest_covers_every_part_of_a_change() {
        let one = digest("b", "t", &[edit("x")]);
        let mut other = edit("x");
        other.new_mode = Some(0o100_755);
        assert_ne!(one, digest("b", "t", &[other]));
        assert_ne!(one, digest("b", "t", &[edit("y")]));
        assert_ne!(one, digest("c", "t", &[edit("x")]));
        assert_ne!(one, digest("b", "u", &[edit("x")]));
        assert_ne!(one, digest("b", "t", &[edit("x"), edit("y")]));
        let mut shown = edit("x");
        shown.patch = Some("a view".to_owned());
        assert_eq!(one, digest("b", "t", &[shown]), "views are not the change");
    }
}
