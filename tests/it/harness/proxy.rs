//! A wire to Postgres that can be cut at a chosen message, or go dead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_util::sync::CancellationToken;

/// Where a connection is cut, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The COMMIT of a transaction that stores an end never reaches the server.
    BeforeCommit,
    /// It does, and the answer never reaches the client.
    AfterCommit,
    /// A statement with this text never reaches the server.
    Statement(&'static str),
    /// An answer with this text never reaches the client.
    Answer(&'static str),
}

#[derive(Default)]
struct State {
    cut: Mutex<Option<Cut>>,
    fired: AtomicBool,
    refuse: AtomicBool,
    deaf: AtomicBool,
    all: Mutex<CancellationToken>,
}

/// A proxy in front of one database; gone when dropped.
pub struct Proxy {
    url: String,
    state: Arc<State>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// A proxy in front of the database at this address.
    pub async fn new(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let host = config.get_hosts().first().unwrap().clone();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = socket.local_addr().unwrap().port();
        let secret = config.get_password().map_or(String::new(), |password| {
            format!(":{}", String::from_utf8_lossy(password))
        });
        let state = Arc::new(State::default());
        let mut running = JoinSet::new();
        running.spawn(serve(socket, host, port, state.clone()));
        Self {
            url: format!("postgresql://{user}{secret}@127.0.0.1:{here}/{database}?sslmode=disable"),
            state,
            _running: running,
        }
    }

    /// The database's address through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Cut the next connection that comes to this point.
    pub fn cut_at(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }

    /// Whether it has been cut.
    pub fn has_cut(&self) -> bool {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// Cut every connection now, and let no new one through.
    pub fn down(&self) {
        self.state.refuse.store(true, Ordering::SeqCst);
        self.state.all.lock().unwrap().cancel();
    }

    /// Let connections through again.
    pub fn up(&self) {
        *self.state.all.lock().unwrap() = CancellationToken::new();
        self.state.refuse.store(false, Ordering::SeqCst);
    }

    /// Carry nothing any more, without a word to either side; `false` carries again.
    pub fn deaf(&self, deaf: bool) {
        self.state.deaf.store(deaf, Ordering::SeqCst);
    }
}

async fn serve(socket: TcpListener, host: Host, port: u16, state: Arc<State>) {
    let mut pairs = JoinSet::new();
    while let Ok((client, _)) = socket.accept().await {
        if state.refuse.load(Ordering::SeqCst) {
            continue;
        }
        let all = state.all.lock().unwrap().clone();
        let (state, host) = (state.clone(), host.clone());
        pairs.spawn(async move {
            let carried = async {
                match host {
                    Host::Unix(dir) => {
                        let server = UnixStream::connect(dir.join(format!(".s.PGSQL.{port}")));
                        carry(client, server.await.unwrap(), &state).await;
                    }
                    Host::Tcp(name) => {
                        let server = TcpStream::connect((name, port)).await.unwrap();
                        carry(client, server, &state).await;
                    }
                }
            };
            tokio::select! {
                () = carried => {}
                () = all.cancelled() => {}
            }
        });
    }
}

/// Carry bytes both ways until one side ends or the cut is reached.
async fn carry(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    state: &State,
) {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    let (mut stores_an_end, mut lose_answer) = (false, false);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &from_client[..count];
                if state.deaf.load(Ordering::SeqCst) {
                    continue;
                }
                let cut = *state.cut.lock().unwrap();
                if let Some(Cut::Statement(text)) = cut
                    && contains(bytes, text)
                    && take(state, Cut::Statement(text))
                {
                    return;
                }
                stores_an_end |= contains(bytes, "INSERT INTO outcomes");
                if stores_an_end && contains(bytes, "COMMIT\0") {
                    if take(state, Cut::BeforeCommit) {
                        return;
                    }
                    lose_answer = take(state, Cut::AfterCommit);
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &from_server[..count];
                if state.deaf.load(Ordering::SeqCst) {
                    continue;
                }
                let cut = *state.cut.lock().unwrap();
                if let Some(Cut::Answer(text)) = cut
                    && contains(bytes, text)
                {
                    take(state, Cut::Answer(text));
                    return;
                }
                if lose_answer || client.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether this cut is wanted; then it is used up.
fn take(state: &State, cut: Cut) -> bool {
    let mut wanted = state.cut.lock().unwrap();
    let hit = *wanted == Some(cut);
    if hit {
        *wanted = None;
        state.fired.store(true, Ordering::SeqCst);
    }
    hit
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
