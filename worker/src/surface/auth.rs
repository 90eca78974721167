//! Who may call over HTTP. Bearer tokens only, never cookies; and the names a caller may use for
//! this server, so that a web page cannot reach it by a name of its own (DNS rebinding).

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::cli::roles::ServeArgs;
use super::problem::Problem;
use crate::domain::limits;
use crate::domain::redact::Secret;
use crate::ops::OpError;
use crate::telemetry;

/// Shortest token that is not guessed.
const TOKEN_CHARS_MIN: usize = 20;

/// Checks every request before anything else looks at it.
pub struct Gate {
    tokens: Vec<[u8; 32]>,
    hosts: Vec<String>,
}

impl Gate {
    /// The gate of a server on which nothing can be asked.
    pub fn closed() -> Self {
        Self {
            tokens: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// The gate of a server; refuses to serve others than this machine without a token.
    pub fn from_args(args: &ServeArgs) -> Result<Self, OpError> {
        let mut tokens: Vec<String> = args.token.iter().cloned().collect();
        if let Some(path) = &args.token_file {
            let text = std::fs::read_to_string(path).map_err(|e| {
                OpError::invalid(format!(
                    "cannot read the token file {}: {e}",
                    path.display()
                ))
            })?;
            tokens.extend(text.lines().map(|line| line.trim().to_owned()));
        }
        tokens.retain(|token| !token.is_empty() && !token.starts_with('#'));
        if tokens.iter().any(|token| token.len() < TOKEN_CHARS_MIN) {
            return Err(OpError::invalid(format!(
                "a token has at least {TOKEN_CHARS_MIN} characters"
            ))
            .hint("Make one: head -c 32 /dev/urandom | base64"));
        }
        if tokens.len() > limits::HTTP_TOKENS_MAX {
            return Err(OpError::invalid(format!(
                "at most {} tokens are allowed",
                limits::HTTP_TOKENS_MAX
            )));
        }
        if tokens.is_empty() && !args.listen.ip().is_loopback() {
            return Err(OpError::invalid(format!(
                "serving {} without a token would let everybody in",
                args.listen
            ))
            .hint("Give --token-file FILE, or listen on 127.0.0.1."));
        }
        let secret = |token: &String| Secret::new("DISPATCH_HTTP_TOKEN", token);
        telemetry::keep_out(&tokens.iter().filter_map(secret).collect::<Vec<_>>());
        Ok(Self::new(&tokens, &args.hosts))
    }

    /// A gate with these tokens and these names of the server besides loopback ones.
    pub fn new(tokens: &[String], hosts: &[String]) -> Self {
        Self {
            tokens: tokens.iter().map(|t| Sha256::digest(t).into()).collect(),
            hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
        }
    }

    /// Whether this request may go on, and for whom.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
        self.check_names(uri, headers)?;
        self.check_token(headers)?;
        Ok(actor(headers))
    }

    fn check_names(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let refuse = |code, detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, code, detail));
        let named = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let named = named.or_else(|| uri.authority().map(|authority| authority.as_str()));
        if !named.is_some_and(|authority| self.is_ours(authority)) {
            return refuse(
                "foreign_host",
                "the Host header is not a name of this server; start it with --host NAME",
            );
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(());
        };
        let authority = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, authority)| authority);
        if authority.is_some_and(|authority| self.is_ours(authority)) {
            return Ok(());
        }
        refuse(
            "foreign_origin",
            "requests of other web sites are not answered",
        )
    }

    /// Loopback, a configured name, or, where a token is needed anyway, a bare address: only names
    /// can be rebound.
    fn is_ours(&self, authority: &str) -> bool {
        let host = without_port(authority).to_ascii_lowercase();
        if host == "localhost" || self.hosts.contains(&host) {
            return true;
        }
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || !self.tokens.is_empty())
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .unwrap_or("");
        let given: [u8; 32] = Sha256::digest(given).into();
        let mut known = Choice::from(0);
        for token in &self.tokens {
            known |= token.ct_eq(&given);
        }
        if known.into() {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the request needs a known bearer token",
        ))
    }
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority
            .find(']')
            .map_or(authority, |end| &authority[..=end]);
    }
    authority
        .split_once(':')
        .map_or(authority, |(host, _)| host)
}

/// Who calls, as the token's holder says; the record tells that it came over HTTP.
fn actor(headers: &HeaderMap) -> String {
    let named = headers
        .get("x-dispatch-actor")
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.len() <= limits::ACTOR_BYTES_MAX);
    named.map_or_else(|| "http".to_owned(), |name| format!("{name} (http)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect()
    }

    fn code(gate: &Gate, pairs: &[(&'static str, &str)]) -> &'static str {
        let uri = Uri::from_static("/api/v1/tasks");
        gate.admit(&uri, &headers(pairs))
            .map_or_else(|problem| problem.code, |_| "in")
    }

    #[test]
    fn only_names_of_this_server_get_in() {
        let gate = Gate::new(&[], &["dispatch.example".to_owned()]);
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "Dispatch.Example",
        ] {
            assert_eq!(code(&gate, &[("host", host)]), "in", "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.5",
            "localhost.evil.example",
        ] {
            assert_eq!(code(&gate, &[("host", host)]), "foreign_host", "{host}");
        }
        let with_token = Gate::new(&["0123456789012345678901".to_owned()], &[]);
        assert_eq!(
            code(&with_token, &[("host", "10.0.0.5:80")]),
            "unauthorized"
        );
        assert_eq!(code(&gate, &[]), "foreign_host");
    }

    #[test]
    fn pages_of_other_sites_do_not_get_in() {
        let gate = Gate::new(&[], &[]);
        let from = |origin| code(&gate, &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(from("http://localhost:3000"), "in");
        assert_eq!(from("https://evil.example"), "foreign_origin");
        assert_eq!(from("null"), "foreign_origin");
    }

    #[test]
    fn only_a_known_token_gets_in() {
        let gate = Gate::new(&["0123456789012345678901".to_owned()], &[]);
        let with = |value| code(&gate, &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer 0123456789012345678901"), "in");
        assert_eq!(with("bearer 0123456789012345678901"), "in");
        for wrong in [
            "Bearer 012345678901234567890",
            "Bearer ",
            "Basic 0123456789012345678901",
            "x",
        ] {
            assert_eq!(with(wrong), "unauthorized", "{wrong}");
        }
    }
}
