//! Which database a command talks to, as people say it.

use std::path::PathBuf;

use crate::config::database::Named;

/// Where to look. Without a connection string: the Postgres that `dispatch up` started here.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// Connection string of the fleet's Postgres; or DATABASE_URL_FILE names a file that holds it, and
    /// DATABASE_PASSWORD_FILE one with the password that it lacks
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
    /// File that holds the connection string
    #[arg(long, global = true, env = "DATABASE_URL_FILE", hide = true)]
    pub database_url_file: Option<PathBuf>,
    /// File that holds the direct connection
    #[arg(long, global = true, env = "DATABASE_LISTEN_URL_FILE", hide = true)]
    pub listen_url_file: Option<PathBuf>,
    /// File with the password of both
    #[arg(long, global = true, env = "DATABASE_PASSWORD_FILE", hide = true)]
    pub database_password_file: Option<PathBuf>,
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

impl ConnectArgs {
    /// What they say of the database.
    pub fn named(&self) -> Named {
        Named {
            url: self.database_url.clone(),
            url_file: self.database_url_file.clone(),
            listen_url: self.listen_url.clone(),
            listen_url_file: self.listen_url_file.clone(),
            password_file: self.database_password_file.clone(),
        }
    }
}
