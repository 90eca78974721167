//! Reads a project's repository, always through the git CLI with its directory named, and says
//! clearly which ones cannot be used and what to do about it. Never writes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::{ProjectSpec, WorkspaceError};
use crate::domain::change::show_path;
use crate::domain::error_class::ErrorClass;

/// A usable project, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectCheck {
    /// Its own git directory (of the checkout that the path names).
    pub git_dir: PathBuf,
    /// The git directory that holds refs and objects.
    pub common_dir: PathBuf,
    /// Root of its checkout; absent in a bare repository.
    pub checkout: Option<PathBuf>,
    /// Branch that results go to.
    pub target_ref: String,
    /// Commit at the tip of `target_ref`.
    pub tip: String,
    /// Its history is cut off; results still apply.
    pub shallow: bool,
}

fn refuse(project: &ProjectSpec, text: &str) -> WorkspaceError {
    WorkspaceError::new(
        ErrorClass::Workspace,
        format!(
            "project {} ({}): {text}",
            project.name,
            project.path.display()
        ),
    )
}

/// Find the repository at this path, which is the project's own or that of its mirror, its target
/// branch and the branch's tip.
pub(super) async fn inspect(
    git: &Git,
    project: &ProjectSpec,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<ProjectCheck, WorkspaceError> {
    if !path.is_absolute() {
        return Err(refuse(project, "its path must be absolute"));
    }
    if !path.is_dir() {
        return Err(refuse(
            project,
            "there is no such directory; correct the project's path or clone it there",
        ));
    }
    let (git_dir, common_dir, bare) = locate(git, project, path, cancel).await?;
    refuse_unsupported(git, project, &common_dir, &git_dir, cancel).await?;
    let target_ref = target(git, project, &git_dir, cancel).await?;
    let tip = resolve(git, &git_dir, &target_ref, cancel).await?;
    let Some(tip) = tip else {
        return Err(refuse(
            project,
            &format!(
                "its branch {target_ref} has no commit yet; make a first commit or set another branch"
            ),
        ));
    };
    Ok(ProjectCheck {
        checkout: (!bare).then(|| path.to_owned()),
        shallow: common_dir.join("shallow").is_file(),
        git_dir,
        common_dir,
        target_ref,
        tip,
    })
}

async fn locate(
    git: &Git,
    project: &ProjectSpec,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<(PathBuf, PathBuf, bool), WorkspaceError> {
    let call = Call::discovering(path).args([
        "rev-parse",
        "--path-format=absolute",
        "--absolute-git-dir",
        "--git-common-dir",
        "--is-bare-repository",
        "--show-prefix",
    ]);
    let output = git.run(call, cancel).await?;
    if output.code != Some(0) {
        let text = if output.stderr.contains("unknown repository extension")
            || output.stderr.contains("unknown repository version")
        {
            format!(
                "this git cannot read it ({}); update git or use a plain clone",
                output.stderr
            )
        } else {
            format!(
                "it is not the root of a git repository ({}); run `git init` and commit, or correct the path",
                output.stderr
            )
        };
        return Err(refuse(project, &text));
    }
    let mut lines = output.stdout.split(|byte| *byte == b'\n');
    let (Some(git_dir), Some(common), Some(bare)) = (lines.next(), lines.next(), lines.next())
    else {
        return Err(refuse(project, "git did not say where its directory is"));
    };
    if lines.next().is_some_and(|prefix| !prefix.is_empty()) {
        return Err(refuse(
            project,
            "it is a directory inside of a repository; name the repository's root",
        ));
    }
    // Bytes as they are: a path need not be UTF-8. One with a line break is not understood.
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let (git_dir, common) = (path(git_dir), path(common));
    if !git_dir.is_dir() || !common.is_dir() {
        return Err(refuse(project, "its path holds a line break; move it"));
    }
    Ok((git_dir, common, bare == b"true"))
}

async fn refuse_unsupported(
    git: &Git,
    project: &ProjectSpec,
    common_dir: &Path,
    git_dir: &Path,
    cancel: &CancellationToken,
) -> Result<(), WorkspaceError> {
    let listed = git
        .run(
            Call::new(git_dir).args(["config", "--list", "-z", "--includes"]),
            cancel,
        )
        .await?;
    let config = String::from_utf8_lossy(&listed.stdout).into_owned();
    for entry in config.split('\0') {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, "true"));
        let on = !matches!(value, "false" | "no" | "off" | "0" | "");
        let text = match key {
            "extensions.objectformat" if value != "sha1" => {
                "it uses SHA-256 object names, which are not supported; use a SHA-1 repository (`git init --object-format=sha1`)"
            }
            "extensions.refstorage" if value != "files" => {
                "it keeps its refs in another format than files; run `git refs migrate --ref-format=files` in it"
            }
            "extensions.partialclone" => {
                "it is a partial clone, objects may be missing; run `git fetch --refetch --no-filter` in it, then `git config --unset extensions.partialClone`, or use a full clone"
            }
            key if key.starts_with("remote.") && key.ends_with(".promisor") && on => {
                "it is a partial clone, objects may be missing; use a full clone"
            }
            _ => continue,
        };
        return Err(refuse(project, text));
    }
    // Our own calls switch it off, so the question goes to the files.
    for file in [common_dir.join("config"), git_dir.join("config.worktree")] {
        if !file.is_file() {
            continue;
        }
        let call = Call::new(git_dir)
            .args(["config", "--type=bool", "--file"])
            .args([file.into_os_string()])
            .args(["--get", "core.sparseCheckout"]);
        if git.run(call, cancel).await?.stdout.starts_with(b"true") {
            return Err(refuse(
                project,
                "it is a sparse checkout, a result could not be told from files left out; run `git sparse-checkout disable` in it, or name a full clone",
            ));
        }
    }
    Ok(())
}

