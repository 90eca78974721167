//! Who did what. Written by the functions and statements that do it; only read here.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};

crate::statements! {
    /// A page of the audit log, newest first.
    LIST = "audit_list";
}

crate::record! {
    /// One recorded act.
    pub struct AuditView {
        /// Its number.
        pub id: i64,
        /// When.
        pub at: DateTime<Utc>,
        /// Who.
        pub actor: String,
        /// What.
        pub action: String,
        /// To what.
        pub subject: String,
        /// With which facts.
        pub detail: Value,
    }
}

/// Acts, newest first.
pub async fn list(
    store: &Store,
    subject: Option<&str>,
    actor: Option<&str>,
    before: Option<i64>,
    most: i64,
) -> Result<Vec<AuditView>, StoreError> {
    let before = before.unwrap_or(i64::MAX);
    let rows = store
        .query(&LIST, &[&before, &subject, &actor, &most])
        .await?;
    rows.iter().map(AuditView::read).collect()
}
