//! What a worker process needs to know, assembled once from flags and environment.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::sandbox::Rung;

/// Settings of one worker process.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Connection string for everything but LISTEN; may lead through a pooler.
    pub database_url: String,
    /// Connection string for LISTEN: a direct connection. Absent: the same.
    pub listen_url: Option<String>,
    /// Where stores, worktrees and homes live.
    pub data_dir: PathBuf,
    /// The catalogue's file.
    pub agents_file: PathBuf,
    /// Files that hold secrets of this process; no agent sees them.
    pub secret_files: Vec<PathBuf>,
    /// Attempts at once, of all agents together.
    pub slots: u32,
    /// Name for people; the host's by default.
    pub name: String,
    /// How long running attempts may go on after the first stop signal.
    pub drain: Duration,
    /// Whether projects may run setup and teardown commands.
    pub allow_hooks: bool,
    /// The only rung of the sandbox ladder to use; absent: the best that works here.
    pub sandbox: Option<Rung>,
    /// The program that confines agents: this one, unless a test says otherwise.
    pub helper: Option<PathBuf>,
    /// Connections to the database.
    pub connections: usize,
}
