//! Tool calls and plans as they change: told when something is new, not each time they are repeated.

use std::collections::HashMap;

use serde_json::Value;

use super::out::Paint;
use super::story::{shown, text};
use crate::surface::safe_text;

/// Titles that are remembered; an agent that makes more calls loses the oldest ones' titles.
const TOOLS_KEPT: usize = 10_000;

/// What was told of tool calls and the plan.
#[derive(Default)]
pub(super) struct Progress {
    tools: HashMap<String, Tool>,
    plan: Vec<String>,
}

#[derive(Clone, Default)]
struct Tool {
    title: String,
    told: Option<Mark>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Running,
    Done,
    Failed,
}

impl Progress {
    /// Lines for a tool call that began, got a better name or ended; none for what says nothing new.
    pub(super) fn tool_call(&mut self, paint: Paint, facts: &Value) -> Vec<String> {
        let id = text(facts, "id");
        if self.tools.len() >= TOOLS_KEPT {
            self.tools.clear();
        }
        let tool = self.tools.entry(id.to_owned()).or_default();
        let before = tool.title.clone();
        let named = [text(facts, "title"), text(facts, "tool")];
        if let Some(title) = named.into_iter().find(|t| !t.is_empty()) {
            title.clone_into(&mut tool.title);
        }
        let mark = match text(facts, "status") {
            "completed" | "done" | "ok" => Mark::Done,
            "failed" | "error" => Mark::Failed,
            _ => Mark::Running,
        };
        // A title may come after the call's first sign, so a call without one waits for it.
        let first = tool.told.is_none() && (!tool.title.is_empty() || mark != Mark::Running);
        let ended = tool.told == Some(Mark::Running) && mark != Mark::Running;
        // Agents begin with a bare name and say later what exactly they do.
        let running = tool.told == Some(Mark::Running) && mark == Mark::Running;
        let renamed = running && tool.title != before;
        if !first && !ended && !renamed {
            return Vec::new();
        }
        tool.told = Some(mark);
        let title = [tool.title.as_str(), id]
            .into_iter()
            .find(|t| !t.is_empty());
        tool_lines(paint, mark, title.unwrap_or("tool"), facts)
    }

    /// The entries of a plan that are new or changed.
    pub(super) fn plan(&mut self, paint: Paint, facts: &Value) -> Vec<String> {
        let entries = facts["entries"].as_array().into_iter().flatten();
        let lines: Vec<String> = entries
            .map(|entry| {
                let done = matches!(entry["status"].as_str(), Some("completed" | "done"));
                let words = ["content", "text", "title"]
                    .iter()
                    .find_map(|n| entry[*n].as_str());
                let words = words.map_or_else(|| shown(entry), safe_text::line);
                paint.dim(&format!("{} {words}", if done { "☑" } else { "☐" }))
            })
            .collect();
        let news = lines
            .iter()
            .enumerate()
            .filter(|(n, line)| self.plan.get(*n) != Some(line));
        let news = news.map(|(_, line)| line.clone()).collect();
        self.plan = lines;
        news
    }
}

fn tool_lines(paint: Paint, mark: Mark, title: &str, facts: &Value) -> Vec<String> {
    let sign = match mark {
        Mark::Done => paint.green("✓"),
        Mark::Failed => paint.red("✗"),
        Mark::Running => paint.cyan("●"),
    };
    let mut line = format!("{sign} {}", safe_text::line(title));
    let paths: Vec<String> = facts["paths"]
        .as_array()
        .into_iter()
        .flatten()
        .map(shown)
        .collect();
    if !paths.is_empty() && !paths.iter().all(|path| title.contains(path.as_str())) {
        line.push_str(&paint.dim(&format!("  {}", paths.join(", "))));
    }
    let mut lines = vec![line];
    if mark == Mark::Failed {
        let output = safe_text::block(&words(&facts["output"]));
        let shown = output.lines().filter(|line| !line.trim().is_empty());
        lines.extend(shown.take(5).map(|l| paint.dim(&format!("  {l}"))));
    }
    lines
}

/// The words in an output: itself, or the texts of its parts as the protocols wrap them.
fn words(output: &Value) -> String {
    match output {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(words).collect::<Vec<_>>().join("\n"),
        Value::Object(part) => match part.get("text").or_else(|| part.get("content")) {
            Some(inner) => words(inner),
            None => output.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_call_is_told_when_it_begins_and_ends_by_its_title() {
        let mut progress = Progress::default();
        let told: Vec<Vec<String>> = [
            json!({"id": "t", "title": "Edit a.txt", "status": "pending"}),
            json!({"id": "t", "status": "in_progress"}),
            json!({"id": "t", "status": "completed"}),
            json!({"id": "t", "status": "completed"}),
            json!({"id": "u"}),
            json!({"id": "u", "status": "failed", "output": "no"}),
        ]
        .iter()
        .map(|facts| progress.tool_call(Paint(false), facts))
        .collect();
        let none = Vec::<String>::new;
        let one = |line: &str| vec![line.to_owned()];
        let wanted = [
            one("● Edit a.txt"),
            none(),
            one("✓ Edit a.txt"),
            none(),
            none(),
            vec!["✗ u".to_owned(), "  no".to_owned()],
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn only_what_changed_of_a_plan_is_told_again() {
        let mut progress = Progress::default();
        let plan = |first: &str| json!({"entries": [{"content": "a", "status": first}, {"content": "b", "status": "pending"}]});
        assert_eq!(
            progress.plan(Paint(false), &plan("pending")),
            ["☐ a", "☐ b"]
        );
        assert_eq!(progress.plan(Paint(false), &plan("completed")), ["☑ a"]);
    }
}
