//! `dispatch serve`: HTTP in front of the operations.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ops::{OpContext, OpError, Prober};
use crate::store;
use crate::surface::cli::roles::ServeArgs;
use crate::surface::connect::ConnectArgs;
use crate::surface::{auth, http};
use crate::telemetry;

use super::{catalogue, database, signals};

/// Connections of a server: answers are short, streams hold none while they wait.
const SERVE_CONNECTIONS: usize = 16;

/// Serve HTTP until SIGINT or SIGTERM.
pub async fn serve(connect: &ConnectArgs, args: ServeArgs) -> Result<(), OpError> {
    let database = database(connect).await?;
    let stop = signals::stop_on_signal()?;
    let prober = catalogue::prober();
    serve_until(
        &database.url,
        database.direct().to_owned(),
        args,
        prober,
        stop.signals.soft.clone(),
        announce,
    )
    .await
}

/// Serve HTTP until the token is cancelled; running answers are finished first.
pub async fn serve_until(
    url: &str,
    listen_url: String,
    args: ServeArgs,
    prober: Option<Arc<dyn Prober>>,
    stop: CancellationToken,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), OpError> {
    let gate = auth::Gate::from_args(&args)?;
    store::migrate::check(url).await?;
    let (mut context, listener) = OpContext::open(url, SERVE_CONNECTIONS, "http".to_owned())?;
    // Where agents can be tried, the machine is one that matters.
    context.examiner = prober.as_ref().and_then(|_| catalogue::examiner(None));
    context.prober = prober;
    let mut listening = JoinSet::new();
    let quiet = stop.clone();
    listening.spawn(async move { listener.run(&listen_url, quiet).await });
    listening.spawn(telemetry::keep_small(stop.clone()));
    let socket = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|e| OpError::unavailable(format!("cannot listen on {}: {e}", args.listen)))?;
    let address = socket.local_addr().unwrap_or(args.listen);
    tracing::info!(%address, "serving HTTP");
    on_ready(address);
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

/// The line that scripts wait for.
#[expect(clippy::print_stdout, reason = "it is the command's output")]
pub(super) fn announce(address: SocketAddr) {
    println!("dispatch is ready at http://{address}");
}
