//! One session with an ACP agent, as one loop: messages are handled in the order in which they
//! came, requests of the agent are answered while ours are open, and nothing is read before the
//! last event was taken.

use std::collections::HashMap;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::process::{ChildStdin, ChildStdout};

use super::host::Host;
use super::offers::{Offers, Step};
use super::project::Projection;
use super::usage::Meter;
use super::verdict::{self, cancelled_outcome, outcome, peer_failed, protocol, rpc_failed};
use crate::agent::event::AgentEvent;
use crate::agent::jsonrpc::{Message, Peer, RpcError, unknown_method};
use crate::agent::options::{Choice, invalid};
use crate::agent::permission::{Permission, PermissionAnswer};
use crate::agent::{AgentError, EventSink, TurnRequest};
use crate::config::agent_spec::AgentSpec;
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::domain::usage::UsageReport;

/// An open connection to an agent.
pub(crate) struct Session<'a> {
    spec: &'a AgentSpec,
    peer: Peer<ChildStdout, ChildStdin>,
    events: EventSink,
    permission: &'a dyn Permission,
    projection: Projection,
    meter: Meter<'a>,
    host: Host,
    /// Answers of people and terminals that are awaited.
    pending: FuturesUnordered<Abortable<BoxFuture<'a, Reply>>>,
    open: HashMap<String, OpenRequest>,
    offers: Offers,
    session_id: Option<String>,
    /// Its answer to `initialize`.
    pub(crate) greeting: Option<Value>,
    prompt_id: Option<u64>,
    noise: usize,
    secrets: Redactor,
    phase: Phase,
}

/// What is published: history that an agent replays is not news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Turn,
    Cancelling,
}

/// A request of the agent that waits for somebody.
struct OpenRequest {
    id: Value,
    kind: Waiting,
    abort: AbortHandle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Permission,
    Terminal,
}

/// An answer that became ready.
struct Reply {
    id: Value,
    denied: bool,
    result: Result<Value, RpcError>,
}

