//! `dispatch worker`: claim tasks and run agents until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::process;
use crate::config::database::Database;
use crate::config::worker::WorkerSettings;
use crate::ops::{OpContext, OpError};
use crate::queue::supervisor::{StopSignals, Worker, WorkerError};
use crate::sandbox::descriptors;
use crate::store::listen::Listener;
use crate::store::migrate;
use crate::surface::cli::roles::WorkerArgs;
use crate::surface::connect::ConnectArgs;
use crate::surface::{auth, http};
use crate::telemetry;

use super::{catalogue, data_dir, database, signals};

/// Connections of a worker beside those of its heartbeat and its listener.
const CONNECTIONS: usize = 8;

/// The role.
pub(super) async fn worker(connect: &ConnectArgs, args: WorkerArgs) -> Result<(), OpError> {
    let database = database(connect).await?;
    migrate::check(&database.url).await?;
    let stop = signals::stop_on_signal()?;
    let settings = settings(&args, database, connect);
    run(settings, args, stop.signals.clone()).await
}

/// Settings from flags.
pub(super) fn settings(
    args: &WorkerArgs,
    database: Database,
    connect: &ConnectArgs,
) -> WorkerSettings {
    WorkerSettings {
        database_url: database.url,
        listen_url: database.listen_url,
        data_dir: data_dir(connect),
        secret_files: connect.named().files().collect(),
        agents_file: args.agents.clone(),
        slots: u32::from(args.slots),
        name: args.name.clone().unwrap_or_else(host_name),
        drain: args.drain_timeout.0,
        allow_hooks: args.allow_hooks,
        sandbox: args.sandbox.0,
        helper: None,
        connections: CONNECTIONS,
    }
}

/// Run a worker with these settings until stopped.
pub(super) async fn run(
    settings: WorkerSettings,
    args: WorkerArgs,
    stop: StopSignals,
) -> Result<(), OpError> {
    let catalogue = catalogue::load(&args.agents)?;
    // Before anything is counted.
    let metrics = telemetry::metrics();
    if let Err(error) = process::become_subreaper() {
        tracing::warn!(%error, "orphans of agents go to init; they are found by their mark instead");
    }
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let listener = Listener::new();
    let listen_url = settings
        .listen_url
        .clone()
        .unwrap_or_else(|| settings.database_url.clone());
    let health_url = settings.database_url.clone();
    let (worker, writer) = Worker::start(settings, catalogue, listener.clone())
        .await
        .map_err(worker_error)?;
    // LISTEN and health go on until the last attempt has ended.
    let over = CancellationToken::new();
    let mut beside = JoinSet::new();
    let quiet = over.clone();
    beside.spawn(async move { listener.run(&listen_url, quiet).await });
    beside.spawn(telemetry::keep_small(over.clone()));
    if let Some(address) = args.health {
        let app = health(&health_url, metrics, stop.soft.clone())?;
        let socket = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| OpError::unavailable(format!("cannot listen on {address}: {e}")))?;
        announce_health(socket.local_addr().unwrap_or(address));
        let ended = over.clone();
        beside.spawn(async move {
            if let Err(error) = http::serve(socket, app, ended).await {
                tracing::warn!(%error, "health is not served any more");
            }
        });
    }
    let result = worker.run(writer, stop).await.map_err(worker_error);
    over.cancel();
    while beside.join_next().await.is_some() {}
    result
}

/// Port 0 stands for any free one: scripts read here which it is.
#[expect(clippy::print_stdout, reason = "it is the command's output")]
fn announce_health(address: SocketAddr) {
    println!("health is at http://{address}");
}

fn health(
    url: &str,
    metrics: Option<PrometheusHandle>,
    stop: CancellationToken,
) -> Result<axum::Router, OpError> {
    let (context, _silent) = OpContext::open(url, 1, "health".to_owned())?;
    Ok(http::health_router(http::App {
        context,
        gate: Arc::new(auth::Gate::closed()),
        metrics,
        stop,
    }))
}

pub(super) fn worker_error(error: WorkerError) -> OpError {
    match error {
        WorkerError::Store(error) => error.into(),
        WorkerError::Workspace(error) => OpError::unavailable(error.to_string()).code("workspace"),
        WorkerError::Setup(message) => OpError::unavailable(message).code("setup"),
    }
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned())
}
