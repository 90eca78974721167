//! The command line: parse, do, print, and say by the exit code what kind of end it was.

mod agent_view;
mod change_view;
mod consent;
mod conversation_view;
mod doctor;
mod extras;
mod forms;
pub mod init;
mod keys;
mod lists;
mod misuse;
mod out;
mod pages;
pub mod prepare;
mod programs;
mod progress;
mod render;
mod review;
pub mod roles;
mod steps_story;
mod story;
mod stream;
mod sums;
mod table;
pub mod tree;
mod wait;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, FromArgMatches};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::consent::Show;
use self::init::Surveyor;
use self::out::Out;
use self::roles::{Report, Role};
use self::tree::{Invocation, StreamArgs};
use super::connect::ConnectArgs;
use super::mcp::tools::Groups;
use super::{mcp, problem, safe_text};
use crate::config::database::Database;
use crate::ops::doctor::Examiner;
use crate::ops::{self, OpContext, OpError, Prober};
use crate::telemetry::{self, Usual};

/// Connections of one command: the answer, and a stream beside it.
const CONNECTIONS: usize = 2;

/// Operations whose answers are read rather than looked at: at a terminal they go through a pager.
const LONG: [&str; 12] = [
    "change.show",
    "change.diff",
    "change.preview",
    "change.file",
    "task.events",
    "task.steps",
    "task.requests",
    "task.request",
    "conversation.show",
    "conversation.items",
    "agent.show",
    "audit.list",
];

/// Operations that tell of this machine what can be told without a database.
const WITHOUT_DATABASE: [&str; 3] = ["doctor.show", "agent.probe", "agent.check"];

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As asked.
    Done,
    /// The watched task did not succeed.
    TaskFailed,
    /// The task that was waited for goes on.
    NotYet,
    /// The doctor found that something does not work.
    Unhealthy,
    /// The person stopped it.
    Interrupted,
}

impl End {
    fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::TaskFailed => 10,
            Self::NotYet => 11,
            Self::Unhealthy => 12,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command did not do what was asked.
pub(crate) enum CliError {
    Op(OpError),
    Io(io::Error),
}

impl From<OpError> for CliError {
    fn from(error: OpError) -> Self {
        Self::Op(error)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A role at work; one that ends by itself has something to say.
pub type Performance = BoxFuture<'static, Result<Option<Report>, OpError>>;

/// What the command line starts or needs without knowing it.
pub struct Wiring {
    /// The database to use.
    pub database: for<'a> fn(&'a ConnectArgs) -> BoxFuture<'a, Result<Database, OpError>>,
    /// Starts agents to see whether they work; `None`: none can run here.
    pub prober: fn() -> Option<Arc<dyn Prober>>,
    /// Looks at this machine.
    pub examiner: fn(Option<&Path>) -> Option<Arc<dyn Examiner>>,
    /// Looks at the repositories of this machine.
    pub surveyor: fn() -> Box<dyn Surveyor>,
    /// Do what a role does, until it stops.
    pub role: fn(ConnectArgs, Role) -> Performance,
}

/// Options that every command has.
struct Global<'a> {
    wiring: &'a Wiring,
    connect: ConnectArgs,
    json: bool,
    pager: bool,
    actor: String,
}

impl Global<'_> {
    async fn database(&self) -> Result<Database, OpError> {
        (self.wiring.database)(&self.connect).await
    }
}

/// Run a command line to its exit code.
pub async fn run(args: impl IntoIterator<Item = OsString>, wiring: &Wiring) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    let options = args.iter().take_while(|word| *word != "--");
    let json = options.into_iter().any(|word| word == "--json");
    let matches = match misuse::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return misuse::tell(error, json),
    };
    let usual = match matches.subcommand_name() {
        Some("up" | "worker" | "serve" | "mcp" | "bench") => Usual::Milestones,
        // What a command answers tells enough.
        _ => Usual::Faults,
    };
    let format = matches.get_one::<String>("log").map(String::as_str);
    telemetry::init(format, usual);
    let done = match global(&matches, wiring) {
        Ok(global) => command(&global, &matches).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(end) => ExitCode::from(end.exit_code()),
        // Whoever read along has seen enough.
        Err(CliError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(CliError::Io(error)) => complain(&OpError::internal(error.to_string()), json),
        Err(CliError::Op(error)) => complain(&error, json),
    }
}

