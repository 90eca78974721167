//! What each request to a model came to.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;

use super::claims::Lease;
use super::finish::{clean, clean_value};
use super::{Store, StoreError, Tx};
use crate::domain::ids::TaskId;
use crate::domain::usage::{Cost, TokenCounts};

crate::statements! {
    /// One request, once.
    KEEP_FIGURES = "keep_figures";
    /// A page of the requests of a task.
    LIST = "task_steps";
}

/// What a request to a model was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A step of the turn.
    Model,
    /// A summary of what was said.
    Compaction,
}

impl StepKind {
    /// The name that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Compaction => "compaction",
        }
    }
}

/// Figures of one request to a model. Absent is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// `provider/model`.
    pub model: String,
    /// Why the model stopped, or how the request ended otherwise.
    pub finish: String,
    /// What it used.
    pub tokens: Option<TokenCounts>,
    /// The provider's own words for that.
    pub raw: Option<Value>,
    /// What it cost.
    pub cost: Option<Cost>,
    /// What budgets take it for, in tokens and money, where the provider did not say what it used.
    pub estimate: Option<(i64, Decimal)>,
    /// Tokens of the request and its answer. Never a sum.
    pub context_tokens: Option<i64>,
    /// From the request to the first fragment.
    pub ttft_ms: Option<i64>,
    /// From the first fragment to the end of the answer.
    pub decode_ms: Option<i64>,
    /// From the request to the end of the answer.
    pub request_ms: Option<i64>,
    /// Running tools.
    pub tools_ms: Option<i64>,
    /// The whole step.
    pub total_ms: Option<i64>,
    /// Requests that failed before the one that counted.
    pub retries: i32,
}

/// Store the figures of a step, in the transaction that stores what it said. Harmless to repeat.
pub(super) async fn keep(
    tx: &Tx,
    lease: &Lease,
    conversation: i64,
    (kind, n): (StepKind, i32),
    figures: &Figures,
) -> Result<(), StoreError> {
    let tokens = figures.tokens.unwrap_or_default();
    let amount: Option<Decimal> = figures.cost.as_ref().map(|cost| cost.amount);
    let currency = figures.cost.as_ref().map(|cost| clean(&cost.currency));
    let raw = figures.raw.clone().map(|mut raw| {
        clean_value(&mut raw);
        raw
    });
    tx.query(
        &KEEP_FIGURES,
        &[
            &lease.task().0,
            &lease.token().0,
            &kind.as_str(),
            &n,
            &conversation,
            &clean(&figures.model),
            &clean(&figures.finish),
            &tokens.input,
            &tokens.output,
            &tokens.cache_read,
            &tokens.cache_write,
            &tokens.reasoning,
            &tokens.total(),
            &figures.context_tokens,
            &amount,
            &currency,
            &raw,
            &figures.ttft_ms,
            &figures.decode_ms,
            &figures.request_ms,
            &figures.tools_ms,
            &figures.total_ms,
            &figures.retries,
            &figures.estimate.map(|(tokens, _)| tokens),
            &figures.estimate.map(|(_, cost)| cost),
        ],
    )
    .await?;
    Ok(())
}

crate::record! {
    /// One request to a model.
    pub struct StepView {
        /// Attempt of the task.
        pub attempt: i16,
        /// Number of the step in the attempt, from 0.
        pub n: i32,
        /// model: a step of the turn; compaction: a summary made before it.
        pub kind: String,
        /// The model, as provider/model.
        pub model: String,
        /// Why the model stopped.
        pub finish: String,
        /// Prompt tokens that were not cached; absent: unknown.
        pub input_tokens: Option<i64>,
        /// Answer tokens; absent: unknown.
        pub output_tokens: Option<i64>,
        /// Prompt tokens read from a cache; absent: unknown.
        pub cache_read_tokens: Option<i64>,
        /// Prompt tokens written to a cache; absent: unknown.
        pub cache_write_tokens: Option<i64>,
        /// Reasoning tokens; absent: unknown.
        pub reasoning_tokens: Option<i64>,
        /// All tokens; absent: unknown.
        pub total_tokens: Option<i64>,
        /// Tokens of the request and its answer: how full the context is. Never a sum.
        pub context_tokens: Option<i64>,
        /// Cost, exact; absent: unknown.
        pub cost: Option<String>,
        /// Currency of the cost.
        pub currency: Option<String>,
        /// Milliseconds from the request to the first fragment of the answer.
        pub ttft_ms: Option<i64>,
        /// Milliseconds from the first fragment to the end of the answer.
        pub decode_ms: Option<i64>,
        /// Milliseconds from the request to the end of the answer.
        pub request_ms: Option<i64>,
        /// Milliseconds in which tools ran.
        pub tools_ms: Option<i64>,
        /// Milliseconds of the whole step, waits for the provider included.
        pub total_ms: Option<i64>,
        /// Requests that failed before the one that counted.
        pub retries: i32,
        /// When it was stored.
        pub at: DateTime<Utc>,
    }
}

/// A place among the steps of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlace {
    /// The attempt.
    pub attempt: i16,
    /// Number of the step.
    pub n: i32,
    /// Its kind.
    pub kind: String,
}

impl Default for StepPlace {
    /// Before the first one.
    fn default() -> Self {
        Self {
            attempt: 0,
            n: -1,
            kind: String::new(),
        }
    }
}

/// Requests of a task after a place, in order.
pub async fn list(
    store: &Store,
    task: TaskId,
    after: &StepPlace,
    most: i64,
) -> Result<Vec<StepView>, StoreError> {
    let params: super::Params<'_> = &[&task.0, &after.attempt, &after.n, &after.kind, &most];
    let rows = store.query(&LIST, params).await?;
    rows.iter().map(StepView::read).collect()
}
