//! The client of LLM providers, over the wire, against a scripted one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::agent::llm::GenaiLlm;
use dispatch_worker::agent::llm::{Llm, LlmEnd, LlmError, LlmEvent, LlmFault, LlmRequest};
use dispatch_worker::config::native_spec::{Api, ProviderSpec};
use dispatch_worker::domain::llm::{
    Effort, FinishReason, Message, Part, Role, ToolCall, ToolDefinition, ToolResult,
};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::llm::{FakeLlm, script};

/// Longest wait for what takes no time.
const PATIENCE: Duration = Duration::from_secs(30);
const KEY: &str = "sk-secret-of-the-test";
const APIS: [Api; 5] = [
    Api::Openai,
    Api::OpenaiResponses,
    Api::Anthropic,
    Api::Gemini,
    Api::Ollama,
];

fn provider(fake: &FakeLlm, api: Api) -> ProviderSpec {
    ProviderSpec {
        name: "fake".to_owned(),
        api,
        base_url: fake.base_url(api),
        api_key_env: None,
        api_key_file: None,
        headers: BTreeMap::new(),
        extra_body: None,
        max_concurrent: None,
        enabled: true,
        default_model: None,
        models: BTreeMap::new(),
    }
}

/// A key's file, and a provider that reads it.
fn with_key(fake: &FakeLlm, api: Api) -> (tempfile::NamedTempFile, ProviderSpec) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{KEY}\n")).unwrap();
    let mut provider = provider(fake, api);
    provider.api_key_file = Some(file.path().to_owned());
    (file, provider)
}

fn request(provider: ProviderSpec, messages: Vec<Message>) -> LlmRequest {
    LlmRequest {
        provider: Arc::new(provider),
        model: "fake-large".to_owned(),
        system: "Be brief.".to_owned(),
        messages,
        tools: Arc::from([]),
        effort: None,
        max_output_tokens: None,
        temperature: None,
        cache_key: "conversation-1".to_owned(),
    }
}

fn says(elements: Value) -> Vec<Message> {
    vec![Message::user(format!("Hello.\n{}", script(&elements)))]
}

fn read_tool() -> ToolDefinition {
    ToolDefinition {
        name: "read".to_owned(),
        description: "Reads a file.".to_owned(),
        schema: json!({"type": "object", "properties": {"path": {"type": "string"}}}),
    }
}

