//! What was said to a model and by it. Every write is numbered by its writer, so that one whose answer
//! was lost can be repeated.

use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::Row;

use super::attempts::Held;
use super::claims::Lease;
use super::finish::clean_value;
use super::steps::{self, Figures, StepKind};
use super::{Statement, Store, StoreError, StoreErrorKind, Tx};
use crate::domain::llm::{Message, Role};

crate::statements! {
    KEEP_MESSAGES = "keep_messages";
    MESSAGES_OF_ATTEMPT = "messages_of_attempt";
    KEEP_SUMMARY = "keep_summary";
    KEEP_TO_DO = "keep_todos";
    LOAD_TURN = "load_turn";
    LOAD_MESSAGES = "load_messages", slow;
    LOSE_WORK = "lose_work", slow;
}

/// Whether the attempt goes on from what the one before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It does, or there is none before it.
    Yes,
    /// It begins anew: what earlier attempts of the task said is not true any more.
    No,
}

/// What a task may use, all attempts together; absent: no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Requests to the model.
    pub max_steps: Option<i32>,
    /// Tokens of all kinds.
    pub max_tokens: Option<i64>,
    /// Money.
    pub max_cost: Option<Decimal>,
}

/// What earlier attempts of the task used of it, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests to the model, those for summaries too.
    pub steps: i64,
    /// Tokens of all kinds.
    pub tokens: i64,
    /// Money, whatever its currency: a budget has none.
    pub cost: Decimal,
}

/// What is known of a conversation at the beginning of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What the model shall see, with the numbers, oldest first. A summary stands where what it
    /// replaced stood, so that the numbers need not ascend.
    pub messages: Vec<(i64, Message)>,
    /// Number of the message that comes next.
    pub next_seq: i64,
    /// Whether something of this very task is among them.
    pub begun: bool,
    /// The list of what is to be done.
    pub todos: Option<Value>,
    /// What earlier attempts of the task used.
    pub used: Used,
    /// What the task may use.
    pub budgets: Budgets,
    /// Tokens of the newest request of the conversation and its answer.
    pub context: Option<i64>,
}

/// What a step adds.
#[derive(Clone, Copy, Debug)]
pub struct NewStep<'a> {
    /// The conversation.
    pub conversation: i64,
    /// Number of the step in the attempt.
    pub n: i32,
    /// Number of its first message: the one that comes next.
    pub first_seq: i64,
    /// What was said, in order.
    pub messages: &'a [Message],
    /// What the request came to, if there was one.
    pub figures: Option<&'a Figures>,
}

/// A summary in place of the oldest messages.
#[derive(Clone, Copy, Debug)]
pub struct NewSummary<'a> {
    /// The conversation.
    pub conversation: i64,
    /// Its number among the summaries of the attempt, from 0.
    pub n: i32,
    /// The last message that it stands for, in the order of `Loaded::messages`.
    pub upto_seq: i64,
    /// Its own number: the one that comes next.
    pub seq: i64,
    /// What stands for them.
    pub summary: &'a Message,
    /// What making it came to.
    pub figures: &'a Figures,
}

/// What an attempt begins with; `None`: its lease is gone. With `Carried::No` what earlier attempts
/// of the task said is marked as lost, and what people sent to them waits again.
pub async fn load(
    store: &Store,
    lease: &Lease,
    conversation: i64,
    carried: Carried,
) -> Result<Option<Loaded>, StoreError> {
    let (task, token) = (lease.task().0, lease.token().0);
    match carried {
        Carried::Yes => {}
        Carried::No => match lose_work(store, lease).await? {
            Held::Yes => {}
            Held::Lost => return Ok(None),
        },
    }
    let params: super::Params<'_> = &[&task, &token, &conversation];
    let Some(row) = store.query_opt(&LOAD_TURN, params).await? else {
        return Ok(None);
    };
    let rows = store.query(&LOAD_MESSAGES, &[&conversation]).await?;
    let messages = rows.iter().map(message).collect::<Result<_, _>>()?;
    Ok(Some(Loaded {
        messages,
        next_seq: row.try_get("next_seq")?,
        begun: row.try_get("begun")?,
        todos: row.try_get("todos")?,
        used: Used {
            steps: row.try_get("steps")?,
            tokens: row.try_get("tokens")?,
            cost: row.try_get("cost")?,
        },
        budgets: Budgets {
            max_steps: row.try_get("max_steps")?,
            max_tokens: row.try_get("max_tokens")?,
            max_cost: row.try_get("max_cost")?,
        },
        context: row.try_get("context")?,
    }))
}

/// Mark what earlier attempts of the task said as lost with their work; what people sent to them waits
/// again. For an attempt that begins anew, before anything else: it may die before it asks a model.
pub async fn lose_work(store: &Store, lease: &Lease) -> Result<Held, StoreError> {
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0];
    let row = store.query_one(&LOSE_WORK, params).await?;
    Ok(match row.try_get::<_, bool>("held")? {
        true => Held::Yes,
        false => Held::Lost,
    })
}

