//! The list of what is to be done: the model's own, kept with the conversation and shown as the plan.

use serde::Deserialize;
use serde_json::{Value, json};

use super::tool_host::Outcome;
use crate::agent::conversation::Conversation;
use crate::agent::event::PlanEntry;
use crate::agent::{AgentEvent, EventSink};
use crate::domain::llm::ToolDefinition;

/// The tool's name.
pub(crate) const NAME: &str = "todo_write";

/// Most entries; a longer list is no plan.
const ENTRIES_MAX: usize = 100;

#[derive(Deserialize)]
struct Input {
    todos: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    content: String,
    status: Status,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    InProgress,
    Completed,
    Cancelled,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The tool.
pub(crate) fn definition() -> ToolDefinition {
    ToolDefinition {
        name: NAME.to_owned(),
        description: "Write down what is to be done, as the complete list; it replaces the one before. Use it for work of three steps or more: write the list before you begin, keep exactly one entry in_progress, and mark entries completed as soon as they are. People watch it.".to_owned(),
        schema: json!({
            "type": "object",
            "properties": {
                "todos": {
                    "type": "array",
                    "description": "All entries, in order",
                    "items": {
                        "type": "object",
                        "properties": {
                            "content": {"type": "string", "description": "What is to be done, in one line"},
                            "status": {"type": "string", "enum": ["pending", "in_progress", "completed", "cancelled"]},
                        },
                        "required": ["content", "status"],
                        "additionalProperties": false,
                    },
                },
            },
            "required": ["todos"],
            "additionalProperties": false,
        }),
    }
}

/// Keep a list.
pub(crate) async fn write(
    conversation: &dyn Conversation,
    events: &EventSink,
    input: &Value,
) -> Outcome {
    let input = match Input::deserialize(input) {
        Ok(input) => input,
        Err(error) => return Outcome::failed(format!("the list cannot be read: {error}")),
    };
    if input.todos.len() > ENTRIES_MAX {
        return Outcome::failed(format!("a list has at most {ENTRIES_MAX} entries"));
    }
    let entries: Vec<PlanEntry> = input
        .todos
        .into_iter()
        .map(|entry| PlanEntry {
            content: entry.content,
            status: entry.status.as_str().to_owned(),
            priority: None,
        })
        .collect();
    if let Err(error) = conversation.keep_todos(json!(entries)).await {
        return Outcome::failed(format!("the list could not be kept: {error}"));
    }
    let open = entries
        .iter()
        .filter(|entry| matches!(entry.status.as_str(), "pending" | "in_progress"))
        .count();
    let output = format!("kept: {} entries, {open} of them open", entries.len());
    events.send(AgentEvent::Plan { entries }).await;
    Outcome {
        output,
        is_error: false,
        detail: json!({ "open": open }),
    }
}
