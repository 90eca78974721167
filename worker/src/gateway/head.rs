//! Headers of requests and answers: which go on, and what they say about the body.

use super::body::Framing;
use crate::domain::limits;

/// Headers that are said between two neighbours only (RFC 9110, 7.6.1), with the old ones of
/// proxies.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
];

/// The headers of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// Room for as many headers as a message may have.
    pub(super) fn slots() -> [httparse::Header<'a>; limits::GATEWAY_HEADERS_MAX] {
        [httparse::EMPTY_HEADER; limits::GATEWAY_HEADERS_MAX]
    }

    pub(super) fn new(headers: &'a [httparse::Header<'a>]) -> Self {
        Self { headers }
    }

    /// Whether a header that is a list has this word.
    pub(super) fn has_token(self, name: &str, token: &str) -> bool {
        self.tokens(name)
            .any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Write those headers that go on; `skip` gets their names in lower case. What `Connection`
    /// names never goes on.
    pub(super) fn copy_to(self, out: &mut Vec<u8>, skip: impl Fn(&str) -> bool) {
        for header in self.headers {
            let name = header.name.to_ascii_lowercase();
            if skip(&name) || self.has_token("connection", &name) {
                continue;
            }
            out.extend(header.name.bytes());
            out.extend(b": ");
            out.extend(header.value);
            out.extend(b"\r\n");
        }
    }

    /// Where the body of a request ends. What servers read differently is refused: that is how
    /// requests are smuggled.
    pub(super) fn request_framing(self, version: u8) -> Result<Framing, &'static str> {
        let length = self.length()?;
        if !self.has("transfer-encoding") {
            return Ok(length.map_or(Framing::Nothing, Framing::Length));
        }
        if length.is_some() {
            return Err("a request has a Content-Length or a Transfer-Encoding, not both");
        }
        if version == 0 || !self.is_chunked() {
            return Err("the only Transfer-Encoding of a request is chunked, in HTTP/1.1");
        }
        Ok(Framing::Chunked)
    }

    /// Where the body of an answer ends.
    pub(super) fn response_framing(self) -> Result<Framing, &'static str> {
        if self.has("transfer-encoding") {
            // Anything else than chunked ends where the connection ends.
            return Ok(if self.is_chunked() {
                Framing::Chunked
            } else {
                Framing::UntilEnd
            });
        }
        Ok(self.length()?.map_or(Framing::UntilEnd, Framing::Length))
    }

    fn has(self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Exactly one transfer encoding, which is `chunked`.
    fn is_chunked(self) -> bool {
        let mut encodings = self.values("transfer-encoding");
        let first = encodings.next().unwrap_or_default();
        encodings.next().is_none() && first.trim_ascii().eq_ignore_ascii_case(b"chunked")
    }

    fn length(self) -> Result<Option<u64>, &'static str> {
        const BAD: &str = "Content-Length is one plain number";
        let mut found = None;
        for value in self.values("content-length") {
            let value = value.trim_ascii();
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(BAD);
            }
            let text = std::str::from_utf8(value).map_err(|_| BAD)?;
            let length: u64 = text.parse().map_err(|_| BAD)?;
            if found.is_some_and(|other| other != length) {
                return Err(BAD);
            }
            found = Some(length);
        }
        Ok(found)
    }

    fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers.iter();
        headers
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    fn tokens(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }
}

/// Whether a header, in lower case, is between neighbours only.
pub(super) fn hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}
