//! Fleet-wide settings, as people see and set them. Workers write what their agents.toml says (`fleet`).

use std::collections::BTreeMap;

use super::{Store, StoreError};

crate::statements! {
    /// Those of these names that are set.
    LIST = "setting_list";
    /// Set one.
    SET = "setting_set";
}

/// Values of the settings of these names that are set.
pub async fn list(store: &Store, names: &[&str]) -> Result<BTreeMap<String, String>, StoreError> {
    let rows = store.query(&LIST, &[&names]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("value")?)))
        .collect()
}

/// Set one; gives what it is now.
pub async fn set(
    store: &Store,
    name: &str,
    value: &str,
    actor: &str,
) -> Result<String, StoreError> {
    let row = store.query_one(&SET, &[&name, &value, &actor]).await?;
    Ok(row.try_get("value")?)
}
