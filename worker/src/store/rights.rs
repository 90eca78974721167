//! The roles of submitters, reviewers and workers. What each may do is data (the table `rights`); here
//! it is put into force, by a login that may.

use tokio_postgres::Client;

use super::error::StoreError;
use super::migrate;
use crate::domain::limits;

/// Make the roles that are not there and give all of them their rights in this database; the names of
/// those that were made. A login that may not make roles is `Forbidden`, with what to do instead.
pub async fn grant(url: &str) -> Result<Vec<String>, StoreError> {
    let (client, mut driver) = migrate::direct(url).await?;
    let made = tokio::time::timeout(limits::QUERY_TIMEOUT, grant_by(&client)).await;
    drop(client);
    driver.shutdown().await;
    made.map_err(|_elapsed| StoreError::silent("grant_rights", limits::QUERY_TIMEOUT))?
}

/// The same on a connection that is there.
pub(super) async fn grant_by(client: &Client) -> Result<Vec<String>, StoreError> {
    // Not prepared by name: a pooler may give the next message to another session.
    let rows = client
        .query_typed("SELECT grant_rights()", &[])
        .await
        .map_err(|error| StoreError::from_pg("grant_rights", &error))?;
    let made = rows.first().map(|row| row.try_get(0)).transpose()?;
    Ok(made.unwrap_or_default())
}
