//! After the turn: decide what becomes of the task, and store the end until it is stored.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

use crate::agent::Exit;
use crate::config::agents::Catalogue;
use crate::domain::attempt::{AttemptEnd, ExecutionPath};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::retry::{self, RetryDecision, Tries};
use crate::domain::usage::UsageReport;
use crate::store::StoreError;
use crate::store::carried::AgainFrom;
use crate::store::claims::Claimed;
use crate::store::finish::{
    self, AttemptFacts, Disposition, Ender, Finish, Finished, FirstSeq, UsageRow,
};
use crate::telemetry::figures::{self, End};
use crate::workspace::Snapshot;

use super::RunContext;
use super::drive::{self, Driven};
use super::leash::Leash;
use super::secrets;
use super::stream::AttemptStream;
use super::text::head_chars;

/// What an attempt came to, before it is stored.
pub struct Ending {
    /// Why it ended.
    pub end: AttemptEnd,
    /// How the turn went, if there was one.
    pub driven: Option<Driven>,
    /// What it left.
    pub snapshot: Option<Snapshot>,
    /// Conversation of the turn; absent when the attempt was never recorded.
    pub conversation: Option<i64>,
    /// The agents and prices that it began with, whatever the file says meanwhile.
    pub catalogue: Arc<Catalogue>,
}

/// Store the end. Keeps trying while the database is away: the lease decides in the end, not our
/// patience. Returns what was stored.
pub async fn store_end(
    context: &RunContext,
    claimed: &Claimed,
    stream: &AttemptStream,
    mut ending: Ending,
) -> Finished {
    let stays = matches!(ending.end, AttemptEnd::Cancelled | AttemptEnd::LeaseLost);
    if let Some(error) = stream.refusal().filter(|_| !stays) {
        // Whatever the agent made of it: a part of its story is missing.
        ending.end = drive::refused(error);
    }
    // An attempt that gave its lease up for lost did not wait until its events were stored.
    let counted = ending.end != AttemptEnd::LeaseLost && stream.refusal().is_none();
    let seq = match counted {
        true => FirstSeq::Known(stream.next_seq()),
        false => FirstSeq::AfterStored,
    };
    store_numbered(context, claimed, stream, seq, ending).await
}

/// The same when the attempt's own count was lost with it.
pub async fn store_after_panic(context: &RunContext, claimed: &Claimed, message: &str) -> Finished {
    let conversation = claimed.conversation.unwrap_or(claimed.lease.task().0);
    let writer = context.writer.clone();
    let stream = AttemptStream::new(writer, claimed, conversation, Leash::default());
    let end = AttemptEnd::Failed {
        class: ErrorClass::Internal,
        message: message.to_owned(),
    };
    let ending = Ending {
        end,
        driven: None,
        snapshot: None,
        conversation: None,
        catalogue: context.catalogue(),
    };
    context.writer.flush().await;
    store_numbered(context, claimed, &stream, FirstSeq::AfterStored, ending).await
}

async fn store_numbered(
    context: &RunContext,
    claimed: &Claimed,
    stream: &AttemptStream,
    seq: FirstSeq,
    mut ending: Ending,
) -> Finished {
    let mut pause = Duration::from_millis(100);
    let mut next = Next::AsTheRules;
    let mut detail = Detail::Full;
    loop {
        // An attempt that ended before it had an agent has the worker's secrets only.
        let redactor = Some(stream.redactor()).filter(|redactor| !redactor.is_empty());
        let redactor = redactor.unwrap_or(&context.own_secrets);
        // Before anything is cut: of a secret across the cut, the rest is known to nobody.
        secrets::clean_end(redactor, &mut ending.end);
        let mut record = describe(context, claimed, stream, seq, &ending, next, detail);
        secrets::clean_finish(redactor, &mut record);
        match finish::finish(&context.store, &claimed.lease, Ender::Owner, &record).await {
            Ok(Finished::CancelFirst) => ending.end = AttemptEnd::Cancelled,
            // Stopped all the same: it goes back as after any other stop that is not its own.
            Ok(Finished::NotAsked) => ending.end = AttemptEnd::Interrupted,
            Ok(Finished::TooLate) => {
                ending.end = too_late(ending.end);
                next = Next::None;
            }
            Ok(done) => {
                log_end(claimed, &record, done);
                return done;
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, task.id = claimed.lease.task().0, "the end of an attempt waits for the database");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
                if finish::is_stored(&context.store, &claimed.lease)
                    .await
                    .unwrap_or(false)
                {
                    return Finished::Stored(None);
                }
            }
            Err(error) => {
                // What it left cannot be stored: keep the task's end, and say so.
                tracing::error!(%error, task.id = claimed.lease.task().0, "the result of an attempt was refused");
                let Some(less) = detail.less() else {
                    // Not even that it failed can be stored: the rescuer gives the task back, a
                    // few times, and a person finds this in the log.
                    return Finished::Lost;
                };
                detail = less;
                ending = unstorable(ending, detail, &error);
            }
        }
    }
}

/// Whether there may be another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// If the rules say so.
    AsTheRules,
    /// No: the task's deadline comes first.
    None,
}

