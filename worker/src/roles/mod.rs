//! What a process of the fleet does, from its arguments until it stops.

mod add_agent;
mod bench;
mod catalogue;
mod check;
mod doctor;
mod serve;
mod signals;
mod survey;
mod up;
mod worker;

use std::path::PathBuf;

use futures::FutureExt;

use crate::blocking;
use crate::config::credentials;
use crate::config::database::Database;
use crate::localpg::{self, LocalPostgres};
use crate::ops::OpError;
use crate::store;
use crate::surface::cli::Wiring;
use crate::surface::cli::roles::{MigrateArgs, Role};
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

async fn perform(connect: &ConnectArgs, role: Role) -> Result<(), OpError> {
    match role {
        Role::Worker(args) => worker::worker(connect, args).await,
        Role::Serve(args) => serve(connect, args).await,
        Role::Up(args) => up::up(connect, args).await,
        Role::Down => up::down(connect).await,
        Role::Migrate(args) => migrate(connect, args).await,
        Role::ConfigCheck(args) => catalogue::config_check(&args),
        Role::AddAgent(args) => add_agent::add_agent(&args),
        Role::Bench(args) => bench::bench(connect, args).await,
    }
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
pub async fn migrate(connect: &ConnectArgs, args: MigrateArgs) -> Result<(), OpError> {
    let database = database(connect).await?;
    if args.check {
        store::migrate::check(&database.url).await?;
        println!(
            "The schema fits: version {}.",
            store::migrate::wanted_version()
        );
        return Ok(());
    }
    let direct = database.direct();
    let migrated = store::migrate::migrate(direct).await?;
    if migrated.applied.is_empty() && !args.roles {
        println!(
            "Nothing to do: version {}.",
            store::migrate::wanted_version()
        );
    }
    for migration in migrated.applied {
        println!("Applied {migration}.");
    }
    if args.roles {
        for role in store::rights::grant(direct).await? {
            println!("Made role {role}.");
        }
        println!("Submitters, reviewers and workers have their rights.");
    } else if let Err(error) = migrated.rights {
        println!(
            "The owner's login can do everything; there are no logins with fewer rights yet: {error}"
        );
    }
    Ok(())
}
