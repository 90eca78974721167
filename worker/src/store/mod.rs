//! Postgres: the only place with SQL. One statement a file in `sql/`, unqualified names, explicit
//! columns, parameters with their type (`$1::bigint`).
//!
//! Correct behind a pooler in transaction mode: no session state is kept, and named prepared
//! statements are used only after a self-ping over LISTEN proved that a connection is a session
//! (behind a pooler another client's `s0` may be a different statement).

pub mod adhoc;
pub mod applies;
pub mod asks;
pub mod attempts;
pub mod audit;
pub mod bench;
pub mod captures;
pub mod carried;
pub mod catalogue;
pub mod changes;
pub mod claims;
pub mod error;
pub mod finish;
pub mod fleet;
pub mod health;
pub mod history;
pub mod inbox;
pub mod limit_keys;
pub mod listen;
pub mod lookups;
pub mod mail;
pub mod messages;
pub mod migrate;
pub mod new_changes;
pub mod pauses;
pub mod permissions;
pub mod projects;
mod record;
pub mod resumes;
pub mod rights;
mod session;
pub mod settings;
pub mod statement;
pub mod steps;
pub mod streams;
pub mod tasks;
pub mod tokens;
pub mod undos;
pub mod usage;
pub mod workers_list;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::Host;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::{StoreError, StoreErrorKind};
pub use statement::Statement;

use crate::domain::limits;
use session::{Naming, Session};

crate::statements! {
    /// The newest migration that was applied.
    SCHEMA_VERSION = "schema_version";
}

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Every statement there is, for the test that prepares them.
pub fn all_statements() -> impl Iterator<Item = &'static Statement> {
    let modules: [&[&Statement]; 33] = [
        ALL,
        applies::ALL,
        asks::ALL,
        attempts::ALL,
        audit::ALL,
        bench::ALL,
        captures::ALL,
        carried::ALL,
        catalogue::ALL,
        changes::ALL,
        claims::ALL,
        finish::ALL,
        fleet::ALL,
        health::ALL,
        history::ALL,
        inbox::ALL,
        limit_keys::ALL,
        lookups::ALL,
        mail::ALL,
        messages::ALL,
        new_changes::ALL,
        pauses::ALL,
        permissions::ALL,
        projects::ALL,
        resumes::ALL,
        settings::ALL,
        steps::ALL,
        streams::ALL,
        tasks::ALL,
        tokens::ALL,
        undos::ALL,
        usage::ALL,
        workers_list::ALL,
    ];
    modules
        .into_iter()
        .flat_map(|statements| statements.iter().copied())
}

/// A pool of connections to the database of the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    tls: MakeRustlsConnect,
    /// Where it is, for people.
    place: Arc<str>,
    patience: Duration,
    sessions: Arc<AtomicBool>,
    /// Why there is none.
    absent: Option<Arc<Absent>>,
}

#[derive(Debug)]
struct Absent {
    message: String,
    hint: Option<String>,
}

impl Store {
    /// A store where no database is: whatever is asked of it fails for this reason.
    pub fn absent(message: String, hint: Option<String>) -> Result<Self, StoreError> {
        // Nothing ever connects to it.
        let store = Self::connect("host=localhost sslmode=disable", 1)?;
        Ok(Self {
            absent: Some(Arc::new(Absent { message, hint })),
            ..store
        })
    }

