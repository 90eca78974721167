//! One conversation, for people: its tasks, what waits in it and what it used.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::forms::{Form, counted};
use super::out::Out;
use super::render::some_fields;
use super::table::{self, Column};
use crate::surface::safe_text;

const TASKS: &[Column] = &[
    Column("TASK", "id", Form::Id),
    Column("STATE", "state", Form::State),
    Column("ATTENTION", "attention", Form::State),
    Column("AGENT", "agent", Form::Text),
    Column("MODEL", "model", Form::Text),
    Column("CREATED", "created_at", Form::Ago),
    Column("BY", "submitted_by", Form::Text),
    Column("TOKENS", "cost_tokens", Form::Count),
    Column("CHANGE", "change_id", Form::Id),
    Column("REVIEW", "change_state", Form::State),
    Column("ERROR", "error_class", Form::Text),
    Column("WAITS FOR", "waiting_reason", Form::Prose),
    Column("INPUT", "title", Form::Prose),
];
const USAGE: &[Column] = &[
    Column("ATTEMPTS", "attempts", Form::Count),
    Column("UNKNOWN", "unknown", Form::Count),
    Column("TOTAL", "total_tokens", Form::Count),
    Column("COST", "cost", Form::Text),
    Column("CURRENCY", "currency", Form::Text),
];

/// Fields that are told in the head or below.
const TOLD: [&str; 8] = [
    "id",
    "last_state",
    "last_task_id",
    "tasks",
    "title",
    "task_list",
    "usage",
    "messages_waiting",
];

/// Print it.
pub(super) fn print(out: &mut Out, conversation: &Value, now: DateTime<Utc>) -> io::Result<()> {
    let id = &conversation["id"];
    let state = safe_text::line(conversation["last_state"].as_str().unwrap_or("?"));
    let head = format!(
        "{} {}",
        out.paint.bold(&format!("Conversation {id}")),
        out.paint.state(&state)
    );
    out.line(&head)?;
    some_fields(out, conversation, &TOLD, now)?;
    let tasks = conversation["task_list"].as_array();
    let tasks = tasks.map_or(&[][..], Vec::as_slice);
    out.line("")?;
    let count = conversation["tasks"].as_u64().unwrap_or(0);
    if usize::try_from(count).is_ok_and(|count| count > tasks.len()) {
        let newest = format!("The newest {} of {count} tasks:", tasks.len());
        out.line(&newest)?;
    }
    table::print(out, TASKS, tasks, now)?;
    if let Some(usage) = conversation["usage"]
        .as_array()
        .filter(|all| !all.is_empty())
    {
        out.line("")?;
        table::print(out, USAGE, usage, now)?;
    }
    let waiting = conversation["messages_waiting"].as_u64().unwrap_or(0);
    if waiting > 0 {
        let told = counted(&waiting.to_string(), "message");
        let wait = if waiting == 1 { "waits" } else { "wait" };
        out.line(&format!("\n{told} {wait}: dispatch messages {id}"))?;
    }
    let next = format!("\nWhat was said and done: dispatch conversations items {id}");
    let next = out.paint.dim(&next);
    out.line(&next)
}
