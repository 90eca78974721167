//! Makes, configures, starts and stops the cluster with Postgres' own programs.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::binaries::Binaries;
use super::command::{Program, tail};
use super::home::{Home, file_error};
use super::{Durability, LocalPgError, Options, PORT, ROLE};

/// initdb writes 40 MB with fsync; a laptop on battery takes its time.
const CREATE_TIMEOUT: Duration = Duration::from_secs(180);

/// Recovery after a crash reads the WAL since the last checkpoint.
const START_SECONDS: u64 = 120;

/// A fast shutdown writes one checkpoint.
const STOP_SECONDS: u64 = 60;

/// Our settings, read by the cluster's own file; rewritten at each start.
const SETTINGS: &str = "dispatch.conf";

/// Make the cluster if there is none. It appears by a rename, so an interrupted initdb never
/// looks like a cluster.
pub(super) async fn create(
    home: &Home,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), LocalPgError> {
    if home.major().is_some() {
        return Ok(());
    }
    let fresh = home.dir().join("data.new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(file_error("removing", &fresh))?;
    }
    let password = home.write_password()?;
    let role = format!("--username={ROLE}");
    let mut args: Vec<&OsStr> = vec![
        "--encoding=UTF8".as_ref(),
        "--locale=C".as_ref(),
        "--auth-local=scram-sha-256".as_ref(),
        "--auth-host=reject".as_ref(),
        role.as_ref(),
        "--pwfile".as_ref(),
        password.as_ref(),
        "--pgdata".as_ref(),
        fresh.as_ref(),
    ];
    if durability == Durability::Throwaway {
        args.push("--no-sync".as_ref());
    }
    let initdb = binaries.program("initdb");
    let program = Program {
        path: &initdb,
        args,
        user: Some(home.user()),
        cwd: home.dir(),
        pgdata: None,
        timeout: CREATE_TIMEOUT,
    };
    program.run().await?;
    let main_settings = fresh.join("postgresql.conf");
    let mut text =
        std::fs::read_to_string(&main_settings).map_err(file_error("reading", &main_settings))?;
    let _ = writeln!(text, "\ninclude_if_exists = '{SETTINGS}'");
    std::fs::write(&main_settings, text).map_err(file_error("writing", &main_settings))?;
    let cluster = home.cluster();
    std::fs::rename(&fresh, &cluster).map_err(file_error("making", &cluster))
}

/// Write what this start needs: only a private socket, and how safe commits are.
pub(super) fn configure(
    home: &Home,
    socket_dir: &Path,
    options: &Options,
) -> Result<(), LocalPgError> {
    let mut text = String::from(
        "# Written at each start by dispatch; put own settings into postgresql.auto.conf (ALTER SYSTEM).\n",
    );
    let socket_dir = socket_dir.to_string_lossy();
    let settings = [
        ("listen_addresses", quoted("")),
        ("port", PORT.to_string()),
        (
            "unix_socket_directories",
            quoted(&format!("\"{}\"", socket_dir.replace('"', "\"\""))),
        ),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", options.max_connections.to_string()),
        ("password_encryption", quoted("scram-sha-256")),
        ("log_line_prefix", quoted("%m [%p] ")),
    ];
    let unsafe_settings = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("max_wal_size", "4GB"),
        ("shared_buffers", "256MB"),
    ];
    for (name, value) in settings {
        let _ = writeln!(text, "{name} = {value}");
    }
    if options.durability == Durability::Throwaway {
        for (name, value) in unsafe_settings {
            let _ = writeln!(text, "{name} = {value}");
        }
    }
    home.write_private(&home.cluster().join(SETTINGS), &text)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Start the server and wait until it takes connections.
pub(super) async fn start(home: &Home, binaries: &Binaries) -> Result<(), LocalPgError> {
    home.clear_stale_pid_file()?;
    home.rotate_log()?;
    let seconds = START_SECONDS.to_string();
    let args = [
        "--wait",
        "--timeout",
        &seconds,
        "--silent",
        "--log",
        home.log_name(),
        "start",
    ];
    let started = pg_ctl(home, binaries, &args, START_SECONDS).await;
    started.map_err(|error| match error {
        LocalPgError::Program {
            program,
            how,
            output,
        } => {
            let log = std::fs::read(home.log_file()).unwrap_or_default();
            let output = format!(
                "{output}\nend of {}:\n{}",
                home.log_file().display(),
                tail(&log)
            );
            LocalPgError::Program {
                program,
                how,
                output,
            }
        }
        other => other,
    })
}

/// Stop it: finish what commits, roll back the rest; pull the plug when that takes too long.
pub(super) async fn stop(home: &Home, binaries: &Binaries) -> Result<(), LocalPgError> {
    if !home.pid_file().exists() {
        return Ok(());
    }
    let seconds = STOP_SECONDS.to_string();
    let fast = [
        "--wait",
        "--timeout",
        &seconds,
        "--silent",
        "--mode=fast",
        "stop",
    ];
    if pg_ctl(home, binaries, &fast, STOP_SECONDS).await.is_ok() || !home.pid_file().exists() {
        return Ok(());
    }
    let at_once = [
        "--wait",
        "--timeout",
        &seconds,
        "--silent",
        "--mode=immediate",
        "stop",
    ];
    pg_ctl(home, binaries, &at_once, STOP_SECONDS).await
}

async fn pg_ctl(
    home: &Home,
    binaries: &Binaries,
    args: &[&str],
    seconds: u64,
) -> Result<(), LocalPgError> {
    let path = binaries.program("pg_ctl");
    let cluster = home.cluster();
    let program = Program {
        path: &path,
        args: args.iter().map(OsStr::new).collect(),
        user: Some(home.user()),
        cwd: home.dir(),
        pgdata: Some(&cluster),
        timeout: Duration::from_secs(seconds + 10),
    };
    program.run().await.map(|_| ())
}
