//! The server that `dispatch up` and the tests start for themselves.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_worker::localpg::{LocalPgError, LocalPostgres, Options, Stopped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::db::connect;
use crate::harness::eventually;

/// Takes the server down when a test fails half-way; a server that is down already is fine.
struct Cluster {
    root: TempDir,
    data: PathBuf,
}

impl Cluster {
    fn new() -> Self {
        let private = Permissions::from_mode(0o700);
        let root = tempfile::Builder::new()
            .permissions(private)
            .tempdir()
            .unwrap();
        Self {
            data: root.path().to_owned(),
            root,
        }
    }

    /// In a directory below, which is open on the way.
    fn below(path: &Path) -> Self {
        let mut cluster = Self::new();
        let open = Permissions::from_mode(0o755);
        std::fs::set_permissions(cluster.root.path(), open).unwrap();
        cluster.data = cluster.root.path().join(path);
        cluster
    }

    fn dir(&self) -> &Path {
        &self.data
    }

    async fn start(&self) -> LocalPostgres {
        LocalPostgres::start(Options::throwaway(self.dir()))
            .await
            .unwrap()
    }

    fn server_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir().join("data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(pid) = self.server_pid() {
            let _ = kill(pid, Signal::SIGQUIT);
        }
    }
}

async fn setting(url: &str, name: &str) -> String {
    let client = connect(url).await;
    client
        .query_one("SELECT current_setting($1)", &[&name])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn the_last_user_of_the_server_takes_it_down() {
    let cluster = Cluster::new();
    let first = cluster.start().await;
    assert!(!first.joined());
    let second = cluster.start().await;
    assert!(second.joined());
    assert_eq!(first.url("postgres"), second.url("postgres"));

    let seen = LocalPostgres::running(cluster.dir())
        .await
        .expect("it runs");
    assert_eq!(seen.url("postgres"), first.url("postgres"));
    let url = LocalPostgres::running_url(cluster.dir(), "postgres");
    assert_eq!(url, Some(first.url("postgres")));
    assert_eq!(seen.stop().await.unwrap(), Stopped::StillUsed);

    assert_eq!(first.stop().await.unwrap(), Stopped::StillUsed);
    assert_eq!(
        setting(&second.url("postgres"), "server_encoding").await,
        "UTF8"
    );
    assert_eq!(second.stop().await.unwrap(), Stopped::Down);
    assert!(LocalPostgres::running(cluster.dir()).await.is_none());
    assert_eq!(cluster.server_pid(), None);
}

#[tokio::test]
async fn two_that_start_at_once_share_one_server() {
    let cluster = Cluster::new();
    let (one, two) = tokio::join!(cluster.start(), cluster.start());
    assert_ne!(one.joined(), two.joined());
    assert_eq!(
        setting(&one.url("postgres"), "port").await,
        setting(&two.url("postgres"), "port").await
    );
    one.stop().await.unwrap();
    assert_eq!(two.stop().await.unwrap(), Stopped::Down);
}

#[tokio::test]
async fn a_server_left_by_a_killed_process_is_joined_and_taken_down() {
    let cluster = Cluster::new();
    let killed = cluster.start().await;
    // What the kernel does to the locks of a killed process.
    drop(killed);
    let next = cluster.start().await;
    assert!(next.joined());
    let also = LocalPostgres::join(cluster.dir())
        .await
        .unwrap()
        .expect("it runs");
    assert_eq!(next.stop().await.unwrap(), Stopped::StillUsed);
    assert_eq!(also.stop().await.unwrap(), Stopped::Down);
    assert_eq!(cluster.server_pid(), None);
    assert!(LocalPostgres::join(cluster.dir()).await.unwrap().is_none());
    assert!(
        LocalPostgres::join(Path::new("/nowhere"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn the_laptops_database_is_durable_and_closed_to_others() {
    let cluster = Cluster::new();
    let server = LocalPostgres::start(Options::durable(cluster.dir()))
        .await
        .unwrap();
    let url = server.url("postgres");
    assert_eq!(setting(&url, "fsync").await, "on");
    assert_eq!(setting(&url, "synchronous_commit").await, "on");
    assert_eq!(setting(&url, "listen_addresses").await, "");

    let mode = |path: &str| {
        cluster
            .dir()
            .join(path)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("socket"), 0o700);
    assert_eq!(mode("password"), 0o600);
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.password("guessed");
    let refused = config
        .connect(tokio_postgres::NoTls)
        .await
        .err()
        .expect("a wrong password is refused");
    assert_eq!(
        refused.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn psql_of_the_same_installation_reaches_the_database() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let Some(psql) = server.psql_path() else {
        panic!("this installation has no psql");
    };
    #[expect(clippy::disallowed_methods, reason = "the test is about starting psql")]
    let output = tokio::process::Command::new(psql)
        .args(["-X", "-A", "-t", "-c", "SELECT current_user"])
        .envs(server.psql_env("postgres"))
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "dispatch\n",
        "{output:?}"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn committed_data_survives_a_killed_server_and_its_stale_pid_file() {
    let cluster = Cluster::new();
    let server = cluster.start().await;
    let client = connect(&server.url("postgres")).await;
    for statement in ["CREATE TABLE kept AS SELECT 1 AS n", "CHECKPOINT"] {
        client.batch_execute(statement).await.unwrap();
    }
    let pid = cluster.server_pid().unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
    eventually(
        "the server's processes are gone",
        Duration::from_secs(20),
        || async {
            kill(pid, None).is_err() && LocalPostgres::running(cluster.dir()).await.is_none()
        },
    )
    .await;
    // The number in the pid file belongs to another program by now: to this test.
    let pid_file = cluster.dir().join("data/postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    let text = text.replacen(&pid.to_string(), &std::process::id().to_string(), 1);
    std::fs::write(&pid_file, text).unwrap();
    drop(server);

    let again = cluster.start().await;
    assert!(!again.joined());
    let client = connect(&again.url("postgres")).await;
    let n: i32 = client
        .query_one("SELECT n FROM kept", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(n, 1);
    assert_eq!(again.stop().await.unwrap(), Stopped::Down);
}

#[tokio::test]
async fn a_long_or_odd_path_gets_a_short_private_socket() {
    let odd = Path::new("it's a \"long\" $HOME of `data`").join("x".repeat(90));
    let cluster = Cluster::below(&odd);
    let server = cluster.start().await;
    assert_eq!(setting(&server.url("postgres"), "port").await, "5432");
    let socket_dir = std::fs::read_to_string(cluster.dir().join("socket_dir")).unwrap();
    let socket_dir = Path::new(socket_dir.trim_end());
    assert!(
        socket_dir.as_os_str().len() < 60,
        "{}",
        socket_dir.display()
    );
    assert_eq!(socket_dir.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(server.stop().await.unwrap(), Stopped::Down);
    std::fs::remove_dir_all(socket_dir).unwrap();
}

/// Only root gives the work to another user.
#[tokio::test]
async fn root_is_told_of_a_directory_that_postgres_cannot_enter() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let closed = Cluster::new();
    let inside = closed.dir().join("pg");
    let error = LocalPostgres::start(Options::throwaway(&inside))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, LocalPgError::Closed { closed: named, .. } if named == closed.dir()),
        "{error}"
    );
    assert!(error.to_string().contains("--data DIR"), "{error}");
    assert!(!inside.exists());
}

#[tokio::test]
async fn a_cluster_of_another_version_is_named_and_left_alone() {
    let cluster = Cluster::new();
    let data = cluster.dir().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    // Whoever owns the directory runs the server; root hands over empty directories only.
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(cluster.dir(), Some(nobody.uid.as_raw()), None).unwrap();
    }
    let error = LocalPostgres::start(Options::throwaway(cluster.dir()))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("9 (the version that made the existing data)"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_to_string(data.join("PG_VERSION")).unwrap(),
        "9\n"
    );
}
