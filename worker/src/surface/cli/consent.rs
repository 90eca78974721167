//! A decision names the digest of what was seen. Who is at a terminal is shown the change, and asked;
//! anybody else has to name it: what nobody saw is not approved.

use std::io::{self, IsTerminal};

use chrono::Utc;
use serde_json::{Value, json};

use super::forms::counted;
use super::keys::{Ahead, Key, Keyboard, Stop};
use super::out::Out;
use super::{CliError, change_view, programs};
use crate::ops::{self, OpContext, OpEntry, OpError};

/// How the change is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Through the pager.
    Paged,
    /// At once.
    Plain,
    /// To nobody: a program reads along.
    Never,
}

/// The input with the digest that it lacks; `None`: the person who saw the change said no.
pub(super) async fn given(
    entry: &OpEntry,
    mut input: Value,
    context: &OpContext,
    out: &mut Out,
    show: Show,
) -> Result<Option<Value>, CliError> {
    let Some(verb) = undecided(entry.spec.name, &input) else {
        return Ok(Some(input));
    };
    if show == Show::Never || !out.terminal || !io::stdin().is_terminal() {
        return Err(without_person(verb, &input["id"]).into());
    }
    let entry = ops::find("change.show").ok_or_else(|| OpError::internal("no change.show"))?;
    let change = (entry.call)(context, json!({"id": input["id"]})).await?;
    input["digest"] = change["digest"].clone();
    // One that was decided on is refused, which tells more than a question.
    if !matches!(change["state"].as_str(), Some("pending" | "conflicted")) {
        return Ok(Some(input));
    }
    let mut sheet = out.sheet();
    change_view::whole(&mut sheet, &change, Utc::now())?;
    match show {
        Show::Paged => programs::page(out, sheet.into_text()).await?,
        Show::Plain | Show::Never => out.print(&sheet.into_text())?,
    }
    let mut keys = Keyboard::open()?;
    let question = format!("\n{} y/N ", question(verb, &input, &change));
    match keys.key(out, &question, Ahead::Forgotten).await {
        Ok(Key::Char('y' | 'Y')) => Ok(Some(input)),
        Ok(_) => {
            out.line("Nothing is decided.")?;
            Ok(None)
        }
        Err(Stop::EndOfInput | Stop::Signal) => {
            out.line("\nNothing is decided.")?;
            Ok(None)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// What this decides without saying on what.
fn undecided(op: &str, input: &Value) -> Option<&'static str> {
    let lacks = input["digest"].as_str().unwrap_or("").is_empty();
    match op {
        "change.approve" if lacks => Some("approve"),
        "change.restore" if lacks => Some("restore"),
        // A whole change may be rejected unseen.
        "change.reject" if lacks && input["files"].is_array() => Some("reject"),
        _ => None,
    }
}

fn without_person(verb: &str, id: &Value) -> OpError {
    let id = id.as_i64().unwrap_or(0);
    let message = "no --digest: it says which change was seen, and there is nobody to show it to";
    OpError::invalid(message)
        .code("digest_required")
        .hint(format!(
            "dispatch changes show {id} ends with it; then: dispatch changes {verb} {id} --digest DIGEST"
        ))
}

fn question(verb: &str, input: &Value, change: &Value) -> String {
    let all = counted(&change["files"].to_string(), "file");
    let of = match input["files"].as_array() {
        Some(only) => format!("{} of {all}", only.len()),
        None => all,
    };
    let (first, rest) = verb.split_at(1);
    let verb = format!("{}{rest}", first.to_uppercase());
    format!("{verb} change {}, {of}?", change["id"])
}
