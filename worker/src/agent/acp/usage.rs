//! What an ACP agent's figures mean. Each agent reports something else under the same names; the
//! entry in agents.toml says which, and what cannot be known stays unknown.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::agent::figures;
use crate::config::agent_spec::{CostIs, UsageFormat, UsageSemantics, UsageSpec};
use crate::domain::limits;
use crate::domain::usage::{Cost, TokenCounts, UsageReport, UsageSource};

/// Collects the reports of one turn.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    spec: &'a UsageSpec,
    /// Whether the session is new: then its totals began at zero.
    fresh: bool,
    tokens: Option<TokenCounts>,
    cost_recorded: Option<Decimal>,
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
            cost_recorded: None,
            cost_before: None,
            cost_now: None,
            context: None,
            model: None,
            raw: Vec::new(),
        }
    }

    /// The session is an older one that goes on: its totals hold earlier turns, whose cost is what
    /// was recorded where the agent does not tell it again before the turn (claude, opencode).
    pub(crate) fn continues(&mut self, recorded: Option<Decimal>) {
        self.fresh = false;
        self.cost_recorded = recorded;
    }

    /// The prompt is about to be sent: what was reported so far is the past.
    pub(crate) fn begin_turn(&mut self) {
        let told = self.cost_now.take().map(|cost| cost.amount);
        self.cost_before = told.or(self.cost_recorded);
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
            // Without the figures before the turn its own cannot be told from earlier ones.
            UsageSemantics::SessionCumulative => {}
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
    fn a_session_total_is_not_the_bill_of_a_later_turn() {
        let spec = spec(UsageSemantics::SessionCumulative);
        let mut meter = Meter::new(&spec);
        meter.continues(None);
        meter.begin_turn();
        meter.prompt_answered(&answer());
        assert_eq!(meter.report().unwrap().tokens, TokenCounts::default());
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
            meter.continues(recorded.map(|amount| amount.parse().unwrap()));
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
