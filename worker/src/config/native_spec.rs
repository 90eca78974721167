//! LLM providers and what only the native agent has, as agents.toml says it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::llm::Effort;
use crate::domain::usage::Price;

pub use super::provider_key::Key;

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Api {
    /// Where whoever made it serves it.
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Openai | Self::OpenaiResponses => "https://api.openai.com/v1/",
            Self::Anthropic => "https://api.anthropic.com/v1/",
            Self::Gemini => "https://generativelanguage.googleapis.com/v1beta/",
            Self::Ollama => "http://localhost:11434/",
        }
    }
}

/// An LLM provider.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSpec {
    /// Its name: the first part of a model's id.
    pub name: String,
    /// What it speaks.
    pub api: Api,
    /// Where, with the version's path and a slash at its end: `https://api.openai.com/v1/`.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Names of those that this entry may use, in order of preference.
    pub allowed: Vec<String>,
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
    /// Whether each request is stored as it is sent.
    pub capture_requests: bool,
}

/// Budgets that end a turn; absent: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Longest call, in seconds; absent: `MCP_CALL_TIMEOUT`. A start that takes longer has failed too.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}

impl ProviderSpec {
    /// The model's id in tasks.
    pub fn id_of(&self, model: &str) -> String {
        format!("{}/{model}", self.name)
    }

    /// The names of its models that the file knows.
    pub fn known_models(&self) -> impl Iterator<Item = &str> {
        let listed = self.models.keys().map(String::as_str);
        let default = self.default_model.as_deref();
        default
            .filter(|name| !self.models.contains_key(*name))
            .into_iter()
            .chain(listed)
    }

    /// The provider for people: what may hold a secret only by its name.
    pub fn describe(&self) -> Value {
        let masked: BTreeMap<_, _> = self.headers.keys().map(|name| (name, "***")).collect();
        let members = self.extra_body.as_ref().and_then(Value::as_object);
        let extra: Option<Vec<&String>> = members.map(|members| members.keys().collect());
        json!({
            "api": self.api, "base_url": self.base_url, "enabled": self.enabled,
            "api_key_env": self.api_key_env, "api_key_file": self.api_key_file,
            "headers": masked, "extra_body": extra, "max_concurrent": self.max_concurrent,
            "default_model": self.default_model, "models": self.models,
        })
    }
}

impl NativeSpec {
    /// The providers that the entry may use and that are switched on, in order of preference.
    pub fn offered(&self) -> impl Iterator<Item = &Arc<ProviderSpec>> {
        let named = self
            .allowed
            .iter()
            .filter_map(|name| self.providers.get(name));
        named.filter(|provider| provider.enabled)
    }

    /// Files with keys of all providers: nothing that an agent needs.
    pub fn key_files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.providers
            .values()
            .flat_map(|provider| provider.key_files())
    }

    /// The price of a model of this provider.
    pub fn price(&self, provider: &str, model: &str) -> Option<&Price> {
        price_of(&self.prices, &format!("{provider}/{model}"))
    }

    /// The section and the entry's providers for people, without secrets.
    pub(super) fn describe(&self) -> Value {
        let mcp: BTreeMap<_, _> = self
            .mcp
            .iter()
            .map(|(name, one)| (name, one.describe()))
            .collect();
        let named = self
            .allowed
            .iter()
            .filter_map(|name| self.providers.get(name));
        let providers: Vec<Value> = named
            .map(|provider| {
                let mut shown = provider.describe();
                shown["name"] = json!(provider.name);
                shown
            })
            .collect();
        json!({
            "providers": providers, "budgets": self.budgets, "max_concurrent": self.max_concurrent,
            "eager": self.eager, "compact_at_percent": self.compact_at_percent,
            "compact_keep": self.compact_keep, "disabled_tools": self.disabled_tools,
            "instructions": self.instructions, "capture_requests": self.capture_requests, "mcp": mcp,
        })
    }
}

impl McpServer {
    fn describe(&self) -> Value {
        let masked: BTreeMap<_, _> = self.env.keys().map(|name| (name, "***")).collect();
        json!({
            "command": self.command, "env": masked, "tools": self.tools,
            "timeout_s": self.timeout_s,
        })
    }
}

/// The price of `provider/model`: that of this very id, else that of the model whoever provides it.
pub fn price_of<'a>(prices: &'a BTreeMap<String, Price>, id: &str) -> Option<&'a Price> {
    let bare = || id.split_once('/').and_then(|(_, model)| prices.get(model));
    prices.get(id).or_else(bare)
}
