//! Looking into a change: one file of it, its diff as a whole, and what an application would do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::change::{self, FileView};
use super::lookup;
use super::values::{self, ChangeRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::change::unified;
use crate::domain::limits;
use crate::domain::lookup::{Answer, FileText, Preview, Question, Side};
use crate::domain::scope::Scope;
use crate::store::changes;

/// Show the whole of a file of a change, after it or before it. A worker reads it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowFile {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// The file
    pub path: String,
    /// As the work found it, or as the work left it
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub side: Side,
}

impl Op for ShowFile {
    const SPEC: Spec = Spec {
        name: "change.file",
        method: Method::Get,
        path: "/changes/{id}/file",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show the whole of a file of a change",
    };
    type Output = FileText;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "As it was before",
            cli: &["7", "src/lib.rs", "--side", "before"],
            input: json!({"id": 7, "path": "src/lib.rs", "side": "before"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        change::existing(&context.store, self.id.0).await?;
        files_of(context, self.id, Some(&self.path)).await?;
        let question = Question::File {
            change: self.id.0.0,
            path: self.path,
            side: self.side,
        };
        match lookup::any(context, &question).await? {
            Answer::File(file) => Ok(file),
            _ => Err(lookup::something_else()),
        }
    }
}

/// How a diff is written.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One text, as `git diff` writes it.
    #[default]
    Unified,
    /// Files, hunks and lines.
    Json,
}

/// Show the diff of a change as one text, or as files, hunks and lines.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DiffChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Only this file
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
    /// unified or json
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub form: Form,
}

/// The diff of a change, for looking at; what is applied are the objects that the digest names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeDiff {
    /// The change.
    pub change_id: i64,
    /// Its digest.
    pub digest: String,
    /// Whether something is left out: a file too large, or one that is no text.
    pub cut: bool,
    /// As one text, when that was asked for.
    pub unified: Option<String>,
    /// As files, when that was asked for.
    pub files: Option<Vec<FileDiff>>,
}

/// The diff of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileDiff {
    /// Its path.
    pub path: String,
    /// Its former path, when it was renamed.
    pub old_path: Option<String>,
    /// create, edit, delete, rename or mode.
    pub operation: String,
    /// text, binary, symlink or submodule.
    pub kind: String,
    /// Whether something is left out.
    pub cut: bool,
    /// What changed, in order.
    pub hunks: Vec<Hunk>,
}

/// Lines that changed, with those around them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hunk {
    /// First line before, from 1; 0: before the first.
    pub old_start: u32,
    /// Lines before.
    pub old_lines: u32,
    /// First line after.
    pub new_start: u32,
    /// Lines after.
    pub new_lines: u32,
    /// The lines, each with its sign: blank, plus, minus, or a backslash for a remark.
    pub lines: Vec<String>,
}

impl Op for DiffChange {
    const SPEC: Spec = Spec {
        name: "change.diff",
        method: Method::Get,
        path: "/changes/{id}/diff",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show the diff of a change, as one text or as hunks",
    };
    type Output = ChangeDiff;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "As git writes it",
                cli: &["7"],
                input: json!({"id": 7, "form": "unified"}),
            },
            Example {
                about: "One file, for a program",
                cli: &["7", "--file", "src/lib.rs", "--form", "json"],
                input: json!({"id": 7, "file": "src/lib.rs", "form": "json"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let change = change::existing(&context.store, self.id.0).await?;
        let files = files_of(context, self.id, self.file.as_deref()).await?;
        let (unified, files, cut) = match self.form {
            Form::Unified => {
                let patches = files.iter().map(|file| {
                    let cut = file.patch_cut || file.patch.is_none();
                    (file.patch.as_deref(), cut)
                });
                let (text, cut) = unified(patches, limits::PREVIEW_BYTES_MAX);
                (Some(text), None, cut)
            }
            Form::Json => {
                let files: Vec<FileDiff> = files.into_iter().map(file_diff).collect();
                let cut = files.iter().any(|file| file.cut);
                (None, Some(files), cut)
            }
        };
        Ok(ChangeDiff {
            change_id: change.id,
            digest: change.digest,
            cut,
            unified,
            files,
        })
    }
}

/// Say what would become of the target branch if a change were applied now. Nothing is moved.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PreviewChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Only this file; give it again for more. Default: those that are not rejected
    #[arg(long = "file", value_name = "PATH")]
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::some_names"
    )]
    #[schemars(length(min = 1))]
    pub files: Vec<String>,
}

