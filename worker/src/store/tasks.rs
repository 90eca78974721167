//! Requests as submitters and readers see them. Claiming and ending them is the queue's side.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Store, StoreError, StoreErrorKind, Tx};
use crate::domain::attention::AttentionFilter;
use crate::domain::batch_key::BatchKey;
use crate::domain::ids::TaskId;
use crate::domain::task::TaskState;

crate::statements! {
    /// What a submission has to know before it is made.
    FACTS = "task_submit_facts";
    /// A new task, or none when its idempotency key is taken.
    SUBMIT = "task_submit";
    /// The task that has an idempotency key, and whether it asks for the same.
    FIRST_WITH_KEY = "task_first_with_key";
    /// Whether some task has an idempotency key.
    KEY_TAKEN = "key_taken";
    /// One task.
    GET = "task_get";
    /// A page of tasks, newest first.
    LIST = "task_list";
    /// A page of pending or running tasks, newest first.
    LIST_OPEN = "task_list_open";
    /// A page of ended tasks in one state, newest first.
    LIST_ENDED = "task_list_ended";
    /// A page of tasks that wait for a person, newest first.
    LIST_ATTENTION = "task_list_attention";
    /// Cancel.
    CANCEL = "task_cancel";
    /// Run an ended task again.
    REQUEUE = "task_requeue";
}

crate::record! {
    /// Where a task stands, one row of the view `task_status`.
    pub struct TaskView {
        /// Its number.
        pub id: i64,
        /// Its project.
        pub project: String,
        /// The conversation it belongs to: the id of the task that began it.
        pub conversation_id: i64,
        /// pending, running, completed, failed or cancelled.
        pub state: String,
        /// What its attempt is doing, while it runs.
        pub phase: Option<String>,
        /// What it waits for, while it is pending.
        pub waiting_reason: Option<String>,
        /// When it will be looked at again, while it waits for a time.
        pub runs_at: Option<DateTime<Utc>>,
        /// The agent that was asked for.
        pub agent: String,
        /// How the agent was driven.
        pub execution_path: Option<String>,
        /// The model that was asked for or used.
        pub model: Option<String>,
        /// Attempts begun so far.
        pub attempts: i16,
        /// Why it failed, as a class.
        pub error_class: Option<String>,
        /// Why it failed, in words.
        pub error: Option<String>,
        /// The agent's last words.
        pub output_summary: Option<String>,
        /// Tokens of all attempts; absent: unknown.
        pub cost_tokens: Option<i64>,
        /// Cost of all attempts, exact; absent: unknown.
        pub cost: Option<String>,
        /// Its latest pending change.
        pub change_id: Option<i64>,
        /// Where that change stands.
        pub change_state: Option<String>,
        /// What waits for a person: permission, conflict, review, blocked or failed; absent: nothing.
        pub attention: Option<String>,
        /// 0 to 9; 9 runs first.
        pub priority: i16,
        /// Who submitted it.
        pub submitted_by: String,
        /// When it was submitted.
        pub created_at: DateTime<Utc>,
        /// Not before this time.
        pub run_at: DateTime<Utc>,
        /// When its latest attempt began.
        pub started_at: Option<DateTime<Utc>>,
        /// When it ended.
        pub ended_at: Option<DateTime<Utc>>,
        /// The worker that runs it.
        pub worker_id: Option<Uuid>,
        /// When somebody asked to cancel it.
        pub cancel_requested_at: Option<DateTime<Utc>>,
        /// What the agent shall do; lists show its beginning only.
        pub input: String,
    }
}

/// A request to be made. Absent: the default of the column.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// Its project.
    pub project: String,
    /// What the agent shall do.
    pub input: String,
    /// The agent; absent: the project's, else the fleet's.
    pub agent: Option<String>,
    /// A model the agent offers.
    pub model: Option<String>,
    /// A mode the agent offers.
    pub mode_id: Option<String>,
    /// A thinking option the agent offers.
    pub thinking_option_id: Option<String>,
    /// Continue this conversation.
    pub conversation_id: Option<i64>,
    /// 0 to 9; 9 runs first.
    pub priority: Option<i16>,
    /// Not before this time …
    pub run_at: Option<DateTime<Utc>>,
    /// … or not before so many seconds have passed.
    pub delay_s: Option<f64>,
    /// Attempts that count, at most.
    pub max_attempts: Option<i16>,
    /// Longest time of one attempt, in seconds.
    pub timeout_s: Option<f64>,
    /// Longest silence of the agent, in seconds.
    pub idle_timeout_s: Option<f64>,
    /// Not after this time.
    pub deadline: Option<DateTime<Utc>>,
    /// Tasks that share it run one at a time.
    pub limit_key: Option<String>,
    /// The same key is the same task.
    pub idempotency_key: Option<String>,
    /// Agent to run when no live worker offers the one asked for.
    pub fallback: Option<String>,
    /// Commit or branch to start from.
    pub base_ref: Option<String>,
    /// Requests to the model, all attempts together.
    pub max_steps: Option<i32>,
    /// Tokens, all attempts together.
    pub max_tokens: Option<i64>,
    /// Money, all attempts together.
    pub max_cost: Option<Decimal>,
}

