//! The way out of a sandbox, over the real wire: real servers, real clients, the worker's socket
//! between them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch_worker::domain::hosts::Policy;
use dispatch_worker::domain::limits;
use dispatch_worker::gateway::{Gateway, Reason, Refusal, Resolve, proxy_variables, relay};
use dispatch_worker::sandbox::descriptors;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::eventually;

/// Longest wait for anything here.
const BOUND: Duration = Duration::from_secs(20);

/// A server on loopback that counts who comes.
struct Server {
    address: SocketAddr,
    came: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<u8>>>,
    _running: JoinSet<()>,
}

/// What a server does with a connection.
#[derive(Clone)]
enum Manner {
    /// Gives back what it gets, then says bye.
    Echo,
    /// Reads a head and so many bytes of a body, gives this answer and closes.
    Answer(&'static [u8], usize),
    /// Gives pieces of an answer, each when the test permits it.
    Pieces(&'static [&'static [u8]], Arc<Semaphore>),
}

impl Server {
    async fn new(manner: Manner) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), manner).await
    }

    async fn on(address: IpAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut running = JoinSet::new();
        let (counted, kept) = (came.clone(), seen.clone());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (manner, kept) = (manner.clone(), kept.clone());
                connections.spawn(async move {
                    let _ = attend(stream, manner, &kept).await;
                });
            }
        });
        Self {
            address,
            came,
            seen,
            _running: running,
        }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    fn seen(&self) -> String {
        String::from_utf8(self.seen.lock().unwrap().clone()).unwrap()
    }
}

async fn attend(mut stream: TcpStream, manner: Manner, seen: &Mutex<Vec<u8>>) -> io::Result<()> {
    let (answer, body) = match manner {
        Manner::Echo => {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.write_all(b"bye").await?;
            return writer.shutdown().await;
        }
        Manner::Answer(answer, body) => (answer, body),
        Manner::Pieces(..) => (b"".as_slice(), 0),
    };
    let mut request = Vec::new();
    let whole = |request: &[u8]| {
        let end = request.windows(4).position(|four| four == b"\r\n\r\n");
        end.is_some_and(|end| request.len() >= end + 4 + body)
    };
    while !whole(&request) && stream.read_buf(&mut request).await? > 0 {}
    seen.lock().unwrap().extend(&request);
    if let Manner::Pieces(pieces, permits) = &manner {
        for piece in *pieces {
            permits.acquire().await.unwrap().forget();
            stream.write_all(piece).await?;
        }
        return stream.shutdown().await;
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // What comes after the request, if anything.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest)).await;
    seen.lock().unwrap().extend(&rest);
    Ok(())
}

/// Names that lead where a test says, the next time elsewhere.
#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(name: &str, answers: &[&[IpAddr]]) -> Arc<Self> {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Arc::new(Self {
            answers: Mutex::new(HashMap::from([(name.to_owned(), answers)])),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let found = match answers.get_mut(name) {
            Some(left) if left.len() > 1 => Ok(left.remove(0)),
            Some(left) => Ok(left.first().cloned().unwrap_or_default()),
            None => Err(io::Error::other(format!("no such name: {name}"))),
        };
        Box::pin(async move { found })
    }
}

/// A gateway with a directory of its own.
struct Way {
    gateway: Gateway,
    path: PathBuf,
    told: Arc<Mutex<Vec<Refusal>>>,
    _dir: TempDir,
}

impl Way {
    fn new(rules: &[String], names: Arc<Names>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = told.clone();
        let observer = Arc::new(move |refusal| keep.lock().unwrap().push(refusal));
        let policy = Policy::parse(rules).unwrap();
        Self {
            gateway: Gateway::listen_with(&path, policy, observer, names).unwrap(),
            path,
            told,
            _dir: dir,
        }
    }

    fn to(server: &Server) -> Self {
        Self::new(&[server.address.to_string()], Arc::default())
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Send this and read to the end.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // The gateway may refuse and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A tunnel to this place.
    async fn tunnel(&self, target: &str) -> UnixStream {
        let mut stream = self.connect().await;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let expected = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer),
            String::from_utf8_lossy(expected)
        );
        stream
    }

    fn told(&self) -> Vec<Refusal> {
        self.told.lock().unwrap().clone()
    }
}

