//! From the wire to our events: pure, lenient, and total. What is not known is kept as it came.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::calls::{KnownCall, without_worktree};
use super::files::told_places;
use crate::agent::event::{AgentEvent, PlanEntry, ToolCall};
use crate::agent::last_words::LastWords;
use crate::agent::permission::PermissionAsk;
use crate::domain::limits;
use crate::domain::redact::Redactor;

/// Turns the updates of one session into events and remembers its tool calls, because later
/// messages about a call name only what changed.
#[derive(Debug)]
pub struct Projection {
    worktree: PathBuf,
    calls: HashMap<String, KnownCall>,
    failed: Option<String>,
    denied: bool,
    last_text: LastWords,
    secrets: Redactor,
}

impl Projection {
    /// For a session in this worktree; the secrets are taken out of what is cut.
    pub fn new(worktree: &Path, secrets: Redactor) -> Self {
        Self {
            worktree: worktree.to_owned(),
            calls: HashMap::new(),
            failed: None,
            denied: false,
            last_text: LastWords::new(secrets.clone(), limits::ERROR_TEXT_CHARS_MAX),
            secrets,
        }
    }

    /// Events of the `update` member of one `session/update`.
    pub fn update(&mut self, update: &Value) -> Vec<AgentEvent> {
        let kind = update
            .get("sessionUpdate")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match kind {
            "agent_message_chunk" => {
                let events = self.content_text(update, "agent_message_chunk", |text| {
                    AgentEvent::Text { text }
                });
                for event in &events {
                    if let AgentEvent::Text { text } = event {
                        self.denied = false;
                        self.last_text.push(text);
                    }
                }
                events
            }
            "agent_thought_chunk" => self.content_text(update, "agent_thought_chunk", |text| {
                AgentEvent::Thought { text }
            }),
            // Our own prompt, or history; never the agent's words.
            "user_message_chunk" => Vec::new(),
            "tool_call" | "tool_call_update" => {
                // Another call: the agent goes on. More about the denied one is no such sign.
                let id = update.get("toolCallId").and_then(Value::as_str);
                self.denied &= id.is_some_and(|id| self.calls.contains_key(id));
                let call = self.tool_call(update).map(AgentEvent::ToolCall);
                call.into_iter().collect()
            }
            "plan" => vec![AgentEvent::Plan {
                entries: plan(update),
            }],
            "available_commands_update" => vec![AgentEvent::Commands {
                commands: update
                    .get("availableCommands")
                    .cloned()
                    .unwrap_or(Value::Null),
            }],
            "current_mode_update" => match text_at(update, "/currentModeId") {
                Some(mode_id) => vec![AgentEvent::Mode { mode_id }],
                None => vec![self.unknown(kind, update)],
            },
            "session_info_update" => {
                self.session_info(update);
                Vec::new()
            }
            // The session reads both: options are applied there, usage has its own meter.
            "config_option_update" | "usage_update" => Vec::new(),
            "notice" => match text_at(update, "/message").or_else(|| text_at(update, "/text")) {
                Some(text) => vec![AgentEvent::Notice { text }],
                None => vec![self.unknown(kind, update)],
            },
            other => vec![self.unknown(other, update)],
        }
    }

    /// What an agent asks in `session/request_permission`; the call in it may be its first and
    /// only announcement, or nothing but an id.
    pub fn ask(&mut self, params: &Value) -> (PermissionAsk, Option<AgentEvent>) {
        let call = params.get("toolCall").unwrap_or(&Value::Null);
        let event = self.tool_call(call).map(AgentEvent::ToolCall);
        let id = text_at(call, "/toolCallId");
        let nothing = KnownCall::default();
        let known = id.as_ref().and_then(|id| self.calls.get(id));
        let known = known.unwrap_or(&nothing);
        let ask = PermissionAsk {
            outside: !known.is_inside(&self.worktree),
            kind: known.kind().unwrap_or("other").to_owned(),
            title: known.question(&self.worktree, &self.secrets),
            detail: cut(call, &self.secrets),
            options: cut(params.get("options").unwrap_or(&Value::Null), &self.secrets),
            tool_call_id: id,
        };
        (ask, event)
    }

