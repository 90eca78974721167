//! What an attempt tells: numbers its events, joins deltas into rows, and assembles the items of
//! the conversation.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::AgentEvent;
use crate::agent::event::ToolCall;
use crate::broker::writer::{EventWriter, Room, Row};
use crate::domain::limits;
use crate::domain::redact::{RedactedText, Redactor};
use crate::store::attempts::Times;
use crate::store::claims::Claimed;
use crate::store::streams::{EventRow, ItemRow};
use crate::telemetry::figures;

use super::leash::Leash;
use super::text::{storable, storable_text, tail_chars};

/// Text of an item is cut into several at this size, so that no row grows without bound.
const ITEM_BYTES_MAX: usize = 1024 * 1024;

/// The stream of one attempt. Only the attempt writes to it while it holds the lease.
pub struct AttemptStream {
    writer: EventWriter,
    leash: Leash,
    /// Rows that found no room after the attempt was stopped, and their bytes: waiting for a
    /// database that is behind must not keep an agent alive.
    kept: VecDeque<Row>,
    kept_bytes: usize,
    task: i64,
    token: i64,
    attempt: i16,
    conversation: i64,
    next_seq: i64,
    next_item: i32,
    delta: Option<Delta>,
    piece: Option<Piece>,
    tools: HashMap<String, (i32, ToolCall)>,
    /// For what the worker says.
    redactor: Redactor,
    /// For what the agent said: it knows what the agent renewed, too.
    of_agent: Redactor,
    /// What is being said, of which the last characters may wait for the next ones.
    spoken: RedactedText,
    voice: Voice,
    summary: String,
    bytes: usize,
    /// When things happened first.
    pub times: Times,
}

/// Which kind of text is being said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Text,
    Thought,
}

impl Voice {
    /// Kinds of its deltas and of its items.
    fn kinds(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("text", "text"),
            Self::Thought => ("thought", "thinking"),
        }
    }
}

/// A row of deltas that is still open.
struct Delta {
    kind: &'static str,
    text: String,
    since: Instant,
}

/// An item of text that is still open.
struct Piece {
    kind: &'static str,
    text: String,
}

impl AttemptStream {
    /// The stream of a claimed task, from its next number on.
    pub fn new(writer: EventWriter, claimed: &Claimed, conversation: i64, leash: Leash) -> Self {
        Self {
            writer,
            leash,
            kept: VecDeque::new(),
            kept_bytes: 0,
            task: claimed.lease.task().0,
            token: claimed.lease.token().0,
            attempt: claimed.lease.attempt(),
            conversation,
            next_seq: claimed.next_seq,
            next_item: 1,
            delta: None,
            piece: None,
            tools: HashMap::new(),
            redactor: Redactor::default(),
            of_agent: Redactor::default(),
            spoken: RedactedText::default(),
            voice: Voice::Text,
            summary: String::new(),
            bytes: 0,
            times: Times::default(),
        }
    }

    /// Leave these secrets out of everything from now on.
    pub fn redact(&mut self, redactor: Redactor) {
        self.redactor = redactor.clone();
        self.redact_agent(redactor);
    }

    /// Leave these out of what the agent said. The agent had a say in which they are: what the worker
    /// tells of it is not theirs to change.
    pub fn redact_agent(&mut self, redactor: Redactor) {
        self.spoken.look_for(redactor.clone());
        self.of_agent = redactor;
    }

    /// What is left out of what the worker says.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// What is left out of what the agent said.
    pub fn agent_redactor(&self) -> &Redactor {
        &self.of_agent
    }

    /// Number of the next event.
    pub fn next_seq(&self) -> i64 {
        self.next_seq
    }

    /// Why nothing more of it is stored, if so; then its count is ahead of what is.
    pub fn refusal(&self) -> Option<&str> {
        self.leash.refusal()
    }

    /// The agent's last words, for `output_summary`.
    pub fn summary(&self) -> Option<String> {
        let text = self.of_agent.text(self.summary.trim());
        (!text.is_empty()).then(|| tail_chars(&text, limits::SUMMARY_CHARS_MAX).to_owned())
    }

    /// Whether the attempt has stored more than one attempt may.
    pub fn is_over_budget(&self) -> bool {
        self.bytes > limits::ATTEMPT_EVENT_BYTES_MAX
    }

    /// When the open row of deltas must go out.
    pub fn due(&self) -> Option<Instant> {
        self.delta
            .as_ref()
            .map(|d| d.since + limits::COALESCE_WINDOW)
    }

    /// Store an event that is not a delta; open deltas go first, so that order is kept.
    pub async fn emit(&mut self, kind: &'static str, mut payload: Value) {
        self.seal_delta().await;
        if self.is_full() {
            return;
        }
        self.redactor.clean_value(&mut payload);
        let bytes = payload.to_string().len();
        let row = EventRow {
            task: self.task,
            token: self.token,
            seq: self.next_seq,
            attempt: self.attempt,
            kind,
            payload: storable(payload),
        };
        self.next_seq += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.hand_over(Row::Event(row, bytes)).await;
    }

