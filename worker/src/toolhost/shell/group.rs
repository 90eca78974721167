//! A command with its process group, from its start to the end of all of it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::wire::Stream;
use super::gathered::Gathered;
use crate::domain::limits;

/// Programs that would wait for a person do not.
const VARIABLES: [(&str, &str); 3] = [
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_EDITOR", "true"),
];

/// Read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Why a command is no longer waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited,
    TimedOut,
    Cancelled,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
}

/// A running command; dropped, its group is killed.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// `None`: nothing of it is left.
    pgid: Option<Pid>,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
    status: Option<ExitStatus>,
}

impl Group {
    pub(super) fn start(shell: &str, command: &str, dir: &Path) -> io::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place of the tools that starts programs; they run in the sandbox"
        )]
        let mut started = tokio::process::Command::new(shell);
        let mut child = started
            .arg("-c")
            .arg(command)
            .current_dir(dir)
            .envs(VARIABLES)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            pgid: pid.map(Pid::from_raw),
            stdout: Pipe::new(child.stdout.take()),
            stderr: Pipe::new(child.stderr.take()),
            child,
            status: None,
        })
    }

    /// Wait until the command itself ends or has to.
    pub(super) async fn run(
        &mut self,
        gathered: &mut Gathered,
        most: Duration,
        cancel: &CancellationToken,
    ) -> End {
        tokio::select! {
            biased;
            () = cancel.cancelled() => End::Cancelled,
            () = sleep(most) => End::TimedOut,
            () = self.follow(gathered) => End::Exited,
        }
    }

    /// Take its output until it ended and its pipes are closed, or were given their time. May be
    /// dropped and called again.
    async fn follow(&mut self, gathered: &mut Gathered) {
        let drain = |_| Instant::now() + limits::tools::SHELL_DRAIN;
        let mut drained = self.status.map(drain);
        loop {
            let is_open = self.stdout.is_open() || self.stderr.is_open();
            if self.status.is_some() && !is_open {
                return;
            }
            let drained_at = drained.unwrap_or_else(Instant::now);
            tokio::select! {
                bytes = self.stdout.read(), if self.stdout.is_open() => {
                    gathered.push(Stream::Stdout, bytes).await;
                }
                bytes = self.stderr.read(), if self.stderr.is_open() => {
                    gathered.push(Stream::Stderr, bytes).await;
                }
                status = self.child.wait(), if self.status.is_none() => {
                    // It cannot fail for a child of ours that nobody else waits for.
                    self.status = Some(status.unwrap_or_default());
                    drained = self.status.map(drain);
                }
                () = sleep_until(drained_at), if drained.is_some() => return,
            }
        }
    }

    /// End all of it.
    pub(super) async fn end(mut self, end: End, gathered: &mut Gathered) -> Ended {
        if end != End::Exited {
            self.signal(Signal::SIGTERM);
            let until = Instant::now() + limits::KILL_GRACE;
            // What it says to that still counts.
            let _ = timeout_at(until, self.follow(gathered)).await;
            self.wait_until_gone(until).await;
        }
        self.stdout.close();
        self.stderr.close();
        if end == End::Exited && self.lives() {
            self.signal(Signal::SIGTERM);
            self.wait_until_gone(Instant::now() + limits::KILL_GRACE)
                .await;
        }
        if self.lives() {
            self.signal(Signal::SIGKILL);
        }
        if self.status.is_none() {
            let status = timeout(limits::KILL_GRACE, self.child.wait()).await;
            self.status = status.ok().and_then(Result::ok);
        }
        self.pgid = None;
        Ended {
            end,
            code: self.status.and_then(|status| status.code()),
            signal: self.status.and_then(|status| status.signal()),
        }
    }

    async fn wait_until_gone(&mut self, until: Instant) {
        while self.lives() && Instant::now() < until {
            sleep(limits::tools::SHELL_LOOK).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.pgid {
            // Gone already is what we want.
            let _ = killpg(group, signal);
        }
    }

    /// Whether any process of the group runs; the dead that nobody waited for do not count.
    fn lives(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.pgid
            .is_some_and(|group| killpg(group, None).is_ok() && is_running(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Where there is no `/proc`, what answers to a signal runs.
fn is_running(group: Pid) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return true;
    };
    let mut stats = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .peekable();
    stats.peek().is_none() || stats.any(|stat| is_running_in(&stat, group))
}

/// Of a line as in `/proc/<pid>/stat`: the name in brackets may hold anything, its state, parent
/// and group follow.
fn is_running_in(stat: &str, group: Pid) -> bool {
    let Some((_, after)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut words = after.split_whitespace();
    let state = words.next().unwrap_or_default();
    words.nth(1) == Some(group.to_string().as_str()) && !["Z", "X"].contains(&state)
}

/// One end of a command's output.
#[derive(Debug)]
struct Pipe<R> {
    reader: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: Option<R>) -> Self {
        Self {
            reader,
            buffer: vec![0; READ_BYTES],
        }
    }

    fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    fn close(&mut self) {
        self.reader = None;
    }

    /// What comes next; nothing: it was closed.
    async fn read(&mut self) -> &[u8] {
        let Some(reader) = &mut self.reader else {
            return &[];
        };
        let count = reader.read(&mut self.buffer).await.unwrap_or(0);
        if count == 0 {
            self.reader = None;
        }
        self.buffer.get(..count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_do_not_count_as_running() {
        let group = Pid::from_raw(42);
        assert!(is_running_in("43 (a) b) c) S 1 42 7 0", group));
        assert!(!is_running_in("43 (a) Z 1 42 7 0", group));
        assert!(!is_running_in("42 (a) S 1 41 7 0", group));
        assert!(!is_running_in("", group));
    }
}
