//! What a process of the fleet does, from its arguments until it stops.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::localpg::{self, LocalPostgres};
use crate::ops::{OpContext, OpError, Prober};
use crate::store;
use crate::surface::cli::Wiring;
use crate::surface::cli::roles::{
    BenchArgs, ConfigCheckArgs, MigrateArgs, Role, ServeArgs, UpArgs, WorkerArgs,
};
use crate::surface::connect::ConnectArgs;
use crate::surface::{auth, http};
use crate::telemetry;

/// Connections of a server: answers are short, streams hold none while they wait.
const SERVE_CONNECTIONS: usize = 16;

/// Name of the database in the Postgres of `up`.
pub const LOCAL_DATABASE: &str = "dispatch";

/// What the command line gets from this program.
pub static WIRING: Wiring = Wiring {
    database_url: |connect| database_url(connect).boxed(),
    prober,
    role: |connect, role| async move { perform(&connect, role).await }.boxed(),
};

async fn perform(connect: &ConnectArgs, role: Role) -> Result<(), OpError> {
    match role {
        Role::Worker(args) => worker(connect, args).await,
        Role::Serve(args) => serve(connect, args).await,
        Role::Up(args) => up(connect, args).await,
        Role::Down => down(connect).await,
        Role::Migrate(args) => migrate(connect, args).await,
        Role::ConfigCheck(args) => config_check(args).await,
        Role::Bench(args) => bench(connect, args).await,
    }
}

/// Where the Postgres of `up` keeps its data.
pub fn local_data_dir(connect: &ConnectArgs) -> PathBuf {
    let named = connect.data.as_ref().map(|data| data.join("pg"));
    named.unwrap_or_else(localpg::default_data_dir)
}

/// The database to use: the one that is named, else the one that `up` started on this machine.
pub async fn database_url(connect: &ConnectArgs) -> Result<String, OpError> {
    if let Some(url) = connect
        .database_url
        .as_deref()
        .filter(|url| !url.is_empty())
    {
        return Ok(url.to_owned());
    }
    if let Some(postgres) = LocalPostgres::running(&local_data_dir(connect)).await {
        return Ok(postgres.url(LOCAL_DATABASE));
    }
    Err(OpError::unavailable(
        "no database: DATABASE_URL is not set and no local one is running",
    )
    .code("no_database")
    .hint("Start everything on this machine with `dispatch up`, or name the fleet's database with DATABASE_URL or --database-url."))
}

/// Claim tasks and run agents until told to stop.
pub async fn worker(_connect: &ConnectArgs, _args: WorkerArgs) -> Result<(), OpError> {
    Err(not_here("worker"))
}

/// A Postgres of its own, the schema, a worker and HTTP in one process.
pub async fn up(_connect: &ConnectArgs, _args: UpArgs) -> Result<(), OpError> {
    Err(not_here("up"))
}

/// Stop the Postgres that `up` started.
pub async fn down(_connect: &ConnectArgs) -> Result<(), OpError> {
    Err(not_here("down"))
}

/// Measure the queue and the streams.
pub async fn bench(_connect: &ConnectArgs, _args: BenchArgs) -> Result<(), OpError> {
    Err(not_here("bench"))
}

/// Read the catalogue and say what is wrong with it.
pub async fn config_check(_args: ConfigCheckArgs) -> Result<(), OpError> {
    Err(not_here("config check"))
}

fn not_here(role: &str) -> OpError {
    OpError::unavailable(format!("this build cannot do `dispatch {role}`"))
}

/// What starts agents to see whether they work; `None`: no agents can run in this process.
pub fn prober() -> Option<Arc<dyn Prober>> {
    None
}

/// Bring the schema up to date, or say whether it fits.
pub async fn migrate(connect: &ConnectArgs, args: MigrateArgs) -> Result<(), OpError> {
    let url = database_url(connect).await?;
    if args.check {
        store::migrate::check(&url).await?;
        println!(
            "The schema fits: version {}.",
            store::migrate::wanted_version()
        );
        return Ok(());
    }
    let applied = store::migrate::migrate(&url).await?;
    if applied.is_empty() {
        println!(
            "Nothing to do: version {}.",
            store::migrate::wanted_version()
        );
    }
    for migration in applied {
        println!("Applied {migration}.");
    }
    Ok(())
}

/// Serve HTTP until SIGINT or SIGTERM.
pub async fn serve(connect: &ConnectArgs, args: ServeArgs) -> Result<(), OpError> {
    let url = database_url(connect).await?;
    let stop = stop_on_signal()?;
    let listen_url = connect.listen_url.clone().unwrap_or_else(|| url.clone());
    serve_until(&url, listen_url, args, prober(), stop.token.clone()).await
}

/// Serve HTTP until the token is cancelled; running answers are finished first.
pub async fn serve_until(
    url: &str,
    listen_url: String,
    args: ServeArgs,
    prober: Option<Arc<dyn Prober>>,
    stop: CancellationToken,
) -> Result<(), OpError> {
    let gate = auth::Gate::from_args(&args)?;
    store::migrate::check(url).await?;
    let (mut context, listener) = OpContext::open(url, SERVE_CONNECTIONS, "http".to_owned())?;
    context.prober = prober;
    let mut listening = JoinSet::new();
    let quiet = stop.clone();
    listening.spawn(async move { listener.run(&listen_url, quiet).await });
    let socket = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|e| OpError::unavailable(format!("cannot listen on {}: {e}", args.listen)))?;
    let address = socket.local_addr().unwrap_or(args.listen);
    tracing::info!(%address, "serving HTTP");
    let app = http::router(http::App {
        context,
        gate: Arc::new(gate),
        metrics: telemetry::metrics(),
        stop: stop.clone(),
    });
    let served = http::serve(socket, app, stop.clone()).await;
    stop.cancel();
    listening.shutdown().await;
    served.map_err(|e| OpError::internal(format!("the HTTP server failed: {e}")))
}

/// A token that SIGINT and SIGTERM cancel.
struct StopOnSignal {
    token: CancellationToken,
    _waiting: JoinSet<()>,
}

fn stop_on_signal() -> Result<StopOnSignal, OpError> {
    let token = CancellationToken::new();
    let cannot = |e: std::io::Error| OpError::internal(format!("signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let cancel = token.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        cancel.cancel();
    });
    Ok(StopOnSignal {
        token,
        _waiting: waiting,
    })
}
