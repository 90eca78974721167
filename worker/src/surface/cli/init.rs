//! `init`: the repository of this directory as a project, with what was found of it and what to do
//! next. Doing it again changes nothing.

use std::path::{Path, PathBuf};

use chrono::Utc;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::out::Out;
use super::{CliError, End, document, lists, safe_text};
use crate::ops::doctor::Finding;
use crate::ops::project::Settings;
use crate::ops::{self, OpContext, OpError};

/// Bytes of a project's name.
const NAME_BYTES_MAX: usize = 63;

/// Add the repository of this directory as a project, and say what was found
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Name of the project; else that of the repository's directory
    #[arg(value_name = "PROJECT")]
    pub name: Option<String>,
    /// Its settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Looks at a repository of this machine. The edge to git, which the command line does not know.
pub trait Surveyor: Send + Sync {
    /// Look at the repository that this directory is in; an error says why no agent can work there.
    fn survey<'a>(
        &'a self,
        dir: &'a Path,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Found, OpError>>;
}

/// A repository that agents can work in.
pub struct Found {
    /// Its top.
    pub top: PathBuf,
    /// The branch that results go to.
    pub target_ref: String,
    /// What else there is to know.
    pub findings: Vec<Finding>,
}

/// Look at the repository of the current directory.
pub(super) async fn look(surveyor: &dyn Surveyor, args: &InitArgs) -> Result<Found, CliError> {
    let here = std::env::current_dir()?;
    Ok(surveyor.survey(&here, &args.settings).await?)
}

/// Add it, unless it is there.
pub(super) async fn run(
    context: &OpContext,
    out: &mut Out,
    args: InitArgs,
    found: Found,
    json: bool,
) -> Result<End, CliError> {
    let path = found
        .top
        .to_str()
        .ok_or_else(|| OpError::invalid("the path of the repository is not UTF-8"))?;
    let known = known(context, path, args.name.as_deref()).await?;
    let added = known.is_none();
    let project = match known {
        Some(project) => project,
        None => {
            let directory = found.top.file_name().unwrap_or_default().to_string_lossy();
            let name = args.name.unwrap_or_else(|| valid_name(&directory));
            add(context, name, path, args.settings).await?
        }
    };
    let findings = serde_json::to_value(&found.findings)
        .map_err(|error| OpError::internal(error.to_string()))?;
    if json {
        let told = json!({
            "added": added, "project": project, "target_ref": found.target_ref, "findings": findings,
        });
        out.line(&document(&told))?;
        return Ok(End::Done);
    }
    let name = safe_text::line(project["name"].as_str().unwrap_or("?"));
    let path = safe_text::line(path);
    let head = match added {
        true => format!("Project {name} is added: {path}"),
        false => format!("Project {name} is there already: {path}"),
    };
    out.line(&head)?;
    let rows = findings.as_array().map_or(&[][..], Vec::as_slice);
    lists::findings(out, rows, Utc::now())?;
    let mut next = format!("\nNext: dispatch submit {name} \"what to do\" --watch");
    if !added {
        next.push_str(&format!(
            "\nChange its settings: dispatch projects update {name} …"
        ));
    }
    let next = out.paint.dim(&next);
    out.line(&next)?;
    Ok(End::Done)
}

/// The project of this path: of this name, when one was typed.
async fn known(
    context: &OpContext,
    path: &str,
    name: Option<&str>,
) -> Result<Option<Value>, OpError> {
    let mut cursor = Value::Null;
    loop {
        let page = call(
            context,
            "project.list",
            json!({"limit": 200, "cursor": cursor}),
        )
        .await?;
        let rows = page["data"].as_array().map_or(&[][..], Vec::as_slice);
        let fits =
            |row: &&Value| row["path"] == path && name.is_none_or(|name| row["name"] == name);
        if let Some(row) = rows.iter().find(fits) {
            return Ok(Some(row.clone()));
        }
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return Ok(None);
        }
    }
}

async fn add(
    context: &OpContext,
    name: String,
    path: &str,
    settings: Settings,
) -> Result<Value, OpError> {
    let mut input =
        serde_json::to_value(settings).map_err(|error| OpError::internal(error.to_string()))?;
    input["name"] = json!(name);
    input["path"] = json!(path);
    let added = call(context, "project.add", input).await;
    added.map_err(|error| match error.code {
        // It is one of another path: that of this one would have been found.
        "duplicate" => error.hint(format!(
            "That is another repository (dispatch projects show {name}). Name this one: dispatch init NAME"
        )),
        _ => error,
    })
}

async fn call(context: &OpContext, op: &str, input: Value) -> Result<Value, OpError> {
    let entry = ops::find(op).ok_or_else(|| OpError::internal(format!("no operation {op}")))?;
    (entry.call)(context, (entry.normalize)(input)?).await
}

/// A name that projects may have, as near to this as can be.
fn valid_name(directory: &str) -> String {
    let lower = directory.to_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut name = String::new();
    for c in lower.chars() {
        match c {
            c if allowed(c) => name.push(c),
            '.' | '_' | '-' if !name.is_empty() => name.push(c),
            // What takes the place of others is written once, and not first.
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(NAME_BYTES_MAX);
    match name.trim_end_matches(['-', '.']) {
        "" => "project".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_a_name_that_projects_may_have() {
        for (directory, name) in [
            ("shop", "shop"),
            ("My Shop (2)", "my-shop-2"),
            (".dotfiles", "dotfiles"),
            ("shop.git", "shop.git"),
            ("Café", "caf"),
            ("日本", "project"),
            ("", "project"),
        ] {
            assert_eq!(valid_name(directory), name, "{directory}");
        }
        assert_eq!(valid_name(&"x".repeat(100)).len(), NAME_BYTES_MAX);
    }
}
