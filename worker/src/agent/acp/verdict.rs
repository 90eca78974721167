//! What an agent's answers mean, and the wire form of ours to its questions. Pure.

use serde_json::{Value, json};

use super::project::Projection;
use crate::agent::jsonrpc::{PeerError, RpcError};
use crate::agent::permission::PermissionAnswer;
use crate::agent::{AgentError, TurnRequest, classify};
use crate::config::agent_spec::{ErrorRule, Resume};
use crate::domain::error_class::ErrorClass;

/// What the end of a turn means: the word for why it ended, or the failure that it was.
pub(super) fn of_turn(
    answer: &Value,
    said: &Projection,
    rules: &[ErrorRule],
) -> Result<String, AgentError> {
    let reason = answer
        .get("stopReason")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = &said.last_text();
    let failed = |what: &str| {
        AgentError::new(
            ErrorClass::AgentFailed,
            format!("the agent stopped early: {what}"),
        )
    };
    match reason {
        "end_turn" if said.failure().is_some() => Err(classify::reported(text)),
        "end_turn" if let Some(error) = classify::told(rules, text) => Err(error),
        "end_turn" | "cancelled" if said.ends_denied() => Err(AgentError::new(
            ErrorClass::Refused,
            "the agent stopped because a permission was denied",
        )),
        "end_turn" => Ok(reason.to_owned()),
        "max_tokens" => Err(failed("its model reached the token limit (max_tokens)")),
        "max_turn_requests" => Err(failed("too many requests in one turn")),
        "refusal" => Err(refusal(text)),
        "cancelled" => Err(AgentError::new(
            ErrorClass::Refused,
            "the agent ended the turn as cancelled without being asked to",
        )),
        other => Err(protocol(&format!(
            "it ended the turn with the unknown reason `{other}`"
        ))),
    }
}

/// What fast-agent 0.10.46 says before the error of a failed request, which it ends as a refusal.
const FAILED_REQUEST: &str = "internal error while calling the model";

/// A refusal. What a model says when it refuses is no error text: its words decide nothing.
fn refusal(text: &str) -> AgentError {
    if text.contains(FAILED_REQUEST) {
        return classify::reported(text);
    }
    let message = match text.trim() {
        "" => "the agent's model refused the work".to_owned(),
        said => format!("the agent's model refused the work: {said}"),
    };
    AgentError::new(ErrorClass::Refused, message)
}

/// Why its entry says that the agent shall not continue its session here.
pub(super) fn begins_anew(resume: Resume, turn: &TurnRequest) -> Option<&'static str> {
    let moved = turn.session_worktree.as_ref() != Some(&turn.worktree);
    match resume {
        Resume::Never => Some("the agent's entry says acp.resume = \"never\""),
        Resume::InPlace if moved => Some(
            "its session belongs to another directory or data directory, and the agent's entry says \
             acp.resume = \"in_place\"",
        ),
        Resume::InPlace | Resume::Always => None,
    }
}

/// The agent would not make a session, most often because nobody has logged in.
pub(super) fn session_refused(name: &str, agent: &Value, error: &RpcError) -> AgentError {
    let failure = rpc_failed("session/new", error);
    if failure.class != ErrorClass::Auth {
        return failure;
    }
    let methods = agent
        .get("authMethods")
        .or_else(|| error.data.get("authMethods"));
    let names: Vec<&str> = methods
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|method| method.get("id")?.as_str())
        .collect();
    let ways = if names.is_empty() {
        String::new()
    } else {
        format!(" by {}", names.join(", "))
    };
    AgentError::new(
        ErrorClass::Auth,
        format!(
            "agent {name} is not authenticated ({error}); log in with its own program{ways}, then \
             name its credential files in home_files or its key in env_allow",
        ),
    )
}

/// The wire form of an answer: by kind, and only ever for this once.
pub(super) fn outcome(answer: PermissionAnswer, options: &Value) -> Value {
    let kind = match answer {
        PermissionAnswer::Allow => "allow_once",
        PermissionAnswer::Deny => "reject_once",
        PermissionAnswer::Cancelled => return cancelled_outcome(),
    };
    let mut offered = options.as_array().into_iter().flatten();
    let option = offered.find(|option| option.get("kind").and_then(Value::as_str) == Some(kind));
    match option.and_then(|option| option.get("optionId")) {
        Some(id) => json!({"outcome": {"outcome": "selected", "optionId": id}}),
        None => cancelled_outcome(),
    }
}

pub(super) fn cancelled_outcome() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

pub(super) fn protocol(what: &str) -> AgentError {
    AgentError::new(
        ErrorClass::Protocol,
        format!("the agent broke the protocol: {what}"),
    )
}

pub(super) fn peer_failed(error: &PeerError) -> AgentError {
    AgentError::new(ErrorClass::Protocol, error.to_string())
}

/// The class of an error answer: by code, by the vendor's kind, by its words.
pub(super) fn rpc_failed(method: &str, error: &RpcError) -> AgentError {
    if error.code == -32_000 {
        return AgentError::new(
            ErrorClass::Auth,
            format!(
                "the agent is not authenticated ({method}: {error}); log in with its own program, \
                 then name its credential files in home_files or its key in env_allow"
            ),
        );
    }
    let kind = error
        .data
        .get("errorKind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if matches!(kind, "refusal" | "policy_denied") {
        return AgentError::new(ErrorClass::Refused, format!("the agent refused: {error}"));
    }
    let data = if error.data.is_null() {
        String::new()
    } else {
        format!(" {}", error.data)
    };
    let mut failure = classify::reported(&format!("{method}: {error}{data}"));
    if failure.class == ErrorClass::AgentFailed && matches!(error.code, -32_602..=-32_600) {
        failure.class = ErrorClass::Protocol;
    }
    failure
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1 as schema;

    use super::*;

    #[test]
    fn answers_are_chosen_by_kind_and_never_for_ever() {
        let options = json!([
            {"optionId": "allow_always", "kind": "allow_always", "name": "Always"},
            {"optionId": "proceed", "kind": "allow_once", "name": "Yes"},
            {"optionId": "cancel", "kind": "reject_once", "name": "No"},
        ]);
        let id = |answer| outcome(answer, &options)["outcome"]["optionId"].clone();
        assert_eq!(id(PermissionAnswer::Allow), json!("proceed"));
        assert_eq!(id(PermissionAnswer::Deny), json!("cancel"));
        let only_always = json!([{"optionId": "a", "kind": "allow_always"}]);
        assert_eq!(
            outcome(PermissionAnswer::Allow, &only_always),
            cancelled_outcome()
        );
        for answer in [
            outcome(PermissionAnswer::Allow, &options),
            cancelled_outcome(),
        ] {
            serde_json::from_value::<schema::RequestPermissionResponse>(answer).unwrap();
        }
    }

    #[test]
    fn error_answers_get_their_class() {
        let error = |code, message: &str, data| {
            let error = RpcError {
                code,
                message: message.to_owned(),
                data,
            };
            rpc_failed("session/prompt", &error).class
        };
        assert_eq!(
            error(-32_000, "Authentication required", Value::Null),
            ErrorClass::Auth
        );
        assert_eq!(
            error(-32_603, "x", json!({"errorKind": "refusal"})),
            ErrorClass::Refused
        );
        assert_eq!(
            error(-32_603, "429 too many requests", Value::Null),
            ErrorClass::RateLimited
        );
        assert_eq!(error(-32_603, "boom", Value::Null), ErrorClass::AgentFailed);
    }
}
