//! `dispatch doctor AGENT`: what the fleet says of an agent, and how it does on this machine. The
//! second starts it, which the operation that only looks must not.

use serde_json::{Value, json};

use crate::ops::doctor::{Diagnosis, Finding, Verdict};
use crate::ops::{self, OpContext, OpEntry, OpError, OpErrorKind};

/// The agent that the doctor is asked about, when it is one.
pub(crate) fn agent<'a>(entry: &OpEntry, input: &'a Value) -> Option<&'a str> {
    let asked = entry.spec.name == "doctor.show";
    input["agent"].as_str().filter(|_| asked)
}

/// Both, as one diagnosis. An agent that neither knows is an error.
pub(crate) async fn examine(
    context: &OpContext,
    agent: &str,
    without_prompt: bool,
) -> Result<Value, OpError> {
    let fleet = call(context, "doctor.show", json!({"agent": agent})).await;
    let check = json!({"name": agent, "without_prompt": without_prompt, "here": true});
    let here = call(context, "agent.check", check).await;
    let missing = |told: &Result<Diagnosis, OpError>| {
        let error = told.as_ref().err();
        error.is_some_and(|error| error.kind == OpErrorKind::NotFound)
    };
    let nobody = match &fleet {
        Ok(told) => told.data.iter().all(|one| one.area == "database"),
        Err(_) => missing(&fleet),
    };
    if nobody && missing(&here) {
        return here.map(|_| Value::Null);
    }
    let mut findings = of_fleet(agent, fleet);
    findings.extend(of_machine(here));
    serde_json::to_value(Diagnosis::of(findings)).map_err(|e| OpError::internal(e.to_string()))
}

/// The findings of a fleet with the agents that cannot run anywhere as one: where few are installed,
/// most of the catalogue is, and none of it is a fault.
pub(super) fn gathered(findings: &[Value]) -> Vec<Value> {
    let absent = |one: &&Value| {
        let found = one["found"].as_str().unwrap_or("");
        one["area"] == "agent" && one["verdict"] == "warn" && found.starts_with("unavailable,")
    };
    let all: Vec<&Value> = findings.iter().filter(absent).collect();
    let [first, _, ..] = all.as_slice() else {
        return findings.to_vec();
    };
    let names: Vec<&str> = all.iter().filter_map(|one| one["check"].as_str()).collect();
    let mut one = (*first).clone();
    one["check"] = json!("unavailable");
    one["found"] = json!(names.join(", "));
    one["advice"] = json!("dispatch agents list says what each one lacks.");
    // In the place of the first.
    let kept = findings
        .iter()
        .filter(|other| !absent(other) || other == first);
    let shown = kept.map(|other| if other == *first { &one } else { other });
    shown.cloned().collect()
}

async fn call(context: &OpContext, op: &str, input: Value) -> Result<Diagnosis, OpError> {
    let entry = ops::find(op).ok_or_else(|| OpError::internal(format!("no operation {op:?}")))?;
    let told = (entry.call)(context, input).await?;
    serde_json::from_value(told).map_err(|e| OpError::internal(e.to_string()))
}

fn of_fleet(agent: &str, told: Result<Diagnosis, OpError>) -> Vec<Finding> {
    match told {
        Ok(told) => told.data,
        Err(error) if error.kind == OpErrorKind::NotFound => {
            let found = Finding::ok("fleet", agent, "no worker of the fleet knows it");
            let advice = "A worker with this agents.toml offers it: dispatch worker.";
            vec![found.but(Verdict::Warn, advice)]
        }
        Err(error) => vec![failed("fleet", agent, error)],
    }
}

fn of_machine(told: Result<Diagnosis, OpError>) -> Vec<Finding> {
    match told {
        Ok(told) => told.data,
        Err(error) if error.kind == OpErrorKind::NotFound => {
            let found = Finding::ok("agent", "found", error.message);
            let advice =
                "Nothing of it was tried here. A worker tries it: dispatch agents check NAME.";
            vec![found.but(Verdict::Warn, advice)]
        }
        Err(error) => vec![failed("machine", "agents.toml", error)],
    }
}

fn failed(area: &str, check: &str, error: OpError) -> Finding {
    let found = Finding::ok(area, check, error.message);
    let advice = error.hint.unwrap_or_else(|| "Mend this first.".to_owned());
    found.but(Verdict::Fail, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_run_nowhere_are_one_finding_and_those_that_broke_are_their_own() {
        let agent = |name: &str, found: &str| {
            let found = Finding::ok(
                "agent",
                name,
                format!("{found}, no version told, 1 workers"),
            );
            serde_json::to_value(found.but(Verdict::Warn, "why")).unwrap()
        };
        let fleet = serde_json::to_value(Finding::ok("fleet", "workers", "1 live")).unwrap();
        let broken = agent("b", "error");
        let one = [fleet.clone(), agent("a", "unavailable"), broken.clone()];
        assert_eq!(gathered(&one), one);
        let many = [&one[..], &[agent("c", "unavailable")]].concat();
        let told = gathered(&many);
        assert_eq!([&told[0], &told[2]], [&fleet, &broken]);
        assert_eq!((&told[1]["found"], told.len()), (&json!("a, c"), 3));
    }
}
