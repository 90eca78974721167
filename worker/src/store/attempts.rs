//! The life of an attempt in rows: begin, launch, phases, end. Everything carries the lease.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::domain::attempt::{ExecutionPath, Phase, Started};
use crate::domain::sandbox::{Network, Rung};
use crate::domain::usage::{SessionUsage, TokenCounts};

use super::claims::{Claimed, Lease};
use super::{Store, StoreError};

crate::statements! {
    INSERT_ATTEMPT = "insert_attempt";
    BEGIN_CONVERSATION = "begin_conversation";
    CONVERSATION_STATE = "conversation_state";
    RECORD_WORKTREE = "record_worktree";
    RECORD_LAUNCH = "record_launch";
    RECORD_RESULT = "record_result";
    SET_PHASE = "set_phase";
    CANCEL_FACTS = "cancel_facts";
    LOST_ATTEMPT = "lost_attempt";
}

/// Whether a write of an attempt found its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It did.
    Yes,
    /// Somebody else owns the task; stop and write nothing more.
    Lost,
}

impl Held {
    pub(super) fn of_rows(rows: usize) -> Self {
        if rows == 0 { Self::Lost } else { Self::Yes }
    }
}

/// Record that an attempt begins, and how it is confined: attempt, conversation, turn and first message in one
/// transaction.
pub async fn begin(
    store: &Store,
    claimed: &Claimed,
    path: ExecutionPath,
    conversation: i64,
    confined: (Rung, Network),
) -> Result<Held, StoreError> {
    let (task, token) = (claimed.lease.task().0, claimed.lease.token().0);
    let fallback_from = (claimed.agent != claimed.asked_agent).then_some(&claimed.asked_agent);
    let tx = store.begin().await?;
    let rows = tx
        .query(
            &INSERT_ATTEMPT,
            &[
                &task,
                &token,
                &path.as_str(),
                &claimed.model,
                &claimed.mode_id,
                &claimed.thinking_option_id,
                &conversation,
                &fallback_from,
                &confined.0.as_str(),
                &confined.1.as_str(),
            ],
        )
        .await?;
    if rows.is_empty() {
        return Ok(Held::Lost);
    }
    tx.query(
        &BEGIN_CONVERSATION,
        &[
            &task,
            &token,
            &conversation,
            &claimed.project,
            &claimed.agent,
            &claimed.input,
        ],
    )
    .await?;
    tx.commit().await?;
    Ok(Held::Yes)
}

/// What a follow-up builds on.
#[derive(Clone, Debug, Default)]
pub struct ConversationState {
    /// The agent's own session, when that agent ran last.
    pub native_session_id: Option<String>,
    /// Worktree in which that session was used last.
    pub session_worktree: Option<PathBuf>,
    /// Agent that ran last.
    pub agent: Option<String>,
    /// What was recorded for that session so far.
    pub session_used: SessionUsage,
    /// The newest open change.
    pub open_change: Option<OpenChange>,
}

/// A change that a follow-up builds on.
#[derive(Clone, Debug)]
pub struct OpenChange {
    /// Its id.
    pub id: i64,
    /// Commit it is based on.
    pub base: String,
    /// Commit it is.
    pub result: String,
}

/// What is known of a conversation; empty when it did not begin yet.
pub async fn conversation(store: &Store, id: i64) -> Result<ConversationState, StoreError> {
    let Some(row) = store.query_opt(&CONVERSATION_STATE, &[&id]).await? else {
        return Ok(ConversationState::default());
    };
    let change: Option<Value> = row.try_get("change")?;
    let text = |key: &str| {
        change
            .as_ref()
            .and_then(|c| c.get(key))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok(ConversationState {
        native_session_id: row.try_get("native_session_id")?,
        session_worktree: row
            .try_get::<_, Option<String>>("session_worktree")?
            .map(PathBuf::from),
        agent: row.try_get("agent")?,
        session_used: SessionUsage {
            tokens: TokenCounts {
                input: row.try_get("input_tokens")?,
                output: row.try_get("output_tokens")?,
                cache_read: row.try_get("cache_read_tokens")?,
                cache_write: row.try_get("cache_write_tokens")?,
                reasoning: row.try_get("reasoning_tokens")?,
            },
            cost: row.try_get("cost")?,
        },
        open_change: change
            .as_ref()
            .and_then(|c| c.get("id"))
            .and_then(Value::as_i64)
            .and_then(|id| {
                Some(OpenChange {
                    id,
                    base: text("base")?,
                    result: text("result")?,
                })
            }),
    })
}

/// Record where the attempt works and what it is compared with.
pub async fn record_worktree(
    store: &Store,
    lease: &Lease,
    base_commit: &str,
    worktree: &str,
) -> Result<(), StoreError> {
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0, &base_commit, &worktree];
    store.query(&RECORD_WORKTREE, params).await?;
    Ok(())
}

/// Record what really runs.
pub async fn record_launch(
    store: &Store,
    lease: &Lease,
    started: &Started,
) -> Result<(), StoreError> {
    let command = Value::from(started.command.clone());
    store
        .query(
            &RECORD_LAUNCH,
            &[
                &lease.task().0,
                &lease.token().0,
                &command,
                &started.version,
                &started.model,
                &started.mode_id,
                &started.native_session_id,
            ],
        )
        .await?;
    Ok(())
}

/// Record a result that was found after the attempt's worker had died.
pub async fn record_result(
    store: &Store,
    task: i64,
    token: i64,
    commit: &str,
    reference: &str,
) -> Result<(), StoreError> {
    store
        .query(&RECORD_RESULT, &[&task, &token, &commit, &reference])
        .await?;
    Ok(())
}

/// Show where the attempt is.
pub async fn set_phase(store: &Store, lease: &Lease, phase: Phase) -> Result<Held, StoreError> {
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0, &phase.as_str()];
    Ok(Held::of_rows(store.query(&SET_PHASE, params).await?.len()))
}

/// Who asked to cancel, and why.
pub async fn cancel_facts(
    store: &Store,
    lease: &Lease,
) -> Result<Option<(Option<String>, Option<String>)>, StoreError> {
    let row = store
        .query_opt(&CANCEL_FACTS, &[&lease.task().0, &lease.token().0])
        .await?;
    row.map(|row| Ok((row.try_get("cancel_by")?, row.try_get("cancel_reason")?)))
        .transpose()
}

/// What a worktree on disk belongs to.
#[derive(Clone, Debug)]
pub struct LostAttempt {
    /// Project of its task.
    pub project: String,
    /// Whether the attempt's end is stored.
    pub ended: bool,
    /// Whether somebody still holds its lease.
    pub live: bool,
}

/// Look up the attempt of a worktree; `None`: this database never heard of it.
pub async fn lost_attempt(
    store: &Store,
    task: i64,
    token: i64,
) -> Result<Option<LostAttempt>, StoreError> {
    let row = store.query_opt(&LOST_ATTEMPT, &[&task, &token]).await?;
    row.map(|row| {
        Ok(LostAttempt {
            project: row.try_get("project")?,
            ended: row.try_get("ended")?,
            live: row.try_get("live")?,
        })
    })
    .transpose()
}

/// Times of an attempt, by this worker's clock, for durations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// First text, thought or tool call.
    pub first_output_at: Option<DateTime<Utc>>,
    /// The agent's turn was over.
    pub turn_ended_at: Option<DateTime<Utc>>,
}
