//! Who did what. Written by the functions and triggers of what is done; here it is read, and written
//! for what happens outside the database.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use super::{Store, StoreError};

crate::statements! {
    /// A page of the audit log, newest first.
    LIST = "audit_list";
    /// A page of the tasks as acts of who submitted them, newest first.
    SUBMISSIONS = "audit_submissions", slow;
    /// An act that leaves no other trace in the database.
    NOTE = "audit_note";
}

crate::record! {
    /// One recorded act.
    pub struct AuditView {
        /// Its number in the audit log; null for a task that was submitted, whose row is the record.
        pub id: Option<i64>,
        /// The task that was submitted; null for everything else.
        pub task: Option<i64>,
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

/// Where a page of acts ended: the number of the last recorded one, and the last submitted task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number in the audit log.
    pub logged: i64,
    /// Number of a task.
    pub submitted: i64,
}

impl Position {
    /// Before the first page; of 18 digits, as every number of a cursor is at most.
    pub const NEWEST: Self = Self {
        logged: 999_999_999_999_999_999,
        submitted: 999_999_999_999_999_999,
    };

    /// After these rows more.
    pub fn after(self, rows: &[AuditView]) -> Self {
        let last = |number: fn(&AuditView) -> Option<i64>| rows.iter().rev().find_map(number);
        Self {
            logged: last(|row| row.id).unwrap_or(self.logged),
            submitted: last(|row| row.task).unwrap_or(self.submitted),
        }
    }
}

/// Acts after this position, newest first, submitted tasks among them.
pub async fn list(
    store: &Store,
    subject: Option<&str>,
    actor: Option<&str>,
    after: Position,
    most: i64,
) -> Result<Vec<AuditView>, StoreError> {
    let (logged, submitted) = (after.logged, after.submitted);
    let logged = store
        .query(&LIST, &[&logged, &subject, &actor, &most])
        .await?;
    let submitted = store
        .query(&SUBMISSIONS, &[&submitted, &subject, &actor, &most])
        .await?;
    let most = usize::try_from(most).unwrap_or(0);
    Ok(merged(read(&logged)?, read(&submitted)?)
        .take(most)
        .collect())
}

fn read(rows: &[Row]) -> Result<Vec<AuditView>, StoreError> {
    rows.iter().map(AuditView::read).collect()
}

/// One list by time. Each of the two keeps the order of its numbers, for a page goes on by them: two acts
/// of the same moment may have another order by time.
fn merged(logged: Vec<AuditView>, submitted: Vec<AuditView>) -> impl Iterator<Item = AuditView> {
    let mut logged = logged.into_iter().peekable();
    let mut submitted = submitted.into_iter().peekable();
    std::iter::from_fn(move || match (logged.peek(), submitted.peek()) {
        (Some(one), Some(other)) if one.at < other.at => submitted.next(),
        (Some(_), _) => logged.next(),
        (None, _) => submitted.next(),
    })
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
