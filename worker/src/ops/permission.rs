//! Questions of agents and their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::values::{PermissionRef, TaskRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::permissions::{self, PermissionFilter};

pub use crate::store::permissions::PermissionView;

/// Where a permission request stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum PermissionStatus {
    /// The agent waits for an answer.
    Pending,
    /// Somebody, or the policy, said yes.
    Allowed,
    /// Somebody, or the policy, said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// The attempt ended before an answer.
    Cancelled,
}

impl PermissionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// List permission requests, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListPermissions {
    /// Only with this status
    #[arg(long, short, value_enum)]
    pub status: Option<PermissionStatus>,
    /// Only of this task
    #[arg(long, short)]
    pub task: Option<TaskRef>,
    /// Rows of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = page::NUMBER))]
    pub cursor: Option<String>,
}

impl Op for ListPermissions {
    const SPEC: Spec = Spec {
        name: "permission.list",
        method: Method::Get,
        path: "/permissions",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List permission requests, newest first",
    };
    type Output = Page<PermissionView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "What waits for an answer",
            cli: &["--status", "pending", "--task", "42"],
            input: json!({"status": "pending", "task": 42}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let filter = PermissionFilter {
            status: self.status.map(PermissionStatus::as_str),
            task: self.task.map(|task| task.0.0),
            before: page::number(self.cursor.as_deref())?,
            most: size + 1,
        };
        let rows = permissions::list(&context.store, filter).await?;
        Ok(Page::cut(rows, size, |request| request.id.to_string()))
    }
}

/// Yes or no.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Yes, this once.
    Allow,
    /// No.
    Deny,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Answer a permission request.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct AnswerPermission {
    /// The request, such as 3
    #[arg(value_name = "REQUEST")]
    pub id: PermissionRef,
    /// allow (this once) or deny
    #[arg(value_enum, value_name = "ANSWER")]
    pub answer: Answer,
    /// Why
    #[arg(long, value_name = "WHY")]
    pub note: Option<String>,
}

/// An answered request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnsweredPermission {
    /// The request.
    pub id: i64,
    /// The answer.
    pub answer: Answer,
}

impl Op for AnswerPermission {
    const SPEC: Spec = Spec {
        name: "permission.answer",
        method: Method::Post,
        path: "/permissions/{id}/answer",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Review,
        summary: "Answer a permission request",
    };
    type Output = AnsweredPermission;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Yes",
            cli: &["3", "allow", "--note", "only this once"],
            input: json!({"id": 3, "answer": "allow", "note": "only this once"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        permissions::answer(
            &context.store,
            self.id.0,
            self.answer.as_str(),
            self.note.as_deref(),
            &context.actor,
        )
        .await?;
        Ok(AnsweredPermission {
            id: self.id.0.0,
            answer: self.answer,
        })
    }
}
