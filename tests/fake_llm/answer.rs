//! An element of the script, as an answer that each format can write.

use serde_json::{Value, json};

/// Characters of a piece of text.
const PIECE: usize = 7;

/// What is answered.
pub(crate) struct Answer {
    pub(crate) k: usize,
    pub(crate) model: String,
    pub(crate) think: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: String,
    pub(crate) usage: Option<Usage>,
    /// Whether OpenAI Chat says `[DONE]`.
    pub(crate) done: bool,
}

/// A call of a tool.
pub(crate) struct Call {
    pub(crate) name: String,
    /// `None`: left out where the format allows it.
    pub(crate) id: Option<String>,
    /// Whether the script named the id: some formats have none of their own.
    pub(crate) id_given: bool,
    pub(crate) input: Value,
    /// The arguments as text: the input, or what the script has in its place.
    pub(crate) arguments: String,
}

/// Tokens; `input` and `output` are all there are.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) input: i64,
    pub(crate) cached: i64,
    pub(crate) cache_write: i64,
    pub(crate) output: i64,
    pub(crate) reasoning: i64,
}

impl Usage {
    /// As the ledger has it.
    pub(crate) fn json(self) -> Value {
        json!({"input": self.input, "cached": self.cached, "cache_write": self.cache_write,
            "output": self.output, "reasoning": self.reasoning,
            "total": self.input.saturating_add(self.output)})
    }
}

impl Answer {
    /// What an element says.
    pub(crate) fn of(element: &Value, k: usize, model: &str) -> Self {
        let word = |name: &str| element[name].as_str().unwrap_or_default().to_owned();
        let calls: Vec<Call> = match element["calls"].as_array() {
            Some(calls) => calls
                .iter()
                .enumerate()
                .map(|(i, c)| call(c, k, i))
                .collect(),
            None => Vec::new(),
        };
        let mut text = word("text");
        let says_nothing = ["text", "calls", "finish", "think"]
            .iter()
            .all(|name| element.get(name).is_none());
        if says_nothing {
            "ok".clone_into(&mut text);
        }
        let finish = match element["finish"].as_str() {
            Some(finish) => finish,
            None if calls.is_empty() => "stop",
            None => "tool_calls",
        };
        Self {
            k,
            model: model.to_owned(),
            think: word("think"),
            text,
            finish: finish.to_owned(),
            calls,
            usage: usage(element),
            done: element["done"].as_bool().unwrap_or(true),
        }
    }

    /// What a provider wants back with this answer's reasoning.
    pub(crate) fn signature(&self) -> String {
        format!("c2lnbmF0dXJl+{}/{}==", self.k, self.think.len())
    }
}

fn call(call: &Value, k: usize, index: usize) -> Call {
    let input = call.get("input").cloned().unwrap_or_else(|| json!({}));
    let raw = call["raw"].as_str();
    let id = match call.get("id") {
        Some(Value::Null) => None,
        Some(id) => Some(id.as_str().unwrap_or_default().to_owned()),
        None => Some(format!("call_{k}_{index}")),
    };
    Call {
        name: call["name"].as_str().unwrap_or_default().to_owned(),
        id,
        id_given: call.get("id").is_some(),
        arguments: raw.map_or_else(|| input.to_string(), str::to_owned),
        input: raw.map_or(input, |raw| json!(raw)),
    }
}

fn usage(element: &Value) -> Option<Usage> {
    let said = element.get("usage").unwrap_or(&Value::Bool(true));
    if said.is_null() {
        return None;
    }
    let figure = |name: &str, default: i64| match said.is_object() {
        true => said[name].as_i64().unwrap_or(0),
        false => default,
    };
    Some(Usage {
        input: figure("input", 100),
        cached: figure("cached", 64),
        cache_write: figure("cache_write", 0),
        output: figure("output", 20),
        reasoning: figure("reasoning", 7),
    })
}

/// A text in the pieces that it is streamed in.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(PIECE)
        .map(|c| c.iter().collect())
        .collect()
}
