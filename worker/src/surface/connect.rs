//! Which database a command talks to, as people say it.

use std::path::PathBuf;

/// Where to look. Without a connection string: the Postgres that `dispatch up` started here.
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
    /// Direct connection for LISTEN and migrations, when the database is behind a pooler in transaction mode
    #[arg(
        long,
        global = true,
        env = "DATABASE_LISTEN_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub listen_url: Option<String>,
    /// Directory of `dispatch up`: its Postgres, its logs and the worktrees
    #[arg(
        long = "data",
        global = true,
        env = "DISPATCH_DATA",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub data: Option<PathBuf>,
}
