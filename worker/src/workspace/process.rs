//! Runs one bounded child process: the git CLI, or a hook of the operator. Nothing else starts
//! processes in here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::domain::limits;

/// What to run. The environment starts empty.
#[derive(Clone, Debug)]
pub(super) struct Exec {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) cwd: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) stdin: Input,
    /// Where output goes instead of into memory.
    pub(super) stdout_file: Option<PathBuf>,
    /// More output in memory than this ends the process; `Output::cut` says so.
    pub(super) stdout_bytes_max: usize,
    pub(super) timeout: Duration,
    /// User and group to become; only root can.
    pub(super) owner: Option<(u32, u32)>,
}

/// What the process reads.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// This file.
    File(PathBuf),
}

/// What the process said.
#[derive(Debug)]
pub(super) struct Output {
    /// Absent: a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    /// Standard output was longer than allowed and is incomplete.
    pub(super) cut: bool,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error("it was cancelled")]
    Cancelled,
    #[error("it took longer than {0:?} and was killed")]
    TimedOut(Duration),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Run it to its end. Its whole process group dies with the timeout, with the cancellation, or
/// when this future is dropped: a checkout helper that outlives its git goes on writing.
pub(super) async fn run(exec: Exec, cancel: &CancellationToken) -> Result<Output, ExecError> {
    let timeout = exec.timeout;
    let (child, group) = start(&exec)?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ExecError::Cancelled),
        () = tokio::time::sleep(timeout) => Err(ExecError::TimedOut(timeout)),
        output = converse(child, group, exec) => output,
    }
}

/// Kills the process group when dropped, unless the child was reaped before.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            // Already gone is what we want.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(exec: &Exec) -> Result<(tokio::process::Child, Group), ExecError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of the workspace that starts processes"
    )]
    let mut command = tokio::process::Command::new(&exec.program);
    command
        .args(&exec.args)
        .current_dir(&exec.cwd)
        .env_clear()
        .envs(exec.env.iter().map(|(name, value)| (name, value)))
        .stdin(match &exec.stdin {
            Input::Bytes(_) => Stdio::piped(),
            Input::File(path) => Stdio::from(std::fs::File::open(path)?),
        })
        .stdout(match &exec.stdout_file {
            None => Stdio::piped(),
            Some(path) => Stdio::from(std::fs::File::create_new(path)?),
        })
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some((uid, gid)) = exec.owner {
        command.uid(uid).gid(gid);
    }
    let child = command.spawn()?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    Ok((child, Group(pid)))
}

async fn converse(
    mut child: tokio::process::Child,
    mut group: Group,
    exec: Exec,
) -> Result<Output, ExecError> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let feed = async {
        if let (Some(mut pipe), Input::Bytes(bytes)) = (stdin, &exec.stdin) {
            // A child that does not read all of it says why by its exit code.
            let _ = pipe.write_all(bytes).await;
            let _ = pipe.shutdown().await;
        }
    };
    let stdout_max = exec.stdout_bytes_max;
    let read_out = async {
        let Some(pipe) = stdout else {
            return Ok((Vec::new(), false));
        };
        let read = read_capped(pipe, stdout_max).await;
        if matches!(read, Ok((_, true))) {
            group.kill();
        }
        read
    };
    let read_err = async {
        let Some(mut pipe) = stderr else {
            return Ok(String::new());
        };
        let mut kept = Vec::new();
        let mut is_cut = false;
        let mut buffer = [0; 4096];
        loop {
            let n = pipe.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            kept.extend_from_slice(&buffer[..n]);
            if kept.len() > 2 * limits::STDERR_TAIL_BYTES_MAX {
                kept.drain(..kept.len() - limits::STDERR_TAIL_BYTES_MAX);
                is_cut = true;
            }
        }
        let kept = if is_cut { whole_lines(&kept) } else { &kept };
        Ok::<_, std::io::Error>(String::from_utf8_lossy(kept).trim().to_owned())
    };
    let ((), out, err) = tokio::join!(feed, read_out, read_err);
    let (stdout, cut) = out?;
    let stderr = err?;
    let status = child.wait().await?;
    // Reaped: the group's number may belong to somebody else from now on. Whatever still ran in
    // it had closed our pipes already.
    group.0 = None;
    Ok(Output {
        code: status.code(),
        stdout,
        stderr,
        cut,
    })
}

/// What follows the first line of a text whose beginning was cut off: of a secret in that, the rest
/// would be known to nobody. A line that goes on for ever loses as much as a secret can have.
fn whole_lines(tail: &[u8]) -> &[u8] {
    let end = tail.iter().position(|byte| *byte == b'\n');
    let from = end.unwrap_or(limits::SECRET_BYTES_MAX).min(tail.len());
    &tail[from..]
}

async fn read_capped(
    pipe: impl AsyncRead + Unpin,
    max: usize,
) -> Result<(Vec<u8>, bool), std::io::Error> {
    let mut kept = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    pipe.take(limit).read_to_end(&mut kept).await?;
    let cut = kept.len() > max;
    Ok((kept, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_stderr_begins_with_a_whole_line() {
        assert_eq!(whole_lines(b"cret-0123\nfatal: no\n"), b"\nfatal: no\n");
        let endless = vec![b'x'; limits::SECRET_BYTES_MAX + 3];
        assert_eq!(whole_lines(&endless), b"xxx");
    }
}
