//! What whoever submits a task should know of its agent now. None of it is a reason to refuse the task:
//! workers come and go, and offer what their own agents.toml says.

use serde_json::Value;

use crate::store::catalogue::AgentView;
use crate::store::tasks::NewTask;

/// What is to be said about this task, which this agent would run.
pub(super) fn of(offers: &[AgentView], agent: &str, task: &NewTask) -> Option<String> {
    let fallback = task.fallback.as_deref();
    let offer = offers.iter().find(|offer| offer.name == agent);
    let is_ready = offer.is_some_and(|offer| offer.status == "ready");
    not_ready(offers, agent, fallback).or_else(|| not_offered(offer.filter(|_| is_ready)?, task))
}

fn not_ready(offers: &[AgentView], agent: &str, fallback: Option<&str>) -> Option<String> {
    let ready = |name: &str| offers.iter().any(|a| a.name == name && a.status == "ready");
    if ready(agent) || fallback.is_some_and(ready) {
        return None;
    }
    let offer = offers.iter().find(|offer| offer.name == agent);
    if offer.is_some_and(|offer| offer.status == "loading") {
        return Some(format!(
            "agent {agent} is being probed; the task begins when it is ready"
        ));
    }
    let why = offer
        .and_then(|offer| offer.error.as_deref())
        .map(|error| format!(" ({error})"))
        .unwrap_or_default();
    Some(format!(
        "no live worker offers agent {agent}{why}; the task waits until one does"
    ))
}

/// A choice that the list of the agent's freshest offer does not have: its attempt fails, unless another
/// worker that has it takes the task.
fn not_offered(offer: &AgentView, task: &NewTask) -> Option<String> {
    // The built-in agent takes any model of its providers, also one that nobody listed.
    let is_native = offer.execution_path.as_deref() == Some("native");
    let model = task.model.as_deref().filter(|_| !is_native);
    let choices = [
        ("model", model, &offer.models),
        ("mode", task.mode_id.as_deref(), &offer.modes),
        (
            "thinking option",
            task.thinking_option_id.as_deref(),
            &offer.thinking_options,
        ),
    ];
    choices.into_iter().find_map(|(what, wanted, offered)| {
        let wanted = wanted?;
        let offered: Vec<&str> = offered
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        if offered.is_empty() || offered.contains(&wanted) {
            return None;
        }
        Some(format!(
            "agent {} does not offer the {what} {wanted:?}, so that the task may fail; it offers: {}",
            offer.name,
            offered.join(", ")
        ))
    })
}
