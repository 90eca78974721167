//! What a process of the fleet does, from its arguments until it stops.

mod add_agent;
mod bench;
mod catalogue;
mod doctor;
mod serve;
mod signals;
mod survey;
mod up;
mod worker;

use std::path::PathBuf;

use futures::FutureExt;
use serde_json::json;

use crate::blocking;
use crate::config::credentials;
use crate::config::database::Database;
use crate::localpg::{self, LocalPostgres};
use crate::ops::OpError;
use crate::store;
use crate::surface::cli::Wiring;
use crate::surface::cli::roles::{MigrateArgs, Report, Role};
use crate::surface::connect::ConnectArgs;
use crate::telemetry;

pub use serve::{serve, serve_until};

/// Name of the database in the Postgres of `up`.
pub const LOCAL_DATABASE: &str = "dispatch";

/// What the command line gets from this program.
pub static WIRING: Wiring = Wiring {
    database: |connect| database(connect).boxed(),
    prober: catalogue::telling_prober,
    examiner: catalogue::examiner,
    surveyor: survey::surveyor,
    role: |connect, role| async move { perform(&connect, role).await }.boxed(),
};

async fn perform(connect: &ConnectArgs, role: Role) -> Result<Option<Report>, OpError> {
    match role {
        Role::Worker(args) => worker::worker(connect, args).await?,
        Role::Serve(args) => serve(connect, args).await?,
        Role::Up(args) => up::up(connect, args).await?,
        Role::Bench(args) => bench::bench(connect, args).await?,
        Role::Down => return up::down(connect).await.map(Some),
        Role::Migrate(args) => return migrate(connect, args).await.map(Some),
        Role::ConfigCheck(args) => return catalogue::config_check(&args).map(Some),
        Role::AddAgent(args) => return add_agent::add_agent(&args).map(Some),
    }
    Ok(None)
}

/// Where this machine's stores, worktrees and homes live.
pub fn data_dir(connect: &ConnectArgs) -> PathBuf {
    connect.data.clone().unwrap_or_else(|| {
        let postgres = localpg::default_data_dir();
        postgres
            .parent()
            .map_or_else(|| postgres.clone(), PathBuf::from)
    })
}

/// Where the Postgres of `up` keeps its data.
pub fn local_data_dir(connect: &ConnectArgs) -> PathBuf {
    let named = connect.data.as_ref().map(|data| data.join("pg"));
    named.unwrap_or_else(localpg::default_data_dir)
}

/// The database to use: the one that is named, else the one that `up` started on this machine.
pub async fn database(connect: &ConnectArgs) -> Result<Database, OpError> {
    if let Some(named) = named_database(connect).await? {
        return Ok(named);
    }
    if let Some(postgres) = LocalPostgres::running(&local_data_dir(connect)).await {
        let local = Database::at(postgres.url(LOCAL_DATABASE));
        keep_out(&local);
        return Ok(local);
    }
    Err(OpError::unavailable(
        "no database: DATABASE_URL is not set and no local one is running",
    )
    .code("no_database")
    .hint("Start everything on this machine with `dispatch up`, or name the fleet's database with DATABASE_URL or --database-url."))
}

/// The database that flags, variables or files name.
async fn named_database(connect: &ConnectArgs) -> Result<Option<Database>, OpError> {
    let named = connect.named();
    let found = blocking::run(move || named.find())
        .await
        .map_err(|error| OpError::internal(error.to_string()))?
        .map_err(OpError::invalid)?;
    found.iter().for_each(keep_out);
    Ok(found)
}

fn keep_out(database: &Database) {
    telemetry::keep_out(&credentials::of_url("DATABASE_URL", &database.url));
    if let Some(url) = &database.listen_url {
        telemetry::keep_out(&credentials::of_url("DATABASE_LISTEN_URL", url));
    }
}

/// Bring the schema up to date, or say whether it fits.
pub async fn migrate(connect: &ConnectArgs, args: MigrateArgs) -> Result<Report, OpError> {
    let database = database(connect).await?;
    let version = store::migrate::wanted_version();
    if args.check {
        store::migrate::check(&database.url).await?;
        return Ok(Report {
            text: format!("The schema fits: version {version}."),
            document: json!({"version": version}),
        });
    }
    let direct = database.direct();
    let migrated = store::migrate::migrate(direct).await?;
    let mut text = Vec::new();
    if migrated.applied.is_empty() && !args.roles {
        text.push(format!("Nothing to do: version {version}."));
    }
    let applied = migrated.applied;
    text.extend(applied.iter().map(|one| format!("Applied {one}.")));
    let mut made = Vec::new();
    let mut without_rights = None;
    if args.roles {
        made = store::rights::grant(direct).await?;
        text.extend(made.iter().map(|role| format!("Made role {role}.")));
        text.push("Submitters, reviewers and workers have their rights.".to_owned());
    } else if let Err(error) = migrated.rights {
        text.push(format!(
            "The owner's login can do everything; there are no logins with fewer rights yet: {error}"
        ));
        without_rights = Some(error.to_string());
    }
    Ok(Report {
        text: text.join("\n"),
        document: json!({
            "version": version, "applied": applied, "roles_made": made, "without_rights": without_rights,
        }),
    })
}
