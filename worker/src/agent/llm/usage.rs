//! Tokens of a request, from the words of each format.

use serde_json::{Map, Value};

use crate::config::native_spec::Api;
use crate::domain::usage::TokenCounts;

use super::LlmUsage;

/// What a provider's figures mean; `None`: they say nothing.
pub(super) fn of(api: Api, said: &Map<String, Value>) -> Option<LlmUsage> {
    let raw = Value::Object(said.clone());
    let figure = |path: &str| raw.pointer(path).and_then(tokens);
    let tokens = match api {
        Api::Openai => counts(
            figure("/prompt_tokens"),
            figure("/prompt_tokens_details/cached_tokens")
                .or_else(|| figure("/prompt_cache_hit_tokens")),
            figure("/prompt_tokens_details/cache_write_tokens"),
            figure("/completion_tokens"),
            figure("/completion_tokens_details/reasoning_tokens"),
        ),
        Api::OpenaiResponses => counts(
            figure("/input_tokens"),
            figure("/input_tokens_details/cached_tokens"),
            figure("/input_tokens_details/cache_write_tokens"),
            figure("/output_tokens"),
            figure("/output_tokens_details/reasoning_tokens"),
        ),
        Api::Anthropic => {
            let reasoning = figure("/output_tokens_details/thinking_tokens");
            TokenCounts {
                // Its own words are this project's: cached tokens are not among them.
                input: figure("/input_tokens"),
                output: without(figure("/output_tokens"), reasoning),
                cache_read: figure("/cache_read_input_tokens"),
                cache_write: figure("/cache_creation_input_tokens"),
                reasoning,
            }
        }
        Api::Gemini => {
            let cached = figure("/cachedContentTokenCount");
            let prompt = figure("/promptTokenCount");
            let tools = figure("/toolUsePromptTokenCount").unwrap_or(0);
            TokenCounts {
                input: without(prompt, cached).map(|n| n.saturating_add(tools)),
                // Its candidates are without thoughts.
                output: figure("/candidatesTokenCount"),
                cache_read: cached,
                cache_write: None,
                reasoning: figure("/thoughtsTokenCount"),
            }
        }
        Api::Ollama => counts(
            figure("/prompt_eval_count"),
            figure("/prompt_eval_cached_count"),
            None,
            figure("/eval_count"),
            None,
        ),
    };
    tokens.total().map(|_| LlmUsage { tokens, raw })
}

/// Figures of a format whose totals hold their parts.
fn counts(
    prompt: Option<i64>,
    cached: Option<i64>,
    cache_write: Option<i64>,
    completion: Option<i64>,
    reasoning: Option<i64>,
) -> TokenCounts {
    TokenCounts {
        input: without(without(prompt, cached), cache_write),
        output: without(completion, reasoning),
        cache_read: cached,
        cache_write,
        reasoning,
    }
}

/// A total without a part of it. A part that is larger is none of it: some servers count so.
fn without(total: Option<i64>, part: Option<i64>) -> Option<i64> {
    let total = total?;
    match total.checked_sub(part.unwrap_or(0)) {
        Some(rest) if rest >= 0 => Some(rest),
        Some(_) | None => Some(total),
    }
}

/// A number of tokens; what cannot be one is unknown.
fn tokens(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .filter(|n| (0..=i64::from(i32::MAX)).contains(n))
}