    /// Whether there is none, and never will be.
    pub fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// A store on this connection string (`postgres://…` or key=value). Connects lazily.
    pub fn connect(url: &str, connections: usize) -> Result<Self, StoreError> {
        let (config, tls) = parse_url(url)?;
        let place = place(&config).into();
        let manager = Manager::from_config(
            config,
            tls.clone(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(limits::QUERY_TIMEOUT))
            .create_timeout(Some(limits::CONNECT_TIMEOUT))
            .recycle_timeout(Some(Duration::from_secs(5)))
            .build()
            .map_err(|e| StoreError::setup(format!("cannot build the connection pool: {e}")))?;
        Ok(Self {
            pool,
            tls,
            place,
            patience: limits::QUERY_TIMEOUT,
            sessions: Arc::new(AtomicBool::new(false)),
            absent: None,
        })
    }

    /// The same, which waits so long for the answer to a statement.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Say that connections are sessions (no pooler in transaction mode), so that hot statements
    /// may be prepared once per connection.
    pub fn trust_sessions(&self) {
        self.sessions.store(true, Ordering::Relaxed);
    }

    /// All rows of a statement.
    pub async fn query(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.session().await?;
        let naming = match self.sessions.load(Ordering::Relaxed) {
            true => Naming::Prepared,
            false => Naming::Unnamed,
        };
        let started = Instant::now();
        let result = session.query(statement, params, naming).await;
        measure(statement, started, result)
    }

    /// The one row of a statement that always gives one.
    pub async fn query_one(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Row, StoreError> {
        self.query_opt(statement, params)
            .await?
            .ok_or_else(|| StoreError::no_row(statement.name))
    }

    /// The first row, if any.
    pub async fn query_opt(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(statement, params).await?.into_iter().next())
    }

    /// Begin a transaction. Dropping it without `commit` rolls back.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let session = self.session().await?;
        session.control("begin", "BEGIN").await?;
        Ok(Tx {
            session: Some(session),
        })
    }

    /// Version of the schema that the database has.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        Ok(self
            .query_one(&SCHEMA_VERSION, &[])
            .await?
            .try_get("version")?)
    }

    /// How many connections are open, and how many wait for one.
    pub fn pool_status(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.waiting)
    }

    async fn session(&self) -> Result<Session, StoreError> {
        if let Some(absent) = &self.absent {
            return Err(StoreError::absent(&absent.message, absent.hint.as_deref()));
        }
        let client = self.pool.get().await;
        let client = client.map_err(|error| StoreError::from_pool(&error).at(&self.place))?;
        Ok(Session::new(client, self.tls.clone(), self.patience))
    }
}

/// A transaction on one connection.
pub struct Tx {
    session: Option<Session>,
}

impl Tx {
    /// All rows of a statement.
    pub async fn query(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.session.as_ref();
        let session = session.ok_or_else(|| StoreError::no_row(statement.name))?;
        let started = Instant::now();
        let result = session.query(statement, params, Naming::Unnamed).await;
        measure(statement, started, result)
    }

    /// Make everything durable. An error here means "unknown": the caller reads again by key.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        let done = session.control("commit", "COMMIT").await;
        if done.is_err() {
            session.close();
        }
        done
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        // A connection with an open transaction never returns to the pool: closing it is the
        // rollback that cannot fail.
        if let Some(mut session) = self.session.take() {
            session.close();
        }
    }
}

fn measure(
    statement: &Statement,
    started: Instant,
    result: Result<Vec<Row>, StoreError>,
) -> Result<Vec<Row>, StoreError> {
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics::histogram!("dispatch_store_seconds", "statement" => statement.name, "outcome" => outcome)
        .record(started.elapsed().as_secs_f64());
    result
}

/// Configuration and TLS for a connection string. Certificates are always verified against the
/// system's roots; `sslmode=disable` turns TLS off.
pub(crate) fn parse_url(url: &str) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let mut config: Config = url.parse().map_err(|e| StoreError {
        hint: Some("One is like postgres://user@host:5432/database. DATABASE_URL, the file of DATABASE_URL_FILE or --database-url names it; DATABASE_LISTEN_URL the direct one.".to_owned()),
        ..StoreError::setup(format!("the connection string of the database cannot be read: {e}"))
    })?;
    config
        .connect_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(15))
        .tcp_user_timeout(Duration::from_secs(15));
    if config.get_application_name().is_none() {
        config.application_name("dispatch");
    }
    let mut roots = rustls::RootCertStore::empty();
    if config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable {
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A certificate of the system that rustls cannot read verifies nothing.
            let _unreadable = roots.add(certificate);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| StoreError::setup(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((config, MakeRustlsConnect::new(tls)))
}

/// Where a database is, without who asks for it.
pub(crate) fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| {
        let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(dir) => format!("{}, port {port}", dir.display()),
        }
    });
    hosts.collect::<Vec<_>>().join(" or ")
}

/// The types of parameters beside their values, for statements sent without a name.
pub(crate) type Typed<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;
