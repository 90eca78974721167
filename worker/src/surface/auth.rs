//! Who may call over HTTP. Bearer tokens only, never cookies: those of the database, with their scopes,
//! and those of the server's own file, with all. And the names a caller may use for this server, so that
//! a web page cannot reach it by a name of its own (DNS rebinding).

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::cli::roles::ServeArgs;
use super::problem::Problem;
use super::traffic::{Place, Traffic, Who};
use crate::config::secret_file;
use crate::domain::limits;
use crate::domain::redact::Secret;
use crate::domain::scope::Scope;
use crate::ops::{OpContext, OpError, token};
use crate::telemetry;

/// Shortest token that is not guessed.
const TOKEN_CHARS_MIN: usize = 20;

/// How often it is looked whether the token of an open stream is still good.
const TOKEN_LOOK: Duration = Duration::from_secs(5);

/// Who calls, and what they may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For the record.
    pub(crate) actor: String,
    /// Of their token.
    pub(crate) scopes: Vec<Scope>,
    /// The hash of a token that may be ended; those of the server's file last as long as the server.
    pub(crate) token: Option<[u8; 32]>,
}

impl Caller {
    /// Refuse what their token is not good for.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), OpError> {
        if scope.is_in(&self.scopes) {
            return Ok(());
        }
        let needed = scope.as_str();
        Err(
            OpError::forbidden(format!("this needs a token with the scope {needed}"))
                .code("insufficient_scope")
                .hint(format!(
                    "An operator makes one: dispatch tokens create NAME --scope {needed}"
                )),
        )
    }

    /// Until their token is good for nothing any more: somebody ended it, or its time is over.
    pub(crate) async fn ends(self, context: OpContext) {
        let Some(hash) = self.token else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(TOKEN_LOOK).await;
            match token::holder(&context, &hash).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the token of a stream could not be looked at")
                }
            }
        }
    }
}

/// What becomes of callers without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// They are refused.
    Refused,
    /// They may do everything: the server is for this machine alone, and somebody wanted it.
    Welcome,
}

/// Checks every request before anything else looks at it.
pub struct Gate {
    tokens: Vec<[u8; 32]>,
    hosts: Vec<String>,
    strangers: Strangers,
    traffic: Traffic,
}

impl Gate {
    /// The gate of a server on which nothing can be asked.
    pub fn closed() -> Self {
        Self {
            tokens: Vec::new(),
            hosts: Vec::new(),
            strangers: Strangers::Refused,
            traffic: Traffic::unlimited(),
        }
    }

    /// The gate of a server; refuses to serve others than this machine without a token.
    pub fn from_args(args: &ServeArgs) -> Result<Self, OpError> {
        let named = args.token_file.as_deref();
        let file = named.filter(|file| !file.as_os_str().is_empty());
        let text = secret_file::either("DISPATCH_HTTP_TOKEN", args.token.clone(), file);
        let text = text.map_err(|why| {
            OpError::invalid(why)
                .hint("The file is that of --token-file or DISPATCH_HTTP_TOKEN_FILE.")
        })?;
        let text = text.unwrap_or_default();
        let mut tokens: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        tokens.retain(|token| !token.is_empty() && !token.starts_with('#'));
        if let (Some(file), true) = (file, tokens.is_empty()) {
            return Err(
                OpError::invalid(format!("{} holds no token", file.display()))
                    .hint("Write one a line into it, or leave --token-file out."),
            );
        }
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
        if args.without_token && !args.listen.ip().is_loopback() {
            return Err(OpError::invalid(format!(
                "serving {} without a token would let everybody in",
                args.listen
            ))
            .hint("Leave --without-token out, or listen on 127.0.0.1."));
        }
        if args.without_token && !tokens.is_empty() {
            return Err(
                OpError::invalid("--without-token and a token contradict each other")
                    .hint("Leave one of them out."),
            );
        }
        let secret = |token: &String| Secret::new("DISPATCH_HTTP_TOKEN", token);
        telemetry::keep_out(&tokens.iter().filter_map(secret).collect::<Vec<_>>());
        let strangers = match args.without_token {
            true => Strangers::Welcome,
            false => Strangers::Refused,
        };
        let traffic = Traffic::new(args.rate_limit, args.open_limit);
        Ok(Self::new(&tokens, &args.hosts, strangers).limited(traffic))
    }

    /// A gate with these tokens and these names of the server besides loopback ones, without limits.
    pub fn new(tokens: &[String], hosts: &[String], strangers: Strangers) -> Self {
        Self {
            tokens: tokens.iter().map(|t| Sha256::digest(t).into()).collect(),
            hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            strangers,
            traffic: Traffic::unlimited(),
        }
    }

