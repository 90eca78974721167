//! Looking at pending changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::values::{ChangeRef, TaskRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::change::ChangeState;
use crate::domain::ids::ChangeId;
use crate::domain::scope::Scope;
use crate::store::Store;
use crate::store::changes::{self, ChangeFilter};

pub use crate::store::changes::{ChangeView, FileView, ReviewView};

/// List changes, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListChanges {
    /// Only in this state: pending, approved, rejected, applied, conflicted, superseded or undone
    #[arg(long, short, value_parser = state)]
    pub state: Option<ChangeState>,
    /// Only of this project
    #[arg(long, short)]
    pub project: Option<String>,
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

fn state(text: &str) -> Result<ChangeState, String> {
    ChangeState::parse(text).ok_or_else(|| {
        let names = ChangeState::ALL.map(ChangeState::as_str).join(", ");
        format!("a state is one of {names}")
    })
}

impl Op for ListChanges {
    const SPEC: Spec = Spec {
        name: "change.list",
        method: Method::Get,
        path: "/changes",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List changes, newest first",
    };
    type Output = Page<ChangeView>;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "What waits for review",
                cli: &["--state", "pending"],
                input: json!({"state": "pending"}),
            },
            Example {
                about: "Changes of one task",
                cli: &[
                    "--project",
                    "shop",
                    "--task",
                    "42",
                    "--limit",
                    "10",
                    "--cursor",
                    "7",
                ],
                input: json!({"project": "shop", "task": "42", "limit": 10, "cursor": "7"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let filter = ChangeFilter {
            state: self.state,
            project: self.project,
            task: self.task.map(|task| task.0.0),
            before: page::number(self.cursor.as_deref())?,
            most: size + 1,
        };
        let rows = changes::list(&context.store, &filter).await?;
        Ok(Page::cut(rows, size, |change| change.id.to_string()))
    }
}

/// Show a change: its files, their diffs and the decisions on it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Only this file
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
}

/// A change with its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeDetail {
    /// The change.
    #[serde(flatten)]
    pub change: ChangeView,
    /// Its files, or the one that was asked for.
    pub file_list: Vec<FileView>,
    /// The decisions on it, first to last.
    pub reviews: Vec<ReviewView>,
}

impl Op for ShowChange {
    const SPEC: Spec = Spec {
        name: "change.show",
        method: Method::Get,
        path: "/changes/{id}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show a change with the diff of each file",
    };
    type Output = ChangeDetail;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "All of it",
                cli: &["7"],
                input: json!({"id": 7}),
            },
            Example {
                about: "One file",
                cli: &["7", "--file", "src/lib.rs"],
                input: json!({"id": 7, "file": "src/lib.rs"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let id = self.id.0;
        let change = existing(&context.store, id).await?;
        let file_list = changes::files(&context.store, id, self.file.as_deref()).await?;
        if let (Some(path), true) = (&self.file, file_list.is_empty()) {
            return Err(no_file(id, path));
        }
        Ok(ChangeDetail {
            change,
            file_list,
            reviews: changes::reviews(&context.store, id).await?,
        })
    }
}

/// The change, or an error that says there is none.
pub(crate) async fn existing(store: &Store, id: ChangeId) -> Result<ChangeView, OpError> {
    changes::get(store, id).await?.ok_or_else(|| {
        OpError::not_found(format!("there is no change {id}"))
            .hint("dispatch changes list shows them.")
    })
}

/// There is no such file in it.
pub(super) fn no_file(id: ChangeId, path: &str) -> OpError {
    OpError::not_found(format!("change {id} has no file {path:?}"))
        .hint(format!("dispatch changes files {id} lists them."))
}
