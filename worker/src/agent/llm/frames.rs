//! What a provider's own frames say: figures, calls, why it ended. The client library reduces them
//! to less than this project stores.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use genai::chat::{ChatFrameSink, FrameCtx, RawFrameRef};
use serde_json::{Map, Value};

use crate::config::native_spec::Api;
use crate::domain::limits::LLM_FINISH_CHARS;
use crate::domain::llm::FinishReason;

use super::calls::{Calls, Fragment, head};

/// What the frames of one answer said so far.
#[derive(Debug)]
pub(super) struct Frames {
    api: Api,
    /// The calls in it.
    pub(super) calls: Calls,
    /// The model that the provider says it is.
    pub(super) model: Option<String>,
    /// Its figures, as it said them.
    pub(super) usage: Map<String, Value>,
    /// An error, as it said it.
    pub(super) error: Option<Value>,
    /// Why it will not answer.
    pub(super) blocked: Option<String>,
    /// Whether the answer came to its end.
    pub(super) is_whole: bool,
    /// Whether it wants its reasoning back as text.
    pub(super) wants_reasoning: bool,
    /// Signatures that are of no call.
    pub(super) signatures: Vec<String>,
    /// Bytes so far.
    pub(super) bytes: usize,
    finish: Option<String>,
    all: u64,
    json: u64,
}

/// The frames of an answer, shared with the client library, which shows them as they come.
#[derive(Clone)]
pub(super) struct Tap(Arc<Mutex<Frames>>);

impl Tap {
    /// The frames of an answer to a conversation that has these ids of calls.
    pub(super) fn new(api: Api, taken: HashSet<String>) -> Self {
        Self(Arc::new(Mutex::new(Frames {
            api,
            calls: Calls::after(taken),
            model: None,
            usage: Map::new(),
            error: None,
            blocked: None,
            is_whole: false,
            wants_reasoning: false,
            signatures: Vec::new(),
            bytes: 0,
            finish: None,
            all: 0,
            json: 0,
        })))
    }

