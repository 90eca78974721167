//! OpenAI's Chat Completions.

use serde_json::{Value, json};

use super::{Frames, data};
use crate::answer::{Answer, Usage, pieces};

pub(crate) fn frames(answer: &Answer) -> Frames {
    let chunk = |delta: Value, finish: Value| {
        data(
            &json!({"id": format!("chatcmpl-{}", answer.k), "object": "chat.completion.chunk",
            "created": 1, "model": answer.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}),
        )
    };
    let mut text = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    for piece in pieces(&answer.think) {
        text.push(chunk(json!({"reasoning_content": piece}), Value::Null));
    }
    for piece in pieces(&answer.text) {
        text.push(chunk(json!({"content": piece}), Value::Null));
    }
    let mut calls = Vec::new();
    for (index, call) in answer.calls.iter().enumerate() {
        let mut first = json!({"index": index, "type": "function",
            "function": {"name": call.name, "arguments": ""}});
        if let Some(id) = &call.id {
            first["id"] = json!(id);
        }
        calls.push(chunk(json!({"tool_calls": [first]}), Value::Null));
        for piece in pieces(&call.arguments) {
            let delta = json!({"index": index, "function": {"arguments": piece}});
            calls.push(chunk(json!({"tool_calls": [delta]}), Value::Null));
        }
    }
    let mut end = vec![chunk(json!({}), json!(answer.finish))];
    if let Some(usage) = answer.usage {
        end.push(data(
            &json!({"id": format!("chatcmpl-{}", answer.k), "created": 1,
            "object": "chat.completion.chunk", "model": answer.model, "choices": [],
            "usage": figures(usage)}),
        ));
    }
    if answer.done {
        end.push("data: [DONE]\n\n".to_owned());
    }
    Frames { text, calls, end }
}

fn figures(usage: Usage) -> Value {
    let mut prompt = json!({"cached_tokens": usage.cached, "audio_tokens": 0});
    if usage.cache_write != 0 {
        prompt["cache_write_tokens"] = json!(usage.cache_write);
    }
    json!({"prompt_tokens": usage.input, "completion_tokens": usage.output,
        "total_tokens": usage.input.saturating_add(usage.output),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0}})
}
