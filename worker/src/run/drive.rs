//! The turn: the agent's events onto the stream, deadlines, stalls, questions, and stopping.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, AgentError, AgentEvent, EventSink, Exit, TurnOutcome, TurnRequest};
use crate::config::agent_spec::AgentSpec;
use crate::domain::attempt::{AttemptEnd, Phase};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::usage::UsageReport;
use crate::store::attempts;
use crate::store::claims::Claimed;

use super::RunContext;
use super::leash::{Leash, Stop};
use super::permission::{Asker, Note};
use super::secrets;
use super::stream::{AttemptStream, FOREVER};

/// How long an adapter may take to end an agent before the run stops waiting for it; dropping it
/// kills what is left.
const ENDING_MAX: Duration = Duration::from_secs(60);

/// Deadlines of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Until the agent began its turn.
    pub start: Duration,
    /// Longest silence.
    pub idle: Duration,
    /// The whole attempt.
    pub total: Duration,
}

impl Deadlines {
    /// The agent's, narrowed by what the task asks for.
    pub fn of(spec: &AgentSpec, claimed: &Claimed) -> Self {
        let ms = |value: Option<i64>| {
            value.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
        };
        let total = ms(claimed.timeout_ms).unwrap_or(spec.timeouts.total);
        let idle = ms(claimed.idle_timeout_ms).unwrap_or(spec.timeouts.idle);
        Self {
            start: spec.timeouts.start.min(total),
            idle,
            total,
        }
    }
}

/// How the turn went.
#[derive(Debug)]
pub struct Driven {
    /// Why it ended.
    pub end: AttemptEnd,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// What it used, as far as the agent said.
    pub usage: Option<UsageReport>,
    /// The agent's own session.
    pub native_session_id: Option<String>,
    /// How its process ended.
    pub exit: Exit,
    /// The agent's word for why it stopped.
    pub stop_reason: Option<String>,
    /// Model it said it used.
    pub model: Option<String>,
}

/// The reason of a turn that was stopped from outside.
const ABORTED: &str = "aborted";

/// Why the run itself stops the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stopped(Stop),
    TimedOut(ErrorClass, Duration),
    Flooded,
}

/// Watches the clock of one turn.
struct Watch {
    deadlines: Deadlines,
    began: Instant,
    last_sign: Instant,
    started: bool,
}

impl Watch {
    fn next(&self) -> Instant {
        let silence = if self.started {
            self.last_sign + self.deadlines.idle
        } else {
            self.began + self.deadlines.start
        };
        silence.min(self.began + self.deadlines.total)
    }

    fn verdict(&self) -> Verdict {
        let d = &self.deadlines;
        if self.began.elapsed() >= d.total {
            return Verdict::TimedOut(ErrorClass::Timeout, d.total);
        }
        if self.started {
            Verdict::TimedOut(ErrorClass::IdleTimeout, d.idle)
        } else {
            Verdict::TimedOut(ErrorClass::StartTimeout, d.start)
        }
    }
}

/// Run one turn of an agent to its end, whatever that is.
pub async fn drive(
    context: &RunContext,
    claimed: &Claimed,
    spec: &AgentSpec,
    agent: Arc<dyn Agent>,
    turn: TurnRequest,
    stream: &mut AttemptStream,
    leash: &Leash,
) -> Driven {
    let (sink, events) = EventSink::channel();
    let (notes_in, notes) = mpsc::channel(64);
    let stop_agent = CancellationToken::new();
    let asker = Asker {
        store: context.store.clone(),
        listener: context.listener.clone(),
        lease: claimed.lease.clone(),
        policy: spec.permissions.clone(),
        notes: notes_in,
        redactor: stream.redactor().clone(),
        ending: stop_agent.clone(),
        open: AtomicUsize::new(0),
    };
    let now = Instant::now();
    let watch = Watch {
        deadlines: Deadlines::of(spec, claimed),
        began: now,
        last_sign: now,
        started: false,
    };
    let running = agent.run_turn(turn, sink, &asker, stop_agent.clone());
    let mut pump = Pump {
        context,
        claimed,
        leash,
        stream,
        usage: None,
        model: None,
        session: None,
        watch,
        timed_out: None,
    };
    let (result, verdict) = pump
        .until_over(running, events, notes, &asker, &stop_agent)
        .await;
    pump.stream.times.turn_ended_at = Some(Utc::now());
    settle(result, verdict, pump.usage, pump.model, pump.session)
}