/// Events up to the end, and what the end was.
async fn ask(request: LlmRequest) -> (Vec<LlmEvent>, Result<LlmEnd, LlmError>) {
    let llm = GenaiLlm::new().unwrap();
    let mut stream = llm.stream(request);
    let mut events = Vec::new();
    let mut end = None;
    let all = async {
        while let Some(item) = stream.next().await {
            assert!(end.is_none(), "nothing follows the end: {item:?}");
            match item {
                Ok(LlmEvent::End(it)) => end = Some(Ok(it)),
                Ok(LlmEvent::Alive) => {}
                Ok(event) => events.push(event),
                Err(error) => end = Some(Err(error)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    (events, end.expect("an end or an error"))
}

async fn answer(request: LlmRequest) -> LlmEnd {
    let (_, end) = ask(request).await;
    end.unwrap()
}

async fn failure(request: LlmRequest) -> LlmError {
    let (events, end) = ask(request).await;
    match end {
        Err(error) => error,
        Ok(end) => panic!("no error: {events:?} {end:?}"),
    }
}

fn texts(events: &[LlmEvent]) -> (String, String, Vec<ToolCall>) {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for event in events {
        match event {
            LlmEvent::Text(piece) => text.push_str(piece),
            LlmEvent::Thinking(piece) => thinking.push_str(piece),
            LlmEvent::ToolCall(call) => calls.push(call.clone()),
            LlmEvent::Alive | LlmEvent::End(_) => {}
        }
    }
    (text, thinking, calls)
}

#[tokio::test]
async fn what_is_written_is_what_is_sent_byte_by_byte_and_asks_nobody() {
    let fake = FakeLlm::start();
    for api in APIS {
        let (_file, provider) = with_key(&fake, api);
        let history = vec![
            Message::user("H\u{e9}llo \u{1f980} \"quoted\"\n\tand more".to_owned()),
            Message {
                role: Role::Assistant,
                parts: vec![Part::Text {
                    text: "Go on.".to_owned(),
                }],
            },
            Message::user("Yes.".to_owned()),
        ];
        let asked = LlmRequest {
            tools: Arc::from([read_tool()]),
            effort: Some(Effort::Low),
            max_output_tokens: Some(9_000),
            temperature: Some(0.5),
            ..request(provider, history)
        };
        let before = fake.ledger().len();
        let written = GenaiLlm::new().unwrap().written(asked.clone()).await;
        let written = String::from_utf8(written.unwrap()).unwrap();
        assert_eq!(fake.ledger().len(), before, "{api:?}: a provider was asked");
        answer(asked).await;
        let ledger = fake.ledger();
        assert_eq!(ledger[before]["sent"], written.as_str(), "{api:?}");
        assert!(
            written.contains("H\u{e9}llo") && !written.contains(KEY),
            "{api:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_comes_whole_in_every_format_and_in_any_fragments() {
    let fake = FakeLlm::start();
    for api in APIS {
        for fragment in [1, 5, 100_000] {
            let element = json!({"think": "Hm, na\u{ef}ve\u{2026}", "text": "H\u{e9}llo \u{1f980}\u{1f980} w\u{f6}rld",
                "calls": [{"name": "read", "input": {"path": "\u{e4}\u{1f980}.txt"}, "id": format!("c{fragment}")},
                          {"name": "read", "input": {}}], "fragment": fragment});
            let (events, end) = ask(request(provider(&fake, api), says(json!([element])))).await;
            let end = end.unwrap();
            let (text, thinking, calls) = texts(&events);
            assert_eq!(text, "H\u{e9}llo \u{1f980}\u{1f980} w\u{f6}rld", "{api:?}");
            assert_eq!(thinking, "Hm, na\u{ef}ve\u{2026}", "{api:?}");
            assert_eq!(end.message.text(), text, "{api:?}");
            let kept: Vec<ToolCall> = end.message.calls().cloned().collect();
            assert_eq!(kept, calls, "{api:?}: events and the end agree, ids too");
            assert_eq!(calls[0].id, format!("c{fragment}"), "{api:?}");
            assert_eq!(
                calls[0].input,
                json!({"path": "\u{e4}\u{1f980}.txt"}),
                "{api:?}"
            );
            assert_eq!((calls.len(), &calls[1].input), (2, &json!({})), "{api:?}");
            assert_ne!(calls[0].id, calls[1].id, "{api:?}");
            assert_eq!(end.reason, FinishReason::ToolCalls, "{api:?}");
            assert_eq!(end.model.as_deref(), Some("fake-large"), "{api:?}");
        }
    }
}

#[tokio::test]
async fn figures_add_up_to_what_the_provider_says() {
    let fake = FakeLlm::start();
    for api in APIS {
        let usages = [
            Value::Null,
            json!({"input": 1000, "cached": 600, "cache_write": 0, "output": 50, "reasoning": 30}),
            json!({"input": 7, "cached": 0, "cache_write": 0, "output": 0, "reasoning": 0}),
        ];
        for usage in usages {
            let mut element = json!({"text": "ok"});
            if !usage.is_null() {
                element["usage"] = usage;
            }
            let end = answer(request(provider(&fake, api), says(json!([element])))).await;
            let said = fake.ledger().pop().unwrap()["usage"].clone();
            let tokens = end.usage.unwrap().tokens;
            let total = said["total"].as_i64();
            assert_eq!(tokens.total(), total, "{api:?} {said} {tokens:?}");
            let cached = said["cached"].as_i64().unwrap();
            assert_eq!(tokens.cache_read, Some(cached), "{api:?}");
            let fresh = said["input"].as_i64().unwrap() - cached;
            assert_eq!(tokens.input, Some(fresh), "{api:?}");
            let thinks = !matches!(api, Api::Anthropic | Api::Ollama);
            let reasoning = said["reasoning"].as_i64().filter(|_| thinks);
            assert_eq!(tokens.reasoning, reasoning, "{api:?}: unknown is not zero");
        }
        let none = says(json!([{"text": "ok", "usage": null}]));
        let end = answer(request(provider(&fake, api), none)).await;
        assert_eq!(end.usage, None, "{api:?}");
    }
    let write =
        json!({"input": 900, "cached": 100, "cache_write": 300, "output": 5, "reasoning": 0});
    for api in [Api::Anthropic, Api::Openai, Api::OpenaiResponses] {
        let element = json!([{"text": "ok", "usage": write}]);
        let tokens = answer(request(provider(&fake, api), says(element))).await;
        let tokens = tokens.usage.unwrap().tokens;
        assert_eq!(
            (tokens.input, tokens.cache_write),
            (Some(500), Some(300)),
            "{api:?}"
        );
        assert_eq!(tokens.total(), Some(905), "{api:?}");
    }
}

#[tokio::test]
async fn impossible_figures_are_unknown_and_end_nothing() {
    let fake = FakeLlm::start();
    for api in APIS {
        for figure in [-5, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let usage = json!({"input": figure, "cached": figure, "cache_write": 0,
                "output": figure, "reasoning": 1});
            let element = json!([{"text": "ok", "usage": usage}]);
            // In a test's build the client library may refuse such sums; a worker goes on.
            match ask(request(provider(&fake, api), says(element))).await.1 {
                Ok(end) => {
                    let tokens = end.usage.map(|usage| usage.tokens).unwrap_or_default();
                    let known = [tokens.input, tokens.output, tokens.cache_read];
                    assert!(
                        known.iter().flatten().all(|n| *n >= 0),
                        "{api:?} {tokens:?}"
                    );
                }
                Err(error) => assert_eq!(error.fault, LlmFault::Garbage, "{api:?} {figure}"),
            }
        }
    }
}

#[tokio::test]
async fn a_models_name_reaches_the_wire_as_it_is() {
    let fake = FakeLlm::start();
    let names = [
        "gpt-5-high",
        "x-high",
        "foo::bar",
        "a/b",
        "claude-sonnet-4-5-low",
        "gemini-2.5-pro",
        "llama3:8b",
        "m-none",
        "deepseek-r1-zero",
        "anthropic::x-max",
    ];
    for api in APIS {
        for name in names {
            let mut request = request(provider(&fake, api), says(json!([])));
            request.model = name.to_owned();
            answer(request).await;
            let entry = fake.ledger().pop().unwrap();
            let (body, path) = (&entry["body"], entry["path"].as_str().unwrap());
            if api == Api::Gemini {
                let encoded = name.replace('/', "%2F");
                let wanted = format!("/v1beta/models/{encoded}:streamGenerateContent?alt=sse");
                assert_eq!(path, wanted);
            } else {
                assert_eq!(body["model"], name, "{api:?}");
            }
            for member in ["reasoning_effort", "thinking", "output_config", "think"] {
                assert!(body.get(member).is_none(), "{api:?} {name}: {body}");
            }
            assert!(
                body["reasoning"].get("effort").is_none(),
                "{api:?} {name}: {body}"
            );
            let config = &body["generationConfig"]["thinkingConfig"];
            assert!(
                config.get("thinkingBudget").is_none(),
                "{api:?} {name}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn options_reach_the_wire() {
    let fake = FakeLlm::start();
    for api in APIS {
        let (_file, mut spec) = with_key(&fake, api);
        spec.base_url = spec.base_url.trim_end_matches('/').to_owned();
        spec.headers = BTreeMap::from([("X-Team".to_owned(), "red".to_owned())]);
        spec.extra_body = Some(json!({"custom": {"a": 1}, "generationConfig": {"topK": 3},
            "options": {"num_ctx": 8192}}));
        let mut request = request(spec, says(json!([])));
        request.tools = Arc::from([read_tool()]);
        request.max_output_tokens = Some(1234);
        request.temperature = Some(0.5);
        answer(request).await;
        let entry = fake.ledger().pop().unwrap();
        let (body, headers) = (&entry["body"], &entry["headers"]);
        assert_eq!(headers["x-team"], "red", "{api:?}");
        assert!(
            headers["user-agent"]
                .as_str()
                .unwrap()
                .starts_with("dispatch/")
        );
        assert_eq!(body["custom"], json!({"a": 1}), "{api:?} {body}");
        let (key, most, temperature, tool, system) = match api {
            Api::Openai => (
                &headers["authorization"],
                &body["max_tokens"],
                &body["temperature"],
                &body["tools"][0]["function"]["name"],
                &body["messages"][0]["content"],
            ),
            Api::OpenaiResponses => (
                &headers["authorization"],
                &body["max_output_tokens"],
                &body["temperature"],
                &body["tools"][0]["name"],
                &body["instructions"],
            ),
            Api::Anthropic => (
                &headers["x-api-key"],
                &body["max_tokens"],
                &body["temperature"],
                &body["tools"][0]["name"],
                &body["system"][0]["text"],
            ),
            Api::Gemini => (
                &headers["x-goog-api-key"],
                &body["generationConfig"]["maxOutputTokens"],
                &body["generationConfig"]["temperature"],
                &body["tools"][0]["functionDeclarations"][0]["name"],
                &body["systemInstruction"]["parts"][0]["text"],
            ),
            Api::Ollama => (
                &headers["authorization"],
                &body["options"]["num_predict"],
                &body["options"]["temperature"],
                &body["tools"][0]["function"]["name"],
                &body["messages"][0]["content"],
            ),
        };
        assert_eq!(
            key.as_str().unwrap().trim_start_matches("Bearer "),
            KEY,
            "{api:?}"
        );
        assert_eq!(
            (most, temperature),
            (&json!(1234), &json!(0.5)),
            "{api:?} {body}"
        );
        assert_eq!(
            (tool, system),
            (&json!("read"), &json!("Be brief.")),
            "{api:?} {body}"
        );
        if matches!(api, Api::Openai | Api::OpenaiResponses) {
            assert_eq!(body["prompt_cache_key"], "conversation-1", "{api:?}");
        }
        if api == Api::Gemini {
            assert_eq!(body["generationConfig"]["topK"], 3);
        }
        if api == Api::Ollama {
            assert_eq!(body["options"]["num_ctx"], 8192);
        } else if api == Api::Openai {
            assert_eq!(body["stream_options"], json!({"include_usage": true}));
        }
    }
}

#[tokio::test]
async fn a_null_in_the_extra_body_takes_out_what_a_server_refuses() {
    let fake = FakeLlm::start();
    let mut spec = provider(&fake, Api::Openai);
    spec.extra_body = Some(json!({"prompt_cache_key": null, "stream_options": null}));
    answer(request(spec, says(json!([])))).await;
    let body = fake.bodies().pop().unwrap();
    assert!(body.get("prompt_cache_key").is_none(), "{body}");
    assert!(body.get("stream_options").is_none(), "{body}");
}

#[tokio::test]
async fn a_provider_without_a_key_gets_none() {
    let fake = FakeLlm::start();
    for api in APIS {
        answer(request(provider(&fake, api), says(json!([])))).await;
        let headers = fake.ledger().pop().unwrap()["headers"].clone();
        for name in ["authorization", "x-api-key", "x-goog-api-key"] {
            assert!(headers.get(name).is_none(), "{api:?} {headers}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_there_is_told_with_where_it_should_be() {
    let fake = FakeLlm::start();
    let mut spec = provider(&fake, Api::Openai);
    spec.api_key_env = Some("DISPATCH_TEST_KEY_THAT_NOBODY_SETS".to_owned());
    let error = failure(request(spec.clone(), says(json!([])))).await;
    assert_eq!(error.fault, LlmFault::Auth);
    assert!(
        error.message.contains("DISPATCH_TEST_KEY_THAT_NOBODY_SETS"),
        "{error}"
    );
    spec.api_key_file = Some("/nonexistent/key".into());
    let error = failure(request(spec, says(json!([])))).await;
    assert_eq!(error.fault, LlmFault::Auth);
    assert!(error.message.contains("/nonexistent/key"), "{error}");
    assert_eq!(fake.ledger().len(), 0);
}

#[tokio::test]
async fn every_effort_reaches_the_wire() {
    let fake = FakeLlm::start();
    for api in APIS {
        for effort in Effort::ALL {
            let mut request = request(provider(&fake, api), says(json!([])));
            request.effort = Some(effort);
            if api == Api::Anthropic {
                request.model = "claude-opus-4-8".to_owned();
            }
            answer(request).await;
            let body = fake.bodies().pop().unwrap();
            let (said, wanted) = match api {
                Api::Openai => (&body["reasoning_effort"], json!(effort.as_str())),
                Api::OpenaiResponses => (&body["reasoning"]["effort"], json!(effort.as_str())),
                Api::Anthropic => (
                    &body["output_config"]["effort"],
                    match effort {
                        Effort::None => Value::Null,
                        _ => json!(effort.as_str()),
                    },
                ),
                Api::Gemini => (
                    &body["generationConfig"]["thinkingConfig"]["thinkingBudget"],
                    match effort {
                        Effort::None => json!(0),
                        Effort::Low => json!(1000),
                        Effort::Medium => json!(8000),
                        Effort::High | Effort::XHigh | Effort::Max => json!(24000),
                    },
                ),
                Api::Ollama => (
                    &body["think"],
                    match effort {
                        Effort::None => json!(false),
                        Effort::Low | Effort::Medium | Effort::High => json!(effort.as_str()),
                        Effort::XHigh | Effort::Max => json!("max"),
                    },
                ),
            };
            assert_eq!(*said, wanted, "{api:?} {effort:?} {body}");
        }
    }
}

#[tokio::test]
async fn what_is_thought_leaves_room_for_a_bounded_answer() {
    let fake = FakeLlm::start();
    let bounded = async |api, model: &str, effort, most| {
        let mut request = request(provider(&fake, api), says(json!([])));
        request.effort = Some(effort);
        request.max_output_tokens = Some(most);
        model.clone_into(&mut request.model);
        answer(request).await;
        fake.bodies().pop().unwrap()
    };
    for model in [
        "claude-3-7-sonnet-20250219",
        "claude-sonnet-4-20250514",
        "claude-sonnet-4-5",
        "claude-opus-4-1",
        "claude-haiku-4-5-20251001",
        "another",
    ] {
        for (effort, most, wanted) in [
            (Effort::Max, 30_000, json!(24_000)),
            (Effort::High, 24_000, json!(8_000)),
            (Effort::Medium, 4_000, json!(1_024)),
            (Effort::Low, 1_024, Value::Null),
        ] {
            let body = bounded(Api::Anthropic, model, effort, most).await;
            assert_eq!(body["thinking"]["budget_tokens"], wanted, "{model} {body}");
        }
    }
    // These are told in words, which bound nothing.
    for model in [
        "claude-opus-4-5-20251101",
        "claude-opus-4-8",
        "claude-sonnet-4-6",
        "claude-sonnet-5",
        "claude-haiku-5",
        "claude-opus-5-20270101",
    ] {
        let body = bounded(Api::Anthropic, model, Effort::High, 500).await;
        assert_eq!(body["output_config"]["effort"], "high", "{model} {body}");
        assert!(body["thinking"].get("budget_tokens").is_none(), "{body}");
    }
    for (effort, most, wanted) in [
        (Effort::High, 48_000, 24_000),
        (Effort::High, 10_000, 5_000),
        (Effort::Low, 100, 128),
        (Effort::None, 100, 0),
    ] {
        let body = bounded(Api::Gemini, "gemini-2.5-pro", effort, most).await;
        let said = &body["generationConfig"]["thinkingConfig"]["thinkingBudget"];
        assert_eq!(*said, json!(wanted), "{body}");
    }
}

#[tokio::test]
async fn an_addition_to_geminis_settings_loses_none_of_them() {
    let fake = FakeLlm::start();
    for model in ["gemini-2.5-flash", "gemini-3-pro"] {
        for effort in [None].into_iter().chain(Effort::ALL.map(Some)) {
            let bodies = [None, Some(json!({"generationConfig": {"topK": 3}}))].map(|extra| {
                let mut spec = provider(&fake, Api::Gemini);
                spec.extra_body = extra;
                let mut asked = request(spec, says(json!([])));
                model.clone_into(&mut asked.model);
                asked.effort = effort;
                asked.temperature = Some(0.5);
                asked.max_output_tokens = Some(99);
                asked
            });
            let [plain, added] = bodies;
            answer(plain).await;
            answer(added).await;
            let mut bodies = fake.bodies();
            let mut added = bodies.pop().unwrap()["generationConfig"].take();
            let plain = bodies.pop().unwrap()["generationConfig"].take();
            assert_eq!(
                added.as_object_mut().unwrap().remove("topK"),
                Some(json!(3))
            );
            assert_eq!(added, plain, "{model} {effort:?}");
        }
    }
}

#[tokio::test]
async fn anthropic_is_told_what_to_cache() {
    let fake = FakeLlm::start();
    let mut asked = request(provider(&fake, Api::Anthropic), says(json!([])));
    asked.tools = Arc::from([read_tool()]);
    answer(asked.clone()).await;
    let mark = json!({"type": "ephemeral"});
    let body = fake.bodies().pop().unwrap();
    assert_eq!(body["system"][0]["cache_control"], mark, "{body}");
    assert_eq!(
        body["messages"][0]["content"][0]["cache_control"], mark,
        "{body}"
    );
    asked.system = String::new();
    answer(asked).await;
    let body = fake.bodies().pop().unwrap();
    assert_eq!(body["tools"][0]["cache_control"], mark, "{body}");
}

/// Ask, answer the calls, ask again; the body of the second request.
async fn second_body(fake: &FakeLlm, api: Api, first: Value, models: [&str; 2]) -> Value {
    let mut messages = says(json!([first, {"text": "done"}]));
    let mut asked = request(provider(fake, api), messages.clone());
    models[0].clone_into(&mut asked.model);
    let end = answer(asked).await;
    let results = end.message.calls().map(|call| ToolResult {
        call_id: call.id.clone(),
        name: call.name.clone(),
        output: "contents".to_owned(),
        is_error: false,
    });
    let results = Message::results(results.collect());
    messages.push(end.message);
    messages.push(results);
    // What is stored is what is sent.
    let stored = serde_json::to_string(&messages).unwrap();
    let mut asked = request(provider(fake, api), serde_json::from_str(&stored).unwrap());
    models[1].clone_into(&mut asked.model);
    let end = answer(asked).await;
    let entry = fake.ledger().pop().unwrap();
    assert_eq!(entry["k"], 1, "{api:?}: {entry}");
    assert_eq!(end.message.text(), "done", "{api:?}");
    entry["body"].clone()
}

#[tokio::test]
async fn what_a_provider_wants_back_goes_back_to_the_same_model_only() {
    let fake = FakeLlm::start();
    let first = json!({"think": "Let me see", "text": "Reading.",
        "calls": [{"name": "read", "input": {"path": "a"}}, {"name": "read", "input": {"path": "b"}}]});
    let signature = "c2lnbmF0dXJl+0/10==";
    let same = ["fake-large", "fake-large"];
    let other = ["fake-large", "fake-small"];

    let body = second_body(&fake, Api::Anthropic, first.clone(), same).await;
    let blocks = body["messages"][1]["content"].as_array().unwrap();
    assert_eq!(
        blocks[0],
        json!({"type": "thinking", "thinking": "Let me see", "signature": signature})
    );
    let kinds: Vec<&str> = blocks.iter().map(|b| b["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    let results = body["messages"][2]["content"].as_array().unwrap();
    assert_eq!(results.len(), 2, "all results are one message: {body}");
    assert_eq!(results[0]["tool_use_id"], blocks[2]["id"]);
    assert_eq!(results[1]["cache_control"], json!({"type": "ephemeral"}));
    let body = second_body(&fake, Api::Anthropic, first.clone(), other).await;
    assert!(!body.to_string().contains(signature), "{body}");

    let body = second_body(&fake, Api::Gemini, first.clone(), same).await;
    let parts = body["contents"][1]["parts"].as_array().unwrap();
    let signed: Vec<bool> = parts
        .iter()
        .map(|p| p["thoughtSignature"] == signature)
        .collect();
    assert_eq!(signed, [false, true, false], "{body}");
    assert_eq!(parts[1]["functionCall"]["name"], "read");
    assert!(
        parts[1]["functionCall"].get("id").is_none(),
        "it gave none: {body}"
    );
    let results = body["contents"][2]["parts"].as_array().unwrap();
    assert_eq!(
        (results.len(), &results[0]["functionResponse"]["name"]),
        (2, &json!("read"))
    );
    let body = second_body(&fake, Api::Gemini, first.clone(), other).await;
    assert!(!body.to_string().contains(signature), "{body}");

    let body = second_body(&fake, Api::OpenaiResponses, first.clone(), same).await;
    let items = body["input"].as_array().unwrap();
    assert_eq!(items[1]["type"], "reasoning", "{body}");
    assert_eq!(items[1]["encrypted_content"], signature, "{body}");
    let kinds: Vec<&str> = items[2..]
        .iter()
        .map(|i| i["type"].as_str().unwrap())
        .collect();
    let calls = ["message", "function_call", "function_call"];
    assert_eq!(kinds[..3], calls, "{body}");
    assert_eq!(
        kinds[3..],
        ["function_call_output", "function_call_output"],
        "{body}"
    );
    assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    let body = second_body(&fake, Api::OpenaiResponses, first.clone(), other).await;
    assert!(!body.to_string().contains(signature), "{body}");

    let body = second_body(&fake, Api::Openai, first.clone(), same).await;
    assert_eq!(
        body["messages"][2]["reasoning_content"], "Let me see",
        "{body}"
    );
    assert_eq!(
        body["messages"][2]["tool_calls"][0]["function"]["arguments"],
        "{\"path\":\"a\"}"
    );
    assert_eq!(body["messages"][4]["role"], "tool", "{body}");
    let body = second_body(&fake, Api::Openai, first.clone(), other).await;
    assert!(!body.to_string().contains("reasoning_content"), "{body}");

    let body = second_body(&fake, Api::Ollama, first, same).await;
    let roles: Vec<&str> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles,
        ["system", "user", "assistant", "tool", "tool"],
        "{body}"
    );
    assert_eq!(body["messages"][3]["tool_name"], "read", "{body}");
    assert!(body["messages"][2].get("thinking").is_none(), "{body}");
}

#[tokio::test]
async fn a_gemini_signature_without_a_call_goes_back_with_its_text() {
    let fake = FakeLlm::start();
    let mut messages = says(json!([{"think": "Hm", "text": "Well."}, {"text": "done"}]));
    let end = answer(request(provider(&fake, Api::Gemini), messages.clone())).await;
    messages.push(end.message);
    messages.push(Message::user("Go on."));
    answer(request(provider(&fake, Api::Gemini), messages)).await;
    let body = fake.bodies().pop().unwrap();
    let part = &body["contents"][1]["parts"][0];
    assert_eq!(
        *part,
        json!({"text": "Well.", "thoughtSignature": "c2lnbmF0dXJl+0/2=="})
    );
}

#[tokio::test]
async fn a_failed_tool_is_told_as_one() {
    let fake = FakeLlm::start();
    for api in APIS {
        let call = ToolCall {
            id: "functions.read:0".to_owned(),
            name: "read".to_owned(),
            input: Value::String("{bad".to_owned()),
            signatures: vec!["of another model".to_owned()],
        };
        let assistant = Message {
            role: Role::Assistant,
            parts: vec![Part::ToolCall(call.clone())],
        };
        let result = ToolResult {
            call_id: call.id.clone(),
            name: call.name,
            output: "no such file".to_owned(),
            is_error: true,
        };
        let messages = vec![
            Message::user("Hi."),
            assistant,
            Message::results(vec![result]),
        ];
        answer(request(provider(&fake, api), messages)).await;
        let body = fake.bodies().pop().unwrap();
        let all = body.to_string();
        assert!(
            all.contains("invalid_json"),
            "{api:?}: providers take objects: {all}"
        );
        assert!(!all.contains("of another model"), "{api:?}: {all}");
        if api == Api::Anthropic {
            let block = &body["messages"][2]["content"][0];
            assert_eq!(block["is_error"], true, "{all}");
            assert_eq!(block["tool_use_id"], "functions_read_0", "{all}");
            assert_eq!(body["messages"][1]["content"][0]["id"], "functions_read_0");
        } else {
            assert!(all.contains("Error: no such file"), "{api:?} {all}");
        }
    }
}

#[tokio::test]
async fn arguments_that_are_no_json_are_kept_as_they_came() {
    let fake = FakeLlm::start();
    for api in APIS {
        let element = json!([{"calls": [{"name": "read", "raw": "{bad json"}]}]);
        let end = answer(request(provider(&fake, api), says(element))).await;
        let call = end.message.calls().next().unwrap();
        assert_eq!(call.input, json!("{bad json"), "{api:?}");
    }
}

#[tokio::test]
async fn calls_get_ids_that_are_unique_in_the_conversation() {
    let fake = FakeLlm::start();
    for api in APIS {
        let call = |id: Value| json!({"name": "read", "id": id});
        let calls = json!([
            call(json!("x")),
            call(json!("x")),
            call(json!("")),
            call(Value::Null)
        ]);
        let mut messages = says(json!([{"calls": calls}, {"calls": calls}]));
        let first = answer(request(provider(&fake, api), messages.clone()))
            .await
            .message;
        let results = first.calls().map(|call| ToolResult {
            call_id: call.id.clone(),
            name: call.name.clone(),
            output: String::new(),
            is_error: false,
        });
        let results = Message::results(results.collect());
        messages.extend([first.clone(), results]);
        let second = answer(request(provider(&fake, api), messages))
            .await
            .message;
        let calls: Vec<&ToolCall> = first.calls().chain(second.calls()).collect();
        let ids: std::collections::HashSet<&str> = calls.iter().map(|c| c.id.as_str()).collect();
        assert_eq!((calls.len(), ids.len()), (8, 8), "{api:?} {calls:?}");
        assert!(!ids.contains(""), "{api:?}");
    }
}

#[tokio::test]
async fn the_first_call_is_told_before_the_answer_is_complete() {
    let fake = FakeLlm::start();
    for api in APIS {
        let calls = json!([{"name": "read", "input": {"path": "a"}}, {"name": "read", "input": {"path": "b"}}]);
        let element = json!([{"calls": calls, "stall": "after_calls"}]);
        let llm = GenaiLlm::new().unwrap();
        let mut stream = llm.stream(request(provider(&fake, api), says(element)));
        let first = async {
            loop {
                match stream.next().await {
                    Some(Ok(LlmEvent::ToolCall(call))) => return call,
                    Some(Ok(LlmEvent::End(_)) | Err(_)) | None => panic!("{api:?}: too late"),
                    Some(Ok(_)) => {}
                }
            }
        };
        let call = tokio::time::timeout(PATIENCE, first).await.unwrap();
        assert_eq!(call.input, json!({"path": "a"}), "{api:?}");
    }
}

#[tokio::test]
async fn reasons_are_the_same_words_in_every_format() {
    let fake = FakeLlm::start();
    for api in APIS {
        for (said, wanted) in [
            ("stop", FinishReason::Stop),
            ("length", FinishReason::Length),
            ("content_filter", FinishReason::ContentFilter),
        ] {
            let element = json!([{"text": "ok", "finish": said}]);
            let end = answer(request(provider(&fake, api), says(element))).await;
            assert_eq!(end.reason, wanted, "{api:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_an_end() {
    let fake = FakeLlm::start();
    for api in APIS {
        for close_delimited in [false, true] {
            for drop in ["headers", "after_text", "before_end"] {
                let element = json!([{"text": "some text", "drop": drop,
                    "calls": [{"name": "read"}], "close_delimited": close_delimited}]);
                let error = failure(request(provider(&fake, api), says(element))).await;
                assert_eq!(error.fault, LlmFault::Truncated, "{api:?} {drop}: {error}");
            }
        }
        let element = json!([{"drop": "before_headers"}]);
        let error = failure(request(provider(&fake, api), says(element))).await;
        assert_eq!(error.fault, LlmFault::Unreachable, "{api:?}: {error}");
    }
    let element = json!([{"text": "all", "done": false, "close_delimited": true}]);
    let end = answer(request(provider(&fake, Api::Openai), says(element))).await;
    assert_eq!(
        end.message.text(),
        "all",
        "a server that says why it ends needs no [DONE]"
    );
}

#[tokio::test]
async fn garbage_is_garbage() {
    let fake = FakeLlm::start();
    for api in APIS {
        let error = failure(request(
            provider(&fake, api),
            says(json!([{"garbage": true}])),
        ))
        .await;
        assert_eq!(error.fault, LlmFault::Garbage, "{api:?}: {error}");
    }
}

#[tokio::test]
async fn errors_have_their_class_their_words_and_their_wait() {
    let fake = FakeLlm::start();
    let message = |words: &str| json!({"error": {"message": words}});
    let cases = [
        (429, message("slow down"), LlmFault::RateLimited),
        (
            429,
            json!({"error": {"message": "no quota", "code": "insufficient_quota"}}),
            LlmFault::Billing,
        ),
        (402, message("pay"), LlmFault::Billing),
        (
            400,
            message("Your credit balance is too low"),
            LlmFault::Billing,
        ),
        (500, message("oops"), LlmFault::Overloaded),
        (
            529,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            LlmFault::Overloaded,
        ),
        (408, message("late"), LlmFault::Overloaded),
        (409, message("conflict"), LlmFault::Overloaded),
        (401, message("who"), LlmFault::Auth),
        (403, message("no"), LlmFault::Auth),
        (
            400,
            json!([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid."}}]),
            LlmFault::Auth,
        ),
        (
            404,
            message("The model `x` does not exist"),
            LlmFault::UnknownModel,
        ),
        (
            400,
            json!({"error": {"message": "long", "code": "context_length_exceeded"}}),
            LlmFault::ContextTooLong,
        ),
        (
            400,
            message("prompt is too long: 210000 tokens > 200000 maximum"),
            LlmFault::ContextTooLong,
        ),
        (
            400,
            message("This model's maximum context length is 8192 tokens."),
            LlmFault::ContextTooLong,
        ),
        (
            400,
            message("The input token count (2000000) exceeds the maximum number of tokens allowed"),
            LlmFault::ContextTooLong,
        ),
        (
            413,
            message("Request exceeds the maximum size"),
            LlmFault::ContextTooLong,
        ),
        (
            400,
            json!({"error": {"message": "filtered", "code": "content_filter"}}),
            LlmFault::Refused,
        ),
        (400, message("temperature: must be 1"), LlmFault::BadRequest),
        (
            422,
            json!({"detail": "unknown member"}),
            LlmFault::BadRequest,
        ),
        (503, json!("<html>bad gateway</html>"), LlmFault::Overloaded),
        (307, json!(""), LlmFault::BadRequest),
    ];
    for api in APIS {
        for (status, body, fault) in &cases {
            let fail = json!({"status": status, "body": body, "times": 100, "retry_after": "7"});
            let error = failure(request(provider(&fake, api), says(json!([{"fail": fail}])))).await;
            assert_eq!(error.fault, *fault, "{api:?} {status} {body}: {error}");
            assert_eq!(error.status, Some(*status), "{api:?}");
            let wait = fault.is_passing().then_some(Duration::from_secs(7));
            assert_eq!(error.retry_after, wait, "{api:?} {status}");
            let begun = format!("provider fake answered {status}");
            assert!(error.message.starts_with(&begun), "{error}");
            let words = body["error"]["message"].as_str().unwrap_or_default();
            assert!(error.message.contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn errors_within_an_answer_have_their_class_too() {
    let fake = FakeLlm::start();
    let cases = [
        (
            json!({"type": "overloaded_error", "message": "Overloaded"}),
            LlmFault::Overloaded,
        ),
        (
            json!({"code": "rate_limit_exceeded", "message": "Please try again in 1.5s."}),
            LlmFault::RateLimited,
        ),
        (
            json!({"code": "insufficient_quota", "message": "empty"}),
            LlmFault::Billing,
        ),
        (
            json!({"code": "context_length_exceeded", "message": "long"}),
            LlmFault::ContextTooLong,
        ),
        (
            json!({"code": "server_error", "message": "oops"}),
            LlmFault::Overloaded,
        ),
    ];
    for api in APIS {
        for (event, fault) in &cases {
            let element = json!([{"text": "so far", "error_event": event}]);
            let error = failure(request(provider(&fake, api), says(element))).await;
            assert_eq!(error.fault, *fault, "{api:?} {event}: {error}");
            let words = event["message"].as_str().unwrap();
            assert!(error.message.contains(words), "{api:?}: {error}");
            if *fault == LlmFault::RateLimited {
                assert_eq!(
                    error.retry_after,
                    Some(Duration::from_millis(1500)),
                    "{api:?}"
                );
            }
        }
        let limited = json!({"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota, see billing",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]});
        let fail = json!({"status": 429, "body": {"error": limited}});
        let error = failure(request(provider(&fake, api), says(json!([{"fail": fail}])))).await;
        assert_eq!(
            (error.fault, error.retry_after),
            (LlmFault::RateLimited, Some(Duration::from_secs(7)))
        );
    }
}

#[tokio::test]
async fn a_key_is_in_no_message_and_a_message_is_short() {
    let fake = FakeLlm::start();
    for api in APIS {
        let (_file, spec) = with_key(&fake, api);
        let words = format!("bad key {KEY}\u{1b}[31m\n{}", "x".repeat(5_000));
        let fail = json!({"status": 401, "body": {"error": {"message": words}}});
        let error = failure(request(spec, says(json!([{"fail": fail}])))).await;
        assert!(!error.message.contains(KEY), "{error}");
        assert!(error.message.contains("[key]"), "{error}");
        assert!(error.message.chars().count() <= 2_000);
        assert!(!error.message.chars().any(char::is_control), "{error:?}");
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_unreachable() {
    let fake = FakeLlm::start();
    let spec = provider(&fake, Api::Openai);
    drop(fake);
    let error = failure(request(spec.clone(), says(json!([])))).await;
    assert_eq!(error.fault, LlmFault::Unreachable, "{error}");
    let llm = GenaiLlm::new().unwrap();
    let error = llm.list_models(&spec).await.unwrap_err();
    assert_eq!(error.fault, LlmFault::Unreachable, "{error}");
    let mut spec = spec;
    spec.base_url = "no address".to_owned();
    let error = failure(request(spec, says(json!([])))).await;
    assert_eq!(error.fault, LlmFault::BadRequest, "{error}");
}

#[tokio::test]
async fn a_dropped_stream_ends_the_request() {
    let fake = FakeLlm::start();
    for api in APIS {
        for stall in ["headers", "body", "after_text"] {
            let llm = GenaiLlm::new().unwrap();
            let element = json!([{"text": "so far", "stall": stall}]);
            let mut stream = llm.stream(request(provider(&fake, api), says(element)));
            let waiting = async {
                // Nothing ends it but the drop.
                while let Some(item) = stream.next().await {
                    item.unwrap();
                }
            };
            tokio::select! {
                () = waiting => panic!("{api:?} {stall}: it ended"),
                () = eventually("an open request", PATIENCE, || async { fake.open() == 1 }) => {}
            }
            drop(stream);
            eventually("no open request", PATIENCE, || async { fake.open() == 0 }).await;
        }
    }
}

#[tokio::test]
async fn models_are_listed_in_every_format() {
    let fake = FakeLlm::start_with(&["--key", KEY]);
    let llm = GenaiLlm::new().unwrap();
    for api in APIS {
        let (_file, spec) = with_key(&fake, api);
        let models = llm.list_models(&spec).await.unwrap();
        assert_eq!(models, ["fake-large", "fake-small"], "{api:?}");
        let error = llm.list_models(&provider(&fake, api)).await.unwrap_err();
        assert_eq!(
            (error.fault, error.status),
            (LlmFault::Auth, Some(401)),
            "{api:?}"
        );
        let error = failure(request(provider(&fake, api), says(json!([])))).await;
        assert_eq!(error.fault, LlmFault::Auth, "{api:?}");
    }
}

/// JSON of any shape, with members that the formats have.
fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "[a-z_ \u{1f980}]{0,8}".prop_map(|s| json!(s)),
        proptest::sample::select(vec![
            "tool_use",
            "function_call",
            "thinking",
            "text",
            "error",
            "response.completed",
            "response.output_item.added",
            "STOP"
        ])
        .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        let names = vec![
            "choices",
            "delta",
            "tool_calls",
            "index",
            "function",
            "arguments",
            "name",
            "id",
            "type",
            "message",
            "usage",
            "content",
            "content_block",
            "candidates",
            "parts",
            "functionCall",
            "usageMetadata",
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "item",
            "output_index",
            "response",
            "done",
            "error",
            "prompt_tokens",
            "input_tokens",
            "text",
            "thoughtSignature",
            "finishReason",
            "finish_reason",
            "cache_read_input_tokens",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::vec((proptest::sample::select(names), inner), 0..5).prop_map(
                |members| {
                    let members = members
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value));
                    Value::Object(members.collect())
                }
            ),
        ]
    })
}

#[test]
fn no_answer_of_any_shape_ends_more_than_the_request() {
    use proptest::prelude::*;
    let fake = FakeLlm::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let llm = GenaiLlm::new().unwrap();
    let event = proptest::sample::select(vec![
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ]);
    let frames = proptest::collection::vec((event, any_json()), 0..6);
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let cases = (
        proptest::sample::select(APIS.to_vec()),
        frames,
        noise,
        any::<bool>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&cases, |(api, frames, noise, is_noise)| {
        let mut body = Vec::new();
        for (event, frame) in &frames {
            let frame = match api {
                Api::Ollama => format!("{frame}\n"),
                _ => format!("event: {event}\ndata: {frame}\n\n"),
            };
            body.extend(frame.into_bytes());
        }
        if is_noise {
            body.extend(noise);
        }
        let messages = says(json!([{"garbage": body, "fragment": 13}]));
        runtime.block_on(async {
            let stream = llm.stream(request(provider(&fake, api), messages));
            let items = tokio::time::timeout(PATIENCE, stream.collect::<Vec<_>>())
                .await
                .unwrap();
            let last = items.last().unwrap();
            assert!(matches!(last, Ok(LlmEvent::End(_)) | Err(_)), "{last:?}");
        });
        Ok(())
    });
    result.unwrap();
}
