//! The end of an attempt: one transaction that ends the lease and stores everything it left.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use std::time::Duration;

use crate::domain::attempt::Exit;
use crate::domain::change::Snapshot;
use crate::domain::usage::{Cost, Price, UsageReport, UsageSource};

use super::attempts::Times;
use super::carried::{self, AgainFrom};
use super::claims::Lease;
use super::{Store, StoreError, Tx, new_changes};

crate::statements! {
    END_LEASE = "end_lease";
    END_DEAD_LEASE = "end_dead_lease";
    INSERT_OUTCOME = "insert_outcome";
    PUT_LATER = "put_later";
    PAST_DEADLINE = "past_deadline";
    OUTCOME_OF_TOKEN = "outcome_of_token";
    NOTIFY = "notify";
    END_ATTEMPT = "end_attempt";
    END_TURN = "end_turn";
    KEEP_SESSION = "keep_session";
    INSERT_USAGE = "insert_usage";
    APPEND_LAST_EVENTS = "append_last_events";
    CLOSE_PERMISSIONS_OF = "close_permissions_of";
    NEXT_SEQ = "next_seq";
}

/// What becomes of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The agent did it.
    Completed,
    /// It will not be tried again.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It is tried again after a wait.
    Again {
        /// The wait.
        wait: Duration,
        /// Whether the attempt counted.
        charged: bool,
        /// Shown as the waiting reason.
        reason: String,
    },
}

/// What is known of the usage, priced.
#[derive(Clone, Debug)]
pub struct UsageRow {
    /// What the agent said, if anything.
    pub report: Option<UsageReport>,
    /// Price used, when the cost is ours and not the agent's.
    pub price: Option<Price>,
    /// The cost.
    pub cost: Option<Cost>,
    /// Model it is for.
    pub model: Option<String>,
}

/// Facts about an attempt that ran an agent.
#[derive(Clone, Debug)]
pub struct AttemptFacts {
    /// Agent that ran.
    pub agent: String,
    /// Project of the task.
    pub project: String,
    /// Conversation of the turn.
    pub conversation: i64,
    /// The agent's own session, to continue.
    pub native_session_id: Option<String>,
    /// How the process ended.
    pub exit: Exit,
    /// The agent's word for why it stopped.
    pub stop_reason: Option<String>,
    /// What it used; absent when no agent ran.
    pub usage: Option<UsageRow>,
    /// What it left.
    pub snapshot: Option<Snapshot>,
    /// Where the next attempt begins, if the task goes back.
    pub again_from: AgainFrom,
    /// When things happened.
    pub times: Times,
}

/// Everything the end of an attempt stores.
#[derive(Clone, Debug)]
pub struct Finish {
    /// What becomes of the task.
    pub disposition: Disposition,
    /// `attempts.end_kind`.
    pub end_kind: &'static str,
    /// Error class by name.
    pub error_class: Option<&'static str>,
    /// Error in words.
    pub error: Option<String>,
    /// Last text of the agent.
    pub output_summary: Option<String>,
    /// Events that belong to the end, in order.
    pub events: Vec<(&'static str, Value)>,
    /// Number of the first of them.
    pub seq: FirstSeq,
    /// Facts about the agent's run; absent when none began.
    pub facts: Option<AttemptFacts>,
}

impl Finish {
    /// The class of a failure after which the task is tried again; what a stopping worker gives back has none.
    pub fn retried(&self) -> Option<&'static str> {
        let again = matches!(self.disposition, Disposition::Again { .. });
        self.error_class.filter(|_| again)
    }
}

/// Number of the first event of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSeq {
    /// The attempt counted along.
    Known(i64),
    /// After whatever is stored once the lease is ended: for those who did not count along.
    AfterStored,
}

/// What storing the end of an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It is stored; the change's id, if there is one.
    Stored(Option<i64>),
    /// A cancel request was recorded in the same instant: decide again as cancelled.
    CancelFirst,
    /// Nobody asked for the task to be cancelled: decide again, not as cancelled.
    NotAsked,
    /// The task's deadline comes before the next attempt would begin: decide again, without one.
    TooLate,
    /// Somebody else owns the task; nothing was stored.
    Lost,
}

/// Whose lease is ended.
#[derive(Clone, Copy, Debug)]
pub enum Ender {
    /// The worker that holds it.
    Owner,
    /// A rescuer: only if the worker was not seen for this long.
    Rescuer(Duration),
}

