//! What only a worker can find out, asked through the database.

use std::time::Duration;

use tokio::time::Instant;

use super::{OpContext, OpError};
use crate::domain::lookup::{Answer, Question};
use crate::store::lookups::{self, Lookup};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(25);

/// When nobody can, that is known after so long.
const REFUSALS_HOLD: Duration = Duration::from_secs(3);

/// How often to look whether there is one.
const LOOK: Duration = Duration::from_millis(100);

/// The same when it is not there soon.
const LOOK_LATER: Duration = Duration::from_secs(1);

/// What is soon.
const SOON: Duration = Duration::from_secs(10);

/// What whoever asks has left of their patience to read the answer in.
const TO_ANSWER: Duration = Duration::from_secs(5);

/// Ask any worker that can.
pub(super) async fn any(context: &OpContext, question: &Question) -> Result<Answer, OpError> {
    let ids = lookups::ask(&context.store, question, false, &context.actor).await?;
    let (_by, answer) = first(context, &ids, PATIENCE).await?.ok_or_else(nobody)?;
    Ok(answer)
}

/// The answer to a question that one worker was asked, and which one. It goes on looking when that takes
/// longer than whoever asks waits: then the next one who asks the same gets the answer.
pub(super) async fn of_one(
    context: &OpContext,
    id: i64,
    patience: Duration,
) -> Result<(String, Answer), OpError> {
    let most = context.patience.map(|most| most.saturating_sub(TO_ANSWER));
    let patience = most.map_or(patience, |most| most.min(patience));
    if let Some(found) = first(context, &[id], patience).await? {
        return Ok(found);
    }
    lookups::left(&context.store, id).await?;
    let waited = patience.as_secs();
    Err(
        OpError::unavailable(format!("the worker did not answer within {waited} s"))
            .code("no_answer")
            .hint(
                "It goes on. Ask the same again, within ten minutes of its end, to get its answer.",
            ),
    )
}

/// Who answered first, and what; `None`: nobody yet.
async fn first(
    context: &OpContext,
    ids: &[i64],
    patience: Duration,
) -> Result<Option<(String, Answer)>, OpError> {
    let began = Instant::now();
    let refused_since = |found: &[Lookup]| {
        let refused = found.iter().any(|one| one.answer.is_some());
        refused && began.elapsed() >= REFUSALS_HOLD
    };
    let found = until(context, ids, patience, |found| {
        let settled = |one: &Lookup| one.answered || !one.lives;
        found.iter().any(settled) || refused_since(found)
    })
    .await?;
    let Some(one) = found.into_iter().next() else {
        return Ok(None);
    };
    if !one.answered && !one.lives {
        let which = match &one.worker {
            Some(name) => format!("worker {name}"),
            // It signed off, and its row went with it.
            None => "the worker that was asked".to_owned(),
        };
        let gone = format!("{which} stopped before it answered");
        return Err(OpError::unavailable(gone)
            .code("no_answer")
            .hint("Ask again; dispatch workers list shows who lives."));
    }
    let by = one.answered_by.unwrap_or_default();
    match one.answer {
        Some(Answer::Failed(why)) => {
            let told = format!("worker {by} could not: {why}");
            Err(OpError::unavailable(told).code("worker_could_not"))
        }
        Some(answer) => Ok(Some((by, answer))),
        None => Ok(None),
    }
}

/// Ask each live worker; what has no answer by then has none.
pub(super) async fn everyone(
    context: &OpContext,
    question: &Question,
) -> Result<Vec<Lookup>, OpError> {
    let ids = lookups::ask(&context.store, question, true, &context.actor).await?;
    let all = |found: &[Lookup]| found.iter().all(|one| one.answered || !one.lives);
    until(context, &ids, PATIENCE, all).await
}

async fn until(
    context: &OpContext,
    ids: &[i64],
    patience: Duration,
    enough: impl Fn(&[Lookup]) -> bool,
) -> Result<Vec<Lookup>, OpError> {
    let began = Instant::now();
    let deadline = began + patience;
    loop {
        let found = lookups::read(&context.store, ids).await?;
        if enough(&found) || Instant::now() >= deadline {
            return Ok(found);
        }
        let pause = if began.elapsed() < SOON {
            LOOK
        } else {
            LOOK_LATER
        };
        tokio::time::sleep(pause).await;
    }
}

/// What does not fit the question is no answer.
pub(super) fn something_else() -> OpError {
    OpError::internal("a worker answered something else")
}

fn nobody() -> OpError {
    OpError::unavailable("no worker answered")
        .code("no_answer")
        .hint("A live worker that reaches the project is needed: dispatch workers list, dispatch projects check.")
}
