//! `dispatch up`: everything on this machine in one process, and `dispatch down`.

use serde_json::json;
use tokio::task::JoinSet;

use crate::config::database::Database;
use crate::localpg::{LocalPgError, LocalPostgres, Options, Stopped};
use crate::ops::OpError;
use crate::store::migrate;
use crate::surface::auth;
use crate::surface::cli::roles::{Report, UpArgs};
use crate::surface::connect::ConnectArgs;

use super::{LOCAL_DATABASE, catalogue, local_data_dir, named_database, serve, signals, worker};

/// A Postgres of its own (unless a database is named), the schema, a worker and HTTP.
pub(super) async fn up(connect: &ConnectArgs, args: UpArgs) -> Result<(), OpError> {
    let stop = signals::stop_on_signal()?;
    // What is wrong with them is said before anything starts.
    catalogue::load(&args.worker.agents)?;
    auth::Gate::from_args(&args.serve)?;
    let (database, postgres) = match named_database(connect).await? {
        Some(database) => (database, None),
        None => {
            let options = Options::durable(local_data_dir(connect));
            let postgres = LocalPostgres::start(options)
                .await
                .map_err(|e| local_error(&e))?;
            migrate::ensure_database(&postgres.url("postgres"), LOCAL_DATABASE).await?;
            let local = Database::at(postgres.url(LOCAL_DATABASE));
            (local, Some(postgres))
        }
    };
    if let Err(error) = migrate::migrate(database.direct()).await?.rights {
        tracing::info!(%error, "there are no logins with fewer rights than this one's");
    }
    let ran = both(connect, args, database, &stop).await;
    if let Some(postgres) = postgres {
        match postgres.stop().await {
            Ok(Stopped::Down | Stopped::StillUsed) => {}
            Err(error) => tracing::warn!(%error, "the local Postgres did not stop"),
        }
    }
    ran
}

async fn both(
    connect: &ConnectArgs,
    args: UpArgs,
    database: Database,
    stop: &signals::StopOnSignal,
) -> Result<(), OpError> {
    let (url, listen_url) = (database.url.clone(), database.direct().to_owned());
    let mut settings = worker::settings(&args.worker, database, connect);
    settings.secret_files.extend(args.serve.token_file.clone());
    let mut parts = JoinSet::new();
    let signals = stop.signals.clone();
    parts.spawn(worker::run(settings, args.worker, signals.clone()));
    let soft = signals.soft.clone();
    parts.spawn(async move {
        let prober = catalogue::prober();
        serve::serve_until(&url, listen_url, args.serve, prober, soft, serve::announce).await
    });
    let mut result = Ok(());
    while let Some(done) = parts.join_next().await {
        let done = done.unwrap_or_else(|error| Err(OpError::internal(error.to_string())));
        // One part that ends takes the other with it, in order.
        signals.soft.cancel();
        result = result.and(done);
    }
    result
}

/// Stop the Postgres that `up` left running, if nobody uses it.
pub(super) async fn down(connect: &ConnectArgs) -> Result<Report, OpError> {
    let joined = LocalPostgres::join(&local_data_dir(connect))
        .await
        .map_err(|e| local_error(&e))?;
    let (text, was, is) = match joined {
        None => ("No local Postgres is running.", false, false),
        Some(postgres) => match postgres.stop().await.map_err(|e| local_error(&e))? {
            Stopped::Down => ("The local Postgres is stopped.", true, false),
            Stopped::StillUsed => (
                "`dispatch up` is running and uses it: stop that first.",
                true,
                true,
            ),
        },
    };
    Ok(Report {
        text: text.to_owned(),
        document: json!({"was_running": was, "is_running": is}),
    })
}

fn local_error(error: &LocalPgError) -> OpError {
    OpError::unavailable(error.to_string()).code("local_postgres")
}