/// What an attempt came to when the task's deadline rules out the next one.
fn too_late(end: AttemptEnd) -> AttemptEnd {
    match end {
        AttemptEnd::Failed { class, message } => AttemptEnd::Failed {
            class,
            message: retry::too_late(&message),
        },
        AttemptEnd::Succeeded
        | AttemptEnd::Cancelled
        | AttemptEnd::Interrupted
        | AttemptEnd::NotBegun { .. }
        | AttemptEnd::Yielded { .. }
        | AttemptEnd::LeaseLost => AttemptEnd::Failed {
            class: ErrorClass::Timeout,
            message: "the task went back to wait, and its deadline comes before the next attempt: submit it again with a later tasks.deadline".to_owned(),
        },
    }
}

/// How much of an end is stored; each step leaves out what the database may have refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// All of it.
    Full,
    /// Without what the agent left and said.
    NoResult,
    /// Only what becomes of the task.
    Bare,
}

impl Detail {
    fn less(self) -> Option<Self> {
        match self {
            Self::Full => Some(Self::NoResult),
            Self::NoResult => Some(Self::Bare),
            Self::Bare => None,
        }
    }
}

/// The end of an attempt whose end the database refuses.
fn unstorable(ending: Ending, detail: Detail, error: &StoreError) -> Ending {
    let refusal = format!("the database refuses to store the result: {error}");
    let end = match ending.end {
        AttemptEnd::Failed { class, message } if detail == Detail::NoResult => AttemptEnd::Failed {
            class,
            message: format!("{message} (and {refusal})"),
        },
        AttemptEnd::Succeeded
        | AttemptEnd::Interrupted
        | AttemptEnd::NotBegun { .. }
        | AttemptEnd::Yielded { .. } => AttemptEnd::Failed {
            class: ErrorClass::Internal,
            message: refusal,
        },
        end @ (AttemptEnd::Failed { .. } | AttemptEnd::Cancelled | AttemptEnd::LeaseLost) => end,
    };
    Ending {
        end,
        driven: None,
        snapshot: None,
        conversation: ending.conversation.filter(|_| detail != Detail::Bare),
        catalogue: ending.catalogue,
    }
}

fn describe(
    context: &RunContext,
    claimed: &Claimed,
    stream: &AttemptStream,
    seq: FirstSeq,
    ending: &Ending,
    next: Next,
    detail: Detail,
) -> Finish {
    let retry_after = ending.driven.as_ref().and_then(|d| d.retry_after);
    let disposition = match dispose(context, claimed, &ending.end, retry_after) {
        Disposition::Again { .. } if next == Next::None => Disposition::Failed,
        decided => decided,
    };
    let (error_class, error) = match &ending.end {
        AttemptEnd::Failed { class, message }
        | AttemptEnd::NotBegun { class, message }
        | AttemptEnd::Yielded { class, message, .. } => (
            Some(class.as_str()),
            Some(head_chars(message, limits::ERROR_TEXT_CHARS_MAX)),
        ),
        AttemptEnd::Cancelled => (Some(ErrorClass::Cancelled.as_str()), None),
        AttemptEnd::Succeeded | AttemptEnd::Interrupted | AttemptEnd::LeaseLost => (None, None),
    };
    let bare = detail == Detail::Bare;
    let events = event_of(&disposition, &ending.end, claimed)
        .into_iter()
        .filter(|_| !bare)
        .collect();
    Finish {
        disposition,
        end_kind: ending.end.kind(),
        error_class,
        error,
        output_summary: stream.summary().filter(|_| !bare),
        events,
        seq: if bare { FirstSeq::AfterStored } else { seq },
        facts: ending
            .conversation
            .map(|id| facts(claimed, stream, ending, id)),
    }
}

/// Retry, give back, or one of the three ends.
fn dispose(
    context: &RunContext,
    claimed: &Claimed,
    end: &AttemptEnd,
    retry_after: Option<Duration>,
) -> Disposition {
    match end {
        AttemptEnd::Succeeded => Disposition::Completed,
        AttemptEnd::Cancelled => Disposition::Cancelled,
        AttemptEnd::Interrupted | AttemptEnd::LeaseLost => Disposition::Again {
            wait: Duration::ZERO,
            charged: false,
            reason: "its worker stopped; it goes on elsewhere".to_owned(),
        },
        AttemptEnd::NotBegun { message, .. } => {
            let decision = retry::give_back(tries_of(claimed), None, context.jitter());
            disposition(decision, head_chars(message, 200))
        }
        AttemptEnd::Yielded { message, wait, .. } => {
            let decision = retry::go_on(*wait);
            disposition(decision, head_chars(message, 200))
        }
        AttemptEnd::Failed { class, message } => {
            let decision = retry::decide(*class, tries_of(claimed), retry_after, context.jitter());
            let reason = format!("retry after {class}: {}", head_chars(message, 200));
            disposition(decision, reason)
        }
    }
}

fn tries_of(claimed: &Claimed) -> Tries {
    Tries {
        attempt: claimed.lease.attempt(),
        uncharged: claimed.lease.uncharged(),
        max_attempts: claimed.max_attempts,
    }
}