/// An address of this machine that is in a private network; none on a machine without one.
fn own_private_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses the address it would send from.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    match address {
        IpAddr::V4(v4) if v4.is_private() || v4.is_documentation() => Some(address),
        _ => None,
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    figure.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_tunnel_to_a_listed_host_carries_bytes_both_ways_and_half_closes() {
    let server = Server::new(Manner::Echo).await;
    let way = Way::to(&server);
    let mut stream = way.tunnel(&server.address.to_string()).await;
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    // The server says bye only when it saw our end, and we still hear it.
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    let totals = way.gateway.end().await;
    assert_eq!((totals.allowed, totals.refused), (1, 0));
    assert_eq!((totals.sent_bytes, totals.received_bytes), (5, 8));
    assert!(!way.path.exists(), "the socket outlived its gateway");
}

#[tokio::test]
async fn what_is_sent_with_the_request_for_a_tunnel_is_not_lost() {
    let server = Server::new(Manner::Echo).await;
    let way = Way::to(&server);
    let mut stream = way.connect().await;
    let request = format!("CONNECT {} HTTP/1.0\r\n\r\nearly", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "HTTP/1.1 200 Connection established\r\n\r\nearlybye");
}

#[tokio::test]
async fn a_plain_request_goes_on_for_its_address_and_alone() {
    let answer =
        b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                   Keep-Alive: timeout=5\r\nX-End: 2\r\n\r\nokHTTP/1.1 200 Smuggled\r\n\r\n";
    let server = Server::new(Manner::Answer(answer, 4)).await;
    let way = Way::to(&server);
    let address = server.address;
    let next = format!("GET http://{address}/second HTTP/1.1\r\n\r\n");
    let request = format!(
        "POST http://{address}/first?a=b HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: secret\r\n\
         Proxy-Connection: keep-alive\r\nContent-Length: 4\r\nX-Own: 1\r\n\r\nbody{next}"
    );
    let answer = way.ask(&request).await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 Fine\r\nX-End: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    let expected = format!(
        "POST /first?a=b HTTP/1.1\r\nHost: {address}\r\nX-Own: 1\r\nContent-Length: 4\r\n\
         Connection: close\r\n\r\nbody"
    );
    eventually("the server has seen the end", BOUND, || async {
        server.seen() == expected
    })
    .await;
    assert_eq!(server.came(), 1);
}

#[tokio::test]
async fn an_answer_is_passed_on_piece_by_piece() {
    const PIECES: &[&[u8]] = &[
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nfirst\r\n",
        b"6;x=1\r\nsecond\r\n0\r\n\r\n",
    ];
    let permits = Arc::new(Semaphore::new(0));
    let server = Server::new(Manner::Pieces(PIECES, permits.clone())).await;
    let way = Way::to(&server);
    let mut stream = way.connect().await;
    let request = format!("GET http://{}/ HTTP/1.1\r\n\r\n", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let wanted = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        "5\r\nfirst\r\n",
        "6\r\nsecond\r\n0\r\n\r\n",
    ];
    for expected in wanted {
        permits.add_permits(1);
        let mut piece = vec![0; expected.len()];
        let read = stream.read_exact(&mut piece);
        tokio::time::timeout(BOUND, read).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&piece), expected);
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_refused_and_nobody_is_connected_to() {
    let server = Server::new(Manner::Echo).await;
    let port = server.port();
    let way = Way::new(&["api.example.com".to_owned()], Arc::default());
    for (request, place) in [
        (
            format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n"),
            format!("127.0.0.1:{port}"),
        ),
        (
            format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n"),
            format!("127.0.0.1:{port}"),
        ),
        (
            format!("CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.1\r\n\r\n"),
            format!("127.0.0.1:{port}"),
        ),
        (
            format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\n"),
            format!("localhost:{port}"),
        ),
        (
            "CONNECT evil.example:443 HTTP/1.1\r\n\r\n".to_owned(),
            "evil.example:443".to_owned(),
        ),
        (
            "CONNECT api.example.com.evil.example:443 HTTP/1.1\r\n\r\n".to_owned(),
            "api.example.com.evil.example:443".to_owned(),
        ),
        (
            "CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n".to_owned(),
            "169.254.169.254:80".to_owned(),
        ),
        (
            format!("CONNECT api.example.com:{port} HTTP/1.1\r\n\r\n"),
            format!("api.example.com:{port}"),
        ),
    ] {
        let answer = way.ask(&request).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 Forbidden\r\n"),
            "{request}{answer}"
        );
        assert!(
            answer.contains(&format!("add \"{place}\" to `hosts`")),
            "{answer}"
        );
    }
    for host in [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "api.example.com@127.0.0.1",
        "api.example.com:80@127.0.0.1",
    ] {
        for request in [
            format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n"),
            format!("GET http://{host}:{port}/ HTTP/1.1\r\n\r\n"),
        ] {
            let answer = way.ask(&request).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 Forbidden\r\n"),
                "{request}{answer}"
            );
        }
    }
    assert_eq!(server.came(), 0);
    let told = way.told();
    let of = |host: &str| told.iter().filter(|refusal| refusal.host == host).count();
    assert_eq!(of("127.0.0.1"), 1, "told once, however often it is tried");
    assert!(
        told.iter()
            .any(|refusal| refusal.reason == Reason::OtherPort)
    );
    let totals = way.gateway.end().await;
    assert_eq!((totals.allowed, totals.refused), (0, 8 + 14));
}

