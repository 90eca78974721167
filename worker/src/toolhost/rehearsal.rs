//! Calls of tools outside of their program, for checks that throw anything at them.

use std::path::Path;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::place::Roots;
use super::shell;
use super::tools::Which;

/// Call a tool in this worktree, as the program would: what it says, or why not. Of a command only
/// its order is read.
pub(crate) fn call(tool: &str, worktree: &Path, input: Value) -> Result<String, String> {
    let roots = Roots::open(worktree, None).map_err(|error| error.to_string())?;
    let outcome = match Which::named(tool)? {
        Which::Files(tool) => tool.run(&roots, input, CancellationToken::new()),
        Which::Shell => return shell::is_order(&roots, input).map(|()| String::new()),
    };
    match outcome.is_error {
        true => Err(outcome.output),
        false => Ok(outcome.output),
    }
}
