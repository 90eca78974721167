//! Migrations: plain SQL files, forward only, embedded, one at a time under an advisory lock.

use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::error::StoreError;
use super::rights;
use crate::domain::limits;

mod embedded {
    refinery::embed_migrations!("../migrations");
}

/// Key of the advisory lock that makes migrators queue up; any constant that is ours.
const LOCK_KEY: i64 = 0x6469_7370_6174_6368;

/// A pooler may hand us the same process again by chance; not this often.
const LOOKS: usize = 3;

/// Version of the schema that this program needs.
pub fn wanted_version() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|m| i64::from(m.version()))
        .max()
        .unwrap_or(0)
}

/// What a migration did.
#[derive(Debug)]
pub struct Migrated {
    /// Names of the migrations, in order; none: the schema was up to date.
    pub applied: Vec<String>,
    /// Whether the roles have their rights in what is there now. Not every owner of a database may
    /// make roles, and one that may not has a schema all the same.
    pub rights: Result<(), StoreError>,
}

/// Bring the schema up to this program's version. Refuses a connection that is no session (a pooler
/// in transaction mode), for the lock belongs to the session.
pub async fn migrate(url: &str) -> Result<Migrated, StoreError> {
    let (mut client, mut driver) = direct(url).await?;
    let applied = match refuse_shared(url, &client).await {
        Ok(()) => migrate_locked(&mut client).await,
        Err(error) => Err(error),
    };
    drop(client);
    driver.shutdown().await;
    applied
}

/// Looks for a pooler by asking from two connections which process of the server answers. One that
/// hands out processes per transaction gives the one that we just used to somebody else.
async fn refuse_shared(url: &str, client: &Client) -> Result<(), StoreError> {
    let (other, mut driver) = direct(url).await?;
    let asking = async {
        let mut shared = false;
        for _ in 0..LOOKS {
            shared = shared || is_shared(client, &other).await?;
        }
        Ok::<_, tokio_postgres::Error>(shared)
    };
    let shared = tokio::time::timeout(limits::CONNECT_TIMEOUT, asking).await;
    drop(other);
    driver.shutdown().await;
    let shared = shared
        .map_err(|_elapsed| StoreError::silent("migrate", limits::CONNECT_TIMEOUT))?
        .map_err(|error| StoreError::from_pg("migrate", &error))?;
    match shared {
        true => Err(StoreError::shared_session()),
        false => Ok(()),
    }
}

async fn is_shared(client: &Client, other: &Client) -> Result<bool, tokio_postgres::Error> {
    let mine = process_of(client).await?;
    // While its transaction is open, its process is its own.
    other.batch_execute("BEGIN").await?;
    let taken = process_of(other).await?;
    let shared = taken == mine || process_of(client).await? != mine;
    other.batch_execute("ROLLBACK").await?;
    Ok(shared)
}

async fn process_of(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let rows = client.query_typed("SELECT pg_backend_pid()", &[]).await?;
    rows.first().map(|row| row.try_get(0)).transpose()
}

async fn migrate_locked(client: &mut Client) -> Result<Migrated, StoreError> {
    // A session of our own, so this may be set. It holds for the locks of the migrations, too.
    client
        .batch_execute("SET lock_timeout = '10min'")
        .await
        .map_err(|e| StoreError::from_pg("migrate", &e))?;
    take_lock(client).await?;
    refuse_newer(schema_version(client).await?)?;
    let report = embedded::migrations::runner()
        .run_async(client)
        .await
        .map_err(|e| StoreError::schema(format!("a migration failed: {}", chain(&e))))?;
    let applied: Vec<String> = report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    let rights = match applied.is_empty() {
        true => Ok(()),
        false => rights::grant_by(client).await.map(|_made| ()),
    };
    Ok(Migrated { applied, rights })
}

/// One migrator at a time. Before the first one there is nothing to lock but a number, and any login can
/// hold that: who waits says for whom.
async fn take_lock(client: &Client) -> Result<(), StoreError> {
    let failed = |error| StoreError::from_pg("migration_lock", &error);
    let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK_KEY]);
    if row.await.map_err(failed)?.try_get(0)? {
        return Ok(());
    }
    let holder =
        "SELECT a.usename::text, a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                     AND (l.classid::bigint << 32) | l.objid::bigint = $1
                     AND a.datname = current_database()";
    for row in client.query(holder, &[&LOCK_KEY]).await.map_err(failed)? {
        let (login, process): (Option<String>, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
        tracing::warn!(
            login,
            process,
            "another session holds the lock of migrations; waiting for it. If it is no migration, end it: SELECT pg_terminate_backend(process)"
        );
    }
    let wait = client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]);
    wait.await.map_err(failed).map(|_row| ())
}

/// The version the database has; 0 when it has no schema of ours.
async fn schema_version(client: &Client) -> Result<i64, StoreError> {
    // Never prepared by name: a pooler may give the next message to another session.
    let there = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
    let there = client.query_typed(there, &[]).await?;
    let is_there = there.first().map(|row| row.try_get::<_, bool>(0));
    if !is_there.transpose()?.unwrap_or(false) {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history";
    let rows = client.query_typed(newest, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::no_row("schema_version"))?;
    Ok(row.try_get(0)?)
}

fn refuse_newer(found: i64) -> Result<(), StoreError> {
    let wanted = wanted_version();
    if found > wanted {
        return Err(StoreError::schema(format!(
            "the database has schema version {found}; this program knows versions up to {wanted}. \
             Run a newer dispatch, or restore a backup"
        )));
    }
    Ok(())
}

/// Refuse to start on a schema that is older or newer than this program's.
pub async fn check(url: &str) -> Result<(), StoreError> {
    let (client, mut driver) = direct(url).await?;
    let found = tokio::time::timeout(limits::QUERY_TIMEOUT, schema_version(&client)).await;
    drop(client);
    driver.shutdown().await;
    let found =
        found.map_err(|_elapsed| StoreError::silent("schema_version", limits::QUERY_TIMEOUT))??;
    refuse_newer(found)?;
    let wanted = wanted_version();
    if found < wanted {
        return Err(StoreError::schema(format!(
            "the database has schema version {found}, {wanted} is needed. Run: dispatch migrate"
        )));
    }
    Ok(())
}

/// A connection of its own, with what drives it.
pub(super) async fn direct(url: &str) -> Result<(Client, JoinSet<()>), StoreError> {
    let (config, tls) = super::parse_url(url)?;
    let connecting = tokio::time::timeout(limits::CONNECT_TIMEOUT, config.connect(tls));
    let (client, connection) = connecting
        .await
        .map_err(|_elapsed| StoreError::silent("connect", limits::CONNECT_TIMEOUT))?
        .map_err(|e| StoreError::from_pg("connect", &e).at(&super::place(&config)))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a direct connection ended");
        }
    });
    Ok((client, driver))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Make a database if it is not there. `url` leads to another database of the same server.
pub async fn ensure_database(url: &str, name: &str) -> Result<(), StoreError> {
    let (client, mut driver) = direct(url).await?;
    let quoted = name.replace('"', "\"\"");
    let made = client
        .batch_execute(&format!("CREATE DATABASE \"{quoted}\""))
        .await;
    drop(client);
    driver.shutdown().await;
    match made {
        Err(error)
            if error.code() != Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) =>
        {
            Err(StoreError::from_pg("create_database", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
