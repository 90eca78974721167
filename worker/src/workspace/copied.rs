//! Copies the untracked files that a project lists (`.env` and alike) into a fresh worktree.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::project::ProjectCheck;
use super::{ProjectSpec, WorkspaceError, internal};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// Copy them; says how many. A file that the tree already has is left alone: listed files are
/// additions, never overrides.
pub(super) async fn copy(
    project: &ProjectSpec,
    check: &ProjectCheck,
    tree: &Path,
) -> Result<usize, WorkspaceError> {
    let Some(checkout) = check.checkout.clone() else {
        return Ok(0);
    };
    if project.copy_files.is_empty() {
        return Ok(0);
    }
    let (patterns, tree) = (project.copy_files.clone(), tree.to_path_buf());
    let name = project.name.clone();
    crate::blocking::run(move || copy_all(&patterns, &checkout, &tree))
        .await
        .map_err(|error| internal(error.to_string()))?
        .map_err(|text| {
            WorkspaceError::new(
                ErrorClass::Workspace,
                format!("copy_files of project {name}: {text}"),
            )
        })
}

fn copy_all(patterns: &[String], checkout: &Path, tree: &Path) -> Result<usize, String> {
    let mut found = Vec::new();
    for pattern in patterns {
        expand(pattern, checkout, &mut found)?;
    }
    found.sort();
    found.dedup();
    let mut bytes = 0;
    let mut copied = 0;
    for relative in found {
        let target = tree.join(&relative);
        if target.symlink_metadata().is_ok() {
            continue;
        }
        let size = copy_one(&checkout.join(&relative), tree, &relative)
            .map_err(|error| format!("{}: {error}", relative.display()))?;
        bytes += size;
        copied += 1;
        if bytes > limits::COPIED_BYTES_MAX {
            return Err(format!(
                "more than {} bytes; list fewer files",
                limits::COPIED_BYTES_MAX
            ));
        }
    }
    Ok(copied)
}

/// Walks the pattern component by component; links are not followed.
fn expand(pattern: &str, checkout: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let parts: Vec<&str> = pattern.trim_matches('/').split('/').collect();
    let forbidden = |part: &&str| matches!(*part, "" | "." | ".." | "**" | ".git");
    if parts.iter().any(forbidden) {
        return Err(format!(
            "{pattern:?} is not allowed: name files relative to the project's root, without .., ** or .git"
        ));
    }
    let mut level = vec![PathBuf::new()];
    for (depth, part) in parts.iter().enumerate() {
        let matcher: GlobMatcher = GlobBuilder::new(part)
            .literal_separator(true)
            .build()
            .map_err(|error| format!("{pattern:?}: {error}"))?
            .compile_matcher();
        let last = depth + 1 == parts.len();
        let mut next = Vec::new();
        for dir in &level {
            let Ok(entries) = fs::read_dir(checkout.join(dir)) else {
                continue;
            };
            for entry in entries.flatten() {
                let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else {
                    continue;
                };
                let fits = if last { kind.is_file() } else { kind.is_dir() };
                if fits && name.as_bytes() != b".git" && matcher.is_match(Path::new(&name)) {
                    next.push(dir.join(name));
                }
            }
        }
        level = next;
    }
    found.extend(level);
    if found.len() > limits::COPIED_FILES_MAX {
        return Err(format!(
            "more than {} files; list fewer",
            limits::COPIED_FILES_MAX
        ));
    }
    Ok(())
}

fn copy_one(from: &Path, tree: &Path, relative: &Path) -> io::Result<u64> {
    // The base may have a link where the checkout has a directory: nothing is written through it.
    let mut dir = tree.to_path_buf();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        dir.push(part);
        match dir.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(io::Error::other("its directory is a file or a link here")),
            Err(_) => fs::create_dir(&dir)?,
        }
    }
    fs::copy(from, tree.join(relative))
}