/// What is known after the handshake.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Answer to `initialize`.
    pub(crate) agent: Value,
    /// Why an earlier session could not be continued, when one was to be.
    pub(crate) resume_failed: Option<String>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        spec: &'a AgentSpec,
        peer: Peer<ChildStdout, ChildStdin>,
        host: Host,
        turn: &TurnRequest,
        events: EventSink,
        permission: &'a dyn Permission,
    ) -> Self {
        Self {
            spec,
            peer,
            events,
            permission,
            projection: Projection::new(&turn.worktree, turn.secrets.clone()),
            secrets: turn.secrets.clone(),
            meter: Meter::new(&spec.usage),
            host,
            pending: FuturesUnordered::new(),
            open: HashMap::new(),
            offers: Offers::default(),
            session_id: None,
            greeting: None,
            prompt_id: None,
            noise: 0,
            phase: Phase::Opening,
        }
    }

    pub(crate) fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    pub(crate) fn offers(&self) -> &Offers {
        &self.offers
    }

    pub(crate) fn usage(&self) -> Option<UsageReport> {
        self.meter.report()
    }

    /// Shake hands and make or continue a session.
    pub(crate) async fn open(&mut self, turn: &TurnRequest) -> Result<Opened, AgentError> {
        let agent = self.initialize().await?;
        self.greeting = Some(agent.clone());
        let mut resume_failed = None;
        if let Some(wanted) = &turn.resume {
            match self.resume(&agent, wanted, turn).await? {
                Ok(()) => {
                    return Ok(Opened {
                        agent,
                        resume_failed,
                    });
                }
                Err(why) => resume_failed = Some(why),
            }
        }
        let params = json!({"cwd": turn.worktree, "mcpServers": []});
        let session = match self.call("session/new", params).await? {
            Ok(session) => session,
            Err(error) => return Err(verdict::session_refused(&self.spec.name, &agent, &error)),
        };
        let id = session.get("sessionId").and_then(Value::as_str);
        let id = id.ok_or_else(|| protocol("its answer to session/new names no session"))?;
        self.session_id = Some(id.to_owned());
        self.offers = Offers::of(&session);
        Ok(Opened {
            agent,
            resume_failed,
        })
    }

    /// Choose mode, model and thinking option, or say what could be chosen.
    pub(crate) async fn choose(&mut self, turn: &TurnRequest) -> Result<(), AgentError> {
        let spec = self.spec;
        let session_id = self.session_id.clone().unwrap_or_default();
        for choice in Choice::ALL {
            let Some(wanted) = choice.wanted(spec, turn) else {
                continue;
            };
            let (method, params) = match self.offers.step(choice, wanted, &session_id) {
                Step::Chosen => continue,
                Step::NotOffered(values) => {
                    return Err(invalid(&spec.name, choice, wanted, &values));
                }
                Step::Request(method, params) => (method, params),
            };
            match self.call(method, params).await? {
                Ok(answer) => self.offers.chosen(choice, wanted, &answer),
                Err(error) => {
                    let mut refused =
                        invalid(&spec.name, choice, wanted, &self.offers.values(choice));
                    refused
                        .message
                        .push_str(&format!(" (the agent says: {error})"));
                    return Err(refused);
                }
            }
            let current = self.offers.current(choice);
            if current.as_deref().is_some_and(|current| current != wanted) {
                return Err(invalid(
                    &spec.name,
                    choice,
                    wanted,
                    &self.offers.values(choice),
                ));
            }
        }
        Ok(())
    }

    /// Handle what comes without an answer of ours open; ends only when the connection does.
    pub(crate) async fn listen(&mut self) -> AgentError {
        loop {
            match self.peer.receive().await {
                Ok(message) => drop(self.handle(message).await),
                Err(error) => return peer_failed(&error),
            }
        }
    }

    /// Send the prompt and wait for the end of the turn; its answer. May be dropped to cancel.
    pub(crate) async fn prompt(&mut self, prompt: &str) -> Result<Value, AgentError> {
        self.phase = Phase::Turn;
        self.projection.begin_turn();
        self.meter.begin_turn();
        let params = json!({
            "sessionId": self.session_id,
            "prompt": [{"type": "text", "text": prompt}],
        });
        let id = self.peer.request("session/prompt", params);
        self.prompt_id = Some(id);
        self.prompt_answer(id).await
    }

    /// Ask the agent to stop, answering its open questions first (three of six agents hang
    /// otherwise), and wait for the turn's end. The caller bounds the wait.
    pub(crate) async fn cancel(&mut self) -> Result<(), AgentError> {
        self.phase = Phase::Cancelling;
        let open: Vec<String> = self.open.keys().cloned().collect();
        for key in open {
            let answer = match self.open.get(&key).map(|request| request.kind) {
                Some(Waiting::Permission) => Ok(cancelled_outcome()),
                _ => continue,
            };
            self.close(&key, answer);
        }
        self.host.kill_all();
        let Some(id) = self.prompt_id else {
            return Ok(());
        };
        self.peer
            .notify("session/cancel", json!({"sessionId": self.session_id}));
        self.prompt_answer(id).await.map(drop)
    }

    /// End its terminals and give back the output for draining.
    pub(crate) async fn close_down(mut self) -> ChildStdout {
        self.host.end_all().await;
        self.peer.into_reader()
    }

    /// What the end of a turn means.
    pub(crate) fn judge(&self, answer: &Value) -> Result<String, AgentError> {
        verdict::of_turn(answer, &self.projection, &self.spec.errors)
    }

    async fn initialize(&mut self) -> Result<Value, AgentError> {
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {
                "fs": {
                    "readTextFile": self.spec.acp.offer_fs,
                    "writeTextFile": self.spec.acp.offer_fs,
                },
                "terminal": self.spec.acp.offer_terminal,
            },
            "clientInfo": {
                "name": "dispatch", "title": "dispatch", "version": env!("CARGO_PKG_VERSION"),
            },
        });
        let agent = match self.call("initialize", params).await? {
            Ok(agent) => agent,
            Err(error) => return Err(rpc_failed("initialize", &error)),
        };
        match agent.get("protocolVersion") {
            Some(version) if *version == json!(1) => Ok(agent),
            version => Err(protocol(&format!(
                "it speaks version {} of the protocol, and only version 1 is spoken here; install \
                 a version of the agent that speaks it",
                version.unwrap_or(&Value::Null)
            ))),
        }
    }

    /// Continue an older session: `Err` inside says why it could not be continued.
    async fn resume(
        &mut self,
        agent: &Value,
        wanted: &str,
        turn: &TurnRequest,
    ) -> Result<Result<(), String>, AgentError> {
        if let Some(why) = verdict::begins_anew(self.spec.acp.resume, turn) {
            return Ok(Err(why.to_owned()));
        }
        let capabilities = agent.get("agentCapabilities").unwrap_or(&Value::Null);
        let resumes = capabilities.pointer("/sessionCapabilities/resume");
        let method = if resumes.is_some_and(|can| !can.is_null() && *can != json!(false)) {
            "session/resume"
        } else if capabilities.get("loadSession") == Some(&json!(true)) {
            "session/load"
        } else {
            return Ok(Err("the agent cannot continue sessions".to_owned()));
        };
        let params = json!({"sessionId": wanted, "cwd": turn.worktree, "mcpServers": []});
        self.session_id = Some(wanted.to_owned());
        match self.call(method, params).await? {
            Ok(session) => {
                self.meter.continues(turn.session_used.clone());
                self.offers = Offers::of(&session);
                Ok(Ok(()))
            }
            Err(error) => {
                self.session_id = None;
                Ok(Err(format!("{method}: {error}")))
            }
        }
    }

    async fn prompt_answer(&mut self, id: u64) -> Result<Value, AgentError> {
        match self.wait_for(id).await? {
            Ok(answer) => {
                self.meter.prompt_answered(&answer);
                Ok(answer)
            }
            Err(error) => Err(rpc_failed("session/prompt", &error)),
        }
    }

    async fn call(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<Result<Value, RpcError>, AgentError> {
        let id = self.peer.request(method, params);
        self.wait_for(id).await
    }

    /// Handle everything that comes until the answer to our request `id`.
    async fn wait_for(&mut self, id: u64) -> Result<Result<Value, RpcError>, AgentError> {
        loop {
            tokio::select! {
                message = self.peer.receive() => {
                    let message = message.map_err(|error| peer_failed(&error))?;
                    if let Some((answered, result)) = self.handle(message).await
                        && answered == id
                    {
                        return Ok(result);
                    }
                }
                Some(ready) = self.pending.next() => {
                    if let Ok(reply) = ready {
                        if reply.denied {
                            self.projection.was_denied();
                        }
                        self.close(&reply.id.to_string(), reply.result);
                    }
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Option<(u64, Result<Value, RpcError>)> {
        match message {
            Message::Response { id, result } => return id.map(|id| (id, result)),
            Message::Request { id, method, params } => self.requested(id, &method, params).await,
            Message::Notification { method, params } => self.notified(&method, &params).await,
            Message::Noise { text } => {
                self.noise += 1;
                if self.noise <= limits::NOISE_LINES_MAX {
                    let text = self.secrets.head(&text, limits::NOISE_LINE_BYTES_MAX);
                    let text = format!("the agent wrote a line that is not protocol: {text}");
                    self.events.send(AgentEvent::Notice { text }).await;
                }
            }
        }
        None
    }

    async fn notified(&mut self, method: &str, params: &Value) {
        match method {
            "session/update" => self.updated(params).await,
            // The agent takes back a request of its own.
            "$/cancel_request" => {
                if let Some(id) = params.get("requestId").or_else(|| params.get("id")) {
                    let withdrawn = RpcError {
                        code: -32_800,
                        message: "Request cancelled".to_owned(),
                        data: Value::Null,
                    };
                    self.close(&id.to_string(), Err(withdrawn));
                }
            }
            // Extensions of vendors concern whoever asked for them.
            vendor if vendor.starts_with('_') => {}
            other => {
                let raw = super::project::cut(params, &self.secrets);
                self.events
                    .send(AgentEvent::Unknown {
                        method: other.to_owned(),
                        raw,
                    })
                    .await;
            }
        }
    }

    async fn updated(&mut self, params: &Value) {
        let update = params.get("update").unwrap_or(&Value::Null);
        if update.get("sessionUpdate").and_then(Value::as_str) == Some("config_option_update") {
            self.offers.configured(update);
        }
        let metered = self.meter.update(update);
        let events = self.projection.update(update);
        for event in events {
            let lasting = matches!(event, AgentEvent::Commands { .. } | AgentEvent::Mode { .. });
            if self.phase != Phase::Opening || lasting {
                self.events.send(event).await;
            }
        }
        if metered
            && self.phase != Phase::Opening
            && let Some(report) = self.meter.report()
        {
            self.events.send(AgentEvent::Usage(report)).await;
        }
    }

    async fn requested(&mut self, id: Value, method: &str, params: Value) {
        match method {
            "session/request_permission" => self.ask(id, &params).await,
            "elicitation/create" => self.peer.answer(&id, Ok(json!({"action": "decline"}))),
            "fs/read_text_file" | "fs/write_text_file" => {
                let result = self.host.file(method, &params).await;
                self.peer.answer(&id, result);
            }
            "terminal/wait_for_exit" => match self.host.wait_for_exit(&params) {
                Ok(exit) => {
                    let key = id.clone();
                    self.await_reply(
                        id,
                        Waiting::Terminal,
                        Box::pin(async move {
                            Reply {
                                id: key,
                                denied: false,
                                result: Ok(exit.await),
                            }
                        }),
                    );
                }
                Err(error) => self.peer.answer(&id, Err(error)),
            },
            terminal if terminal.starts_with("terminal/") => {
                let result = self.host.terminal(terminal, &params);
                self.peer.answer(&id, result);
            }
            unknown => self.peer.answer(&id, Err(unknown_method(unknown))),
        }
    }

    async fn ask(&mut self, id: Value, params: &Value) {
        let (ask, event) = self.projection.ask(params);
        if let Some(event) = event {
            self.events.send(event).await;
        }
        if self.phase == Phase::Cancelling || self.open.len() >= limits::PERMISSIONS_OPEN_MAX {
            self.peer.answer(&id, Ok(cancelled_outcome()));
            return;
        }
        let options = params.get("options").cloned().unwrap_or(Value::Null);
        let asked = self.permission.ask(ask);
        let key = id.clone();
        self.await_reply(
            id,
            Waiting::Permission,
            Box::pin(async move {
                let answer = asked.await;
                Reply {
                    id: key,
                    denied: answer == PermissionAnswer::Deny,
                    result: Ok(outcome(answer, &options)),
                }
            }),
        );
    }

    fn await_reply(&mut self, id: Value, kind: Waiting, reply: BoxFuture<'a, Reply>) {
        let (abort, registration) = AbortHandle::new_pair();
        self.open
            .insert(id.to_string(), OpenRequest { id, kind, abort });
        self.pending.push(Abortable::new(reply, registration));
    }

    /// Answer an open request, whoever was to answer it.
    fn close(&mut self, key: &str, result: Result<Value, RpcError>) {
        if let Some(request) = self.open.remove(key) {
            request.abort.abort();
            self.peer.answer(&request.id, result);
        }
    }
}
