//! What the catalogue says about one agent. Plain facts: how they are used is the adapters' part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::native_spec::NativeSpec;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::hosts::Policy;
use crate::domain::sandbox::{Demand, Network, ResourceLimits};

/// One entry of the catalogue, complete: defaults filled in, `extends` resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSpec {
    /// Its name in tasks: `^[a-z][a-z0-9-]*$`.
    pub name: String,
    /// Its name for people.
    pub label: String,
    /// Disabled entries stay visible and are never offered.
    pub enabled: bool,
    /// How it is driven.
    pub path: ExecutionPath,
    /// Program and arguments; for pipe and pty with placeholders.
    pub command: Vec<String>,
    /// Arguments that make the program print its version; empty: the version is not asked for.
    pub version_args: Vec<String>,
    /// What to do when the program is missing, in words.
    pub install: Option<String>,
    /// Literal environment.
    pub env: BTreeMap<String, String>,
    /// Names copied from the worker's environment when they are set there.
    pub env_allow: Vec<String>,
    /// Use the worker's own HOME instead of one of the attempt's own.
    pub inherit_home: bool,
    /// Files copied from the worker's HOME into the attempt's, by their path relative to it.
    pub home_files: Vec<PathBuf>,
    /// Models that may be asked for; empty: whatever the agent accepts.
    pub models: Vec<String>,
    /// Modes that may be asked for; likewise.
    pub modes: Vec<String>,
    /// Thinking options that may be asked for; likewise.
    pub thinking_options: Vec<String>,
    /// Model when the task names none.
    pub model: Option<String>,
    /// Mode when the task names none.
    pub mode: Option<String>,
    /// Thinking option when the task names none.
    pub thinking: Option<String>,
    /// Who answers its questions.
    pub permissions: PermissionPolicy,
    /// How long it may take and hold out.
    pub timeouts: Timeouts,
    /// Time between the steps of ending it: end of input, TERM, KILL.
    pub kill_grace: Duration,
    /// What all its processes together may use up; beyond it the attempt ends.
    pub limits: ResourceLimits,
    /// Attempts of this agent at once on one worker.
    pub slots: u32,
    /// Agent to use when this one is unavailable; never used silently.
    pub fallback: Option<String>,
    /// Whether it is confined.
    pub sandbox: Demand,
    /// What it may reach over the network.
    pub network: Network,
    /// Hosts that it may reach when its network is the gateway.
    pub hosts: Policy,
    /// What it may read of the machine beside the system and its own program; `~` is the worker's
    /// HOME.
    pub readable: Vec<PathBuf>,
    /// Whether it may make sandboxes of its own inside, as Codex does for its commands.
    pub nested_sandbox: bool,
    /// What it says at the end of a failed turn that looks like a good one.
    pub errors: Vec<ErrorRule>,
    /// Where its usage is found.
    pub usage: UsageSpec,
    /// For the path `acp`.
    pub acp: AcpSpec,
    /// For the paths `pipe` and `pty`.
    pub cli: CliSpec,
    /// For the path `native`.
    pub native: NativeSpec,
}

/// Deadlines of an attempt; `run` watches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the agent began its turn.
    pub start: Duration,
    /// Longest silence.
    pub idle: Duration,
    /// The whole attempt.
    pub total: Duration,
}

/// What to answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Allow this once.
    Allow,
    /// Ask a person.
    Ask,
    /// Refuse this once.
    Deny,
}

/// What a question gets when nobody answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskDefault {
    /// Allow this once.
    Allow,
    /// Refuse this once.
    Deny,
}

/// Who answers an agent's questions, by the kind of tool they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionPolicy {
    /// For kinds that are not listed.
    pub default: Verdict,
    /// By kind (read, edit, delete, move, search, execute, think, fetch, switch_mode, other).
    pub kinds: BTreeMap<String, Verdict>,
    /// How long a person has.
    pub ask_timeout: Duration,
    /// What holds after that.
    pub ask_default: AskDefault,
}

