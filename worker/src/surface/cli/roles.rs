//! Arguments of the roles: what a process of the fleet is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

use crate::domain::sandbox::Rung;
use crate::ops::values::Span;
use crate::surface::traffic::MaybeRate;

/// A role with its arguments.
#[derive(Clone, Debug)]
pub enum Role {
    /// Claim tasks and run agents.
    Worker(WorkerArgs),
    /// Serve HTTP.
    Serve(ServeArgs),
    /// Everything on this machine.
    Up(UpArgs),
    /// Stop the Postgres that `up` started.
    Down,
    /// Bring the schema up to date.
    Migrate(MigrateArgs),
    /// Look at the configuration.
    ConfigCheck(ConfigCheckArgs),
    /// Write an entry into the catalogue of agents.
    AddAgent(AddAgentArgs),
    /// Measure.
    Bench(BenchArgs),
}

/// What a role that ends by itself has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// To people.
    pub text: String,
    /// To programs.
    pub document: Value,
}

/// Claim tasks and run agents.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// The catalogue of agents
    #[arg(
        long,
        env = "DISPATCH_AGENTS",
        value_name = "FILE",
        default_value = "agents.toml"
    )]
    pub agents: PathBuf,
    /// Attempts that may run at a time
    #[arg(long, env = "DISPATCH_SLOTS", value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub slots: u16,
    /// Name of this worker; else the host's
    #[arg(long, env = "DISPATCH_WORKER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// How long running attempts may go on after the first signal to stop
    #[arg(
        long,
        env = "DISPATCH_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "60s"
    )]
    pub drain_timeout: Span,
    /// Run the setup and teardown commands of projects
    #[arg(long, env = "DISPATCH_ALLOW_HOOKS")]
    pub allow_hooks: bool,
    /// How to confine agents: auto, or the only rung to use of bubblewrap, landlock+uid, landlock
    /// and none
    #[arg(
        long,
        env = "DISPATCH_SANDBOX",
        value_name = "RUNG",
        default_value = "auto"
    )]
    pub sandbox: OnlyRung,
    /// Serve /healthz, /readyz and /metrics here; port 0: any free one, which is printed
    #[arg(long, env = "DISPATCH_HEALTH", value_name = "ADDRESS")]
    pub health: Option<SocketAddr>,
}

/// The rung that a worker is held to; `None`: the best that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlyRung(pub Option<Rung>);

impl FromStr for OnlyRung {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let known = Rung::ALL.map(Rung::as_str).join(", ");
        Rung::parse(text)
            .map(|rung| Self(Some(rung)))
            .ok_or_else(|| format!("is none of auto, {known}"))
    }
}

/// Serve HTTP.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(
        long,
        env = "DISPATCH_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Let whoever reaches the address call without a token and do everything; loopback addresses only
    #[arg(long, env = "DISPATCH_WITHOUT_TOKEN")]
    pub without_token: bool,
    /// File with bearer tokens that may do everything, one a line; others: `dispatch tokens`
    #[arg(long, env = "DISPATCH_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A bearer token that may call
    #[arg(
        long,
        env = "DISPATCH_HTTP_TOKEN",
        hide_env_values = true,
        hide = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    /// Host name that callers use, besides loopback names; give it again for more
    #[arg(
        long = "host",
        env = "DISPATCH_HTTP_HOSTS",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub hosts: Vec<String>,
    /// Requests of one caller (a token, or an address without one), such as 100/s or 600/m; 0: any.
    /// The same number may come at once
    #[arg(
        long,
        env = "DISPATCH_RATE_LIMIT",
        value_name = "N/s",
        default_value = "100/s"
    )]
    pub rate_limit: MaybeRate,
    /// Requests that one caller may have open at a time, waits and streams too; 0: any
    #[arg(
        long,
        env = "DISPATCH_OPEN_LIMIT",
        value_name = "N",
        default_value_t = 256
    )]
    pub open_limit: usize,
}

/// Everything on this machine: a Postgres of its own, a worker and HTTP in one process.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// The worker's part
    #[command(flatten)]
    pub worker: WorkerArgs,
    /// The server's part
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Bring the schema up to this program's version.
#[derive(Clone, Debug, clap::Args)]
pub struct MigrateArgs {
    /// Only say whether the schema fits
    #[arg(long)]
    pub check: bool,
    /// Make the roles for submitters, reviewers and workers, and give them their rights. Also done with
    /// each migration, where the login may make roles
    #[arg(long, conflicts_with = "check")]
    pub roles: bool,
}

/// Read the configuration as a worker would, and say what is wrong with it.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigCheckArgs {
    /// The catalogue of agents
    #[arg(
        long,
        env = "DISPATCH_AGENTS",
        value_name = "FILE",
        default_value = "agents.toml"
    )]
    pub agents: PathBuf,
}

/// Write the entry of a known agent into this machine's agents.toml
#[derive(Clone, Debug, clap::Args)]
pub struct AddAgentArgs {
    /// Which
    #[arg(value_name = "AGENT", required_unless_present = "list")]
    pub name: Option<String>,
    /// Print the agents that are known, and how each is installed
    #[arg(long, conflicts_with = "name")]
    pub list: bool,
    /// The catalogue of agents; made when it is not there
    #[arg(
        long,
        env = "DISPATCH_AGENTS",
        value_name = "FILE",
        default_value = "agents.toml"
    )]
    pub agents: PathBuf,
}

/// Benchmarks of the queue and the streams.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// What to measure, and how
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub args: Vec<String>,
}
