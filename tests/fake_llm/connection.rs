//! One connection, which is one request: what comes in, and bytes that go out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::format::{self, Format};
use crate::{Stub, play};

/// A request.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Map<String, Value>,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) sent: String,
}

impl Asked {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// The path without its query.
    pub(crate) fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// Serve it.
pub(crate) fn serve(stub: &Stub, stream: TcpStream) {
    // A client that goes away is no fault of the stub.
    let _ = stream.set_nodelay(true);
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    let Ok(Some(asked)) = read(&mut reader) else {
        return;
    };
    let mut client = Client { stream, held: None };
    let answer = match (asked.method.as_str(), asked.route()) {
        ("GET", "/__ledger") => stub.ledger.all(),
        ("GET", "/__open") => json!(stub.ledger.open()),
        ("GET", route) => return list(stub, &mut client, &asked, route),
        (_, route) => match Format::of_route(route) {
            Some(format) => return play::answer(stub, &mut client, &asked, format),
            None => {
                let body = json!({"error": {"message": format!("fake-llm has no {route}")}});
                return client.whole(404, &[], &body.to_string());
            }
        },
    };
    client.whole(200, &[], &answer.to_string());
}

fn list(stub: &Stub, client: &mut Client, asked: &Asked, route: &str) {
    if !play::is_let_in(stub, asked) {
        let body = json!({"error": {"message": "Incorrect API key provided"}});
        return client.whole(401, &[], &body.to_string());
    }
    match format::models(route) {
        Some(body) => client.whole(200, &[], &body.to_string()),
        None => client.whole(404, &[], "{\"error\":{\"message\":\"no such page\"}}"),
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = Map::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_lowercase(), json!(value.trim()));
        }
    }
    let length = headers.get("content-length").and_then(Value::as_str);
    let length: usize = length.and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(text.clone()));
    Ok(Some(Asked {
        method,
        path,
        headers,
        body,
        sent: text,
    }))
}

/// How the end of a body is marked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Framing {
    Chunked,
    CloseDelimited,
}

/// The other end.
pub(crate) struct Client {
    stream: TcpStream,
    /// What is sent when the request is written down: who has read the end of an answer finds it
    /// in the ledger.
    held: Option<Vec<u8>>,
}

impl Client {
    /// An answer in one piece.
    pub(crate) fn whole(&mut self, status: u16, headers: &[(String, String)], body: &str) {
        let mut head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let _ = self.send(format!("{head}\r\n{body}").as_bytes());
    }

    /// Headers of a stream.
    pub(crate) fn head(&mut self, content_type: &str, framing: Framing) -> std::io::Result<()> {
        let framing = match framing {
            Framing::Chunked => "transfer-encoding: chunked\r\n",
            Framing::CloseDelimited => "",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{framing}connection: close\r\n\r\n"
        );
        self.send(head.as_bytes())
    }

    /// A piece of a body.
    pub(crate) fn piece(&mut self, bytes: &[u8], framing: Framing) -> std::io::Result<()> {
        match framing {
            _ if bytes.is_empty() => Ok(()),
            Framing::CloseDelimited => self.send(bytes),
            Framing::Chunked => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                self.send(&chunk)
            }
        }
    }

    /// The end of a body.
    pub(crate) fn end(&mut self, framing: Framing) -> std::io::Result<()> {
        match framing {
            Framing::Chunked => self.send(b"0\r\n\r\n"),
            Framing::CloseDelimited => Ok(()),
        }
    }

    /// Whether it goes away within this time; `None`: however long it takes.
    pub(crate) fn is_gone_within(&mut self, wait: Option<Duration>) -> bool {
        if self.stream.set_read_timeout(wait).is_err() {
            return true;
        }
        let mut rest = [0u8; 64];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let waited = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                    return !waited.contains(&e.kind());
                }
            }
        }
    }

    /// Keep back what is sent from now on.
    pub(crate) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Send what was kept back.
    pub(crate) fn release(&mut self) {
        if let Some(bytes) = self.held.take() {
            let _ = self.send(&bytes);
        }
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return Ok(());
        }
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }
}