/// Store the end of an attempt. Repeatable: after an error whose meaning is unknown, `is_stored`
/// tells.
pub async fn finish(
    store: &Store,
    lease: &Lease,
    ender: Ender,
    finish: &Finish,
) -> Result<Finished, StoreError> {
    let finish = &storable(finish.clone());
    let tx = store.begin().await?;
    let Some(ended) = end_lease(&tx, lease, ender).await? else {
        return Ok(Finished::Lost);
    };
    let is_cancelled = finish.disposition == Disposition::Cancelled;
    match ended.cancel_requested {
        true if !is_cancelled => return Ok(Finished::CancelFirst),
        false if is_cancelled => return Ok(Finished::NotAsked),
        true | false => {}
    }
    if is_too_late(&tx, lease, &finish.disposition).await? {
        return Ok(Finished::TooLate);
    }
    let mut next_seq = first_seq(&tx, lease, finish.seq).await?;
    append_last_events(&tx, lease, next_seq, &finish.events).await?;
    next_seq += i64::try_from(finish.events.len()).unwrap_or(0);
    let mut change = None;
    end_attempt(&tx, lease, finish).await?;
    if let Some(facts) = &finish.facts {
        store_facts(&tx, lease, facts).await?;
        change = new_changes::store(&tx, lease, &finish.disposition, facts, &mut next_seq).await?;
    }
    place_task(&tx, lease, finish, &ended, next_seq).await?;
    let facts = finish.facts.as_ref();
    carried::at_end(&tx, lease, ender, &finish.disposition, facts).await?;
    tx.query(&CLOSE_PERMISSIONS_OF, &[&lease.task().0, &lease.token().0])
        .await?;
    tx.query(&NOTIFY, &[&format!("events {}", lease.task())])
        .await?;
    tx.commit().await?;
    Ok(Finished::Stored(change))
}

/// Whether the end of this attempt is stored already (asked after a lost answer to COMMIT).
pub async fn is_stored(store: &Store, lease: &Lease) -> Result<bool, StoreError> {
    let row = store
        .query_one(&OUTCOME_OF_TOKEN, &[&lease.task().0, &lease.token().0])
        .await?;
    Ok(row.try_get("stored")?)
}

struct Ended {
    started_at: DateTime<Utc>,
    cancel_requested: bool,
    cancel_by: Option<String>,
    cancel_reason: Option<String>,
}

async fn end_lease(tx: &Tx, lease: &Lease, ender: Ender) -> Result<Option<Ended>, StoreError> {
    let (task, token) = (lease.task().0, lease.token().0);
    let rows = match ender {
        Ender::Owner => tx.query(&END_LEASE, &[&task, &token]).await?,
        Ender::Rescuer(ttl) => {
            let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            tx.query(&END_DEAD_LEASE, &[&task, &token, &ttl_ms]).await?
        }
    };
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Ended {
        started_at: row.try_get("started_at")?,
        cancel_requested: row.try_get("cancel_requested")?,
        cancel_by: row.try_get("cancel_by")?,
        cancel_reason: row.try_get("cancel_reason")?,
    }))
}

/// Only the database knows what time it is.
async fn is_too_late(
    tx: &Tx,
    lease: &Lease,
    disposition: &Disposition,
) -> Result<bool, StoreError> {
    let Disposition::Again { wait, .. } = disposition else {
        return Ok(false);
    };
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let rows = tx
        .query(&PAST_DEADLINE, &[&lease.task().0, &wait_ms])
        .await?;
    let late = rows.first().map(|row| row.try_get("late")).transpose()?;
    Ok(late.unwrap_or(false))
}

async fn first_seq(tx: &Tx, lease: &Lease, seq: FirstSeq) -> Result<i64, StoreError> {
    match seq {
        FirstSeq::Known(seq) => Ok(seq),
        FirstSeq::AfterStored => {
            let rows = tx.query(&NEXT_SEQ, &[&lease.task().0]).await?;
            let row = rows
                .first()
                .ok_or_else(|| StoreError::no_row(NEXT_SEQ.name))?;
            Ok(row.try_get("seq")?)
        }
    }
}

