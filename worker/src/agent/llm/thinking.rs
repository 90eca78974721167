//! How hard to think, in tokens, where a provider wants figures: what is thought counts as a part of the
//! answer, which may be bounded. The figures are those of the client library.

use serde_json::{Value, json};

use crate::domain::llm::Effort;

/// Thinking that Gemini's models with figures accept at least, when they think.
const GEMINI_LEAST: u32 = 128;

/// The same effort, or the largest one that leaves room for an answer. Anthropic refuses a request whose
/// thinking may take all of its answer.
pub(super) fn fitting(model: &str, most: Option<u32>, effort: Effort) -> Effort {
    let Some(most) = most.filter(|_| thinks_by_figures(model)) else {
        return effort;
    };
    let fits = |effort: Effort| anthropic(effort).is_none_or(|tokens| tokens < most);
    let smaller = [effort, Effort::Medium, Effort::Low];
    let found = smaller.into_iter().find(|one| *one <= effort && fits(*one));
    found.unwrap_or(Effort::None)
}

fn anthropic(effort: Effort) -> Option<u32> {
    match effort {
        Effort::None => None,
        Effort::Low => Some(1_024),
        Effort::Medium => Some(8_000),
        Effort::High | Effort::XHigh | Effort::Max => Some(24_000),
    }
}

/// Whether a model of Anthropic's is told how many tokens to think; newer ones are told how hard.
fn thinks_by_figures(model: &str) -> bool {
    let words: Vec<&str> = model.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let is = |name: &str| words.contains(&name);
    let numbers = words.iter().filter(|word| word.len() <= 2);
    let mut numbers = numbers.filter_map(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match (is("opus"), is("sonnet"), is("haiku")) {
        (true, _, _) => version < (4, 5),
        (_, true, _) => version < (4, 6),
        (_, _, true) => version < (5, 0),
        _ => !is("fable") && !is("mythos"),
    }
}

/// Whether a model of Gemini's has words for it.
pub(super) fn has_levels(model: &str) -> bool {
    ["gemini-3", "gemma-4"]
        .iter()
        .any(|name| model.contains(name))
}

/// What Gemini is told where the answer is bounded, in figures: half of it at most.
pub(super) fn narrowed(most: Option<u32>, effort: Effort) -> Option<u32> {
    let budget = figures(effort);
    let half = (most? / 2).max(GEMINI_LEAST);
    (half < budget).then_some(half)
}

fn figures(effort: Effort) -> u32 {
    match effort {
        Effort::None => 0,
        Effort::Low => 1_000,
        Effort::Medium => 8_000,
        Effort::High | Effort::XHigh | Effort::Max => 24_000,
    }
}

/// The member of Gemini's settings that says it.
pub(super) fn gemini(model: &str, most: Option<u32>, effort: Effort) -> Option<(String, Value)> {
    if has_levels(model) {
        let level = match effort {
            Effort::None => return None,
            Effort::Low => "LOW",
            Effort::Medium => "MEDIUM",
            Effort::High | Effort::XHigh | Effort::Max => "HIGH",
        };
        return Some(("thinkingLevel".to_owned(), json!(level)));
    }
    let budget = narrowed(most, effort).unwrap_or_else(|| figures(effort));
    Some(("thinkingBudget".to_owned(), json!(budget)))
}
