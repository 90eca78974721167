//! Runs one bounded child process: the git CLI, or a hook of the operator. Nothing else starts
//! processes in here.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::domain::limits;
use crate::sandbox::process_set::{ProcessSet, Survivors};
use crate::sandbox::watch::{self, Who};
use crate::sandbox::{self, Confinement};

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
    /// The program is the helper of this confinement, which leaves nothing behind; absent: it is
    /// trusted to end with its process group.
    pub(super) held: Option<Held>,
}

/// How a confined program is watched and ended.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// In the environment of all that it starts.
    pub(super) mark: String,
    /// With the limits that it is held to.
    pub(super) confinement: Confinement,
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
    pub(super) signal: Option<i32>,
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
    OverLimit(String),
    #[error("{0}")]
    Survived(#[from] Survivors),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Run it to its end. All of it dies with the timeout, with the cancellation, or when this future
/// is dropped: a checkout helper that outlives its git goes on writing.
pub(super) async fn run(exec: Exec, cancel: &CancellationToken) -> Result<Output, ExecError> {
    let most = exec.timeout;
    let (mut child, mut kin) = start(&exec)?;
    let over = over_limit(&kin, &exec);
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ExecError::Cancelled),
        () = tokio::time::sleep(most) => Err(ExecError::TimedOut(most)),
        why = over => Err(ExecError::OverLimit(why)),
        output = converse(&mut child, &mut kin, exec) => output,
    };
    kin.end(&mut child).await?;
    result
}

/// Resolves only when a confined program uses more than it may.
fn over_limit(kin: &Kin, exec: &Exec) -> impl Future<Output = String> + use<> {
    let held = match (kin, &exec.held) {
        (Kin::Set(set), Some(held)) => Some((Arc::clone(set), held.confinement.clone())),
        _ => None,
    };
    async {
        match held {
            Some((set, confinement)) => watch::over_limit(Who::Hook, set, confinement).await,
            None => std::future::pending().await,
        }
    }
}

/// All that belongs to the child; killed when dropped, unless it was seen to its end before.
enum Kin {
    /// Its process group.
    Group(Option<Pid>),
    /// All that a helper started.
    Set(Arc<ProcessSet>),
    /// Nothing is left.
    Gone,
}

impl Kin {
    /// At once, without waiting for it.
    fn kill(&mut self) {
        match self {
            Self::Group(group) => {
                if let Some(pid) = group.take() {
                    // Already gone is what we want.
                    let _ = killpg(pid, Signal::SIGKILL);
                }
            }
            Self::Set(set) => set.kill_now(),
            Self::Gone => {}
        }
    }

    /// Returns when nothing is left. The helper knows best what there is; it is killed only when it
    /// does not end that.
    async fn end(&mut self, child: &mut tokio::process::Child) -> Result<(), Survivors> {
        let Self::Set(set) = self else {
            self.kill();
            return Ok(());
        };
        let set = Arc::clone(set);
        if matches!(child.try_wait(), Ok(None)) {
            set.look();
            set.ask_leader();
            if timeout(limits::HELPER_END, child.wait()).await.is_err() {
                set.signal_group(Signal::SIGKILL);
            }
        }
        let status = timeout(limits::DRAIN_TIMEOUT, child.wait()).await;
        set.leader_reaped();
        let swept = crate::blocking::run(move || set.sweep(Duration::ZERO)).await;
        *self = Self::Gone;
        let signal = status.ok().and_then(Result::ok).and_then(|s| s.signal());
        match swept {
            Ok(Err(survivors)) => Err(survivors),
            Ok(Ok(())) if signal != Some(sandbox::SURVIVED as i32) => Ok(()),
            Ok(Ok(())) | Err(_) => Err(Survivors::Told),
        }
    }
}

impl Drop for Kin {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(exec: &Exec) -> Result<(tokio::process::Child, Kin), ExecError> {
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
        // The helper is asked to end instead, and then ends by itself.
        .kill_on_drop(exec.held.is_none());
    if let Some((uid, gid)) = exec.owner {
        command.uid(uid).gid(gid);
    }
    let pid_of = |child: &tokio::process::Child| child.id().and_then(|id| i32::try_from(id).ok());
    let Some(held) = &exec.held else {
        let child = command.spawn()?;
        let group = pid_of(&child).map(Pid::from_raw);
        return Ok((child, Kin::Group(group)));
    };
    let (set, child) = ProcessSet::start(&held.mark, || {
        let child = command.spawn()?;
        let pid = pid_of(&child).ok_or_else(|| io::Error::other("it ended while starting"))?;
        Ok((pid, child))
    })?;
    Ok((child, Kin::Set(Arc::new(set))))
}

async fn converse(
    child: &mut tokio::process::Child,
    kin: &mut Kin,
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
            kin.kill();
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
        Ok::<_, io::Error>(String::from_utf8_lossy(kept).trim().to_owned())
    };
    let ((), out, err) = tokio::join!(feed, read_out, read_err);
    let (stdout, cut) = out?;
    let stderr = err?;
    let status = child.wait().await?;
    // Reaped: the group's number may belong to somebody else from now on. Whatever still ran in
    // it had closed our pipes already.
    match kin {
        Kin::Group(group) => *group = None,
        Kin::Set(set) => set.leader_reaped(),
        Kin::Gone => {}
    }
    Ok(Output {
        code: status.code(),
        signal: status.signal(),
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
) -> Result<(Vec<u8>, bool), io::Error> {
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
