//! Everything through a pooler in transaction mode: a real pgbouncer that shares three sessions
//! between all clients.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use dispatch_worker::broker::{Broker, Follow};
use dispatch_worker::domain::ids::TaskId;
use dispatch_worker::store::Store;
use dispatch_worker::store::listen::Listener;
use futures::StreamExt;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;

use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::repo::git;
use crate::harness::worker::{PATIENCE, Stage, agents, write};

struct Pooler {
    url: String,
    _process: Child,
    _dir: tempfile::TempDir,
}

/// A user other than root, whom pgbouncer refuses: the one the server's socket belongs to.
const NOBODY: u32 = 65_534;

impl Pooler {
    /// `None`: the program is not installed here.
    async fn start(stage: &Stage) -> Option<Self> {
        let places = [
            "/usr/sbin",
            "/usr/bin",
            "/usr/local/bin",
            "/opt/homebrew/bin",
        ];
        let program = places
            .iter()
            .map(|dir| Path::new(dir).join("pgbouncer"))
            .find(|path| path.exists())?;
        let config: tokio_postgres::Config = stage.db.url().parse().unwrap();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap();
        let (host, owner) = match config.get_hosts().first().unwrap() {
            Host::Unix(dir) => (
                dir.display().to_string(),
                std::fs::metadata(dir).unwrap().uid(),
            ),
            Host::Tcp(name) => (name.clone(), NOBODY),
        };
        let secret = config.get_password().map_or(String::new(), |password| {
            format!(" password={}", String::from_utf8_lossy(password))
        });
        // Free a moment ago; nobody else asks for ports by number here.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = free.local_addr().unwrap().port();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgbouncer.ini");
        let name = stage.db.name();
        let text = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name} user={user}{secret}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {here}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             max_client_conn = 200\nignore_startup_parameters = extra_float_digits\n"
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "a server that is no part of the product"
        )]
        let mut command = Command::new(program);
        command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true);
        if nix::unistd::geteuid().is_root() {
            let owner = if owner == 0 { NOBODY } else { owner };
            command.uid(owner);
        }
        let process = command.spawn().unwrap();
        let url = format!("postgresql://{user}@127.0.0.1:{here}/{name}?sslmode=disable");
        eventually("the pooler answers", PATIENCE, || async {
            let config: tokio_postgres::Config = url.parse().unwrap();
            config.connect(tokio_postgres::NoTls).await.is_ok()
        })
        .await;
        Some(Self {
            url,
            _process: process,
            _dir: dir,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path_works_through_a_pooler_in_transaction_mode() {
    let stage = Stage::new().await;
    let Some(pooler) = Pooler::start(&stage).await else {
        eprintln!("SKIPPED: pgbouncer is not installed; ./scripts/test installs it");
        return;
    };
    let (through, direct) = (pooler.url.clone(), stage.db.url());
    let inside = stage
        .worker_with(&agents(), |settings| {
            settings.database_url = through;
            settings.listen_url = Some(direct);
        })
        .await;
    // The second does not know that there is a pooler; it must find out and poll.
    let mut outside = Program::worker_at(&stage, &pooler.url, "outside", &agents(), &[]).await;
    let listener = Listener::new();
    let broker = Broker::new(Store::connect(&pooler.url, 4).unwrap(), listener);

    let mut tasks = Vec::new();
    for n in 0..16 {
        let script = json!([{ "say": format!("task {n}") }, write(&format!("{n}.txt"), "x\n")]);
        tasks.push(stage.submit("acp", &script).await);
    }
    for task in &tasks {
        let stop = CancellationToken::new();
        let events = broker.follow(TaskId(*task), 0, Follow::ToTheEnd, stop);
        let events: Vec<_> = events.map(Result::unwrap).collect().await;
        let numbers: Vec<i64> = events.iter().map(|e| e.seq).collect();
        assert_eq!(numbers, (1..).take(numbers.len()).collect::<Vec<i64>>());
        assert_eq!(events.last().unwrap().kind, "task_completed");
    }
    let workers = "SELECT count(DISTINCT worker_id) FROM attempts";
    let both = stage.text(workers).await;

    let endless = stage.working("acp").await;
    stage.text(&format!("SELECT cancel_task({endless})")).await;
    stage.reaches(endless, "cancelled").await;

    let approve = "SELECT approve_change(id, digest) FROM pending_changes WHERE task_id = $1";
    stage.sql.query(approve, &[&tasks[0]]).await.unwrap();
    let applied = "SELECT EXISTS (SELECT 1 FROM pending_changes WHERE state = 'applied')";
    stage.holds("the change is applied", applied).await;
    assert_eq!(git(&stage.ground.repo, &["show", "main:0.txt"]), "x");

    inside.stop().await;
    outside.signal(Signal::SIGTERM);
    assert_eq!(outside.ended().await.code(), Some(0));
    let log = outside.log();
    assert!(!log.contains("prepared statement"), "{log}");
    assert!(log.contains("LISTEN does not work"), "it says so: {log}");
    let failed = "SELECT count(*) FROM attempts WHERE end_kind NOT IN ('succeeded', 'cancelled')";
    assert_eq!(stage.text(failed).await, "0", "{log}");
    assert!(both == "1" || both == "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_through_a_pooler_are_refused_unless_the_direct_way_is_named() {
    let stage = Stage::new().await;
    let Some(pooler) = Pooler::start(&stage).await else {
        eprintln!("SKIPPED: pgbouncer is not installed; ./scripts/test installs it");
        return;
    };
    let through = ("DATABASE_URL", pooler.url.as_str());
    let (code, said) = Program::run(&["migrate"], &[through]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("pooler in transaction mode"), "{said}");
    assert!(said.contains("DATABASE_LISTEN_URL"), "{said}");
    let direct = stage.db.url();
    let both = [through, ("DATABASE_LISTEN_URL", direct.as_str())];
    let (code, said) = Program::run(&["migrate"], &both);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Nothing to do"), "{said}");
}
