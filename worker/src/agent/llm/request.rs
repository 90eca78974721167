//! A request as the client library wants it: where to, what, and how.

use genai::adapter::AdapterKind;
use genai::chat::{CacheControl, ChatMessage, ChatOptions, ChatRequest, ReasoningEffort, Tool};
use genai::resolver::{AuthData, Endpoint};
use genai::{Headers, ModelIden, ServiceTarget};
use reqwest::Url;
use serde_json::{Map, Value, json};

use crate::config::native_spec::{Api, ProviderSpec};
use crate::domain::limits::{LLM_HEADERS_MAX, LLM_SILENCE_MAX};
use crate::domain::llm::Effort;

use super::LlmRequest;
use super::messages::Reader;
use super::{ollama, thinking};

/// What Anthropic calls the version of its format.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// The address of a page below a provider's base URL, which keeps its query.
pub(super) fn address(provider: &ProviderSpec, page: &[&str]) -> Result<Url, String> {
    let base = &provider.base_url;
    let mut url = Url::parse(base).map_err(|e| format!("base_url {base:?} is no address: {e}"))?;
    url.path_segments_mut()
        .map_err(|()| format!("base_url {base:?} is no address of a server"))?
        .pop_if_empty()
        .extend(page);
    Ok(url)
}

/// Headers of each request: who asks, and what agents.toml has in addition.
pub(super) fn headers(provider: &ProviderSpec, key: Option<&str>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    if provider.api == Api::Anthropic {
        let version = ("anthropic-version".to_owned(), ANTHROPIC_VERSION.to_owned());
        headers.push(version);
    }
    if let Some(key) = key {
        headers.push(match provider.api {
            Api::Openai | Api::OpenaiResponses | Api::Ollama => {
                ("authorization".to_owned(), format!("Bearer {key}"))
            }
            Api::Anthropic => ("x-api-key".to_owned(), key.to_owned()),
            Api::Gemini => ("x-goog-api-key".to_owned(), key.to_owned()),
        });
    }
    for (name, value) in &provider.headers {
        let name = name.to_ascii_lowercase();
        headers.retain(|(other, _)| *other != name);
        headers.push((name, value.clone()));
    }
    headers
}

/// The address of a request: all of it is said here, so that no name of a model leads elsewhere.
pub(super) fn url(request: &LlmRequest) -> Result<Url, String> {
    let provider = &request.provider;
    let in_path = format!("{}:streamGenerateContent", request.model);
    let page: &[&str] = match provider.api {
        Api::Openai => &["chat", "completions"],
        Api::OpenaiResponses => &["responses"],
        Api::Anthropic => &["messages"],
        Api::Gemini => &["models", &in_path],
        Api::Ollama => &["api", "chat"],
    };
    let mut url = address(provider, page)?;
    if provider.api == Api::Gemini {
        url.query_pairs_mut().append_pair("alt", "sse");
    }
    Ok(url)
}

/// Whom the library is to ask, with these headers beside its own.
pub(super) fn target(
    request: &LlmRequest,
    url: &Url,
    headers: Vec<(String, String)>,
) -> ServiceTarget {
    let provider = &request.provider;
    let kind = match provider.api {
        Api::Openai => AdapterKind::OpenAI,
        Api::OpenaiResponses => AdapterKind::OpenAIResp,
        Api::Anthropic => AdapterKind::Anthropic,
        Api::Gemini => AdapterKind::Gemini,
        Api::Ollama => AdapterKind::Ollama,
    };
    ServiceTarget {
        // The library looks at it, and asks the address of the line below.
        endpoint: Endpoint::from_owned(slashed(&provider.base_url)),
        auth: AuthData::RequestOverride {
            url: url.to_string(),
            headers: Headers::from(headers),
        },
        model: ModelIden::new(kind, shielded(&request.model)),
    }
}

fn slashed(base: &str) -> String {
    format!("{}/", base.trim_end_matches('/'))
}

/// A model's name that the library leaves alone: it takes what stands before `::` for a provider,
/// and an effort at the end for a wish.
fn shielded(model: &str) -> String {
    let last = model.rsplit_once('-').map(|(_, last)| last);
    match last.and_then(ReasoningEffort::from_keyword) {
        None => format!("dispatch::{model}"),
        // The body gets the name as it is, see `body`.
        Some(_) => format!("dispatch::{model}-"),
    }
}

/// What is asked.
pub(super) fn chat(request: &LlmRequest) -> ChatRequest {
    let api = request.provider.api;
    let model = carried_for(request);
    let reader = Reader { api, model: &model };
    let mut messages = reader.messages(&request.messages);
    let mut chat = ChatRequest::default();
    if !request.system.is_empty() {
        if api == Api::Anthropic {
            // A mark on the system prompt holds for the tools before it too.
            let system = ChatMessage::system(request.system.clone());
            messages.insert(0, system.with_options(CacheControl::Ephemeral));
        } else {
            chat = chat.with_system(request.system.clone());
        }
    }
    if !request.tools.is_empty() {
        let mut tools: Vec<Tool> = request
            .tools
            .iter()
            .map(|tool| {
                Tool::new(tool.name.clone())
                    .with_description(tool.description.clone())
                    .with_schema(tool.schema.clone())
            })
            .collect();
        if api == Api::Anthropic
            && request.system.is_empty()
            && let Some(last) = tools.pop()
        {
            tools.push(last.with_cache_control(CacheControl::Ephemeral));
        }
        chat = chat.with_tools(tools);
    }
    chat.append_messages(messages)
}

