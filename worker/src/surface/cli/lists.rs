//! Answers that are lists: their columns, and what an empty one says.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::doctor;
use super::forms::Form;
use super::out::Out;
use super::sums;
use super::table::{self, Below, Column};
use crate::surface::safe_text;

const TASKS: &[Column] = &[
    Column("TASK", "id", Form::Id),
    Column("STATE", "state", Form::State),
    Column("ATTENTION", "attention", Form::State),
    Column("PHASE", "phase", Form::Text),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("CREATED", "created_at", Form::Ago),
    Column("TOKENS", "cost_tokens", Form::Count),
    Column("COST", "cost", Form::Text),
    Column("CHANGE", "change_id", Form::Id),
    Column("REVIEW", "change_state", Form::State),
    Column("ERROR", "error_class", Form::Text),
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
    Column("WANTS TO", "title", Form::Whole),
];
const AGENTS: &[Column] = &[
    Column("AGENT", "name", Form::Text),
    Column("STATUS", "status", Form::State),
    Column("WORKERS", "workers", Form::Count),
    Column("PATH", "execution_path", Form::Text),
    Column("VERSION", "version", Form::Prose),
    Column("MODELS", "models", Form::Len),
    Column("MODES", "modes", Form::Len),
    Column("THINKING", "thinking_options", Form::Len),
    Column("PROBED", "probed_at", Form::Ago),
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
    Column("NOTE", "notice", Form::Whole),
];
const CONVERSATIONS: &[Column] = &[
    Column("ID", "id", Form::Id),
    Column("PROJECT", "project", Form::Text),
    Column("AGENT", "agent", Form::Text),
    Column("TASKS", "tasks", Form::Count),
    Column("LAST", "last_task_id", Form::Id),
    Column("STATE", "last_state", Form::State),
    Column("ATTENTION", "attention", Form::State),
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
const REQUESTS: &[Column] = &[
    Column("TRY", "attempt", Form::Text),
    Column("REQUEST", "n", Form::Text),
    Column("MODEL", "model", Form::Text),
    Column("BYTES", "bytes", Form::Count),
    Column("HASH", "hash", Form::Text),
    Column("MADE", "at", Form::Ago),
    Column("STATUS", "status", Form::Text),
    Column("ERROR", "error", Form::Text),
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
    Column("SAID", "message", Form::Whole),
];
const LIMITS: &[Column] = &[
    Column("KEY", "key", Form::Text),
    Column("LIMIT", "max_running", Form::Count),
    Column("RUNNING", "running", Form::Count),
    Column("READY", "ready", Form::Count),
    Column("WAITING", "waiting", Form::Count),
];
const SETTINGS: &[Column] = &[
    Column("SETTING", "name", Form::Text),
    Column("VALUE", "value", Form::Text),
    Column("MEANS", "about", Form::Whole),
];
const FINDINGS: &[Column] = &[
    Column("OF", "area", Form::Text),
    Column("CHECK", "check", Form::Text),
    Column("", "verdict", Form::State),
    Column("FOUND", "found", Form::Whole),
];
const ADVICE: Below = Below {
    title: "What to do",
    of: &[("area", Form::Text), ("check", Form::Text)],
    text: "advice",
};
const LACKS: Below = Below {
    title: "What they lack",
    of: &[("name", Form::Text)],
    text: "error",
};
const WAITS: Below = Below {
    title: "What they wait for",
    of: &[("id", Form::Id)],
    text: "waiting_reason",
};
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
/// Fields of an input that leave nothing out: a list of one thing's own has its id.
const PAGING: [&str; 3] = ["id", "limit", "cursor"];

/// Print the answer of this operation, when it is a list.
pub(super) fn print(
    out: &mut Out,
    op: &str,
    asked: &Value,
    value: &Value,
    now: DateTime<Utc>,
) -> io::Result<bool> {
    let (Some((columns, none)), Some(rows)) = (of_op(op), value["data"].as_array()) else {
        return Ok(false);
    };
    if rows.is_empty() {
        let narrowed = narrowed(op, asked);
        out.line(narrowed.as_deref().unwrap_or(none))?;
        return Ok(true);
    }
    let gathered = match op {
        "doctor.show" if asked["agent"].is_null() => doctor::gathered(rows),
        _ => rows.clone(),
    };
    let rows = gathered.as_slice();
    match op {
        "usage.show" => sums::print(out, asked["by"].as_str(), rows, now)?,
        _ => table::print(out, columns, rows, now)?,
    }
    if let Some(below) = below(op) {
        table::below(out, below, rows, now)?;
    }
    let again = rows.iter().filter(|row| row["replayed"] == true).count();
    if again > 0 {
        let verb = if again == 1 { "was" } else { "were" };
        out.line(&format!("{again} of them {verb} submitted before."))?;
    }
    if asked["dry_run"] == true {
        out.line("They would be accepted. Nothing was submitted.")?;
    }
    if let Some(cursor) = value["next_cursor"].as_str() {
        let option = match op {
            "task.events" => "since-seq",
            _ => "cursor",
        };
        let word = super::tree::quoted(&safe_text::line(cursor));
        let more = format!("More with --{option} {word}");
        let more = out.paint.dim(&more);
        out.line(&more)?;
    }
    Ok(true)
}

/// What was found, and below it what to do.
pub(super) fn findings(out: &mut Out, rows: &[Value], now: DateTime<Utc>) -> io::Result<()> {
    table::print(out, FINDINGS, rows, now)?;
    table::below(out, &ADVICE, rows, now)
}

/// What is said below the rows of an operation's answer.
fn below(op: &str) -> Option<&'static Below> {
    match op {
        "doctor.show" | "agent.check" | "project.check" => Some(&ADVICE),
        "agent.list" => Some(&LACKS),
        "task.list" => Some(&WAITS),
        _ => None,
    }
}

