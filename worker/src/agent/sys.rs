//! The one place of `unsafe` in this crate: what must happen between fork and exec.

use std::io;

/// Let the child begin a session of its own, so that it shares neither our terminal nor our
/// process group.
pub(super) fn own_session(command: &mut tokio::process::Command) {
    // SAFETY: setsid is async-signal-safe and the closure allocates nothing and touches no state
    // of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}
