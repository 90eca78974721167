//! Claiming, and the moves between waiting states.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::Row;

use crate::domain::ids::{LeaseToken, TaskId, WorkerId};

use super::{Store, StoreError};

crate::statements! {
    CLAIM_TASKS = "claim_tasks";
    FINISH_PLAIN = "finish_plain";
    MAINTAIN = "maintain", slow;
    EXPIRED_LEASES = "expired_leases";
    FORGOTTEN_LEASES = "forgotten_leases";
    BEHIND_MARKS = "behind_marks";
}

/// Priority levels of a task, 0 to 9.
const LEVELS: usize = 10;

/// How far behind the greatest claimed `run_at` the next claim looks: late commits come in
/// within this, the rest is the sweep's.
const MARK_SLACK: TimeDelta = TimeDelta::milliseconds(200);

/// The right to work on a task and to write about it. Only a claim makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    task: TaskId,
    token: LeaseToken,
    attempt: i16,
    uncharged: i16,
}

impl Lease {
    /// The task it is for.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The fence.
    pub fn token(&self) -> LeaseToken {
        self.token
    }

    /// Number of the attempt, from 1.
    pub fn attempt(&self) -> i16 {
        self.attempt
    }

    /// How many earlier attempts did not count.
    pub fn uncharged(&self) -> i16 {
        self.uncharged
    }
}

/// After any `run_at` that a task may have: a level with this mark is not looked at.
const NEVER: TimeDelta = TimeDelta::days(365 * 300);

/// A claimed task: the lease and what was asked for.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The right to work on it.
    pub lease: Lease,
    /// Agent that runs it.
    pub agent: String,
    /// Agent that was asked for; differs after a fallback.
    pub asked_agent: String,
    /// Project it is about.
    pub project: String,
    /// The prompt.
    pub input: String,
    /// Model asked for.
    pub model: Option<String>,
    /// Mode asked for.
    pub mode_id: Option<String>,
    /// Thinking option asked for.
    pub thinking_option_id: Option<String>,
    /// Conversation it continues.
    pub conversation: Option<i64>,
    /// Counted attempts it may have.
    pub max_attempts: i16,
    /// Total time for the attempt; may be negative when a deadline has passed.
    pub timeout_ms: Option<i64>,
    /// Longest silence.
    pub idle_timeout_ms: Option<i64>,
    /// Commit or branch to start from.
    pub base_ref: Option<String>,
    /// Who submitted it.
    pub submitted_by: String,
    /// Whether finishing it may let a parked task out.
    pub gated: bool,
    /// Number of the next event of its stream.
    pub next_seq: i64,
}

/// Where the last claims of each agent and level got to. Lives in one worker's memory; losing it
/// costs one walk over dead index entries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LowWaterMarks(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    agents: HashMap<String, [Option<DateTime<Utc>>; LEVELS]>,
    /// Claims so far in which agents competed.
    turn: usize,
}

impl LowWaterMarks {
    /// Ten marks for each agent, by priority; long ago where nothing was claimed yet.
    pub fn of(&self, agents: &[&str]) -> Vec<DateTime<Utc>> {
        let nothing = [None; LEVELS];
        let marks = self.marks();
        agents
            .iter()
            .flat_map(|agent| marks.agents.get(*agent).unwrap_or(&nothing).iter())
            .map(|mark| mark.unwrap_or(DateTime::UNIX_EPOCH))
            .collect()
    }

    fn learn(&self, agent: &str, priority: i16, run_at: DateTime<Utc>) {
        let Some(level) = usize::try_from(priority).ok().filter(|l| *l < LEVELS) else {
            return;
        };
        let mut marks = self.marks();
        let marks = match marks.agents.get_mut(agent) {
            Some(marks) => marks,
            None => marks
                .agents
                .entry(agent.to_owned())
                .or_insert([None; LEVELS]),
        };
        let mark = run_at - MARK_SLACK;
        marks[level] = Some(marks[level].map_or(mark, |old| old.max(mark)));
    }