impl PermissionPolicy {
    /// What to do with a question of this kind. A change that is not known to be in the worktree is
    /// not what an allowed kind means, because nobody reviews it afterwards: there the default holds.
    pub fn verdict(&self, kind: &str, outside: bool) -> Verdict {
        let unseen = outside && matches!(kind, "edit" | "delete" | "move");
        let by_kind = self.kinds.get(kind).copied();
        by_kind
            .filter(|verdict| !unseen || *verdict != Verdict::Allow)
            .unwrap_or(self.default)
    }
}

/// Options of the path `acp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcpSpec {
    /// Offer `fs/*`, confined to the worktree. Most agents write files themselves anyway.
    pub offer_fs: bool,
    /// Offer `terminal/*`; commands run in the worktree and end with the attempt.
    pub offer_terminal: bool,
    /// When its own session is continued in a follow-up.
    pub resume: Resume,
}

/// When an agent's own session is continued. Attempts of a conversation work in one directory, save
/// when it is taken, the worktree is a linked one, or another host works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Whenever there is one.
    #[default]
    Always,
    /// Only in the directory it was made in.
    InPlace,
    /// Not at all.
    Never,
}

/// Options of the paths `pipe` and `pty`. The argument groups below take the place of `{options}`
/// in the command, or follow it when there is none; a group without a value is left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CliSpec {
    /// How the prompt reaches the program.
    pub prompt_via: PromptVia,
    /// Arguments added when a model is given; `{model}` in them is replaced.
    pub model_args: Vec<String>,
    /// Arguments added when a mode is given.
    pub mode_args: Vec<String>,
    /// Arguments added when a thinking option is given.
    pub thinking_args: Vec<String>,
    /// Arguments added when a session is continued.
    pub session_args: Vec<String>,
    /// What the program writes (pipe only; a terminal always shows text).
    pub output: Output,
    /// How JSON lines become events (pipe with `output = "jsonl"`).
    pub jsonl: JsonlSpec,
    /// Exit codes that mean success.
    pub success_codes: Vec<i32>,
    /// Columns of the terminal (pty only).
    pub cols: u16,
    /// Rows of the terminal (pty only).
    pub rows: u16,
}

impl Default for CliSpec {
    fn default() -> Self {
        Self {
            prompt_via: PromptVia::default(),
            model_args: Vec::new(),
            mode_args: Vec::new(),
            thinking_args: Vec::new(),
            session_args: Vec::new(),
            output: Output::default(),
            jsonl: JsonlSpec::default(),
            success_codes: vec![0],
            cols: 120,
            rows: 40,
        }
    }
}

/// How the prompt reaches a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptVia {
    /// By `{prompt}` or `{prompt_file}` in the command; its standard input is empty.
    #[default]
    Args,
    /// By standard input, which is then closed (pipe only).
    Stdin,
    /// Typed into the terminal once the program is quiet (pty only).
    Type,
}

/// What a program writes on its standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Jsonl,
}

/// Conditions on a JSON object: each pointer must lead to this value.
pub type When = BTreeMap<String, toml::Value>;

/// How JSON lines become events. A line may match several rules.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonlSpec {
    /// Where the program names its session.
    pub session: Vec<Select>,
    /// Where it names its model.
    pub model: Vec<Select>,
    /// Fragments of the answer.
    pub text: Vec<Select>,
    /// Fragments of reasoning.
    pub thought: Vec<Select>,
    /// Things people may want to know.
    pub notice: Vec<Select>,
    /// Tool calls.
    pub tool: Vec<ToolSelect>,
    /// Signs that the turn failed, whatever the exit code says.
    pub error: Vec<ErrorSelect>,
    /// The line that ends a turn. When given, a program that exits without it has failed.
    pub end: Option<EndSelect>,
}

/// One place in matching lines.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Which lines.
    #[serde(default)]
    pub when: When,
    /// An array in the line; the rule then applies to each of its elements.
    pub each: Option<String>,
    /// Which elements of `each`.
    #[serde(default)]
    pub only: When,
    /// JSON pointer to the value.
    pub at: String,
    /// The value is a whole message, not a piece of one: a line break follows it.
    #[serde(default)]
    pub whole: bool,
}

