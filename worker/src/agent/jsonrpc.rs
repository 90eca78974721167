//! One end of a newline JSON-RPC connection, both ways: we call, and we are called.
//!
//! It has no tasks of its own. `receive` reads one message and writes what waits meanwhile, so a
//! caller that does not call it stops the agent's output at the pipe. Messages are taken as they
//! come, with the `jsonrpc` member or without, ids being numbers or strings.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::lines::{Line, Lines};
use crate::domain::limits;

/// Whether messages carry `"jsonrpc": "2.0"`. ACP wants it, the Codex app-server leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// With the member.
    Versioned,
    /// Without.
    Bare,
}

/// What the other end sent.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// It wants an answer.
    Request {
        /// Number or string, to be sent back as it came.
        id: Value,
        /// What it wants.
        method: String,
        /// With what.
        params: Value,
    },
    /// It tells something.
    Notification {
        /// What.
        method: String,
        /// With what.
        params: Value,
    },
    /// It answers a request of ours.
    Response {
        /// The number we gave; `None`: not one of ours.
        id: Option<u64>,
        /// Its answer.
        result: Result<Value, RpcError>,
    },
    /// A line that is no message.
    Noise {
        /// Its beginning.
        text: String,
    },
}

/// An error as the other end sent it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// JSON-RPC's number.
    pub code: i64,
    /// In words.
    pub message: String,
    /// Whatever else it said.
    pub data: Value,
}

/// The connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The agent closed its output.
    #[error("the agent closed its output")]
    Ended,
    /// A line has no end in sight.
    #[error("the agent sent a line longer than {} MiB", limits::PROTOCOL_LINE_BYTES_MAX >> 20)]
    LineTooLong,
    /// The agent does not read its input.
    #[error("the agent did not read its input for {} s", limits::PROTOCOL_WRITE_TIMEOUT.as_secs())]
    NotReading,
    /// Too much waits to be written.
    #[error("the agent asked for more than it read: {0} bytes of answers are waiting")]
    Backlog(usize),
    /// The agent closed its input.
    #[error("the agent closed its input")]
    InputClosed,
    /// A pipe failed.
    #[error("a pipe of the agent failed: {0}")]
    Io(#[from] io::Error),
}

/// One end of the connection.
#[derive(Debug)]
pub struct Peer<R, W> {
    lines: Lines<R>,
    writer: W,
    outgoing: VecDeque<u8>,
    progress_at: Instant,
    write_timeout: Duration,
    next_id: u64,
    dialect: Dialect,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Peer<R, W> {
    /// Speak over these pipes.
    pub fn new(reader: R, writer: W, dialect: Dialect) -> Self {
        Self::bounded(reader, writer, dialect, limits::PROTOCOL_LINE_BYTES_MAX)
    }

    /// The same, reading lines of at most this many bytes.
    pub fn bounded(reader: R, writer: W, dialect: Dialect, line_bytes_max: usize) -> Self {
        Self {
            lines: Lines::new(reader, line_bytes_max),
            writer,
            outgoing: VecDeque::new(),
            progress_at: Instant::now(),
            write_timeout: limits::PROTOCOL_WRITE_TIMEOUT,
            next_id: 0,
            dialect,
        }
    }

    /// Queue a request; its answer comes from `receive` under this id.
    pub fn request(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queue([
            ("id", id.into()),
            ("method", method.into()),
            ("params", params),
        ]);
        id
    }

    /// Queue a notification.
    pub fn notify(&mut self, method: &str, params: Value) {
        self.queue([("method", method.into()), ("params", params)]);
    }

    /// Queue the answer to a request of the other end.
    pub fn answer(&mut self, id: &Value, result: Result<Value, RpcError>) {
        let (key, value) = match result {
            Ok(result) => ("result", result),
            Err(error) => (
                "error",
                json!({"code": error.code, "message": error.message, "data": error.data}),
            ),
        };
        self.queue([("id", id.clone()), (key, value)]);
    }

    /// The next message; what is queued is written meanwhile. May be dropped without loss.
    pub async fn receive(&mut self) -> Result<Message, PeerError> {
        if self.outgoing.len() > limits::PROTOCOL_BACKLOG_BYTES_MAX {
            return Err(PeerError::Backlog(self.outgoing.len()));
        }
        loop {
            let waiting = !self.outgoing.is_empty();
            let stalled = self.progress_at + self.write_timeout;
            let (front, _) = self.outgoing.as_slices();
            tokio::select! {
                // Reading first: the last words of an agent count more than our answers to it.
                biased;
                line = self.lines.next() => match line? {
                    Line::Full(line) if line.iter().all(u8::is_ascii_whitespace) => {}
                    Line::Full(line) => return Ok(parse(&line)),
                    Line::TooLong => return Err(PeerError::LineTooLong),
                    Line::End => return Err(PeerError::Ended),
                },
                written = self.writer.write(front), if waiting => match written {
                    Ok(0) => return Err(PeerError::InputClosed),
                    Ok(count) => {
                        self.outgoing.drain(..count);
                        self.progress_at = Instant::now();
                    }
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Err(PeerError::InputClosed);
                    }
                    Err(error) => return Err(PeerError::Io(error)),
                },
                () = tokio::time::sleep_until(stalled), if waiting => {
                    return Err(PeerError::NotReading);
                }
            }
        }
    }

