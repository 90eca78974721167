//! The tree of commands, derived from the list of operations, with the short forms that people
//! type all day.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Value, json};

use super::extras::{self, Extras};
use super::init::InitArgs;
use super::pages::{self, Pages};
use super::review::ReviewArgs;
use super::roles::{self, Role};
use crate::ops::{self, OpEntry, OpError};
use crate::surface::connect::ConnectArgs;
use crate::surface::mcp::tools::Groups;

/// How the answer of an operation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As suits the operation.
    Usual,
    /// Files of a change without their diffs.
    Files,
}

/// What a command line asks for.
pub enum Invocation {
    /// An operation with its input.
    Op {
        /// Which.
        entry: &'static OpEntry,
        /// With what.
        input: Value,
        /// Shown how.
        view: View,
        /// With what only the command line has for it.
        extras: Extras,
    },
    /// The stream of a task.
    Stream(StreamArgs),
    /// This directory's repository as a project.
    Init(InitArgs),
    /// Changes, one after another, at a terminal.
    Review(ReviewArgs),
    /// A statement of the operator's own.
    Sql(String),
    /// Completions or manual pages.
    Pages(Pages),
    /// Tools for one MCP client.
    Mcp(McpArgs),
    /// What a process of the fleet does.
    Role(Role),
}

/// Serve the operations as tools of the Model Context Protocol, over standard input and output
#[derive(Clone, Debug, clap::Args)]
pub struct McpArgs {
    /// Only tools of these groups, with commas between: read, write, destructive
    #[arg(long, value_name = "GROUPS", value_parser = Groups::parse)]
    pub only: Option<Groups>,
}

/// How to read the stream of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamArgs {
    /// The task.
    pub task: i64,
    /// Only events after this number.
    pub since_seq: i64,
    /// Go on with what comes.
    pub follow: bool,
    /// With a line that tells state, tokens and time.
    pub status: bool,
}

/// Short forms at the top: command, operation.
const SHORT: [(&str, &str); 8] = [
    ("submit", "task.submit"),
    ("list", "task.list"),
    ("show", "task.show"),
    ("wait", "task.wait"),
    ("cancel", "task.cancel"),
    ("requeue", "task.requeue"),
    ("send", "message.send"),
    ("steps", "task.steps"),
];

/// The whole tree.
pub fn command() -> Command {
    let mut root = Command::new("dispatch")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(100)
        .args(global_args());
    root = ConnectArgs::augment_args(root)
        .about("Hand work to coding agents, watch it, review it, apply it")
        .long_about(None);
    root = root.subcommand(InitArgs::augment_args(Command::new("init")).after_help(
        "Examples:\n  cd ~/src/shop && dispatch init\n  dispatch init shop --target refs/heads/main --copy .env",
    ));
    for (name, op) in SHORT {
        if let Some(entry) = ops::find(op) {
            root = root.subcommand(op_command(name, entry));
        }
    }
    root = root.subcommands(stream_commands());
    root = root.subcommand(ReviewArgs::augment_args(Command::new("review")).after_help(
        "Examples:\n  dispatch review\n  dispatch review --project shop\n  dispatch review 7",
    ));
    root = root.subcommand(
        Command::new("sql")
            .about("Run an SQL statement and print what it gives")
            .arg(
                Arg::new("statement")
                    .required(true)
                    .value_name("SQL")
                    .help("`-` reads standard input"),
            ),
    );
    for noun in nouns() {
        root = root.subcommand(noun_command(noun));
    }
    // The help is the same everywhere, whatever the environment holds.
    role_commands(root).mut_args(|arg| arg.hide_env_values(true))
}

fn global_args() -> [Arg; 4] {
    let global = |id: &'static str| {
        Arg::new(id)
            .long(id)
            .global(true)
            .help_heading("Global options")
    };
    [
        global("json")
            .action(ArgAction::SetTrue)
            .help("Print JSON, stable and for programs; streams as one object a line"),
        global("no-pager")
            .action(ArgAction::SetTrue)
            .help("Print long answers at once; else DISPATCH_PAGER, PAGER or less shows them"),
        global("as")
            .env("DISPATCH_ACTOR")
            .value_name("NAME")
            .help("Who does it, for the record; else your login name"),
        global("log")
            .env("DISPATCH_LOG_FORMAT")
            .value_parser(["text", "json"])
            .value_name("FORMAT")
            .help("Form of log lines on standard error; DISPATCH_LOG sets their level"),
    ]
}

fn op_command(name: &'static str, entry: &'static OpEntry) -> Command {
    let command = (entry.augment)(Command::new(name));
    let command = command.about(entry.spec.summary).long_about(None);
    extras::augment(command, entry).after_help(examples(entry))
}

