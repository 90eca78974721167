//! LISTEN on a connection of its own, as a stream of wake-ups. NOTIFY only hastens: every reader
//! also looks by itself from time to time.

use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use crate::domain::limits;

/// A connection that keeps failing is told of this often.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// What a notification says. Payloads carry ids only. Anybody who may connect can send one: it says
/// when to look, never what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// There are ready tasks.
    Ready,
    /// Tasks that waited became ready again, older than what was claimed last.
    Moved,
    /// A task waits for its time, or was requeued.
    Later,
    /// Somebody wants this task cancelled.
    Cancel(i64),
    /// A permission request was answered.
    Permission(i64),
    /// A change was approved.
    Change(i64),
    /// This task's stream has more.
    Events(i64),
    /// Somebody sent something into this conversation.
    Inbox(i64),
    /// Something is asked of workers, or answered.
    Lookup,
    /// A provider is paused, or is not any more.
    Providers,
    /// A ping of our own, carrying its number.
    Ping(i64),
    /// The connection was lost for a while: whatever is waited for may have happened.
    Gap,
}

impl FromStr for Wakeup {
    type Err = ();

    fn from_str(payload: &str) -> Result<Self, ()> {
        let (word, rest) = payload.split_once(' ').unwrap_or((payload, ""));
        let id = || rest.parse::<i64>().map_err(|_| ());
        match word {
            "ready" => Ok(Self::Ready),
            "moved" => Ok(Self::Moved),
            "later" => Ok(Self::Later),
            "cancel" => id().map(Self::Cancel),
            "permission" => id().map(Self::Permission),
            "change" => id().map(Self::Change),
            "events" => id().map(Self::Events),
            "inbox" => id().map(Self::Inbox),
            "lookup" => Ok(Self::Lookup),
            "providers" => Ok(Self::Providers),
            "ping" => id().map(Self::Ping),
            _ => Err(()),
        }
    }
}

/// Wake-ups for everyone in the process who waits for something.
#[derive(Clone)]
pub struct Listener {
    wakeups: broadcast::Sender<Wakeup>,
    connected: watch::Receiver<bool>,
    connected_tx: watch::Sender<bool>,
    quiet: Duration,
    /// Channel that hears nothing but our own pings, so that they wake nobody else. The same for
    /// every connection: a pooler keeps what was once listened to.
    own: Arc<str>,
}

impl Default for Listener {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener {
    /// A listener that hears nothing until `run` runs.
    pub fn new() -> Self {
        let (connected_tx, connected) = watch::channel(false);
        Self {
            wakeups: broadcast::Sender::new(4_096),
            connected,
            connected_tx,
            quiet: limits::LISTEN_QUIET,
            own: format!("dispatch_ping_{}", uuid::Uuid::new_v4().simple()).into(),
        }
    }

    /// The same, which pings itself after this much silence; for tests that do not wait for it.
    pub fn pinging_after(self, quiet: Duration) -> Self {
        Self { quiet, ..self }
    }

    /// Hear what comes from now on. A lagging receiver should act as on `Wakeup::Gap`.
    pub fn subscribe(&self) -> broadcast::Receiver<Wakeup> {
        self.wakeups.subscribe()
    }

    /// Whether the connection is up now.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Keep listening until cancelled; reconnects with growing pauses (0.1 s to 30 s).
    pub async fn run(&self, url: &str, stop: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        let mut warned_at: Option<Instant> = None;
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = self.listen_once(url) => heard,
            };
            let was_up = self.connected_tx.send_replace(false);
            if let Err(error) = heard {
                // Behind a pooler it never works, and that is said once and not all the time.
                if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned_at = Some(Instant::now());
                    tracing::warn!(%error, "LISTEN is down; falling back to polling until it is back");
                } else {
                    tracing::debug!(%error, "LISTEN is down");
                }
            }
            if was_up {
                pause = Duration::from_millis(100);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }

    async fn listen_once(&self, url: &str) -> Result<(), StoreError> {
        let (config, tls) = super::parse_url(url)?;
        let connecting = tokio::time::timeout(limits::CONNECT_TIMEOUT, config.connect(tls));
        let (client, mut connection) = connecting
            .await
            .map_err(|_elapsed| StoreError::silent("connect", limits::CONNECT_TIMEOUT))?
            .map_err(|e| StoreError::from_pg("connect", &e))?;
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        let begin: Asking<'_> = Box::pin(begin(&client, &self.own));
        let mut asking = Some(begin);
        let mut listening = false;
        // Until then something must be heard: an answer, our ping, or anything else.
        let alarm = tokio::time::sleep(limits::LISTEN_PATIENCE);
        tokio::pin!(alarm);
        let mut pinged = true;
        loop {
            let answer = async {
                match asking.as_mut() {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answered = answer => {
                    asking = None;
                    answered.map_err(|e| StoreError::from_pg("listen", &e))?;
                    if !listening {
                        listening = true;
                        pinged = false;
                        alarm.as_mut().reset(Instant::now() + self.quiet);
                        self.connected_tx.send_replace(true);
                        self.publish(Wakeup::Gap);
                    }
                }
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(note))) => {
                        pinged = false;
                        alarm.as_mut().reset(Instant::now() + self.quiet);
                        if let Ok(wakeup) = note.payload().parse() {
                            self.publish(wakeup);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(StoreError::from_pg("listen", &error)),
                    None => return Ok(()),
                },
                () = &mut alarm => {
                    if pinged {
                        return Err(silent("listen"));
                    }
                    pinged = true;
                    asking = Some(Box::pin(ping(&client, &self.own)));
                    alarm.as_mut().reset(Instant::now() + limits::LISTEN_PATIENCE);
                }
            }
        }
    }

    /// Wake everyone in this process, as a notification would.
    pub fn publish(&self, wakeup: Wakeup) {
        // Nobody waiting is fine.
        let _receivers = self.wakeups.send(wakeup);
    }
}

/// Something asked of the server while its messages are read.
type Asking<'a> = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send + 'a>>;

async fn begin(client: &Client, own: &str) -> Result<(), tokio_postgres::Error> {
    // Not prepared by name: this may lead through a pooler after all.
    let rows = client.query_typed("SELECT dispatch_channel()", &[]).await?;
    let channel = rows.first().map(|row| row.try_get::<_, String>(0));
    let channel = channel.transpose()?.unwrap_or_default();
    let quoted = channel.replace('"', "\"\"");
    client
        .batch_execute(&format!("LISTEN \"{quoted}\"; LISTEN {own}"))
        .await
}

async fn ping(client: &Client, own: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("NOTIFY {own}")).await
}

fn silent(what: &str) -> StoreError {
    StoreError::silent(what, limits::LISTEN_PATIENCE)
}
