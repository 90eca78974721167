//! The parent of everything of one attempt: adopts what leaves its session, ends all of it, and
//! ends only when nothing is left. It holds none of the agent's pipes, takes no request to stop
//! and, where Landlock can say so, no signal of the agent.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, SFlag, fstat, major};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, getpid, getppid, getsid,
};

use super::children::Children;
use super::{END, SURVIVED};
use crate::domain::limits;
use crate::sys;

/// The kernel's word that the thread that started us is gone; perhaps only that thread.
const ORPHANED: Signal = Signal::SIGUSR2;

/// Device numbers of the terminals below `/dev/pts` (the kernel's devices.txt).
const PTY_MAJORS: RangeInclusive<u64> = 136..=143;

/// Whether whoever started this process gave it a session of its own.
pub(super) fn leads_session() -> bool {
    getsid(None) == Ok(getpid())
}

/// Programs open their standard streams anew by name, as in `echo x >/dev/stderr`, which asks the
/// owner of the pipe.
pub(super) fn own_streams(owner: Option<(u32, u32)>) {
    let Some((uid, gid)) = owner else { return };
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [input.as_fd(), output.as_fd(), errors.as_fd()] {
        if is_for_one_attempt(stream) {
            // A stream that cannot be given away can still be used as it was inherited.
            let _as_inherited = fchown(stream, uid, gid);
        }
    }
}

/// Whether it was made for this attempt: `/dev/null` is everybody's, and who owns it may close it.
fn is_for_one_attempt(stream: BorrowedFd<'_>) -> bool {
    let Ok(facts) = fstat(stream) else {
        return false;
    };
    match SFlag::from_bits_truncate(facts.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFIFO | SFlag::S_IFSOCK => true,
        SFlag::S_IFCHR => PTY_MAJORS.contains(&major(facts.st_rdev)),
        _ => false,
    }
}

/// How a child tells that a signal ended the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// It is the program.
    Itself,
    /// By 128 and the signal's number, as bubblewrap and shells do.
    ByCode,
}

impl Ends {
    fn signal(self, code: i32) -> Option<Signal> {
        match self {
            Self::Itself => None,
            Self::ByCode => Signal::try_from(code.checked_sub(128)?).ok(),
        }
    }
}