fn examples(entry: &OpEntry) -> String {
    let (noun, verb) = entry.spec.noun_verb();
    let mut text = String::from("Examples:");
    for example in (entry.examples)() {
        let words: Vec<String> = example.cli.iter().map(|word| quoted(word)).collect();
        let line = format!("dispatch {} {verb} {}", noun_name(noun), words.join(" "));
        text.push_str(&format!("\n  {}   # {}", line.trim_end(), example.about));
    }
    text
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+,=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn nouns() -> Vec<&'static str> {
    let mut nouns: Vec<&str> = Vec::new();
    for entry in ops::ALL {
        let (noun, _) = entry.spec.noun_verb();
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
    }
    nouns
}

/// The command of a noun: its plural, where it has one.
pub(super) fn noun_name(noun: &str) -> &str {
    match noun {
        "task" => "tasks",
        "conversation" => "conversations",
        "change" => "changes",
        "permission" => "permissions",
        "agent" => "agents",
        "project" => "projects",
        "worker" => "workers",
        "message" => "messages",
        "provider" => "providers",
        "limit" => "limits",
        "setting" => "settings",
        "token" => "tokens",
        other => other,
    }
}

/// The noun by itself is another name of its command, save where that is a role.
fn noun_alias(noun: &'static str) -> Option<&'static str> {
    (noun != "worker" && noun != noun_name(noun)).then_some(noun)
}

fn noun_about(noun: &str) -> &'static str {
    match noun {
        "task" => "Work with tasks",
        "conversation" => "See conversations, read them and compact them",
        "change" => "Review what agents left",
        "permission" => "Answer questions of agents",
        "agent" => "See which agents are there",
        "project" => "Manage projects",
        "worker" => "See the workers",
        "message" => "Send messages to agents at work",
        "provider" => "See which providers of models are paused",
        "limit" => "Say how many tasks with a key run at a time",
        "setting" => "See and set what holds for the whole fleet",
        "token" => "Say who may call over HTTP",
        "usage" => "See what the work cost",
        "doctor" => "See whether everything works, and what to do where it does not",
        _ => "See who did what",
    }
}

/// The verb that a noun by itself stands for.
fn default_op(noun: &str) -> Option<&'static OpEntry> {
    ops::find(&format!("{noun}.list")).or_else(|| {
        let mut own = ops::ALL.iter().filter(|e| e.spec.noun_verb().0 == noun);
        own.next()
            .filter(|_| own.next().is_none() && matches!(noun, "usage" | "doctor"))
    })
}

fn noun_command(noun: &'static str) -> Command {
    let mut command = Command::new(noun_name(noun)).disable_help_subcommand(true);
    match default_op(noun) {
        Some(entry) => {
            command = extras::augment((entry.augment)(command), entry)
                .args_conflicts_with_subcommands(true)
                .subcommand_negates_reqs(true);
        }
        None => {
            command = command
                .subcommand_required(true)
                .arg_required_else_help(true)
        }
    }
    command = command.about(noun_about(noun)).long_about(None);
    if let Some(alias) = noun_alias(noun) {
        command = command.alias(alias);
    }
    for entry in ops::ALL.iter().filter(|e| e.spec.noun_verb().0 == noun) {
        command = command.subcommand(op_command(entry.spec.noun_verb().1, entry));
    }
    match noun {
        "change" => command.subcommand(files_command()),
        "agent" => command.subcommand(quiet(roles::AddAgentArgs::augment_args(Command::new(
            "add",
        )))),
        "permission" => command
            .subcommand(answer_command("allow"))
            .subcommand(answer_command("deny")),
        _ => command,
    }
}

fn files_command() -> Command {
    Command::new("files")
        .about("List the files of a change")
        .arg(
            Arg::new("id")
                .required(true)
                .value_name("CHANGE")
                .help("The change, such as 7"),
        )
}

fn answer_command(answer: &'static str) -> Command {
    Command::new(answer)
        .about(if answer == "allow" {
            "Say yes, this once"
        } else {
            "Say no"
        })
        .arg(
            Arg::new("id")
                .required(true)
                .value_name("REQUEST")
                .help("The request, such as 3"),
        )
        .arg(Arg::new("note").long("note").value_name("WHY").help("Why"))
}

fn stream_commands() -> [Command; 2] {
    let task = || {
        Arg::new("id")
            .required(true)
            .value_name("TASK")
            .help("The task, such as 42")
    };
    let since = || {
        Arg::new("since")
            .long("since-seq")
            .value_name("N")
            .value_parser(clap::value_parser!(i64).range(0..))
            .default_value("0")
            .hide_default_value(true)
            .help("Only events after this number")
    };
    [
        Command::new("logs")
            .about("Print the stream of a task")
            .args([
                task(),
                Arg::new("follow")
                    .long("follow")
                    .short('f')
                    .action(ArgAction::SetTrue)
                    .help("Go on until the task has ended"),
                since(),
            ]),
        Command::new("watch")
            .about("Follow a task live, with its state, tokens and time")
            .args([task(), since()]),
    ]
}

fn quiet(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env_values(true))
}

