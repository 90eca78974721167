//! Ollama's own.

use serde_json::{Value, json};

use super::Frames;
use crate::answer::{Answer, pieces};

pub(crate) fn frames(answer: &Answer) -> Frames {
    let line = |mut message: Value| {
        message["role"] = json!("assistant");
        let line = json!({"model": answer.model, "created_at": "2026-01-01T00:00:00Z",
            "message": message, "done": false});
        format!("{line}\n")
    };
    let mut text = Vec::new();
    for piece in pieces(&answer.think) {
        text.push(line(json!({"content": "", "thinking": piece})));
    }
    for piece in pieces(&answer.text) {
        text.push(line(json!({"content": piece})));
    }
    let mut calls = Vec::new();
    for call in &answer.calls {
        let mut said = json!({"function": {"name": call.name, "arguments": call.input}});
        if let (true, Some(id)) = (call.id_given, &call.id) {
            said["id"] = json!(id);
        }
        calls.push(line(json!({"content": "", "tool_calls": [said]})));
    }
    let reason = match answer.finish.as_str() {
        "tool_calls" => "stop",
        other => other,
    };
    let mut last = json!({"model": answer.model, "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": reason,
        "total_duration": 1, "eval_duration": 1});
    if let Some(usage) = answer.usage {
        last["prompt_eval_count"] = json!(usage.input);
        last["prompt_eval_cached_count"] = json!(usage.cached);
        last["eval_count"] = json!(usage.output);
    }
    Frames {
        text,
        calls,
        end: vec![format!("{last}\n")],
    }
}