impl Op for PreviewChange {
    const SPEC: Spec = Spec {
        name: "change.preview",
        method: Method::Get,
        path: "/changes/{id}/preview",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Say what applying a change now would do, and what conflicts",
    };
    type Output = Preview;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Two files of it",
            cli: &["7", "--file", "a.rs", "--file", "b.rs"],
            input: json!({"id": 7, "files": ["a.rs", "b.rs"]}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        change::existing(&context.store, self.id.0).await?;
        for path in &self.files {
            files_of(context, self.id, Some(path)).await?;
        }
        let question = Question::Preview {
            change: self.id.0.0,
            files: (!self.files.is_empty()).then_some(self.files),
        };
        match lookup::any(context, &question).await? {
            Answer::Preview(preview) => Ok(preview),
            _ => Err(lookup::something_else()),
        }
    }
}

/// Files of a change that is there: all, or the one of this path.
async fn files_of(
    context: &OpContext,
    id: ChangeRef,
    path: Option<&str>,
) -> Result<Vec<FileView>, OpError> {
    let files = changes::files(&context.store, id.0, path).await?;
    match (path, files.is_empty()) {
        (Some(path), true) => Err(change::no_file(id.0, path)),
        _ => Ok(files),
    }
}

fn file_diff(file: FileView) -> FileDiff {
    FileDiff {
        hunks: hunks(file.patch.as_deref().unwrap_or("")),
        cut: file.patch_cut || file.patch.is_none(),
        path: file.path,
        old_path: file.old_path,
        operation: file.operation,
        kind: file.kind,
    }
}

/// The hunks of a patch; each line belongs to one as long as its counts say so, whatever it looks like.
fn hunks(patch: &str) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    let (mut old, mut new) = (0_u32, 0_u32);
    for line in patch.split_terminator('\n') {
        let remark = line.starts_with('\\');
        if let Some(hunk) = hunks.last_mut().filter(|_| old + new > 0 || remark) {
            match line.as_bytes().first() {
                Some(b'-') => old = old.saturating_sub(1),
                Some(b'+') => new = new.saturating_sub(1),
                Some(b'\\') => {}
                _ => (old, new) = (old.saturating_sub(1), new.saturating_sub(1)),
            }
            hunk.lines.push(line.to_owned());
        } else if let Some(hunk) = heading(line) {
            (old, new) = (hunk.old_lines, hunk.new_lines);
            hunks.push(hunk);
        }
    }
    hunks
}

/// `@@ -1,2 +3,4 @@`
fn heading(line: &str) -> Option<Hunk> {
    let (before, after) = line
        .strip_prefix("@@ -")?
        .split_once(" @@")?
        .0
        .split_once(" +")?;
    let range = |text: &str| {
        let (start, lines) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.parse().ok()?, lines.parse().ok()?))
    };
    let ((old_start, old_lines), (new_start, new_lines)) = (range(before)?, range(after)?);
    Some(Hunk {
        old_start,
        old_lines,
        new_start,
        new_lines,
        lines: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_looks_like_a_heading_is_a_line_of_its_hunk() {
        let patch = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ fn x\n a\n-@@ -9 +9 @@\n+@@ -8 +8 @@\n\\ No newline at end of file\n@@ -7 +7,0 @@\n-z\n";
        let found = hunks(patch);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0].lines,
            [
                " a",
                "-@@ -9 +9 @@",
                "+@@ -8 +8 @@",
                "\\ No newline at end of file"
            ]
        );
        assert_eq!((found[1].old_start, found[1].new_lines), (7, 0));
        assert_eq!(found[1].lines, ["-z"]);
    }
}
