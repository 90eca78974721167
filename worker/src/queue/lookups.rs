//! Answers questions that only a worker can: what an application would do, what a file has, whether a
//! project can be worked in. Nothing is changed by any of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::domain::lookup::{Answer, ProjectFacts, Question};
use crate::run::RunContext;
use crate::run::prepare::project_spec;
use crate::store::listen::Wakeup;
use crate::store::lookups::{self, Proposal, Taken};
use crate::store::{StoreError, applies, projects};
use crate::telemetry::figures;
use crate::workspace::{ApplyRequest, ProjectSpec};

/// How often to look although nothing woke us.
const TICK: Duration = Duration::from_secs(5);

/// Exclusive time for one question: the first look at a repository elsewhere fetches all of it.
const TAKE_TIME: Duration = Duration::from_secs(60);

/// Answer one question. `false`: there was none.
pub async fn run_once(context: &RunContext) -> Result<bool, StoreError> {
    let Some(taken) = lookups::take(&context.store, context.worker, TAKE_TIME).await? else {
        return Ok(false);
    };
    let name = context.worker_name.as_str();
    let found = tokio::time::timeout(TAKE_TIME, find_out(context, &taken)).await;
    let found = match found {
        Ok(found) => found?,
        Err(_elapsed) => Err(format!("it took longer than {} s", TAKE_TIME.as_secs())),
    };
    let answer = found.unwrap_or_else(Answer::Failed);
    match (&answer, &taken.question) {
        // Another worker may have what this one lacks.
        (Answer::Failed(_), Some(Question::Preview { .. } | Question::File { .. }) | None) => {
            let this = (context.worker, name);
            lookups::decline(&context.store, &taken, this, &answer).await?;
        }
        _ => lookups::answer(&context.store, &taken, name, &answer).await?,
    }
    figures::lookups(1);
    Ok(true)
}

/// The answer; the inner error is the reason why there is none.
async fn find_out(
    context: &RunContext,
    taken: &Taken,
) -> Result<Result<Answer, String>, StoreError> {
    let workspaces = &context.workspaces;
    let said = |error: crate::workspace::WorkspaceError| error.to_string();
    Ok(match &taken.question {
        None => Err("this worker is of a version that does not know the question".to_owned()),
        Some(Question::CheckProject { project }) => match spec_of(context, project).await? {
            Err(why) => Err(why),
            Ok(spec) => workspaces
                .check_project(&spec)
                .await
                .map(|check| {
                    Answer::Project(ProjectFacts {
                        target_ref: check.target_ref,
                        tip: check.tip,
                        shallow: check.shallow,
                        mirrored: spec.remote.is_some(),
                    })
                })
                .map_err(said),
        },
        Some(Question::Preview { change, files }) => {
            match proposed(context, *change, files.as_deref()).await? {
                Err(why) => Err(why),
                Ok((spec, request)) => workspaces
                    .preview(&spec, &request)
                    .await
                    .map(Answer::Preview)
                    .map_err(said),
            }
        }
        Some(Question::File { change, path, side }) => {
            match proposed(context, *change, None).await? {
                Err(why) => Err(why),
                Ok((spec, request)) => workspaces
                    .file(&spec, &request, path, *side)
                    .await
                    .map(Answer::File)
                    .map_err(said),
            }
        }
    })
}

async fn spec_of(
    context: &RunContext,
    project: &str,
) -> Result<Result<ProjectSpec, String>, StoreError> {
    let found = projects::get(&context.store, project).await?;
    Ok(found
        .map(project_spec)
        .ok_or_else(|| format!("the project {project:?} was removed: add it again")))
}

/// The change as an application would be asked for.
async fn proposed(
    context: &RunContext,
    change: i64,
    files: Option<&[String]>,
) -> Result<Result<(ProjectSpec, ApplyRequest), String>, StoreError> {
    let Some(proposal) = lookups::proposal(&context.store, change, files).await? else {
        return Ok(Err(format!("there is no change {change}")));
    };
    let spec = match spec_of(context, &proposal.project).await? {
        Ok(spec) => spec,
        Err(why) => return Ok(Err(why)),
    };
    let Proposal {
        base_commit,
        result_commit,
        digest,
        at,
        files,
        only_paths,
        ..
    } = proposal;
    let request = ApplyRequest {
        change,
        base_commit,
        result_commit,
        digest,
        files,
        pack: applies::pack(&context.store, change).await?,
        only_paths,
        message: format!("Preview of change {change}"),
        author: "dispatch <dispatch@localhost>".to_owned(),
        authored_at: at,
    };
    Ok(Ok((spec, request)))
}

/// Answer until stopped.
pub async fn run(context: Arc<RunContext>, stop: CancellationToken) {
    let mut wakeups = context.listener.subscribe();
    loop {
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = run_once(&context) => done,
            };
            match done {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "a question could not be answered");
                    break;
                }
            }
        }
        let timer = tokio::time::sleep(TICK);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut timer => break,
                heard = wakeups.recv() => match heard {
                    Ok(Wakeup::Lookup | Wakeup::Gap) | Err(RecvError::Lagged(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Closed) => {
                        timer.await;
                        break;
                    }
                }
            }
        }
    }
}