    /// The agent's own sign that the turn failed although it ends with `end_turn` (codex-acp).
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// A question was answered with no.
    pub fn was_denied(&mut self) {
        self.denied = true;
    }

    /// Whether nothing came after a denied question: opencode ends its turn there, with
    /// `end_turn` as if its work were done.
    pub fn ends_denied(&self) -> bool {
        self.denied
    }

    /// The end of the answer so far: agents put error texts there.
    pub fn last_text(&self) -> String {
        self.last_text.text()
    }

    /// A new turn begins: what was said before it does not count.
    pub fn begin_turn(&mut self) {
        self.failed = None;
        self.denied = false;
        self.last_text.clear();
    }

    fn unknown(&self, method: &str, raw: &Value) -> AgentEvent {
        AgentEvent::Unknown {
            method: method.to_owned(),
            raw: cut(raw, &self.secrets),
        }
    }

    fn content_text(
        &self,
        update: &Value,
        method: &str,
        event: impl Fn(String) -> AgentEvent,
    ) -> Vec<AgentEvent> {
        let content = update.get("content").unwrap_or(&Value::Null);
        if content.get("type").and_then(Value::as_str) != Some("text") {
            return vec![self.unknown(method, update)];
        }
        // qwen hangs its usage on chunks without text.
        text_at(content, "/text")
            .filter(|text| !text.is_empty())
            .map(event)
            .into_iter()
            .collect()
    }

    fn session_info(&mut self, update: &Value) {
        match update
            .pointer("/_meta/codex/threadStatus/type")
            .and_then(Value::as_str)
        {
            Some("systemError") => self.failed = Some("systemError".to_owned()),
            Some("active") => self.failed = None,
            _ => {}
        }
    }

    fn tool_call(&mut self, wire: &Value) -> Option<ToolCall> {
        let id = text_at(wire, "/toolCallId")?;
        let change = ToolCall {
            step_id: None,
            title: text_at(wire, "/title").map(|title| without_worktree(&title, &self.worktree)),
            kind: text_at(wire, "/kind"),
            status: text_at(wire, "/status"),
            input: wire
                .get("rawInput")
                .filter(|input| !input.is_null())
                .map(|input| cut(input, &self.secrets)),
            output: output(wire).map(|output| cut(output, &self.secrets)),
            paths: self.paths(wire),
            id,
        };
        if self.calls.len() < limits::TOOL_CALLS_MAX || self.calls.contains_key(&change.id) {
            let call = self.calls.entry(change.id.clone()).or_default();
            call.merge(&change, wire, &self.worktree, &self.secrets);
        }
        Some(change)
    }

    fn paths(&self, wire: &Value) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for path in told_places(wire) {
            let inside = Path::new(path).strip_prefix(&self.worktree);
            let path = inside.map_or(path.into(), |path| path.to_string_lossy());
            if !paths.iter().any(|known| *known == path) {
                paths.push(path.into_owned());
            }
        }
        paths
    }
}

/// The output of a call: its content where it has some, else its raw output.
fn output(wire: &Value) -> Option<&Value> {
    let content = wire
        .get("content")
        .filter(|c| c.as_array().is_some_and(|list| !list.is_empty()));
    let raw = wire.get("rawOutput").filter(|raw| !raw.is_null());
    content.or(raw)
}

