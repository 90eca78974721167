//! Who did what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page, Parts};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::audit::{self, Position};

pub use crate::store::audit::AuditView;

/// Read who did what, newest first: the audit log, and who submitted each task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListAudit {
    /// Only about this, such as `task 42` or `change 7`
    #[arg(long)]
    pub subject: Option<String>,
    /// Only by this actor
    #[arg(long)]
    pub actor: Option<String>,
    /// Rows of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = CURSOR))]
    pub cursor: Option<String>,
}

impl Op for ListAudit {
    const SPEC: Spec = Spec {
        name: "audit.list",
        method: Method::Get,
        path: "/audit",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Read who did what, newest first",
    };
    type Output = Page<AuditView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "What one person did to one task",
            cli: &["--subject", "task 42", "--actor", "ada", "--limit", "10"],
            input: json!({"subject": "task 42", "actor": "ada", "limit": 10}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = match self.cursor.as_deref() {
            Some(cursor) => position(cursor)?,
            None => Position::NEWEST,
        };
        let rows = audit::list(
            &context.store,
            self.subject.as_deref(),
            self.actor.as_deref(),
            after,
            size + 1,
        )
        .await?;
        let shown = rows.len().min(usize::try_from(size).unwrap_or(0));
        let end = after.after(&rows[..shown]);
        Ok(Page::cut(rows, size, |_last| {
            format!("{}-{}", end.logged, end.submitted)
        }))
    }
}

/// Two numbers, since acts are of two kinds.
const CURSOR: &str = "^[0-9]{1,18}-[0-9]{1,18}$";

fn position(cursor: &str) -> Result<Position, OpError> {
    let mut parts = Parts::of(cursor, '-');
    let position = Position {
        logged: parts.figure()?,
        submitted: parts.figure()?,
    };
    parts.whole(position)
}
