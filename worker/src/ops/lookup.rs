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

/// Ask any worker that can.
pub(super) async fn any(context: &OpContext, question: &Question) -> Result<Answer, OpError> {
    let ids = lookups::ask(&context.store, question, false, &context.actor).await?;
    let began = Instant::now();
    let refused_since = |found: &[Lookup]| {
        let refused = found.iter().any(|one| one.answer.is_some());
        refused && began.elapsed() >= REFUSALS_HOLD
    };
    let found = until(context, &ids, |found| {
        found.iter().any(|one| one.answered) || refused_since(found)
    })
    .await?;
    let Some(one) = found.into_iter().next() else {
        return Err(nobody());
    };
    match one.answer {
        Some(Answer::Failed(why)) => {
            let by = one.answered_by.unwrap_or_default();
            Err(
                OpError::unavailable(format!("worker {by} could not: {why}"))
                    .code("worker_could_not"),
            )
        }
        Some(answer) => Ok(answer),
        None => Err(nobody()),
    }
}

/// Ask each live worker; what has no answer by then has none.
pub(super) async fn everyone(
    context: &OpContext,
    question: &Question,
) -> Result<Vec<Lookup>, OpError> {
    let ids = lookups::ask(&context.store, question, true, &context.actor).await?;
    let all = |found: &[Lookup]| found.iter().all(|one| one.answered);
    until(context, &ids, all).await
}

async fn until(
    context: &OpContext,
    ids: &[i64],
    enough: impl Fn(&[Lookup]) -> bool,
) -> Result<Vec<Lookup>, OpError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = lookups::read(&context.store, ids).await?;
        if enough(&found) || Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn nobody() -> OpError {
    OpError::unavailable("no worker answered")
        .code("no_answer")
        .hint("A live worker that reaches the project is needed: dispatch workers list, dispatch projects check.")
}
