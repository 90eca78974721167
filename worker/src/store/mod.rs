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
pub mod catalogue;
pub mod changes;
pub mod claims;
pub mod error;
pub mod finish;
pub mod fleet;
pub mod history;
pub mod listen;
pub mod migrate;
pub mod new_changes;
pub mod permissions;
pub mod projects;
mod record;
pub mod statement;
pub mod streams;
pub mod tasks;
pub mod usage;
pub mod workers_list;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::{StoreError, StoreErrorKind};
pub use statement::Statement;

crate::statements! {
    /// The newest migration that was applied.
    SCHEMA_VERSION = "schema_version";
}

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Every statement there is, for the test that prepares them.
pub fn all_statements() -> impl Iterator<Item = &'static Statement> {
    let modules: [&[&Statement]; 19] = [
        ALL,
        applies::ALL,
        asks::ALL,
        attempts::ALL,
        audit::ALL,
        bench::ALL,
        catalogue::ALL,
        changes::ALL,
        claims::ALL,
        finish::ALL,
        fleet::ALL,
        history::ALL,
        new_changes::ALL,
        permissions::ALL,
        projects::ALL,
        streams::ALL,
        tasks::ALL,
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
    sessions: Arc<AtomicBool>,
}

impl Store {
    /// A store on this connection string (`postgres://…` or key=value). Connects lazily.
    pub fn connect(url: &str, connections: usize) -> Result<Self, StoreError> {
        let (config, tls) = parse_url(url)?;
        let manager = Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(30)))
            .create_timeout(Some(Duration::from_secs(15)))
            .recycle_timeout(Some(Duration::from_secs(5)))
            .build()
            .map_err(|e| StoreError::setup(format!("cannot build the connection pool: {e}")))?;
        Ok(Self {
            pool,
            sessions: Arc::new(AtomicBool::new(false)),
        })
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
        let client = self.client().await?;
        let started = Instant::now();
        let result = if self.sessions.load(Ordering::Relaxed) {
            match client.prepare_cached(statement.sql).await {
                Ok(prepared) => client.query(&prepared, params).await,
                Err(error) => Err(error),
            }
        } else {
            client
                .query_typed(statement.sql, &statement.typed(params))
                .await
        };
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
        let client = self.client().await?;
        client
            .batch_execute("BEGIN")
            .await
            .map_err(|e| StoreError::from_pg("begin", &e))?;
        Ok(Tx {
            client: Some(client),
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

    async fn client(&self) -> Result<Object, StoreError> {
        self.pool
            .get()
            .await
            .map_err(|error| StoreError::from_pool(&error))
    }
}

/// A transaction on one connection.
pub struct Tx {
    client: Option<Object>,
}

impl Tx {
    /// All rows of a statement.
    pub async fn query(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| StoreError::no_row(statement.name))?;
        let started = Instant::now();
        let result = client
            .query_typed(statement.sql, &statement.typed(params))
            .await;
        measure(statement, started, result)
    }

    /// Make everything durable. An error here means "unknown": the caller reads again by key.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let Some(client) = self.client.take() else {
            return Ok(());
        };
        let done = client.batch_execute("COMMIT").await;
        if done.is_err() {
            drop(Object::take(client));
        }
        done.map_err(|e| StoreError::from_pg("commit", &e))
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        // A connection with an open transaction never returns to the pool: closing it is the
        // rollback that cannot fail.
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

fn measure(
    statement: &Statement,
    started: Instant,
    result: Result<Vec<Row>, tokio_postgres::Error>,
) -> Result<Vec<Row>, StoreError> {
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics::histogram!("dispatch_store_seconds", "statement" => statement.name, "outcome" => outcome)
        .record(started.elapsed().as_secs_f64());
    result.map_err(|error| StoreError::from_pg(statement.name, &error))
}

/// Configuration and TLS for a connection string. Certificates are always verified against the
/// system's roots; `sslmode=disable` turns TLS off.
pub(crate) fn parse_url(url: &str) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let mut config: Config = url
        .parse()
        .map_err(|e| StoreError::setup(format!("DATABASE_URL is not a connection string: {e}")))?;
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

/// The types of parameters beside their values, for statements sent without a name.
pub(crate) type Typed<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;
