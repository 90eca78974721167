//! Messages of a conversation as the client library wants them, and what it wants carried.

use genai::chat::{
    CacheControl, ChatMessage, ContentPart, CustomPart, MessageContent, ToolCall as LibraryCall,
    ToolResponse,
};
use serde_json::{Value, json};

use crate::config::native_spec::Api;
use crate::domain::llm::{Message, Part, Role, ToolCall, ToolResult};

use super::calls;

/// What stands before the output of a tool that failed, where the format has no other way.
const FAILED: &str = "Error: ";

/// Whom messages are for.
pub(super) struct Reader<'a> {
    /// What it speaks.
    pub(super) api: Api,
    /// The model, as `provider/model`.
    pub(super) model: &'a str,
}

impl Reader<'_> {
    /// All messages; the last one marked, so that what is before it is cached.
    pub(super) fn messages(&self, messages: &[Message]) -> Vec<ChatMessage> {
        let each = messages.iter().flat_map(|message| self.message(message));
        let mut all: Vec<ChatMessage> = each.collect();
        if self.api == Api::Anthropic
            && let Some(last) = all.pop()
        {
            all.push(last.with_options(CacheControl::Ephemeral));
        }
        all
    }

    /// One message; a library's one is for one role, and there may be nothing to say.
    fn message(&self, message: &Message) -> Vec<ChatMessage> {
        match message.role {
            Role::User => self.said(message, ChatMessage::user),
            Role::Assistant => self.said(message, ChatMessage::assistant),
            Role::Tool => {
                let mut all = self.results(message);
                all.extend(self.said(message, ChatMessage::user));
                all
            }
        }
    }

    fn said(
        &self,
        message: &Message,
        speak: fn(MessageContent) -> ChatMessage,
    ) -> Vec<ChatMessage> {
        let parts = self.parts(message);
        let has_words = parts
            .iter()
            .any(|part| matches!(part, ContentPart::Text(_) | ContentPart::ToolCall(_)));
        // Reasoning alone is nothing that a provider takes for an answer.
        match has_words {
            true => vec![speak(MessageContent::from_parts(parts))],
            false => Vec::new(),
        }
    }

    fn parts(&self, message: &Message) -> Vec<ContentPart> {
        let is_ours = message
            .parts
            .iter()
            .any(|part| self.is_carried_for_us(part));
        let mut parts = Vec::new();
        for (at, part) in message.parts.iter().enumerate() {
            match part {
                Part::Text { text } if text.is_empty() => {}
                Part::Text { text } => parts.push(ContentPart::Text(text.clone())),
                Part::Carried { data, .. } if self.is_carried_for_us(part) => {
                    // What an older worker stored in another shape is left out.
                    parts.extend(serde_json::from_value::<ContentPart>(data.clone()).ok());
                }
                Part::ToolCall(call) => {
                    let signatures = match (self.api, is_ours) {
                        (Api::Gemini, true) => Some(call.signatures.clone()),
                        _ => None,
                    };
                    parts.push(ContentPart::ToolCall(self.call(call, at, signatures)));
                }
                Part::Thinking { .. } | Part::Carried { .. } | Part::ToolResult(_) => {}
            }
        }
        parts
    }

    fn is_carried_for_us(&self, part: &Part) -> bool {
        matches!(part, Part::Carried { model, .. } if model == self.model)
    }

    fn call(&self, call: &ToolCall, at: usize, signatures: Option<Vec<String>>) -> LibraryCall {
        LibraryCall {
            call_id: self.call_id(&call.id, &call.name, at),
            fn_name: call.name.clone(),
            fn_arguments: object_of(&call.input),
            thought_signatures: signatures.filter(|all| !all.is_empty()),
        }
    }

    /// The id of a call as the provider takes it.
    fn call_id(&self, id: &str, name: &str, at: usize) -> String {
        match self.api {
            // The library's own way to say that the provider gave none.
            Api::Gemini if calls::is_own_id(id) => format!("call#{name}#{at}"),
            // Another provider's id may have characters that this one refuses.
            Api::Anthropic => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                id.chars().map(|c| if plain(c) { c } else { '_' }).collect()
            }
            Api::Openai | Api::OpenaiResponses | Api::Gemini | Api::Ollama => id.to_owned(),
        }
    }

    fn results(&self, message: &Message) -> Vec<ChatMessage> {
        let results = message.tool_results().enumerate();
        let parts: Vec<ContentPart> = results.map(|(at, one)| self.result(one, at)).collect();
        match parts.is_empty() {
            true => Vec::new(),
            false => vec![ChatMessage::tool(MessageContent::from_parts(parts))],
        }
    }

    fn result(&self, result: &ToolResult, at: usize) -> ContentPart {
        let id = self.call_id(&result.call_id, &result.name, at);
        if self.api == Api::Anthropic && result.is_error {
            let data = json!({"type": "tool_result", "tool_use_id": id, "is_error": true,
                "content": result.output});
            return ContentPart::Custom(CustomPart {
                model_iden: None,
                data,
            });
        }
        let response = ToolResponse::new(id, output_of(result)).with_fn_name(result.name.clone());
        ContentPart::ToolResponse(response)
    }
}

/// A call's input as providers take it back: an object.
pub(super) fn object_of(input: &Value) -> Value {
    match input {
        Value::Object(_) => input.clone(),
        Value::String(raw) => json!({"invalid_json": raw}),
        other => json!({"input": other}),
    }
}

/// A tool's output where a format has no mark for failures.
pub(super) fn output_of(result: &ToolResult) -> String {
    match result.is_error && !result.output.starts_with(FAILED) {
        true => format!("{FAILED}{}", result.output),
        false => result.output.clone(),
    }
}

/// What is sent back to a model as it came; `None`: nothing that is.
pub(super) fn carried(model: &str, part: ContentPart) -> Option<Part> {
    let part = match part {
        ContentPart::ThoughtSignature(_) | ContentPart::ReasoningContent(_) => part,
        ContentPart::Custom(custom) => ContentPart::Custom(CustomPart {
            // The model stands beside it, and the library cannot read its own from a value.
            model_iden: None,
            data: custom.data,
        }),
        ContentPart::Text(_)
        | ContentPart::Binary(_)
        | ContentPart::ToolCall(_)
        | ContentPart::ToolResponse(_) => return None,
    };
    Some(Part::Carried {
        model: model.to_owned(),
        data: serde_json::to_value(part).ok()?,
    })
}
