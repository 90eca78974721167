//! Questions that only a worker can answer, since it has the repositories and the agents, and their
//! answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::finding::Finding;

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
    /// Whether an agent works, and what it offers.
    Probe {
        /// The agent.
        agent: String,
    },
    /// What works of an agent, found out by running it.
    Check {
        /// The agent.
        agent: String,
        /// Only what costs nothing.
        #[serde(default)]
        without_prompt: bool,
    },
}

/// How much of an agent is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDepth {
    /// All of it; prompts cost tokens.
    Whole,
    /// Only what costs nothing.
    WithoutPrompt,
}

impl CheckDepth {
    /// By the word of whoever asks.
    pub fn without_prompt(without: bool) -> Self {
        match without {
            true => Self::WithoutPrompt,
            false => Self::Whole,
        }
    }
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

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    /// The agent's name in agents.toml.
    pub name: String,
    /// The worker that looked; null: the host that answered.
    pub worker: Option<String>,
    /// ready, error or unavailable.
    pub status: String,
    /// Why it is not ready, and what to do.
    pub error: Option<String>,
    /// How it is driven.
    pub execution_path: String,
    /// Version it told.
    pub version: Option<String>,
    /// Models it offers.
    pub models: Value,
    /// Modes it offers.
    pub modes: Value,
    /// Thinking options it offers.
    pub thinking_options: Value,
    /// Commands it offers.
    pub commands: Value,
    /// What its protocol says it can do.
    pub capabilities: Value,
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
    /// To `Question::Probe`.
    Probe(Box<ProbeReport>),
    /// To `Question::Check`.
    Check(Vec<Finding>),
    /// It could not find out, for this reason.
    Failed(String),
}
