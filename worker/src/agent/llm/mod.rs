//! What the native agent needs of an LLM provider, whatever its wire format.

mod answer;
mod calls;
mod fault;
mod frames;
mod genai_client;
mod key;
mod lines;
mod messages;
mod ollama;
#[cfg(any(test, fuzzing))]
pub(crate) mod rehearsal;
mod request;
mod retry_after;
mod thinking;
mod usage;
mod written;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::config::native_spec::ProviderSpec;
use crate::domain::llm::{Effort, FinishReason, Message, ToolCall, ToolDefinition};
use crate::domain::usage::TokenCounts;

pub use genai_client::{GenaiLlm, SetupError};

/// A client of LLM providers. One request each; it never retries.
pub trait Llm: Send + Sync {
    /// Ask. The stream ends with exactly one `End` or one error; what ends otherwise (a connection
    /// that breaks) is an error of the class `Truncated`. Dropping it ends the request at once.
    fn stream(&self, request: LlmRequest) -> BoxStream<'static, Result<LlmEvent, LlmError>>;

    /// The body that `stream` sends for this request, byte by byte; the error is a reason why that is
    /// not known. Asks no provider.
    fn written(&self, request: LlmRequest) -> BoxFuture<'static, Result<Vec<u8>, String>>;
}

/// One request.
#[derive(Clone, Debug)]
pub struct LlmRequest {
    /// Where to.
    pub provider: Arc<ProviderSpec>,
    /// The provider's name of the model.
    pub model: String,
    /// The system prompt.
    pub system: String,
    /// The conversation so far; reconciled, and never empty.
    pub messages: Vec<Message>,
    /// The same for all requests of a turn, so that the provider's prompt cache holds.
    pub tools: Arc<[ToolDefinition]>,
    /// How hard to think; absent: the provider's default.
    pub effort: Option<Effort>,
    /// Most tokens of the answer; absent: the provider's default.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature; absent: the provider's default.
    pub temperature: Option<f64>,
    /// The same for all requests of a conversation.
    pub cache_key: String,
}

/// Something that a provider sent.
#[derive(Clone, Debug, PartialEq)]
pub enum LlmEvent {
    /// A fragment of the answer.
    Text(String),
    /// A fragment of reasoning.
    Thinking(String),
    /// A call that is complete, before the answer is: the next call or the end has begun.
    ToolCall(ToolCall),
    /// Nothing, but it lives.
    Alive,
    /// The answer is complete.
    End(LlmEnd),
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmEnd {
    /// Why it stopped.
    pub reason: FinishReason,
    /// All of it, as it is sent back with the next request: text, calls, what the provider wants
    /// carried.
    pub message: Message,
    /// What it used; `None`: the provider did not say.
    pub usage: Option<LlmUsage>,
    /// The model that the provider says it was.
    pub model: Option<String>,
}

/// What one request used.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmUsage {
    /// As this project counts: `input` without cached tokens, `output` without reasoning.
    pub tokens: TokenCounts,
    /// As the provider said it.
    pub raw: Value,
}

impl LlmUsage {
    /// Tokens in the request and its answer: how full the context is.
    pub fn context(&self) -> i64 {
        self.tokens.total().unwrap_or(0)
    }
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmFault {
    /// 429, or words to that effect: too much asked.
    RateLimited,
    /// 5xx and 529: it is not well.
    Overloaded,
    /// It cannot be reached, or did not answer in time.
    Unreachable,
    /// The answer broke off.
    Truncated,
    /// 401, 403: the key is refused, or there is none.
    Auth,
    /// 402, or words to that effect: the account is empty.
    Billing,
    /// The conversation is longer than the model's window.
    ContextTooLong,
    /// There is no such model.
    UnknownModel,
    /// The provider will not answer this.
    Refused,
    /// The request is one that it does not take.
    BadRequest,
    /// It answered with what is no answer.
    Garbage,
}

impl LlmFault {
    /// Whether the same request may fare better later.
    pub fn is_passing(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::Unreachable
            | Self::Truncated
            | Self::Garbage => true,
            Self::Auth
            | Self::Billing
            | Self::ContextTooLong
            | Self::UnknownModel
            | Self::Refused
            | Self::BadRequest => false,
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LlmError {
    /// What kind of thing.
    pub fault: LlmFault,
    /// HTTP status, when there was one.
    pub status: Option<u16>,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// In the provider's words, cut; without keys.
    pub message: String,
}
