//! The way out of a sandbox. An agent whose network is `gateway` has a network namespace with nothing
//! but loopback; a relay in there hands each connection to a unix socket of the worker, and behind
//! the socket stands this: an HTTP proxy that connects to the hosts its entry lists, and to nothing
//! else.
//!
//! Tunnels (`CONNECT`) are not looked into, so a listed host is trusted with whatever the agent sends
//! it. No redirect is followed here: a client that follows one asks again.

mod body;
mod connection;
mod head;
mod meter;
mod refusals;
pub mod relay;
mod request;
mod resolve;
mod variables;

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::connection::Shared;
use crate::domain::hosts::Policy;
use crate::domain::limits;

pub use refusals::{Observer, Reason, Refusal};
pub use resolve::{Resolve, SystemResolver};
pub use variables::proxy_variables;

/// Between two tries to take a connection, when the system has no descriptor left for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The gateway of one attempt. Dropping it closes its connections and removes its socket.
pub struct Gateway {
    path: PathBuf,
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

/// What went through a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that were made.
    pub allowed: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Those of them that differ from all that the observer was told.
    pub untold: u64,
    /// Bytes to servers, of connections that ended.
    pub sent_bytes: u64,
    /// Bytes from servers, likewise.
    pub received_bytes: u64,
}

/// The socket of a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the gateway's socket {path}: {source}")]
pub struct ListenError {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Gateway {
    /// Listen on a socket at this path, which must not exist; its directory should be nobody
    /// else's. Only the worker's own user may connect: chown it for an agent with another one.
    pub fn listen(path: &Path, policy: Policy, observer: Observer) -> Result<Self, ListenError> {
        Self::listen_with(path, policy, observer, Arc::new(SystemResolver::default()))
    }

    /// The same with addresses from elsewhere.
    pub fn listen_with(
        path: &Path,
        policy: Policy,
        observer: Observer,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError {
            path: path.to_owned(),
            source,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        let shared = Arc::new(Shared::new(policy, observer, resolver));
        let mut gateway = Self {
            path: path.to_owned(),
            shared: shared.clone(),
            running: JoinSet::new(),
        };
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        gateway.running.spawn(accept(listener, shared));
        Ok(gateway)
    }

    /// What went through until now.
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// Close everything; what went through.
    pub async fn end(mut self) -> Totals {
        self.running.shutdown().await;
        self.shared.totals()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Take connections, so many at a time; the others wait in the socket's queue.
async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(limits::GATEWAY_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    connection::serve(stream, &shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the gateway could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a request asks for and whether a rule allows it, for the checks of `fuzz`.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) allowed: bool,
    /// The head that a server gets of a plain request.
    pub(crate) sent: Option<Vec<u8>>,
}

/// Understand and judge a request, and connect to nothing.
#[cfg(any(test, fuzzing))]
pub(crate) fn ask(policy: &Policy, head: &[u8]) -> Option<Asked> {
    let request = request::Request::parse(head).ok()?;
    Some(Asked {
        host: request.host.to_string(),
        port: request.port,
        allowed: policy.grant(&request.host, request.port).is_ok(),
        sent: match request.kind {
            request::Kind::Tunnel => None,
            request::Kind::Plain(plain) => Some(plain.head),
        },
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixStream};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn listen(rules: &[String]) -> (Gateway, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let policy = Policy::parse(rules).unwrap();
        let observer = Arc::new(|_| {});
        let gateway = Gateway::listen(&dir.path().join("s"), policy, observer).unwrap();
        (gateway, dir)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_with_its_request_loses_its_place() {
        let (gateway, _dir) = listen(&[]);
        let mut stream = UnixStream::connect(&gateway.path).await.unwrap();
        let begun = Instant::now();
        let (mut reader, mut writer) = stream.split();
        let dribble = async {
            // A byte each second, for ever.
            while writer.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        // A reset follows the answer, since a byte may have come after it.
        let mut answer = Vec::new();
        tokio::select! {
            _ = reader.read_to_end(&mut answer) => {}
            () = dribble => {}
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(
            begun.elapsed() < limits::GATEWAY_HEAD_TIMEOUT * 2,
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_tries_door_after_door_is_slowed_down() {
        let (gateway, _dir) = listen(&[]);
        let begun = Instant::now();
        for n in 0..=limits::GATEWAY_REFUSALS_AT_ONCE {
            assert!(
                begun.elapsed() < limits::GATEWAY_REFUSAL_PAUSE,
                "refusal {n} waited"
            );
            let mut stream = UnixStream::connect(&gateway.path).await.unwrap();
            stream
                .write_all(b"CONNECT a.b:443 HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 403"));
        }
        assert!(begun.elapsed() >= limits::GATEWAY_REFUSAL_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_moves_is_ended() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap().to_string();
        let (gateway, _dir) = listen(std::slice::from_ref(&target));
        let mut stream = UnixStream::connect(&gateway.path).await.unwrap();
        let request = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (_silent, _) = server.accept().await.unwrap();
        let begun = Instant::now();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 200"), "{all}");
        let waited = begun.elapsed();
        let limit = limits::GATEWAY_IDLE_TIMEOUT;
        assert!(waited >= limit && waited < limit * 2, "{waited:?}");
    }
}
