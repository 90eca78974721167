//! What a process of the fleet does, from its arguments until it stops.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ops::{OpContext, OpError, Prober};
use crate::store;
use crate::surface::cli::roles::{
    BenchArgs, ConfigCheckArgs, MigrateArgs, ServeArgs, UpArgs, WorkerArgs,
};
use crate::surface::connect::{self, ConnectArgs};
use crate::surface::{auth, http};
use crate::telemetry;

/// Connections of a server: answers are short, streams hold none while they wait.
const SERVE_CONNECTIONS: usize = 16;

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
    let url = connect::database_url(connect)?;
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
    let url = connect::database_url(connect)?;
    let stop = stop_on_signal()?;
    serve_until(&url, args, prober(), stop.token.clone()).await
}

/// Serve HTTP until the token is cancelled; running answers are finished first.
pub async fn serve_until(
    url: &str,
    args: ServeArgs,
    prober: Option<Arc<dyn Prober>>,
    stop: CancellationToken,
) -> Result<(), OpError> {
    let gate = auth::Gate::from_args(&args)?;
    store::migrate::check(url).await?;
    let (mut context, listener) = OpContext::open(url, SERVE_CONNECTIONS, "http".to_owned())?;
    context.prober = prober;
    let listen_url = args.listen_url.clone().unwrap_or_else(|| url.to_owned());
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