#[tokio::test]
async fn a_listed_name_that_leads_to_the_own_machine_or_network_is_refused() {
    let server = Server::new(Manner::Echo).await;
    let rule = format!("trap.example:{}", server.port());
    for (rule, addresses) in [
        (
            rule.clone(),
            "127.0.0.1 ::1 ::ffff:127.0.0.1 10.0.0.1 169.254.169.254 0.0.0.0 100.64.0.1 fd00::1 fe80::1 64:ff9b::7f00:1 224.0.0.1",
        ),
        (
            format!("private:{rule}"),
            "127.0.0.1 ::1 ::ffff:127.0.0.1 169.254.169.254 0.0.0.0 fe80::1 fd00:ec2::254 64:ff9b::7f00:1",
        ),
    ] {
        for address in addresses.split(' ') {
            let address: IpAddr = address.parse().unwrap();
            let names = Names::new("trap.example", &[&[address]]);
            let way = Way::new(std::slice::from_ref(&rule), names.clone());
            let answer = way
                .ask(&format!(
                    "CONNECT trap.example:{} HTTP/1.1\r\n\r\n",
                    server.port()
                ))
                .await;
            assert!(
                answer.starts_with("HTTP/1.1 403 Forbidden\r\n"),
                "{address}: {answer}"
            );
            assert!(
                !answer.contains(&address.to_string()),
                "where it leads is not the agent's to know"
            );
            assert_eq!(way.told()[0].reason, Reason::NotPublic(address));
            assert_eq!(names.asked(), 1);
        }
    }
    assert_eq!(server.came(), 0);
}

