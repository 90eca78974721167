//! Tokens and money. Unknown is absent, never zero; cost is decimal, never a float.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Where the figures come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// Counted by the worker itself.
    Metered,
    /// Said by the agent.
    #[default]
    Reported,
    /// Nobody said anything.
    None,
}

impl UsageSource {
    /// The name that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metered => "metered",
            Self::Reported => "reported",
            Self::None => "none",
        }
    }
}

/// Token counts of one attempt. `input` excludes cached tokens; `output` excludes reasoning when
/// the agent tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Prompt tokens that were not read from a cache.
    pub input: Option<i64>,
    /// Answer tokens.
    pub output: Option<i64>,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: Option<i64>,
    /// Prompt tokens written to the provider's cache.
    pub cache_write: Option<i64>,
    /// Reasoning tokens, when told apart from `output`.
    pub reasoning: Option<i64>,
}

/// What was recorded for an agent's session before a turn: some agents report totals of the session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionUsage {
    /// Tokens of all its earlier turns; unknown as soon as those of one are.
    pub tokens: TokenCounts,
    /// Their cost; likewise.
    pub cost: Option<Decimal>,
}

impl TokenCounts {
    /// The sum of what is known; `None` when nothing is.
    pub fn total(&self) -> Option<i64> {
        let parts = [
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.reasoning,
        ];
        parts.iter().flatten().copied().reduce(i64::saturating_add)
    }

    /// Field by field sum; unknown plus known is known.
    pub fn plus(&self, other: &Self) -> Self {
        let add = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Self {
            input: add(self.input, other.input),
            output: add(self.output, other.output),
            cache_read: add(self.cache_read, other.cache_read),
            cache_write: add(self.cache_write, other.cache_write),
            reasoning: add(self.reasoning, other.reasoning),
        }
    }

    /// What a total holds more than an earlier one of the same figures. Nothing is known when one of them
    /// went backwards, or is in one of the two only: then they do not count the same.
    pub fn grown_since(&self, before: &Self) -> Option<Self> {
        let grown = |now: Option<i64>, then: Option<i64>| match (now, then) {
            (None, None) => Some(None),
            (Some(now), Some(then)) if now >= then => Some(Some(now - then)),
            _ => None,
        };
        Some(Self {
            input: grown(self.input, before.input)?,
            output: grown(self.output, before.output)?,
            cache_read: grown(self.cache_read, before.cache_read)?,
            cache_write: grown(self.cache_write, before.cache_write)?,
            reasoning: grown(self.reasoning, before.reasoning)?,
        })
    }

    /// What came on top of an earlier cumulative report; unknown where that is. A figure that went
    /// backwards (a new session under an old name) counts from zero.
    pub fn since(&self, before: &Self) -> Self {
        let sub = |now: Option<i64>, then: Option<i64>| {
            let (now, then) = (now?, then?);
            Some(if now >= then { now - then } else { now })
        };
        Self {
            input: sub(self.input, before.input),
            output: sub(self.output, before.output),
            cache_read: sub(self.cache_read, before.cache_read),
            cache_write: sub(self.cache_write, before.cache_write),
            reasoning: sub(self.reasoning, before.reasoning),
        }
    }
}

/// Money as an agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount, exact.
    pub amount: Decimal,
    /// ISO 4217 code.
    pub currency: String,
}

/// What one turn used, as far as the agent said so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Who counted.
    #[serde(default)]
    pub source: UsageSource,
    /// Counts for this turn alone (already made from cumulative figures by the adapter).
    pub tokens: TokenCounts,
    /// Cost of this turn alone, when the agent says one.
    pub cost: Option<Cost>,
    /// Tokens in the last request: how full the context is. Never a cost.
    pub context: Option<i64>,
    /// Model the agent named.
    pub model: Option<String>,
    /// The reports as they came, in order.
    pub raw: Vec<serde_json::Value>,
}

/// Price of a model per million tokens, from the price table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Uncached input.
    pub input: Decimal,
    /// Output, reasoning included.
    pub output: Decimal,
    /// Input read from a cache; absent: priced as input.
    #[serde(default)]
    pub cache_read: Option<Decimal>,
    /// Input written to a cache; absent: priced as input.
    #[serde(default)]
    pub cache_write: Option<Decimal>,
    /// ISO 4217 code of the prices.
    #[serde(default = "usd")]
    pub currency: String,
}

fn usd() -> String {
    "USD".to_owned()
}

impl Price {
    /// The cost of these tokens; `None` when input or output is unknown, for half a bill is a
    /// wrong bill.
    pub fn cost_of(&self, tokens: &TokenCounts) -> Option<Cost> {
        let input = Decimal::from(tokens.input?) * self.input;
        let output = Decimal::from(tokens.output?.saturating_add(tokens.reasoning.unwrap_or(0)));
        let read = Decimal::from(tokens.cache_read.unwrap_or(0));
        let write = Decimal::from(tokens.cache_write.unwrap_or(0));
        let sum = input
            + output * self.output
            + read * self.cache_read.unwrap_or(self.input)
            + write * self.cache_write.unwrap_or(self.input);
        let amount = (sum / Decimal::from(1_000_000)).normalize();
        Some(Cost {
            amount,
            currency: self.currency.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_tokens_stay_unknown() {
        assert_eq!(TokenCounts::default().total(), None);
        assert_eq!(
            TokenCounts::default().plus(&TokenCounts::default()),
            TokenCounts::default()
        );
    }

    #[test]
    fn cumulative_reports_become_what_the_turn_added() {
        let before = TokenCounts {
            input: Some(2_100),
            output: Some(101),
            ..Default::default()
        };
        let now = TokenCounts {
            input: Some(4_200),
            output: Some(202),
            ..Default::default()
        };
        let added = TokenCounts {
            input: Some(2_100),
            output: Some(101),
            ..Default::default()
        };
        assert_eq!(now.since(&before), added);
        let half = TokenCounts {
            output: None,
            ..before
        };
        let known = TokenCounts {
            output: None,
            ..added
        };
        assert_eq!(now.since(&half), known, "a total of unknown turns");
    }

    #[test]
    fn a_total_tells_what_was_added_only_when_it_counts_the_same() {
        let total = |input: i64, cache_read: Option<i64>| TokenCounts {
            input: Some(input),
            cache_read,
            ..Default::default()
        };
        let before = total(1_200, Some(900));
        let added = total(2_400, Some(1_800)).grown_since(&before);
        assert_eq!(added, Some(total(1_200, Some(900))));
        for now in [
            total(1_100, Some(2_000)),
            total(2_400, None),
            TokenCounts::default(),
        ] {
            assert_eq!(now.grown_since(&before), None, "{now:?}");
        }
        assert_eq!(before.grown_since(&TokenCounts::default()), None);
    }

    #[test]
    fn cost_is_exact_and_needs_input_and_output() {
        let price = Price {
            input: Decimal::from(3),
            output: Decimal::from(15),
            cache_read: Some(Decimal::new(3, 1)),
            cache_write: None,
            currency: usd(),
        };
        let tokens = TokenCounts {
            input: Some(1_200),
            output: Some(96),
            cache_read: Some(900),
            reasoning: Some(5),
            ..Default::default()
        };
        let cost = price.cost_of(&tokens).map(|c| c.amount.to_string());
        assert_eq!(cost.as_deref(), Some("0.005385"));
        assert_eq!(
            price.cost_of(&TokenCounts {
                input: Some(1),
                ..Default::default()
            }),
            None
        );
    }
}