pub(super) async fn append_last_events(
    tx: &Tx,
    lease: &Lease,
    first: i64,
    events: &[(&'static str, Value)],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = (first..).take(events.len()).collect();
    let kinds: Vec<&str> = events.iter().map(|e| e.0).collect();
    let payloads: Vec<&Value> = events.iter().map(|e| &e.1).collect();
    let params: super::Params<'_> = &[&lease.task().0, &lease.attempt(), &seqs, &kinds, &payloads];
    tx.query(&APPEND_LAST_EVENTS, params).await?;
    Ok(())
}

async fn end_attempt(tx: &Tx, lease: &Lease, finish: &Finish) -> Result<(), StoreError> {
    let (task, token) = (lease.task().0, lease.token().0);
    let facts = finish.facts.as_ref();
    let snapshot = facts.and_then(|f| f.snapshot.as_ref());
    let exit = facts.map(|f| f.exit.clone()).unwrap_or_default();
    let stderr = (!exit.stderr_tail.is_empty()).then(|| clean(&exit.stderr_tail));
    let times = facts.map(|f| f.times).unwrap_or_default();
    tx.query(
        &END_ATTEMPT,
        &[
            &task,
            &token,
            &finish.end_kind,
            &finish.error_class,
            &finish.error,
            &exit.code,
            &exit.signal,
            &stderr,
            &snapshot.map(|s| s.result_commit.as_str()),
            &snapshot.map(|s| s.result_ref.as_str()),
            &facts.and_then(|f| f.native_session_id.as_deref()),
            &times.first_output_at,
            &times.turn_ended_at,
        ],
    )
    .await?;
    let stop = facts
        .and_then(|f| f.stop_reason.as_deref())
        .unwrap_or(finish.end_kind);
    tx.query(&END_TURN, &[&task, &lease.attempt(), &stop])
        .await?;
    Ok(())
}

async fn store_facts(tx: &Tx, lease: &Lease, facts: &AttemptFacts) -> Result<(), StoreError> {
    if facts.native_session_id.is_some() {
        let params: super::Params<'_> =
            &[&facts.conversation, &facts.native_session_id, &facts.agent];
        tx.query(&KEEP_SESSION, params).await?;
    }
    match &facts.usage {
        Some(usage) => store_usage(tx, lease, facts, usage).await,
        None => Ok(()),
    }
}

async fn store_usage(
    tx: &Tx,
    lease: &Lease,
    facts: &AttemptFacts,
    usage: &UsageRow,
) -> Result<(), StoreError> {
    let report = usage.report.clone().unwrap_or_default();
    let source = usage
        .report
        .as_ref()
        .map_or(UsageSource::None, |report| report.source);
    let amount: Option<Decimal> = usage.cost.as_ref().map(|c| c.amount);
    let currency = usage.cost.as_ref().map(|c| c.currency.as_str());
    let cost_source = usage.cost.as_ref().map(|_| {
        if usage.price.is_some() {
            "price_table"
        } else {
            "agent"
        }
    });
    let price = usage
        .price
        .as_ref()
        .and_then(|p| serde_json::to_value(p).ok());
    let raw = (!report.raw.is_empty()).then(|| Value::from(report.raw.clone()));
    tx.query(
        &INSERT_USAGE,
        &[
            &lease.task().0,
            &lease.attempt(),
            &lease.token().0,
            &facts.agent,
            &usage.model,
            &source.as_str(),
            &report.tokens.input,
            &report.tokens.output,
            &report.tokens.cache_read,
            &report.tokens.cache_write,
            &report.tokens.reasoning,
            &report.tokens.total(),
            &report.context,
            &amount,
            &currency,
            &cost_source,
            &price,
            &raw,
        ],
    )
    .await?;
    Ok(())
}

async fn place_task(
    tx: &Tx,
    lease: &Lease,
    finish: &Finish,
    ended: &Ended,
    next_seq: i64,
) -> Result<(), StoreError> {
    let state = match &finish.disposition {
        Disposition::Again {
            wait,
            charged,
            reason,
        } => {
            let uncharged = lease.uncharged() + i16::from(!charged);
            let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            let params: super::Params<'_> = &[
                &lease.task().0,
                &(lease.attempt() + 1),
                &uncharged,
                &wait_ms,
                reason,
            ];
            tx.query(&PUT_LATER, params).await?;
            tx.query(&NOTIFY, &[&"later"]).await?;
            return Ok(());
        }
        Disposition::Completed => "completed",
        Disposition::Failed => "failed",
        Disposition::Cancelled => "cancelled",
    };
    let error = finish.error.clone().or_else(|| ended.cancel_reason.clone());
    tx.query(
        &INSERT_OUTCOME,
        &[
            &lease.task().0,
            &lease.token().0,
            &ended.started_at,
            &next_seq,
            &lease.attempt(),
            &state,
            &finish.error_class,
            &error,
            &finish.output_summary,
            &ended.cancel_by,
        ],
    )
    .await?;
    Ok(())
}

/// Agents say what they like: a NUL in any of it must not cost the result.
fn storable(mut finish: Finish) -> Finish {
    let mend = |text: &mut Option<String>| {
        if let Some(text) = text.as_mut().filter(|text| text.contains('\0')) {
            *text = clean(text);
        }
    };
    mend(&mut finish.error);
    mend(&mut finish.output_summary);
    if let Disposition::Again { reason, .. } = &mut finish.disposition {
        *reason = clean(reason);
    }
    for (_, payload) in &mut finish.events {
        clean_value(payload);
    }
    if let Some(facts) = &mut finish.facts {
        mend(&mut facts.native_session_id);
        mend(&mut facts.stop_reason);
        if let Some(usage) = &mut facts.usage {
            mend(&mut usage.model);
            if let Some(report) = &mut usage.report {
                report.raw.iter_mut().for_each(clean_value);
            }
            if let Some(cost) = &mut usage.cost {
                cost.currency = clean(&cost.currency);
            }
        }
        if let Some(snapshot) = &mut facts.snapshot {
            for notice in &mut snapshot.notices {
                *notice = clean(notice);
            }
        }
    }
    finish
}

pub(super) fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = clean(text),
        Value::Array(values) => values.iter_mut().for_each(clean_value),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains('\0')) {
                let named = std::mem::take(fields).into_iter();
                *fields = named.map(|(key, value)| (clean(&key), value)).collect();
            }
            fields.values_mut().for_each(clean_value);
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Postgres text cannot hold NUL.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