fn plan(update: &Value) -> Vec<PlanEntry> {
    let entries = update
        .get("entries")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    entries
        .map(|entry| PlanEntry {
            content: text_at(entry, "/content").unwrap_or_default(),
            status: text_at(entry, "/status").unwrap_or_else(|| "pending".to_owned()),
            priority: text_at(entry, "/priority"),
        })
        .collect()
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

/// The value itself when it is small, else the beginning of its text with a word about the rest.
pub(crate) fn cut(value: &Value, secrets: &Redactor) -> Value {
    let text = value.to_string();
    if text.len() <= limits::TOOL_TEXT_BYTES_MAX {
        return value.clone();
    }
    let shown = secrets.head(&text, limits::TOOL_TEXT_BYTES_MAX);
    json!({"cut": true, "bytes": text.len(), "text": shown})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projection() -> Projection {
        Projection::new(Path::new("/w"), Redactor::default())
    }

    #[test]
    fn calls_merge_from_all_three_messages_and_paths_are_relative() {
        let mut projection = projection();
        // As vibe sends it: the request names nothing but the id of an earlier call.
        let events = projection.update(&json!({
            "sessionUpdate": "tool_call", "toolCallId": "c", "title": "Write a.txt", "kind": "edit",
            "content": [{"type": "diff", "path": "/w/a.txt", "oldText": null, "newText": "x"}],
            "locations": [{"path": "/w/a.txt"}, {"path": "/etc/passwd"}],
        }));
        let AgentEvent::ToolCall(call) = &events[0] else {
            panic!("a tool call")
        };
        assert_eq!(call.paths, ["a.txt", "/etc/passwd"]);
        let params = json!({"toolCall": {"toolCallId": "c"}, "options": []});
        let (ask, _) = projection.ask(&params);
        assert_eq!(
            (ask.kind.as_str(), ask.title.as_str()),
            ("edit", "Write a.txt: /etc/passwd")
        );
        // As gemini sends it: the request is the only announcement.
        let params = json!({"toolCall": {"toolCallId": "d", "title": "ls", "kind": "execute"}});
        let (ask, event) = projection.ask(&params);
        assert_eq!(ask.kind, "execute");
        assert!(matches!(event, Some(AgentEvent::ToolCall(call)) if call.id == "d"));
    }

    #[test]
    fn a_title_names_a_file_by_its_place_in_the_project() {
        let call = json!({"toolCallId": "c", "title": "/w/src/a.rs", "kind": "edit"});
        let (ask, _) = projection().ask(&json!({"toolCall": call}));
        assert_eq!(ask.title, "src/a.rs");
    }

    #[test]
    fn a_question_says_what_it_is_about() {
        let title = |call: Value| projection().ask(&json!({ "toolCall": call })).0.title;
        // fast-agent 0.10.46.
        let call = json!({"toolCallId": "c", "title": "execute", "kind": "execute",
            "rawInput": {"command": "rm -r build"}});
        assert_eq!(title(call), "execute: rm -r build");
        let call = json!({"toolCallId": "c", "title": "write_text_file", "kind": "edit",
            "rawInput": {"path": "/w/a.txt", "content_length": 39}});
        assert_eq!(title(call), "write_text_file: a.txt");
        // codex-acp 2.6.0.
        let call = json!({"toolCallId": "c", "title": "Edit files", "kind": "edit",
            "locations": [{"path": "/w/a.txt"}, {"path": "/etc/hosts"}]});
        assert_eq!(title(call), "Edit files: a.txt, /etc/hosts");
        // A title that is not what would be done.
        let call = json!({"toolCallId": "c", "title": "List the files",
            "rawInput": {"command": ["sh", "-c", "curl x | sh"]}});
        assert_eq!(title(call), "List the files: sh -c curl x | sh");
        // opencode 1.18.33 says it already.
        let call = json!({"toolCallId": "c", "title": "ls -l", "rawInput": {"command": "ls -l"}});
        assert_eq!(title(call), "ls -l");
        let long = "é".repeat(limits::QUESTION_SUBJECT_CHARS_MAX + 1);
        let call = json!({"toolCallId": "c", "title": "x", "rawInput": {"command": long}});
        assert!(title(call).ends_with("é…"));
    }

    #[test]
    fn a_question_is_inside_only_when_its_files_are() {
        let tree = tempfile::tempdir().unwrap();
        let tree = tree.path().canonicalize().unwrap();
        let outside = |earlier: Value, asked: Value| {
            let mut projection = Projection::new(&tree, Redactor::default());
            let call = |kind: &str, mut call: Value| {
                call["toolCallId"] = json!("c");
                call["sessionUpdate"] = json!(kind);
                call
            };
            projection.update(&call(
                "tool_call",
                json!({"kind": "edit", "title": "Write"}),
            ));
            projection.update(&call("tool_call_update", earlier));
            let (ask, _) = projection.ask(&json!({"toolCall": call("", asked)}));
            (ask.outside, ask.title)
        };
        let input = |path: &str| json!({"rawInput": {"file_path": path}});
        let place = |path: &str| json!({"locations": [{"path": path}], "rawInput": {}});
        // The request may be nothing but an id (vibe), and later messages do not take back what
        // an earlier one named.
        for (earlier, asked) in [
            (input("/etc/hosts"), json!({})),
            (input("/etc/hosts"), place("a.rs")),
            (place("a.rs"), input("/etc/hosts")),
            (place("/etc/hosts"), input("a.rs")),
        ] {
            let (outside, title) = outside(earlier.clone(), asked.clone());
            assert!(outside, "{earlier} {asked}");
            assert!(title.contains("/etc/hosts"), "{title}");
        }
        for (earlier, asked) in [(input("a.rs"), json!({})), (json!({}), place("a.rs"))] {
            assert!(
                !outside(earlier.clone(), asked.clone()).0,
                "{earlier} {asked}"
            );
        }
        assert!(outside(json!({}), json!({})).0, "no file is known");
        let large = "x".repeat(limits::TOOL_TEXT_BYTES_MAX);
        let large = json!({"rawInput": {"file_path": "/etc/hosts", "content": large}});
        assert!(
            outside(large, place("a.rs")).0,
            "also where the input is cut"
        );
    }

    #[test]
    fn a_denied_question_ends_the_turn_only_when_nothing_follows_it() {
        let update = |kind: &str, id: &str| json!({"sessionUpdate": kind, "toolCallId": id});
        let mut projection = projection();
        projection.update(&update("tool_call", "c"));
        projection.was_denied();
        projection.update(&update("tool_call_update", "c"));
        assert!(
            projection.ends_denied(),
            "the denied call is told as failed"
        );
        projection.update(&update("tool_call", "d"));
        assert!(!projection.ends_denied(), "the agent tries something else");
        projection.was_denied();
        projection.update(&json!({
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "then not"},
        }));
        assert!(!projection.ends_denied(), "the agent answers without it");
    }

    #[test]
    fn unknown_kinds_are_kept_and_never_fatal() {
        for update in [
            json!({"sessionUpdate": "hologram", "x": 1}),
            json!({}),
            json!(7),
        ] {
            let events = projection().update(&update);
            assert!(matches!(&events[..], [AgentEvent::Unknown { raw, .. }] if *raw == update));
        }
        let image = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "image"}});
        assert!(matches!(
            &projection().update(&image)[..],
            [AgentEvent::Unknown { .. }]
        ));
    }

    #[test]
    fn a_huge_input_is_cut_and_says_so() {
        let big = json!({"text": "é".repeat(limits::TOOL_TEXT_BYTES_MAX)});
        let small = cut(&big, &Redactor::default());
        assert_eq!(small["cut"], json!(true));
        assert!(small.to_string().len() < limits::TOOL_TEXT_BYTES_MAX + 200);
    }

    #[test]
    fn a_secret_across_a_cut_leaves_no_part_behind() {
        const VALUE: &str = "k-3f9a7c51e0d2b846";
        let secrets = Redactor::new(crate::domain::redact::Secret::new("KEY", VALUE));
        let clean = |text: &str| (4..=VALUE.len()).all(|n| !text.contains(&VALUE[..n]));
        let mut projection = Projection::new(Path::new("/w"), secrets.clone());
        for ahead in 0..=VALUE.len() {
            let before = "x".repeat(limits::TOOL_TEXT_BYTES_MAX - ahead);
            let shown = cut(&json!(format!("{before}{VALUE} and more")), &secrets);
            assert!(clean(&shown.to_string()), "cut {ahead} bytes into it");
            let before = "x".repeat(limits::QUESTION_SUBJECT_CHARS_MAX - ahead);
            let command = format!("{before}{VALUE} and more");
            let call = json!({"toolCallId": "c", "title": VALUE, "rawInput": {"command": command}});
            let (ask, _) = projection.ask(&json!({"toolCall": call}));
            assert!(clean(&ask.title), "{}", ask.title);
        }
        let said = format!("{VALUE}{}", "y".repeat(limits::ERROR_TEXT_CHARS_MAX - 9));
        projection.update(&json!({
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": said},
        }));
        assert!(
            !projection.last_text().contains(&VALUE[9..]),
            "the end of it"
        );
    }
}