    /// After a stop no more than this is kept; what an agent still says then is left out before it
    /// is numbered.
    fn is_full(&self) -> bool {
        self.kept_bytes > limits::STOPPED_BACKLOG_BYTES_MAX
    }

    /// To the writer. A full writer slows the agent down, unless the attempt is being stopped.
    async fn hand_over(&mut self, row: Row) {
        self.kept_bytes += row.bytes();
        self.kept.push_back(row);
        let pulled = self.leash.pulled();
        while !self.kept.is_empty() {
            tokio::select! {
                biased;
                room = self.writer.room() => put_next(room, &mut self.kept, &mut self.kept_bytes),
                () = pulled.cancelled() => return,
            }
        }
    }

    /// Take what the agent did.
    pub async fn take(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Text { text } => self.hear(Voice::Text, &text).await,
            AgentEvent::Thought { text } => self.hear(Voice::Thought, &text).await,
            AgentEvent::ToolCall(call) => self.tool_call(call).await,
            AgentEvent::Plan { entries } => {
                let entries = json!({ "entries": entries });
                self.put_item("plan", None, Some(entries.clone())).await;
                self.emit("plan", entries).await;
            }
            AgentEvent::Notice { text } => {
                self.put_item("notice", Some(text.clone()), None).await;
                self.emit("notice", json!({ "text": text })).await;
            }
            AgentEvent::Started(started) => {
                self.emit(
                    "agent_started",
                    serde_json::to_value(started).unwrap_or_default(),
                )
                .await;
            }
            AgentEvent::Commands { commands } => {
                self.emit("commands", json!({ "commands": commands })).await;
            }
            AgentEvent::Mode { mode_id } => self.emit("mode", json!({ "mode_id": mode_id })).await,
            AgentEvent::Usage(report) => {
                let payload = json!({
                    "tokens": report.tokens, "cost": report.cost, "context": report.context,
                    "model": report.model,
                });
                self.emit("usage", payload).await;
            }
            AgentEvent::Alive => {}
            AgentEvent::Steering { text } => {
                self.put_item("user", Some(text.clone()), None).await;
                self.emit("steering", json!({ "text": text })).await;
            }
            AgentEvent::ToolOutput { .. } => self.tell_as_is("tool_output", event).await,
            AgentEvent::TurnStarted { .. } => self.tell_as_is("turn_started", event).await,
            // A step is told after what was said in it.
            AgentEvent::StepCompleted { .. } => {
                self.end_speech().await;
                self.tell_as_is("step_completed", event).await;
            }
            AgentEvent::ProviderRetry { .. } => self.tell_as_is("provider_retry", event).await,
            AgentEvent::Compacted { .. } => self.tell_as_is("compacted", event).await,
            AgentEvent::TurnDone { .. } => {
                self.end_speech().await;
                self.tell_as_is("turn_done", event).await;
            }
            AgentEvent::Unknown { method, raw } => {
                figures::unknown_messages(1);
                self.emit("unknown", json!({ "method": method, "raw": raw }))
                    .await;
            }
        }
    }

    /// Tell an event by its own members.
    async fn tell_as_is(&mut self, kind: &'static str, event: AgentEvent) {
        let mut payload = serde_json::to_value(event).unwrap_or_default();
        if let Some(members) = payload.as_object_mut() {
            members.remove("kind");
        }
        self.emit(kind, payload).await;
    }

    /// Let the open row of deltas go if its time has come.
    pub async fn tick(&mut self) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.seal_delta().await;
        }
    }

    /// Everything out: open deltas, open text, unfinished tool calls; then wait until it is
    /// stored, or never will be because the lease is gone.
    pub async fn close(&mut self) {
        self.end_speech().await;
        self.seal_delta().await;
        self.seal_piece().await;
        let open: Vec<(i32, ToolCall)> = self.tools.drain().map(|(_, call)| call).collect();
        for (n, call) in open {
            self.put_tool(n, &call).await;
        }
        let leash = self.leash.clone();
        let out = async {
            while !self.kept.is_empty() {
                let room = self.writer.room().await;
                put_next(room, &mut self.kept, &mut self.kept_bytes);
            }
            self.writer.flush().await;
        };
        tokio::select! {
            () = out => {}
            () = leash.lost() => {}
        }
    }

    async fn hear(&mut self, voice: Voice, text: &str) {
        if text.is_empty() {
            return;
        }
        self.times.first_output_at.get_or_insert_with(Utc::now);
        if self.voice != voice {
            self.end_speech().await;
            self.voice = voice;
        }
        let safe = self.spoken.push(text);
        self.add_text(&safe).await;
    }

    /// What is said next is no continuation. Not at reports beside the text (usage, mode): a secret
    /// may lie around one.
    async fn end_speech(&mut self) {
        let rest = self.spoken.finish();
        self.add_text(&rest).await;
    }

    async fn add_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let (delta_kind, item_kind) = self.voice.kinds();
        self.add_delta(delta_kind, text).await;
        if self
            .piece
            .as_ref()
            .is_some_and(|p| p.kind != item_kind || p.text.len() + text.len() > ITEM_BYTES_MAX)
        {
            self.seal_piece().await;
        }
        let piece = self.piece.get_or_insert_with(|| Piece {
            kind: item_kind,
            text: String::new(),
        });
        piece.text.push_str(text);
    }

    async fn add_delta(&mut self, kind: &'static str, text: &str) {
        if self.delta.as_ref().is_some_and(|d| d.kind != kind) {
            self.seal_delta().await;
        }
        let now = Instant::now();
        let delta = self.delta.get_or_insert_with(|| Delta {
            kind,
            text: String::new(),
            since: now,
        });
        delta.text.push_str(text);
        let full = delta.text.len() >= limits::EVENT_ROW_BYTES;
        let old = now.duration_since(delta.since) >= limits::COALESCE_WINDOW;
        if full || old {
            self.seal_delta().await;
        }
    }

    async fn seal_delta(&mut self) {
        let Some(delta) = self.delta.take().filter(|_| !self.is_full()) else {
            return;
        };
        let bytes = delta.text.len();
        let row = EventRow {
            task: self.task,
            token: self.token,
            seq: self.next_seq,
            attempt: self.attempt,
            kind: delta.kind,
            payload: json!({ "text": storable_text(delta.text) }),
        };
        self.next_seq += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.hand_over(Row::Event(row, bytes)).await;
    }

    async fn seal_piece(&mut self) {
        let Some(piece) = self.piece.take() else {
            return;
        };
        if piece.kind == "text" {
            let text = self.of_agent.text(&piece.text);
            self.summary = tail_chars(&text, limits::SUMMARY_CHARS_MAX).to_owned();
        }
        self.write_item(piece.kind, Some(piece.text), None).await;
    }

    async fn put_item(&mut self, kind: &'static str, text: Option<String>, detail: Option<Value>) {
        self.end_speech().await;
        self.seal_piece().await;
        self.write_item(kind, text, detail).await;
    }

    async fn write_item(
        &mut self,
        kind: &'static str,
        text: Option<String>,
        detail: Option<Value>,
    ) {
        let n = self.next_item;
        self.next_item += 1;
        self.write_item_at(n, kind, text, detail).await;
    }

    async fn tool_call(&mut self, call: ToolCall) {
        self.times.first_output_at.get_or_insert_with(Utc::now);
        self.end_speech().await;
        self.seal_piece().await;
        let (n, merged) = match self.tools.remove(&call.id) {
            Some((n, before)) => (n, merge(before, call.clone())),
            None => {
                self.next_item += 1;
                (self.next_item - 1, call.clone())
            }
        };
        let over = matches!(merged.status.as_deref(), Some("completed" | "failed"));
        if over {
            self.put_tool(n, &merged).await;
        }
        // Kept after its end too: agents send late updates for finished calls.
        self.tools.insert(call.id.clone(), (n, merged));
        self.emit("tool_call", serde_json::to_value(call).unwrap_or_default())
            .await;
    }

    async fn put_tool(&mut self, n: i32, call: &ToolCall) {
        let detail = serde_json::to_value(call).unwrap_or_default();
        self.write_item_at(n, "tool_call", call.title.clone(), Some(detail))
            .await;
    }

    async fn write_item_at(
        &mut self,
        n: i32,
        kind: &'static str,
        mut text: Option<String>,
        mut detail: Option<Value>,
    ) {
        text.iter_mut().for_each(|text| self.of_agent.clean(text));
        detail.iter_mut().for_each(|d| self.of_agent.clean_value(d));
        let row = ItemRow {
            task: self.task,
            token: self.token,
            attempt: self.attempt,
            n,
            conversation: self.conversation,
            kind,
            text: text.map(storable_text),
            detail: detail.map(storable),
        };
        if !self.is_full() {
            self.hand_over(Row::Item(row)).await;
        }
    }
}

/// Put the next kept row where there is room for it. Without a writer there is no place for any.
fn put_next(room: Option<Room<'_>>, kept: &mut VecDeque<Row>, kept_bytes: &mut usize) {
    match room {
        Some(room) => {
            if let Some(row) = kept.pop_front() {
                *kept_bytes = kept_bytes.saturating_sub(row.bytes());
                room.put(row);
            }
        }
        None => {
            kept.clear();
            *kept_bytes = 0;
        }
    }
}

/// Fields that an update does not name are unchanged.
fn merge(before: ToolCall, update: ToolCall) -> ToolCall {
    ToolCall {
        id: update.id,
        step_id: update.step_id.or(before.step_id),
        title: update.title.or(before.title),
        kind: update.kind.or(before.kind),
        status: update.status.or(before.status),
        input: update.input.or(before.input),
        output: update.output.or(before.output),
        paths: if update.paths.is_empty() {
            before.paths
        } else {
            update.paths
        },
    }
}

/// How long a wait for the next thing may be when nothing is due.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);
