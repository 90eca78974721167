//! JSON lines of a program → events, by the rules of its entry. Pure.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::agent::acp::project::cut;
use crate::agent::event::{AgentEvent, ToolCall};
use crate::agent::{AgentError, classify, figures};
use crate::config::agent_spec::{
    CostIs, JsonlSpec, Select, ToolSelect, UsageFormat, UsageMode, UsageSemantics, UsageSpec, When,
};
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::domain::usage::{Cost, SessionUsage, TokenCounts, UsageReport, UsageSource};

/// What the lines of one turn said so far.
#[derive(Debug)]
pub struct Stream<'a> {
    rules: &'a JsonlSpec,
    usage: &'a UsageSpec,
    before: Option<SessionUsage>,
    /// The program's session.
    pub session_id: Option<String>,
    /// Text of the last sign of failure.
    pub error: Option<String>,
    /// The word of the line that ends a turn; empty: it came without one.
    pub ended: Option<String>,
    model: Option<String>,
    tokens: Option<TokenCounts>,
    cost: Option<Decimal>,
    raw: Vec<Value>,
    secrets: Redactor,
}

impl<'a> Stream<'a> {
    /// By these rules; `before` is what was recorded for the session that goes on; `None`: it is new.
    /// The secrets are taken out of what is cut.
    pub fn new(
        rules: &'a JsonlSpec,
        usage: &'a UsageSpec,
        before: Option<SessionUsage>,
        secrets: Redactor,
    ) -> Self {
        Self {
            rules,
            usage,
            before,
            session_id: None,
            error: None,
            ended: None,
            model: None,
            tokens: None,
            cost: None,
            raw: Vec::new(),
            secrets,
        }
    }

    /// Events of one line.
    pub fn line(&mut self, line: &Value) -> Vec<AgentEvent> {
        let rules = self.rules;
        let mut events = Vec::new();
        self.session_id = found(&rules.session, line).pop().or(self.session_id.take());
        self.model = found(&rules.model, line).pop().or(self.model.take());
        events.extend(texts(&rules.thought, line).map(|text| AgentEvent::Thought { text }));
        events.extend(texts(&rules.text, line).map(|text| AgentEvent::Text { text }));
        events.extend(texts(&rules.notice, line).map(|text| AgentEvent::Notice { text }));
        for rule in &rules.tool {
            let items = items(line, &rule.when, rule.each.as_deref(), &rule.only);
            events.extend(
                items
                    .filter_map(|item| tool(rule, item, &self.secrets))
                    .map(AgentEvent::ToolCall),
            );
        }
        for rule in rules.error.iter().filter(|rule| holds(&rule.when, line)) {
            let text = line.pointer(&rule.at).map(plain);
            self.error = Some(text.unwrap_or_else(|| line.to_string()));
        }
        if let Some(end) = rules.end.as_ref().filter(|end| holds(&end.when, line)) {
            let reason = end.reason.as_deref().and_then(|at| line.pointer(at));
            self.ended = Some(reason.map(plain).unwrap_or_default());
        }
        if self.usage.format == UsageFormat::Jsonl && holds(&self.usage.select, line) {
            self.count(line);
            events.extend(self.report().map(AgentEvent::Usage));
        }
        events
    }

    /// The failure that the lines tell, whatever the exit code says.
    pub fn failure(&self) -> Option<AgentError> {
        self.error.as_deref().map(classify::reported)
    }

    /// Usage of the turn, as far as it was said.
    pub fn report(&self) -> Option<UsageReport> {
        if self.raw.is_empty() {
            return None;
        }
        Some(UsageReport {
            source: UsageSource::Reported,
            tokens: self.tokens.unwrap_or_default(),
            cost: self.cost.map(|amount| Cost {
                amount: amount.normalize(),
                currency: "USD".to_owned(),
            }),
            context: None,
            model: self.model.clone(),
            raw: self.raw.clone(),
        })
    }

