//! Setup and teardown lines of a project, run only when the operator allows hooks.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::layout::AttemptDir;
use super::process::{self, Exec, ExecError, Input};
use super::{ProjectSpec, WorkspaceError, Worktree, WorktreeKey};
use crate::domain::attempt::MARK_VARIABLE;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::sandbox::Network;
use crate::sandbox::{Confinement, Means, Places, Sandbox, exec};

/// One line to run.
pub(super) struct Hook<'a> {
    pub(super) name: &'static str,
    pub(super) line: &'a str,
    pub(super) project: &'a ProjectSpec,
    pub(super) tree: &'a Path,
    pub(super) dir: &'a AttemptDir,
    pub(super) key: WorktreeKey,
    /// Marks its processes as those of the attempt.
    pub(super) mark: String,
    /// What it may do; absent: what the worker may.
    pub(super) held: Option<Confinement>,
}

/// How hooks of this attempt are held: as its agent is, because what they run is the repository's,
/// and later the agent's. `borrowed` is what its git reads.
pub(super) fn held(
    sandbox: &Sandbox,
    means: &Means,
    tree: &Path,
    dir: &AttemptDir,
    borrowed: Vec<PathBuf>,
) -> Confinement {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = Places {
        tree: tree.to_owned(),
        home: dir.home(),
        tmp: dir.tmp(),
        read: borrowed,
        search_path: std::env::split_paths(&path).collect(),
        linked: false,
    };
    Confinement::of_hook(sandbox, means, &places)
}

/// The same after the agent: a worker that takes a worktree over has to choose anew.
pub(super) async fn held_later(
    sandbox: &Sandbox,
    project: &ProjectSpec,
    worktree: &Worktree,
) -> Result<Confinement, WorkspaceError> {
    let unheld = |message| WorkspaceError::new(ErrorClass::Workspace, message);
    let means = match &worktree.means {
        Some(means) => means.clone(),
        None => sandbox
            .means(project.demand, Network::Full, false)
            .map_err(unheld)?,
    };
    let held = held(
        sandbox,
        &means,
        &worktree.tree,
        &worktree.dir,
        worktree.lent(),
    );
    let given = held.clone();
    let dirs = [
        worktree.tree.clone(),
        worktree.dir.home(),
        worktree.dir.tmp(),
    ];
    crate::blocking::run(move || dirs.iter().try_for_each(|dir| given.give(dir)))
        .await
        .map_err(|error| unheld(error.to_string()))?
        .map_err(|error| unheld(format!("cannot give the worktree to the hook: {error}")))?;
    Ok(held)
}

/// Run it with `sh -c` in the tree; its home and temporary directory are the attempt's own.
pub(super) async fn run(hook: Hook<'_>, cancel: &CancellationToken) -> Result<(), WorkspaceError> {
    let env = [
        ("PATH", std::env::var_os("PATH").unwrap_or_default()),
        ("LANG", "C.UTF-8".into()),
        ("HOME", hook.dir.home().into()),
        ("TMPDIR", hook.dir.tmp().into()),
        ("DISPATCH_PROJECT", hook.project.name.clone().into()),
        ("DISPATCH_PROJECT_PATH", hook.project.path.clone().into()),
        ("DISPATCH_WORKTREE", hook.tree.into()),
        ("DISPATCH_TASK", hook.key.task.to_string().into()),
        (
            "DISPATCH_ATTEMPT_NUMBER",
            hook.key.attempt.to_string().into(),
        ),
        (MARK_VARIABLE, hook.mark.into()),
    ];
    let line = ["-c".into(), hook.line.into()];
    let (program, args) = match &hook.held {
        None => (PathBuf::from("/bin/sh"), line.to_vec()),
        Some(held) => held
            .command(Path::new("/bin/sh"), &line, hook.tree)
            .map_err(|message| WorkspaceError::new(ErrorClass::Internal, message))?,
    };
    let meant = |name: &str| match hook.held.is_some() {
        true => exec::variable(name).into(),
        false => name.into(),
    };
    let exec = Exec {
        program,
        args,
        cwd: hook.tree.to_path_buf(),
        env: env
            .into_iter()
            .map(|(name, value)| (meant(name), value))
            .collect(),
        stdin: Input::Bytes(Vec::new()),
        stdout_file: None,
        stdout_bytes_max: limits::HOOK_OUTPUT_BYTES_MAX,
        timeout: limits::HOOK_TIMEOUT,
        owner: None,
    };
    let said = match process::run(exec, cancel).await {
        Ok(output) if output.code == Some(0) => return Ok(()),
        Ok(output) if output.cut => "it printed more than is allowed".to_owned(),
        Ok(output) => format!(
            "it ended with {}: {}",
            output
                .code
                .map_or_else(|| "a signal".to_owned(), |code| code.to_string()),
            output.stderr
        ),
        Err(ExecError::Cancelled) => {
            return Err(WorkspaceError::new(
                ErrorClass::Cancelled,
                format!("the {} hook was cancelled", hook.name),
            ));
        }
        Err(error) => error.to_string(),
    };
    Err(WorkspaceError::new(
        ErrorClass::Workspace,
        format!(
            "the {} hook of project {} failed: {said}",
            hook.name, hook.project.name
        ),
    ))
}
