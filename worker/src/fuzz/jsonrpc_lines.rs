//! Lines of a JSON-RPC peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::agent::jsonrpc::{Dialect, Message, Peer, PeerError};
use crate::agent::lines::{Line, Lines};
use crate::domain::limits;

/// Longest line in this check, so that lines beyond the bound are cheap to make.
const LINE_BYTES_MAX: usize = 64;

thread_local! {
    /// The peer has timers, so it needs a runtime; one for all inputs.
    static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_time().build().ok();
}

/// Messages of a hostile agent: each line is one message, noise, or the end; the same however it
/// is cut into reads; and no text in it holds a NUL.
pub fn jsonrpc_lines(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let at_a_time = usize::from(*first % 9) + 1;
    RUNTIME.with(|runtime| {
        let Some(runtime) = runtime else { return };
        runtime.block_on(async {
            lines_are_those_of_the_text(rest, at_a_time).await;
            let whole = messages(rest, usize::MAX).await;
            assert_eq!(
                whole,
                messages(rest, at_a_time).await,
                "cut reads change it"
            );
            let lines = rest.split(|byte| *byte == b'\n').count();
            assert!(whole.len() <= lines, "more messages than lines");
            whole.iter().for_each(judge);
        });
    });
}

fn judge(message: &Message) {
    match message {
        Message::Request { id, method, params } => {
            assert!(!id.is_null(), "a request without an id is a notification");
            no_nul(id);
            assert!(!method.contains('\0'));
            no_nul(params);
        }
        Message::Notification { method, params } => {
            assert!(!method.contains('\0'));
            no_nul(params);
        }
        Message::Response { id: _, result } => match result {
            Ok(value) => no_nul(value),
            Err(error) => {
                assert!(!error.message.contains('\0'));
                no_nul(&error.data);
            }
        },
        Message::Noise { text } => {
            assert!(!text.contains('\0'));
            // A byte that is no UTF-8 becomes a character of three.
            assert!(text.len() <= 3 * limits::NOISE_LINE_BYTES_SEEN);
        }
    }
}

fn no_nul(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.contains('\0'), "a NUL in a text"),
        Value::Array(values) => values.iter().for_each(no_nul),
        Value::Object(members) => {
            for (key, value) in members {
                assert!(!key.contains('\0'), "a NUL in a key");
                no_nul(value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

async fn messages(text: &[u8], at_a_time: usize) -> Vec<Message> {
    let reader = Pieces { text, at_a_time };
    let mut peer = Peer::new(reader, tokio::io::sink(), Dialect::Versioned);
    let mut found = Vec::new();
    loop {
        match peer.receive().await {
            Ok(message) => found.push(message),
            Err(PeerError::Ended) => return found,
            Err(other) => unreachable!("nothing was sent and no line is long: {other}"),
        }
    }
}

async fn lines_are_those_of_the_text(text: &[u8], at_a_time: usize) {
    let mut lines = Lines::new(Pieces { text, at_a_time }, LINE_BYTES_MAX);
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if !text.is_empty() {
        for expected in body.split(|byte| *byte == b'\n') {
            let line = lines.next().await;
            if expected.len() > LINE_BYTES_MAX {
                assert!(matches!(line, Ok(Line::TooLong)), "a long line was taken");
                return;
            }
            let expected = expected.strip_suffix(b"\r").unwrap_or(expected);
            // A last line that is empty and has no end is none.
            if let Ok(Line::End) = line {
                assert!(expected.is_empty(), "a line was lost");
                return;
            }
            assert!(
                matches!(&line, Ok(Line::Full(found)) if found == expected),
                "{line:?} instead of {expected:?}"
            );
        }
    }
    assert!(
        matches!(lines.next().await, Ok(Line::End)),
        "a line too many"
    );
}

/// Gives a text in reads of so many bytes.
struct Pieces<'a> {
    text: &'a [u8],
    at_a_time: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.text.len().min(self.at_a_time).min(buffer.remaining());
        let (now, later) = self.text.split_at(count);
        buffer.put_slice(now);
        self.text = later;
        Poll::Ready(Ok(()))
    }
}
