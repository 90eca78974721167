//! The files that a tool call names, and whether all of them are in the worktree. Only a file that
//! is known to be there counts: what is changed elsewhere no review shows.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::domain::limits;

/// The last word of the members of a tool's input that hold a file's name, whatever it looks like.
const FILE_WORDS: [&str; 18] = [
    "path",
    "paths",
    "filepath",
    "file",
    "files",
    "filename",
    "filenames",
    "uri",
    "uris",
    "dir",
    "directory",
    "folder",
    "destination",
    "dest",
    "target",
    "source",
    "location",
    "locations",
];

/// Likewise of members that hold what is written or looked for, which may begin like a file's name
/// (`// a comment`).
const TEXT_WORDS: [&str; 14] = [
    "text",
    "content",
    "contents",
    "string",
    "str",
    "diff",
    "patch",
    "code",
    "body",
    "description",
    "command",
    "pattern",
    "query",
    "regex",
];

/// What a member of a tool's input holds, by its name.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Files,
    Text,
    Anything,
}

impl Holds {
    fn of(key: &str) -> Self {
        let key = key.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
        let begins = key.rfind(|c: char| !c.is_ascii_lowercase());
        let word = key.get(begins.unwrap_or(0)..).unwrap_or(key);
        let word = word.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let word = word.to_ascii_lowercase();
        // NotebookEdit's `new_source` is what it writes.
        let of_cell = word == "source" && (key.starts_with("new") || key.starts_with("old"));
        if of_cell || TEXT_WORDS.contains(&word.as_str()) {
            Self::Text
        } else if FILE_WORDS.contains(&word.as_str()) {
            Self::Files
        } else {
            Self::Anything
        }
    }
}

/// The paths that a message about a call says it touches: its locations and its diffs.
pub(super) fn told_places(wire: &Value) -> impl Iterator<Item = &str> {
    let list = |key| {
        let list = wire.get(key).and_then(Value::as_array);
        list.into_iter().flatten()
    };
    let diffs =
        list("content").filter(|part| part.get("type").and_then(Value::as_str) == Some("diff"));
    list("locations")
        .chain(diffs)
        .filter_map(|place| place.get("path").and_then(Value::as_str))
}

/// What one call named in all its messages, as it was written there.
#[derive(Debug, Default)]
pub(super) struct NamedFiles {
    names: Vec<String>,
    bytes: usize,
    /// There are more than are kept.
    more: bool,
}

impl NamedFiles {
    /// Look at a message about the call: its locations, its diffs and its input, before that is cut.
    pub(super) fn note(&mut self, wire: &Value) {
        for path in told_places(wire) {
            self.add(path);
        }
        if let Some(input) = wire.get("rawInput") {
            self.note_input(input, false);
        }
    }

    /// In the order they were named.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether a file is named and all of them are in this worktree now. An agent that changes a
    /// directory for a link after it asked is not seen through.
    pub(super) fn are_inside(&self, worktree: &Path) -> bool {
        !self.more
            && !self.names.is_empty()
            && self.names.iter().all(|name| is_inside(name, worktree))
    }

