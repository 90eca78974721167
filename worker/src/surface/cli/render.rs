//! Answers for people: lists as tables, single things as fields, with the command to type next.

use std::io::{self, IsTerminal as _};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::agent_view;
use super::change_view;
use super::conversation_view;
use super::forms::{Form, show};
use super::lists;
use super::out::Out;
use super::table::{self, Column};
use super::tree::View;
use crate::surface::safe_text;

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

/// Print the answer of an operation that was asked for with this input.
pub(crate) fn answer(
    out: &mut Out,
    op: &str,
    view: View,
    asked: &Value,
    value: &Value,
) -> io::Result<()> {
    let now = Utc::now();
    if lists::print(out, op, asked, value, now)? {
        return Ok(());
    }
    match op {
        "task.submit" => submitted(out, value),
        "task.show" => task(out, value, now),
        "task.cancel" => out.line(&cancelled(value)),
        // The body alone, for whatever reads JSON.
        "task.request" => out.line(&safe_text::block(value["body"].as_str().unwrap_or(""))),
        "message.send" => out.line(&sent(value)),
        "agent.show" => agent_view::print(out, value, now),
        "conversation.show" => conversation_view::print(out, value, now),
        "message.cancel" => out.line(&taken_back(value)),
        "conversation.compact" => out.line(&format!(
            "The conversation is compacted {}.",
            safe_text::line(value["when"].as_str().unwrap_or("?"))
        )),
        "provider.resume" => out.line(&resumed(value)),
        "limit.set" => out.line(&limited(value)),
        "setting.set" => out.line(&format!(
            "Setting {} is {} for the whole fleet.",
            safe_text::line(value["name"].as_str().unwrap_or("?")),
            safe_text::line(value["value"].as_str().unwrap_or("?"))
        )),
        "token.create" => created(out, value),
        "token.revoke" => out.line(&format!("Token {} is good for nothing now.", value["id"])),
        "task.requeue" => out.line(&format!("Task {} runs again.", value["id"])),
        "change.show" => change_view::print(out, value, view, now),
        "change.file" => change_view::file(out, value),
        "change.diff" => change_view::whole_diff(out, value),
        "change.preview" => change_view::preview(out, &asked["id"], value),
        "worker.drain" => out.line(&told(value, "finishes what it has and takes no more tasks")),
        "worker.resume" => out.line(&told(value, "takes tasks again")),
        "change.approve" => out.line(&format!(
            "Approved. A worker applies change {} now: dispatch changes show {0}",
            value["id"]
        )),
        "change.reject" => rejected(out, value),
        "change.restore" => out.line(&format!(
            "Taken back. Approve them with the rest: dispatch changes approve {}",
            value["id"]
        )),
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

/// A worker that was told to take tasks or none.
fn told(value: &Value, what: &str) -> String {
    let name = safe_text::line(value["name"].as_str().unwrap_or("?"));
    let running = &value["running"];
    let before = if value["news"] == true {
        ""
    } else {
        " (it was told so before)"
    };
    format!("Worker {name} {what}{before}. It runs {running} now: dispatch workers list")
}

fn submitted(out: &mut Out, value: &Value) -> io::Result<()> {
    let Some(id) = value["id"].as_i64() else {
        let agent = safe_text::line(value["agent"].as_str().unwrap_or("?"));
        out.line(&format!(
            "It would be accepted, for agent {agent}. Nothing was submitted."
        ))?;
        return noticed(out, value);
    };
    let agent = safe_text::line(value["agent"].as_str().unwrap_or("?"));
    let verb = if value["replayed"] == true {
        "was submitted before"
    } else {
        "submitted"
    };
    out.line(&format!("Task {id} {verb}, for agent {agent}."))?;
    noticed(out, value)?;
    out.line(&format!("Follow it: dispatch watch {id}"))
}

/// What may keep a submitted task from running.
pub(super) fn noticed(out: &mut Out, value: &Value) -> io::Result<()> {
    let Some(notice) = value["notice"].as_str() else {
        return Ok(());
    };
    let notice = format!("Note: {}.", safe_text::line(notice));
    let notice = out.paint.yellow(&notice);
    out.line(&notice)
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
    if value["replayed"] == true {
        let state = safe_text::line(value["state"].as_str().unwrap_or("?"));
        return format!("Message {id} was sent before; it is {state}.");
    }
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
        false => format!(
            "Provider {name} was not paused: nothing to do. Those that are: dispatch providers list"
        ),
    }
}

fn limited(value: &Value) -> String {
    let key = safe_text::line(value["key"].as_str().unwrap_or("?"));
    let (running, waiting) = (&value["running"], &value["waiting"]);
    let rule = match value["max_running"].as_i64() {
        Some(0) => format!("No task with key {key} begins until that is raised"),
        Some(1) => format!("One task with key {key} runs at a time"),
        Some(most) => format!("{most} tasks with key {key} run at a time"),
        None => format!("Any number of tasks with key {key} run at a time"),
    };
    format!("{rule}; now {running} run and {waiting} wait.")
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
        "Set aside. Approve the rest: dispatch changes approve {0}; take files back: dispatch changes restore {0} --file PATH",
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
    let next = match (value["attention"].as_str(), value["state"].as_str()) {
        // Its question is shown with how to answer it.
        (Some("permission"), _) => return Ok(()),
        (Some("conflict" | "review"), _) => format!("dispatch changes show {}", value["change_id"]),
        (Some("blocked"), _) => "dispatch agents list".to_owned(),
        (_, Some("running" | "pending")) => format!("dispatch watch {id}"),
        (_, Some("failed" | "cancelled")) => format!("dispatch logs {id}, dispatch requeue {id}"),
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
            "state" | "status" | "change_state" | "attention" => Form::State,
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
