//! Reading conversations, and making them shorter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page, Parts};
use super::task;
use super::values::TaskRef;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::history::{self, ItemPlace};
use crate::store::mail;

pub use crate::store::history::{ConversationTask, ConversationUsage, ConversationView, ItemView};

/// Show a conversation: its tasks and where they stand, what waits in it, and what it used.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowConversation {
    /// The conversation: any task of it, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
}

/// A conversation with its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConversationDetail {
    /// The conversation.
    #[serde(flatten)]
    pub conversation: ConversationView,
    /// Messages that no agent has yet.
    pub messages_waiting: i64,
    /// Its tasks in order; of more than 200 the newest.
    pub task_list: Vec<ConversationTask>,
    /// What its attempts used, a row for each currency.
    pub usage: Vec<ConversationUsage>,
}

impl Op for ShowConversation {
    const SPEC: Spec = Spec {
        name: "conversation.show",
        method: Method::Get,
        path: "/conversations/{id}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show a conversation: its tasks, what waits in it, what it used",
    };
    type Output = ConversationDetail;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The conversation of task 42",
            cli: &["42"],
            input: json!({"id": 42}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let store = &context.store;
        let id = task::existing(store, self.id.0).await?.conversation_id;
        let conversation = history::conversation(store, id).await?;
        let conversation =
            conversation.ok_or_else(|| OpError::not_found(format!("conversation {id} is gone")))?;
        Ok(ConversationDetail {
            conversation,
            messages_waiting: history::conversation_waiting(store, id).await?,
            task_list: history::conversation_tasks(store, id, limits::PAGE_MAX).await?,
            usage: history::conversation_usage(store, id).await?,
        })
    }
}

/// Read a conversation: what was said and done in all of its tasks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ConversationItems {
    /// The conversation: any task of it, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Items of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = ITEM))]
    pub cursor: Option<String>,
}

impl Op for ConversationItems {
    const SPEC: Spec = Spec {
        name: "conversation.items",
        method: Method::Get,
        path: "/conversations/{id}/items",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Read what was said and done in a conversation",
    };
    type Output = Page<ItemView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The next page of a conversation",
            cli: &["42", "--limit", "20", "--cursor", "42.1.20"],
            input: json!({"id": 42, "limit": 20, "cursor": "42.1.20"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = self.cursor.as_deref().map(place).transpose()?;
        let of = task::existing(&context.store, self.id.0).await?;
        let items = history::items(
            &context.store,
            of.conversation_id,
            after.unwrap_or_default(),
            size + 1,
        )
        .await?;
        Ok(Page::cut(items, size, |item| {
            format!("{}.{}.{}", item.task_id, item.attempt, item.n)
        }))
    }
}

/// What the cursor of an item looks like: task, attempt and number.
const ITEM: &str = r"^[0-9]{1,18}\.[0-9]{1,4}\.[0-9]{1,9}$";

/// List conversations, the one that began last first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListConversations {
    /// Only of this project
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Conversations of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = page::NUMBER))]
    pub cursor: Option<String>,
}

impl Op for ListConversations {
    const SPEC: Spec = Spec {
        name: "conversation.list",
        method: Method::Get,
        path: "/conversations",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List conversations, newest first, with their last tasks",
    };
    type Output = Page<ConversationView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Of one project",
            cli: &["--project", "shop", "--limit", "20", "--cursor", "900"],
            input: json!({"project": "shop", "limit": 20, "cursor": "900"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let before = page::number(self.cursor.as_deref())?.unwrap_or(i64::MAX);
        let project = self.project.as_deref();
        let rows = history::conversations(&context.store, before, project, size + 1).await?;
        Ok(Page::cut(rows, size, |conversation| {
            conversation.id.to_string()
        }))
    }
}

/// Let a summary take the place of what was said in a conversation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CompactConversation {
    /// The conversation: any task of it, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
}

/// A conversation that will be compacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompactedConversation {
    /// The task that named it.
    pub id: i64,
    /// `at the next step` of the task that runs, or `when the next turn begins`.
    pub when: String,
}

impl Op for CompactConversation {
    const SPEC: Spec = Spec {
        name: "conversation.compact",
        method: Method::Post,
        path: "/conversations/{id}/compact",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Submit,
        summary: "Let a summary take the place of what was said in a conversation",
    };
    type Output = CompactedConversation;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The conversation of task 42",
            cli: &["42"],
            input: json!({"id": 42}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let when = mail::compact(&context.store, self.id.0, &context.actor).await?;
        Ok(CompactedConversation {
            id: self.id.0.0,
            when,
        })
    }
}

fn place(cursor: &str) -> Result<ItemPlace, OpError> {
    let mut parts = Parts::of(cursor, '.');
    let place = ItemPlace {
        task_id: parts.figure()?,
        attempt: parts.figure()?,
        n: parts.figure()?,
    };
    parts.whole(place)
}