    /// `of_files`: every text below is a file's name.
    fn note_input(&mut self, input: &Value, of_files: bool) {
        match input {
            Value::String(text) if of_files || leads_away(text) => self.add(text),
            Value::Array(list) => list
                .iter()
                .for_each(|value| self.note_input(value, of_files)),
            Value::Object(members) => {
                for (key, value) in members {
                    // Changes may be listed by the file they are of.
                    if key.contains('/') {
                        self.add(key);
                    }
                    match Holds::of(key) {
                        Holds::Text => {}
                        holds => self.note_input(value, holds == Holds::Files),
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, name: &str) {
        if name.is_empty() || self.names.iter().any(|known| known == name) {
            return;
        }
        let bytes = self.bytes + name.len();
        if self.names.len() < limits::TOOL_CALL_FILES_MAX
            && bytes <= limits::TOOL_CALL_FILES_BYTES_MAX
        {
            self.bytes = bytes;
            self.names.push(name.to_owned());
        } else {
            self.more = true;
        }
    }
}

/// Whether a text that need not be a file's name would be one outside of the working directory.
fn leads_away(text: &str) -> bool {
    !text.contains('\n') && (text.starts_with(['/', '~']) || is_uri(text) || goes_up(text))
}

fn goes_up(path: &str) -> bool {
    Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir)
}

/// Whether it begins with a scheme (RFC 3986, 3.1).
fn is_uri(text: &str) -> bool {
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    text.split_once(':')
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(of_scheme))
}

fn is_inside(name: &str, worktree: &Path) -> bool {
    let path = match name.strip_prefix("file://") {
        // A host, or letters that are written as numbers: such names are left to a person.
        Some(path) if !path.starts_with('/') || path.contains('%') => return false,
        Some(path) => path,
        // Some agents put in the home directory for these.
        None if name.starts_with(['~', '$']) || is_uri(name) => return false,
        None => name,
    };
    let path = Path::new(path);
    let relative = match path.strip_prefix(worktree) {
        Ok(relative) => relative,
        Err(_) if path.is_absolute() => return false,
        Err(_) => path,
    };
    // The worktree's own git directory is no part of a change.
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        Component::CurDir => true,
        _ => false,
    };
    relative.components().all(plain) && leads_inside(worktree, relative)
}

/// Whether the links on the way stay in the worktree, as far as the path exists.
fn leads_inside(worktree: &Path, relative: &Path) -> bool {
    let Ok(worktree) = worktree.canonicalize() else {
        return false;
    };
    let mut path: PathBuf = worktree.join(relative);
    loop {
        match fs::symlink_metadata(&path) {
            // A link to nothing cannot be followed, and a file would be made where it points.
            Ok(_) => {
                return path
                    .canonicalize()
                    .is_ok_and(|real| real.starts_with(&worktree));
            }
            Err(error) if is_absent(&error) && path.pop() => {}
            Err(_) => return false,
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn inside(wire: &Value, worktree: &Path) -> bool {
        let mut files = NamedFiles::default();
        files.note(wire);
        files.are_inside(worktree)
    }

    #[test]
    fn links_do_not_lead_out_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir_all(tree.join("src")).unwrap();
        fs::write(tree.join("src/a.rs"), "").unwrap();
        fs::write(dir.path().join("elsewhere"), "").unwrap();
        symlink("/etc", tree.join("away")).unwrap();
        symlink("src", tree.join("here")).unwrap();
        symlink(dir.path().join("elsewhere"), tree.join("file")).unwrap();
        symlink(dir.path().join("not-yet"), tree.join("nothing")).unwrap();
        symlink("round", tree.join("round")).unwrap();
        let place = |path: &str| json!({"locations": [{"path": path}]});
        for path in ["src/a.rs", "src/new/b.rs", "here/a.rs", "./here/new.rs"] {
            assert!(inside(&place(path), &tree), "{path}");
            let whole = tree.join(path).display().to_string();
            assert!(inside(&place(&whole), &tree), "{whole}");
            assert!(inside(&place(&format!("file://{whole}")), &tree), "{whole}");
        }
        for path in [
            "away/hosts",
            "away",
            "file",
            "nothing",
            "nothing/a",
            "round",
            "../tree/src/a.rs",
            ".git/config",
            "src/.GIT/hooks/x",
            "~/a",
            "$HOME/a",
            "file:///etc/hosts",
            "file://host/a",
            "https://example.org/a",
            "untitled:a",
        ] {
            assert!(!inside(&place(path), &tree), "{path}");
        }
        assert!(!inside(&place("src/a.rs"), &dir.path().join("gone")));
    }

    #[test]
    fn an_input_names_files_by_many_words() {
        let tree = tempfile::tempdir().unwrap();
        let inside = |input: Value| inside(&json!({ "rawInput": input }), tree.path());
        for key in [
            "path",
            "file_path",
            "filePath",
            "filepath",
            "notebook_path",
            "destination",
            "newPath",
            "target_file",
            "whatever",
        ] {
            for path in ["/etc/hosts", "~/.bashrc", "file:///etc/hosts", "../a"] {
                assert!(!inside(json!({"path": "a.rs", key: path})), "{key} {path}");
            }
        }
        assert!(inside(json!({"source": "a.rs", "destination": "b.rs"})));
        assert!(!inside(
            json!({"edits": [{"file_path": "a"}, {"file_path": "/etc/hosts"}]})
        ));
        assert!(!inside(json!({"paths": ["a", "/etc/hosts"]})));
        assert!(!inside(json!({"changes": {"/etc/hosts": {"type": "add"}}})));
        assert!(!inside(json!({"profile": "a.rs", "from": "a", "to": "b"})));
        let text = "// /etc/hosts";
        assert!(inside(
            json!({"file_path": "a.rs", "old_string": text, "new_string": "~",
            "content": "/etc/hosts", "file_text": text, "new_source": text, "from": "a", "line": 3})
        ));
    }

    #[test]
    fn a_call_that_names_no_file_is_not_known_to_be_inside() {
        let tree = tempfile::tempdir().unwrap();
        for wire in [
            json!({}),
            json!({"locations": [], "rawInput": {"patch": "*** Update File: a"}}),
            json!({"rawInput": {"path": ""}}),
        ] {
            assert!(!inside(&wire, tree.path()), "{wire}");
        }
        let many: Vec<String> = (0..=limits::TOOL_CALL_FILES_MAX)
            .map(|n| n.to_string())
            .collect();
        let most = json!({"rawInput": {"paths": many[1..].to_vec()}});
        let all = json!({"rawInput": {"paths": many}});
        assert!(!inside(&all, tree.path()), "nobody looked at the last");
        assert!(inside(&most, tree.path()));
        let long = "a/".repeat(limits::TOOL_CALL_FILES_BYTES_MAX);
        assert!(!inside(
            &json!({"locations": [{"path": "a"}, {"path": long}]}),
            tree.path()
        ));
    }
}
