//! One connection of a client: one request, one answer or one tunnel, and the end.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::Totals;
use super::body::Framing;
use super::head::{Head, hop_by_hop};
use super::meter::{Meter, Metered};
use super::refusals::{Observer, Reason, Refusal, Refusals, Told, shown};
use super::request::{Fault, Kind, Plain, Request};
use super::resolve::Resolve;
use crate::domain::hosts::{Denied, Grant, Host, Policy};
use crate::domain::limits;
use crate::telemetry::figures::{self, Passage};

/// Read at a time from either side.
const READ_BYTES: usize = 16 * 1024;

/// Answers of the kind `100 Continue` before the real one; a server with more never comes to it.
const INTERIM_ANSWERS_MAX: usize = 16;

/// What all connections of one gateway share.
pub(super) struct Shared {
    policy: Policy,
    refusals: Refusals,
    resolver: Arc<dyn Resolve>,
    allowed: AtomicU64,
    refused: AtomicU64,
    untold: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Why there is no connection to a server.
enum Missed {
    Refused(Refusal),
    /// Status and reason for the client.
    Failed(u16, String),
}

/// How reading a head ended.
enum HeadRead {
    Whole(Vec<u8>),
    TooLong,
    Ended,
}

impl Shared {
    pub(super) fn new(policy: Policy, observer: Observer, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            policy,
            refusals: Refusals::new(observer),
            resolver,
            allowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            allowed: self.allowed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            untold: self.untold.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
        }
    }

    fn count_refused(&self, refusal: &Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.refusals.tell(refusal) == Told::Never {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        figures::passages(Passage::Refused, 1);
    }

    fn count_moved(&self, meter: &Meter) {
        let (sent, received) = (meter.sent(), meter.received());
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
        figures::gateway_bytes(sent, received);
    }
}

/// Counts what went through, also of a connection that is cut off.
struct CountAtEnd<'a> {
    meter: &'a Meter,
    shared: &'a Shared,
}

impl Drop for CountAtEnd<'_> {
    fn drop(&mut self) {
        self.shared.count_moved(self.meter);
    }
}

/// Serve one connection to its end. Errors of it are the client's to notice.
pub(super) async fn serve(stream: UnixStream, shared: &Shared) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    if let Err(error) = converse(&mut reader, &mut writer, shared).await {
        tracing::debug!(%error, "a connection through the gateway broke off");
    }
}

async fn converse(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<()> {
    let Ok(head) = timeout(limits::GATEWAY_HEAD_TIMEOUT, read_head(reader)).await else {
        return answer(writer, 408, "dispatch: the request did not come in time.\n").await;
    };
    let head = match head? {
        HeadRead::Whole(head) => head,
        HeadRead::TooLong => {
            return answer(
                writer,
                431,
                "dispatch: the head of the request is too long.\n",
            )
            .await;
        }
        HeadRead::Ended => return Ok(()),
    };
    let request = match Request::parse(&head) {
        Ok(request) => request,
        Err(Fault::Request(why)) => {
            return answer(writer, 400, &format!("dispatch: {why}.\n")).await;
        }
        Err(Fault::Host { text, why }) => {
            let refusal = Refusal {
                host: shown(&text),
                port: None,
                reason: Reason::Spelling(why),
            };
            return refuse(writer, &refusal, shared).await;
        }
    };
    let server = match reach(&request, shared).await {
        Ok(server) => server,
        Err(Missed::Refused(refusal)) => {
            return refuse(writer, &refusal, shared).await;
        }
        Err(Missed::Failed(status, why)) => {
            figures::passages(Passage::Failed, 1);
            return answer(writer, status, &format!("dispatch: {why}.\n")).await;
        }
    };
    shared.allowed.fetch_add(1, Ordering::Relaxed);
    figures::passages(Passage::Allowed, 1);
    let meter = Meter::new();
    let _counted = CountAtEnd {
        meter: &meter,
        shared,
    };
    let server = Metered::new(server, &meter);
    let carried = async {
        match request.kind {
            Kind::Tunnel => tunnel(reader, writer, server).await,
            Kind::Plain(plain) => forward(&plain, reader, writer, server).await,
        }
    };
    tokio::select! {
        carried = carried => carried,
        () = meter.silence(limits::GATEWAY_IDLE_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Connect to what was asked for, if a rule allows it. The name is resolved here and nowhere else.
async fn reach(request: &Request, shared: &Shared) -> Result<TcpStream, Missed> {
    let Request { host, port, .. } = request;
    let refused = |reason| {
        Missed::Refused(Refusal {
            host: shown(&host.to_string()),
            port: Some(*port),
            reason,
        })
    };
    let grant = shared.policy.grant(host, *port).map_err(|denied| {
        refused(match denied {
            Denied::Host => Reason::NotListed,
            Denied::Port => Reason::OtherPort,
        })
    })?;
    let found = match (&grant, host) {
        (Grant::Addresses(addresses), _) => addresses.clone(),
        (Grant::Public | Grant::PublicAndPrivate, Host::Address(address)) => vec![*address],
        (Grant::Public | Grant::PublicAndPrivate, Host::Name(name)) => lookup(name, shared).await?,
    };
    let covered: Vec<IpAddr> = found
        .iter()
        .map(IpAddr::to_canonical)
        .filter(|address| grant.covers(*address))
        .take(limits::GATEWAY_ADDRESSES_MAX)
        .collect();
    if let (true, Some(first)) = (covered.is_empty(), found.first()) {
        return Err(refused(Reason::NotPublic(*first)));
    }
    let mut missed = Missed::Failed(502, format!("{host} has no address"));
    for address in covered {
        let connected = TcpStream::connect((address, *port));
        match timeout(limits::GATEWAY_CONNECT_TIMEOUT, connected).await {
            Ok(Ok(stream)) if grant == Grant::Public && is_own(&stream) => {
                return Err(refused(Reason::NotPublic(address)));
            }
            Ok(Ok(stream)) => {
                // Small pieces of a conversation must not wait for each other.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                missed = Missed::Failed(502, format!("{host}:{port} cannot be reached: {error}"));
            }
            Err(_) => missed = Missed::Failed(504, format!("{host}:{port} does not answer")),
        }
    }
    Err(missed)
}

/// Whether this machine is at both ends: a public address of its own reaches what it keeps behind its
/// firewall.
fn is_own(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(own), Ok(peer)) => own.ip() == peer.ip(),
        _ => true,
    }
}

async fn lookup(name: &str, shared: &Shared) -> Result<Vec<IpAddr>, Missed> {
    let found = shared.resolver.resolve(name);
    match timeout(limits::GATEWAY_LOOKUP_TIMEOUT, found).await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Missed::Failed(
            502,
            format!("{name} cannot be resolved: {error}"),
        )),
        Err(_) => Err(Missed::Failed(
            504,
            format!("{name} was not resolved in time"),
        )),
    }
}

