//! The stream of a task, told to a person. Tolerant: a fact that is absent is left out, a kind
//! that is unknown is named.

use serde_json::Value;

use super::forms::{Form, clock, counted, show, thousands};
use super::out::Paint;
use super::progress::Progress;
use super::steps_story;
use crate::ops::stream::TaskEvent;
use crate::surface::safe_text;

/// Text that has not seen its line break yet is held back until so many characters.
const HELD_CHARS_MAX: usize = 400;

/// What is being said, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Text,
    Thought,
    /// What a command of the native agent writes.
    Output,
}

/// Tells a stream and remembers what a status line needs.
pub(crate) struct Story {
    paint: Paint,
    task: i64,
    voice: Voice,
    held: String,
    progress: Progress,
    /// Tokens as last reported.
    pub(crate) tokens: Option<i64>,
    /// When the latest attempt began.
    pub(crate) began: Option<chrono::DateTime<chrono::Utc>>,
    /// Agent of the latest attempt.
    pub(crate) agent: Option<String>,
    /// How the task ended, as the state's name.
    pub(crate) ended: Option<String>,
}

impl Story {
    pub(crate) fn new(paint: Paint, task: i64) -> Self {
        Self {
            paint,
            task,
            voice: Voice::Text,
            held: String::new(),
            progress: Progress::default(),
            tokens: None,
            began: None,
            agent: None,
            ended: None,
        }
    }

    /// The words that are not printed yet, for the status line.
    pub(crate) fn tail(&self) -> &str {
        &self.held
    }

    /// Lines for an event; empty when it only changes what is known.
    pub(crate) fn tell(&mut self, event: &TaskEvent) -> String {
        let facts = &event.payload;
        match event.kind.as_str() {
            "text" => return self.say(Voice::Text, text(facts, "text")),
            "thought" => return self.say(Voice::Thought, text(facts, "text")),
            "tool_output" => return self.say(Voice::Output, text(facts, "text")),
            "usage" => {
                self.tokens = tokens(facts).or(self.tokens);
                return String::new();
            }
            "commands" => return String::new(),
            "attempt_started" => {
                self.began = Some(event.at);
                self.agent = facts["agent"].as_str().map(safe_text::line);
                self.ended = None;
                self.progress = Progress::default();
            }
            _ => {}
        }
        let mut lines = self.flush();
        for line in self.lines(event) {
            lines.push_str(&line);
            lines.push('\n');
        }
        lines
    }

