//! What an ACP agent's figures mean. Each agent reports something else under the same names; the
//! entry in agents.toml says which, and what cannot be known stays unknown.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::agent::figures;
use crate::config::agent_spec::{CostIs, UsageFormat, UsageSemantics, UsageSpec};
use crate::domain::limits;
use crate::domain::usage::{Cost, SessionUsage, TokenCounts, UsageReport, UsageSource};

/// Collects the reports of one turn.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    spec: &'a UsageSpec,
    /// Whether the session is new: then its totals began at zero.
    fresh: bool,
    tokens: Option<TokenCounts>,
    /// What was recorded for the earlier turns of a session that goes on.
    recorded: SessionUsage,
    cost_before: Option<Decimal>,
    cost_now: Option<Cost>,
    context: Option<i64>,
    model: Option<String>,
    raw: Vec<Value>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(spec: &'a UsageSpec) -> Self {
        Self {
            spec,
            fresh: true,
            tokens: None,
            recorded: SessionUsage::default(),
            cost_before: None,
            cost_now: None,
            context: None,
            model: None,
            raw: Vec::new(),
        }
    }

    /// The session is an older one that goes on: its totals hold earlier turns. What they add up to is
    /// what was recorded; of cost where the agent does not tell it again before the turn (claude,
    /// opencode).
    pub(crate) fn continues(&mut self, recorded: SessionUsage) {
        self.fresh = false;
        self.recorded = recorded;
    }

    /// The prompt is about to be sent: what was reported so far is the past.
    pub(crate) fn begin_turn(&mut self) {
        let told = self.cost_now.take().map(|cost| cost.amount);
        self.cost_before = told.or(self.recorded.cost);
        self.tokens = None;
        self.raw.clear();
    }

    /// Look at an update; whether it told something new.
    pub(crate) fn update(&mut self, update: &Value) -> bool {
        match update.get("sessionUpdate").and_then(Value::as_str) {
            Some("usage_update") => self.usage_update(update),
            Some("agent_message_chunk") if self.wants(UsageSemantics::ChunkMeta) => {
                let at = self.spec.at.as_deref().unwrap_or("/_meta/usage");
                let Some(report) = update.pointer(at).filter(|report| report.is_object()) else {
                    return false;
                };
                let more = figures::tokens(self.spec, report);
                self.tokens = Some(self.tokens.unwrap_or_default().plus(&more));
                self.context = more.total().or(self.context);
                self.keep(report);
                true
            }
            _ => false,
        }
    }

    /// Look at the answer to the prompt.
    pub(crate) fn prompt_answered(&mut self, answer: &Value) {
        if self.spec.format != UsageFormat::Acp || self.wants(UsageSemantics::ChunkMeta) {
            return;
        }
        let at = self.spec.at.as_deref().unwrap_or("/usage");
        let Some(report) = answer.pointer(at).filter(|report| report.is_object()) else {
            return;
        };
        self.keep(report);
        let counts = figures::tokens(self.spec, report);
        // Aborted requests are reported as zeros everywhere, which means: unknown.
        if counts.total().is_none_or(|total| total == 0) {
            return;
        }
        self.model = figures::text(report, self.spec.model.as_deref()).or(self.model.take());
        match self.spec.semantics {
            UsageSemantics::Turn => self.tokens = Some(counts),
            UsageSemantics::SessionCumulative if self.fresh => self.tokens = Some(counts),
            // Without the figures before the turn its own cannot be told from earlier ones; a total that
            // did not grow is what an aborted request reports.
            UsageSemantics::SessionCumulative => {
                let added = counts.grown_since(&self.recorded.tokens);
                self.tokens = added.filter(|added| added.total() != Some(0));
            }
            UsageSemantics::LastRequest => self.context = counts.total(),
            UsageSemantics::ChunkMeta => {}
        }
    }

    /// What is known about the turn; `None`: the agent said nothing.
    pub(crate) fn report(&self) -> Option<UsageReport> {
        if self.raw.is_empty() {
            return None;
        }
        Some(UsageReport {
            source: UsageSource::Reported,
            tokens: self.tokens.unwrap_or_default(),
            cost: self.cost(),
            context: self.context,
            model: self.model.clone(),
            raw: self.raw.clone(),
        })
    }

    fn usage_update(&mut self, update: &Value) -> bool {
        self.context = update.get("used").and_then(Value::as_i64).or(self.context);
        let amount = update.pointer("/cost/amount").and_then(figures::decimal);
        if let Some(amount) = amount {
            let currency = figures::text(update, Some("/cost/currency"));
            let currency = currency.unwrap_or_else(|| "USD".to_owned());
            self.cost_now = Some(Cost { amount, currency });
        }
        self.keep(update);
        true
    }

    fn cost(&self) -> Option<Cost> {
        let now = self.cost_now.clone()?;
        let before = match (self.spec.cost_is, self.cost_before) {
            (CostIs::Absent, _) => return None,
            (CostIs::PerReport, _) => return Some(now),
            (CostIs::SessionTotal, Some(before)) => before,
            (CostIs::SessionTotal, None) if self.fresh => Decimal::ZERO,
            (CostIs::SessionTotal, None) => return None,
        };
        // Nothing added beside unknown tokens is what an aborted request reports.
        if now.amount == before && self.tokens.is_none() {
            return None;
        }
        // A total that went backwards belongs to a session that began anew.
        let amount = if now.amount >= before {
            now.amount - before
        } else {
            now.amount
        };
        Some(Cost {
            amount: amount.normalize(),
            ..now
        })
    }

    fn wants(&self, semantics: UsageSemantics) -> bool {
        self.spec.format == UsageFormat::Acp && self.spec.semantics == semantics
    }

    fn keep(&mut self, report: &Value) {
        if self.raw.len() < limits::USAGE_RAW_MAX {
            self.raw.push(report.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(semantics: UsageSemantics) -> UsageSpec {
        UsageSpec {
            format: UsageFormat::Acp,
            semantics,
            cost_is: CostIs::SessionTotal,
            input: Some("/inputTokens".to_owned()),
            output: Some("/outputTokens".to_owned()),
            cached_read: Some("/cachedReadTokens".to_owned()),
            reasoning: Some("/thoughtTokens".to_owned()),
            ..UsageSpec::default()
        }
    }

    fn answer() -> Value {
        json!({"usage": {"inputTokens": 2100, "cachedReadTokens": 900, "outputTokens": 101}})
    }

    #[test]
    fn input_that_includes_the_cache_is_told_apart() {
        let spec = UsageSpec {
            input_includes_cached: true,
            ..spec(UsageSemantics::Turn)
        };
        let mut meter = Meter::new(&spec);
        meter.begin_turn();
        meter.prompt_answered(&answer());
        let tokens = meter.report().unwrap().tokens;
        assert_eq!((tokens.input, tokens.cache_read), (Some(1_200), Some(900)));
        assert_eq!(tokens.total(), Some(2_201));
    }

    #[test]
    fn of_a_session_total_a_later_turn_is_what_it_added() {
        // Mistral Vibe 3.0.2, the second turn of a session, in a process of its own.
        let told =
            json!({"usage": {"inputTokens": 4200, "cachedReadTokens": 1800, "outputTokens": 202}});
        let spec = UsageSpec {
            input_includes_cached: true,
            reasoning: None,
            ..spec(UsageSemantics::SessionCumulative)
        };
        let turn = |recorded: TokenCounts, told: &Value| {
            let mut meter = Meter::new(&spec);
            meter.continues(SessionUsage {
                tokens: recorded,
                cost: None,
            });
            meter.begin_turn();
            meter.prompt_answered(told);
            meter.report().unwrap().tokens
        };
        let first = TokenCounts {
            input: Some(1_200),
            output: Some(101),
            cache_read: Some(900),
            ..TokenCounts::default()
        };
        assert_eq!(turn(first, &told), first);
        let unknown = TokenCounts::default();
        assert_eq!(turn(unknown, &told), unknown, "earlier turns are unknown");
        assert_eq!(turn(first, &answer()), unknown, "nothing was added");
        let more = TokenCounts {
            output: Some(303),
            ..first
        };
        assert_eq!(turn(more, &told), unknown, "it counts from somewhere else");
    }

    #[test]
    fn a_figure_that_is_left_out_is_zero_for_an_agent_that_omits_zeros() {
        let spec = UsageSpec {
            omits_zero: true,
            cached_write: None,
            ..spec(UsageSemantics::Turn)
        };
        let tokens = |usage: Value| {
            let mut meter = Meter::new(&spec);
            meter.begin_turn();
            meter.prompt_answered(&json!({"usage": usage}));
            meter.report().unwrap().tokens
        };
        let told = tokens(json!({"inputTokens": 7, "outputTokens": 3, "cachedReadTokens": null}));
        assert_eq!((told.cache_read, told.reasoning), (Some(0), Some(0)));
        assert_eq!(told.cache_write, None, "the entry does not name it");
        let nothing = tokens(json!({"other": 1}));
        assert_eq!(nothing, TokenCounts::default());
    }

    #[test]
    fn the_last_request_is_the_context_and_not_the_cost() {
        let spec = spec(UsageSemantics::LastRequest);
        let mut meter = Meter::new(&spec);
        meter.begin_turn();
        meter.prompt_answered(&answer());
        let report = meter.report().unwrap();
        assert_eq!((report.tokens.total(), report.context), (None, Some(3_101)));
    }

    #[test]
    fn cost_is_what_the_turn_added_to_the_session() {
        let spec = spec(UsageSemantics::Turn);
        let total = |amount: f64| {
            json!({"sessionUpdate": "usage_update", "used": 1, "size": 2,
                   "cost": {"amount": amount, "currency": "USD"}})
        };
        let cost = |recorded: Option<&str>, told: Option<f64>| {
            let mut meter = Meter::new(&spec);
            meter.continues(SessionUsage {
                cost: recorded.map(|amount| amount.parse().unwrap()),
                ..SessionUsage::default()
            });
            if let Some(told) = told {
                meter.update(&total(told));
            }
            meter.begin_turn();
            meter.update(&total(0.006));
            meter.update(&total(0.0125));
            let cost = meter.report().unwrap().cost?;
            Some(cost.amount.to_string())
        };
        assert_eq!(cost(None, Some(0.005)).as_deref(), Some("0.0075"));
        assert_eq!(cost(Some("0.004"), None).as_deref(), Some("0.0085"));
        let both = cost(Some("0.004"), Some(0.005));
        assert_eq!(both.as_deref(), Some("0.0075"), "its own word is newer");
        assert_eq!(cost(None, None), None, "a total of unknown turns");
    }

    #[test]
    fn zeros_of_an_aborted_turn_are_unknown() {
        let spec = spec(UsageSemantics::Turn);
        let mut meter = Meter::new(&spec);
        meter.begin_turn();
        meter.prompt_answered(&json!({"usage": {"inputTokens": 0, "outputTokens": 0}}));
        assert_eq!(meter.report().unwrap().tokens.total(), None);
    }
}
