//! What a call of a tool comes to.

use serde::Serialize;
use serde_json::{Map, Value};

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// For the model.
    pub(super) output: String,
    pub(super) is_error: bool,
    /// For people's views.
    pub(super) detail: Map<String, Value>,
}

impl Outcome {
    pub(super) fn done(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            is_error: false,
            detail: Map::new(),
        }
    }

    pub(super) fn failed(output: impl Into<String>) -> Self {
        Self {
            is_error: true,
            ..Self::done(output)
        }
    }

    /// With one more member of the detail.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// The same call, that somebody ended.
    pub(super) fn cancelled(self) -> Self {
        let output = match self.output.is_empty() {
            true => "cancelled".to_owned(),
            false => format!("cancelled\n{}", self.output),
        };
        Self {
            output,
            is_error: true,
            detail: self.detail,
        }
    }
}

/// What the model is told when a tool does not do it.
pub(super) type Told<T> = Result<T, String>;

impl From<Told<Outcome>> for Outcome {
    fn from(result: Told<Outcome>) -> Self {
        result.unwrap_or_else(Self::failed)
    }
}
