//! The one writer of a worker's streams: rows of all its attempts go out in shared transactions,
//! so that two hundred streaming agents cost a dozen commits a second and not thousands.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::store::listen::{Listener, Wakeup};
use crate::store::streams::{self, EventRow, ItemRow};
use crate::store::{Store, StoreError};
use crate::telemetry::figures;

/// Rows on their way; beyond this the attempts wait, and with them their agents' pipes.
const QUEUE_ROWS: usize = 1_024;

/// How long a batch may gather.
const GATHER: Duration = Duration::from_millis(20);

/// Rows and bytes of one batch.
const BATCH_ROWS: usize = 512;
const BATCH_BYTES: usize = 1024 * 1024;

/// What the writer finds out about an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It has lost its lease.
    Lost,
    /// The database refuses an event of it, in these words; nothing of it is stored from there on,
    /// so that its stream has no gap.
    Refused(String),
}

/// Told what the writer finds out, by token.
pub type OnTrouble = Arc<dyn Fn(i64, Trouble) + Send + Sync>;

/// One row on its way.
pub enum Row {
    /// An event of about this many bytes.
    Event(EventRow, usize),
    /// A finished item.
    Item(ItemRow),
}

impl Row {
    /// About how much it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event(_, bytes) => *bytes,
            Self::Item(row) => row.text.as_ref().map_or(0, String::len),
        }
    }
}

enum Message {
    Row(Row),
    Flush(oneshot::Sender<()>),
}

/// Room for one row.
pub struct Room<'a>(mpsc::Permit<'a, Message>);

impl Room<'_> {
    /// Hand the row over.
    pub fn put(self, row: Row) {
        self.0.send(Message::Row(row));
    }
}

/// The attempts' end of the writer. Cheap to clone.
#[derive(Clone)]
pub struct EventWriter(mpsc::Sender<Message>);

/// The end that writes; run it until every `EventWriter` is dropped.
pub struct WriterTask {
    store: Store,
    listener: Listener,
    on_trouble: OnTrouble,
    /// Attempts whose streams have ended at a refusal, by token.
    refused: HashSet<i64>,
    messages: mpsc::Receiver<Message>,
}

impl EventWriter {
    /// A writer and its task.
    pub fn new(store: Store, listener: Listener, on_trouble: OnTrouble) -> (Self, WriterTask) {
        let (sender, messages) = mpsc::channel(QUEUE_ROWS);
        (
            Self(sender),
            WriterTask {
                store,
                listener,
                on_trouble,
                refused: HashSet::new(),
                messages,
            },
        )
    }

    /// Wait for room for one row; there is none while the database is behind. Nothing is lost when
    /// the wait is given up. `None`: the writer is gone, and with it the worker.
    pub async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }

    /// Wait until everything handed over before is stored (or its lease turned out lost).
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.send(Message::Flush(done)).await.is_ok() {
            let _task_gone = wait.await;
        }
    }
}

#[derive(Default)]
struct Batch {
    events: Vec<EventRow>,
    items: Vec<ItemRow>,
    waiting: Vec<oneshot::Sender<()>>,
    bytes: usize,
    since: Option<Instant>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        self.since.get_or_insert_with(Instant::now);
        match message {
            Message::Row(row) => {
                self.bytes += row.bytes();
                match row {
                    Row::Event(row, _) => self.events.push(row),
                    Row::Item(row) => self.items.push(row),
                }
            }
            Message::Flush(done) => self.waiting.push(done),
        }
    }

    fn leave_out(&mut self, refused: &HashSet<i64>) {
        if !refused.is_empty() {
            self.events.retain(|event| !refused.contains(&event.token));
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() + self.items.len() >= BATCH_ROWS
            || self.bytes >= BATCH_BYTES
            || !self.waiting.is_empty()
    }
}

impl WriterTask {
    /// Write until every sender is gone.
    pub async fn run(mut self) {
        while let Some(first) = self.messages.recv().await {
            let mut batch = Batch::default();
            batch.take(first);
            let gather = tokio::time::sleep(GATHER);
            tokio::pin!(gather);
            while !batch.is_full() {
                tokio::select! {
                    () = &mut gather => break,
                    next = self.messages.recv() => match next {
                        Some(message) => batch.take(message),
                        None => break,
                    }
                }
            }
            batch.leave_out(&self.refused);
            self.write(&batch).await;
            for done in batch.waiting {
                let _waiter_gone = done.send(());
            }
        }
    }

    async fn write(&mut self, batch: &Batch) {
        if batch.events.is_empty() && batch.items.is_empty() {
            return;
        }
        if let Err(error) = self.write_patiently(&batch.events, &batch.items).await {
            // Something in the batch cannot be stored: find out whose it is, so that one
            // attempt's odd bytes do not end the streams of the others.
            tracing::warn!(%error, "a batch of events was refused; storing attempt by attempt");
            self.write_one_by_one(batch).await;
        }
        if let Some(since) = batch.since {
            metrics::histogram!("dispatch_event_lag_seconds").record(since.elapsed().as_secs_f64());
        }
        figures::events_stored(batch.events.len() as u64);
        let tasks: HashSet<i64> = batch.events.iter().map(|e| e.task).collect();
        for task in tasks {
            self.listener.publish(Wakeup::Events(task));
        }
    }

    async fn write_one_by_one(&mut self, batch: &Batch) {
        let tokens: HashSet<i64> = batch.events.iter().map(|e| e.token).collect();
        for token in tokens {
            let events: Vec<EventRow> = batch
                .events
                .iter()
                .filter(|e| e.token == token)
                .cloned()
                .collect();
            if let Err(error) = self.write_patiently(&events, &[]).await {
                tracing::error!(%error, token, "events of an attempt cannot be stored");
                self.refused.insert(token);
                (self.on_trouble)(token, Trouble::Refused(error.to_string()));
            }
        }
        for item in &batch.items {
            if let Err(error) = self.write_patiently(&[], std::slice::from_ref(item)).await {
                tracing::error!(%error, task.id = item.task, "an item cannot be stored");
            }
        }
    }

    /// Try until the database is back; only a refusal is an error.
    async fn write_patiently(
        &self,
        events: &[EventRow],
        items: &[ItemRow],
    ) -> Result<(), StoreError> {
        let mut pause = Duration::from_millis(50);
        loop {
            match streams::append(&self.store, events, items).await {
                Ok(held) => {
                    let held: HashSet<i64> = held.into_iter().collect();
                    let lost: HashSet<i64> = events
                        .iter()
                        .map(|e| e.token)
                        .filter(|t| !held.contains(t))
                        .collect();
                    for token in lost {
                        (self.on_trouble)(token, Trouble::Lost);
                    }
                    return Ok(());
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "events wait for the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