    fn next_turn(&self) -> usize {
        let mut marks = self.marks();
        marks.turn = marks.turn.wrapping_add(1);
        marks.turn
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // Marks that a panic left half learned are still marks.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many tasks of an agent the worker could start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The agent.
    pub agent: String,
    /// Its free slots.
    pub free: i32,
}

/// How far back a claim looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// From the low-water marks on: cheap, and blind to what was committed late.
    New,
    /// At everything: the sweep, which alone may conclude that nothing is ready.
    All,
}

/// Claim up to `total` tasks.
pub async fn claim(
    store: &Store,
    worker: WorkerId,
    demand: &[Demand],
    total: i32,
    look: Look,
    marks: &LowWaterMarks,
) -> Result<Vec<Claimed>, StoreError> {
    let mut claim = Claim {
        store,
        worker,
        demand: demand.to_vec(),
        total,
        look,
        claimed: Vec::new(),
    };
    let wanted: i32 = demand.iter().map(|d| d.free).sum();
    if wanted <= total {
        claim.take(marks, None).await?;
        return Ok(claim.claimed);
    }
    // Agents compete for the worker's slots: level by level, and nobody is always first in line.
    let first = marks.next_turn() % claim.demand.len().max(1);
    claim.demand.rotate_left(first);
    for level in (0..LEVELS).rev() {
        if claim.total == 0 {
            break;
        }
        match claim.take(marks, Some(level)).await {
            Ok(()) => {}
            // What earlier levels gave is claimed and must be run.
            Err(_) if !claim.claimed.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(claim.claimed)
}

/// A claim under way.
struct Claim<'a> {
    store: &'a Store,
    worker: WorkerId,
    demand: Vec<Demand>,
    total: i32,
    look: Look,
    claimed: Vec<Claimed>,
}

impl Claim<'_> {
    /// One statement, over all priority levels or one.
    async fn take(
        &mut self,
        marks: &LowWaterMarks,
        level: Option<usize>,
    ) -> Result<(), StoreError> {
        let agents: Vec<&str> = self.demand.iter().map(|d| d.agent.as_str()).collect();
        let free: Vec<i32> = self.demand.iter().map(|d| d.free).collect();
        let mut flat = match self.look {
            Look::New => marks.of(&agents),
            Look::All => vec![DateTime::UNIX_EPOCH; agents.len() * LEVELS],
        };
        if let Some(level) = level {
            let never = DateTime::UNIX_EPOCH + NEVER;
            let others = flat.iter_mut().enumerate();
            others
                .filter(|(place, _)| place % LEVELS != level)
                .for_each(|(_, mark)| *mark = never);
        }
        let params: super::Params<'_> = &[&self.worker.0, &agents, &free, &flat, &self.total];
        let rows = self.store.query(&CLAIM_TASKS, params).await?;
        let waited = metrics::histogram!("dispatch_claim_latency_seconds");
        let now = Utc::now();
        for row in &rows {
            let claimed = claimed(row)?;
            let run_at: DateTime<Utc> = row.try_get("run_at")?;
            marks.learn(&claimed.agent, row.try_get("priority")?, run_at);
            if claimed.lease.attempt == 1 && !claimed.gated {
                // Two clocks: good enough to see a queue that stands still.
                waited.record((now - run_at).as_seconds_f64().max(0.0));
            }
            self.total -= 1;
            if let Some(demand) = self.demand.iter_mut().find(|d| d.agent == claimed.agent) {
                demand.free -= 1;
            }
            self.claimed.push(claimed);
        }
        Ok(())
    }
}

fn claimed(row: &Row) -> Result<Claimed, StoreError> {
    let conversation: Option<i64> = row.try_get("conversation_id")?;
    let limit_key: Option<String> = row.try_get("limit_key")?;
    Ok(Claimed {
        lease: lease(row)?,
        agent: row.try_get("agent")?,
        asked_agent: row.try_get("asked_agent")?,
        project: row.try_get("project")?,
        input: row.try_get("input")?,
        model: row.try_get("model")?,
        mode_id: row.try_get("mode_id")?,
        thinking_option_id: row.try_get("thinking_option_id")?,
        conversation,
        max_attempts: row.try_get("max_attempts")?,
        timeout_ms: row.try_get("timeout_ms")?,
        idle_timeout_ms: row.try_get("idle_timeout_ms")?,
        base_ref: row.try_get("base_ref")?,
        submitted_by: row.try_get("submitted_by")?,
        gated: limit_key.is_some() || conversation.is_some(),
        next_seq: row.try_get("next_seq")?,
    })
}

