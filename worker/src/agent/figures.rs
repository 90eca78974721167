//! Token figures out of an agent's report, by the pointers of its entry.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::config::agent_spec::UsageSpec;
use crate::domain::usage::TokenCounts;

/// The counts in a report, with cached input and reasoning told apart from the rest.
pub(crate) fn tokens(spec: &UsageSpec, report: &Value) -> TokenCounts {
    let told = |pointer: &Option<String>| {
        let value = report.pointer(pointer.as_deref()?)?;
        value.as_i64().filter(|count| *count >= 0)
    };
    // A report that tells nothing at all tells no zeros either.
    let omits_zero = spec.omits_zero && told(&spec.input).is_some();
    let at = |pointer: &Option<String>| {
        let left_out = report
            .pointer(pointer.as_deref()?)
            .is_none_or(Value::is_null);
        told(pointer).or((omits_zero && left_out).then_some(0))
    };
    apart(
        spec,
        TokenCounts {
            input: at(&spec.input),
            output: at(&spec.output),
            cache_read: at(&spec.cached_read),
            cache_write: at(&spec.cached_write),
            reasoning: at(&spec.reasoning),
        },
    )
}

/// Take out of input and output what the agent counts twice.
pub(crate) fn apart(spec: &UsageSpec, mut counts: TokenCounts) -> TokenCounts {
    if spec.input_includes_cached {
        let cached = counts
            .cache_read
            .unwrap_or(0)
            .saturating_add(counts.cache_write.unwrap_or(0));
        counts.input = counts.input.map(|input| (input - cached).max(0));
    }
    if spec.output_includes_reasoning {
        let reasoning = counts.reasoning.unwrap_or(0);
        counts.output = counts.output.map(|output| (output - reasoning).max(0));
    }
    counts
}

/// An exact amount from a JSON number or string.
pub(crate) fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let parsed = text.parse().or_else(|_| Decimal::from_scientific(&text));
    parsed
        .ok()
        .filter(|amount: &Decimal| !amount.is_sign_negative())
}

/// A text by pointer.
pub(crate) fn text(value: &Value, pointer: Option<&str>) -> Option<String> {
    value.pointer(pointer?)?.as_str().map(str::to_owned)
}
