//! What only the native agent tells, told to a person.

use serde_json::Value;

use super::forms::thousands;
use super::out::Paint;
use crate::surface::safe_text;

/// Lines for an event of a native turn; `None`: it is none.
pub(crate) fn tell(paint: Paint, kind: &str, facts: &Value) -> Option<Vec<String>> {
    let word = |name: &str| safe_text::line(facts[name].as_str().unwrap_or_default());
    Some(match kind {
        // The start of the agent says the model, and the end of the task what it came to.
        "turn_started" => Vec::new(),
        "step_completed" => vec![paint.dim(&step(facts))],
        "provider_retry" => vec![paint.yellow(&format!(
            "waiting {} for the provider: {}",
            seconds(&facts["delay_ms"]),
            word("message")
        ))],
        "steering" => vec![paint.bold(&format!("› {}", word("text")))],
        "compacted" => vec![paint.dim(&format!(
            "a summary stands for the {} oldest messages",
            facts["replaced"]
        ))],
        "turn_done" => match facts["reason"].as_str() {
            Some("stop") | None => Vec::new(),
            Some(_) => vec![paint.yellow(&format!("the turn ended: {}", word("reason")))],
        },
        "message_carried" => vec![paint.dim(&format!(
            "what was sent meanwhile goes on as task {}",
            facts["task_id"]
        ))],
        _ => return None,
    })
}

fn step(facts: &Value) -> String {
    let figures = &facts["figures"];
    let count = |name: &str| figures["tokens"][name].as_i64();
    let parts = ["input", "cache_read", "cache_write", "output", "reasoning"];
    let known = parts.iter().filter_map(|name| count(name));
    let tokens = match figures["tokens"].is_object() {
        true => format!("{} tokens", thousands(known.sum())),
        false => "tokens unknown".to_owned(),
    };
    let id = safe_text::line(facts["step_id"].as_str().unwrap_or_default());
    format!("step {id}: {tokens}, {}", seconds(&figures["total_ms"]))
}

fn seconds(ms: &Value) -> String {
    format!("{:.1} s", ms.as_f64().unwrap_or(0.0) / 1000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_says_what_it_used_or_that_nobody_knows() {
        let tokens = json!({"input": 1_000, "output": 20, "cache_read": 300});
        let known = json!({"step_id": "7.1#0", "figures": {"tokens": tokens, "total_ms": 1_250}});
        assert_eq!(step(&known), "step 7.1#0: 1,320 tokens, 1.2 s");
        let unknown = json!({"step_id": "7.1#1", "figures": {"tokens": null, "total_ms": 90}});
        assert_eq!(step(&unknown), "step 7.1#1: tokens unknown, 0.1 s");
    }

    #[test]
    fn a_turn_that_ends_well_needs_no_word_and_any_other_has_one() {
        let said = |reason: &str| {
            let facts = json!({ "reason": reason });
            tell(Paint(false), "turn_done", &facts).unwrap().len()
        };
        assert_eq!((said("stop"), said("token-budget")), (0, 1));
        assert!(tell(Paint(false), "hologram", &json!({})).is_none());
    }
}
