//! What only the command line has for an operation: arguments beside those that the operation declares.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::ops::OpEntry;

/// What was typed into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Submit: a file to read the input from.
    pub file: Option<String>,
    /// Submit many: the tasks as JSON, or where they stand.
    pub tasks: Vec<String>,
    /// Submit: follow the task.
    pub watch: bool,
    /// Doctor: send no prompt to the agent.
    pub without_prompt: bool,
}

/// The command of an operation with them.
pub(super) fn augment(command: Command, entry: &OpEntry) -> Command {
    match entry.spec.name {
        "doctor.show" => command.arg(
            Arg::new("without-prompt")
                .long("without-prompt")
                .action(ArgAction::SetTrue)
                .requires("agent")
                .help("Only what costs nothing: send the agent no prompt"),
        ),
        "task.submit" => command.args([
            Arg::new("from-file")
                .long("file")
                .value_name("FILE")
                .help("Read what the agent shall do from this file"),
            Arg::new("watch")
                .long("watch")
                .short('w')
                .action(ArgAction::SetTrue)
                .help("Follow the task until it ends"),
        ]),
        "task.submit-many" => command.arg(
            Arg::new("from-words")
                .num_args(1..)
                .required(true)
                .value_name("JSON|FILE")
                .help(
                    "The tasks, each as JSON with the fields of one submission; or files of them, `-`: \
                     standard input, with an array or one object a line",
                ),
        ),
        _ => command,
    }
}

/// Read them.
pub(super) fn read(entry: &OpEntry, matches: &ArgMatches) -> Extras {
    match entry.spec.name {
        "doctor.show" => Extras {
            without_prompt: matches.get_flag("without-prompt"),
            ..Extras::default()
        },
        "task.submit" => Extras {
            file: matches.get_one("from-file").cloned(),
            watch: matches.get_flag("watch"),
            ..Extras::default()
        },
        "task.submit-many" => Extras {
            tasks: matches
                .get_many("from-words")
                .map(|words| words.cloned().collect())
                .unwrap_or_default(),
            ..Extras::default()
        },
        _ => Extras::default(),
    }
}
