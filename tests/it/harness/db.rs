//! A migrated database per test, copied from a template, in one throw-away cluster.
//!
//! `./scripts/test` starts the cluster and names it in `DISPATCH_TEST_DATABASE_URL`; without the
//! variable each test process starts its own, and a child that outlives the process takes it down.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dispatch_worker::localpg::{LocalPostgres, Options};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, NoTls};

use super::eventually;

/// Names a running cluster with a role that may create databases and roles.
const CLUSTER_VARIABLE: &str = "DISPATCH_TEST_DATABASE_URL";

/// Advisory lock under which the template is made, so that parallel processes make it once.
const TEMPLATE_LOCK: i64 = 0x7465_6d70_6c61_7465;

/// A database for one test, with the whole schema; dropped when the value is.
pub struct TestDb {
    name: String,
    cluster: String,
    logins: std::sync::Mutex<Vec<String>>,
}

/// A login with rights of its own; gone with its database.
pub struct Login {
    pub name: String,
    pub url: String,
}

impl Login {
    /// A connection of its own.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

impl TestDb {
    /// A fresh copy of the migrated template.
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster().await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("it_{}_{number}", std::process::id());
        let admin = connect(&cluster.url).await;
        let make = format!("CREATE DATABASE {name} TEMPLATE {}", cluster.template);
        admin.batch_execute(&make).await.expect("copy the template");
        Self {
            name,
            cluster: cluster.url.clone(),
            logins: std::sync::Mutex::default(),
        }
    }

    /// Make a login that is a member of these roles and nothing else.
    pub async fn login(&self, person: &str, roles: &[&str]) -> Login {
        let name = format!("{}_{person}", self.name);
        let admin = self.client().await;
        let mut make = format!("CREATE ROLE {name} LOGIN PASSWORD 'of-a-test';");
        for role in roles {
            make.push_str(&format!("GRANT {role} TO {name};"));
        }
        admin.batch_execute(&make).await.expect("make a login");
        let mut logins = self.logins.lock().unwrap_or_else(|e| e.into_inner());
        logins.push(name.clone());
        let url = with_login(&self.url(), &name, "of-a-test");
        Login { name, url }
    }

    /// Address of the database, as the product takes it.
    pub fn url(&self) -> String {
        with_database(&self.cluster, &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection of its own.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let mut drop = vec![format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            self.name
        )];
        let logins = self.logins.get_mut().unwrap_or_else(|e| e.into_inner());
        drop.extend(
            logins
                .iter()
                .map(|name| format!("DROP ROLE IF EXISTS {name}")),
        );
        let cluster = self.cluster.clone();
        // A thread with its own runtime: drop is not async, and the test's runtime may be ending.
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let admin = connect(&cluster).await;
                for statement in &drop {
                    let done = admin.batch_execute(statement).await;
                    done.expect("drop the database and its logins");
                }
            });
        })
        .join();
        assert!(
            done.is_ok() || std::thread::panicking(),
            "database {} was not dropped",
            self.name
        );
    }
}

struct Cluster {
    url: String,
    template: String,
}

/// The cluster of this process, its template made and leftovers of dead processes swept.
async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let url = match std::env::var(CLUSTER_VARIABLE) {
                Ok(url) if !url.is_empty() => url,
                _ => own_cluster().await,
            };
            let template = template(&url).await;
            sweep(&url).await;
            Cluster { url, template }
        })
        .await
}

/// Start a cluster for this process alone.
async fn own_cluster() -> String {
    let dir = tempfile::Builder::new()
        .prefix("dispatch-it-")
        .tempdir()
        .expect("a directory")
        .keep();
    let postgres = LocalPostgres::start(Options::throwaway(&dir))
        .await
        .expect("start Postgres");
    let url = postgres.url("postgres");
    stop_at_our_end(&dir);
    // Its lock is held until the process ends.
    Box::leak(Box::new(postgres));
    url
}

/// A child whose standard input ends when this process does, however that happens. It then takes
/// the server down the hard way, since nobody misses the data.
fn stop_at_our_end(dir: &Path) {
    let script =
        r#"cat >/dev/null; kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")"; rm -rf "$0""#;
    #[expect(
        clippy::disallowed_methods,
        reason = "outlives the process on purpose; nothing joins it"
    )]
    let child = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .current_dir("/")
        .process_group(0)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start the watcher");
    Box::leak(Box::new(child));
}

/// Make the template once per set of migrations; return its name. It appears by a rename, so a
/// half migrated one is never copied.
async fn template(url: &str) -> String {
    let key = migrations_key();
    let name = format!("template_{key}");
    let admin = connect(url).await;
    let lock = format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})");
    admin.batch_execute(&lock).await.expect("lock");
    let exists = admin
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .await
        .expect("look for the template");
    if exists.is_none() {
        let building = format!("building_{key}");
        let fresh = [
            format!("DROP DATABASE IF EXISTS {building} WITH (FORCE)"),
            format!("CREATE DATABASE {building} TEMPLATE template0"),
        ];
        for statement in &fresh {
            admin
                .batch_execute(statement)
                .await
                .expect("make the template");
        }
        migrate(&with_database(url, &building)).await;
        // A session that has said goodbye may still be leaving, and nobody can copy until it has.
        let alone = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        eventually(
            "the template is left alone",
            Duration::from_secs(20),
            || async {
                let sessions = admin
                    .query_one(alone, &[&building])
                    .await
                    .expect("count sessions");
                sessions.get::<_, i64>(0) == 0
            },
        )
        .await;
        let finish = format!("ALTER DATABASE {building} RENAME TO {name}");
        admin
            .batch_execute(&finish)
            .await
            .expect("name the template");
    }
    name
}

