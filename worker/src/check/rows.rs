//! The findings of a check, in the order of its steps.

use std::io::IsTerminal;

use super::Tell;
use crate::domain::finding::{Finding, Verdict};
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::domain::safe_text;

const AREA: &str = "agent";

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Found,
    Sandbox,
    Version,
    Handshake,
    Session,
    Prompt,
    Permission,
    Cancel,
    Resume,
    Leftovers,
}

impl Step {
    /// Those that cost nothing.
    pub(super) const FREE: [Self; 5] = [
        Self::Found,
        Self::Sandbox,
        Self::Version,
        Self::Handshake,
        Self::Session,
    ];
    /// Those that run turns.
    pub(super) const TURNS: [Self; 5] = [
        Self::Prompt,
        Self::Permission,
        Self::Cancel,
        Self::Resume,
        Self::Leftovers,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Sandbox => "sandbox",
            Self::Version => "version",
            Self::Handshake => "handshake",
            Self::Session => "session",
            Self::Prompt => "prompt",
            Self::Permission => "permission",
            Self::Cancel => "cancel",
            Self::Resume => "resume",
            Self::Leftovers => "leftovers",
        }
    }
}

/// The findings so far.
pub(super) struct Rows {
    agent: String,
    tell: Tell,
    redactor: Redactor,
    found: Vec<(Step, Finding)>,
    /// The first step that failed.
    broken: Option<Step>,
}

impl Rows {
    pub(super) fn new(agent: &str, tell: Tell, redactor: Redactor) -> Self {
        Self {
            agent: agent.to_owned(),
            tell,
            redactor,
            found: Vec::new(),
            broken: None,
        }
    }

    /// What is taken out of all that is told.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    pub(super) fn redact(&mut self, redactor: Redactor) {
        self.redactor = redactor;
    }

    /// Tell who waits what is looked at now.
    pub(super) fn begin(&self, step: Step) {
        if self.tell == Tell::Terminal && std::io::stderr().is_terminal() {
            let agent = safe_text::line(&self.agent);
            eprintln!("{agent}: {} …", step.name());
        }
    }

    pub(super) fn ok(&mut self, step: Step, found: &str) {
        let found = Finding::ok(AREA, step.name(), self.shown(found));
        self.found.push((step, found));
    }

    pub(super) fn warn(&mut self, step: Step, found: &str, advice: &str) {
        self.but(step, found, Verdict::Warn, advice);
    }

    pub(super) fn fail(&mut self, step: Step, found: &str, advice: &str) {
        self.broken = self.broken.or(Some(step));
        self.but(step, found, Verdict::Fail, advice);
    }

    fn but(&mut self, step: Step, found: &str, verdict: Verdict, advice: &str) {
        let found = Finding::ok(AREA, step.name(), self.shown(found));
        let advice = self.shown(advice);
        self.found.push((step, found.but(verdict, advice)));
    }

    /// One line without secrets, cut to what a table holds.
    fn shown(&self, text: &str) -> String {
        let clean = self.redactor.text(text);
        let words: Vec<&str> = clean.split_whitespace().collect();
        let line = safe_text::line(&words.join(" "));
        match line.char_indices().nth(limits::CHECK_FOUND_CHARS_MAX) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line,
        }
    }

    /// All of these steps, those that were not come to included.
    pub(super) fn done(mut self, steps: &[Step]) -> Vec<Finding> {
        for step in steps {
            if self.found.iter().any(|(known, _)| known == step) {
                continue;
            }
            let broken = self.broken.unwrap_or(Step::Found).name();
            let advice = format!("Mend {broken} first.");
            self.warn(*step, &format!("not tried: {broken} failed"), &advice);
        }
        self.found.sort_by_key(|(step, _)| *step);
        self.found.into_iter().map(|(_, finding)| finding).collect()
    }
}
