//! `dispatch __exec`: what stands between the worker and an agent. Never called by people.
//!
//! The worker starts the first stage, `supervise`; see `stages`.

use std::process::ExitCode;

use crate::domain::attempt::MARK_VARIABLE;

/// The word that makes this program the helper.
pub const WORD: &str = "__exec";

/// Prefix of the variables that are meant for the agent: without it, one such as LD_PRELOAD would
/// have its way with the helper, which is not confined.
pub(super) const VARIABLE: &str = "DISPATCH_ENV_";

/// The first stage.
pub(super) const SUPERVISE: &str = "supervise";

/// In place of a program: prove the rung.
pub(super) const CHECK: &str = "check";

/// Run a stage, when the arguments ask for one; `None`: this is not the helper.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(std::ffi::OsStr::new(WORD)) {
        return None;
    }
    let stage = args.next().unwrap_or_default();
    let rest: Vec<_> = args.collect();
    Some(run(&stage, &rest))
}

#[cfg(target_os = "linux")]
use super::stages::run;

#[cfg(not(target_os = "linux"))]
fn run(_stage: &std::ffi::OsStr, _rest: &[std::ffi::OsString]) -> ExitCode {
    eprintln!("dispatch {WORD}: there is no sandbox on this system");
    ExitCode::FAILURE
}

/// The name under which a variable for the agent passes the helper. The attempt's mark keeps its
/// own: the helper carries it too.
pub fn variable(name: &str) -> String {
    match cfg!(target_os = "linux") && name != MARK_VARIABLE {
        true => format!("{VARIABLE}{name}"),
        false => name.to_owned(),
    }
}