/// Bring an empty database to the newest schema, as `dispatch migrate` does.
async fn migrate(url: &str) {
    let applied = dispatch_worker::store::migrate::migrate(url).await;
    let migrated = applied.expect("migrate");
    assert_eq!(migrated.applied.len(), migration_files().len());
    migrated.rights.expect("a role that may make roles");
}

/// The files of `migrations/`, in order.
pub fn migration_files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let entries = std::fs::read_dir(&dir).expect("migrations/");
    let mut files: Vec<(u32, PathBuf)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| (version_of(&path), path))
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// `V12__name.sql` → 12.
fn version_of(path: &Path) -> u32 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name
        .strip_prefix('V')
        .and_then(|rest| rest.split_once("__"));
    number
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| {
            panic!("migrations/{name}: name migrations V<number>__<what>.sql");
        })
}

fn migrations_key() -> String {
    // The first words tell templates with the history of migrations from those without.
    let mut hash = Sha256::new_with_prefix("with history");
    for file in migration_files() {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(std::fs::read(&file).expect("read a migration"));
    }
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Drop databases of test processes that are gone. Only where the cluster is on this machine, so
/// that a process id means something.
async fn sweep(url: &str) {
    let config: Config = url.parse().expect("an address");
    let here = config
        .get_hosts()
        .iter()
        .all(|host| matches!(host, tokio_postgres::config::Host::Unix(_)));
    if !here {
        return;
    }
    let admin = connect(url).await;
    // Databases first: a login with rights in one cannot go before it.
    let query = "SELECT 'DATABASE', datname::text FROM pg_database WHERE datname LIKE 'it\\_%' \
                 UNION ALL SELECT 'ROLE', rolname::text FROM pg_roles WHERE rolname LIKE 'it\\_%' ORDER BY 1";
    for row in admin.query(query, &[]).await.expect("list databases") {
        let (kind, name): (String, String) = (row.get(0), row.get(1));
        let pid = name
            .split('_')
            .nth(1)
            .and_then(|pid| pid.parse::<i32>().ok());
        let gone = pid.is_some_and(|pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::Error::ESRCH)
        });
        if gone {
            // Another process may sweep the same one.
            let force = if kind == "ROLE" { "" } else { " WITH (FORCE)" };
            let drop = format!("DROP {kind} IF EXISTS {name}{force}");
            let _ = admin.batch_execute(&drop).await;
        }
    }
}

/// Connect; the connection is served until the client is dropped.
pub async fn connect(url: &str) -> Client {
    let config: Config = url.parse().expect("an address");
    let (client, connection) = config.connect(NoTls).await.expect("connect");
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the client, which the test owns"
    )]
    tokio::spawn(connection);
    client
}

/// The same address for another login.
pub fn with_login(url: &str, name: &str, password: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .expect("an address of the form postgresql://…");
    let server = rest.split_once('@').map_or(rest, |(_, server)| server);
    format!("{scheme}://{name}:{password}@{server}")
}

/// The same address with another database.
pub fn with_database(url: &str, database: &str) -> String {
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = address
        .split_once("://")
        .expect("an address of the form postgresql://…");
    let server = rest.split_once('/').map_or(rest, |(server, _)| server);
    format!("{scheme}://{server}/{database}{query}")
}

#[tokio::test]
async fn every_test_gets_its_own_migrated_database() {
    let (one, two) = tokio::join!(TestDb::new(), TestDb::new());
    assert_ne!(one.name(), two.name());
    let client = one.client().await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let tables: i64 = client.query_one(tables, &[]).await.unwrap().get(0);
    assert!(tables >= 15, "{tables} tables");
    client
        .batch_execute("INSERT INTO projects(name, path) VALUES ('demo', '/nowhere')")
        .await
        .unwrap();
    let elsewhere = two
        .client()
        .await
        .query("SELECT 1 FROM projects", &[])
        .await
        .unwrap();
    assert!(elsewhere.is_empty());
}

#[tokio::test]
async fn a_database_goes_with_its_test_even_while_connected() {
    let db = TestDb::new().await;
    let name = db.name().to_owned();
    let _open = db.client().await;
    drop(db);
    let admin = connect(&cluster().await.url).await;
    let left = admin
        .query("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .await
        .unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn leftovers_of_a_dead_process_are_swept_and_those_of_a_live_one_kept() {
    let url = &cluster().await.url;
    let admin = connect(url).await;
    // Above the largest process id that Linux gives.
    admin
        .batch_execute("DROP DATABASE IF EXISTS it_2000000000_0 WITH (FORCE)")
        .await
        .unwrap();
    admin
        .batch_execute("CREATE DATABASE it_2000000000_0")
        .await
        .unwrap();
    let live = TestDb::new().await;
    sweep(url).await;
    let names = "SELECT datname FROM pg_database WHERE datname = ANY ($1)";
    let asked = vec!["it_2000000000_0".to_owned(), live.name().to_owned()];
    let left = admin.query(names, &[&asked]).await.unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [live.name()]);
}

#[test]
fn another_database_keeps_the_rest_of_the_address() {
    let url = "postgresql://me:pw@%2Ftmp%2Fs:5432/postgres?connect_timeout=3";
    assert_eq!(
        with_database(url, "x"),
        "postgresql://me:pw@%2Ftmp%2Fs:5432/x?connect_timeout=3"
    );
    assert_eq!(with_database("postgres://h", "x"), "postgres://h/x");
}

/// The pace the other tests live on; printed for whoever looks.
#[tokio::test]
async fn a_database_is_made_and_dropped_quickly() {
    cluster().await;
    let begun = std::time::Instant::now();
    drop(TestDb::new().await);
    let took = begun.elapsed();
    println!("a database made and dropped in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
