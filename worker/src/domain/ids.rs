//! Identities, each its own type, so that a change id cannot stand where a task id is meant.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix('#').unwrap_or(text).parse().map(Self)
            }
        }
    };
}

number_id!(
    /// A durable request. Also names the conversation that the task began.
    TaskId
);
number_id!(
    /// A persisted thread of turns; equal to the id of its first task.
    ConversationId
);
number_id!(
    /// What one attempt left, for review.
    ChangeId
);
number_id!(
    /// A question of an agent during a run.
    PermissionId
);
number_id!(
    /// What somebody sent into a conversation.
    MessageId
);
number_id!(
    /// The right of somebody to call over HTTP.
    TokenId
);
number_id!(
    /// The fence: names one attempt for ever. Every write of an attempt carries it, and finds no
    /// lease once somebody else owns the task.
    LeaseToken
);

/// A worker process; new at each start, so that a reused host name is never mistaken for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl WorkerId {
    /// A fresh identity for this start of the process.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
