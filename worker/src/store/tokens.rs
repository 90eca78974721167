//! Bearer tokens of HTTP, by their hashes.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::domain::scope::Scope;

crate::statements! {
    /// A new token.
    CREATE = "token_create";
    /// A page of them, newest first.
    LIST = "token_list";
    /// End one.
    REVOKE = "token_revoke";
    /// Whose one is.
    USE = "token_use";
}

/// A token as it is told, once.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its number.
    pub id: i64,
    /// The token itself.
    pub token: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

crate::record! {
    /// A token, without itself.
    pub struct TokenView {
        /// Its number.
        pub id: i64,
        /// Who holds it: the actor of what they do.
        pub name: String,
        /// What it is good for: read, submit, review, admin.
        pub scopes: Vec<String>,
        /// valid, expired or revoked.
        pub state: String,
        /// Who made it.
        pub created_by: String,
        /// When it was made.
        pub created_at: DateTime<Utc>,
        /// When it ends.
        pub expires_at: DateTime<Utc>,
        /// When it was used last, to the minute.
        pub last_used_at: Option<DateTime<Utc>>,
        /// When it was ended.
        pub revoked_at: Option<DateTime<Utc>>,
        /// Who ended it.
        pub revoked_by: Option<String>,
    }
}

/// Make a token that is valid for so many seconds.
pub async fn create(
    store: &Store,
    name: &str,
    scopes: &[Scope],
    seconds: f64,
    actor: &str,
) -> Result<NewToken, StoreError> {
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let row = store
        .query_one(&CREATE, &[&name, &scopes, &seconds, &actor])
        .await?;
    Ok(NewToken {
        id: row.try_get("id")?,
        token: row.try_get("token")?,
        expires_at: row.try_get("expires_at")?,
    })
}

/// Tokens below a number, newest first.
pub async fn list(store: &Store, before: i64, most: i64) -> Result<Vec<TokenView>, StoreError> {
    let rows = store.query(&LIST, &[&before, &most]).await?;
    rows.iter().map(TokenView::read).collect()
}

/// End a token now; says whether it was one until now.
pub async fn revoke(store: &Store, id: i64, actor: &str) -> Result<bool, StoreError> {
    let row = store.query_one(&REVOKE, &[&id, &actor]).await?;
    Ok(row.try_get("was_valid")?)
}

/// Whose token has this SHA-256, and what it is good for; `None`: nobody's, or it has ended.
pub async fn find(
    store: &Store,
    hash: &[u8; 32],
) -> Result<Option<(String, Vec<Scope>)>, StoreError> {
    let Some(row) = store.query_opt(&USE, &[&hash.as_slice()]).await? else {
        return Ok(None);
    };
    let scopes: Vec<String> = row.try_get("scopes")?;
    // One that a newer program made may have scopes that this one does not know: it grants none.
    let known = scopes.iter().filter_map(|name| Scope::parse(name));
    Ok(Some((row.try_get("name")?, known.collect())))
}
