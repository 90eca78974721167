//! What the messages about one tool call said so far, and how a question about it is put to a person.

use std::path::Path;

use serde_json::Value;

use super::files::NamedFiles;
use crate::agent::event::ToolCall;
use crate::domain::limits;
use crate::domain::redact::Redactor;

/// One call.
#[derive(Debug, Default)]
pub(super) struct KnownCall {
    title: Option<String>,
    kind: Option<String>,
    /// What it would run; an input that names none does not take it back.
    command: Option<String>,
    files: NamedFiles,
}

impl KnownCall {
    /// Take in a message about it. Fields that are absent in a change are unchanged.
    pub(super) fn merge(
        &mut self,
        change: &ToolCall,
        wire: &Value,
        worktree: &Path,
        secrets: &Redactor,
    ) {
        let set = |to: &mut Option<String>, from: &Option<String>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        set(&mut self.title, &change.title);
        set(&mut self.kind, &change.kind);
        set(&mut self.command, &command(wire, worktree, secrets));
        self.files.note(wire);
    }

    /// What sort of tool it is, in the words of the protocol.
    pub(super) fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Whether files are named and all of them are in the worktree now.
    pub(super) fn is_inside(&self, worktree: &Path) -> bool {
        self.files.are_inside(worktree)
    }

    /// The title with what the question is about, where it does not say so itself: fast-agent names
    /// the tool only, and codex-acp calls every edit "Edit files".
    pub(super) fn question(&self, worktree: &Path, secrets: &Redactor) -> String {
        let title = self.title.as_deref();
        let title = secrets.text(title.unwrap_or("the agent asks for permission"));
        let about = match &self.command {
            Some(command) => command.clone(),
            None => {
                let mut unsaid: Vec<String> = Vec::new();
                for name in self.files.names() {
                    let name = without_worktree(name, worktree);
                    let name = secrets.text(&name).into_owned();
                    if !title.contains(&name) && !unsaid.contains(&name) {
                        unsaid.push(name);
                    }
                }
                unsaid.join(", ")
            }
        };
        if title.contains(&about) {
            return title.into_owned();
        }
        let max = limits::QUESTION_SUBJECT_CHARS_MAX;
        match about.char_indices().nth(max) {
            Some((end, _)) => format!("{title}: {}…", about.get(..end).unwrap_or_default()),
            None => format!("{title}: {about}"),
        }
    }
}

/// Agents put absolute paths into titles; people know the files by their place in the project.
pub(super) fn without_worktree(text: &str, worktree: &Path) -> String {
    text.replace(&format!("{}/", worktree.display()), "")
}

/// The command line in a call's input, as much of it as is shown.
fn command(wire: &Value, worktree: &Path, secrets: &Redactor) -> Option<String> {
    let command = match wire.pointer("/rawInput/command")? {
        Value::String(command) => without_worktree(command, worktree),
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            without_worktree(&words.join(" "), worktree)
        }
        _ => return None,
    };
    let shown = secrets.head_chars(&command, limits::QUESTION_SUBJECT_CHARS_MAX + 1);
    (!shown.is_empty()).then(|| shown.into_owned())
}
