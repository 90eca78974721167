//! Setup and teardown lines of a project, run only when the operator allows hooks.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::layout::AttemptDir;
use super::process::{self, Exec, ExecError, Held, Input, Output};
use super::{ProjectSpec, WorkspaceError, Worktree, WorktreeKey, WorktreeMode};
use crate::domain::attempt::MARK_VARIABLE;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::sandbox::{Demand, Network, Rung};
use crate::sandbox::watch::{self, Who};
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
    mode: WorktreeMode,
    borrowed: Vec<PathBuf>,
) -> Result<Confinement, WorkspaceError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = Places {
        tree: tree.to_owned(),
        home: dir.home(),
        tmp: dir.tmp(),
        read: borrowed,
        programs: Vec::new(),
        search_path: std::env::split_paths(&path).collect(),
        linked: mode == WorktreeMode::Linked,
    };
    Confinement::of_hook(sandbox, means, &places).map_err(|why| unheld(&why))
}

fn unheld(why: &str) -> WorkspaceError {
    let message = format!("a hook cannot be confined: {why}");
    WorkspaceError::new(ErrorClass::Workspace, message)
}

/// For a worktree whose agent nobody remembers: what that could reach is not known, so nothing.
fn means_of_adopted(sandbox: &Sandbox, project: &ProjectSpec) -> Result<Means, String> {
    let open = match project.demand {
        Demand::None => true,
        Demand::Optional => sandbox.best() == Rung::None,
        Demand::Required => false,
    };
    let network = match open {
        true => Network::Full,
        false => Network::None,
    };
    sandbox.means(project.demand, network, false)
}

/// The same after the agent: a worker that takes a worktree over has to choose anew.
pub(super) async fn held_later(
    sandbox: &Sandbox,
    project: &ProjectSpec,
    worktree: &Worktree,
) -> Result<Confinement, WorkspaceError> {
    let means = match &worktree.means {
        Some(means) => means.clone(),
        None => means_of_adopted(sandbox, project).map_err(|why| unheld(&why))?,
    };
    let held = held(
        sandbox,
        &means,
        &worktree.tree,
        &worktree.dir,
        worktree.mode,
        worktree.lent(),
    )?;
    let given = held.clone();
    let dirs = [
        worktree.tree.clone(),
        worktree.dir.home(),
        worktree.dir.tmp(),
    ];
    crate::blocking::run(move || dirs.iter().try_for_each(|dir| given.give(dir)))
        .await
        .map_err(|error| unheld(&error.to_string()))?
        .map_err(|error| unheld(&format!("cannot give it the worktree: {error}")))?;
    Ok(held)
}

/// What its line is run as, with `sh -c` in the tree; its home and temporary directory are the
/// attempt's own.
fn exec_of(hook: &Hook<'_>) -> Result<Exec, WorkspaceError> {
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
        (MARK_VARIABLE, hook.mark.clone().into()),
    ];
    let more = hook.held.as_ref().map(Confinement::variables);
    let more = more.unwrap_or_default();
    let more = more
        .iter()
        .map(|(name, value)| (name.as_str(), value.into()));
    let meant = |name: &str| match hook.held.is_some() {
        true => exec::variable(name).into(),
        false => name.into(),
    };
    let line = ["-c".into(), hook.line.into()];
    let (program, args) = match &hook.held {
        None => (PathBuf::from("/bin/sh"), line.to_vec()),
        Some(held) => held
            .command(Path::new("/bin/sh"), &line, hook.tree)
            .map_err(|message| WorkspaceError::new(ErrorClass::Internal, message))?,
    };
    Ok(Exec {
        program,
        args,
        cwd: hook.tree.to_path_buf(),
        env: env
            .into_iter()
            .chain(more)
            .map(|(name, value)| (meant(name), value))
            .collect(),
        stdin: Input::Bytes(Vec::new()),
        stdout_file: None,
        stdout_bytes_max: limits::HOOK_OUTPUT_BYTES_MAX,
        timeout: limits::HOOK_TIMEOUT,
        owner: None,
        held: hook.held.clone().map(|confinement| Held {
            mark: hook.mark.clone(),
            confinement,
        }),
    })
}

/// Run it, to its end or to that of what it may use up; nothing of it is left.
pub(super) async fn run(hook: Hook<'_>, cancel: &CancellationToken) -> Result<(), WorkspaceError> {
    let ended = process::run(exec_of(&hook)?, cancel).await;
    let allowed = hook.held.as_ref().map(Confinement::limits);
    let allowed = allowed.unwrap_or_default();
    let (class, said) = match ended {
        Ok(output) if output.cut => (
            ErrorClass::Workspace,
            "it printed more than is allowed".to_owned(),
        ),
        Ok(output) if output.code == Some(0) => return Ok(()),
        Ok(output) => match watch::ended_for(Who::Hook, &allowed, output.code, output.signal) {
            Some(said) => (ErrorClass::Budget, said),
            None => (ErrorClass::Workspace, how_it_ended(&output)),
        },
        Err(ExecError::Cancelled) => {
            return Err(WorkspaceError::new(
                ErrorClass::Cancelled,
                format!("the {} hook was cancelled", hook.name),
            ));
        }
        Err(ExecError::OverLimit(said)) => (ErrorClass::Budget, said),
        Err(ExecError::Survived(who)) => (ErrorClass::Internal, who.to_string()),
        Err(error @ (ExecError::TimedOut(_) | ExecError::Io(_))) => {
            (ErrorClass::Workspace, error.to_string())
        }
    };
    let refusals = hook.held.as_ref().map(Confinement::refusals);
    let all = [vec![said], refusals.unwrap_or_default()].concat();
    let (name, project) = (hook.name, &hook.project.name);
    let message = format!(
        "the {name} hook of project {project} failed: {}",
        all.join("; ")
    );
    Err(WorkspaceError::new(class, message))
}

fn how_it_ended(output: &Output) -> String {
    let how = match output.code {
        Some(code) => code.to_string(),
        None => "a signal".to_owned(),
    };
    format!("it ended with {how}: {}", output.stderr)
}
