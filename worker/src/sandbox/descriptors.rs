//! How many files this process may have open. A worker holds some for every attempt and many for a
//! gateway; what it starts gets back what the worker began with.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::domain::limits;

/// The soft limit that this process was started with, once it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raise the soft limit to what the system allows. Once, at the worker's start.
pub fn raise() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = hard.min(limits::OPEN_FILES_MAX);
    if most > soft {
        setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
        let _only_once = BEFORE.set(soft);
    }
    if most < limits::OPEN_FILES_WANTED {
        tracing::warn!(
            limit = most,
            wanted = limits::OPEN_FILES_WANTED,
            "few files may be open at once: raise the hard limit (ulimit -Hn, LimitNOFILE=) or use few slots"
        );
    }
    Ok(())
}

/// What programs are started with; `None`: as this process.
pub(super) fn before() -> Option<u64> {
    BEFORE.get().copied()
}