/// The model of a request, as what is carried for it names it.
pub(super) fn carried_for(request: &LlmRequest) -> String {
    format!("{}/{}", request.provider.name, request.model)
}

/// How it is asked.
pub(super) fn options(request: &LlmRequest) -> ChatOptions {
    let provider = &request.provider;
    let mut options = ChatOptions::default()
        .with_stream_header_timeout(LLM_HEADERS_MAX)
        .with_stream_read_timeout(LLM_SILENCE_MAX)
        .with_capture_reasoning_content(wants_reasoning(request))
        .with_extra_body(body(request));
    options.temperature = request.temperature;
    options.max_tokens = request.max_output_tokens;
    options.reasoning_effort = request.effort.map(|effort| effort_of(request, effort));
    let has_cache_key = matches!(provider.api, Api::Openai | Api::OpenaiResponses);
    if has_cache_key && !is_unwanted(provider, "prompt_cache_key") {
        options.prompt_cache_key = Some(request.cache_key.clone());
    }
    options
}

fn effort_of(request: &LlmRequest, effort: Effort) -> ReasoningEffort {
    let api = request.provider.api;
    let effort = match api {
        Api::Anthropic => thinking::fitting(&request.model, request.max_output_tokens, effort),
        Api::Openai | Api::OpenaiResponses | Api::Gemini | Api::Ollama => effort,
    };
    if let (Api::Gemini, Some(budget)) =
        (api, thinking::narrowed(request.max_output_tokens, effort))
        && !thinking::has_levels(&request.model)
    {
        return ReasoningEffort::Budget(budget);
    }
    match (effort, api) {
        // Without figures it thinks as long as it likes.
        (Effort::None, Api::Gemini) => ReasoningEffort::Budget(0),
        (Effort::None, Api::Openai | Api::OpenaiResponses | Api::Anthropic | Api::Ollama) => {
            ReasoningEffort::Zero
        }
        (Effort::Low, _) => ReasoningEffort::Low,
        (Effort::Medium, _) => ReasoningEffort::Medium,
        (Effort::High, _) => ReasoningEffort::High,
        (Effort::XHigh, _) => ReasoningEffort::XHigh,
        (Effort::Max, _) => ReasoningEffort::Max,
    }
}

/// Whether reasoning is asked for: a model that has none refuses the question in two formats.
fn wants_reasoning(request: &LlmRequest) -> bool {
    let thinks = request.effort != Some(Effort::None);
    match request.provider.api {
        Api::Gemini => thinks,
        Api::OpenaiResponses => {
            let old = ["gpt-3", "gpt-4", "chatgpt-4"];
            thinks && !old.iter().any(|name| request.model.starts_with(name))
        }
        Api::Openai | Api::Anthropic | Api::Ollama => true,
    }
}

/// Whether agents.toml takes a member out of the body, with a null.
fn is_unwanted(provider: &ProviderSpec, member: &str) -> bool {
    let extra = provider.extra_body.as_ref();
    extra.and_then(|extra| extra.get(member)) == Some(&Value::Null)
}

/// Members of the body that the library does not write (of Ollama's, all), and those of agents.toml, which hold.
pub(super) fn body(request: &LlmRequest) -> Value {
    let provider = &request.provider;
    let mut body = Map::new();
    match provider.api {
        Api::Openai => {
            body.insert("model".to_owned(), json!(request.model));
            // Figures are read from the frames; the library would do sums that can overflow.
            body.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        Api::OpenaiResponses | Api::Anthropic => {
            body.insert("model".to_owned(), json!(request.model));
        }
        Api::Gemini if is_about_generation(provider) => {
            body.insert("generationConfig".to_owned(), generation(request));
        }
        Api::Ollama => body = ollama::body(request),
        Api::Gemini => {}
    }
    for (name, value) in extra(provider) {
        merge(body.entry(name.clone()).or_insert(Value::Null), value);
    }
    let mine = ["prompt_cache_key", "stream_options"];
    body.retain(|name, value| !(value.is_null() && mine.contains(&name.as_str())));
    Value::Object(body)
}

fn is_about_generation(provider: &ProviderSpec) -> bool {
    extra(provider).any(|(name, _)| name == "generationConfig")
}

/// What the library writes into an object of Gemini's that agents.toml adds to: the library would
/// replace the object.
fn generation(request: &LlmRequest) -> Value {
    let mut generation = Map::new();
    let mut thinking = Map::new();
    if let Some(temperature) = request.temperature {
        generation.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(most) = request.max_output_tokens {
        generation.insert("maxOutputTokens".to_owned(), json!(most));
    }
    if wants_reasoning(request) {
        thinking.insert("includeThoughts".to_owned(), json!(true));
    }
    let effort = request
        .effort
        .and_then(|effort| thinking::gemini(&request.model, request.max_output_tokens, effort));
    thinking.extend(effort);
    if !thinking.is_empty() {
        generation.insert("thinkingConfig".to_owned(), Value::Object(thinking));
    }
    Value::Object(generation)
}

fn extra(provider: &ProviderSpec) -> impl Iterator<Item = (&String, &Value)> {
    let extra = provider.extra_body.as_ref().and_then(Value::as_object);
    extra.into_iter().flatten()
}

/// Objects member by member; all else as a whole.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => from.clone_into(into),
    }
}
