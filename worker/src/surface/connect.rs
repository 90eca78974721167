//! Which database a command talks to.

use std::path::PathBuf;

use crate::ops::OpError;

/// Where to look.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// Connection string of the fleet's Postgres
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub database_url: Option<String>,
    /// Directory of `dispatch up`: its Postgres, its logs and the worktrees
    #[arg(
        long = "data",
        global = true,
        env = "DISPATCH_DATA",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub data: Option<PathBuf>,
}

/// The database to use: the one that is named, else the one that `dispatch up` started here.
pub fn database_url(args: &ConnectArgs) -> Result<String, OpError> {
    if let Some(url) = args.database_url.as_deref().filter(|url| !url.is_empty()) {
        return Ok(url.to_owned());
    }
    if let Some(url) = local_postgres(args) {
        return Ok(url);
    }
    Err(OpError::unavailable("no database: DATABASE_URL is not set and no local one is running")
        .code("no_database")
        .hint("Start everything on this machine with `dispatch up`, or name the fleet's database with DATABASE_URL or --database-url."))
}

/// The Postgres of `dispatch up` on this machine, if it is running.
fn local_postgres(_args: &ConnectArgs) -> Option<String> {
    None
}
