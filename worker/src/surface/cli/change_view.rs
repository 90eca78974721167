//! A change for a reviewer: what it is, which files, their diffs, and how to decide.

use std::io;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::forms::{Form, counted, show};
use super::out::{Out, Paint};
use super::render;
use super::table::{self, Column};
use super::tree::View;
use crate::domain::flag::{self, Flag};
use crate::ops::OpError;
use crate::surface::safe_text;

const FILES: &[Column] = &[
    Column("FILE", "n", Form::Text),
    Column("REVIEW", "state", Form::State),
    Column("WHAT", "operation", Form::Text),
    Column("KIND", "kind", Form::Text),
    Column("+", "added_lines", Form::Count),
    Column("-", "removed_lines", Form::Count),
    Column("WARNINGS", "flags", Form::Flags),
    Column("FORMERLY", "old_path", Form::Text),
    Column("PATH", "path", Form::Text),
];
const REVIEWS: &[Column] = &[
    Column("AT", "at", Form::Ago),
    Column("WHO", "actor", Form::Text),
    Column("VERDICT", "verdict", Form::Text),
    Column("FILES", "files", Form::List),
    Column("COMMENT", "comment", Form::Text),
];

/// Files named in one warning; the table below has them all.
const FLAGGED_SHOWN: usize = 5;

/// Fields that are shown in another way.
const ELSEWHERE: [&str; 10] = [
    "id",
    "state",
    "file_list",
    "reviews",
    "files",
    "added_lines",
    "removed_lines",
    "notices",
    "flags",
    "conflicts",
];

/// Fields that a review begins with.
const OPENING: [&str; 9] = [
    "task_id",
    "attempt",
    "project",
    "agent",
    "input",
    "partial",
    "created_at",
    "follow_up_task_id",
    "apply_error",
];

pub(crate) fn print(
    out: &mut Out,
    value: &Value,
    view: View,
    now: DateTime<Utc>,
) -> io::Result<()> {
    let files = value["file_list"].as_array().map_or(&[][..], Vec::as_slice);
    match view {
        View::Files => table::print(out, FILES, files, now),
        View::Usual => {
            told(out, value, now)?;
            decide(out, value)
        }
    }
}

/// All that a reviewer must see before a decision.
pub(crate) fn whole(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    told(out, value, now)?;
    warn_again(out, value)
}

fn told(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    let files = value["file_list"].as_array().map_or(&[][..], Vec::as_slice);
    head(out, value, now)?;
    out.line("")?;
    table::print(out, FILES, files, now)?;
    for file in files {
        diff(out, file)?;
    }
    Ok(())
}

/// What a review begins with: whose work it is and what was asked, without commits and refs.
pub(crate) fn opening(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    title(out, value)?;
    let told = |(name, _): &(&String, &Value)| OPENING.contains(&name.as_str());
    let fields = value.as_object().into_iter().flatten().filter(told);
    let fields: serde_json::Map<String, Value> = fields
        .map(|(name, field)| (name.clone(), field.clone()))
        .collect();
    render::fields(out, &Value::Object(fields), now)?;
    caution(out, value, now)?;
    print(out, value, View::Files, now)
}

fn head(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    title(out, value)?;
    render::some_fields(out, value, &ELSEWHERE, now)?;
    caution(out, value, now)
}

fn title(out: &mut Out, value: &Value) -> io::Result<()> {
    let state = value["state"].as_str().unwrap_or("?");
    let title = out.paint.bold(&format!("Change {}", value["id"]));
    let state = out.paint.state(&safe_text::line(state));
    out.line(&format!(
        "{title} {state}  {}, +{} -{}",
        counted(&value["files"].to_string(), "file"),
        value["added_lines"],
        value["removed_lines"]
    ))
}

/// What must not be overlooked, and what others decided.
fn caution(out: &mut Out, value: &Value, now: DateTime<Utc>) -> io::Result<()> {
    warn(out, value)?;
    for notice in value["notices"].as_array().into_iter().flatten() {
        let text = notice
            .as_str()
            .map_or_else(|| notice.to_string(), str::to_owned);
        let note = out
            .paint
            .yellow(&format!("  Note: {}", safe_text::line(&text)));
        out.line(&note)?;
    }
    for conflict in value["conflicts"].as_array().into_iter().flatten() {
        let text = conflict
            .as_str()
            .map_or_else(|| conflict.to_string(), str::to_owned);
        let note = out
            .paint
            .red(&format!("  Conflict: {}", safe_text::line(&text)));
        out.line(&note)?;
    }
    if let Some(reviews) = value["reviews"].as_array().filter(|r| !r.is_empty()) {
        table::print(out, REVIEWS, reviews, now)?;
    }
    Ok(())
}

