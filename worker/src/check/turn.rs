//! One turn of a check: driven as a worker drives one, with nothing stored.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use crate::agent::{Agent, AgentError, AgentEvent, EventSink, TurnOutcome, TurnRequest, process};
use crate::blocking;
use crate::config::agent_spec::{PermissionPolicy, Verdict};
use crate::domain::attempt::Started;
use crate::domain::limits;
use crate::domain::usage::UsageReport;

/// Why a turn is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// As soon as it works.
    AtFirstSign,
    /// Only when its time is over.
    WhenLate,
}

/// Which time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It did not begin.
    Start(Duration),
    /// It did not end.
    Total(Duration),
}

/// How a turn went.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Its end; nothing: it had to be dropped.
    pub(super) result: Option<Result<TurnOutcome, AgentError>>,
    pub(super) started: Option<Started>,
    pub(super) usage: Option<UsageReport>,
    /// The beginning of its answer.
    pub(super) said: String,
    pub(super) late: Option<Late>,
    /// All of it.
    pub(super) took: Duration,
    /// From the cancel to its end, when it was cancelled.
    pub(super) ending: Option<Duration>,
    /// Processes that it had let go of when it was cancelled.
    pub(super) detached: usize,
    /// What was left after its end.
    pub(super) left: Left,
    works: bool,
}

/// Processes that outlive a turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Left {
    /// None.
    #[default]
    Nothing,
    /// So many, which were ended.
    Ended(usize),
    /// Some that cannot be ended.
    Living(String),
}

impl Ran {
    /// What it told of its usage, at its end or before.
    pub(super) fn usage(&self) -> Option<&UsageReport> {
        let told = match &self.result {
            Some(Ok(outcome)) => outcome.usage.as_ref(),
            Some(Err(error)) => error.usage.as_ref(),
            None => None,
        };
        told.or(self.usage.as_ref())
    }

    fn take(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Started(started) => self.started = Some(started),
            AgentEvent::Usage(report) => self.usage = Some(report),
            AgentEvent::Text { text } => {
                self.works = true;
                // One more than is shown, so that it is seen to be cut.
                let room = limits::CHECK_FOUND_CHARS_MAX + 1 - self.said.chars().count();
                self.said.extend(text.chars().take(room));
            }
            AgentEvent::Thought { .. } | AgentEvent::ToolCall(_) | AgentEvent::Plan { .. } => {
                self.works = true;
            }
            AgentEvent::Commands { .. }
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
    }

    fn has_begun(&self) -> bool {
        self.started.is_some() || self.works
    }
}

/// Run a turn to its end. `start` is the time until it begins.
pub(super) async fn run(
    agent: &dyn Agent,
    turn: TurnRequest,
    permission: &dyn Permission,
    stop: Stop,
    start: Duration,
) -> Ran {
    let mark = turn.mark.clone();
    let (sink, mut events) = EventSink::channel();
    let cancel = CancellationToken::new();
    let mut running = agent.run_turn(turn, sink, permission, cancel.clone());
    let mut ran = Ran::default();
    let began = Instant::now();
    let mut begun: Option<Instant> = None;
    let mut stopped: Option<Instant> = None;
    let result = loop {
        let alarm = match (stopped, begun, stop) {
            (Some(at), _, _) => at + limits::CHECK_END_MAX,
            (None, None, _) => began + start,
            (None, Some(at), Stop::AtFirstSign) => at + limits::CHECK_CANCEL_AFTER,
            (None, Some(_), Stop::WhenLate) => began + limits::CHECK_TURN_MAX,
        };
        let wanted = tokio::select! {
            biased;
            Some(event) = events.recv() => {
                ran.take(event);
                stop == Stop::AtFirstSign && ran.works
            }
            result = &mut running => break Some(result),
            () = sleep_until(alarm) => {
                match (stopped, begun, stop) {
                    (Some(_), _, _) => break None,
                    (None, None, _) => ran.late = Some(Late::Start(start)),
                    (None, Some(_), Stop::AtFirstSign) => {}
                    (None, Some(_), Stop::WhenLate) => {
                        ran.late = Some(Late::Total(limits::CHECK_TURN_MAX));
                    }
                }
                true
            }
        };
        if begun.is_none() && ran.has_begun() {
            begun = Some(Instant::now());
        }
        if wanted && stopped.is_none() {
            if ran.late.is_none() {
                ran.detached = detached(&mark).await;
            }
            cancel.cancel();
            stopped = Some(Instant::now());
        }
    };
    // What is not over by now is ended by this.
    drop(running);
    ran.took = began.elapsed();
    ran.ending = stopped.map(|at| at.elapsed());
    events.close();
    while let Some(event) = events.recv().await {
        ran.take(event);
    }
    ran.result = result;
    ran.left = left(mark).await;
    ran
}

/// Processes of the attempt, its program left out, that nobody of it is the parent of any more: now,
/// and a moment later still.
async fn detached(mark: &str) -> usize {
    let look = || {
        let mark = mark.to_owned();
        async move {
            let roots = blocking::run(move || process::roots_of_mark(&mark)).await;
            roots.unwrap_or_default()
        }
    };
    let before: HashSet<(i32, u64)> = look().await.into_iter().skip(1).collect();
    if before.is_empty() {
        return 0;
    }
    tokio::time::sleep(limits::CHECK_DETACHED_AFTER).await;
    let now = look().await;
    now.iter()
        .skip(1)
        .filter(|one| before.contains(one))
        .count()
}

/// End what has the mark of a turn that is over.
async fn left(mark: String) -> Left {
    match blocking::run(move || process::sweep_mark(&mark)).await {
        Ok(Ok(0)) => Left::Nothing,
        Ok(Ok(count)) => Left::Ended(count),
        Ok(Err(survivors)) => Left::Living(survivors.to_string()),
        Err(panicked) => Left::Living(panicked.to_string()),
    }
}

/// Answers the agent's questions, and remembers them.
pub(super) struct Answers<'a> {
    policy: Policy<'a>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone, Copy)]
enum Policy<'a> {
    /// What the entry does not refuse is allowed: a person would, who asked for it.
    Entry(&'a PermissionPolicy),
    /// Nothing.
    DenyAll,
}

impl<'a> Answers<'a> {
    pub(super) fn by_entry(policy: &'a PermissionPolicy) -> Self {
        Self {
            policy: Policy::Entry(policy),
            asked: Mutex::default(),
        }
    }

    pub(super) fn deny_all() -> Self {
        Self {
            policy: Policy::DenyAll,
            asked: Mutex::default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kinds of what was asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.log().clone()
    }
}

impl Permission for Answers<'_> {
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        let answer = match self.policy {
            Policy::DenyAll => PermissionAnswer::Deny,
            Policy::Entry(policy) => match policy.verdict(&ask.kind, ask.outside) {
                Verdict::Deny => PermissionAnswer::Deny,
                Verdict::Allow | Verdict::Ask => PermissionAnswer::Allow,
            },
        };
        let mut log = self.log();
        if log.len() < limits::PERMISSIONS_OPEN_MAX {
            log.push(ask.kind);
        }
        drop(log);
        async move { answer }.boxed()
    }
}
