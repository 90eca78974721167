//! What people sent, as the attempt takes it.

use super::claims::Lease;
use super::{Store, StoreError};

crate::statements! {
    TAKE = "take_messages";
}

/// What was sent since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Messages in the order in which they were sent. When there are some, they are stored as one
    /// message of the user, joined by a blank line, under the number that was given.
    pub texts: Vec<String>,
    /// Somebody asked for the conversation to be compacted.
    pub compact: bool,
}

/// Take what was sent into the attempt's conversation, before this step. `seq` is the number of the
/// message that comes next: after a lost answer the same number gives the same texts. `None`: the lease
/// is gone.
pub async fn take(
    store: &Store,
    lease: &Lease,
    step: i32,
    seq: i64,
) -> Result<Option<Taken>, StoreError> {
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0, &step, &seq];
    let row = store.query_opt(&TAKE, params).await?;
    row.map(|row| {
        Ok(Taken {
            texts: row.try_get("texts")?,
            compact: row.try_get("compact")?,
        })
    })
    .transpose()
}
