//! Questions to workers, and what they answer.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::change::ShownFile;
use crate::domain::ids::WorkerId;
use crate::domain::lookup::{Answer, CheckDepth, Question};

crate::statements! {
    ASK = "lookup_ask";
    PROBE_AGENT = "agent_probe";
    CHECK_AGENT = "agent_check";
    LEFT = "lookup_left";
    BROKEN_OFF = "lookup_broken_off";
    READ = "lookup_read";
    TAKE = "lookup_take";
    ANSWER = "lookup_answer";
    DECLINE = "lookup_decline";
    CHANGE_TO_PREVIEW = "change_to_preview";
    CHANGE_PATHS = "change_paths", slow;
}

/// Ask any worker, or each live one; gives the numbers of the questions.
pub async fn ask(
    store: &Store,
    question: &Question,
    everyone: bool,
    actor: &str,
) -> Result<Vec<i64>, StoreError> {
    let question = serde_json::to_value(question).unwrap_or_default();
    let rows = store.query(&ASK, &[&question, &everyone, &actor]).await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Ask a worker that has the agent, this one when one is named, to probe it; gives the number of the
/// question. An error: there is none.
pub async fn probe_agent(
    store: &Store,
    agent: &str,
    worker: Option<Uuid>,
    actor: &str,
) -> Result<i64, StoreError> {
    let row = store
        .query_one(&PROBE_AGENT, &[&agent, &worker, &actor])
        .await?;
    Ok(row.try_get("id")?)
}

/// The same to check it.
pub async fn check_agent(
    store: &Store,
    (agent, depth): (&str, CheckDepth),
    worker: Option<Uuid>,
    actor: &str,
) -> Result<i64, StoreError> {
    let without_prompt = depth == CheckDepth::WithoutPrompt;
    let row = store
        .query_one(&CHECK_AGENT, &[&agent, &without_prompt, &worker, &actor])
        .await?;
    Ok(row.try_get("id")?)
}

/// What became of a question.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Its number.
    pub id: i64,
    /// The worker that was asked, when it was one.
    pub worker: Option<String>,
    /// Whether it is answered for good.
    pub answered: bool,
    /// Whether anybody is left who may answer; false: the one that was asked lives no more.
    pub lives: bool,
    /// Who said the last thing about it.
    pub answered_by: Option<String>,
    /// What was said; `None`: nothing that can be understood yet.
    pub answer: Option<Answer>,
}

/// What became of these.
pub async fn read(store: &Store, ids: &[i64]) -> Result<Vec<Lookup>, StoreError> {
    let rows = store.query(&READ, &[&ids]).await?;
    rows.iter()
        .map(|row| {
            let answer: Option<Value> = row.try_get("answer")?;
            Ok(Lookup {
                id: row.try_get("id")?,
                worker: row.try_get("worker")?,
                answered: row.try_get("answered")?,
                lives: row.try_get("lives")?,
                answered_by: row.try_get("answered_by")?,
                answer: answer.and_then(|answer| serde_json::from_value(answer).ok()),
            })
        })
        .collect()
}

/// A question that a worker took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub id: i64,
    /// Fence of the taking.
    pub token: i64,
    /// What is asked; `None`: something that this version does not know.
    pub question: Option<Question>,
}

/// Whoever waited for the answer gave up; the next one who asks the same gets it.
pub async fn left(store: &Store, id: i64) -> Result<(), StoreError> {
    store.query(&LEFT, &[&id]).await?;
    Ok(())
}

/// Questions that are answered beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// About repositories.
    Repository,
    /// Whether an agent works.
    Probe,
    /// What works of an agent; takes minutes.
    Check,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Probe => "probe",
            Self::Check => "check",
        }
    }
}

/// Answer what a worker had begun to try and did not end: it is not tried again by itself.
pub async fn broken_off(
    store: &Store,
    worker: (WorkerId, &str),
    kind: Kind,
    answer: &Answer,
) -> Result<(), StoreError> {
    let answer = serde_json::to_value(answer).unwrap_or_default();
    let (id, name) = worker;
    store
        .query(&BROKEN_OFF, &[&id.0, &kind.as_str(), &name, &answer])
        .await?;
    Ok(())
}

/// Take a question of this kind for so long; `None`: there is none.
pub async fn take(
    store: &Store,
    worker: WorkerId,
    kind: Kind,
    time: Duration,
) -> Result<Option<Taken>, StoreError> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let row = store
        .query_opt(&TAKE, &[&worker.0, &ms, &kind.as_str()])
        .await?;
    row.map(|row| {
        let question: Value = row.try_get("question")?;
        Ok(Taken {
            id: row.try_get("id")?,
            token: row.try_get("token")?,
            question: serde_json::from_value(question).ok(),
        })
    })
    .transpose()
}

/// Answer it for good.
pub async fn answer(
    store: &Store,
    taken: &Taken,
    name: &str,
    answer: &Answer,
) -> Result<(), StoreError> {
    let answer = serde_json::to_value(answer).unwrap_or_default();
    store
        .query(&ANSWER, &[&taken.id, &taken.token, &name, &answer])
        .await?;
    Ok(())
}

/// Leave it to another worker, with the reason.
pub async fn decline(
    store: &Store,
    taken: &Taken,
    worker: (WorkerId, &str),
    answer: &Answer,
) -> Result<(), StoreError> {
    let answer = serde_json::to_value(answer).unwrap_or_default();
    let (id, name) = worker;
    store
        .query(&DECLINE, &[&taken.id, &taken.token, &id.0, &name, &answer])
        .await?;
    Ok(())
}

/// A change as it would be applied now.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Project it goes to.
    pub project: String,
    /// What it is based on.
    pub base_commit: String,
    /// What it is.
    pub result_commit: String,
    /// Its digest.
    pub digest: String,
    /// When it was decided on, or made; seconds since the epoch.
    pub at: i64,
    /// Its files as they are shown.
    pub files: Vec<ShownFile>,
    /// Paths that are not rejected; `None`: all.
    pub only_paths: Option<Vec<Vec<u8>>>,
}

/// Read a change for looking at it, with only these files of it; `None`: there is none.
pub async fn proposal(
    store: &Store,
    change: i64,
    files: Option<&[String]>,
) -> Result<Option<Proposal>, StoreError> {
    let Some(row) = store.query_opt(&CHANGE_TO_PREVIEW, &[&change]).await? else {
        return Ok(None);
    };
    let mut kept = Vec::new();
    let mut left_out = false;
    for row in store.query(&CHANGE_PATHS, &[&change]).await? {
        let (path, rejected): (String, bool) = (row.try_get("path")?, row.try_get("rejected")?);
        let wanted = match files {
            Some(files) => files.contains(&path),
            None => !rejected,
        };
        match wanted {
            true => kept.push(row.try_get("path_bytes")?),
            false => left_out = true,
        }
    }
    let decided_at: chrono::DateTime<chrono::Utc> = row.try_get("decided_at")?;
    Ok(Some(Proposal {
        project: row.try_get("project")?,
        base_commit: row.try_get("base_commit")?,
        result_commit: row.try_get("result_commit")?,
        digest: row.try_get("digest")?,
        at: decided_at.timestamp(),
        files: super::applies::shown_files(store, change).await?,
        only_paths: left_out.then_some(kept),
    }))
}
