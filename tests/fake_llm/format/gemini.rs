//! Google's Gemini.

use serde_json::{Value, json};

use super::{Frames, data};
use crate::answer::{Answer, pieces};

pub(crate) fn frames(answer: &Answer) -> Frames {
    let chunk = |parts: Value| {
        data(
            &json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}}],
            "modelVersion": answer.model}),
        )
    };
    let mut text = Vec::new();
    for piece in pieces(&answer.think) {
        text.push(chunk(json!([{"text": piece, "thought": true}])));
    }
    for piece in pieces(&answer.text) {
        text.push(chunk(json!([{"text": piece}])));
    }
    let is_signed = !answer.think.is_empty();
    if is_signed && answer.calls.is_empty() {
        // What it does when there is no call to sign.
        let part = json!({"text": "", "thoughtSignature": answer.signature()});
        text.push(chunk(json!([part])));
    }
    let mut calls = Vec::new();
    for (index, call) in answer.calls.iter().enumerate() {
        let mut part = json!({"functionCall": {"name": call.name, "args": call.input}});
        if let (true, Some(id)) = (call.id_given, &call.id) {
            part["functionCall"]["id"] = json!(id);
        }
        // The first of several calls carries the signature.
        if is_signed && index == 0 {
            part["thoughtSignature"] = json!(answer.signature());
        }
        calls.push(chunk(json!([part])));
    }
    Frames {
        text,
        calls,
        end: vec![end(answer)],
    }
}

fn end(answer: &Answer) -> String {
    let reason = match answer.finish.as_str() {
        "stop" | "tool_calls" => "STOP",
        "length" => "MAX_TOKENS",
        "content_filter" => "SAFETY",
        other => other,
    };
    let mut last = json!({"modelVersion": answer.model, "candidates": [{"index": 0,
        "content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason}]});
    if let Some(usage) = answer.usage {
        last["usageMetadata"] = json!({"promptTokenCount": usage.input,
            "cachedContentTokenCount": usage.cached,
            "candidatesTokenCount": usage.output.saturating_sub(usage.reasoning),
            "thoughtsTokenCount": usage.reasoning,
            "totalTokenCount": usage.input.saturating_add(usage.output)});
    }
    data(&last)
}
