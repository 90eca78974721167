//! What the command line does for a person before an operation runs: read the input from a file,
//! make a path absolute, show a change and take its digest.

use std::io::{self, IsTerminal};

use chrono::Utc;
use serde_json::{Value, json};

use super::CliError;
use super::change_view;
use super::out::Out;
use crate::domain::limits;
use crate::domain::remote::Place;
use crate::ops::{self, OpContext, OpEntry, OpError};

/// The input as the operation needs it.
pub(crate) async fn input(
    entry: &OpEntry,
    mut input: Value,
    file: Option<String>,
    context: &OpContext,
    out: &mut Out,
    json: bool,
) -> Result<Value, CliError> {
    match entry.spec.name {
        "task.submit" => input["input"] = json!(prompt(text(&input, "input"), file)?),
        "message.send" => input["text"] = json!(letter(text(&input, "text"))?),
        "project.add" => input["path"] = json!(absolute(text(&input, "path"))?),
        "project.update" if input["path"].is_string() => {
            input["path"] = json!(absolute(text(&input, "path"))?);
        }
        "change.approve" if text(&input, "digest").is_empty() => {
            input["digest"] = json!(seen(context, &input["id"], out, json).await?);
        }
        "change.reject" if input["files"].is_array() && input["digest"].is_null() => {
            input["digest"] = json!(seen(context, &input["id"], out, json).await?);
        }
        _ => {}
    }
    Ok(input)
}

fn text<'a>(input: &'a Value, name: &str) -> &'a str {
    input[name].as_str().unwrap_or("")
}

fn prompt(typed: &str, file: Option<String>) -> Result<String, CliError> {
    let prompt = match file {
        Some(_) if typed != "-" => {
            return Err(OpError::invalid("say what to do either as text or with --file").into());
        }
        Some(path) if path != "-" => bounded(&path, std::fs::File::open(&path)),
        _ if typed != "-" => return Ok(typed.to_owned()),
        _ if io::stdin().is_terminal() => {
            return Err(OpError::invalid("say what the agent shall do")
                .hint("dispatch submit PROJECT \"what to do\", --file FILE, or a pipe into standard input")
                .into());
        }
        _ => bounded("standard input", Ok(io::stdin())),
    }?;
    Ok(prompt)
}

fn letter(typed: &str) -> Result<String, CliError> {
    if typed != "-" {
        return Ok(typed.to_owned());
    }
    if io::stdin().is_terminal() {
        return Err(OpError::invalid("say what the agent shall know")
            .hint("dispatch send TASK \"what to say\", or a pipe into standard input")
            .into());
    }
    bounded("standard input", Ok(io::stdin()))
}

/// Read no more than a prompt may have, and one byte that shows that there is more.
fn bounded(name: &str, from: io::Result<impl io::Read>) -> Result<String, CliError> {
    let unreadable = |e: io::Error| OpError::invalid(format!("cannot read {name}: {e}"));
    let most = u64::try_from(limits::INPUT_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let from = io::Read::take(from.map_err(unreadable)?, most);
    Ok(io::read_to_string(from).map_err(unreadable)?)
}

fn absolute(path: &str) -> Result<String, CliError> {
    if matches!(Place::parse(path), Ok(Place::Remote(_))) {
        return Ok(path.to_owned());
    }
    let path = std::path::absolute(path)?;
    // A path that is there is named as it really is, so that `.` and links do not end up in rows.
    let path = path.canonicalize().unwrap_or(path);
    path.into_os_string()
        .into_string()
        .map_err(|_| OpError::invalid("the path is not UTF-8").into())
}

/// Show the change and give the digest of what was shown.
async fn seen(
    context: &OpContext,
    id: &Value,
    out: &mut Out,
    json: bool,
) -> Result<String, CliError> {
    let show = ops::find("change.show").ok_or_else(|| OpError::internal("no change.show"))?;
    let change = (show.call)(context, json!({"id": id})).await?;
    if !json {
        change_view::summary(out, &change, Utc::now())?;
    }
    Ok(text(&change, "digest").to_owned())
}
