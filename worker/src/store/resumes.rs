//! The end of a provider's pause, by a person.

use super::{Store, StoreError};

crate::statements! {
    /// Ask a provider again.
    RESUME = "provider_resume";
    /// Whether a worker has such a provider.
    NAMED = "provider_named";
}

/// Ask a provider again before its pause is over; says whether there was one.
pub async fn resume(store: &Store, provider: &str, actor: &str) -> Result<bool, StoreError> {
    let row = store.query_one(&RESUME, &[&provider, &actor]).await?;
    Ok(row.try_get("was_paused")?)
}

/// Whether an agent of a worker names this provider.
pub async fn is_named(store: &Store, provider: &str) -> Result<bool, StoreError> {
    let row = store.query_one(&NAMED, &[&provider]).await?;
    Ok(row.try_get("named")?)
}
