//! `dispatch __tools`: the tools of the native agent, run inside its sandbox as a program of their
//! own. Never called by people.
//!
//! The worker starts it once for each turn, with the worktree as its directory, and speaks JSON
//! lines with it (see `wire`). It holds no secret and keeps no state between turns. What confines
//! it is the sandbox; that its tools stay in the worktree is for order, and so that a link in a
//! repository does not lead a model astray.

mod apply_patch;
mod beneath;
mod decode;
mod definitions;
mod edit;
mod fields;
mod glob;
mod grep;
mod hunks;
mod ignored;
mod list;
mod nearest;
mod outcome;
mod patch;
mod place;
mod read;
mod replace;
mod search;
mod serve;
mod shell;
mod staged;
mod text;
mod tools;
mod walk;
mod wire;
mod write;

use std::process::ExitCode;

pub use definitions::{Concurrency, Tool, definitions};

/// The word that makes this program the tools.
pub const WORD: &str = "__tools";

/// Serve, when the arguments ask for it; `None`: this is another program.
pub fn run_if_asked() -> Option<ExitCode> {
    let word = std::env::args_os().nth(1);
    if word.as_deref() != Some(std::ffi::OsStr::new(WORD)) {
        return None;
    }
    Some(match serve::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dispatch {WORD}: {error}");
            ExitCode::FAILURE
        }
    })
}

#[cfg(any(test, fuzzing))]
pub(crate) mod rehearsal;
#[cfg(test)]
mod testing;
