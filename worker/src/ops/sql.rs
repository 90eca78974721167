//! An operator's own SQL, for machines without psql. Not in the list of operations: it is for the
//! command line only, with the rights of the database login.

use super::OpError;
use crate::store::adhoc;

pub use crate::store::adhoc::ResultSet;

/// Run the text and give what each statement gave.
pub async fn run(url: &str, text: &str) -> Result<Vec<ResultSet>, OpError> {
    if text.trim().is_empty() {
        return Err(OpError::invalid("the statement is empty"));
    }
    Ok(adhoc::run(url, text).await?)
}