fn message(row: &Row) -> Result<(i64, Message), StoreError> {
    let seq: i64 = row.try_get("seq")?;
    let role: &str = row.try_get("role")?;
    let parts: Value = row.try_get("parts")?;
    let unreadable = |why: String| StoreError {
        kind: StoreErrorKind::Internal,
        message: format!("message {seq} of a conversation cannot be read: {why}"),
        hint: Some("Was it stored by a newer dispatch? Run that one.".to_owned()),
        constraint: None,
    };
    let parts = serde_json::from_value(parts).map_err(|e| unreadable(e.to_string()))?;
    let role = Role::parse(role).ok_or_else(|| unreadable(format!("role {role:?}")))?;
    Ok((seq, Message { role, parts }))
}

fn parts(message: &Message) -> Result<Value, StoreError> {
    let mut parts = serde_json::to_value(&message.parts).map_err(|e| StoreError {
        kind: StoreErrorKind::Internal,
        message: format!("a message cannot be stored: {e}"),
        hint: None,
        constraint: None,
    })?;
    clean_value(&mut parts);
    Ok(parts)
}

/// Store what a step added and what it used, in one transaction. Harmless to repeat.
pub async fn keep_step(
    store: &Store,
    lease: &Lease,
    step: &NewStep<'_>,
) -> Result<Held, StoreError> {
    let roles: Vec<&str> = step.messages.iter().map(|m| m.role.as_str()).collect();
    let all: Vec<Value> = step
        .messages
        .iter()
        .map(parts)
        .collect::<Result<_, StoreError>>()?;
    let tx = store.begin().await?;
    let (task, token) = (lease.task().0, lease.token().0);
    let params: super::Params<'_> = &[
        &task,
        &token,
        &step.conversation,
        &step.first_seq,
        &step.n,
        &roles,
        &all,
    ];
    let place = Place {
        conversation: step.conversation,
        n: step.n,
        first: step.first_seq,
        count: step.messages.len(),
    };
    if add(&tx, lease, &KEEP_MESSAGES, params, &place).await? == Held::Lost {
        return Ok(Held::Lost);
    }
    if let Some(figures) = step.figures {
        let place = (StepKind::Model, step.n);
        steps::keep(&tx, lease, step.conversation, place, figures).await?;
    }
    tx.commit().await?;
    Ok(Held::Yes)
}

/// Let one message stand for the oldest ones, in one transaction with what it used. Harmless to repeat.
pub async fn compact(
    store: &Store,
    lease: &Lease,
    new: &NewSummary<'_>,
) -> Result<Held, StoreError> {
    let tx = store.begin().await?;
    let params: super::Params<'_> = &[
        &lease.task().0,
        &lease.token().0,
        &new.conversation,
        &new.upto_seq,
        &new.seq,
        &new.n,
        &new.summary.role.as_str(),
        &parts(new.summary)?,
    ];
    let place = Place {
        conversation: new.conversation,
        n: new.n,
        first: new.seq,
        count: 1,
    };
    if add(&tx, lease, &KEEP_SUMMARY, params, &place).await? == Held::Lost {
        return Ok(Held::Lost);
    }
    let place = (StepKind::Compaction, new.n);
    steps::keep(&tx, lease, new.conversation, place, new.figures).await?;
    tx.commit().await?;
    Ok(Held::Yes)
}

/// Which messages a write adds.
struct Place {
    conversation: i64,
    n: i32,
    first: i64,
    count: usize,
}

/// Run a statement that adds messages with these numbers. What is there already must be this attempt's
/// own, from a try whose answer was lost.
async fn add(
    tx: &Tx,
    lease: &Lease,
    statement: &Statement,
    params: super::Params<'_>,
    place: &Place,
) -> Result<Held, StoreError> {
    let rows = tx.query(statement, params).await?;
    let Some(row) = rows.first() else {
        return Ok(Held::Lost);
    };
    let (first, conversation) = (place.first, place.conversation);
    let count = i64::try_from(place.count).unwrap_or(i64::MAX);
    let added: i64 = row.try_get("added")?;
    if added == count {
        return Ok(Held::Yes);
    }
    let (task, token, last) = (lease.task().0, lease.token().0, first + count - 1);
    let params: super::Params<'_> = &[&task, &token, &first, &last, &conversation, &place.n];
    let rows = tx.query(&MESSAGES_OF_ATTEMPT, params).await?;
    let there = rows.first().map(|row| row.try_get::<_, i64>("there"));
    // A write is stored whole or not at all.
    if added == 0 && there.transpose()? == Some(count) {
        return Ok(Held::Yes);
    }
    Err(StoreError {
        kind: StoreErrorKind::Internal,
        message: format!(
            "message {first} does not come next in conversation {conversation}: it was not stored"
        ),
        hint: None,
        constraint: None,
    })
}

/// Store the list of what is to be done; it replaces the one before.
pub async fn keep_todos(
    store: &Store,
    lease: &Lease,
    conversation: i64,
    todos: &Value,
) -> Result<Held, StoreError> {
    let mut todos = todos.clone();
    clean_value(&mut todos);
    let params: super::Params<'_> = &[&lease.task().0, &lease.token().0, &conversation, &todos];
    Ok(Held::of_rows(store.query(&KEEP_TO_DO, params).await?.len()))
}
