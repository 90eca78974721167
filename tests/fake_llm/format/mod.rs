//! The wire formats: what a request says, and how an answer is written.

mod anthropic;
mod gemini;
mod ollama;
mod openai;
mod responses;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::connection::Asked;

/// A wire format.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    Openai,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

/// Who said a piece of a request.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    User,
    Assistant,
    Tool,
}

/// A piece of a request.
pub(crate) struct Spoken {
    pub(crate) who: Who,
    /// Empty where it does not matter.
    pub(crate) text: String,
}

/// The body of an answer.
pub(crate) struct Frames {
    /// All up to the end of the text.
    pub(crate) text: Vec<String>,
    /// The calls.
    pub(crate) calls: Vec<String>,
    /// Why it ends, what it used, that it ends.
    pub(crate) end: Vec<String>,
}

impl Format {
    pub(crate) fn of_route(route: &str) -> Option<Self> {
        match route {
            "/v1/chat/completions" => Some(Self::Openai),
            "/v1/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Anthropic),
            "/api/chat" => Some(Self::Ollama),
            _ if route.starts_with("/v1beta/models/")
                && route.ends_with(":streamGenerateContent") =>
            {
                Some(Self::Gemini)
            }
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Responses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Ollama => "application/x-ndjson",
            Self::Openai | Self::Responses | Self::Anthropic | Self::Gemini => "text/event-stream",
        }
    }

    /// The model that was asked for.
    pub(crate) fn model(self, asked: &Asked) -> String {
        let in_path = asked.route().trim_start_matches("/v1beta/models/");
        match self {
            Self::Gemini => in_path
                .trim_end_matches(":streamGenerateContent")
                .to_owned(),
            Self::Openai | Self::Responses | Self::Anthropic | Self::Ollama => {
                asked.body["model"].as_str().unwrap_or_default().to_owned()
            }
        }
    }

    /// What was said so far.
    pub(crate) fn spoken(self, body: &Value) -> Vec<Spoken> {
        match self {
            Self::Openai | Self::Ollama | Self::Anthropic => messages(&body["messages"], "content"),
            Self::Responses => responses::spoken(&body["input"]),
            Self::Gemini => messages(&body["contents"], "parts"),
        }
    }

    pub(crate) fn frames(self, answer: &Answer) -> Frames {
        match self {
            Self::Openai => openai::frames(answer),
            Self::Responses => responses::frames(answer),
            Self::Anthropic => anthropic::frames(answer),
            Self::Gemini => gemini::frames(answer),
            Self::Ollama => ollama::frames(answer),
        }
    }

    /// The frame of an error within a stream.
    pub(crate) fn error_event(self, error: &Value) -> String {
        match self {
            Self::Openai | Self::Gemini => data(&json!({"error": error})),
            Self::Responses => responses::error(error),
            Self::Anthropic => event("error", &json!({"type": "error", "error": error})),
            Self::Ollama => format!("{}\n", json!({"error": error})),
        }
    }

    /// The body of an answer that is an error.
    pub(crate) fn error(self, status: u16, message: &str) -> Value {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        match self {
            Self::Openai | Self::Responses => {
                json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
            }
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Self::Gemini => {
                json!({"error": {"code": status, "message": message, "status": kind}})
            }
            Self::Ollama => json!({"error": message}),
        }
    }
}

/// The list of models at a path.
pub(crate) fn models(route: &str) -> Option<Value> {
    match route {
        "/v1/models" => Some(json!({"object": "list", "has_more": false, "data": [
            {"id": "fake-large", "object": "model", "type": "model", "display_name": "Fake Large"},
            {"id": "fake-small", "object": "model", "type": "model", "display_name": "Fake Small"},
        ]})),
        "/v1beta/models" => Some(json!({"models": [
            {"name": "models/fake-large", "supportedGenerationMethods": ["generateContent"]},
            {"name": "models/fake-small", "supportedGenerationMethods": ["generateContent"]},
        ]})),
        "/api/tags" => Some(json!({"models": [
            {"name": "fake-large", "model": "fake-large"},
            {"name": "fake-small", "model": "fake-small"},
        ]})),
        _ => None,
    }
}

/// Messages of the formats that have a list of them.
fn messages(list: &Value, content: &str) -> Vec<Spoken> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|message| {
        let who = match message["role"].as_str()? {
            "user" => Who::User,
            "assistant" | "model" => Who::Assistant,
            "tool" | "function" => Who::Tool,
            _ => return None,
        };
        Some(Spoken {
            who,
            text: text_of(&message[content]),
        })
    })
    .collect()
}

/// The text of a message's content: a string, or a list of blocks.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().filter_map(|block| block["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn event(name: &str, value: &Value) -> String {
    format!("event: {name}\ndata: {value}\n\n")
}
