//! The one place of `unsafe` in this crate: what must happen between fork and exec.

use std::io;

/// Let the child begin a session of its own, so that it shares neither our terminal nor our
/// process group, with no open files but its standard ones.
pub(super) fn own_session(command: &mut tokio::process::Command) {
    // SAFETY: setsid and close_range are async-signal-safe; the closure allocates nothing and
    // touches no state of the parent.
    unsafe {
        command.pre_exec(|| {
            close_others();
            nix::unistd::setsid().map(drop).map_err(io::Error::from)
        });
    }
}

/// What the worker itself inherited from whoever started it must not reach an agent. Marked to be
/// closed by exec, because the fork still needs its own pipe to report a failed exec.
#[cfg(target_os = "linux")]
fn close_others() {
    use nix::libc;
    // SAFETY: a plain system call on descriptors; on a kernel without it nothing happens.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn close_others() {}
