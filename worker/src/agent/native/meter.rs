//! What the requests of a turn used, to the token: the provider's own figures, summed. A sum that
//! misses one is no sum.

use serde_json::json;

use crate::agent::llm::LlmUsage;
use crate::domain::usage::{TokenCounts, UsageReport, UsageSource};

/// The figures of one turn.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    tokens: TokenCounts,
    /// Requests whose figures are missing although they cost something.
    missing: u32,
    asked: u32,
    model: String,
    pub(crate) context: Option<i64>,
}

impl Meter {
    /// Of a turn with this model, as `provider/model`.
    pub(crate) fn new(model: String) -> Self {
        // Nothing asked is nothing used: that is known.
        let tokens = TokenCounts {
            input: Some(0),
            output: Some(0),
            ..TokenCounts::default()
        };
        Self {
            tokens,
            missing: 0,
            asked: 0,
            model,
            context: None,
        }
    }

    /// Count a request that was answered, or a part of it.
    pub(crate) fn count(&mut self, usage: Option<&LlmUsage>) {
        self.asked += 1;
        let known = usage.filter(|u| u.tokens.input.is_some() && u.tokens.output.is_some());
        match known {
            Some(usage) => {
                self.tokens = self.tokens.plus(&usage.tokens);
                self.context = Some(usage.context());
            }
            None => self.missing += 1,
        }
    }

    /// All of it; unknown when a part is.
    pub(crate) fn tokens(&self) -> Option<TokenCounts> {
        (self.missing == 0).then_some(self.tokens)
    }

    /// For the attempt.
    pub(crate) fn report(&self) -> UsageReport {
        UsageReport {
            tokens: self.tokens().unwrap_or_default(),
            cost: None,
            context: self.context,
            model: Some(self.model.clone()),
            // The provider's own words for each request are in `steps`.
            raw: vec![json!({ "requests": self.asked, "without_figures": self.missing })],
            source: UsageSource::Metered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: Option<i64>) -> LlmUsage {
        LlmUsage {
            tokens: TokenCounts {
                input,
                output: Some(1),
                cache_read: Some(2),
                ..TokenCounts::default()
            },
            raw: serde_json::Value::Null,
        }
    }

    #[test]
    fn figures_add_up_and_the_context_is_the_last_ones() {
        let mut meter = Meter::new("p/m".to_owned());
        assert_eq!(meter.report().tokens.total(), Some(0));
        meter.count(Some(&usage(Some(10))));
        meter.count(Some(&usage(Some(20))));
        let report = meter.report();
        assert_eq!(report.tokens.total(), Some(36));
        assert_eq!(report.context, Some(23));
    }

    #[test]
    fn one_request_without_figures_makes_the_sum_unknown() {
        for missing in [None, Some(usage(None))] {
            let mut meter = Meter::new("p/m".to_owned());
            meter.count(Some(&usage(Some(10))));
            meter.count(missing.as_ref());
            let report = meter.report();
            assert_eq!(report.tokens.total(), None);
            assert_eq!(report.raw[0]["without_figures"], 1);
        }
    }
}