/// What a submission has to know before it is made.
#[derive(Clone, Debug)]
pub struct SubmitFacts {
    /// Whether the project exists.
    pub project_exists: bool,
    /// The agent it would run on; absent: none is set.
    pub agent: Option<String>,
    /// Agents of all catalogues; empty: no worker has ever run.
    pub known_agents: Vec<String>,
    /// Some projects, for a hint.
    pub projects: Vec<String>,
}

/// Look up what a submission needs.
pub async fn facts(
    store: &Store,
    project: &str,
    agent: Option<&str>,
    conversation: Option<i64>,
) -> Result<SubmitFacts, StoreError> {
    let params: super::Params<'_> = &[&project, &agent, &conversation];
    let row = store.query_one(&FACTS, params).await?;
    Ok(SubmitFacts {
        project_exists: row.try_get("project_exists")?,
        agent: row.try_get("agent")?,
        known_agents: row.try_get("known_agents")?,
        projects: row.try_get("projects")?,
    })
}

/// A task that was made, or had been made before under the same idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub id: TaskId,
    /// Whether it had been made before.
    pub replayed: bool,
}

/// Make a task. A taken idempotency key gives the first task when it asks for the same, and a
/// `Duplicate` that names it when it does not.
pub async fn submit(store: &Store, task: &NewTask, actor: &str) -> Result<Submitted, StoreError> {
    let row = store.query_opt(&SUBMIT, &params(task, &actor)).await?;
    match row {
        Some(row) => fresh(&row),
        None => made_before(&store.query_one(&FIRST_WITH_KEY, &key_params(task)).await?),
    }
}

/// The same without making it: whether the rules of the database accept it. The number is nobody's.
pub async fn try_out(store: &Store, task: &NewTask, actor: &str) -> Result<Submitted, StoreError> {
    let tx = store.begin().await?;
    // Dropped, it is rolled back.
    submit_in(&tx, task, &actor).await
}

/// Make all of them, or none: the error says which one the database refuses, counted from 0. Under a key
/// that was used for another batch none is made.
pub async fn submit_all(
    store: &Store,
    tasks: &[NewTask],
    key: Option<&BatchKey>,
    actor: &str,
) -> Result<Vec<Submitted>, (usize, StoreError)> {
    let tx = store.begin().await.map_err(|error| (0, error))?;
    let made = submit_all_in(&tx, tasks, key, actor).await?;
    tx.commit().await.map_err(|error| (0, error))?;
    Ok(made)
}

/// What making all of them would do, with nothing made. Numbers of tasks that were not made before mean
/// nothing.
pub async fn try_out_all(
    store: &Store,
    tasks: &[NewTask],
    key: Option<&BatchKey>,
    actor: &str,
) -> Result<Vec<Submitted>, (usize, StoreError)> {
    let tx = store.begin().await.map_err(|error| (0, error))?;
    // Dropped, it is rolled back.
    submit_all_in(&tx, tasks, key, actor).await
}

async fn submit_all_in(
    tx: &Tx,
    tasks: &[NewTask],
    key: Option<&BatchKey>,
    actor: &str,
) -> Result<Vec<Submitted>, (usize, StoreError)> {
    let mut made = Vec::with_capacity(tasks.len());
    for (n, task) in tasks.iter().enumerate() {
        let one = submit_in(tx, task, &actor).await;
        made.push(one.map_err(|error| (n, error))?);
    }
    if let Some(key) = key {
        same_batch(tx, tasks, &made, key).await?;
    }
    Ok(made)
}

/// Refuse a batch that shares only a part with the one that had its key first.
async fn same_batch(
    tx: &Tx,
    tasks: &[NewTask],
    made: &[Submitted],
    key: &BatchKey,
) -> Result<(), (usize, StoreError)> {
    let other = || StoreError {
        kind: StoreErrorKind::Duplicate,
        message: "the idempotency key belongs to a batch of other tasks".to_owned(),
        hint: Some("Use a new key for a new batch.".to_owned()),
        constraint: Some("tasks_idempotency_key".to_owned()),
    };
    let of_key = |n: &usize| {
        let own = tasks.get(*n).and_then(|task| task.idempotency_key.as_ref());
        own.is_some_and(|own| *own == key.of(*n))
    };
    let replayed = |n: usize| made.get(n).is_some_and(|one| one.replayed);
    let keyed: Vec<usize> = (0..tasks.len()).filter(of_key).collect();
    let Some(first) = keyed.first() else {
        return Ok(());
    };
    if let Some(n) = keyed.iter().find(|n| replayed(**n) != replayed(*first)) {
        return Err((*n, other()));
    }
    let next = key.of(tasks.len());
    let longer = tx.query(&KEY_TAKEN, &[&next]).await;
    let longer = longer.and_then(|rows| match rows.first() {
        Some(row) => Ok(row.try_get("taken")?),
        None => Err(StoreError::no_row(KEY_TAKEN.name)),
    });
    match longer {
        Ok(false) => Ok(()),
        Ok(true) => Err((tasks.len() - 1, other())),
        Err(error) => Err((0, error)),
    }
}

