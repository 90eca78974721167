//! `shell`: a command line in the worktree, watched to its end.

mod gathered;
mod group;
mod spill;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::definitions::{Concurrency, Required, Tool, number, schema, text};
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::{Found, Roots};
use crate::domain::limits;
use gathered::Gathered;
use group::{End, Ended, Group};
use spill::Spill;

/// Shells that are looked for, the best first.
const SHELLS: [&str; 4] = [
    "/bin/bash",
    "/usr/bin/bash",
    "/usr/local/bin/bash",
    "/bin/sh",
];

pub(super) fn definition() -> Tool {
    Tool {
        name: "shell",
        description: "Run a command line with bash in the worktree, for builds, tests, git and \
            programs. Each call is a new shell: directories and variables do not carry over. There \
            is no terminal and no input; use options that do not ask. Standard output and errors \
            come together; of more than 50,000 characters the beginning and the end, and where the \
            whole output is. A code other than 0 and a time limit are told. When the command ends, \
            what it left in the background is ended too, unless it was started with setsid; that \
            lives until your turn ends and should write to a file. For reading, searching and \
            changing files prefer the other tools.",
        kind: "execute",
        concurrency: Concurrency::Alone,
        schema: schema([
            text("command", Required::Yes, "The command line."),
            number(
                "timeout_s",
                [1, limits::tools::SHELL_TIMEOUT_S_MAX],
                "Seconds until it is ended. Default: 120; at most 600.",
            ),
            text(
                "cwd",
                Required::No,
                "Directory to run it in, below the worktree. Default: the worktree.",
            ),
            text(
                "description",
                Required::No,
                "What it does, in a few words, for people who watch.",
            ),
        ]),
    }
}

/// The shell, and where long output goes.
#[derive(Debug)]
pub(super) struct Shell {
    program: &'static str,
    spill: Option<PathBuf>,
}

impl Shell {
    pub(super) fn find(tmp: Option<&Path>) -> Self {
        let is_there = |shell: &&&str| Path::new(shell).exists();
        let [.., sh] = &SHELLS;
        Self {
            program: SHELLS.iter().find(is_there).unwrap_or(sh),
            spill: tmp.map(|tmp| tmp.join("tool-output")),
        }
    }

    pub(super) fn program(&self) -> &'static str {
        self.program
    }
}

/// What a call asks for.
struct Order {
    command: String,
    dir: PathBuf,
    timeout: Duration,
}

/// Run it, telling its output as it comes.
pub(super) async fn run(
    shell: &Shell,
    roots: &Roots,
    input: Value,
    id: u64,
    cancel: &CancellationToken,
    lines: &mpsc::Sender<Vec<u8>>,
) -> Outcome {
    let order = match order(roots, input) {
        Ok(order) => order,
        Err(told) => return Outcome::failed(told),
    };
    let mut group = match Group::start(shell.program, &order.command, &order.dir) {
        Ok(group) => group,
        Err(error) => {
            return Outcome::failed(format!("{} does not start: {error}", shell.program));
        }
    };
    let mut gathered = Gathered::new(id, lines.clone(), Spill::new(shell.spill.clone()));
    let end = group.run(&mut gathered, order.timeout, cancel).await;
    let ended = group.end(end, &mut gathered).await;
    told(&order, ended, gathered).await
}

/// Whether it can be run.
#[cfg(any(test, fuzzing))]
pub(super) fn is_order(roots: &Roots, input: Value) -> Told<()> {
    order(roots, input).map(drop)
}

fn order(roots: &Roots, input: Value) -> Told<Order> {
    let mut input = Fields::of(input)?;
    let command = input.text("command", &["cmd", "script"])?;
    let timeout = input.maybe_number("timeout_s", &["timeout_seconds", "timeout_secs"])?;
    let timeout = timeout.unwrap_or(limits::tools::SHELL_TIMEOUT_S);
    let cwd = input.maybe_text("cwd", &["workdir", "working_directory"])?;
    if command.trim().is_empty() {
        return Err("the field `command` is empty".to_owned());
    }
    if command.contains('\0') {
        return Err("a command cannot hold a NUL character".to_owned());
    }
    if command.len() > limits::ARGUMENT_BYTES_MAX {
        return Err(format!(
            "the command has {} bytes, more than the {} that a program can be given: write a \
             script to a file and run that",
            command.len(),
            limits::ARGUMENT_BYTES_MAX
        ));
    }
    let place = roots.place_or_top(cwd.as_deref())?;
    match place.look()? {
        Found::Directory(dir) => Ok(Order {
            command,
            dir,
            timeout: Duration::from_secs(timeout.clamp(1, limits::tools::SHELL_TIMEOUT_S_MAX)),
        }),
        Found::File(..) => Err(format!("cwd: {} is not a directory", place.shown())),
    }
}

async fn told(order: &Order, ended: Ended, gathered: Gathered) -> Outcome {
    let seconds = order.timeout.as_secs();
    let output = gathered.finish().await;
    let mut text = output.text;
    let words = match (ended.end, ended.code, ended.signal) {
        (End::Cancelled, ..) => None,
        (End::TimedOut, ..) => Some(format!("timed out after {seconds} s")),
        (End::Exited, Some(0), _) if !text.is_empty() => None,
        (End::Exited, Some(code), _) => Some(format!("exit code {code}")),
        (End::Exited, None, Some(signal)) => Some(format!("ended by signal {signal}")),
        (End::Exited, None, None) => Some("it ended in a way that cannot be told".to_owned()),
    };
    if let Some(words) = words {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&words);
    }
    let is_error = ended.end != End::Exited || ended.code != Some(0);
    let mut outcome = match is_error {
        true => Outcome::failed(text),
        false => Outcome::done(text),
    };
    outcome = outcome
        .with("exit_code", ended.code)
        .with("timed_out", ended.end == End::TimedOut)
        .with("truncated", output.truncated);
    if let Some(signal) = ended.signal {
        outcome = outcome.with("signal", signal);
    }
    if let Some(file) = output.file {
        outcome = outcome.with("output_file", file.to_string_lossy());
    }
    match ended.end {
        End::Cancelled => outcome.cancelled(),
        End::TimedOut | End::Exited => outcome,
    }
}
