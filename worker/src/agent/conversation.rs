//! The durable side of a native turn: what was said before, what each step adds, what people send
//! meanwhile. `run` has the one implementation; all of it is stored under the attempt's lease.

use std::time::Duration;

use futures::future::BoxFuture;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AgentError;
use crate::config::native_spec::Budgets;
use crate::domain::llm::Message;
use crate::domain::usage::{Cost, TokenCounts};

/// The conversation of one attempt. An error is the end of the turn: what cannot be stored may not
/// happen. Writes wait for a database that is away as long as the lease holds.
pub trait Conversation: Send + Sync {
    /// What the model shall know. Tool calls without results are as they were stored.
    fn load(&self) -> BoxFuture<'_, Result<Remembered, AgentError>>;

    /// Store what a step added and what it used, in one transaction.
    fn keep(&self, step: Step) -> BoxFuture<'_, Result<(), AgentError>>;

    /// What people sent since the last look. Taking a message stores it as said by the user, here,
    /// and marks it as delivered, in one transaction. `n` is the step that comes next.
    fn take_inbox(&self, n: u32) -> BoxFuture<'_, Result<Inbox, AgentError>>;

    /// Let one message stand for the oldest ones, in one transaction with what the summary used.
    fn compact(&self, compaction: Compaction) -> BoxFuture<'_, Result<(), AgentError>>;

    /// Store the list of what is to be done; it replaces the one before.
    fn keep_todos(&self, todos: Value) -> BoxFuture<'_, Result<(), AgentError>>;

    /// Tell the whole fleet that a provider wants to be left alone for a while. Never fails: this
    /// worker knows already.
    fn pause_provider(&self, pause: ProviderPause) -> BoxFuture<'_, ()>;

    /// Keep a request as it is about to be sent. Never fails: it is for whoever wants to see it.
    fn capture(&self, _request: Captured) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// What became of it. Never fails.
    fn capture_ended(&self, _n: u32, _outcome: Outcome) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A request to a provider as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its number in the attempt, from 0: summaries and what failed counted.
    pub n: u32,
    /// `provider/model`.
    pub model: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status, where it failed with one.
    pub status: Option<u16>,
    /// Why it failed, in the provider's words; absent: it was answered.
    pub error: Option<String>,
}

/// What is known of a conversation at the beginning of an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// What was said, oldest first, without what a compaction stands for.
    pub messages: Vec<Message>,
    /// Whether something of this very task was said: its prompt, at least.
    pub begun: bool,
    /// What the attempt goes on from: why the one before it ended, if it left its work here.
    pub resumed: Option<String>,
    /// The list of what is to be done.
    pub todos: Option<Value>,
    /// What the earlier attempts of the task used.
    pub spent: Spent,
    /// The task's own budgets.
    pub budgets: Budgets,
    /// Tokens of the last request and its answer.
    pub context: Option<i64>,
}

/// What was used of the budgets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spent {
    /// Requests to the model.
    pub steps: u32,
    /// Tokens of all kinds, as far as known.
    pub tokens: i64,
    /// Money, as far as known.
    pub cost: Decimal,
}

/// What a request is taken for where the provider does not say what it used. For budgets alone, never
/// for a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Tokens of all kinds, by the size of what was sent and answered.
    pub tokens: i64,
    /// Money, by the price table.
    pub cost: Decimal,
}

/// That a provider wants to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderPause {
    /// The provider.
    pub provider: String,
    /// For how long, from now.
    pub wait: Duration,
    /// Why: `rate_limited`, `auth` or `billing`.
    pub class: &'static str,
    /// In the provider's words.
    pub message: String,
}

/// What people sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// Messages in the order in which they were sent.
    pub messages: Vec<String>,
    /// Somebody asked for the conversation to be compacted.
    pub compact: bool,
}

/// What one request to the model came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Its number in the turn, from 0.
    pub n: u32,
    /// What it adds to the conversation, in order.
    pub messages: Vec<Message>,
    /// Its figures; absent: nothing was asked of a model (the prompt, a note).
    pub figures: Option<StepFigures>,
}

/// Figures of one request. Times by a monotonic clock; absent: there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepFigures {
    /// `provider/model`.
    pub model: String,
    /// Why the model stopped, or how the request ended otherwise.
    pub finish: String,
    /// What it used; absent: the provider did not say.
    pub tokens: Option<TokenCounts>,
    /// The provider's own words for that.
    pub raw: Option<Value>,
    /// What it cost, by the price table.
    pub cost: Option<Cost>,
    /// What budgets take it for, where the provider did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Tokens of the request and its answer. Never a sum.
    pub context_tokens: Option<i64>,
    /// From the request to the first fragment, reasoning counted.
    pub ttft_ms: Option<i64>,
    /// From the first fragment to the end of the answer.
    pub decode_ms: Option<i64>,
    /// From the request to the end of the answer.
    pub request_ms: i64,
    /// Running tools, from the first one's begin to the last one's end.
    pub tools_ms: i64,
    /// The whole step, waits for the provider included.
    pub total_ms: i64,
    /// Requests that failed before the one that counted.
    pub retries: u32,
}

/// A summary in place of the oldest messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// How many of the messages that `load` gave or the turn added since it stands for, oldest first.
    pub replaced: usize,
    /// What stands for them.
    pub summary: Message,
    /// Who wanted it: `window`, `asked` or `refused` (the provider found the conversation too long).
    pub why: &'static str,
    /// What making it used.
    pub figures: StepFigures,
    /// Its number among the summaries of the attempt, from 0.
    pub n: u32,
}