#[tokio::test]
async fn a_name_is_resolved_once_so_that_it_cannot_be_rebound() {
    let Some(own) = own_private_address() else {
        eprintln!("skipped: this machine has no private address");
        return;
    };
    let server = Server::on(own, Manner::Echo).await;
    let port = server.port();
    let trap = Server::new(Manner::Echo).await;
    let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
    // First what the rule covers, at once afterwards what it does not.
    let names = Names::new("git.corp.example", &[&[own], &[loopback]]);
    let way = Way::new(&[format!("private:git.corp.example:{port}")], names.clone());
    let mut stream = way.tunnel(&format!("git.corp.example:{port}")).await;
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!((rest.as_str(), names.asked(), server.came()), ("bye", 1, 1));
    let answer = way
        .ask(&format!("CONNECT git.corp.example:{port} HTTP/1.1\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // A mixture: only what is covered is tried. And without `private:` nothing of it.
    let names = Names::new("git.corp.example", &[&[loopback, own]]);
    let way = Way::new(&[format!("private:git.corp.example:{port}")], names.clone());
    drop(way.tunnel(&format!("git.corp.example:{port}")).await);
    let way = Way::new(&[format!("git.corp.example:{port}")], names);
    let answer = way
        .ask(&format!("CONNECT git.corp.example:{port} HTTP/1.1\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!((server.came(), trap.came()), (2, 0));
}

#[tokio::test]
async fn what_is_no_request_or_too_much_of_one_is_answered_and_ended() {
    let way = Way::new(&["a.example".to_owned()], Arc::default());
    let status = |answer: &str| answer.get(9..12).unwrap_or("none").to_owned();
    let flood = format!(
        "GET http://a.example/ HTTP/1.1\r\n{}",
        "x: y\r\n".repeat(100_000)
    );
    assert_eq!(status(&way.ask(&flood).await), "431");
    let endless = format!("GET http://a.example/{}", "a".repeat(1_000_000));
    assert_eq!(status(&way.ask(&endless).await), "431");
    let many = format!(
        "GET http://a.example/ HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(limits::GATEWAY_HEADERS_MAX + 1)
    );
    assert_eq!(status(&way.ask(&many).await), "400");
    for request in [
        "\r\n\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET https://a.example/ HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        assert_eq!(status(&way.ask(request).await), "400", "{request:?}");
    }
    let missing = way.ask("CONNECT a.example:443 HTTP/1.1\r\n\r\n").await;
    assert!(
        missing.starts_with("HTTP/1.1 502") && missing.contains("cannot be resolved"),
        "{missing}"
    );
    assert_eq!(way.told(), []);
}

#[tokio::test]
async fn a_server_that_is_down_or_answers_nonsense_is_a_bad_gateway() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let way = Way::new(&[closed.to_string()], Arc::default());
    let answer = way.ask(&format!("CONNECT {closed} HTTP/1.1\r\n\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("cannot be reached"),
        "{answer}"
    );
    for nonsense in [
        b"".as_slice(),
        b"SSH-2.0-server\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let server = Server::new(Manner::Answer(nonsense, 0)).await;
        let way = Way::to(&server);
        let answer = way
            .ask(&format!("GET http://{}/ HTTP/1.1\r\n\r\n", server.address))
            .await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
}

#[tokio::test]
async fn a_hostile_agent_cannot_flood_the_observer() {
    let way = Way::new(&[], Arc::default());
    for n in 0..200 {
        let answer = way
            .ask(&format!("CONNECT host-{n}.example:443 HTTP/1.1\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    assert_eq!(way.told().len(), limits::GATEWAY_REFUSALS_TOLD_MAX);
    let totals = way.gateway.totals();
    assert_eq!(totals.refused, 200);
    assert_eq!(
        totals.untold,
        200 - limits::GATEWAY_REFUSALS_TOLD_MAX as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_wait_their_turn_in_little_memory() {
    const CLIENTS: usize = 2_000;
    // All ends of all connections are in this process; many systems allow it 1,024 unless it asks for more.
    descriptors::raise().unwrap();
    let server = Server::new(Manner::Echo).await;
    let way = Arc::new(Way::to(&server));
    let target = server.address.to_string();
    drop(way.tunnel(&target).await);
    let before = resident_kib();
    let mut clients = JoinSet::new();
    // More at a time than the gateway serves.
    let open = Arc::new(Semaphore::new(300));
    for n in 0..CLIENTS {
        let (way, target, place) = (
            way.clone(),
            target.clone(),
            open.clone().acquire_owned().await.unwrap(),
        );
        clients.spawn(async move {
            let mut stream = way.tunnel(&target).await;
            let text = format!("client {n}");
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).await.unwrap();
            assert_eq!(back, format!("{text}bye"));
            drop(place);
        });
    }
    while let Some(ended) = tokio::time::timeout(BOUND * 3, clients.join_next())
        .await
        .unwrap()
    {
        ended.unwrap();
    }
    assert_eq!(server.came(), CLIENTS + 1);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn no_more_connections_than_its_bound_are_served_at_once() {
    let way = Way::new(&[], Arc::default());
    let mut silent = Vec::new();
    for _ in 0..limits::GATEWAY_CONNECTIONS_MAX {
        silent.push(way.connect().await);
    }
    let mut asking = Box::pin(way.ask("CONNECT a.example:443 HTTP/1.1\r\n\r\n"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut asking).await;
    assert!(early.is_err(), "it was served beside all others: {early:?}");
    silent.pop();
    let answer = tokio::time::timeout(limits::GATEWAY_HEAD_TIMEOUT / 2, asking)
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_goes_through_in_little_memory_also_to_a_reader_that_is_slow() {
    const BYTES: usize = 64 * 1024 * 1024;
    let server = Server::new(Manner::Echo).await;
    let way = Way::to(&server);
    let (mut reader, mut writer) = way.tunnel(&server.address.to_string()).await.into_split();
    let before = resident_kib();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let piece = vec![7; 64 * 1024];
        for _ in 0..BYTES / piece.len() {
            writer.write_all(&piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let (mut came, mut highest, mut piece) = (0, 0, vec![0; 1024 * 1024]);
    loop {
        let read = reader.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        came += read;
        // Nobody is in a hurry: whatever would be hoarded, is.
        tokio::task::yield_now().await;
        highest = highest.max(resident_kib().saturating_sub(before));
    }
    assert_eq!(came, BYTES + 3);
    assert!(highest < 32 * 1024, "grew by {highest} KiB");
}

#[tokio::test]
async fn the_end_of_a_gateway_ends_its_connections() {
    let server = Server::new(Manner::Echo).await;
    let way = Way::to(&server);
    let mut stream = way.tunnel(&server.address.to_string()).await;
    let Way { gateway, path, .. } = way;
    drop(gateway);
    let read = tokio::time::timeout(BOUND, stream.read(&mut [0]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(!path.exists());
}

/// The relay as a sandbox has it, on a port of its own.
fn relayed(way: &Way, target: Option<String>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let path = way.path.clone();
    // It ends with the process, as in a sandbox.
    std::thread::spawn(move || match target {
        Some(target) => relay::forward(&listener, &path, &target),
        None => relay::run(&listener, &path),
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_carries_both_ways_half_closes_and_refuses_when_nobody_is_behind_it() {
    let server = Server::new(Manner::Echo).await;
    let way = Way::to(&server);
    let target = server.address.to_string();
    for relay in [relayed(&way, None), relayed(&way, Some(target.clone()))] {
        let mut clients = JoinSet::new();
        for n in 0..200 {
            let target = target.clone();
            clients.spawn(async move {
                let mut stream = TcpStream::connect(relay).await.unwrap();
                let text = format!("client {n} ").repeat(2_000);
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut back = String::new();
                stream.read_to_string(&mut back).await.unwrap();
                drop(target);
                back.len()
            });
        }
        let mut lengths = Vec::new();
        while let Some(ended) = tokio::time::timeout(BOUND, clients.join_next())
            .await
            .unwrap()
        {
            lengths.push(ended.unwrap());
        }
        assert_eq!(lengths.len(), 200);
    }
    // To the one place: the text comes back with the bye of the server.
    let mut stream = TcpStream::connect(relayed(&way, Some(target)))
        .await
        .unwrap();
    stream.write_all(b"text").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "textbye");
    // A service that is not listed, and a gateway that is gone: the end at once, no hanging.
    let refused = relayed(&way, Some("127.0.0.1:1".to_owned()));
    let gone = relayed(&way, None);
    let Way { gateway, .. } = way;
    let mut stream = TcpStream::connect(refused).await.unwrap();
    let read = tokio::time::timeout(BOUND, stream.read(&mut [0]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    gateway.end().await;
    let mut stream = TcpStream::connect(gone).await.unwrap();
    let read = tokio::time::timeout(BOUND, stream.read(&mut [0]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_with_the_variables_of_a_sandbox_reaches_what_is_listed_and_reads_why_not() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    let server = Server::new(Manner::Answer(answer, 0)).await;
    let way = Way::to(&server);
    let variables = proxy_variables(relayed(&way, None).port());
    let curl = |arguments: Vec<String>| {
        #[expect(
            clippy::disallowed_methods,
            reason = "a client of the gateway, as an agent starts it"
        )]
        let mut command = Command::new("curl");
        // The server is on loopback, which the variables leave to itself.
        command
            .env_clear()
            .envs(variables.clone())
            .env("no_proxy", "")
            .env("NO_PROXY", "");
        command
            .args(["--silent", "--max-time", "20"])
            .args(arguments);
        command.output()
    };
    if curl(vec!["--version".to_owned()]).await.is_err() {
        eprintln!("skipped: curl is not installed");
        return;
    }
    let url = format!("http://{}/x", server.address);
    for arguments in [
        vec![url.clone()],
        vec!["--proxytunnel".to_owned(), url.clone()],
    ] {
        let output = curl(arguments).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello\n",
            "{output:?}"
        );
    }
    let output = curl(vec!["http://metadata.example/".to_owned()])
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("add \"metadata.example:80\" to `hosts`"),
        "{text}"
    );
    let output = curl(vec!["https://metadata.example/".to_owned()])
        .await
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(56),
        "a tunnel that was refused: {output:?}"
    );
    assert_eq!(way.told().len(), 2);
}
