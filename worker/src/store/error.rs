//! Errors of the store, sorted by what the caller can do about them.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The database cannot be reached or said "later": try again.
    Unavailable,
    /// There is no such row.
    NotFound,
    /// The row is not in a state for it.
    WrongState,
    /// The caller saw an older version.
    Stale,
    /// A bad value; the message says which.
    Invalid,
    /// The same key is there already.
    Duplicate,
    /// The login may not do this.
    Forbidden,
    /// The schema is missing, too old or too new.
    Schema,
    /// A fault of ours.
    Internal,
}

/// An error of the store.
#[derive(Debug)]
pub struct StoreError {
    /// What can be done about it.
    pub kind: StoreErrorKind,
    /// What went wrong, for people.
    pub message: String,
    /// How to mend it, when Postgres or we know.
    pub hint: Option<String>,
    /// The violated constraint, when it was one.
    pub constraint: Option<String>,
}

impl StoreError {
    pub(crate) fn setup(message: String) -> Self {
        Self {
            kind: StoreErrorKind::Invalid,
            message,
            hint: None,
            constraint: None,
        }
    }

    /// The schema does not fit this program.
    pub(crate) fn schema(message: String) -> Self {
        Self {
            kind: StoreErrorKind::Schema,
            message,
            hint: None,
            constraint: None,
        }
    }

    /// What needs a session was asked of a connection that is none.
    pub(crate) fn shared_session() -> Self {
        Self {
            kind: StoreErrorKind::Invalid,
            message: "migrations need a direct connection, and this one leads through a pooler in transaction mode".to_owned(),
            hint: Some("Set DATABASE_LISTEN_URL (or --listen-url) to the address of the server itself.".to_owned()),
            constraint: None,
        }
    }

    /// There is no database to ask.
    pub(crate) fn absent(message: &str, hint: Option<&str>) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            constraint: None,
        }
    }

    pub(crate) fn no_row(statement: &str) -> Self {
        Self {
            kind: StoreErrorKind::Internal,
            message: format!("statement {statement} gave no row"),
            hint: None,
            constraint: None,
        }
    }

    /// No answer came; what was asked may have been done or not.
    pub(crate) fn silent(what: &str, patience: Duration) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            message: format!("{what}: the database did not answer within {patience:?}"),
            hint: None,
            constraint: None,
        }
    }

    pub(crate) fn from_pool(error: &deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => Self::from_pg("connect", error),
            other => Self {
                kind: StoreErrorKind::Unavailable,
                message: format!("no database connection: {other}"),
                hint: None,
                constraint: None,
            },
        }
    }

    /// The same of a connection that was not made, with the place where it was tried.
    pub(crate) fn at(mut self, place: &str) -> Self {
        let usual =
            "Is the server up, and is that its address? DATABASE_URL or --database-url names it.";
        let is_known = self.hint.is_some();
        match self.kind {
            StoreErrorKind::Unavailable => {
                self.message = format!("{} (the database at {place})", self.message);
                self.hint.get_or_insert_with(|| usual.to_owned());
            }
            StoreErrorKind::Forbidden | StoreErrorKind::Schema if !is_known => {
                self.hint = Some(format!(
                    "It was asked at {place}, which DATABASE_URL or --database-url names."
                ));
            }
            _ => {}
        }
        self
    }

    pub(crate) fn from_pg(statement: &str, error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::without_server(statement, error);
        };
        let code = db.code();
        let kind = kind_of(code);
        let message = match kind {
            StoreErrorKind::Internal => format!("{statement}: {} ({})", db.message(), code.code()),
            _ => db.message().to_owned(),
        };
        Self {
            kind,
            message,
            hint: db.hint().map(str::to_owned).or_else(|| hint_for(code)),
            constraint: db.constraint().map(str::to_owned),
        }
    }

    fn without_server(statement: &str, error: &tokio_postgres::Error) -> Self {
        let mut message = format!("{statement}: {error}");
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let conversion =
            message.contains("error deserializing") || message.contains("error serializing");
        let kind = if conversion {
            StoreErrorKind::Internal
        } else {
            StoreErrorKind::Unavailable
        };
        Self {
            kind,
            message,
            hint: None,
            constraint: None,
        }
    }

    /// Whether trying the same again later may help.
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

fn kind_of(code: &SqlState) -> StoreErrorKind {
    match code.code() {
        "P0002" | "02000" => StoreErrorKind::NotFound,
        "55000" => StoreErrorKind::WrongState,
        "40001" => StoreErrorKind::Stale,
        "23505" => StoreErrorKind::Duplicate,
        "42501" | "28000" | "28P01" => StoreErrorKind::Forbidden,
        "42P01" | "42883" | "42703" | "3D000" => StoreErrorKind::Schema,
        // 25006: a server that is still, or again, a standby.
        "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25006" => {
            StoreErrorKind::Unavailable
        }
        // Connection, resources of the server, its disk.
        other
            if ["08", "53", "58"]
                .iter()
                .any(|class| other.starts_with(class)) =>
        {
            StoreErrorKind::Unavailable
        }
        other if other.starts_with("22") || other.starts_with("23") => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Internal,
    }
}

fn hint_for(code: &SqlState) -> Option<String> {
    match code.code() {
        "42P01" | "42883" | "42703" => Some("Run: dispatch migrate".to_owned()),
        "42501" => Some(
            "The login of DATABASE_URL has no right to it; docs/sql.md says who may do what."
                .to_owned(),
        ),
        "3D000" => Some("Create the database, then run: dispatch migrate".to_owned()),
        _ => None,
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StoreError {}

/// A column that does not have the type it should have.
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from_pg("row", &error)
    }
}
