//! OpenAI's Responses.

use serde_json::{Value, json};

use super::{Frames, Spoken, Who, event, text_of};
use crate::answer::{Answer, Usage, pieces};

/// What was said so far: an answer of the assistant is several items.
pub(crate) fn spoken(input: &Value) -> Vec<Spoken> {
    if let Value::String(text) = input {
        return vec![Spoken {
            who: Who::User,
            text: text.clone(),
        }];
    }
    let items = input.as_array().into_iter().flatten();
    items
        .filter_map(|item| {
            let who = match (item["role"].as_str(), item["type"].as_str()) {
                (Some("user"), _) => Who::User,
                (Some("assistant"), _)
                | (_, Some("function_call" | "reasoning" | "custom_tool_call")) => Who::Assistant,
                (_, Some("function_call_output" | "custom_tool_call_output")) => Who::Tool,
                _ => return None,
            };
            Some(Spoken {
                who,
                text: text_of(&item["content"]),
            })
        })
        .collect()
}

/// The error event: its members are the event's own.
pub(crate) fn error(error: &Value) -> String {
    let mut all = json!({"type": "error", "sequence_number": 9});
    for (name, value) in error.as_object().into_iter().flatten() {
        let name = if name == "type" { "error_type" } else { name };
        all[name] = value.clone();
    }
    event("error", &all)
}

fn named(mut value: Value, name: &str) -> String {
    value["type"] = json!(name);
    event(name, &value)
}

pub(crate) fn frames(answer: &Answer) -> Frames {
    let mut output = Vec::new();
    let response = |status: &str, output: &[Value]| {
        json!({"id": format!("resp_{}", answer.k), "object": "response", "status": status,
            "model": answer.model, "output": output, "error": null, "incomplete_details": null})
    };
    let opening = json!({"response": response("in_progress", &[])});
    let mut text = vec![named(opening, "response.created")];
    if !answer.think.is_empty() {
        text.extend(reasoning(answer, &mut output));
    }
    if !answer.text.is_empty() {
        text.extend(message(answer, &mut output));
    }
    let mut calls = Vec::new();
    for index in 0..answer.calls.len() {
        calls.extend(call(answer, index, &mut output));
    }
    let (name, status, reason) = match answer.finish.as_str() {
        "length" => (
            "response.incomplete",
            "incomplete",
            json!("max_output_tokens"),
        ),
        "content_filter" => ("response.incomplete", "incomplete", json!("content_filter")),
        _ => ("response.completed", "completed", Value::Null),
    };
    let mut last = response(status, &output);
    if !reason.is_null() {
        last["incomplete_details"] = json!({"reason": reason});
    }
    if let Some(usage) = answer.usage {
        last["usage"] = figures(usage);
    }
    let end = vec![named(json!({"response": last}), name)];
    Frames { text, calls, end }
}

fn reasoning(answer: &Answer, output: &mut Vec<Value>) -> Vec<String> {
    let at = output.len();
    let id = format!("rs_{}", answer.k);
    let item = json!({"id": id, "type": "reasoning", "summary": []});
    let added = json!({"output_index": at, "item": item});
    let mut frames = vec![named(added, "response.output_item.added")];
    for piece in pieces(&answer.think) {
        let delta = json!({"item_id": id, "output_index": at, "summary_index": 0, "delta": piece});
        frames.push(named(delta, "response.reasoning_summary_text.delta"));
    }
    let item = json!({"id": id, "type": "reasoning", "encrypted_content": answer.signature(),
        "summary": [{"type": "summary_text", "text": answer.think}]});
    let done = json!({"output_index": at, "item": item});
    frames.push(named(done, "response.output_item.done"));
    output.push(item);
    frames
}

fn message(answer: &Answer, output: &mut Vec<Value>) -> Vec<String> {
    let at = output.len();
    let id = format!("msg_{}", answer.k);
    let item = |content: Value| {
        json!({"id": id, "type": "message", "role": "assistant", "status": "completed",
            "content": content})
    };
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let place = json!({"item_id": id, "output_index": at, "content_index": 0});
    let added = json!({"output_index": at, "item": item(json!([]))});
    let mut opened = place.clone();
    opened["part"] = part("");
    let mut frames = vec![
        named(added, "response.output_item.added"),
        named(opened, "response.content_part.added"),
    ];
    for piece in pieces(&answer.text) {
        let mut delta = place.clone();
        delta["delta"] = json!(piece);
        frames.push(named(delta, "response.output_text.delta"));
    }
    let mut whole = place;
    whole["text"] = json!(answer.text);
    frames.push(named(whole, "response.output_text.done"));
    let item = item(json!([part(&answer.text)]));
    let done = json!({"output_index": at, "item": item});
    frames.push(named(done, "response.output_item.done"));
    output.push(item);
    frames
}

fn call(answer: &Answer, index: usize, output: &mut Vec<Value>) -> Vec<String> {
    let at = output.len();
    let call = &answer.calls[index];
    let id = format!("fc_{}_{index}", answer.k);
    let item = |arguments: &str| {
        let mut item = json!({"id": id, "type": "function_call", "name": call.name,
            "arguments": arguments});
        if let Some(call_id) = &call.id {
            item["call_id"] = json!(call_id);
        }
        item
    };
    let added = json!({"output_index": at, "item": item("")});
    let mut frames = vec![named(added, "response.output_item.added")];
    for piece in pieces(&call.arguments) {
        let delta = json!({"item_id": id, "output_index": at, "delta": piece});
        frames.push(named(delta, "response.function_call_arguments.delta"));
    }
    let whole = json!({"item_id": id, "output_index": at, "arguments": call.arguments});
    frames.push(named(whole, "response.function_call_arguments.done"));
    let item = item(&call.arguments);
    let done = json!({"output_index": at, "item": item});
    frames.push(named(done, "response.output_item.done"));
    output.push(item);
    frames
}

fn figures(usage: Usage) -> Value {
    let mut input = json!({"cached_tokens": usage.cached});
    if usage.cache_write != 0 {
        input["cache_write_tokens"] = json!(usage.cache_write);
    }
    json!({"input_tokens": usage.input, "input_tokens_details": input,
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input.saturating_add(usage.output)})
}
