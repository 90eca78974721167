//! The worker's end of `dispatch __tools`, which runs the tools inside the sandbox. What it says is
//! an agent's word: a command that it ran could have said it in its place.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::agent::jsonrpc::{Dialect, Message, Peer, PeerError, RpcError};
use crate::agent::{AgentError, AgentEvent, EventSink};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::redact::{RedactedText, Redactor};

/// Asks for calls; as many clones as there are calls at once.
#[derive(Clone, Debug)]
pub(crate) struct ToolHost(mpsc::Sender<Ask>);

/// What a tool came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// What the model reads.
    pub(crate) output: String,
    /// Whether it failed.
    pub(crate) is_error: bool,
    /// For people.
    pub(crate) detail: Value,
}

impl Outcome {
    /// A failure in words for the model.
    pub(crate) fn failed(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            is_error: true,
            detail: Value::Null,
        }
    }
}

#[derive(Debug)]
struct Ask {
    /// The model's id of the call, for what it writes.
    call_id: String,
    tool: String,
    input: Value,
    answer: oneshot::Sender<Outcome>,
}

impl ToolHost {
    /// Run a tool. Resolves at the latest when the program ends.
    pub(crate) async fn call(&self, call_id: &str, tool: &str, input: Value) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            call_id: call_id.to_owned(),
            tool: tool.to_owned(),
            input,
            answer,
        };
        let gone = || Outcome::failed("the tools ended before this one did");
        if self.0.send(ask).await.is_err() {
            return gone();
        }
        match tokio::time::timeout(limits::TOOL_CALL_TIMEOUT, answered).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| gone()),
            Err(_) => Outcome::failed("the tool did not answer in time"),
        }
    }
}

/// The connection; it must be run for calls to be answered.
#[derive(Debug)]
pub(crate) struct Connection<R, W> {
    peer: Peer<R, W>,
    asks: mpsc::Receiver<Ask>,
    open: HashMap<u64, Open>,
    events: EventSink,
    secrets: Redactor,
}

/// A call that has no answer yet.
#[derive(Debug)]
struct Open {
    call_id: String,
    answer: oneshot::Sender<Outcome>,
    /// What it writes, of which the last characters may be the beginning of a secret.
    written: [RedactedText; 2],
    /// Bytes of it so far.
    told: usize,
}

/// The streams of a command, by their place in `Open::written`.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// Speak over these pipes.
pub(crate) fn connect<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    stdout: R,
    stdin: W,
    events: EventSink,
    secrets: Redactor,
) -> (ToolHost, Connection<R, W>) {
    let (asking, asks) = mpsc::channel(limits::TOOL_CALLS_QUEUED_MAX);
    let connection = Connection {
        peer: Peer::bounded(stdout, stdin, Dialect::Bare, limits::TOOL_LINE_BYTES_MAX),
        asks,
        open: HashMap::new(),
        events,
        secrets,
    };
    (ToolHost(asking), connection)
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// Wait until the program says that it is there; its word for what it is.
    pub(crate) async fn ready(&mut self) -> Result<Value, AgentError> {
        loop {
            match self.peer.receive().await.map_err(|error| broken(&error))? {
                Message::Notification { method, params } if method == "ready" => return Ok(params),
                Message::Noise { text } => tracing::debug!(text, "the tools said something else"),
                Message::Request { .. }
                | Message::Notification { .. }
                | Message::Response { .. } => {}
            }
        }
    }

    /// Carry calls and answers; ends only with an error.
    pub(crate) async fn run(&mut self) -> AgentError {
        loop {
            tokio::select! {
                message = self.peer.receive() => match message {
                    Ok(message) => self.take(message).await,
                    Err(error) => return broken(&error),
                },
                Some(ask) = self.asks.recv() => {
                    let params = json!({ "tool": ask.tool, "input": ask.input });
                    let id = self.peer.request("call", params);
                    let written = || RedactedText::new(self.secrets.clone());
                    let open = Open {
                        call_id: ask.call_id,
                        answer: ask.answer,
                        written: [written(), written()],
                        told: 0,
                    };
                    self.open.insert(id, open);
                }
            }
        }
    }

    /// What was not read, for draining.
    pub(crate) fn into_reader(self) -> R {
        self.peer.into_reader()
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Notification { method, params } if method == "output" => {
                self.output(&params).await;
            }
            Message::Response {
                id: Some(id),
                result,
            } => {
                if let Some(mut open) = self.open.remove(&id) {
                    for (stream, written) in STREAMS.iter().zip(&mut open.written) {
                        let rest = written.finish();
                        self.tell(&open.call_id, stream, rest).await;
                    }
                    // Nobody waits any more: the call took too long.
                    let _late = open.answer.send(outcome(result));
                }
            }
            Message::Noise { text } => tracing::debug!(text, "the tools said something else"),
            Message::Request { id, method, .. } => {
                let unknown = crate::agent::jsonrpc::unknown_method(&method);
                self.peer.answer(&id, Err(unknown));
            }
            Message::Notification { .. } | Message::Response { id: None, .. } => {}
        }
    }

    async fn output(&mut self, params: &Value) {
        let text = |key| params.get(key).and_then(Value::as_str);
        let id = params.get("id").and_then(Value::as_u64);
        let open = id.and_then(|id| self.open.get_mut(&id));
        let (Some(open), Some(said)) = (open, text("text")) else {
            return;
        };
        open.told = open.told.saturating_add(said.len());
        if open.told > limits::TOOL_OUTPUT_BYTES_MAX {
            return;
        }
        let at = usize::from(text("stream") == Some("stderr"));
        let (Some(written), Some(stream)) = (open.written.get_mut(at), STREAMS.get(at)) else {
            return;
        };
        let safe = written.push(said).into_owned();
        let call_id = open.call_id.clone();
        self.tell(&call_id, stream, safe).await;
    }

    async fn tell(&self, call_id: &str, stream: &str, text: String) {
        if text.is_empty() {
            return;
        }
        let (id, stream) = (call_id.to_owned(), stream.to_owned());
        self.events
            .send(AgentEvent::ToolOutput { id, stream, text })
            .await;
    }
}

fn outcome(result: Result<Value, RpcError>) -> Outcome {
    let result = match result {
        Ok(result) => result,
        Err(error) => return Outcome::failed(error.message),
    };
    let output = result.get("output").and_then(Value::as_str);
    let output = output.unwrap_or("the tool said nothing");
    Outcome {
        output: output.to_owned(),
        is_error: result
            .get("is_error")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        detail: result.get("detail").cloned().unwrap_or(Value::Null),
    }
}

fn broken(error: &PeerError) -> AgentError {
    let message = format!("the tools of the attempt ended: {error}");
    AgentError::new(ErrorClass::Protocol, message)
}