fn role_commands(root: Command) -> Command {
    root.subcommand(quiet(roles::UpArgs::augment_args(Command::new("up"))))
        .subcommand(Command::new("down").about("Stop the Postgres that `dispatch up` started"))
        .subcommand(quiet(roles::WorkerArgs::augment_args(Command::new(
            "worker",
        ))))
        .subcommand(quiet(roles::ServeArgs::augment_args(Command::new("serve"))))
        .subcommand(McpArgs::augment_args(Command::new("mcp")))
        .subcommands(pages::commands())
        .subcommand(roles::MigrateArgs::augment_args(Command::new("migrate")))
        .subcommand(
            Command::new("config")
                .about("Look at the configuration")
                .subcommand_required(true)
                .disable_help_subcommand(true)
                .subcommand(quiet(roles::ConfigCheckArgs::augment_args(Command::new(
                    "check",
                )))),
        )
        .subcommand(roles::BenchArgs::augment_args(Command::new("bench")))
}

/// What parsed arguments ask for.
pub fn invocation(matches: &ArgMatches) -> Result<Invocation, OpError> {
    let Some((name, inner)) = matches.subcommand() else {
        return Err(OpError::invalid("no command"));
    };
    if let Some((_, op)) = SHORT.iter().find(|(short, _)| *short == name) {
        return op_invocation(op, inner);
    }
    match name {
        "logs" | "watch" => stream_invocation(name, inner),
        "init" => Ok(Invocation::Init(read(inner)?)),
        "review" => Ok(Invocation::Review(read(inner)?)),
        "sql" => Ok(Invocation::Sql(text(inner, "statement"))),
        "mcp" => Ok(Invocation::Mcp(read(inner)?)),
        "completions" | "man" => Ok(Invocation::Pages(pages::asked(name, inner)?)),
        "up" => Ok(Invocation::Role(Role::Up(read(inner)?))),
        "down" => Ok(Invocation::Role(Role::Down)),
        "worker" => Ok(Invocation::Role(Role::Worker(read(inner)?))),
        "serve" => Ok(Invocation::Role(Role::Serve(read(inner)?))),
        "migrate" => Ok(Invocation::Role(Role::Migrate(read(inner)?))),
        "bench" => Ok(Invocation::Role(Role::Bench(read(inner)?))),
        "config" => {
            let check = inner.subcommand().map_or(inner, |(_, check)| check);
            Ok(Invocation::Role(Role::ConfigCheck(read(check)?)))
        }
        plural => {
            let noun = nouns().into_iter().find(|noun| noun_name(noun) == plural);
            noun_invocation(noun.unwrap_or(""), inner)
        }
    }
}

fn read<A: FromArgMatches>(matches: &ArgMatches) -> Result<A, OpError> {
    A::from_arg_matches(matches).map_err(|e| OpError::invalid(e.to_string()))
}

fn text(matches: &ArgMatches, id: &str) -> String {
    matches.get_one::<String>(id).cloned().unwrap_or_default()
}

fn stream_invocation(name: &str, matches: &ArgMatches) -> Result<Invocation, OpError> {
    let task: ops::values::TaskRef = text(matches, "id").parse().map_err(OpError::invalid)?;
    let watch = name == "watch";
    Ok(Invocation::Stream(StreamArgs {
        task: task.0.0,
        since_seq: matches.get_one("since").copied().unwrap_or(0),
        follow: watch || matches.get_flag("follow"),
        status: watch,
    }))
}

fn noun_invocation(noun: &str, matches: &ArgMatches) -> Result<Invocation, OpError> {
    let Some((verb, inner)) = matches.subcommand() else {
        let name = default_op(noun).map_or("", |entry| entry.spec.name);
        return op_invocation(name, matches);
    };
    match (noun, verb) {
        ("change", "files") => {
            let input = json!({"id": text(inner, "id")});
            plain_invocation("change.show", input, View::Files)
        }
        ("agent", "add") => Ok(Invocation::Role(Role::AddAgent(read(inner)?))),
        ("permission", "allow" | "deny") => {
            let note = inner.get_one::<String>("note");
            let input = json!({"id": text(inner, "id"), "answer": verb, "note": note});
            plain_invocation("permission.answer", input, View::Usual)
        }
        _ => op_invocation(&format!("{noun}.{verb}"), inner),
    }
}

fn plain_invocation(op: &str, input: Value, view: View) -> Result<Invocation, OpError> {
    let entry = found(op)?;
    Ok(Invocation::Op {
        entry,
        input: (entry.normalize)(input)?,
        view,
        extras: Extras::default(),
    })
}

fn op_invocation(op: &str, matches: &ArgMatches) -> Result<Invocation, OpError> {
    let entry = found(op)?;
    Ok(Invocation::Op {
        entry,
        input: (entry.from_matches)(matches)?,
        view: View::Usual,
        extras: extras::read(entry, matches),
    })
}

fn found(op: &str) -> Result<&'static OpEntry, OpError> {
    ops::find(op).ok_or_else(|| OpError::internal(format!("no operation {op:?}")))
}