/// What an empty list says when not everything was asked for.
fn narrowed(op: &str, asked: &Value) -> Option<String> {
    let noun = op.strip_suffix(".list")?;
    let fields = asked.as_object()?;
    if fields.contains_key("cursor") {
        return Some("Nothing more.".to_owned());
    }
    let mut narrow = fields
        .keys()
        .filter(|name| !PAGING.contains(&name.as_str()));
    let first = narrow.next()?;
    if first == "attention" && asked[first] == "any" && narrow.next().is_none() {
        return Some("Nothing waits for a person.".to_owned());
    }
    Some(format!(
        "Nothing fits what was asked for. All of them: dispatch {} list",
        super::tree::noun_name(noun)
    ))
}

/// Columns of an answer that is a list, and what is said in the place of an empty one: what would be
/// there, and the command that makes one.
fn of_op(op: &str) -> Option<(&'static [Column], &'static str)> {
    Some(match op {
        "task.list" => (
            TASKS,
            "No tasks. Submit one: dispatch submit PROJECT \"what to do\"",
        ),
        "task.events" => (
            EVENTS,
            "No events after that. What comes: dispatch watch TASK",
        ),
        "task.submit-many" => (SUBMITTED, "Nothing was submitted."),
        "conversation.list" => (
            CONVERSATIONS,
            "No conversations. Each task without one begins one: dispatch submit PROJECT \"what to do\"",
        ),
        "conversation.items" => (ITEMS, "Nothing was said yet."),
        "message.list" => (
            MESSAGES,
            "Nobody sent anything. Send something: dispatch send TASK \"what to say\"",
        ),
        "task.steps" => (
            STEPS,
            "No requests to a model. Only agents that the worker runs itself tell them.",
        ),
        "task.requests" => (
            REQUESTS,
            "No request was kept. Agents of path native keep them with native.capture_requests = true.",
        ),
        "provider.list" => (
            PROVIDERS,
            "No provider is paused. One that asks to wait, or refuses its key, is paused for the whole fleet.",
        ),
        "limit.list" => (
            LIMITS,
            "No limits. A task names the key of one: dispatch submit PROJECT \"what to do\" --limit-key KEY",
        ),
        "setting.list" => (SETTINGS, "There are no settings."),
        "change.list" => (
            CHANGES,
            "No changes. An agent that edits files leaves one: dispatch submit PROJECT \"what to do\"",
        ),
        "permission.list" => (
            PERMISSIONS,
            "No agent asked for anything. Those do whose entry in agents.toml says permissions.default = \"ask\".",
        ),
        "agent.list" => (
            AGENTS,
            "No worker has offered an agent yet. Start one: dispatch worker, or dispatch up",
        ),
        "project.list" => (
            PROJECTS,
            "No projects. Add the repository you are in: dispatch init; another: dispatch projects add NAME PATH",
        ),
        "worker.list" => (
            WORKERS,
            "No worker has been seen. Start one: dispatch worker, or dispatch up",
        ),
        // Its columns depend on what was asked for.
        "usage.show" => (
            &[],
            "No attempt has ended yet. What each one used is shown then.",
        ),
        "audit.list" => (
            AUDIT,
            "Nobody did anything yet. What people decide, add and remove is recorded.",
        ),
        "doctor.show" | "agent.check" | "project.check" => (FINDINGS, "Nothing was looked at."),
        "token.list" => (
            TOKENS,
            "No tokens. Make one: dispatch tokens create NAME --scope read,submit",
        ),
        _ => return None,
    })
}
