//! Who did what. Written by the functions and triggers of what is done; here it is read, and written
//! for what happens outside the database.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Store, StoreError};

crate::statements! {
    /// A page of the audit log, newest first.
    LIST = "audit_list";
    /// An act that leaves no other trace in the database.
    NOTE = "audit_note";
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

/// Record an act that leaves no other trace in the database, before it is done.
pub async fn note(
    store: &Store,
    actor: &str,
    action: &str,
    subject: &str,
) -> Result<(), StoreError> {
    store.query(&NOTE, &[&actor, &action, &subject]).await?;
    Ok(())
}
