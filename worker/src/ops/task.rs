//! Looking at tasks, and stopping or repeating them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::values::TaskRef;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::attention::AttentionFilter;
use crate::domain::event::TaskEvent;
use crate::domain::ids::TaskId;
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::domain::task::TaskState;
use crate::store::permissions::{self, PermissionFilter, PermissionView};
use crate::store::tasks::{self, TaskFilter};
use crate::store::{Store, StoreError, StoreErrorKind, history, streams};

pub use crate::store::history::AttemptView;
pub use crate::store::tasks::TaskView;

/// List tasks, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListTasks {
    /// Only in this state: pending, running, completed, failed or cancelled
    #[arg(long, short, value_parser = state)]
    pub state: Option<TaskState>,
    /// Only those that wait for a person: any, permission, conflict, review, blocked or failed
    #[arg(long, num_args = 0..=1, default_missing_value = "any", value_name = "KIND", value_parser = attention)]
    pub attention: Option<AttentionFilter>,
    /// Only of this project
    #[arg(long, short)]
    pub project: Option<String>,
    /// Only for this agent
    #[arg(long, short)]
    pub agent: Option<String>,
    /// Rows of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = page::NUMBER))]
    pub cursor: Option<String>,
}

fn state(text: &str) -> Result<TaskState, String> {
    TaskState::parse(text).ok_or_else(|| {
        let names = TaskState::ALL.map(TaskState::as_str).join(", ");
        format!("a state is one of {names}")
    })
}

fn attention(text: &str) -> Result<AttentionFilter, String> {
    AttentionFilter::parse(text).ok_or_else(|| {
        let names = AttentionFilter::ALL.map(AttentionFilter::as_str).join(", ");
        format!("what waits for a person is one of {names}")
    })
}

impl Op for ListTasks {
    const SPEC: Spec = Spec {
        name: "task.list",
        method: Method::Get,
        path: "/tasks",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List tasks, newest first",
    };
    type Output = Page<TaskView>;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "The latest tasks",
                cli: &[],
                input: json!({}),
            },
            Example {
                about: "What waits for a person",
                cli: &["--attention"],
                input: json!({"attention": "any"}),
            },
            Example {
                about: "What failed in a project, the page after task 900",
                cli: &[
                    "--state",
                    "failed",
                    "--project",
                    "shop",
                    "--agent",
                    "opencode",
                    "--limit",
                    "20",
                    "--cursor",
                    "900",
                ],
                input: json!({"state": "failed", "project": "shop", "agent": "opencode", "limit": 20, "cursor": "900"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let filter = TaskFilter {
            state: self.state,
            attention: self.attention,
            project: self.project,
            agent: self.agent,
            before: page::number(self.cursor.as_deref())?,
            most: size + 1,
        };
        let rows = tasks::list(&context.store, &filter).await?;
        Ok(Page::cut(rows, size, |task| task.id.to_string()))
    }
}

/// Show a task with its attempts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowTask {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
}

/// A task with what happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDetail {
    /// Where it stands.
    #[serde(flatten)]
    pub task: TaskView,
    /// Its attempts, first to last, with what they used.
    pub attempt_list: Vec<AttemptView>,
    /// Questions of its agent that wait for an answer.
    pub open_permissions: Vec<PermissionView>,
}

impl Op for ShowTask {
    const SPEC: Spec = Spec {
        name: "task.show",
        method: Method::Get,
        path: "/tasks/{id}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show a task, its attempts and what they used",
    };
    type Output = TaskDetail;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One task",
            cli: &["42"],
            input: json!({"id": 42}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let id = self.id.0;
        let task = existing(&context.store, id).await?;
        let waiting = PermissionFilter {
            status: Some("pending"),
            task: Some(id.0),
            most: limits::PAGE_MAX,
            ..PermissionFilter::default()
        };
        Ok(TaskDetail {
            task,
            attempt_list: history::attempts(&context.store, id).await?,
            open_permissions: permissions::list(&context.store, waiting).await?,
        })
    }
}

/// The task, or an error that says there is none.
pub(crate) async fn existing(store: &Store, id: TaskId) -> Result<TaskView, OpError> {
    tasks::get(store, id)
        .await?
        .ok_or_else(|| OpError::not_found(format!("there is no task {id}")).hint(LISTED))
}

const LISTED: &str = "dispatch list shows tasks.";

/// Why nothing is done to a task.
fn refused(error: StoreError) -> OpError {
    let is_missing = error.kind == StoreErrorKind::NotFound;
    let refused = OpError::from(error);
    match is_missing {
        true => refused.hint(LISTED),
        false => refused,
    }
}

/// A page of the stream of a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskEvents {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Only events after this number
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 0))]
    pub since_seq: Option<i64>,
    /// Events of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
}

impl Op for TaskEvents {
    const SPEC: Spec = Spec {
        name: "task.events",
        method: Method::Get,
        path: "/tasks/{id}/events/page",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Read a page of the stream of a task; next_cursor is the since_seq of the next one",
    };
    type Output = Page<TaskEvent>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "What came after event 7",
            cli: &["42", "--since-seq", "7", "--limit", "100"],
            input: json!({"id": 42, "since_seq": 7, "limit": 100}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let id = self.id.0;
        let since = self.since_seq.unwrap_or(0);
        if since < 0 {
            return Err(OpError::invalid(
                "since_seq is the number of an event, or 0",
            ));
        }
        let most = i32::try_from(size + 1).unwrap_or(i32::MAX);
        let events = streams::read(&context.store, id, since, most).await?;
        if events.is_empty() {
            existing(&context.store, id).await?;
        }
        Ok(Page::cut(events, size, |event| event.seq.to_string()))
    }
}

/// Cancel a task. Doing it twice is harmless.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CancelTask {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Why
    #[arg(long)]
    pub reason: Option<String>,
}

/// What came of a cancel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CancelledTask {
    /// The task.
    pub id: i64,
    /// `cancelled`: it had not begun; `cancel_requested`: its worker stops it now;
    /// `already_over`: nothing to do.
    pub outcome: String,
}

impl Op for CancelTask {
    const SPEC: Spec = Spec {
        name: "task.cancel",
        method: Method::Post,
        path: "/tasks/{id}/cancel",
        effect: Effect::Destructive,
        idempotent: true,
        scope: Scope::Submit,
        summary: "Cancel a task",
    };
    type Output = CancelledTask;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Stop one",
            cli: &["42", "--reason", "wrong branch"],
            input: json!({"id": 42, "reason": "wrong branch"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let id = self.id.0;
        let reason = self.reason.as_deref();
        let outcome = tasks::cancel(&context.store, id, reason, &context.actor).await;
        let outcome = outcome.map_err(refused)?;
        Ok(CancelledTask { id: id.0, outcome })
    }
}

/// Run an ended task once more.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RequeueTask {
    /// The task, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
}

impl Op for RequeueTask {
    const SPEC: Spec = Spec {
        name: "task.requeue",
        method: Method::Post,
        path: "/tasks/{id}/requeue",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Submit,
        summary: "Run an ended task once more; a change of it that waits for review is superseded",
    };
    type Output = TaskView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Once more",
            cli: &["42"],
            input: json!({"id": 42}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let requeued = tasks::requeue(&context.store, self.id.0, &context.actor).await;
        requeued.map_err(refused)?;
        existing(&context.store, self.id.0).await
    }
}
