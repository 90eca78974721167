//! Runs one program of Postgres: bounded in time, with a clean environment, as the right user.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use super::LocalPgError;
use super::home::OsUser;

/// Tail of a program's output or of the log that goes into an error.
const TAIL_BYTES: usize = 2_000;

/// Variables that pass; PG* ones do not, since they would redirect the programs elsewhere.
const KEPT: [&str; 5] = [
    "PATH",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
];

/// A program to run to its end.
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) args: Vec<&'a OsStr>,
    /// `None`: as we are.
    pub(super) user: Option<&'a OsUser>,
    pub(super) cwd: &'a Path,
    /// The cluster; given by environment because pg_ctl puts its arguments through a shell.
    pub(super) pgdata: Option<&'a Path>,
    pub(super) timeout: Duration,
}

impl Program<'_> {
    /// Run it; anything but success is an error with the end of its output.
    pub(super) async fn run(self) -> Result<Output, LocalPgError> {
        let failed = |how: String, output: String| LocalPgError::Program {
            program: self.path.display().to_string(),
            how,
            output,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts programs of Postgres"
        )]
        let mut command = tokio::process::Command::new(self.path);
        command
            .args(&self.args)
            .current_dir(self.cwd)
            .env_clear()
            .env("LC_ALL", "C")
            .envs(
                KEPT.iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(pgdata) = self.pgdata {
            command.env("PGDATA", pgdata);
        }
        if let Some(user) = self.user.filter(|user| user.differs()) {
            // Setting the user also drops the supplementary groups.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let output = tokio::time::timeout(self.timeout, command.output())
            .await
            .map_err(|_| {
                failed(
                    format!("no end after {} s", self.timeout.as_secs()),
                    String::new(),
                )
            })?
            .map_err(|error| failed("it did not start".to_owned(), error.to_string()))?;
        if !output.status.success() {
            let said = [tail(&output.stdout), tail(&output.stderr)].join("\n");
            return Err(failed(output.status.to_string(), said.trim().to_owned()));
        }
        Ok(output)
    }
}

/// The last part of some output, on a line's start where there is one.
pub(super) fn tail(bytes: &[u8]) -> String {
    let kept = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
    let text = String::from_utf8_lossy(kept);
    match text.split_once('\n') {
        Some((_, whole_lines)) if bytes.len() > TAIL_BYTES => whole_lines.to_owned(),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_with_a_whole_line() {
        let long = format!("{}\nlast words\n", "x".repeat(TAIL_BYTES * 2));
        assert_eq!(tail(long.as_bytes()), "last words\n");
        assert_eq!(tail(b"short"), "short");
    }
}
