//! Looks at the repository that a directory is part of, as attempts will see it. Never writes.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::project::{self, ProjectCheck};
use super::{ProjectSpec, WorkspaceError};
use crate::domain::change::show_path;
use crate::domain::error_class::ErrorClass;

/// What a project's repository is like.
#[derive(Clone, Debug)]
pub struct Survey {
    /// That it can be used, and its branch.
    pub check: ProjectCheck,
    /// Files in the branch.
    pub files: usize,
    /// Bytes of all objects.
    pub object_bytes: u64,
    /// Tracked files of the checkout that differ from its commit.
    pub uncommitted: usize,
    /// Ignored files of the checkout, directories as one, as shown to people.
    pub ignored: Vec<String>,
    /// Names of its remotes.
    pub remotes: Vec<String>,
}

/// The top of the repository that this directory is in.
pub fn top_of(dir: &Path) -> Result<PathBuf, WorkspaceError> {
    let failed = |why: String| {
        WorkspaceError::new(ErrorClass::Workspace, format!("{}: {why}", dir.display()))
    };
    let dir = dir.canonicalize().map_err(|e| failed(e.to_string()))?;
    let is_bare = |dir: &Path| dir.join("HEAD").is_file() && dir.join("objects").is_dir();
    let top = dir.ancestors().find(|dir| {
        let inside_of_git = dir.file_name().is_some_and(|name| name == ".git");
        dir.join(".git").exists() || (is_bare(dir) && !inside_of_git)
    });
    let none = "it is not inside of a git repository; change to one, or run `git init` and commit";
    top.map(Path::to_path_buf)
        .ok_or_else(|| failed(none.to_owned()))
}

/// Look at it. What keeps attempts from working there is an error that says what to do.
pub async fn survey(project: &ProjectSpec) -> Result<Survey, WorkspaceError> {
    let (git, cancel) = (Git::find()?, CancellationToken::new());
    let check = project::inspect(&git, project, &project.path, &cancel).await?;
    project::refuse_filters(&git, project, &check, &check.tip, &cancel).await?;
    let dir = &check.git_dir;
    let listed = Call::new(dir).args(["ls-tree", "-r", "-z", "--name-only", &check.tip]);
    let files = names(&git.ok(listed, &cancel).await?).count();
    let counted = Call::new(dir).args(["count-objects", "-v"]);
    let object_bytes = bytes_of(&git.line(counted, &cancel).await?);
    let remotes = git.line(Call::new(dir).args(["remote"]), &cancel).await?;
    let (mut uncommitted, mut ignored) = (0, Vec::new());
    if let Some(tree) = &check.checkout {
        let changed = Call::new(dir).work_tree(tree).args([
            "status",
            "--porcelain",
            "-z",
            "--no-renames",
            "--untracked-files=no",
            "--ignore-submodules=all",
        ]);
        uncommitted = names(&git.ok(changed, &cancel).await?).count();
        let left_out = Call::new(dir).work_tree(tree).args([
            "ls-files",
            "--others",
            "--ignored",
            "--exclude-standard",
            "--directory",
            "-z",
        ]);
        let left_out = git.ok(left_out, &cancel).await?;
        ignored = names(&left_out).map(show_path).collect();
    }
    Ok(Survey {
        files,
        object_bytes,
        uncommitted,
        ignored,
        remotes: remotes.lines().map(str::to_owned).collect(),
        check,
    })
}

fn names(listing: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = listing.split(|byte| *byte == 0);
    names.filter(|name| !name.is_empty())
}

/// Loose and packed objects, from what git counts in KiB.
fn bytes_of(counted: &str) -> u64 {
    let sizes = counted.lines().filter_map(|line| {
        let (name, size) = line.split_once(": ")?;
        let size: u64 = size.parse().ok()?;
        matches!(name, "size" | "size-pack").then_some(size)
    });
    sizes.sum::<u64>().saturating_mul(1024)
}
