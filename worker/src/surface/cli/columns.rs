//! Which columns a list has for people, and what an empty one says.

use super::forms::Form;
use super::table::Column;

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
    Column("FOUND", "found", Form::Text),
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
pub(super) const ATTEMPTS: &[Column] = &[
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

/// The columns of a list, and what an empty one says.
pub(super) fn list_columns(op: &str) -> Option<(&'static [Column], &'static str)> {
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
        "doctor.show" | "project.check" => (FINDINGS, "Nothing was looked at."),
        "token.list" => (
            TOKENS,
            "No tokens. Make one: dispatch tokens create NAME --scope read,submit",
        ),
        _ => return None,
    })
}
