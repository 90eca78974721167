//! LLM providers and what only the native agent has, as agents.toml says it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::domain::llm::Effort;
use crate::domain::usage::Price;

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// OpenAI's Chat Completions, and all that speak it.
    Openai,
    /// OpenAI's Responses.
    OpenaiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama's own.
    Ollama,
}

/// An LLM provider.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSpec {
    /// Its name: the first part of a model's id.
    pub name: String,
    /// What it speaks.
    pub api: Api,
    /// Where, with the version's path: `https://api.openai.com/v1/`.
    pub base_url: String,
    /// Variable of the worker that holds the key; absent: it wants none.
    pub api_key_env: Option<String>,
    /// File that holds the key, read for each turn; stands before the variable.
    pub api_key_file: Option<PathBuf>,
    /// Literal headers of each request.
    pub headers: BTreeMap<String, String>,
    /// Members of the body of each request.
    pub extra_body: Option<serde_json::Value>,
    /// Requests at once from one worker; absent: any number.
    pub max_concurrent: Option<u32>,
    /// Whether it is used.
    pub enabled: bool,
    /// Model that is used when nobody names one.
    pub default_model: Option<String>,
    /// What is known of its models, by the provider's own names.
    pub models: BTreeMap<String, ModelSpec>,
}

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Tokens that fit into one request and its answer; absent: unknown, and nothing is compacted
    /// before the provider refuses.
    pub context_window: Option<u32>,
    /// Most tokens of one answer.
    pub max_output_tokens: Option<u32>,
    /// Efforts that it takes; empty: all of them.
    pub efforts: Vec<Effort>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
}

/// What only the native agent has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeSpec {
    /// The providers of the file, by name; the same for all entries.
    pub providers: Arc<BTreeMap<String, Arc<ProviderSpec>>>,
    /// The price table of the file, for the budget of money.
    pub prices: Arc<BTreeMap<String, Price>>,
    /// Budgets of one task, all its attempts together.
    pub budgets: Budgets,
    /// Tools run at the same time; 0: any number. Tools that change something run alone.
    pub max_concurrent: u32,
    /// Whether a tool starts as soon as its call is read, before the answer is complete.
    pub eager: bool,
    /// When the conversation is compacted, in hundredths of the model's window; 0: only by hand.
    pub compact_at_percent: u32,
    /// Messages that a compaction leaves as they are.
    pub compact_keep: u32,
    /// Tools that the model is not offered.
    pub disabled_tools: Vec<String>,
    /// MCP servers whose tools it is offered, by name.
    pub mcp: BTreeMap<String, McpServer>,
    /// Text that follows the system prompt.
    pub instructions: Option<String>,
}

/// Budgets that end a turn; absent: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Requests to the model; 0 and absent: any number.
    pub max_steps: Option<u32>,
    /// Tokens of all kinds, over all requests.
    pub max_tokens: Option<i64>,
    /// Money, in the currency of the model's price.
    pub max_cost: Option<Decimal>,
}

/// An MCP server that runs inside the agent's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpServer {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Literal environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Tools to offer; empty: all.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Longest call, in seconds; absent: the same as of other tools.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}