    /// What they said so far.
    pub(super) fn read(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChatFrameSink for Tap {
    fn on_frame(&self, _ctx: &FrameCtx, frame: RawFrameRef<'_>) {
        self.read().frame(frame.data);
    }
}

impl Frames {
    /// A frame came.
    pub(super) fn frame(&mut self, data: &str) {
        self.bytes = self.bytes.saturating_add(data.len());
        self.all += 1;
        if data == "[DONE]" {
            self.json += 1;
            self.is_whole = true;
            self.calls.finish_all();
            return;
        }
        let Ok(frame) = serde_json::from_str::<Value>(data) else {
            return;
        };
        self.json += 1;
        match self.api {
            Api::Openai => self.openai(&frame),
            Api::OpenaiResponses => self.responses(&frame),
            Api::Anthropic => self.anthropic(&frame),
            Api::Gemini => self.gemini(&frame),
            Api::Ollama => self.ollama(&frame),
        }
        if self.is_whole {
            self.calls.finish_all();
        }
    }

    /// Whether all that came was something else than this format.
    pub(super) fn is_garbage(&self) -> bool {
        self.all > 0 && self.json == 0
    }

    /// Why the answer ended.
    pub(super) fn reason(&self, has_calls: bool) -> FinishReason {
        let said = self.finish.as_deref().unwrap_or_default();
        match (said, self.api) {
            // Some servers say "stop" after calls too.
            ("stop" | "STOP" | "completed" | "end_turn" | "stop_sequence" | "", _) => {
                if has_calls {
                    FinishReason::ToolCalls
                } else {
                    FinishReason::Stop
                }
            }
            ("tool_calls" | "function_call" | "tool_use", _) => FinishReason::ToolCalls,
            ("length" | "max_output_tokens" | "max_tokens" | "MAX_TOKENS", _)
            | ("model_context_window_exceeded", Api::Anthropic) => FinishReason::Length,
            ("content_filter" | "refusal", _)
            | (
                "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE",
                Api::Gemini,
            ) => FinishReason::ContentFilter,
            (other, _) => FinishReason::Other(other.to_owned()),
        }
    }

    fn openai(&mut self, frame: &Value) {
        self.model_is(&frame["model"]);
        self.error_is(&frame["error"]);
        self.figures_are(&frame["usage"]);
        // One server has them elsewhere.
        self.figures_are(&frame["x_groq"]["usage"]);
        let choice = &frame["choices"][0];
        let delta = &choice["delta"];
        if delta["reasoning_content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            self.wants_reasoning = true;
        }
        for call in list(&delta["tool_calls"]) {
            let arguments = &call["function"]["arguments"];
            let object = arguments.is_object().then(|| arguments.to_string());
            self.calls.fragment(&Fragment {
                at: call["index"].as_u64(),
                id: text(&call["id"]),
                name: text(&call["function"]["name"]),
                arguments: object.as_deref().unwrap_or_else(|| text(arguments)),
            });
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_is(reason);
        }
    }

    fn responses(&mut self, frame: &Value) {
        let item = &frame["item"];
        let at = frame["output_index"].as_u64();
        let is_call = item["type"] == "function_call";
        match text(&frame["type"]) {
            "response.created" => self.model_is(&frame["response"]["model"]),
            "response.output_item.added" if is_call => self.responses_call(at, item),
            "response.function_call_arguments.delta" => {
                if let Some(at) = at.filter(|at| self.calls.has(*at)) {
                    self.calls.fragment(&Fragment {
                        at: Some(at),
                        arguments: text(&frame["delta"]),
                        ..Fragment::default()
                    });
                }
            }
            "response.output_item.done" if is_call => {
                let at = at.unwrap_or(0);
                if self.calls.has(at) {
                    self.calls.replace(at, text(&item["arguments"]));
                } else {
                    self.responses_call(Some(at), item);
                }
                self.calls.finish(at);
            }
            "response.completed" | "response.incomplete" => {
                let response = &frame["response"];
                self.model_is(&response["model"]);
                self.figures_are(&response["usage"]);
                let reason = response["incomplete_details"]["reason"].as_str();
                let reason = reason.or_else(|| response["status"].as_str());
                self.finish_is(reason.unwrap_or_default());
            }
            "response.failed" => {
                self.figures_are(&frame["response"]["usage"]);
                self.error_is(&frame["response"]["error"]);
            }
            "error" => self.error_is(frame),
            _ => {}
        }
    }

    fn responses_call(&mut self, at: Option<u64>, item: &Value) {
        self.calls.fragment(&Fragment {
            at,
            id: text(&item["call_id"]),
            name: text(&item["name"]),
            arguments: text(&item["arguments"]),
        });
    }

    fn anthropic(&mut self, frame: &Value) {
        let at = frame["index"].as_u64();
        match text(&frame["type"]) {
            "message_start" => {
                self.model_is(&frame["message"]["model"]);
                self.figures_are(&frame["message"]["usage"]);
            }
            "content_block_start" if frame["content_block"]["type"] == "tool_use" => {
                let block = &frame["content_block"];
                let input = block["input"].as_object().filter(|input| !input.is_empty());
                let input = input.map(|_| block["input"].to_string());
                self.calls.fragment(&Fragment {
                    at,
                    id: text(&block["id"]),
                    name: text(&block["name"]),
                    arguments: input.as_deref().unwrap_or_default(),
                });
            }
            "content_block_delta" if frame["delta"]["type"] == "input_json_delta" => {
                if let Some(at) = at.filter(|at| self.calls.has(*at)) {
                    self.calls.fragment(&Fragment {
                        at: Some(at),
                        arguments: text(&frame["delta"]["partial_json"]),
                        ..Fragment::default()
                    });
                }
            }
            "content_block_stop" => self.calls.finish(at.unwrap_or(0)),
            "message_delta" => {
                self.figures_are(&frame["usage"]);
                if let Some(reason) = frame["delta"]["stop_reason"].as_str() {
                    self.finish = Some(head(reason, LLM_FINISH_CHARS).to_owned());
                }
            }
            "message_stop" => self.is_whole = true,
            "error" => self.error_is(&frame["error"]),
            _ => {}
        }
    }

    fn gemini(&mut self, frame: &Value) {
        self.model_is(&frame["modelVersion"]);
        self.error_is(&frame["error"]);
        self.figures_are(&frame["usageMetadata"]);
        if let Some(reason) = frame["promptFeedback"]["blockReason"].as_str() {
            self.blocked = Some(reason.to_owned());
        }
        let candidate = &frame["candidates"][0];
        for part in list(&candidate["content"]["parts"]) {
            let signature = part["thoughtSignature"].as_str().map(str::to_owned);
            match part.get("functionCall") {
                Some(call) => self.calls.whole(
                    text(&call["id"]),
                    text(&call["name"]),
                    call["args"].clone(),
                    signature.into_iter().collect(),
                ),
                None => self.signatures.extend(signature),
            }
        }
        if let Some(reason) = candidate["finishReason"].as_str() {
            self.finish_is(reason);
        }
    }

    fn ollama(&mut self, frame: &Value) {
        self.model_is(&frame["model"]);
        self.error_is(&frame["error"]);
        for call in list(&frame["message"]["tool_calls"]) {
            let function = &call["function"];
            let id = text(&call["id"]);
            let input = function["arguments"].clone();
            self.calls
                .whole(id, text(&function["name"]), input, Vec::new());
        }
        if frame["done"] == true {
            let names = [
                "prompt_eval_count",
                "prompt_eval_cached_count",
                "eval_count",
            ];
            for name in names {
                if let Some(figure) = frame.get(name) {
                    self.usage.insert(name.to_owned(), figure.clone());
                }
            }
            self.finish_is(text(&frame["done_reason"]));
        }
    }

    fn model_is(&mut self, said: &Value) {
        if let Some(model) = said.as_str().filter(|model| !model.is_empty()) {
            self.model = Some(model.to_owned());
        }
    }

    /// Later figures stand for earlier ones.
    fn figures_are(&mut self, said: &Value) {
        for (name, figure) in said.as_object().into_iter().flatten() {
            if !figure.is_null() {
                self.usage.insert(name.clone(), figure.clone());
            }
        }
    }

    fn error_is(&mut self, said: &Value) {
        if !said.is_null() && self.error.is_none() {
            self.error = Some(said.clone());
        }
    }

    fn finish_is(&mut self, reason: &str) {
        self.finish = Some(head(reason, LLM_FINISH_CHARS).to_owned());
        self.is_whole = true;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_why_an_answer_ended_is_bounded() {
        let word = "w".repeat(1_000);
        let openai = format!("{{\"choices\":[{{\"finish_reason\":\"{word}\"}}]}}");
        let anthropic =
            format!("{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{word}\"}}}}");
        for (api, frame) in [(Api::Openai, openai), (Api::Anthropic, anthropic)] {
            let tap = Tap::new(api, HashSet::new());
            tap.read().frame(&frame);
            let said = FinishReason::Other("w".repeat(LLM_FINISH_CHARS));
            assert_eq!(tap.read().reason(false), said);
        }
    }
}