/// Where a tool call stands in matching lines.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSelect {
    /// Which lines.
    #[serde(default)]
    pub when: When,
    /// An array in the line; the rule then applies to each of its elements.
    pub each: Option<String>,
    /// Which elements of `each`.
    #[serde(default)]
    pub only: When,
    /// Pointer to the call's id.
    pub id: String,
    /// Pointer to its title.
    pub title: Option<String>,
    /// Pointer to the tool's name; translated by `kinds`.
    pub tool: Option<String>,
    /// The kind, when it is always the same.
    pub kind: Option<String>,
    /// From the tool's name to the field's kinds.
    #[serde(default)]
    pub kinds: BTreeMap<String, String>,
    /// Pointer to its status.
    pub status_at: Option<String>,
    /// The status, when it is always the same.
    pub status: Option<String>,
    /// Pointer to its input.
    pub input: Option<String>,
    /// Pointer to its output.
    pub output: Option<String>,
    /// Pointers to paths it touches: a string, or an array of objects with `path`.
    pub paths: Option<String>,
}

/// A sign of failure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorSelect {
    /// Which lines.
    pub when: When,
    /// Pointer to the text; absent text is replaced by the line.
    pub at: String,
}

/// Words that tell a failure, where neither protocol nor exit code does.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// Regular expression, looked for in the end of what the agent said.
    pub pattern: String,
    /// What kind of failure it tells.
    pub class: ErrorClass,
}

/// The line that ends a turn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndSelect {
    /// Which line.
    pub when: When,
    /// Pointer to the word for why it ended.
    pub reason: Option<String>,
}

/// Where an agent's usage is found and what its figures mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsageSpec {
    /// Where it is said.
    pub format: UsageFormat,
    /// Which lines say it (jsonl).
    pub select: When,
    /// How several reports of one turn combine (jsonl).
    pub mode: UsageMode,
    /// What the figures of an ACP agent cover.
    pub semantics: UsageSemantics,
    /// Pointer to the object with the figures (acp: in the prompt's result or the chunk).
    pub at: Option<String>,
    /// Pointer to the input tokens, from `at`; likewise the others.
    pub input: Option<String>,
    /// Tokens read from the provider's cache.
    pub cached_read: Option<String>,
    /// Tokens written to it.
    pub cached_write: Option<String>,
    /// Answer tokens.
    pub output: Option<String>,
    /// Reasoning tokens.
    pub reasoning: Option<String>,
    /// Cost.
    pub cost: Option<String>,
    /// Pointer to the currency; absent: US dollars.
    pub currency: Option<String>,
    /// Pointer to the model.
    pub model: Option<String>,
    /// Whether a figure that a report leaves out is zero.
    pub omits_zero: bool,
    /// Whether `input` contains the cached tokens.
    pub input_includes_cached: bool,
    /// Whether `output` contains the reasoning tokens.
    pub output_includes_reasoning: bool,
    /// What a reported cost covers.
    pub cost_is: CostIs,
    /// Regular expression with the named groups input, output, cached, reasoning, cost (regex).
    pub pattern: Option<String>,
}

/// Where usage is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageFormat {
    /// Nowhere: usage stays unknown.
    #[default]
    None,
    /// In ACP messages.
    Acp,
    /// In lines of JSON.
    Jsonl,
    /// In text.
    Regex,
}

/// How several reports of one turn combine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageMode {
    /// The last one counts.
    #[default]
    Last,
    /// They add up.
    Sum,
    /// The largest figures count.
    Max,
}

/// What the figures of an ACP agent cover (measured per agent; three agents, three meanings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSemantics {
    /// The turn.
    #[default]
    Turn,
    /// The session so far, also over earlier turns.
    SessionCumulative,
    /// Only the last request of the turn: the turn's tokens stay unknown.
    LastRequest,
    /// One request each, on message chunks; they add up.
    ChunkMeta,
}

/// What a reported cost covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostIs {
    /// Costs are not used.
    #[default]
    Absent,
    /// The session so far.
    SessionTotal,
    /// This report alone.
    PerReport,
}