/// Start the child, wait for its end or a reason to bring it about, end what it left, and report.
/// `last_resort` ends all of the attempt's user.
pub(super) fn until_nothing_is_left(
    mut command: Command,
    worker: u32,
    ends: Ends,
    last_resort: Option<Command>,
) -> Result<ExitCode, String> {
    let failed = |what: &'static str| move |errno: Errno| format!("cannot {what}: {errno}");
    prctl::set_child_subreaper(true).map_err(failed("adopt what the agent leaves"))?;
    let heard: SigSet = [Signal::SIGCHLD, END, ORPHANED].into_iter().collect();
    heard.thread_block().map_err(failed("wait for signals"))?;
    prctl::set_pdeathsig(ORPHANED).map_err(failed("hear of the worker's end"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&heard, flags).map_err(failed("wait for signals"))?;
    let child = command.spawn().map_err(|error| {
        let program = command.get_program().display();
        format!("cannot start {program}: {error}")
    })?;
    let_go_of_streams().map_err(failed("let go of the agent's streams"))?;
    let mut watch = Watch {
        signals,
        main: Pid::from_raw(child.id() as i32),
        ended: None,
        worker: Pid::from_raw(worker as i32),
    };
    while watch.ended.is_none() && watch.goes_on() {}
    if !watch.end_everything(last_resort) {
        return Ok(die_of(SURVIVED));
    }
    Ok(match watch.ended {
        Some(End::Code(code)) => match ends.signal(code) {
            Some(signal) if ends_a_process(signal) => end_by(signal),
            Some(_) | None => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        },
        Some(End::Signal(signal)) => end_by(signal),
        Some(End::Unnamed) | None => ExitCode::FAILURE,
    })
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(Signal),
    /// By a signal without a name here, such as a real-time one.
    Unnamed,
}

/// Else they would stay open for as long as this process lives.
fn let_go_of_streams() -> nix::Result<()> {
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

struct Watch {
    signals: SignalFd,
    main: Pid,
    ended: Option<End>,
    worker: Pid,
}

impl Watch {
    /// Wait for the next signal. `false`: everything shall end.
    fn goes_on(&mut self) -> bool {
        let mut told = self.wait(limits::HELPER_LOOK);
        self.reap();
        told &= getppid() == self.worker;
        told
    }

    /// Wait, at most so long. `false`: the worker asked for the end.
    fn wait(&mut self, most: Duration) -> bool {
        let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let _interrupted = poll(&mut ready, most);
        let mut goes_on = true;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            goes_on &= signal.ssi_signo != END as u32;
        }
        goes_on
    }

    /// Collect the dead. `false`: there is nobody to wait for any more.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Exited(pid, code)) if pid == self.main => {
                    self.ended = Some(End::Code(code));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main => {
                    self.ended = Some(End::Signal(signal));
                }
                // One was collected, by a signal that has no name here: nothing else tells who.
                Err(Errno::EINVAL) => self.miss_main(),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn miss_main(&mut self) {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if self.ended.is_none() && waitid(Id::Pid(self.main), look) == Err(Errno::ECHILD) {
            self.ended = Some(End::Unnamed);
        }
    }

    /// Kill what is below this process until nothing is: whoever escapes its parent becomes a child
    /// of this one. `false`: something outlives that, as what hangs in the kernel does.
    fn end_everything(&mut self, mut last_resort: Option<Command>) -> bool {
        let began = Instant::now();
        while self.reap() {
            if began.elapsed() >= limits::SWEEP_TIMEOUT {
                return false;
            }
            if began.elapsed() >= limits::HELPER_PATIENCE
                && let Some(mut last) = last_resort.take()
            {
                let _what_it_missed_is_seen = last.status();
            }
            freeze_below();
            each_below(getpid(), |pid| {
                let _gone = kill(pid, Signal::SIGKILL);
            });
            self.wait(Duration::from_millis(5));
        }
        true
    }
}

/// Stop everybody first: a kill makes room for what others fork, and one that forks and ends is
/// another when the next look comes.
fn freeze_below() {
    let mut known = HashSet::new();
    for _ in 0..limits::FREEZE_LOOKS_MAX {
        let before = known.len();
        each_below(getpid(), |pid| {
            if known.insert(pid) {
                let _gone = kill(pid, Signal::SIGSTOP);
            }
        });
        if known.len() == before {
            return;
        }
    }
}

/// All descendants, as far as they can be seen in one look; the youngest of a parent first, and each
/// at the moment when it is seen.
fn each_below(pid: Pid, mut act: impl FnMut(Pid)) {
    let children = Children::look();
    let mut open = vec![pid.as_raw()];
    while let Some(parent) = open.pop() {
        let found = children.of(parent);
        for child in found.iter().rev() {
            act(Pid::from_raw(*child));
        }
        open.extend(found);
    }
}

/// Whether it ends who does not handle it; a program may choose an exit code that looks like another.
fn ends_a_process(signal: Signal) -> bool {
    !matches!(
        signal,
        Signal::SIGCHLD
            | Signal::SIGCONT
            | Signal::SIGSTOP
            | Signal::SIGTSTP
            | Signal::SIGTTIN
            | Signal::SIGTTOU
            | Signal::SIGURG
            | Signal::SIGWINCH
    )
}

/// End as the program did. The one signal that has a meaning of its own is told by its number.
fn end_by(signal: Signal) -> ExitCode {
    match signal {
        SURVIVED => ExitCode::from(code_of(SURVIVED)),
        signal => die_of(signal),
    }
}

/// End by a signal, so that who waits sees it.
fn die_of(signal: Signal) -> ExitCode {
    sys::heed_requests_to_stop();
    let _unblocked = SigSet::all().thread_unblock();
    let _no_core = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _now = raise(signal);
    ExitCode::from(code_of(signal))
}

fn code_of(signal: Signal) -> u8 {
    128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default())
}