/// Each warning with the files it is about: no reviewer should find out by reading on.
fn warn(out: &mut Out, value: &Value) -> io::Result<()> {
    let files = value["file_list"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |thing: &Value, name: &str| {
        let flags = thing["flags"].as_array();
        flags.is_some_and(|flags| flags.iter().any(|flag| flag == name))
    };
    // Those of the change, and of its files when an earlier version made it.
    let lists = files.iter().chain([value]).map(|thing| &thing["flags"]);
    let names = lists.flat_map(|flags| flags.as_array().into_iter().flatten());
    let names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
    for name in flag::union([names.as_slice()]) {
        let mut paths = files.iter().filter(|file| has(file, &name));
        let shown: Vec<String> = paths
            .by_ref()
            .take(FLAGGED_SHOWN)
            .map(|file| safe_text::line(file["path"].as_str().unwrap_or("?")))
            .collect();
        let more = match paths.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let words = safe_text::line(&flag::words(&name));
        let line = format!("  Warning: {words}: {}{more}", shown.join(", "));
        let line = match Flag::parse(&name) {
            Some(flag) if flag > Flag::LinkOutside => out.paint.yellow(&line),
            _ => out.paint.red(&line),
        };
        out.line(&line)?;
    }
    Ok(())
}

/// The diff of one file, under its name and its warnings.
pub(crate) fn diff(out: &mut Out, file: &Value) -> io::Result<()> {
    let path = safe_text::line(file["path"].as_str().unwrap_or("?"));
    let operation = safe_text::line(file["operation"].as_str().unwrap_or("?"));
    let title = out.paint.bold(&format!("\n{operation} {path}"));
    out.line(&title)?;
    let flags = show(&file["flags"], Form::Flags, DateTime::UNIX_EPOCH);
    if !flags.is_empty() {
        let flags = out.paint.red(&format!("Warning: {flags}"));
        out.line(&flags)?;
    }
    if let (Some(old), Some(new)) = (file["old_mode"].as_i64(), file["new_mode"].as_i64())
        && old != new
    {
        out.line(&format!("mode {old:o} → {new:o}"))?;
    }
    match file["patch"].as_str() {
        Some(patch) => {
            for line in lines_of(out.paint, patch) {
                out.line(&line)?;
            }
        }
        None => {
            let kind = safe_text::line(file["kind"].as_str().unwrap_or("?"));
            out.line(&format!("({kind}; no lines to show)"))?;
        }
    }
    if file["patch_cut"] == true {
        let note = out
            .paint
            .yellow("(the diff goes on; see the whole of it in the result commit)");
        out.line(&note)?;
    }
    Ok(())
}

/// The diff of a change as one text, or its hunks.
pub(super) fn whole_diff(out: &mut Out, value: &Value) -> io::Result<()> {
    let Some(text) = value["unified"].as_str() else {
        return out.line(&format!("{value:#}"));
    };
    for line in lines_of(out.paint, text) {
        out.line(&line)?;
    }
    left_out(out, value)
}

fn left_out(out: &mut Out, value: &Value) -> io::Result<()> {
    if value["cut"] != true {
        return Ok(());
    }
    let note = out
        .paint
        .yellow("(something is left out: dispatch changes files lists all files)");
    out.line(&note)
}

/// What an application would do.
pub(super) fn preview(out: &mut Out, id: &Value, value: &Value) -> io::Result<()> {
    let branch = safe_text::line(value["target_ref"].as_str().unwrap_or("?"));
    let tip: String = value["tip"]
        .as_str()
        .unwrap_or("?")
        .chars()
        .take(12)
        .collect();
    let place = format!("{branch} at {}", safe_text::line(&tip));
    match value["outcome"].as_str() {
        Some("clean") => {
            whole_diff(out, value)?;
            let told = out.paint.green(&format!("It merges into {place}."));
            out.line(&told)
        }
        Some("nothing") => out.line(&format!("Nothing would change: {place} has all of it.")),
        _ => {
            for conflict in value["conflicts"].as_array().into_iter().flatten() {
                let path = safe_text::line(conflict["path"].as_str().unwrap_or("?"));
                let title = out.paint.bold(&format!("\nconflict in {path}"));
                out.line(&title)?;
                for line in conflict["text"]
                    .as_str()
                    .unwrap_or("")
                    .split_terminator('\n')
                {
                    let mark = ["<<<<<<<", "=======", ">>>>>>>"];
                    let safe = safe_text::block(line);
                    let marked = mark.iter().any(|mark| line.starts_with(mark));
                    let line = if marked { out.paint.red(&safe) } else { safe };
                    out.line(&line)?;
                }
            }
            let told = out.paint.red(&format!("\nIt does not merge into {place}."));
            out.line(&told)?;
            out.line(&format!(
                "Ask for it on top of what is there: dispatch changes request-changes {id} \"…\""
            ))
        }
    }
}

/// Refuse a file that cannot be printed: whoever sends it to another file would get the excuse as its text.
pub(super) fn printable(value: &Value) -> Result<(), OpError> {
    let path = value["path"].as_str().unwrap_or("?");
    match (value["bytes"].as_u64(), value["text"].as_str()) {
        (Some(_), Some(_)) => Ok(()),
        (Some(bytes), None) => Err(OpError::wrong_state(format!(
            "{path:?} has {bytes} bytes that are no text"
        ))),
        (None, _) => Err(OpError::not_found(format!(
            "{path:?} does not exist on this side of the change"
        ))
        .hint("--side before or --side after chooses it.")),
    }
}

/// A file of a change, whole.
pub(super) fn file(out: &mut Out, value: &Value) -> io::Result<()> {
    for line in value["text"].as_str().unwrap_or("").split_terminator('\n') {
        out.line(&safe_text::block(line))?;
    }
    left_out(out, value)
}

/// The lines of a unified diff, each as it is shown.
fn lines_of(paint: Paint, patch: &str) -> impl Iterator<Item = String> {
    patch
        .split_terminator('\n')
        .map(move |line| coloured(paint, line))
}

/// A line of a unified diff. A tab stays, all else that a terminal would obey is shown, the end of a
/// line in a file from Windows too: it may be all that changed.
fn coloured(paint: Paint, line: &str) -> String {
    let safe = safe_text::block(line);
    match line.as_bytes().first() {
        Some(b'+') => paint.green(&safe),
        Some(b'-') => paint.red(&safe),
        Some(b'@') => paint.cyan(&safe),
        _ => safe,
    }
}

/// How a checkout of the branch follows it. Nobody's checkout is touched, so that its next commit
/// would take the change back (or bring it back) unless somebody does this; edits of its own are kept.
fn follow(out: &mut Out, value: &Value) -> io::Result<()> {
    let (Some(undo), Some(commit)) = (value["undo_ref"].as_str(), value["applied_commit"].as_str())
    else {
        return Ok(());
    };
    let (undo, commit) = (safe_text::line(undo), safe_text::line(commit));
    let undone = value["state"] == "undone";
    let (from, to) = if undone {
        (commit, undo)
    } else {
        (undo, commit)
    };
    let mut next = format!("\nIn a checkout of the branch: git read-tree -m -u {from} {to}");
    if !undone {
        next.push_str(&format!(
            "\nTake it out again: dispatch changes undo {}",
            value["id"]
        ));
    }
    let next = out.paint.dim(&next);
    out.line(&next)
}

/// Once more below the diffs, where the decision is made.
fn warn_again(out: &mut Out, value: &Value) -> io::Result<()> {
    let flags = value["flags"].as_array();
    if flags.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    out.line("")?;
    warn(out, value)
}

fn decide(out: &mut Out, value: &Value) -> io::Result<()> {
    if matches!(value["state"].as_str(), Some("applied" | "undone")) {
        return follow(out, value);
    }
    if !matches!(value["state"].as_str(), Some("pending" | "conflicted")) {
        return Ok(());
    }
    warn_again(out, value)?;
    let id = &value["id"];
    let digest = safe_text::line(value["digest"].as_str().unwrap_or(""));
    let next = format!(
        "\nDecide: dispatch changes approve {id} --digest {digest}\n        \
         dispatch changes reject {id} --reason WHY\n        \
         dispatch changes request-changes {id} \"what to do\""
    );
    let next = out.paint.dim(&next);
    out.line(&next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_nothing_but_line_ends_is_seen() {
        let patch = "@@ -1 +1 @@\n-one\n+one\r\n\\ No newline at end of file\n";
        let lines: Vec<String> = lines_of(Paint(false), patch).collect();
        assert_eq!(
            lines,
            [
                "@@ -1 +1 @@",
                "-one",
                "+one␍",
                "\\ No newline at end of file"
            ]
        );
    }
}
