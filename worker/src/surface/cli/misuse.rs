//! Command lines that mean nothing: told as every other error is, with the usage of the command as its
//! help has it, whatever the environment holds.

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::{complain, tree};
use crate::ops::OpError;

/// The tree for this environment: an empty variable is one that nobody set.
pub(super) fn command() -> Command {
    without_empty(tree::command())
}

fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let unset = |arg: Arg| match is_empty(&arg) {
        true => arg.env(Resettable::Reset),
        false => arg,
    };
    command.mut_args(unset).mut_subcommands(without_empty)
}

/// Say what is wrong with a command line, or the help that it asked for.
pub(super) fn tell(error: clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        return complain(&as_others(&plain(error)), json);
    }
    if error.kind() == ErrorKind::MissingSubcommand {
        // The help says more than a list of names in an error.
        eprint!("{}", meant(&error).render_help());
        return ExitCode::from(2);
    }
    let code = if error.use_stderr() { 2 } else { 0 };
    // Help goes to a pipe that may be closed; that is no fault.
    let _printed = plain(error).print();
    ExitCode::from(code)
}

/// The usage that clap gives an error has each option that a variable sets, as if it had to be typed.
fn plain(mut error: clap::Error) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    let usage = ContextValue::StyledStr(meant(&error).render_usage());
    let _replaced = error.insert(ContextKind::Usage, usage);
    error
}

/// The command that a command line is one of, by the usage that its error tells.
fn meant(error: &clap::Error) -> clap::Command {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let words = usage.lines().next().unwrap_or("").split_whitespace();
    let path = words
        .skip(2)
        .take_while(|word| !word.starts_with(['-', '<', '[']));
    let mut command = tree::command();
    command.build();
    for name in path {
        let Some(inner) = command.find_subcommand(name).cloned() else {
            break;
        };
        command = inner;
    }
    command
}

fn as_others(error: &clap::Error) -> OpError {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return OpError::invalid("a command is missing").hint("--help lists them");
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        words.join(" ")
    });
    let message = parts.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let hints: Vec<String> = parts
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
        .collect();
    let refused = OpError::invalid(message);
    match hints.is_empty() {
        true => refused,
        false => refused.hint(hints.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> OpError {
        let line = words.split_whitespace();
        let error = tree::command().try_get_matches_from(line).unwrap_err();
        as_others(&plain(error))
    }

    #[test]
    fn a_wrong_command_line_is_told_as_other_errors_are() {
        let state = refused("dispatch --json list --data /x --state bogus");
        assert!(
            state.message.starts_with("invalid value 'bogus'"),
            "{state}"
        );
        assert!(state.message.contains("a state is one of"), "{state}");
        let missing = refused("dispatch submit");
        assert!(
            missing.message.ends_with("not provided: <PROJECT>"),
            "{missing}"
        );
        let usage = missing.hint.unwrap();
        assert_eq!(usage, "Usage: dispatch submit [OPTIONS] <PROJECT> [INPUT]");
        let command = refused("dispatch changes bogus");
        assert!(
            command
                .hint
                .is_some_and(|hint| hint.contains("Usage: dispatch changes"))
        );
        assert_eq!(
            refused("dispatch tokens revoke --data /x").hint.unwrap(),
            "Usage: dispatch tokens revoke [OPTIONS] <TOKEN>"
        );
        assert_eq!(refused("dispatch").message, "a command is missing");
    }
}