fn lease(row: &Row) -> Result<Lease, StoreError> {
    Ok(Lease {
        task: TaskId(row.try_get("task_id")?),
        token: LeaseToken(row.try_get("token")?),
        attempt: row.try_get("attempt")?,
        uncharged: row.try_get("uncharged")?,
    })
}

/// Whether a ready task of these agents is older than its mark (ten an agent, by priority).
pub async fn behind_marks(
    store: &Store,
    agents: &[&str],
    marks: &[DateTime<Utc>],
) -> Result<bool, StoreError> {
    let row = store.query_one(&BEHIND_MARKS, &[&agents, &marks]).await?;
    Ok(row.try_get("late")?)
}

/// An attempt that ended well and left nothing to store.
#[derive(Clone, Debug)]
pub struct PlainFinish {
    /// Its lease.
    pub lease: Lease,
    /// Number of the terminal event.
    pub seq: i64,
}

/// Complete many plain attempts in one statement. Returns the tasks that were completed; the
/// others have a cancel request or another owner and need the full way.
pub async fn finish_plain(store: &Store, batch: &[PlainFinish]) -> Result<Vec<TaskId>, StoreError> {
    // The statement finds a row's place in the lists by a binary search for its token.
    let mut batch: Vec<&PlainFinish> = batch.iter().collect();
    batch.sort_unstable_by_key(|f| f.lease.token.0);
    let tasks: Vec<i64> = batch.iter().map(|f| f.lease.task.0).collect();
    let tokens: Vec<i64> = batch.iter().map(|f| f.lease.token.0).collect();
    let seqs: Vec<i64> = batch.iter().map(|f| f.seq).collect();
    let rows = store
        .query(&FINISH_PLAIN, &[&tasks, &tokens, &seqs])
        .await?;
    rows.iter()
        .map(|row| Ok(TaskId(row.try_get("task_id")?)))
        .collect()
}

/// What the moves between waiting states did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintained {
    /// Tasks that moved towards ready.
    pub moved: i32,
    /// Time until the next scheduled task is due.
    pub next_due: Option<Duration>,
}

/// Move due, parked and stranded tasks on.
pub async fn maintain(store: &Store) -> Result<Maintained, StoreError> {
    let row = store.query_one(&MAINTAIN, &[&500_i32]).await?;
    let next_due: Option<i64> = row.try_get("next_due_ms")?;
    Ok(Maintained {
        moved: row.try_get("moved")?,
        next_due: next_due.map(|ms| Duration::from_millis(ms.unsigned_abs())),
    })
}

/// A lease whose worker is gone.
#[derive(Clone, Debug)]
pub struct Expired {
    /// The lease; its owner's writes are refused once the rescuer has ended it.
    pub lease: Lease,
    /// Counted attempts the task may have.
    pub max_attempts: i16,
    /// Worker that is gone.
    pub worker: WorkerId,
}

/// Leases of workers that were not seen for `ttl`.
pub async fn expired(store: &Store, ttl: Duration) -> Result<Vec<Expired>, StoreError> {
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let rows = store.query(&EXPIRED_LEASES, &[&ttl_ms, &500_i64]).await?;
    rows.iter().map(expired_row).collect()
}

/// Leases of this worker that it does not hold in memory: a claim was committed and its answer
/// lost. `grace` leaves claims under way alone.
pub async fn forgotten(
    store: &Store,
    worker: WorkerId,
    known_tokens: &[i64],
    grace: Duration,
) -> Result<Vec<Expired>, StoreError> {
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let rows = store
        .query(&FORGOTTEN_LEASES, &[&worker.0, &known_tokens, &grace_ms])
        .await?;
    rows.iter().map(expired_row).collect()
}

fn expired_row(row: &Row) -> Result<Expired, StoreError> {
    Ok(Expired {
        lease: lease(row)?,
        max_attempts: row.try_get("max_attempts")?,
        worker: WorkerId(row.try_get("worker_id")?),
    })
}
