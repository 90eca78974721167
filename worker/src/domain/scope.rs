//! What the holder of a token may ask for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One right of a token.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See tasks, changes, conversations, figures.
    Read,
    /// Submit tasks, talk to them, end them.
    Submit,
    /// Decide on changes and answer questions of agents.
    Review,
    /// Everything, projects and tokens too.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Review, Self::Admin];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Review => "review",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    /// Whether who has these may do what needs this one.
    pub fn is_in(self, held: &[Self]) -> bool {
        held.contains(&self) || held.contains(&Self::Admin)
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str).join(", ");
        Self::parse(text).ok_or_else(|| format!("is none of {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_has_every_scope_and_no_other_has_another() {
        for scope in Scope::ALL {
            assert!(scope.is_in(&[Scope::Admin]));
            assert!(scope.is_in(&[scope]));
            assert!(!scope.is_in(&[]));
            assert_eq!(scope.as_str().parse(), Ok(scope));
            for other in Scope::ALL {
                assert_eq!(
                    other.is_in(&[scope]),
                    other == scope || scope == Scope::Admin
                );
            }
        }
    }
}
