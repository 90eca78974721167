//! One agent, for people: what it offers, whole, and which workers have it.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::forms::Form;
use super::out::Out;
use super::render::some_fields;
use super::table::{self, Column};
use crate::surface::safe_text;

const OFFERS: &[Column] = &[
    Column("WORKER", "worker", Form::Text),
    Column("STATUS", "status", Form::State),
    Column("SLOTS", "slots", Form::Count),
    Column("VERSION", "version", Form::Text),
    Column("FALLBACK", "fallback", Form::Text),
    Column("PROBED", "probed_at", Form::Ago),
    Column("ID", "worker_id", Form::Text),
];

/// Lists that are printed below the fields.
const BELOW: [&str; 7] = [
    "name",
    "status",
    "error",
    "models",
    "modes",
    "thinking_options",
    "commands",
];

/// Print it.
pub(super) fn print(out: &mut Out, agent: &Value, now: DateTime<Utc>) -> io::Result<()> {
    let text = |name: &str| safe_text::line(agent[name].as_str().unwrap_or("?"));
    let head = format!(
        "{} {}",
        out.paint.bold(&format!("Agent {}", text("name"))),
        out.paint.state(&text("status"))
    );
    out.line(&head)?;
    let save: Vec<&str> = BELOW.iter().copied().chain(["offers"]).collect();
    some_fields(out, agent, &save, now)?;
    if let Some(why) = agent["error"].as_str() {
        titled(out, "Why")?;
        out.line(&safe_text::block(why))?;
    }
    for (title, field) in [
        ("Models", "models"),
        ("Modes", "modes"),
        ("Thinking", "thinking_options"),
        ("Commands", "commands"),
    ] {
        let entries = agent[field].as_array().filter(|all| !all.is_empty());
        if let Some(entries) = entries {
            titled(out, title)?;
            for entry in entries {
                out.line(&format!("  {}", choice(entry)))?;
            }
        }
    }
    match agent["offers"].as_array().filter(|all| !all.is_empty()) {
        Some(offers) => {
            titled(out, "Workers")?;
            table::print(out, OFFERS, offers, now)?;
            reasons(out, offers)
        }
        None => out.line("\nNo worker has it in its agents.toml."),
    }
}

fn titled(out: &mut Out, title: &str) -> io::Result<()> {
    let title = out.paint.dim(title);
    out.line(&format!("\n{title}"))
}

/// A model, a mode, or a command with what it is for.
fn choice(entry: &Value) -> String {
    let part = |name: &str| entry[name].as_str().map(safe_text::line);
    match (entry.as_str(), part("name"), part("description")) {
        (Some(plain), ..) => safe_text::line(plain),
        (None, Some(name), Some(about)) if !about.is_empty() => format!("{name}  {about}"),
        (None, Some(name), _) => name,
        (None, None, _) => safe_text::line(&entry.to_string()),
    }
}

/// Why it is not ready on single workers.
fn reasons(out: &mut Out, offers: &[Value]) -> io::Result<()> {
    for offer in offers {
        if let Some(why) = offer["error"].as_str() {
            let worker = safe_text::line(offer["worker"].as_str().unwrap_or("?"));
            out.line(&format!("\n{worker}: {}", safe_text::block(why)))?;
        }
    }
    Ok(())
}