    /// What was held back, as a line.
    pub(crate) fn flush(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return held;
        }
        format!("{}\n", self.voiced(&held))
    }

    fn say(&mut self, voice: Voice, words: &str) -> String {
        let mut lines = if self.voice == voice {
            String::new()
        } else {
            self.flush()
        };
        self.voice = voice;
        self.held.push_str(&safe_text::block(words));
        while let Some(at) = self.held.find('\n') {
            let rest = self.held.split_off(at + 1);
            let line = std::mem::replace(&mut self.held, rest);
            lines.push_str(&format!("{}\n", self.voiced(line.trim_end_matches('\n'))));
        }
        if self.held.len() > HELD_CHARS_MAX
            && let Some(at) = self.held.rfind(' ')
        {
            let rest = self.held.split_off(at + 1);
            let line = std::mem::replace(&mut self.held, rest);
            lines.push_str(&format!("{}\n", self.voiced(line.trim_end())));
        }
        lines
    }

    fn voiced(&self, line: &str) -> String {
        match self.voice {
            Voice::Text => line.to_owned(),
            Voice::Thought => self.paint.dim(line),
            Voice::Output => self.paint.dim(&format!("  | {line}")),
        }
    }

    fn lines(&mut self, event: &TaskEvent) -> Vec<String> {
        let (facts, paint) = (&event.payload, self.paint);
        let word = |name: &str| safe_text::line(text(facts, name));
        match event.kind.as_str() {
            "task_submitted" => vec![paint.dim(&format!(
                "task {} for agent {} in {}, by {}",
                self.task,
                word("agent"),
                word("project"),
                word("by")
            ))],
            "attempt_started" => vec![paint.bold(&format!(
                "── attempt {} with {}{}{}",
                event.attempt,
                word("agent"),
                before(" over ", &word("path")),
                before(", worker ", &shown(&facts["worker"]))
            ))],
            "agent_started" => {
                let mut lines = vec![paint.dim(&agent_started(facts))];
                if let Some(why) = facts["resume_failed"].as_str() {
                    let why = safe_text::line(why);
                    lines.push(paint.yellow(&format!(
                        "note: a new session, without the earlier one: {why}"
                    )));
                }
                lines
            }
            "tool_call" => self.progress.tool_call(paint, facts),
            "plan" => self.progress.plan(paint, facts),
            "mode" => vec![paint.dim(&format!("mode{}", before(" ", &mode(facts))))],
            "notice" => vec![paint.yellow(&format!("note: {}", word("text")))],
            "permission_requested" => asked(paint, facts),
            "permission_resolved" => vec![paint.dim(&format!(
                "permission {}: {}{}",
                shown(&facts["permission_id"]),
                word("answer"),
                before(" by ", &word("by"))
            ))],
            "cancel_requested" => vec![paint.yellow(&format!(
                "cancelling{}{}",
                before(", asked by ", &word("by")),
                before(": ", &word("reason"))
            ))],
            "retry_scheduled" => vec![retry(paint, facts)],
            "given_back" => {
                vec![paint.yellow(&format!("given back{}", before(": ", &word("reason"))))]
            }
            "change_ready" => vec![self.change_ready(facts)],
            "task_completed" | "task_failed" | "task_cancelled" => self.end(event),
            "change_approved"
            | "change_rejected"
            | "changes_requested"
            | "change_applied"
            | "change_conflicted"
            | "change_undo_asked"
            | "change_undone"
            | "change_undo_refused"
            | "task_requeued" => vec![later(paint, event)],
            other => steps_story::tell(paint, other, facts)
                .unwrap_or_else(|| vec![paint.dim(&safe_text::line(&format!("{other} {facts}")))]),
        }
    }

    fn change_ready(&self, facts: &Value) -> String {
        let partial = if facts["partial"] == true {
            ", not finished"
        } else {
            ""
        };
        let files = facts["files"]
            .as_array()
            .map_or_else(|| shown(&facts["files"]), |f| f.len().to_string());
        let warnings = show(&facts["flags"], Form::Flags, chrono::DateTime::UNIX_EPOCH);
        let warnings = self.paint.red(&before(" · ", &warnings));
        let told = self.paint.cyan(&format!(
            "change {}: {}, +{} -{}{partial}",
            shown(&facts["change_id"]),
            counted(&files, "file"),
            shown(&facts["added_lines"]),
            shown(&facts["removed_lines"])
        ));
        told + &warnings
    }

    fn end(&mut self, event: &TaskEvent) -> Vec<String> {
        let (facts, paint, task) = (&event.payload, self.paint, self.task);
        let state = event.kind.trim_start_matches("task_").to_owned();
        let mut line = paint.state(&state);
        if let Some(total) = facts["cost_tokens"].as_i64() {
            self.tokens = Some(total);
            line.push_str(&format!(" · {} tokens", thousands(total)));
        }
        line.push_str(&before(" · cost ", &shown(&facts["cost"])));
        if let Some(began) = self.began {
            line.push_str(&format!(" · {}", clock((event.at - began).num_seconds())));
        }
        let mut lines = vec![format!("── {line}")];
        if let Some(error) = facts["error"].as_str() {
            let class = before(" (", &safe_text::line(text(facts, "error_class")));
            let close = if class.is_empty() { "" } else { ")" };
            lines.push(paint.red(&format!("{}{class}{close}", safe_text::block(error))));
        }
        lines.push(paint.dim(&match facts["change_id"].as_i64() {
            Some(change) => format!("next: dispatch changes show {change}"),
            None if state == "completed" => "the agent changed no files".to_owned(),
            None => format!("next: dispatch show {task}, dispatch requeue {task}"),
        }));
        self.ended = Some(state);
        lines
    }
}

pub(super) fn text<'a>(facts: &'a Value, name: &str) -> &'a str {
    facts[name].as_str().unwrap_or("")
}

/// A value as harmless text; nothing when it is absent.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => safe_text::line(text),
        other => safe_text::line(&other.to_string()),
    }
}

fn before(lead: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{lead}{text}")
    }
}

/// A total if one is told, else the sum of the counts.
fn tokens(facts: &Value) -> Option<i64> {
    let counts = &facts["tokens"];
    let sum = |counts: &Value| {
        let all = counts.as_object()?.values().filter_map(Value::as_i64);
        all.reduce(i64::saturating_add)
    };
    counts
        .as_i64()
        .or_else(|| counts["total"].as_i64())
        .or_else(|| sum(counts))
}

fn mode(facts: &Value) -> String {
    let named = ["mode_id", "mode", "id", "text"]
        .iter()
        .find_map(|name| facts[*name].as_str());
    safe_text::line(named.unwrap_or(""))
}

fn agent_started(facts: &Value) -> String {
    let command = match &facts["command"] {
        Value::Array(words) => words.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => shown(other),
    };
    let parts = [
        before("", &command),
        before("version ", &shown(&facts["version"])),
        before("model ", &shown(&facts["model"])),
        before("mode ", &shown(&facts["mode_id"])),
    ];
    let told: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("agent {}", told.join(", "))
}

fn asked(paint: Paint, facts: &Value) -> Vec<String> {
    let id = shown(&facts["permission_id"]);
    let kind = before(" [", &safe_text::line(text(facts, "kind")));
    let close = if kind.is_empty() { "" } else { "]" };
    vec![
        paint.yellow(&format!(
            "? asks: {}{kind}{close}",
            safe_text::line(text(facts, "title"))
        )),
        format!("  dispatch permissions allow {id}   or   dispatch permissions deny {id}"),
    ]
}

