//! Model, mode and thinking option of a turn: what was asked for, checked against what is offered.

use super::{AgentError, TurnRequest};
use crate::config::agent_spec::AgentSpec;
use crate::domain::error_class::ErrorClass;

/// What can be chosen for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The mode: first, because it may restrict the others.
    Mode,
    /// The model.
    Model,
    /// The thinking option (reasoning effort): last, because models differ in them.
    Thinking,
}

impl Choice {
    /// In the order in which they are applied.
    pub(crate) const ALL: [Self; 3] = [Self::Mode, Self::Model, Self::Thinking];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Model => "model",
            Self::Thinking => "thinking option",
        }
    }

    /// What the task or else the entry wants.
    pub(crate) fn wanted<'a>(self, spec: &'a AgentSpec, turn: &'a TurnRequest) -> Option<&'a str> {
        let (asked, default) = match self {
            Self::Mode => (&turn.mode_id, &spec.mode),
            Self::Model => (&turn.model, &spec.model),
            Self::Thinking => (&turn.thinking_option_id, &spec.thinking),
        };
        asked.as_deref().or(default.as_deref())
    }

    /// What the entry allows; empty: anything the agent accepts.
    pub(crate) fn listed(self, spec: &AgentSpec) -> &[String] {
        match self {
            Self::Mode => &spec.modes,
            Self::Model => &spec.models,
            Self::Thinking => &spec.thinking_options,
        }
    }
}

/// Refuse what the entry's own lists do not allow, before anything is started.
pub(crate) fn check_listed(spec: &AgentSpec, turn: &TurnRequest) -> Result<(), AgentError> {
    for choice in Choice::ALL {
        let listed = choice.listed(spec);
        if let Some(wanted) = choice.wanted(spec, turn)
            && !listed.is_empty()
            && !listed.iter().any(|value| value == wanted)
        {
            return Err(invalid(&spec.name, choice, wanted, listed));
        }
    }
    Ok(())
}

/// The error for a value that is not offered.
pub(crate) fn invalid(
    agent: &str,
    choice: Choice,
    wanted: &str,
    allowed: &[impl AsRef<str>],
) -> AgentError {
    let name = choice.name();
    let message = if allowed.is_empty() {
        format!("agent {agent} has no choice of {name}, so `{wanted}` cannot be used; leave it out")
    } else {
        let list = allowed
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", ");
        format!("agent {agent} does not offer the {name} `{wanted}`; it offers: {list}")
    };
    AgentError::new(ErrorClass::InvalidOption, message)
}