    fn count(&mut self, line: &Value) {
        let report = self
            .usage
            .at
            .as_deref()
            .map_or(Some(line), |at| line.pointer(at));
        if let Some(report) = report {
            let counts = figures::tokens(self.usage, report);
            let counts = match (self.usage.semantics, &self.before) {
                (UsageSemantics::SessionCumulative, Some(before)) => counts.since(&before.tokens),
                _ => counts,
            };
            // Zeros are what failed and aborted requests report: they mean unknown.
            let known = counts.total().is_some_and(|total| total > 0);
            self.tokens = known
                .then(|| match (self.tokens, self.usage.mode) {
                    (Some(before), UsageMode::Sum) => before.plus(&counts),
                    (Some(before), UsageMode::Max) if before.total() > counts.total() => before,
                    _ => counts,
                })
                .or(self.tokens);
        }
        let cost = self.usage.cost.as_deref().and_then(|at| line.pointer(at));
        let amount = cost.and_then(figures::decimal);
        // A cost of nothing beside unknown tokens is just as unknown; a free model is not.
        if let Some(amount) = amount.filter(|_| self.tokens.is_some()) {
            self.cost = match self.usage.cost_is {
                CostIs::Absent => None,
                CostIs::SessionTotal => match &self.before {
                    None => Some(amount),
                    // A total that went backwards belongs to a session that began anew.
                    Some(SessionUsage { cost, .. }) => cost.map(|before| match amount >= before {
                        true => amount - before,
                        false => amount,
                    }),
                },
                CostIs::PerReport => match self.usage.mode {
                    UsageMode::Sum => Some(self.cost.unwrap_or_default() + amount),
                    UsageMode::Last | UsageMode::Max => Some(amount),
                },
            };
        }
        if let Some(model) = figures::text(line, self.usage.model.as_deref()) {
            self.model = Some(model);
        }
        if self.raw.len() < limits::USAGE_RAW_MAX {
            self.raw.push(cut(line, &self.secrets));
        }
    }
}

/// Whether every pointer leads to its value.
fn holds(when: &When, value: &Value) -> bool {
    when.iter()
        .all(|(pointer, wanted)| match (value.pointer(pointer), wanted) {
            (Some(Value::String(found)), toml::Value::String(wanted)) => found == wanted,
            (Some(Value::Bool(found)), toml::Value::Boolean(wanted)) => found == wanted,
            (Some(Value::Number(found)), toml::Value::Integer(wanted)) => {
                found.as_i64() == Some(*wanted)
            }
            _ => false,
        })
}

/// The line, or the elements of an array in it, that a rule is about.
fn items<'v>(
    line: &'v Value,
    when: &When,
    each: Option<&str>,
    only: &'v When,
) -> impl Iterator<Item = &'v Value> {
    let matching = holds(when, line).then_some(line);
    let list = match (matching, each) {
        (None, _) => Vec::new(),
        (Some(line), None) => vec![line],
        (Some(line), Some(each)) => line
            .pointer(each)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect(),
    };
    list.into_iter().filter(|item| holds(only, item))
}

fn found(rules: &[Select], line: &Value) -> Vec<String> {
    texts(rules, line).collect()
}

fn texts(rules: &[Select], line: &Value) -> impl Iterator<Item = String> {
    rules.iter().flat_map(move |rule| {
        items(line, &rule.when, rule.each.as_deref(), &rule.only)
            .filter_map(|item| item.pointer(&rule.at))
            .filter(|value| !value.is_null())
            .map(plain)
            .filter(|text| !text.is_empty())
            .map(|text| match rule.whole && !text.ends_with('\n') {
                true => text + "\n",
                false => text,
            })
            .collect::<Vec<_>>()
    })
}

fn tool(rule: &ToolSelect, item: &Value, secrets: &Redactor) -> Option<ToolCall> {
    let at = |pointer: &Option<String>| {
        item.pointer(pointer.as_deref()?)
            .filter(|value| !value.is_null())
    };
    let name = at(&rule.tool).map(plain);
    let kind = name.as_ref().and_then(|name| rule.kinds.get(name)).cloned();
    Some(ToolCall {
        step_id: None,
        id: plain(item.pointer(&rule.id)?),
        title: at(&rule.title).map(plain).or(name),
        kind: rule.kind.clone().or(kind),
        status: rule
            .status
            .clone()
            .or_else(|| at(&rule.status_at).map(|s| status(&plain(s)))),
        input: at(&rule.input).map(|input| cut(input, secrets)),
        output: at(&rule.output).map(|output| cut(output, secrets)),
        paths: at(&rule.paths).map(paths).unwrap_or_default(),
    })
}

/// The field's words for the programs' own.
fn status(word: &str) -> String {
    match word {
        "running" | "in_progress" => "in_progress",
        "completed" | "success" => "completed",
        "failed" | "error" | "declined" => "failed",
        _ => "pending",
    }
    .to_owned()
}

fn paths(value: &Value) -> Vec<String> {
    let path = |value: &Value| {
        value
            .get("path")
            .unwrap_or(value)
            .as_str()
            .map(str::to_owned)
    };
    match value {
        Value::Array(list) => list.iter().filter_map(path).collect(),
        other => path(other).into_iter().collect(),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