fn retry(paint: Paint, facts: &Value) -> String {
    let wait = facts["wait_ms"]
        .as_i64()
        .map(|ms| clock(ms / 1_000))
        .unwrap_or_default();
    paint.yellow(&format!(
        "tries again{}{}{}",
        before(" in ", &wait),
        before(", ", &safe_text::line(text(facts, "class"))),
        before(": ", &safe_text::line(text(facts, "error")))
    ))
}

fn later(paint: Paint, event: &TaskEvent) -> String {
    let facts = &event.payload;
    paint.cyan(&format!(
        "{}{}{}{}{}",
        event.kind.replace('_', " "),
        before(" ", &shown(&facts["change_id"])),
        before(" by ", &safe_text::line(text(facts, "by"))),
        before(": ", &safe_text::line(text(facts, "reason"))),
        before(": ", &safe_text::line(text(facts, "error")))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(seq: i64, kind: &str, payload: Value) -> TaskEvent {
        let at = chrono::DateTime::from_timestamp(1_800_000_000 + seq, 0).unwrap();
        TaskEvent {
            seq,
            attempt: 1,
            kind: kind.to_owned(),
            payload,
            at,
        }
    }

    #[test]
    fn a_run_is_told_in_whole_lines_and_thoughts_apart() {
        let mut story = Story::new(Paint(false), 42);
        let told: String = [
            event(
                1,
                "task_submitted",
                json!({"project": "shop", "agent": "a", "by": "ada"}),
            ),
            event(
                2,
                "attempt_started",
                json!({"worker": "w1", "agent": "a", "path": "acp"}),
            ),
            event(3, "text", json!({"text": "Hel"})),
            event(4, "text", json!({"text": "lo\nwor"})),
            event(5, "thought", json!({"text": "hm"})),
            event(
                6,
                "tool_call",
                json!({"id": "t", "title": "edit", "status": "failed", "output": "no\x1b[2J"}),
            ),
            event(7, "usage", json!({"tokens": {"input": 1200, "output": 34}})),
            event(
                8,
                "permission_requested",
                json!({"permission_id": 3, "kind": "execute", "title": "rm -rf"}),
            ),
            event(9, "brand_new", json!({"x": 1})),
            event(
                62,
                "task_completed",
                json!({"cost_tokens": 1234, "change_id": 7}),
            ),
        ]
        .iter()
        .map(|e| story.tell(e))
        .collect();
        let wanted = "task 42 for agent a in shop, by ada\n── attempt 1 with a over acp, worker w1\nHello\nwor\nhm\n✗ edit\n  no␛[2J\n? asks: rm -rf [execute]\n  dispatch permissions allow 3   or   dispatch permissions deny 3\nbrand_new {\"x\":1}\n── completed · 1,234 tokens · 1:00\nnext: dispatch changes show 7\n";
        assert_eq!(told, wanted);
        assert_eq!(story.ended.as_deref(), Some("completed"));
    }

    #[test]
    fn a_tool_call_keeps_its_name_and_is_told_once_per_news() {
        let mut story = Story::new(Paint(false), 1);
        // As Claude's adapter tells one command: a name, a better name, silence, its end.
        let told: String = [
            json!({"id": "c", "title": "Terminal", "status": "pending"}),
            json!({"id": "c", "title": "touch x"}),
            json!({"id": "c"}),
            json!({"id": "c", "title": "touch x", "status": "in_progress"}),
            json!({"id": "c", "status": "failed", "output": [
                {"type": "content", "content": {"type": "text", "text": "```\nrefused\n```"}},
            ]}),
            json!({"id": "d", "title": "write", "paths": ["a.txt"], "status": "completed"}),
        ]
        .into_iter()
        .map(|facts| story.tell(&event(2, "tool_call", facts)))
        .collect();
        assert_eq!(
            told,
            "● Terminal\n● touch x\n✗ touch x\n  ```\n  refused\n  ```\n✓ write  a.txt\n"
        );
    }

    #[test]
    fn a_session_that_began_anew_is_told() {
        let facts = json!({"command": ["a"], "resume_failed": "session/resume: gone"});
        let told = Story::new(Paint(false), 1).tell(&event(2, "agent_started", facts));
        let note = "note: a new session, without the earlier one: session/resume: gone";
        assert_eq!(told, format!("agent a\n{note}\n"));
    }

    #[test]
    fn absent_facts_are_left_out() {
        let mut story = Story::new(Paint(false), 1);
        for kind in [
            "task_submitted",
            "attempt_started",
            "agent_started",
            "tool_call",
            "plan",
            "mode",
            "notice",
            "permission_requested",
            "permission_resolved",
            "cancel_requested",
            "retry_scheduled",
            "given_back",
            "change_ready",
            "change_applied",
            "task_failed",
        ] {
            let told = story.tell(&event(2, kind, json!({})));
            assert!(!told.contains("null"), "{kind}: {told}");
        }
    }
}