async fn submit_in(tx: &Tx, task: &NewTask, actor: &&str) -> Result<Submitted, StoreError> {
    let rows = tx.query(&SUBMIT, &params(task, actor)).await?;
    match rows.first() {
        Some(row) => fresh(row),
        // Of this very transaction, perhaps: only it sees that.
        None => {
            let rows = tx.query(&FIRST_WITH_KEY, &key_params(task)).await?;
            let row = rows
                .first()
                .ok_or_else(|| StoreError::no_row(FIRST_WITH_KEY.name))?;
            made_before(row)
        }
    }
}

fn fresh(row: &Row) -> Result<Submitted, StoreError> {
    Ok(Submitted {
        id: TaskId(row.try_get("id")?),
        replayed: false,
    })
}

fn params<'a>(task: &'a NewTask, actor: &'a &'a str) -> [&'a (dyn ToSql + Sync); 22] {
    [
        &task.project,
        &task.input,
        &task.agent,
        &task.model,
        &task.mode_id,
        &task.thinking_option_id,
        &task.conversation_id,
        &task.priority,
        &task.run_at,
        &task.delay_s,
        &task.max_attempts,
        &task.timeout_s,
        &task.idle_timeout_s,
        &task.deadline,
        &task.limit_key,
        &task.idempotency_key,
        &task.fallback,
        &task.base_ref,
        actor,
        &task.max_steps,
        &task.max_tokens,
        &task.max_cost,
    ]
}

fn key_params(task: &NewTask) -> [&(dyn ToSql + Sync); 20] {
    [
        &task.idempotency_key,
        &task.project,
        &task.input,
        &task.agent,
        &task.model,
        &task.mode_id,
        &task.thinking_option_id,
        &task.conversation_id,
        &task.priority,
        &task.run_at,
        &task.max_attempts,
        &task.timeout_s,
        &task.idle_timeout_s,
        &task.deadline,
        &task.limit_key,
        &task.fallback,
        &task.base_ref,
        &task.max_steps,
        &task.max_tokens,
        &task.max_cost,
    ]
}

/// The task that has the key, if it asks for the same.
fn made_before(row: &Row) -> Result<Submitted, StoreError> {
    let id = TaskId(row.try_get("id")?);
    if row.try_get("same")? {
        return Ok(Submitted { id, replayed: true });
    }
    Err(StoreError {
        kind: StoreErrorKind::Duplicate,
        message: format!("the idempotency key belongs to task {id}, which asks for something else"),
        hint: Some("Use a new key for a new request.".to_owned()),
        constraint: Some("tasks_idempotency_key".to_owned()),
    })
}

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only in this state.
    pub state: Option<TaskState>,
    /// Only those that wait for a person.
    pub attention: Option<AttentionFilter>,
    /// Only of this project.
    pub project: Option<String>,
    /// Only for this agent.
    pub agent: Option<String>,
    /// Only older than this one.
    pub before: Option<i64>,
    /// At most so many.
    pub most: i64,
}

/// Tasks, newest first.
pub async fn list(store: &Store, filter: &TaskFilter) -> Result<Vec<TaskView>, StoreError> {
    let before = filter.before.unwrap_or(i64::MAX);
    let state = filter.state.map(TaskState::as_str);
    let kind = filter.attention.map(AttentionFilter::kind);
    let page: super::Params<'_> = &[&before, &filter.project, &filter.agent, &filter.most];
    let rows = match (filter.state, kind) {
        (_, Some(kind)) => {
            let all = [page, &[&state, &kind]].concat();
            store.query(&LIST_ATTENTION, &all).await?
        }
        (None, None) => store.query(&LIST, page).await?,
        (Some(ended), None) if ended.is_terminal() => {
            let all = [page, &[&state]].concat();
            store.query(&LIST_ENDED, &all).await?
        }
        (Some(_), None) => {
            let all = [page, &[&state]].concat();
            store.query(&LIST_OPEN, &all).await?
        }
    };
    rows.iter().map(TaskView::read).collect()
}

/// One task, its input whole.
pub async fn get(store: &Store, id: TaskId) -> Result<Option<TaskView>, StoreError> {
    let row = store.query_opt(&GET, &[&id.0]).await?;
    row.as_ref().map(TaskView::read).transpose()
}

/// Cancel; says `cancelled`, `cancel_requested` or `already_over`.
pub async fn cancel(
    store: &Store,
    id: TaskId,
    reason: Option<&str>,
    actor: &str,
) -> Result<String, StoreError> {
    let row = store.query_one(&CANCEL, &[&id.0, &reason, &actor]).await?;
    Ok(row.try_get("outcome")?)
}

/// Run an ended task again.
pub async fn requeue(store: &Store, id: TaskId, actor: &str) -> Result<(), StoreError> {
    store.query_one(&REQUEUE, &[&id.0, &actor]).await?;
    Ok(())
}