    /// The same with limits for its callers.
    pub fn limited(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    /// Whether this request may go on, for whom, and the place that it takes.
    pub(crate) async fn admit(
        &self,
        context: &OpContext,
        uri: &Uri,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<(Caller, Option<Place>), Problem> {
        self.check_names(uri, headers)?;
        let peer = Who::at(peer);
        let (caller, who) = self.caller(context, headers, peer).await?;
        Ok((caller, self.traffic.enter(&who)?))
    }

    async fn caller(
        &self,
        context: &OpContext,
        headers: &HeaderMap,
        peer: Who,
    ) -> Result<(Caller, Who), Problem> {
        if self.strangers == Strangers::Welcome {
            return Ok((everything(headers), peer));
        }
        let given = bearer(headers);
        let hash: [u8; 32] = Sha256::digest(given).into();
        let mut known = Choice::from(0);
        for token in &self.tokens {
            known |= token.ct_eq(&hash);
        }
        if known.into() {
            return Ok((everything(headers), Who::Token(hash)));
        }
        self.traffic.may_try(&peer, &hash)?;
        let holder = match given.starts_with(token::PREFIX) {
            true => token::holder(context, &hash).await?,
            false => None,
        };
        let Some((name, scopes)) = holder else {
            self.traffic.was_wrong(&peer, &hash)?;
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the request needs a valid bearer token; an operator makes one: dispatch tokens create NAME --scope SCOPE",
            ));
        };
        self.traffic.was_right(hash);
        let caller = Caller {
            actor: format!("{name} (http)"),
            scopes,
            token: Some(hash),
        };
        Ok((caller, Who::Token(hash)))
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
            .is_ok_and(|ip| ip.is_loopback() || self.strangers == Strangers::Refused)
    }
}

/// The token of a request; empty: it has none.
fn bearer(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim())
}

/// Whoever may do everything may also do it for somebody else.
fn everything(headers: &HeaderMap) -> Caller {
    Caller {
        actor: actor(headers),
        scopes: vec![Scope::Admin],
        token: None,
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

    /// No database answers here: what it would be asked for is refused.
    async fn code(gate: &Gate, pairs: &[(&'static str, &str)]) -> &'static str {
        let uri = Uri::from_static("/api/v1/tasks");
        let nowhere = "postgres://nobody@127.0.0.1:1/none?connect_timeout=1";
        let (context, _listener) = OpContext::open(nowhere, 1, "http".to_owned()).unwrap();
        let admitted = gate.admit(&context, &uri, &headers(pairs), None).await;
        admitted.map_or_else(|problem| problem.code, |_| "in")
    }

    const TOKEN: &str = "0123456789012345678901";

    #[tokio::test]
    async fn only_names_of_this_server_get_in() {
        let gate = Gate::new(&[], &["dispatch.example".to_owned()], Strangers::Welcome);
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "Dispatch.Example",
        ] {
            assert_eq!(code(&gate, &[("host", host)]).await, "in", "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.5",
            "localhost.evil.example",
        ] {
            assert_eq!(
                code(&gate, &[("host", host)]).await,
                "foreign_host",
                "{host}"
            );
        }
        let with_token = Gate::new(&[TOKEN.to_owned()], &[], Strangers::Refused);
        assert_eq!(
            code(&with_token, &[("host", "10.0.0.5:80")]).await,
            "unauthorized"
        );
        assert_eq!(code(&gate, &[]).await, "foreign_host");
    }

    #[tokio::test]
    async fn pages_of_other_sites_do_not_get_in() {
        let gate = Gate::new(&[], &[], Strangers::Welcome);
        for (origin, expected) in [
            ("http://localhost:3000", "in"),
            ("https://evil.example", "foreign_origin"),
            ("null", "foreign_origin"),
        ] {
            let told = code(&gate, &[("host", "localhost"), ("origin", origin)]).await;
            assert_eq!(told, expected, "{origin}");
        }
    }

    #[tokio::test]
    async fn only_a_known_token_gets_in() {
        let gate = Gate::new(&[TOKEN.to_owned()], &[], Strangers::Refused);
        for (value, expected) in [
            ("Bearer 0123456789012345678901", "in"),
            ("bearer 0123456789012345678901", "in"),
            ("Bearer 012345678901234567890", "unauthorized"),
            ("Bearer ", "unauthorized"),
            ("Basic 0123456789012345678901", "unauthorized"),
            ("x", "unauthorized"),
            // It may be one; nobody can look.
            ("Bearer dt_0123456789", "unavailable"),
        ] {
            let told = code(&gate, &[("host", "localhost"), ("authorization", value)]).await;
            assert_eq!(told, expected, "{value}");
        }
        let closed = Gate::new(&[], &[], Strangers::Refused);
        let told = code(&closed, &[("host", "localhost")]).await;
        assert_eq!(told, "unauthorized", "no token is none that is known");
    }
}
