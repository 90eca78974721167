//! Ollama's own format. The client library speaks it without the members that matter most there:
//! the size of the context, and the name of the tool that a result is of.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use genai::adapter::AdapterKind;
use genai::chat::{ChatStreamEvent, StreamChunk, StreamEnd};
use genai::webc::StreamTimeout;
use genai::{BoxError, ModelIden};
use serde_json::{Map, Value, json};

use crate::domain::limits::{LLM_FRAME_BYTES, LLM_HEADERS_MAX, LLM_SILENCE_MAX};
use crate::domain::llm::{Effort, Message, Role};

use super::LlmRequest;
use super::frames::Tap;
use super::lines::Lines;
use super::messages::{object_of, output_of};

/// The body of a request, without what agents.toml adds.
pub(super) fn body(request: &LlmRequest) -> Map<String, Value> {
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.extend(request.messages.iter().flat_map(said));
    let mut options = Map::new();
    if let Some(temperature) = request.temperature {
        options.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(most) = request.max_output_tokens {
        options.insert("num_predict".to_owned(), json!(most));
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("stream".to_owned(), json!(true));
    if !options.is_empty() {
        body.insert("options".to_owned(), Value::Object(options));
    }
    if let Some(effort) = request.effort {
        body.insert("think".to_owned(), think(effort));
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {"name": tool.name,
                "description": tool.description, "parameters": tool.schema}})
        });
        body.insert("tools".to_owned(), tools.collect());
    }
    body.insert("messages".to_owned(), Value::Array(messages));
    body
}

fn think(effort: Effort) -> Value {
    match effort {
        Effort::None => json!(false),
        Effort::Low => json!("low"),
        Effort::Medium => json!("medium"),
        Effort::High => json!("high"),
        Effort::XHigh | Effort::Max => json!("max"),
    }
}

fn said(message: &Message) -> Vec<Value> {
    let text = message.text();
    let results = message.tool_results().map(|result| {
        json!({"role": "tool", "tool_name": result.name, "tool_call_id": result.call_id,
            "content": output_of(result)})
    });
    let mut all: Vec<Value> = results.collect();
    let calls = message.calls().map(|call| {
        let input = object_of(&call.input);
        json!({"id": call.id, "function": {"name": call.name, "arguments": input}})
    });
    let calls: Vec<Value> = calls.collect();
    if text.is_empty() && calls.is_empty() {
        return all;
    }
    let role = match message.role {
        Role::User | Role::Tool => "user",
        Role::Assistant => "assistant",
    };
    let mut words = json!({"role": role, "content": text});
    if !calls.is_empty() {
        words["tool_calls"] = Value::Array(calls);
    }
    all.push(words);
    all
}

/// The answer, in the library's words.
pub(super) fn stream(
    request: reqwest::RequestBuilder,
    tap: Tap,
) -> BoxStream<'static, Result<ChatStreamEvent, genai::Error>> {
    let answer = Answering {
        at: At::Unsent(request),
        tap,
        lines: Lines::default(),
        queue: VecDeque::new(),
    };
    let each = async |mut answer: Answering| {
        let event = answer.next().await?;
        Some((event, answer))
    };
    futures::stream::unfold(answer, each).boxed()
}

/// How far a request is.
enum At {
    Unsent(reqwest::RequestBuilder),
    Answered(reqwest::Response),
    Over,
}

struct Answering {
    at: At,
    tap: Tap,
    lines: Lines,
    queue: VecDeque<ChatStreamEvent>,
}

impl Answering {
    async fn next(&mut self) -> Option<Result<ChatStreamEvent, genai::Error>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Ok(event));
            }
            // Whatever goes wrong from here on, it is over.
            self.at = match std::mem::replace(&mut self.at, At::Over) {
                At::Over => return None,
                At::Unsent(request) => match send(request).await {
                    Ok(response) => At::Answered(response),
                    Err(error) => return Some(Err(error)),
                },
                At::Answered(mut response) => {
                    match within(LLM_SILENCE_MAX, StreamTimeout::Read, response.chunk()).await {
                        Err(error) => return Some(Err(error)),
                        Ok(Some(bytes)) => {
                            self.lines.push(&bytes);
                            while let Some(line) = self.lines.next() {
                                self.line(&line);
                            }
                            if self.lines.pending() > LLM_FRAME_BYTES {
                                return Some(Err(broken("a line does not end".into())));
                            }
                            At::Answered(response)
                        }
                        Ok(None) => {
                            let rest = self.lines.rest();
                            self.line(&rest);
                            At::Over
                        }
                    }
                }
            };
        }
    }

    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let is_whole = {
            let mut frames = self.tap.read();
            frames.frame(text);
            frames.is_whole
        };
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let words = |name: &str| {
            let content = frame["message"][name].as_str().unwrap_or_default();
            (!content.is_empty()).then(|| StreamChunk {
                content: content.to_owned(),
            })
        };
        let thinking = words("thinking").map(ChatStreamEvent::ReasoningChunk);
        let text = words("content").map(ChatStreamEvent::Chunk);
        self.queue.extend(thinking.into_iter().chain(text));
        if is_whole {
            let end = ChatStreamEvent::End(StreamEnd::default());
            self.queue.push_back(end);
        } else if self.queue.is_empty() {
            self.queue.push_back(ChatStreamEvent::Heartbeat);
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, genai::Error> {
    let sending = request.send();
    let mut response = within(LLM_HEADERS_MAX, StreamTimeout::Headers, sending).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = Box::new(response.headers().clone());
    let mut body = Vec::new();
    // What breaks off while it is read is cut there.
    while let Ok(Some(bytes)) = within(LLM_SILENCE_MAX, StreamTimeout::Read, response.chunk()).await
    {
        body.extend_from_slice(&bytes);
        if body.len() > ERROR_BYTES {
            break;
        }
    }
    Err(genai::Error::HttpError {
        status,
        canonical_reason: String::new(),
        body: String::from_utf8_lossy(&body).into_owned(),
        headers,
    })
}

/// Bytes of an error that are read; far more than are kept.
const ERROR_BYTES: usize = 256 * 1024;

async fn within<T>(
    bound: Duration,
    timeout: StreamTimeout,
    work: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, genai::Error> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done.map_err(|e| broken(Box::new(e))),
        Err(_) => Err(broken(Box::new(timeout))),
    }
}

fn broken(error: BoxError) -> genai::Error {
    genai::Error::WebStream {
        model_iden: ModelIden::new(AdapterKind::Ollama, ""),
        cause: error.to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::native_spec::Api;

    #[tokio::test]
    async fn a_line_that_does_not_end_ends_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _asked = socket.read(&mut [0; 4096]).await;
            let _told = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut sent = 0;
            while socket.write_all(&[b'x'; 65_536]).await.is_ok() {
                sent += 65_536;
            }
            sent
        });
        let client = reqwest::Client::builder().no_proxy();
        let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
            rustls::crypto::ring::default_provider(),
        ));
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty());
        let client = client.tls_backend_preconfigured(tls.with_no_client_auth());
        let request = client.build().unwrap().post(url);
        let mut answer = stream(request, Tap::new(Api::Ollama, HashSet::new()));
        let error = answer.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("a line does not end"), "{error}");
        assert!(answer.next().await.is_none());
        let sent = server.join_next().await.unwrap().unwrap();
        // What the system holds on its way is sent too.
        assert!(sent < 8 * LLM_FRAME_BYTES, "{sent}");
    }
}
