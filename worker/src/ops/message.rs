//! Sending messages into conversations, and taking them back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::task;
use super::values::{MessageRef, SOMETHING, TaskRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec, submit};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::mail;

pub use crate::store::mail::MessageView;

/// Send a message to the agent of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// The conversation: any task of it, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// What to say
    #[arg(default_value = "-", help = "What to say; `-` reads standard input")]
    #[schemars(regex(pattern = SOMETHING))]
    pub text: String,
    /// Sending again with the same key gives the same message
    #[arg(long, value_name = "KEY")]
    #[schemars(length(min = 1, max = 200))]
    pub idempotency_key: Option<String>,
}

/// What became of a message at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SentMessage {
    /// The message.
    pub id: i64,
    /// `waiting`: the agent gets it while it works, or it becomes a follow-up when the task
    /// completes; `carried`: it is a follow-up now; `held`: it goes with the next task of the
    /// conversation. Of one that was sent before also `delivered` and `cancelled`.
    pub state: String,
    /// The task that it waits for, or became.
    pub task_id: Option<i64>,
    /// Whether it had been sent before under the same idempotency key.
    pub replayed: bool,
}

impl Op for SendMessage {
    const SPEC: Spec = Spec {
        name: "message.send",
        method: Method::Post,
        path: "/conversations/{id}/messages",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Submit,
        summary: "Send a message to the agent of a conversation, also while it works",
    };
    type Output = SentMessage;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "To whatever works in the conversation of task 42",
                cli: &["42", "leave the tests as they are"],
                input: json!({"id": 42, "text": "leave the tests as they are"}),
            },
            Example {
                about: "Once, however often it is sent",
                cli: &["42", "go on", "--idempotency-key", "go-7"],
                input: json!({"id": 42, "text": "go on", "idempotency_key": "go-7"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        check(&self.text)?;
        let (key, actor) = (self.idempotency_key.as_deref(), &context.actor);
        let sent = mail::send(&context.store, self.id.0, &self.text, key, actor).await;
        let sent = sent.map_err(submit::refused)?;
        Ok(SentMessage {
            id: sent.id,
            state: sent.state,
            task_id: sent.task,
            replayed: sent.replayed,
        })
    }
}

fn check(text: &str) -> Result<(), OpError> {
    if text.trim().is_empty() {
        return Err(OpError::invalid("the message is empty").hint("Say what the agent shall know."));
    }
    if text.len() > limits::MESSAGE_BYTES_MAX {
        return Err(OpError::invalid(format!(
            "the message has {} bytes; {} are allowed",
            text.len(),
            limits::MESSAGE_BYTES_MAX
        ))
        .code("input_too_large")
        .hint(
            "Put long material into a file of the repository and name the file in the message.",
        ));
    }
    Ok(())
}

/// List what was sent into a conversation, the first message first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListMessages {
    /// The conversation: any task of it, such as 42
    #[arg(value_name = "TASK")]
    pub id: TaskRef,
    /// Messages of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = page::NUMBER))]
    pub cursor: Option<String>,
}

impl Op for ListMessages {
    const SPEC: Spec = Spec {
        name: "message.list",
        method: Method::Get,
        path: "/conversations/{id}/messages",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List what people sent into a conversation, and what became of it",
    };
    type Output = Page<MessageView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The messages after number 7",
            cli: &["42", "--limit", "20", "--cursor", "7"],
            input: json!({"id": 42, "limit": 20, "cursor": "7"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let after = page::number(self.cursor.as_deref())?.unwrap_or(0);
        let of = task::existing(&context.store, self.id.0).await?;
        let rows = mail::list(&context.store, of.conversation_id, after, size + 1).await?;
        Ok(Page::cut(rows, size, |message| message.id.to_string()))
    }
}

/// Take a message back. Doing it twice is harmless.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CancelMessage {
    /// The message, such as 3
    #[arg(value_name = "MESSAGE")]
    pub id: MessageRef,
}

/// What a message is after somebody wanted it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CancelledMessage {
    /// The message.
    pub id: i64,
    /// `cancelled`: no agent gets it; `delivered`: an agent has it; `carried`: it is a task.
    pub state: String,
}

impl Op for CancelMessage {
    const SPEC: Spec = Spec {
        name: "message.cancel",
        method: Method::Post,
        path: "/messages/{id}/cancel",
        effect: Effect::Destructive,
        idempotent: true,
        scope: Scope::Submit,
        summary: "Take a message back that no agent has yet",
    };
    type Output = CancelledMessage;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One that still waits",
            cli: &["3"],
            input: json!({"id": 3}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let id = self.id.0.0;
        let state = mail::cancel(&context.store, id, &context.actor).await?;
        Ok(CancelledMessage { id, state })
    }
}
