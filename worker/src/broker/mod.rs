//! Live fan-out of a task's stream; the durable history is the store's.
//!
//! Readers only ever see stored, numbered events, so that history and live tail are the same
//! bytes. A slow reader falls back to reading the store and never slows a run.

pub mod writer;

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self};
use tokio_util::sync::CancellationToken;

use crate::domain::event::TaskEvent;
use crate::domain::ids::TaskId;
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError, streams};

/// Events read from the store at a time.
const PAGE: i32 = 200;

/// How often a reader looks although nothing woke it: while LISTEN is up, and while it is down.
const LOOK_UP: Duration = Duration::from_secs(2);
const LOOK_DOWN: Duration = Duration::from_millis(250);

/// What a reader wants of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// What is there now.
    History,
    /// What is there, then what comes, until the task has ended and everything is told.
    ToTheEnd,
}

/// The way to read streams. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    store: Store,
    listener: Listener,
}

impl Broker {
    /// A broker that reads this store and is woken by this listener.
    pub fn new(store: Store, listener: Listener) -> Self {
        Self { store, listener }
    }

    /// Whether notifications come, or do so within this time.
    pub async fn listens(&self, within: Duration) -> bool {
        let mut connected = self.listener.connected();
        let up = connected.wait_for(|up| *up);
        tokio::time::timeout(within, up)
            .await
            .is_ok_and(|up| up.is_ok())
    }

    /// Wait until a task has ended, so long at most; says whether it has.
    pub async fn ended(&self, task: TaskId, within: Duration) -> Result<bool, StoreError> {
        let mut reader = self.reader(task, i64::MAX, Follow::ToTheEnd, CancellationToken::new());
        let waiting = async {
            while !streams::is_told(&self.store, task, i64::MAX).await? {
                reader.wait().await;
            }
            Ok(true)
        };
        let waited = tokio::time::timeout(within, waiting).await;
        waited.unwrap_or(Ok(false))
    }

    /// The stream of a task after a number, without gap or duplicate. Ends with an error of kind
    /// `Unavailable` when the database stays away; the reader goes on after the last number it
    /// has.
    pub fn follow(
        &self,
        task: TaskId,
        after_seq: i64,
        follow: Follow,
        stop: CancellationToken,
    ) -> BoxStream<'static, Result<TaskEvent, StoreError>> {
        let reader = self.reader(task, after_seq, follow, stop);
        Box::pin(stream::try_unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Ok(next.map(|event| (event, reader)))
        }))
    }
}

impl Broker {
    fn reader(&self, task: TaskId, last: i64, follow: Follow, stop: CancellationToken) -> Reader {
        Reader {
            store: self.store.clone(),
            // Subscribed before the first look, so that nothing slips between look and wait.
            wakeups: self.listener.subscribe(),
            listener: self.listener.clone(),
            task,
            last,
            follow,
            stop,
            page: VecDeque::new(),
            ended: false,
        }
    }
}

struct Reader {
    store: Store,
    wakeups: broadcast::Receiver<Wakeup>,
    listener: Listener,
    task: TaskId,
    last: i64,
    follow: Follow,
    stop: CancellationToken,
    page: VecDeque<TaskEvent>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<TaskEvent>, StoreError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.last = event.seq;
                // A requeued task has its old end in the middle of its stream.
                self.ended = match event.kind.as_str() {
                    "task_requeued" => false,
                    _ => self.ended || event.is_terminal(),
                };
                return Ok(Some(event));
            }
            self.page = streams::read(&self.store, self.task, self.last, PAGE)
                .await?
                .into();
            if !self.page.is_empty() {
                continue;
            }
            if self.ended || self.follow == Follow::History || self.stop.is_cancelled() {
                return Ok(None);
            }
            // A reader that comes back after the end has seen it in an earlier life.
            if streams::is_told(&self.store, self.task, self.last).await? {
                return Ok(None);
            }
            self.wait().await;
        }
    }

    /// Until there may be more.
    async fn wait(&mut self) {
        let look = if *self.listener.connected().borrow() {
            LOOK_UP
        } else {
            LOOK_DOWN
        };
        let timer = tokio::time::sleep(look);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = &mut timer => return,
                heard = self.wakeups.recv() => match heard {
                    Ok(Wakeup::Events(id)) if id == self.task.0 => return,
                    Ok(Wakeup::Gap) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    // The listener is gone: only the timer is left.
                    Err(RecvError::Closed) => {
                        timer.await;
                        return;
                    }
                }
            }
        }
    }
}
