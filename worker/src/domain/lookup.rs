//! Questions that only a worker can answer, since it has the repositories, and their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Question {
    /// What would become of the target branch if this change were applied now.
    Preview {
        /// The change.
        change: i64,
        /// Only these files of it, as they are shown; absent: those that are not rejected.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<Vec<String>>,
    },
    /// What a file of a change has.
    File {
        /// The change.
        change: i64,
        /// The file, as it is shown.
        path: String,
        /// Which of the two.
        side: Side,
    },
    /// Whether attempts can work in a project.
    CheckProject {
        /// The project.
        project: String,
    },
}

/// A file of a change is looked at before or after it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// As the work found it.
    Before,
    /// As the work left it.
    #[default]
    After,
}

/// What an application would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It merges.
    Clean,
    /// It does not merge.
    Conflicts,
    /// The branch has all of it already.
    Nothing,
}

/// What would become of the target branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    /// What an application would do.
    pub outcome: Outcome,
    /// Branch that it would go to.
    pub target_ref: String,
    /// Tip of that branch when it was looked at.
    pub tip: String,
    /// What the branch would get, in unified form, for people; never what is applied.
    pub unified: String,
    /// Whether that leaves something out.
    pub cut: bool,
    /// Files that do not merge.
    pub conflicts: Vec<Conflict>,
}

/// A file that does not merge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// Its path.
    pub path: String,
    /// The merge with its marks, where a text is in conflict with a text.
    pub text: Option<String>,
}

/// A file of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileText {
    /// Its path.
    pub path: String,
    /// Length in bytes; absent: there is no such file on this side.
    pub bytes: Option<u64>,
    /// What it has; absent for what is no text.
    pub text: Option<String>,
    /// Whether the text is only its beginning.
    pub cut: bool,
}

/// A project as a worker finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectFacts {
    /// Branch that results go to.
    pub target_ref: String,
    /// Its tip.
    pub tip: String,
    /// Whether its history is cut off.
    pub shallow: bool,
    /// Whether the worker has a mirror of it, or uses a repository of its host.
    pub mirrored: bool,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `Question::Preview`.
    Preview(Preview),
    /// To `Question::File`.
    File(FileText),
    /// To `Question::CheckProject`.
    Project(ProjectFacts),
    /// It could not find out, for this reason.
    Failed(String),
}