async fn tunnel(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    mut server: Metered<'_, TcpStream>,
) -> io::Result<()> {
    // Without any header: Bun takes those of this answer for the server's (oven-sh/bun#30380).
    writer
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    let mut client = tokio::io::join(reader, writer);
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn forward(
    plain: &Plain,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    server: Metered<'_, TcpStream>,
) -> io::Result<()> {
    if plain.expects_continue {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let (from_server, mut to_server) = tokio::io::split(server);
    let mut from_server = BufReader::with_capacity(READ_BYTES, from_server);
    let mut answered = pin!(respond(&mut from_server, writer, plain.is_head));
    let sent = async {
        to_server.write_all(&plain.head).await?;
        plain.body.carry(reader, &mut to_server).await?;
        // Whatever comes now is no part of this request, except the end.
        if reader.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        std::future::pending::<io::Result<()>>().await
    };
    let error: io::Error = tokio::select! {
        answered = &mut answered => return answered,
        Err(error) = sent => error,
    };
    if error.kind() == io::ErrorKind::UnexpectedEof {
        // The client went away.
        return Err(error);
    }
    // A server may answer and close before it has read everything.
    timeout(limits::GATEWAY_CONNECT_TIMEOUT, answered)
        .await
        .unwrap_or(Err(error))
}

/// Carry the answer of a server to the client.
async fn respond(
    server: &mut (impl AsyncBufRead + Unpin),
    writer: &mut OwnedWriteHalf,
    is_head: bool,
) -> io::Result<()> {
    for _ in 0..INTERIM_ANSWERS_MAX {
        let Ok(HeadRead::Whole(head)) = read_head(server).await else {
            return answer(writer, 502, "dispatch: the server gave no answer.\n").await;
        };
        match answer_head(&head, is_head) {
            Some(Answer::Interim) => {}
            Some(Answer::Final(head, body)) => {
                writer.write_all(&head).await?;
                return body.carry(server, writer).await;
            }
            None => break,
        }
    }
    answer(writer, 502, "dispatch: the server gave no valid answer.\n").await
}

/// A server's answer.
enum Answer {
    /// The real one comes later.
    Interim,
    /// As the client gets it, and where its body ends.
    Final(Vec<u8>, Framing),
}

fn answer_head(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let mut slots = Head::slots();
    let mut parsed = httparse::Response::new(&mut slots);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let status = parsed.code?;
    match status {
        // Nothing was offered to switch to.
        101 => return None,
        100..200 => return Some(Answer::Interim),
        _ => {}
    }
    let reason = parsed.reason.unwrap_or_default();
    let head = Head::new(parsed.headers);
    let framing = head.response_framing().ok()?;
    let mut sent = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    head.copy_to(&mut sent, |name| {
        ["content-length", "transfer-encoding"].contains(&name) || hop_by_hop(name)
    });
    framing.write_to(&mut sent);
    sent.extend(b"Connection: close\r\n\r\n");
    let has_body = !is_head && !matches!(status, 204 | 304);
    let body = if has_body { framing } else { Framing::Nothing };
    Some(Answer::Final(sent, body))
}

/// Read up to the empty line, and not a byte further.
async fn read_head(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<HeadRead> {
    let mut head = Vec::new();
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(HeadRead::Ended);
        }
        // By lines, so that each byte is looked at once.
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |at| at + 1);
        head.extend_from_slice(bytes.get(..used).unwrap_or_default());
        reader.consume(used);
        if head.len() > limits::GATEWAY_HEAD_BYTES_MAX {
            return Ok(HeadRead::TooLong);
        }
        if end.is_some() && (head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")) {
            return Ok(HeadRead::Whole(head));
        }
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, refusal: &Refusal, shared: &Shared) -> io::Result<()> {
    shared.count_refused(refusal);
    if shared.refused.load(Ordering::Relaxed) > limits::GATEWAY_REFUSALS_AT_ONCE {
        sleep(limits::GATEWAY_REFUSAL_PAUSE).await;
    }
    answer(writer, 403, &refusal.words()).await
}

async fn answer(writer: &mut (impl AsyncWrite + Unpin), status: u16, text: &str) -> io::Result<()> {
    let reason = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        _ => "Gateway Timeout",
    };
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    writer.write_all(answer.as_bytes()).await?;
    writer.shutdown().await
}
