//! Answers for people: lists as tables, single things as fields, with the command to type next.

use std::io::{self, IsTerminal as _};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::change_view;
use super::forms::{Form, show};
use super::out::Out;
use super::table::{self, Column};
use super::tree::View;
use crate::surface::safe_text;

const TASKS: &[Column] = &[
    Column("TASK", "id", Form::Id),
    Column("STATE", "state", Form::State),
    Column("PHASE", "phase", Form::Text),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("CREATED", "created_at", Form::Ago),
    Column("TOKENS", "cost_tokens", Form::Count),
    Column("COST", "cost", Form::Text),
    Column("CHANGE", "change_id", Form::Id),
    Column("REVIEW", "change_state", Form::State),
    Column("ERROR", "error_class", Form::Text),
    Column("WAITS FOR", "waiting_reason", Form::Prose),
    Column("INPUT", "input", Form::Prose),
];
const EVENTS: &[Column] = &[
    Column("SEQ", "seq", Form::Text),
    Column("AT", "at", Form::Ago),
    Column("TRY", "attempt", Form::Text),
    Column("KIND", "kind", Form::Text),
    Column("FACTS", "payload", Form::Text),
];
const ITEMS: &[Column] = &[
    Column("TASK", "task_id", Form::Id),
    Column("TURN", "turn", Form::Text),
    Column("KIND", "kind", Form::Text),
    Column("TEXT", "text", Form::Prose),
    Column("DETAIL", "detail", Form::Text),
];
const CHANGES: &[Column] = &[
    Column("CHANGE", "id", Form::Id),
    Column("STATE", "state", Form::State),
    Column("TASK", "task_id", Form::Id),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("FILES", "files", Form::Count),
    Column("+", "added_lines", Form::Count),
    Column("-", "removed_lines", Form::Count),
    Column("WARNINGS", "flags", Form::Flags),
    Column("CREATED", "created_at", Form::Ago),
    Column("BY", "decided_by", Form::Text),
    Column("INPUT", "input", Form::Prose),
];
const PERMISSIONS: &[Column] = &[
    Column("REQUEST", "id", Form::Id),
    Column("STATUS", "status", Form::State),
    Column("TASK", "task_id", Form::Id),
    Column("AGENT", "agent", Form::Text),
    Column("ASKED", "requested_at", Form::Ago),
    Column("UNTIL", "deadline_at", Form::Ago),
    Column("BY", "decided_by", Form::Text),
    Column("KIND", "kind", Form::Text),
    Column("WANTS TO", "title", Form::Prose),
];
const AGENTS: &[Column] = &[
    Column("AGENT", "name", Form::Text),
    Column("STATUS", "status", Form::State),
    Column("WORKERS", "workers", Form::Count),
    Column("PATH", "execution_path", Form::Text),
    Column("VERSION", "version", Form::Text),
    Column("MODELS", "models", Form::Len),
    Column("MODES", "modes", Form::Len),
    Column("THINKING", "thinking_options", Form::Len),
    Column("PROBED", "probed_at", Form::Ago),
    Column("ERROR", "error", Form::Prose),
];
const PROJECTS: &[Column] = &[
    Column("PROJECT", "name", Form::Text),
    Column("AGENT", "default_agent", Form::Text),
    Column("TARGET", "target_ref", Form::Text),
    Column("WORKTREE", "worktree", Form::Text),
    Column("LIMIT", "max_running", Form::Count),
    Column("ADDED", "created_at", Form::Ago),
    Column("PATH", "path", Form::Text),
];
const WORKERS: &[Column] = &[
    Column("WORKER", "name", Form::Text),
    Column("STATUS", "status", Form::State),
    Column("RUNNING", "running", Form::Count),
    Column("SLOTS", "slots", Form::Count),
    Column("VERSION", "version", Form::Text),
    Column("STARTED", "started_at", Form::Ago),
    Column("SEEN", "last_seen", Form::Ago),
    Column("ID", "id", Form::Text),
    Column("AGENTS", "agents", Form::List),
];
const USAGE: &[Column] = &[
    Column("", "key", Form::Text),
    Column("ATTEMPTS", "attempts", Form::Count),
    Column("UNKNOWN", "unknown", Form::Count),
    Column("INPUT", "input_tokens", Form::Count),
    Column("CACHED", "cache_read_tokens", Form::Count),
    Column("WRITTEN", "cache_write_tokens", Form::Count),
    Column("OUTPUT", "output_tokens", Form::Count),
    Column("REASONING", "reasoning_tokens", Form::Count),
    Column("TOTAL", "total_tokens", Form::Count),
    Column("COST", "cost", Form::Text),
    Column("", "currency", Form::Text),
];
const AUDIT: &[Column] = &[
    Column("AT", "at", Form::Ago),
    Column("WHO", "actor", Form::Text),
    Column("DID", "action", Form::Text),
    Column("TO", "subject", Form::Text),
    Column("WITH", "detail", Form::Text),
];
const SUBMITTED: &[Column] = &[
    Column("TASK", "id", Form::Id),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("NOTE", "notice", Form::Prose),
];
const CONVERSATIONS: &[Column] = &[
    Column("ID", "id", Form::Id),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("TASKS", "tasks", Form::Count),
    Column("LAST", "last_task_id", Form::Id),
    Column("STATE", "last_state", Form::State),
    Column("BEGAN", "began_at", Form::Ago),
    Column("BY", "submitted_by", Form::Text),
    Column("BEGINS WITH", "title", Form::Prose),
];
const MESSAGES: &[Column] = &[
    Column("MESSAGE", "id", Form::Id),
    Column("STATE", "state", Form::State),
    Column("TASK", "task_id", Form::Id),
    Column("BY", "sent_by", Form::Text),
    Column("SENT", "sent_at", Form::Ago),
    Column("DELIVERED", "delivered_at", Form::Ago),
    Column("TEXT", "text", Form::Prose),
];
const STEPS: &[Column] = &[
    Column("TRY", "attempt", Form::Text),
    Column("STEP", "n", Form::Text),
    Column("FOR", "kind", Form::Text),
    Column("MODEL", "model", Form::Text),
    Column("END", "finish", Form::Text),
    Column("INPUT", "input_tokens", Form::Count),
    Column("CACHED", "cache_read_tokens", Form::Count),
    Column("WRITTEN", "cache_write_tokens", Form::Count),
    Column("OUTPUT", "output_tokens", Form::Count),
    Column("REASONING", "reasoning_tokens", Form::Count),
    Column("CONTEXT", "context_tokens", Form::Count),
    Column("COST", "cost", Form::Text),
    Column("", "currency", Form::Text),
    Column("FIRST MS", "ttft_ms", Form::Count),
    Column("ANSWER MS", "request_ms", Form::Count),
    Column("TOOLS MS", "tools_ms", Form::Count),
    Column("ALL MS", "total_ms", Form::Count),
    Column("RETRIES", "retries", Form::Count),
];
const PROVIDERS: &[Column] = &[
    Column("PROVIDER", "provider", Form::Text),
    Column("WHY", "class", Form::Text),
    Column("UNTIL", "until", Form::Ago),
    Column("SINCE", "paused_at", Form::Ago),
    Column("SAID", "message", Form::Prose),
];
const FINDINGS: &[Column] = &[
    Column("OF", "area", Form::Text),
    Column("CHECK", "check", Form::Text),
    Column("", "verdict", Form::State),
    Column("FOUND", "found", Form::Prose),
    Column("WHAT TO DO", "advice", Form::Prose),
];
const TOKENS: &[Column] = &[
    Column("TOKEN", "id", Form::Id),
    Column("OF", "name", Form::Text),
    Column("FOR", "scopes", Form::List),
    Column("STATE", "state", Form::State),
    Column("MADE", "created_at", Form::Ago),
    Column("BY", "created_by", Form::Text),
    Column("UNTIL", "expires_at", Form::Ago),
    Column("USED", "last_used_at", Form::Ago),
];
const ATTEMPTS: &[Column] = &[
    Column("TRY", "attempt", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("PATH", "execution_path", Form::Text),
    Column("MODEL", "model", Form::Text),
    Column("BEGAN", "started_at", Form::Ago),
    Column("END", "end_kind", Form::Text),
    Column("TOKENS", "total_tokens", Form::Count),
    Column("USAGE", "usage_source", Form::Text),
    Column("COST", "cost", Form::Text),
    Column("", "currency", Form::Text),
    Column("ERROR", "error", Form::Text),
];

fn list_columns(op: &str) -> Option<(&'static [Column], &'static str)> {
    Some(match op {
        "task.list" => (
            TASKS,
            "No tasks. Submit one: dispatch submit PROJECT \"what to do\"",
        ),
        "task.events" => (EVENTS, "No more events."),
        "task.submit-many" => (SUBMITTED, "Nothing was submitted."),
        "conversation.list" => (
            CONVERSATIONS,
            "No conversations. Each task without one begins one.",
        ),
        "conversation.show" => (ITEMS, "Nothing was said yet."),
        "message.list" => (
            MESSAGES,
            "Nobody sent anything. Send something: dispatch send TASK \"what to say\"",
        ),
        "task.steps" => (
            STEPS,
            "No requests to a model. Only agents that the worker runs itself tell them.",
        ),
        "provider.list" => (PROVIDERS, "No provider is paused."),
        "change.list" => (
            CHANGES,
            "No changes. An attempt that edits files leaves one.",
        ),
        "permission.list" => (PERMISSIONS, "No agent asked for anything."),
        "agent.list" => (
            AGENTS,
            "No worker has offered an agent yet. Start one: dispatch worker",
        ),
        "project.list" => (
            PROJECTS,
            "No projects. Add one: dispatch projects add NAME PATH",
        ),
        "worker.list" => (
            WORKERS,
            "No worker has been seen. Start one: dispatch worker",
        ),
        "usage.show" => (USAGE, "No attempt has ended yet."),
        "audit.list" => (AUDIT, "Nobody did anything yet."),
        "doctor.show" | "agent.check" => (FINDINGS, "Nothing was looked at."),
        "token.list" => (
            TOKENS,
            "No tokens. Make one: dispatch tokens create NAME --scope read,submit",
        ),
        _ => return None,
    })
}

/// Print the answer of an operation.
pub(crate) fn answer(out: &mut Out, op: &str, view: View, value: &Value) -> io::Result<()> {
    let now = Utc::now();
    if let (Some((columns, none)), Some(rows)) = (list_columns(op), value["data"].as_array()) {
        return list(out, columns, none, rows, value["next_cursor"].as_str(), now);
    }
    match op {
        "task.submit" => submitted(out, value),
        "task.show" => task(out, value, now),
        "task.cancel" => out.line(&cancelled(value)),
        "message.send" => out.line(&sent(value)),
        "message.cancel" => out.line(&taken_back(value)),
        "conversation.compact" => out.line(&format!(
            "The conversation is compacted {}.",
            safe_text::line(value["when"].as_str().unwrap_or("?"))
        )),
        "provider.resume" => out.line(&resumed(value)),
        "token.create" => created(out, value),
        "token.revoke" => out.line(&format!("Token {} is good for nothing now.", value["id"])),
        "task.requeue" => out.line(&format!("Task {} runs again.", value["id"])),
        "change.show" => change_view::print(out, value, view, now),
        "change.approve" => out.line(&format!(
            "Approved. A worker applies change {} now: dispatch changes show {0}",
            value["id"]
        )),
        "change.reject" => rejected(out, value),
        "change.undo" => out.line(&format!(
            "A worker takes change {} out of its branch now: dispatch changes show {0}",
            value["id"]
        )),
        "change.request-changes" => out.line(&format!(
            "Task {} works on change {} further: dispatch watch {0}",
            value["task_id"], value["change_id"]
        )),
        "permission.answer" => {
            let word = if value["answer"] == "allow" {
                "Allowed"
            } else {
                "Denied"
            };
            out.line(&format!("{word}."))
        }
        _ => fields(out, value, now),
    }
}

fn list(
    out: &mut Out,
    columns: &[Column],
    none: &str,
    rows: &[Value],
    cursor: Option<&str>,
    now: DateTime<Utc>,
) -> io::Result<()> {
    if rows.is_empty() {
        return out.line(none);
    }
    table::print(out, columns, rows, now)?;
    if let Some(cursor) = cursor {
        let more = format!("More with --cursor {}", safe_text::line(cursor));
        let more = out.paint.dim(&more);
        out.line(&more)?;
    }
    Ok(())
}

fn submitted(out: &mut Out, value: &Value) -> io::Result<()> {
    let Some(id) = value["id"].as_i64() else {
        let agent = safe_text::line(value["agent"].as_str().unwrap_or("?"));
        return out.line(&format!(
            "It would be accepted, for agent {agent}. Nothing was submitted."
        ));
    };
    let agent = safe_text::line(value["agent"].as_str().unwrap_or("?"));
    let verb = if value["replayed"] == true {
        "was submitted before"
    } else {
        "submitted"
    };
    out.line(&format!("Task {id} {verb}, for agent {agent}."))?;
    if let Some(notice) = value["notice"].as_str() {
        let notice = out
            .paint
            .yellow(&format!("Note: {}.", safe_text::line(notice)));
        out.line(&notice)?;
    }
    out.line(&format!("Follow it: dispatch watch {id}"))
}

fn cancelled(value: &Value) -> String {
    let id = &value["id"];
    match value["outcome"].as_str() {
        Some("cancelled") => format!("Task {id} is cancelled; it had not begun."),
        Some("cancel_requested") => format!("Task {id} is being stopped."),
        _ => format!("Task {id} had ended already; nothing was stopped."),
    }
}

fn sent(value: &Value) -> String {
    let (id, task) = (&value["id"], &value["task_id"]);
    match value["state"].as_str() {
        Some("waiting") => format!(
            "Message {id} waits for task {task}. If its agent takes none, it goes on after it."
        ),
        Some("carried") => format!("Message {id} is task {task}: dispatch watch {task}"),
        _ => format!("Message {id} is held for the next task of the conversation."),
    }
}

fn taken_back(value: &Value) -> String {
    let id = &value["id"];
    match value["state"].as_str() {
        Some("cancelled") => format!("Message {id} is taken back."),
        Some("carried") => format!("Message {id} is a task by now; cancel that."),
        _ => format!("An agent has message {id} already."),
    }
}

fn resumed(value: &Value) -> String {
    let name = safe_text::line(value["name"].as_str().unwrap_or("?"));
    match value["was_paused"] == true {
        true => format!("Provider {name} is asked again."),
        false => format!("Provider {name} was not paused."),
    }
}

/// The token alone, so that a script can take it; people are told what to do with it.
fn created(out: &mut Out, value: &Value) -> io::Result<()> {
    let text = |name: &str| safe_text::line(value[name].as_str().unwrap_or("?"));
    out.line(&text("token"))?;
    if io::stdout().is_terminal() {
        let told = format!(
            "Keep it: it is shown this once. Valid until {}; send it as Authorization: Bearer …",
            text("expires_at")
        );
        let told = out.paint.dim(&told);
        out.line(&told)?;
    }
    Ok(())
}

fn rejected(out: &mut Out, value: &Value) -> io::Result<()> {
    if value["state"] == "rejected" {
        return out.line(&format!("Change {} is rejected.", value["id"]));
    }
    out.line(&format!(
        "Set aside. Approve the rest with: dispatch changes approve {}",
        value["id"]
    ))
}

/// Fields that tell nothing when a person looks at one task: lists are printed below.
const TASK_BELOW: [&str; 5] = [
    "attempt_list",
    "open_permissions",
    "input",
    "output_summary",
    "id",
];

fn task(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    let state = value["state"].as_str().unwrap_or("?");
    let head = format!(
        "{} {}",
        out.paint.bold(&format!("Task {}", value["id"])),
        out.paint.state(&safe_text::line(state))
    );
    out.line(&head)?;
    some_fields(out, value, &TASK_BELOW, now)?;
    for (title, field) in [("Asked", "input"), ("Answered", "output_summary")] {
        if let Some(text) = value[field].as_str() {
            let title = out.paint.dim(title);
            out.line(&format!("\n{title}\n{}", safe_text::block(text.trim_end())))?;
        }
    }
    if let Some(attempts) = value["attempt_list"].as_array().filter(|a| !a.is_empty()) {
        out.line("")?;
        table::print(out, ATTEMPTS, attempts, now)?;
    }
    for request in value["open_permissions"].as_array().into_iter().flatten() {
        let wish = safe_text::line(request["title"].as_str().unwrap_or("?"));
        let ask = out.paint.yellow(&format!("Asks: {wish}"));
        out.line(&format!(
            "\n{ask}\n  dispatch permissions allow {0}   or   deny {0}",
            request["id"]
        ))?;
    }
    next_step(out, value)
}

fn next_step(out: &mut Out, value: &Value) -> io::Result<()> {
    let id = &value["id"];
    let next = match (value["state"].as_str(), value["change_state"].as_str()) {
        (Some("running" | "pending"), _) => format!("dispatch watch {id}"),
        (_, Some("pending" | "conflicted")) => {
            format!("dispatch changes show {}", value["change_id"])
        }
        (Some("failed" | "cancelled"), _) => format!("dispatch logs {id}, dispatch requeue {id}"),
        _ => return Ok(()),
    };
    let next = out.paint.dim(&format!("\nNext: {next}"));
    out.line(&next)
}

/// Print the fields of one thing.
pub(crate) fn fields(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    some_fields(out, value, &[], now)
}

/// Print the fields of one thing that have a value, save these.
pub(crate) fn some_fields(
    out: &mut Out,
    value: &Value,
    save: &[&str],
    now: DateTime<Utc>,
) -> io::Result<()> {
    let Some(all) = value.as_object() else {
        return out.line(&safe_text::line(&value.to_string()));
    };
    for (name, field) in all
        .iter()
        .filter(|(name, _)| !save.contains(&name.as_str()))
    {
        let form = match name.as_str() {
            "state" | "status" | "change_state" => Form::State,
            n if n.ends_with("_at") || n == "last_seen" => Form::Ago,
            n if n.ends_with("_tokens") || n.ends_with("_lines") => Form::Count,
            _ => Form::Text,
        };
        let shown = show(field, form, now);
        if !shown.is_empty() {
            let title = out.paint.dim(&format!("{:<20}", name.replace('_', " ")));
            let shown = if form == Form::State {
                out.paint.state(&shown)
            } else {
                shown
            };
            out.line(&format!("  {title}{shown}"))?;
        }
    }
    Ok(())
}