/// Carries events from the agent to the stream while the turn lasts.
struct Pump<'a> {
    context: &'a RunContext,
    claimed: &'a Claimed,
    leash: &'a Leash,
    stream: &'a mut AttemptStream,
    usage: Option<UsageReport>,
    model: Option<String>,
    session: Option<String>,
    watch: Watch,
    /// The time limit that it is being stopped for.
    timed_out: Option<ErrorClass>,
}

type TurnResult = Result<TurnOutcome, AgentError>;

impl Pump<'_> {
    async fn until_over(
        &mut self,
        running: impl Future<Output = TurnResult>,
        mut events: mpsc::Receiver<AgentEvent>,
        mut notes: mpsc::Receiver<Note>,
        asker: &Asker,
        stop_agent: &CancellationToken,
    ) -> (Option<TurnResult>, Option<Verdict>) {
        tokio::pin!(running);
        let pulled = self.leash.pulled();
        let mut verdict = None;
        let mut give_up = Instant::now() + FOREVER;
        let result = loop {
            let due = self
                .stream
                .due()
                .unwrap_or_else(|| Instant::now() + FOREVER);
            let alarm = if verdict.is_none() {
                self.watch.next()
            } else {
                give_up
            };
            tokio::select! {
                biased;
                Some(event) = events.recv() => self.take(event).await,
                Some((kind, payload)) = notes.recv() => self.stream.emit(kind, payload).await,
                () = tokio::time::sleep_until(due) => self.stream.tick().await,
                result = &mut running => break Some(result),
                () = pulled.cancelled(), if verdict.is_none() => {
                    verdict = self.leash.why().map(Verdict::Stopped);
                }
                () = tokio::time::sleep_until(alarm) => {
                    if verdict.is_some() {
                        tracing::error!(task.id = self.claimed.lease.task().0, "the agent could not be ended in time");
                        break None;
                    }
                    if self.patient(asker) {
                        continue;
                    }
                    let over = self.watch.verdict();
                    if let Verdict::TimedOut(class, _) = over {
                        self.timed_out = Some(class);
                    }
                    verdict = Some(over);
                }
            }
            if verdict.is_none() && self.stream.is_over_budget() {
                verdict = Some(Verdict::Flooded);
            }
            if verdict.is_some() && !stop_agent.is_cancelled() {
                stop_agent.cancel();
                give_up = Instant::now() + ENDING_MAX;
            }
        };
        // What the agent sent before it ended still counts; its end closed the channels.
        events.close();
        while let Some(event) = events.recv().await {
            self.take(event).await;
        }
        while let Ok((kind, payload)) = notes.try_recv() {
            self.stream.emit(kind, payload).await;
        }
        (result, verdict)
    }

    /// Waiting for a person is not silence; the total time still runs.
    fn patient(&mut self, asker: &Asker) -> bool {
        let total_is_over = self.watch.began.elapsed() >= self.watch.deadlines.total;
        if self.watch.started && asker.is_waiting() && !total_is_over {
            self.watch.last_sign = Instant::now();
            return true;
        }
        false
    }

    async fn take(&mut self, mut event: AgentEvent) {
        self.watch.last_sign = Instant::now();
        if let (AgentEvent::TurnDone { reason, .. }, Some(class)) = (&mut event, self.timed_out)
            && reason == ABORTED
        {
            // The agent knows only that it was stopped.
            *reason = match class {
                ErrorClass::Timeout => "wall-time".to_owned(),
                _ => "idle-time".to_owned(),
            };
        }
        match &event {
            AgentEvent::Started(started) => {
                self.watch.started = true;
                self.model = started.model.clone();
                self.session = started.native_session_id.clone();
                let lease = &self.claimed.lease;
                let pulled = self.leash.pulled();
                let mut shown = started.clone();
                secrets::clean_started(self.stream.redactor(), &mut shown);
                tokio::select! {
                    () = pulled.cancelled() => {}
                    done = attempts::record_launch(&self.context.store, lease, &shown) => {
                        if let Err(error) = done {
                            tracing::warn!(%error, "the launch could not be recorded");
                        }
                    }
                }
                if let Err(error) =
                    attempts::set_phase(&self.context.store, lease, Phase::Turn).await
                {
                    tracing::debug!(%error, "the phase could not be shown");
                }
            }
            AgentEvent::Usage(report) => self.usage = Some(report.clone()),
            AgentEvent::Text { .. } | AgentEvent::Thought { .. } | AgentEvent::ToolCall(_) => {
                self.watch.started = true;
            }
            AgentEvent::Plan { .. }
            | AgentEvent::Commands { .. }
            | AgentEvent::Mode { .. }
            | AgentEvent::Notice { .. }
            | AgentEvent::Unknown { .. }
            | AgentEvent::Alive
            | AgentEvent::TurnStarted { .. }
            | AgentEvent::StepCompleted { .. }
            | AgentEvent::ToolOutput { .. }
            | AgentEvent::ProviderRetry { .. }
            | AgentEvent::Steering { .. }
            | AgentEvent::Compacted { .. }
            | AgentEvent::TurnDone { .. } => {}
        }
        self.stream.take(event).await;
    }
}