fn global<'a>(matches: &ArgMatches, wiring: &'a Wiring) -> Result<Global<'a>, OpError> {
    let connect =
        ConnectArgs::from_arg_matches(matches).map_err(|e| OpError::invalid(e.to_string()))?;
    let actor = matches.get_one::<String>("as").cloned();
    Ok(Global {
        wiring,
        connect,
        json: matches.get_flag("json"),
        pager: !matches.get_flag("no-pager"),
        actor: actor.unwrap_or_else(login),
    })
}

/// Who types, for the record: by the environment, or by the machine where that says nothing, as in a
/// container.
fn login() -> String {
    let named = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let uid = nix::unistd::getuid();
    let known = || nix::unistd::User::from_uid(uid).ok().flatten();
    named
        .or_else(|| known().map(|user| user.name))
        .unwrap_or_else(|| format!("uid-{uid}"))
}

fn complain(error: &OpError, json: bool) -> ExitCode {
    let message = telemetry::without_secrets(&error.message);
    if json {
        let document = json!({"error": problem::told(error)});
        eprintln!("{}", safe_text::json(&document.to_string()));
    } else {
        let title = out::Paint::on(&io::stderr()).red("error:");
        eprintln!("{title} {}", safe_text::block(&message));
        if let Some(hint) = &error.hint {
            eprintln!("hint: {}", safe_text::block(hint));
        }
    }
    ExitCode::from(error.kind.exit_code())
}

async fn command(global: &Global<'_>, matches: &ArgMatches) -> Result<End, CliError> {
    let mut out = Out::new();
    match tree::invocation(matches)? {
        Invocation::Role(role) => {
            let report = (global.wiring.role)(global.connect.clone(), role).await?;
            match report {
                Some(report) if global.json => out.line(&document(&report.document))?,
                Some(report) => out.line(&safe_text::block(&report.text))?,
                None => {}
            }
            Ok(End::Done)
        }
        Invocation::Pages(pages) => {
            pages::make(&mut out, &pages, global.json)?;
            Ok(End::Done)
        }
        Invocation::Mcp(args) => {
            let session = Session::open(global).await?;
            let groups = args.only.unwrap_or(Groups::ALL);
            mcp::stdio(session.context.clone(), groups).await?;
            Ok(End::Done)
        }
        Invocation::Sql(text) => sql(global, &mut out, &text).await,
        Invocation::Stream(args) => {
            let session = Session::open(global).await?;
            stream::run(&session.context, &mut out, &args, global.json).await
        }
        Invocation::Init(args) => {
            let found = init::look(&*(global.wiring.surveyor)(), &args).await?;
            let session = Session::open(global).await?;
            init::run(&session.context, &mut out, args, found, global.json).await
        }
        Invocation::Review(args) => {
            let session = Session::open(global).await?;
            review::run(&session.context, &mut out, &args, global.json, global.pager).await
        }
        Invocation::Op {
            entry,
            input,
            view,
            extras,
        } => {
            let input = prepare::input(entry, input, &extras)?;
            let session = match WITHOUT_DATABASE.contains(&entry.spec.name) {
                true => Session::open_anyway(global).await?,
                false => Session::open(global).await?,
            };
            let context = &session.context;
            let show = match (global.json, global.pager) {
                (true, _) => Show::Never,
                (false, true) => Show::Paged,
                (false, false) => Show::Plain,
            };
            let Some(input) = consent::given(entry, input, context, &mut out, show).await? else {
                return Ok(End::Interrupted);
            };
            if entry.spec.name == "task.wait" {
                return wait::run(context, &mut out, input, global.json).await;
            }
            let asked = input.clone();
            let by_worker = input["here"] != true && !context.store.is_absent();
            if entry.spec.name == "agent.check" && by_worker && io::stderr().is_terminal() {
                eprintln!("A worker checks it, which takes some seconds to some minutes …");
            }
            let value = match doctor::agent(entry, &input) {
                Some(agent) => doctor::examine(context, agent, extras.without_prompt).await?,
                None => (entry.call)(context, input).await?,
            };
            if extras.watch && value["id"].is_i64() {
                return watch_submitted(context, &mut out, &value, global.json).await;
            }
            if entry.spec.name == "change.file" && !global.json {
                change_view::printable(&value)?;
            }
            if global.json {
                out.line(&document(&value))?;
            } else if out.terminal && global.pager && LONG.contains(&entry.spec.name) {
                let mut sheet = out.sheet();
                render::answer(&mut sheet, entry.spec.name, view, &asked, &value)?;
                programs::page(&mut out, sheet.into_text()).await?;
            } else {
                render::answer(&mut out, entry.spec.name, view, &asked, &value)?;
            }
            Ok(match value["verdict"] == "fail" {
                true => End::Unhealthy,
                false => End::Done,
            })
        }
    }
}

