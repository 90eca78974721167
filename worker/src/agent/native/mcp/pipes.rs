//! The two pipes of an MCP server, as what the client library speaks over. What a server says is
//! untrusted: it costs bounded memory, whatever it is.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use futures::{Sink, Stream, StreamExt};
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

use crate::agent::lines::{Line, Lines};
use crate::domain::limits;

/// Why nothing more is read of a server, once that is so.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence(Arc<Fact>);

#[derive(Debug, Default)]
struct Fact {
    why: OnceLock<Why>,
    known: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Ended,
    LongLine,
    AsksTooMuch,
}

impl Silence {
    fn is_for(&self, why: Why) {
        let _first_reason_stays = self.0.why.set(why);
        self.0.known.cancel();
    }

    /// In words, if it is so.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.why.get().map(ToString::to_string)
    }

    /// Wait until it is so.
    pub(super) async fn begins(&self) -> String {
        self.0.known.cancelled().await;
        self.reason().unwrap_or_default()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("it ended"),
            Self::LongLine => write!(
                f,
                "it said more than {} MiB in one message, and is not listened to any more",
                limits::MCP_LINE_BYTES_MAX >> 20
            ),
            Self::AsksTooMuch => write!(
                f,
                "it asked more than {} times, and is not listened to any more",
                limits::MCP_REQUESTS_MAX
            ),
        }
    }
}

/// Messages from lines, each bounded. What is no message is left out, and so is what a server
/// notes: nobody here reads it.
pub(super) fn reader(
    stdout: ChildStdout,
    silence: Silence,
) -> impl Stream<Item = RxJsonRpcMessage<RoleClient>> + Send {
    let reading = Reading {
        lines: Lines::new(stdout, limits::MCP_LINE_BYTES_MAX),
        requests: 0,
        silence,
    };
    futures::stream::unfold(reading, |mut reading| async move {
        let message = reading.next().await?;
        Some((message, reading))
    })
    .boxed()
}

struct Reading {
    lines: Lines<ChildStdout>,
    /// What it asked of us. Each has an answer, which waits until the server reads it.
    requests: usize,
    silence: Silence,
}

impl Reading {
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let line = match self.lines.next().await {
                Ok(Line::Full(line)) => line,
                Ok(Line::TooLong) => return self.over(Why::LongLine),
                Ok(Line::End) | Err(_) => return self.over(Why::Ended),
            };
            match serde_json::from_slice(&line) {
                Ok(JsonRpcMessage::Notification(_)) | Err(_) => {}
                Ok(JsonRpcMessage::Request(_)) if self.requests >= limits::MCP_REQUESTS_MAX => {
                    return self.over(Why::AsksTooMuch);
                }
                Ok(request @ JsonRpcMessage::Request(_)) => {
                    self.requests += 1;
                    return Some(request);
                }
                Ok(answer @ (JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_))) => {
                    return Some(answer);
                }
            }
        }
    }

    fn over<T>(&self, why: Why) -> Option<T> {
        self.silence.is_for(why);
        None
    }
}

/// Lines from messages.
pub(super) fn writer(
    stdin: ChildStdin,
    silence: Silence,
) -> impl Sink<TxJsonRpcMessage<RoleClient>, Error = io::Error> + Send {
    futures::sink::unfold(
        (stdin, silence),
        |(mut stdin, silence), message| async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let written = async {
                stdin.write_all(&line).await?;
                stdin.flush().await
            };
            if let Err(error) = written.await {
                // Nobody reads it: seen here before the end of what it says is.
                silence.is_for(Why::Ended);
                return Err(error);
            }
            Ok((stdin, silence))
        },
    )
}
