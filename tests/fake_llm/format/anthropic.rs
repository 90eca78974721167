//! Anthropic's Messages.

use serde_json::{Value, json};

use super::{Frames, event};
use crate::answer::{Answer, pieces};

pub(crate) fn frames(answer: &Answer) -> Frames {
    let mut start = json!({"id": format!("msg_{}", answer.k), "type": "message",
        "role": "assistant", "model": answer.model, "content": [], "stop_reason": null});
    if let Some(usage) = answer.usage {
        start["usage"] = json!({
            "input_tokens": usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write),
            "cache_read_input_tokens": usage.cached,
            "cache_creation_input_tokens": usage.cache_write,
            "output_tokens": 1});
    }
    let start = json!({"type": "message_start", "message": start});
    let mut text = vec![
        event("message_start", &start),
        event("ping", &json!({"type": "ping"})),
    ];
    let mut index = 0;
    if !answer.think.is_empty() {
        let mut deltas: Vec<Value> = pieces(&answer.think)
            .into_iter()
            .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
            .collect();
        deltas.push(json!({"type": "signature_delta", "signature": answer.signature()}));
        let opening = json!({"type": "thinking", "thinking": "", "signature": ""});
        text.extend(block(index, &opening, deltas));
        index += 1;
    }
    if !answer.text.is_empty() {
        let deltas = pieces(&answer.text)
            .into_iter()
            .map(|piece| json!({"type": "text_delta", "text": piece}))
            .collect();
        text.extend(block(index, &json!({"type": "text", "text": ""}), deltas));
        index += 1;
    }
    let mut calls = Vec::new();
    for call in &answer.calls {
        let deltas = pieces(&call.arguments)
            .into_iter()
            .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
            .collect();
        let opening = json!({"type": "tool_use", "id": call.id.clone().unwrap_or_default(),
            "name": call.name, "input": {}});
        calls.extend(block(index, &opening, deltas));
        index += 1;
    }
    Frames {
        text,
        calls,
        end: end(answer),
    }
}

fn block(index: usize, opening: &Value, deltas: Vec<Value>) -> Vec<String> {
    let start = json!({"type": "content_block_start", "index": index, "content_block": opening});
    let mut frames = vec![event("content_block_start", &start)];
    for delta in deltas {
        let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
        frames.push(event("content_block_delta", &delta));
    }
    let stop = json!({"type": "content_block_stop", "index": index});
    frames.push(event("content_block_stop", &stop));
    frames
}

fn end(answer: &Answer) -> Vec<String> {
    let reason = match answer.finish.as_str() {
        "stop" => "end_turn",
        "tool_calls" => "tool_use",
        "length" => "max_tokens",
        "content_filter" => "refusal",
        other => other,
    };
    let mut delta = json!({"type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": null}});
    if let Some(usage) = answer.usage {
        delta["usage"] = json!({"output_tokens": usage.output});
    }
    let stop = json!({"type": "message_stop"});
    vec![event("message_delta", &delta), event("message_stop", &stop)]
}