fn document(value: &Value) -> String {
    safe_text::json(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()))
}

async fn watch_submitted(
    context: &OpContext,
    out: &mut Out,
    submitted: &Value,
    json: bool,
) -> Result<End, CliError> {
    let args = StreamArgs {
        task: submitted["id"].as_i64().unwrap_or(0),
        since_seq: 0,
        follow: true,
        status: true,
    };
    if !json {
        render::noticed(out, submitted)?;
    }
    stream::run(context, out, &args, json).await
}

async fn sql(global: &Global<'_>, out: &mut Out, text: &str) -> Result<End, CliError> {
    let text = if text == "-" {
        io::read_to_string(io::stdin())?
    } else {
        text.to_owned()
    };
    let url = global.database().await?.url;
    for set in ops::sql::run(&url, &text).await? {
        if global.json {
            for row in &set.rows {
                let row: serde_json::Map<String, Value> = set
                    .columns
                    .iter()
                    .cloned()
                    .zip(row.iter().map(|cell| json!(cell)))
                    .collect();
                out.line(&safe_text::json(&Value::Object(row).to_string()))?;
            }
        } else if set.columns.is_empty() {
            out.line(&format!("{} rows", set.count))?;
        } else {
            let safe = |text: &String| safe_text::line(text);
            let titles: Vec<String> = set.columns.iter().map(safe).collect();
            let cell = |c: &Option<String>| c.as_ref().map_or_else(String::new, safe);
            let rows: Vec<Vec<String>> = set
                .rows
                .iter()
                .map(|row| row.iter().map(cell).collect())
                .collect();
            table::plain(out, &titles, &rows)?;
        }
    }
    Ok(End::Done)
}

/// A context with its listener, which stops when the command ends.
struct Session {
    context: OpContext,
    _listening: JoinSet<()>,
}

impl Session {
    async fn open(global: &Global<'_>) -> Result<Self, OpError> {
        let database = global.database().await?;
        let (context, listener) =
            OpContext::open(&database.url, CONNECTIONS, global.actor.clone())?;
        let context = Self::here(context, global);
        let url = database.direct().to_owned();
        let mut listening = JoinSet::new();
        listening.spawn(async move { listener.run(&url, CancellationToken::new()).await });
        Ok(Self {
            context,
            _listening: listening,
        })
    }

    /// The same where there may be no database: who needs it is told why there is none.
    async fn open_anyway(global: &Global<'_>) -> Result<Self, OpError> {
        match Self::open(global).await {
            Ok(session) => Ok(session),
            Err(why) => Ok(Self {
                context: Self::here(
                    OpContext::without_database(&why, global.actor.clone())?,
                    global,
                ),
                _listening: JoinSet::new(),
            }),
        }
    }

    /// With what this machine has.
    fn here(context: OpContext, global: &Global<'_>) -> OpContext {
        OpContext {
            prober: (global.wiring.prober)(),
            examiner: (global.wiring.examiner)(global.connect.data.as_deref()),
            ..context
        }
    }
}
