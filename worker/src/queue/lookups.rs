//! Answers questions that only a worker can: what an application would do, what a file has, whether a
//! project can be worked in, whether an agent works. No repository is changed by any of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::domain::limits;
use crate::domain::lookup::{Answer, ProjectFacts, Question};
use crate::run::RunContext;
use crate::run::prepare::project_spec;
use crate::store::listen::Wakeup;
use crate::store::lookups::{self, Kind, Proposal, Taken};
use crate::store::{StoreError, applies, projects};
use crate::telemetry::figures;
use crate::workspace::{ApplyRequest, ProjectSpec};

use super::tries::Tries;

/// How often to look although nothing woke us.
const TICK: Duration = Duration::from_secs(5);

/// Exclusive time for one question: the first look at a repository elsewhere fetches all of it.
const TAKE_TIME: Duration = Duration::from_secs(60);

/// How often what was found out of an agent is stored, when the database is away.
const TELL_TRIES: u32 = 60;

/// Asked by somebody who is newer than this worker.
pub(super) const UNKNOWN: &str = "this worker is of a version that does not know the question";

/// Answers questions of one kind, one by one.
#[derive(Clone)]
pub enum Answerer {
    /// About repositories.
    Repositories(Arc<RunContext>),
    /// Whether an agent works.
    Probes(Tries),
    /// What works of an agent; takes minutes.
    Checks(Tries),
}

impl Answerer {
    fn context(&self) -> &RunContext {
        match self {
            Self::Repositories(context) => context,
            Self::Probes(tries) | Self::Checks(tries) => &tries.context,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Repositories(_) => Kind::Repository,
            Self::Probes(_) => Kind::Probe,
            Self::Checks(_) => Kind::Check,
        }
    }

    /// Answer one question. `false`: there was none.
    pub async fn run_once(&self) -> Result<bool, StoreError> {
        let context = self.context();
        let time = match self.kind() {
            Kind::Repository => TAKE_TIME,
            Kind::Probe | Kind::Check => limits::AGENT_TRY_MAX,
        };
        let taken = lookups::take(&context.store, context.worker, self.kind(), time).await?;
        let Some(taken) = taken else {
            return Ok(false);
        };
        let found = tokio::time::timeout(time, async {
            match self {
                Self::Repositories(context) => find_out(context, &taken).await,
                Self::Probes(tries) | Self::Checks(tries) => {
                    Ok(tries.answer(taken.question.as_ref()).await)
                }
            }
        });
        let found = match found.await {
            Ok(found) => found?,
            Err(_elapsed) => Err(format!("it took longer than {} s", time.as_secs())),
        };
        let answer = found.unwrap_or_else(Answer::Failed);
        let mut tried = 1;
        while let Err(error) = tell(context, &taken, &answer).await {
            // What was found out of an agent took minutes and money, and is not tried again.
            if self.kind() == Kind::Repository || !error.is_transient() || tried >= TELL_TRIES {
                return Err(error);
            }
            tracing::warn!(%error, "what was found out of an agent could not be stored yet");
            tried += 1;
            tokio::time::sleep(TICK).await;
        }
        Ok(true)
    }

    /// What a service of this kind was trying when it panicked.
    async fn forget_broken(&self) -> Result<(), StoreError> {
        if self.kind() == Kind::Repository {
            return Ok(());
        }
        let context = self.context();
        let this = (context.worker, context.worker_name.as_str());
        let why = Answer::Failed("its try broke off; the log of the worker says why".to_owned());
        lookups::broken_off(&context.store, this, self.kind(), &why).await
    }

    /// Answer until stopped; what is looked at then is left.
    pub async fn run(self, stop: CancellationToken) {
        let mut wakeups = self.context().listener.subscribe();
        if let Err(error) = self.forget_broken().await {
            tracing::warn!(%error, "a try that broke off could not be answered");
        }
        loop {
            loop {
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = self.run_once() => done,
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
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
                () = asked(&mut wakeups) => {}
            }
        }
    }
}

/// Until somebody may have asked; never where nothing is heard any more.
async fn asked(wakeups: &mut Receiver<Wakeup>) {
    loop {
        match wakeups.recv().await {
            Ok(Wakeup::Lookup | Wakeup::Gap) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Store what was found out; what was not may be found out by another worker, when it has what this
/// one lacks.
async fn tell(context: &RunContext, taken: &Taken, answer: &Answer) -> Result<(), StoreError> {
    let name = context.worker_name.as_str();
    match (answer, &taken.question) {
        (Answer::Failed(_), Some(Question::Preview { .. } | Question::File { .. }) | None) => {
            let this = (context.worker, name);
            lookups::decline(&context.store, taken, this, answer).await?;
        }
        _ => lookups::answer(&context.store, taken, name, answer).await?,
    }
    figures::lookups(1);
    Ok(())
}

/// The answer; the inner error is the reason why there is none.
async fn find_out(
    context: &RunContext,
    taken: &Taken,
) -> Result<Result<Answer, String>, StoreError> {
    let workspaces = &context.workspaces;
    let said = |error: crate::workspace::WorkspaceError| error.to_string();
    Ok(match &taken.question {
        None | Some(Question::Probe { .. } | Question::Check { .. }) => Err(UNKNOWN.to_owned()),
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
