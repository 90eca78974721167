//! What somebody who looked found, and what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works; somebody should look.
    Warn,
    /// Something does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// database, fleet, machine or agent.
    pub area: String,
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; absent: nothing.
    pub advice: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(area: &str, check: &str, found: impl Into<String>) -> Self {
        Self {
            area: area.to_owned(),
            check: check.to_owned(),
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    /// The same, when something is to be done.
    #[must_use]
    pub fn but(mut self, verdict: Verdict, advice: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.advice = Some(advice.into());
        self
    }

    /// The same, when this holds.
    #[must_use]
    pub fn unless(self, good: bool, verdict: Verdict, advice: &str) -> Self {
        match good {
            true => self,
            false => self.but(verdict, advice),
        }
    }
}
