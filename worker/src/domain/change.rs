//! What an attempt left, and how review may move it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a pending change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Waits for a reviewer.
    Pending,
    /// A reviewer said yes; a worker applies it next.
    Approved,
    /// A reviewer said no.
    Rejected,
    /// It is in the target branch.
    Applied,
    /// It does not merge into the target as it stands now.
    Conflicted,
    /// A newer change of the same work took its place.
    Superseded,
    /// It was in the target branch, and was taken out again.
    Undone,
}

impl ChangeState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Applied,
        Self::Conflicted,
        Self::Superseded,
        Self::Undone,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Applied => "applied",
            Self::Conflicted => "conflicted",
            Self::Superseded => "superseded",
            Self::Undone => "undone",
        }
    }

    /// The state with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a change may go from this state to another. The table `change_moves` says the
    /// same; a test compares them.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Approved | Self::Rejected | Self::Superseded),
            Self::Approved => matches!(next, Self::Applied | Self::Conflicted | Self::Rejected),
            Self::Conflicted => matches!(next, Self::Approved | Self::Rejected | Self::Superseded),
            Self::Applied => matches!(next, Self::Undone),
            Self::Rejected | Self::Superseded | Self::Undone => false,
        }
    }
}

/// What happened to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileOperation {
    /// It is new.
    Create,
    /// Its content (and perhaps its mode) changed.
    Edit,
    /// It is gone.
    Delete,
    /// It has another name (and perhaps other content).
    Rename,
    /// Only its mode changed.
    Mode,
}

impl FileOperation {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Mode => "mode",
        }
    }
}

/// What kind of thing a changed file is, on its newer side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Lines of text.
    Text,
    /// Bytes; shown by size and hash.
    Binary,
    /// A symbolic link; its target is shown as text.
    Symlink,
    /// A pointer to a commit of another repository.
    Submodule,
}

impl FileKind {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Symlink => "symlink",
            Self::Submodule => "submodule",
        }
    }
}

/// One file of a pending change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Exact bytes of the path, relative to the root of the tree.
    pub path: Vec<u8>,
    /// Exact bytes of the former path of a rename.
    pub old_path: Option<Vec<u8>>,
    /// What happened.
    pub operation: FileOperation,
    /// What it is.
    pub kind: FileKind,
    /// Git mode before, absent for a new file.
    pub old_mode: Option<i32>,
    /// Git mode after, absent for a deleted file.
    pub new_mode: Option<i32>,
    /// Blob (or commit) id before.
    pub old_blob: Option<String>,
    /// Blob (or commit) id after.
    pub new_blob: Option<String>,
    /// Lines added; absent for what has no lines.
    pub added_lines: Option<i32>,
    /// Lines removed; absent for what has no lines.
    pub removed_lines: Option<i32>,
    /// Unified diff for people, cut at the limits for views.
    pub patch: Option<String>,
    /// Whether `patch` leaves something out.
    pub patch_cut: bool,
    /// Warnings for the reviewer: steers_agents, runs_code, mode_changed, …
    pub flags: Vec<String>,
}

/// One file of a change as a reviewer sees it, warnings left out: what has to be true when the change
/// is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownFile {
    /// Exact bytes of the path.
    pub path: Vec<u8>,
    /// Exact bytes of the former path of a rename.
    pub old_path: Option<Vec<u8>>,
    /// The path for people.
    pub path_text: String,
    /// The former path for people.
    pub old_path_text: Option<String>,
    /// Name of the operation.
    pub operation: String,
    /// Name of the kind.
    pub kind: String,
    /// Modes before and after.
    pub modes: (Option<i32>, Option<i32>),
    /// Ids before and after.
    pub blobs: (Option<String>, Option<String>),
    /// Lines added and removed.
    pub lines: (Option<i32>, Option<i32>),
    /// The diff.
    pub patch: Option<String>,
    /// Whether `patch` leaves something out.
    pub patch_cut: bool,
}

impl ShownFile {
    /// How a file is shown.
    pub fn of(file: &FileChange) -> Self {
        Self {
            path: file.path.clone(),
            old_path: file.old_path.clone(),
            path_text: show_path(&file.path),
            old_path_text: file.old_path.as_deref().map(show_path),
            operation: file.operation.as_str().to_owned(),
            kind: file.kind.as_str().to_owned(),
            modes: (file.old_mode, file.new_mode),
            blobs: (file.old_blob.clone(), file.new_blob.clone()),
            lines: (file.added_lines, file.removed_lines),
            patch: file.patch.clone(),
            patch_cut: file.patch_cut,
        }
    }
}

/// What an attempt left, recorded and pinned.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Commit every difference is against.
    pub base_commit: String,
    /// Tree of what was there.
    pub result_tree: String,
    /// Commit of that tree in the project's store, pinned by `result_ref`.
    pub result_commit: String,
    /// `refs/dispatch/<task>/<attempt>`.
    pub result_ref: String,
    /// SHA-256 (hex) over base, tree and file rows: what a decision names.
    pub digest: String,
    /// One row per file, in path order; empty: nothing changed.
    pub files: Vec<FileChange>,
    /// What the reviewer must know: nested repositories, files left out with the reason.
    pub notices: Vec<String>,
    /// The objects that the change adds, as a thin pack; `None`: larger than the cap.
    pub pack: Option<Vec<u8>>,
}

/// Show exact path bytes to a person: UTF-8 as it is, other bytes and controls as `\xNN`, and a
/// backslash doubled, so that two paths never look the same.
pub fn show_path(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        shown.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// An edit of the text file at this path, for tests.
/// Patches of files as one text, each with whether it leaves something out, up to so many bytes. Says
/// whether anything is left out.
pub fn unified<'a>(
    patches: impl Iterator<Item = (Option<&'a str>, bool)>,
    bytes_max: usize,
) -> (String, bool) {
    let mut text = String::new();
    let mut cut = false;
    for (patch, patch_cut) in patches {
        cut |= patch_cut;
        let patch = patch.unwrap_or("");
        if text.len() + patch.len() > bytes_max {
            return (text, true);
        }
        text.push_str(patch);
        if !patch.is_empty() && !patch.ends_with('\n') {
            text.push('\n');
        }
    }
    (text, cut)
}

#[cfg(test)]
pub(crate) fn edited(path: &str) -> FileChange {
    FileChange {
        path: path.as_bytes().to_vec(),
        old_path: None,
        operation: FileOperation::Edit,
        kind: FileKind::Text,
        old_mode: Some(0o100_644),
        new_mode: Some(0o100_644),
        old_blob: Some("a".repeat(40)),
        new_blob: Some("b".repeat(40)),
        added_lines: None,
        removed_lines: None,
        patch: None,
        patch_cut: false,
        flags: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_paths_never_look_the_same() {
        assert_eq!(show_path("naïve.txt".as_bytes()), "naïve.txt");
        assert_eq!(show_path(b"caf\xe9"), "caf\\xe9");
        assert_eq!(show_path(b"caf\\xe9"), "caf\\\\xe9");
        assert_eq!(show_path(b"a\nb"), "a\\x0ab");
    }
}
