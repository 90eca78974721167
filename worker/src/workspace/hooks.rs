//! Setup and teardown lines of a project, run only when the operator allows hooks.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::layout::AttemptDir;
use super::process::{self, Exec, ExecError, Input};
use super::{ProjectSpec, WorkspaceError, WorktreeKey};
use crate::domain::attempt::MARK_VARIABLE;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

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
    let exec = Exec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), hook.line.into()],
        cwd: hook.tree.to_path_buf(),
        env: env
            .into_iter()
            .map(|(name, value)| (name.into(), value))
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