    /// The reader, for draining what is left.
    pub fn into_reader(self) -> R {
        self.lines.into_inner()
    }

    fn queue<const N: usize>(&mut self, members: [(&str, Value); N]) {
        if self.outgoing.is_empty() {
            self.progress_at = Instant::now();
        }
        let mut message = Map::new();
        if self.dialect == Dialect::Versioned {
            message.insert("jsonrpc".to_owned(), "2.0".into());
        }
        message.extend(members.map(|(key, value)| (key.to_owned(), value)));
        self.outgoing
            .extend(Value::Object(message).to_string().into_bytes());
        self.outgoing.push_back(b'\n');
    }
}

/// An answer saying that we do not know a method.
pub fn unknown_method(method: &str) -> RpcError {
    RpcError {
        code: -32_601,
        message: format!("Method not found: {method}"),
        data: Value::Null,
    }
}

fn parse(line: &[u8]) -> Message {
    let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let Ok(Value::Object(mut members)) = super::utf8::json(text) else {
        return noise(line);
    };
    let params = members.remove("params").unwrap_or(Value::Null);
    let id = members.remove("id").filter(|id| !id.is_null());
    if let Some(Value::String(method)) = members.remove("method") {
        return match id {
            Some(id) => Message::Request { id, method, params },
            None => Message::Notification { method, params },
        };
    }
    let number = id.and_then(|id| match id {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    });
    if let Some(error) = members.get("error").filter(|error| !error.is_null()) {
        let error = RpcError {
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: error
                .get("message")
                .and_then(Value::as_str)
                .map_or_else(|| error.to_string(), str::to_owned),
            data: error.get("data").cloned().unwrap_or(Value::Null),
        };
        return Message::Response {
            id: number,
            result: Err(error),
        };
    }
    match members.remove("result") {
        Some(result) => Message::Response {
            id: number,
            result: Ok(result),
        },
        None => noise(line),
    }
}

fn noise(line: &[u8]) -> Message {
    let kept = line.get(..limits::NOISE_LINE_BYTES_SEEN).unwrap_or(line);
    Message::Noise {
        text: super::utf8::clean(&String::from_utf8_lossy(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_numbers_or_strings_and_the_version_may_be_missing() {
        let answer = Message::Response {
            id: Some(7),
            result: Ok(json!(1)),
        };
        assert_eq!(parse(br#"{"id":7,"result":1}"#), answer);
        assert_eq!(parse(br#"{"jsonrpc":"2.0","id":"7","result":1}"#), answer);
        let asked = parse(br#"{"id":"a","method":"m"}"#);
        let expected = Message::Request {
            id: json!("a"),
            method: "m".to_owned(),
            params: Value::Null,
        };
        assert_eq!(asked, expected);
    }

    #[test]
    fn what_is_no_message_is_noise_and_never_an_error() {
        let deep = "[".repeat(100_000);
        for line in [
            "Loading…",
            "{",
            "[]",
            "7",
            "{\"id\":1}",
            "\u{0}",
            deep.as_str(),
        ] {
            assert!(
                matches!(parse(line.as_bytes()), Message::Noise { .. }),
                "{line:.20}"
            );
        }
        assert!(matches!(parse(b"\xff\xfe"), Message::Noise { .. }));
    }

    #[tokio::test]
    async fn writing_goes_on_while_reading_waits_and_requests_get_answers() {
        let (ours, theirs) = tokio::io::duplex(16);
        let (reader, writer) = tokio::io::split(ours);
        let mut peer = Peer::new(reader, writer, Dialect::Bare);
        let long = "x".repeat(1_000);
        let id = peer.request("m", json!({ "text": long }));
        let (their_reader, mut their_writer) = tokio::io::split(theirs);
        let other = async {
            let mut lines = Lines::new(their_reader, 4_096);
            let Line::Full(line) = lines.next().await.unwrap() else {
                panic!("a line")
            };
            assert!(!line.windows(7).any(|part| part == b"jsonrpc"));
            their_writer
                .write_all(b"{\"id\":0,\"result\":true}\n")
                .await
                .unwrap();
        };
        let (message, ()) = tokio::join!(peer.receive(), other);
        assert_eq!(
            message.unwrap(),
            Message::Response {
                id: Some(id),
                result: Ok(json!(true))
            }
        );
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_an_error_and_no_deadlock() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let (reader, writer) = tokio::io::split(ours);
        let mut peer = Peer::new(reader, writer, Dialect::Versioned);
        peer.write_timeout = Duration::from_millis(20);
        peer.notify("m", json!("x".repeat(1_000)));
        assert!(matches!(peer.receive().await, Err(PeerError::NotReading)));
    }
}
