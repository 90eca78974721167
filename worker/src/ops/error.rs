//! Why an operation was not done, and what each surface says of it.

use std::fmt;

use crate::store::{StoreError, StoreErrorKind};

/// What kind of refusal or failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpErrorKind {
    /// A fault of ours.
    Internal,
    /// The input is wrong.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// The thing is not in a state for it, or somebody was faster.
    Conflict,
    /// The caller may not.
    Forbidden,
    /// Try again later.
    Unavailable,
}

impl OpErrorKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Internal,
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Forbidden,
        Self::Unavailable,
    ];

    /// Status of an HTTP answer.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::Invalid => 422,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Forbidden => 403,
            Self::Unavailable => 503,
        }
    }

    /// Exit code of the command line.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Forbidden => 6,
            Self::Unavailable => 8,
        }
    }

    /// How loudly a server logs it: only what an operator has to act on is more than a note.
    pub fn log_level(self) -> tracing::Level {
        match self {
            Self::Internal => tracing::Level::ERROR,
            Self::Unavailable => tracing::Level::WARN,
            Self::Invalid | Self::NotFound | Self::Conflict | Self::Forbidden => {
                tracing::Level::DEBUG
            }
        }
    }
}

/// An operation was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// What kind it is.
    pub kind: OpErrorKind,
    /// Stable word for programs.
    pub code: &'static str,
    /// What went wrong, for people.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// Digest of what is there now, when the caller saw something else.
    pub digest: Option<String>,
}

impl OpError {
    fn new(kind: OpErrorKind, code: &'static str, message: String) -> Self {
        Self {
            kind,
            code,
            message,
            hint: None,
            digest: None,
        }
    }

    /// The input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::Invalid, "invalid_input", message.into())
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::NotFound, "not_found", message.into())
    }

    /// The thing is not in a state for it.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::Conflict, "wrong_state", message.into())
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::Forbidden, "forbidden", message.into())
    }

    /// Try again later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::Unavailable, "unavailable", message.into())
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(OpErrorKind::Internal, "internal", message.into())
    }

    /// Log it as loudly as a server does.
    pub fn log(&self, op: &str) {
        match self.kind.log_level() {
            tracing::Level::ERROR => tracing::error!(op, error = %self, "an operation failed"),
            tracing::Level::WARN => {
                tracing::warn!(op, error = %self, "an operation is not possible now");
            }
            _ => tracing::debug!(op, error = %self, "an operation was refused"),
        }
    }

    /// The same with a way to mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The caller saw another version of a change than the one that is there.
    pub fn stale(change: i64, digest: &str) -> Self {
        let message = format!("change {change} is not the one you saw: its digest is {digest}");
        Self {
            digest: Some(digest.to_owned()),
            ..Self::new(OpErrorKind::Conflict, "stale", message)
        }
        .hint("Look at it again and name that digest.")
    }

    /// The same with a more exact word for programs.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpError {}

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        let (kind, code) = match error.kind {
            StoreErrorKind::Unavailable => (OpErrorKind::Unavailable, "unavailable"),
            StoreErrorKind::NotFound => (OpErrorKind::NotFound, "not_found"),
            StoreErrorKind::WrongState => (OpErrorKind::Conflict, "wrong_state"),
            StoreErrorKind::Stale => (OpErrorKind::Conflict, "stale"),
            StoreErrorKind::Invalid => (OpErrorKind::Invalid, "invalid_input"),
            StoreErrorKind::Duplicate => (OpErrorKind::Conflict, "duplicate"),
            StoreErrorKind::Forbidden => (OpErrorKind::Forbidden, "forbidden"),
            StoreErrorKind::Schema => (OpErrorKind::Unavailable, "schema_mismatch"),
            StoreErrorKind::Internal => (OpErrorKind::Internal, "internal"),
        };
        let rule = error.constraint.as_deref().and_then(rule);
        let message = rule.map_or(error.message, |rule| format!("not allowed: {rule}"));
        Self {
            kind,
            code,
            message,
            hint: error.hint,
            digest: None,
        }
    }
}

/// What a constraint of the schema wants, in words. One that is not known here is named as the sentence
/// it stands for.
fn rule(constraint: &str) -> Option<String> {
    let words = match constraint {
        "project_name_is_a_slug" => {
            "the name of a project is 1 to 63 lower-case letters, digits, dots, dashes and underscores, \
             and begins with a letter or a digit, such as shop or web-2"
        }
        "worktree_is_private_or_linked" => "a worktree is private or linked",
        "project_sandbox_is_known" => "the sandbox of a project is required, optional or none",
        "max_running_is_positive" => "max_running is a number from 1 on; 0 takes the limit away",
        "limit_is_not_negative" => "a limit is 0 or more",
        "four_eyes_is_on_or_off" => "four_eyes is on or off",
        other if other.contains("_is_") => return Some(other.replace('_', " ")),
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_rule_is_told_as_a_sentence() {
        let told = |constraint: &str| {
            let error = OpError::from(StoreError {
                kind: StoreErrorKind::Invalid,
                message: "new row violates check constraint".to_owned(),
                hint: None,
                constraint: Some(constraint.to_owned()),
            });
            assert_eq!(error.kind, OpErrorKind::Invalid);
            error.message
        };
        assert_eq!(
            told("limit_is_not_negative"),
            "not allowed: a limit is 0 or more"
        );
        assert!(told("project_name_is_a_slug").contains("such as shop"));
        assert_eq!(told("a_new_one_is_odd"), "not allowed: a new one is odd");
        assert_eq!(told("tasks_check"), "new row violates check constraint");
    }

    #[test]
    fn each_kind_has_an_exit_code_of_its_own() {
        let codes = OpErrorKind::ALL.map(OpErrorKind::exit_code);
        assert_eq!(codes, [1, 2, 4, 5, 6, 8]);
    }
}