async fn target(
    git: &Git,
    project: &ProjectSpec,
    git_dir: &Path,
    cancel: &CancellationToken,
) -> Result<String, WorkspaceError> {
    if let Some(name) = &project.target_ref {
        let full = if name.starts_with("refs/") {
            name.clone()
        } else {
            format!("refs/heads/{name}")
        };
        if !full.starts_with("refs/heads/") || !git2::Reference::is_valid_name(&full) {
            return Err(refuse(
                project,
                &format!("{name:?} is not the name of a branch"),
            ));
        }
        return Ok(full);
    }
    let output = git
        .run(
            Call::new(git_dir).args(["symbolic-ref", "--quiet", "HEAD"]),
            cancel,
        )
        .await?;
    let name = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    if output.code == Some(0) && name.starts_with("refs/heads/") {
        Ok(name)
    } else {
        Err(refuse(
            project,
            "its HEAD is detached, so there is no branch for results; check out a branch or set the project's target branch",
        ))
    }
}

/// The commit that a name stands for.
pub(super) async fn resolve(
    git: &Git,
    git_dir: &Path,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Option<String>, WorkspaceError> {
    let call = Call::new(git_dir)
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .args([format!("{name}^{{commit}}")]);
    let output = git.run(call, cancel).await?;
    let oid = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    Ok((output.code == Some(0) && git2::Oid::from_str(&oid).is_ok()).then_some(oid))
}

/// Refuse a commit whose files only make sense through filters (Git LFS and others): agents would
/// work on pointer files, and what they leave would replace the real ones.
pub(super) async fn refuse_filters(
    git: &Git,
    project: &ProjectSpec,
    check: &ProjectCheck,
    commit: &str,
    cancel: &CancellationToken,
) -> Result<(), WorkspaceError> {
    let mut sources = Vec::new();
    if let Ok(bytes) = std::fs::read(check.common_dir.join("info").join("attributes")) {
        sources.push(("info/attributes".to_owned(), bytes));
    }
    let listing = git
        .ok(
            Call::new(&check.git_dir).args(["ls-tree", "-r", "-z", "--full-tree", commit]),
            cancel,
        )
        .await?;
    for row in listing.split(|byte| *byte == 0) {
        let Some(tab) = row.iter().position(|byte| *byte == b'\t') else {
            continue;
        };
        let (head, path) = (&row[..tab], &row[tab + 1..]);
        if path != b".gitattributes" && !path.ends_with(b"/.gitattributes") {
            continue;
        }
        let head = String::from_utf8_lossy(head);
        let Some(oid) = head.split(' ').nth(2) else {
            continue;
        };
        let call = Call::new(&check.git_dir).args(["cat-file", "blob", oid]);
        sources.push((show_path(path), git.ok(call, cancel).await?));
    }
    for (file, bytes) in &sources {
        if let Some(filter) = filter_in(bytes) {
            return Err(refuse(
                project,
                &format!(
                    "{file} passes files through the filter {filter:?} (Git LFS or alike), which is not supported; use a repository without it, or take the files out of the filter (`git lfs migrate export`)"
                ),
            ));
        }
    }
    Ok(())
}

/// The first filter that an attributes file names.
fn filter_in(bytes: &[u8]) -> Option<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_whitespace().skip(1))
        .find_map(|attribute| attribute.strip_prefix("filter=").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_filter_that_is_set_counts() {
        assert_eq!(
            filter_in(b"# x filter=a\n*.png -filter\n*.bin diff=x filter=lfs -text\n").as_deref(),
            Some("lfs")
        );
        assert_eq!(filter_in(b"*.c text\nfilter=name -text\n"), None);
    }
}