fn settle(
    result: Option<TurnResult>,
    verdict: Option<Verdict>,
    streamed: Option<UsageReport>,
    model: Option<String>,
    session: Option<String>,
) -> Driven {
    let mut driven = Driven {
        end: AttemptEnd::Succeeded,
        retry_after: None,
        usage: streamed,
        native_session_id: session,
        exit: Exit::default(),
        stop_reason: None,
        model,
    };
    match result {
        Some(Ok(outcome)) => {
            driven.stop_reason = Some(outcome.stop_reason);
            driven.usage = outcome.usage.or(driven.usage);
            driven.native_session_id = outcome.native_session_id.or(driven.native_session_id);
            driven.exit = outcome.exit;
        }
        Some(Err(error)) => {
            driven.retry_after = error.retry_after;
            driven.usage = error.usage.or(driven.usage);
            driven.native_session_id = error.native_session_id.or(driven.native_session_id);
            driven.exit = error.exit;
            driven.stop_reason = error.stop_reason;
            let (class, message) = (error.class, error.message);
            driven.end = match error.go_on_after {
                Some(wait) => AttemptEnd::Yielded {
                    class,
                    message,
                    wait,
                },
                None => AttemptEnd::Failed { class, message },
            };
        }
        None => {
            let message = "the agent could not be ended".to_owned();
            driven.end = AttemptEnd::Failed {
                class: ErrorClass::Internal,
                message,
            };
        }
    }
    // A turn that ended well in the instant we gave up on it has ended well, unless the lease is
    // gone or somebody cancelled.
    let ended_well = driven.end == AttemptEnd::Succeeded;
    match verdict {
        None => {}
        Some(Verdict::Stopped(Stop::LeaseLost)) => driven.end = AttemptEnd::LeaseLost,
        Some(Verdict::Stopped(Stop::Cancel)) => driven.end = AttemptEnd::Cancelled,
        Some(Verdict::Stopped(Stop::Refused)) => driven.end = refused("what it tells"),
        Some(Verdict::Stopped(Stop::Interrupt)) if !ended_well => {
            driven.end = AttemptEnd::Interrupted;
        }
        Some(Verdict::TimedOut(class, limit)) if !ended_well => {
            driven.end = AttemptEnd::Failed {
                class,
                message: timeout_message(class, limit),
            };
        }
        Some(Verdict::Flooded) => {
            let message = format!(
                "the agent wrote more than {} MiB of events",
                limits::ATTEMPT_EVENT_BYTES_MAX / (1024 * 1024)
            );
            driven.end = AttemptEnd::Failed {
                class: ErrorClass::Budget,
                message,
            };
        }
        Some(Verdict::Stopped(Stop::Interrupt) | Verdict::TimedOut(..)) => {}
    }
    driven
}

/// The end of an attempt that the database refuses to store.
pub(super) fn refused(error: &str) -> AttemptEnd {
    AttemptEnd::Failed {
        class: ErrorClass::Internal,
        message: format!("the database refuses to store an event of the attempt: {error}"),
    }
}

fn timeout_message(class: ErrorClass, limit: Duration) -> String {
    let limit = format!("{:?}", limit);
    match class {
        ErrorClass::StartTimeout => format!(
            "the agent did not begin its turn within {limit}: see `dispatch agents probe`, or raise start_timeout in agents.toml"
        ),
        ErrorClass::IdleTimeout => format!(
            "the agent was silent for {limit}: raise tasks.idle_timeout or idle_timeout in agents.toml if it needs longer"
        ),
        _ => format!(
            "the attempt took longer than {limit}: raise tasks.timeout or total_timeout in agents.toml if it needs longer"
        ),
    }
}
