//! The one place of `unsafe` in this crate: what must happen between fork and exec, and signals.

use std::io;
use std::os::unix::process::CommandExt;

use nix::libc;

/// Let the child begin a session of its own, so that it shares neither our terminal nor our
/// process group, with no open files but its standard ones.
pub(crate) fn own_session(command: &mut tokio::process::Command) {
    // SAFETY: setsid and close_range are async-signal-safe; the closure allocates nothing and
    // touches no state of the parent.
    unsafe {
        command.pre_exec(|| {
            // On a kernel without the call, what was inherited is closed by the helper.
            let _unsupported = close_others_on_exec();
            nix::unistd::setsid().map(drop).map_err(io::Error::from)
        });
    }
}

/// Let the child of a process with files of its own begin a session.
pub(crate) fn leave_session(command: &mut std::process::Command) {
    // SAFETY: setsid is async-signal-safe; the closure allocates nothing.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

/// What this process itself inherited from whoever started it must not reach an agent. Marked to be
/// closed by exec, because a fork still needs its own pipe to report a failed exec. Kernels before
/// 5.11 do not know the call.
#[cfg(target_os = "linux")]
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: a plain system call on descriptors.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    Ok(())
}

/// The same for one of them.
pub(crate) fn close_on_exec(descriptor: i32) -> nix::Result<()> {
    // SAFETY: sets a flag of a descriptor, which may be none.
    let failed = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    nix::errno::Errno::result(failed).map(drop)
}

/// Signals that ask to stop: meant for the agent, not for what stands between it and the worker.
const REQUESTS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Not to be stopped by them; programs started from here inherit it until they say otherwise.
pub(crate) fn ignore_requests_to_stop() {
    // SAFETY: SIG_IGN installs no handler of ours.
    for signal in REQUESTS {
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The opposite, for the program that they are meant for. Rust ignores SIGPIPE; programs do not.
pub(crate) fn heed_requests_to_stop() {
    // SAFETY: SIG_DFL installs no handler of ours.
    for signal in REQUESTS.into_iter().chain([libc::SIGPIPE]) {
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
