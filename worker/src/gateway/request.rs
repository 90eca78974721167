//! The head of a request → what is asked for, and the head that goes on. One request a connection:
//! what is sent on is built anew from what was understood, and says `Connection: close`, so that
//! nobody behind us can see a second request where we saw one.

use super::body::Framing;
use super::head::{Head, hop_by_hop};
use crate::domain::hosts::Host;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) kind: Kind,
}

/// How.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `CONNECT`: bytes both ways.
    Tunnel,
    /// A request for a resource by plain HTTP.
    Plain(Plain),
}

/// A request that is sent on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// Its head as the server gets it.
    pub(super) head: Vec<u8>,
    /// Where its body ends.
    pub(super) body: Framing,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    /// It asks for the head of the answer only.
    pub(super) is_head: bool,
}

/// A request that cannot be understood, or not safely.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It names a host in a way that is not accepted.
    Host { text: String, why: String },
    /// It is no request to a proxy.
    Request(&'static str),
}

impl Request {
    /// Understand a head.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let mut slots = Head::slots();
        let mut parsed = httparse::Request::new(&mut slots);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => {
                return Err(Fault::Request("this is no HTTP/1.x request"));
            }
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Fault::Request("this is no HTTP/1.x request"));
        };
        let head = Head::new(parsed.headers);
        if method == "CONNECT" {
            let (host, port) = named(target, None)?;
            let kind = Kind::Tunnel;
            return Ok(Self { host, port, kind });
        }
        let Some(rest) = strip_http(target) else {
            return Err(Fault::Request(
                "the gateway is a proxy: use CONNECT for https, and a full http:// address otherwise",
            ));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('#') {
            return Err(Fault::Request("an address in a request has no fragment"));
        }
        let (host, port) = named(authority, Some(80))?;
        let body = head.request_framing(version).map_err(Fault::Request)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut sent =
            format!("{method} {slash}{path} HTTP/1.{version}\r\nHost: {host}").into_bytes();
        if port != 80 {
            sent.extend(format!(":{port}").bytes());
        }
        sent.extend(b"\r\n");
        let own = ["host", "expect", "content-length", "transfer-encoding"];
        head.copy_to(&mut sent, |name| own.contains(&name) || hop_by_hop(name));
        body.write_to(&mut sent);
        sent.extend(b"Connection: close\r\n\r\n");
        let plain = Plain {
            head: sent,
            body,
            expects_continue: version == 1 && head.has_token("expect", "100-continue"),
            is_head: method == "HEAD",
        };
        let kind = Kind::Plain(plain);
        Ok(Self { host, port, kind })
    }
}

fn named(text: &str, usual: Option<u16>) -> Result<(Host, u16), Fault> {
    Host::with_port(text, usual).map_err(|why| Fault::Host {
        text: text.to_owned(),
        why: why.to_string(),
    })
}

fn strip_http(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(head: &str) -> (String, Plain) {
        let request = Request::parse(head.as_bytes()).unwrap();
        let Kind::Plain(plain) = request.kind else {
            panic!("a plain request")
        };
        (String::from_utf8(plain.head.clone()).unwrap(), plain)
    }

    fn refused(head: &str) -> String {
        match Request::parse(head.as_bytes()).expect_err(head) {
            Fault::Host { why, .. } => why,
            Fault::Request(why) => why.to_owned(),
        }
    }

    #[test]
    fn a_tunnel_names_host_and_port() {
        for version in ["0", "1"] {
            let head = format!("CONNECT Example.com:443 HTTP/1.{version}\r\nHost: other\r\n\r\n");
            let request = Request::parse(head.as_bytes()).unwrap();
            assert_eq!(
                (request.host.to_string(), request.port),
                ("example.com".to_owned(), 443)
            );
            assert_eq!(request.kind, Kind::Tunnel);
        }
        assert!(refused("CONNECT example.com HTTP/1.1\r\n\r\n").contains("port"));
        assert!(refused("CONNECT http://example.com:443 HTTP/1.1\r\n\r\n").contains("bracket"));
    }

    #[test]
    fn the_host_is_that_of_the_address_and_hop_by_hop_headers_stay_here() {
        let (sent, _) = plain(
            "GET http://Example.com:8080/a?b=c HTTP/1.1\r\nHost: evil.org\r\nProxy-Authorization: x\r\n\
             Proxy-Connection: keep-alive\r\nConnection: keep-alive, X-Secret\r\nx-secret: 1\r\n\
             Upgrade: websocket\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
        );
        assert_eq!(
            sent,
            "GET /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let (sent, _) = plain("GET HTTP://a.b HTTP/1.0\r\n\r\n");
        assert_eq!(
            sent,
            "GET / HTTP/1.0\r\nHost: a.b\r\nConnection: close\r\n\r\n"
        );
        let (sent, _) = plain("GET http://a.b?q HTTP/1.1\r\n\r\n");
        assert!(
            sent.starts_with("GET /?q HTTP/1.1\r\nHost: a.b\r\n"),
            "{sent}"
        );
    }

    #[test]
    fn where_a_body_ends_is_never_in_doubt() {
        let (sent, request) =
            plain("POST http://a.b/ HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n");
        assert_eq!(request.body, Framing::Length(5));
        assert_eq!(sent.matches("ontent-").count(), 1, "{sent}");
        let (sent, request) = plain(
            "POST http://a.b/ HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n",
        );
        assert_eq!(request.body, Framing::Chunked);
        assert!(request.expects_continue && !sent.contains("Expect"));
        for headers in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \x0bchunked",
            "Content-Length : 5",
            "A: b\r\n Content-Length: 5",
        ] {
            let _ = refused(&format!("POST http://a.b/ HTTP/1.1\r\n{headers}\r\n\r\n"));
        }
        let _ = refused("POST http://a.b/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn what_is_no_request_to_a_proxy_is_refused() {
        assert!(refused("GET / HTTP/1.1\r\nHost: a.b\r\n\r\n").contains("proxy"));
        assert!(refused("GET https://a.b/ HTTP/1.1\r\n\r\n").contains("CONNECT"));
        assert!(refused("GET ftp://a.b/ HTTP/1.1\r\n\r\n").contains("proxy"));
        assert!(refused("GET http://good.com@evil.org/ HTTP/1.1\r\n\r\n").contains("user name"));
        assert!(refused("GET http://good.com#@evil.org/ HTTP/1.1\r\n\r\n").contains("fragment"));
        assert!(refused("GET http://good.com\\@evil.org/ HTTP/1.1\r\n\r\n").contains("user name"));
        assert!(refused("GET http:///etc/passwd HTTP/1.1\r\n\r\n").contains("empty"));
        for other in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01",
            "GET",
            "GET http://a.b/ HTTP/1.1\r\nbad header\r\n\r\n",
        ] {
            let _ = refused(other);
        }
    }
}