fn disposition(decision: RetryDecision, reason: String) -> Disposition {
    match decision {
        RetryDecision::GiveUp => Disposition::Failed,
        RetryDecision::Again { wait, charged } => Disposition::Again {
            wait,
            charged,
            reason,
        },
    }
}

fn event_of(
    disposition: &Disposition,
    end: &AttemptEnd,
    claimed: &Claimed,
) -> Option<(&'static str, Value)> {
    let Disposition::Again { wait, charged, .. } = disposition else {
        return None;
    };
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Some(match end {
        AttemptEnd::Failed { class, message } | AttemptEnd::Yielded { class, message, .. } => (
            "retry_scheduled",
            json!({
                "class": class, "error": head_chars(message, limits::ERROR_TEXT_CHARS_MAX),
                "wait_ms": wait_ms, "attempt": claimed.lease.attempt() + 1, "charged": charged,
            }),
        ),
        AttemptEnd::NotBegun { message, .. } => {
            let reason = head_chars(message, limits::ERROR_TEXT_CHARS_MAX);
            (
                "given_back",
                json!({ "reason": reason, "wait_ms": wait_ms }),
            )
        }
        AttemptEnd::Succeeded
        | AttemptEnd::Cancelled
        | AttemptEnd::Interrupted
        | AttemptEnd::LeaseLost => ("given_back", json!({ "reason": "the worker is stopping" })),
    })
}

fn facts(
    claimed: &Claimed,
    stream: &AttemptStream,
    ending: &Ending,
    conversation: i64,
) -> AttemptFacts {
    let driven = ending.driven.as_ref();
    AttemptFacts {
        agent: claimed.agent.clone(),
        project: claimed.project.clone(),
        conversation,
        native_session_id: driven.and_then(|d| d.native_session_id.clone()),
        exit: driven.map_or_else(Exit::default, |d| d.exit.clone()),
        stop_reason: driven.and_then(|d| d.stop_reason.clone()),
        usage: driven.map(|d| price(&ending.catalogue, claimed, d)),
        snapshot: ending.snapshot.clone(),
        again_from: again_from(&ending.catalogue, claimed),
        times: stream.times,
    }
}

/// The native agent goes on from where it was: its conversation says that the work is done.
fn again_from(catalogue: &Catalogue, claimed: &Claimed) -> AgainFrom {
    let spec = catalogue.agents.get(&claimed.agent);
    match spec.map(|spec| spec.path) {
        Some(ExecutionPath::Native) => AgainFrom::Snapshot,
        Some(
            ExecutionPath::Acp | ExecutionPath::Pty | ExecutionPath::Pipe | ExecutionPath::Noop,
        )
        | None => AgainFrom::Base,
    }
}

/// The agent's own figure, else the price table's; unknown stays unknown.
fn price(catalogue: &Catalogue, claimed: &Claimed, driven: &Driven) -> UsageRow {
    let report: Option<UsageReport> = driven.usage.clone();
    let model = report
        .as_ref()
        .and_then(|r| r.model.clone())
        .or_else(|| driven.model.clone())
        .or_else(|| claimed.model.clone());
    if let Some(cost) = report.as_ref().and_then(|r| r.cost.clone()) {
        return UsageRow {
            report,
            price: None,
            cost: Some(cost),
            model,
        };
    }
    let price = model
        .as_deref()
        .and_then(|m| catalogue.price(&claimed.agent, m))
        .cloned();
    let cost = price
        .as_ref()
        .zip(report.as_ref())
        .and_then(|(p, r)| p.cost_of(&r.tokens));
    UsageRow {
        report,
        price: price.filter(|_| cost.is_some()),
        cost,
        model,
    }
}

fn log_end(claimed: &Claimed, record: &Finish, done: Finished) {
    let end = match &record.disposition {
        Disposition::Completed => End::Completed,
        Disposition::Failed => End::Failed,
        Disposition::Cancelled => End::Cancelled,
        Disposition::Again { .. } => End::Again,
    };
    figures::attempts(&claimed.agent, end, 1);
    if let (Some(class), Finished::Stored(_)) = (record.retried(), done) {
        figures::retries(class, 1);
    }
    count_usage(claimed, record);
    tracing::info!(
        task.id = claimed.lease.task().0,
        attempt.id = claimed.lease.token().0,
        agent.name = claimed.agent,
        state = end.as_str(),
        error_class = record.error_class,
        error = record.error,
        stored = ?done,
        "attempt ended"
    );
}

fn count_usage(claimed: &Claimed, record: &Finish) {
    let Some(usage) = record.facts.as_ref().and_then(|f| f.usage.as_ref()) else {
        return;
    };
    let tokens = usage.report.as_ref().and_then(|r| r.tokens.total());
    if let Some(tokens) = tokens.and_then(|t| u64::try_from(t).ok()) {
        figures::tokens(&claimed.agent, tokens);
    }
    if let Some(cost) = &usage.cost {
        let micros = (cost.amount * Decimal::from(1_000_000))
            .to_u64()
            .unwrap_or(0);
        figures::cost(&claimed.agent, &cost.currency, micros);
    }
}
