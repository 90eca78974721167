//! One attempt, top to bottom: begin, prepare, drive, snapshot, finish, clean up. Read this first.
//!
//! Knows nothing of who runs what when (queue) nor of surfaces.

pub mod drive;
pub mod finish;
pub mod leash;
pub mod native;
pub mod permission;
pub mod plain;
pub mod prepare;
pub mod secrets;
pub mod sessions;
pub mod stream;
pub mod text;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use serde_json::json;
use tracing::Instrument;

use crate::agent::llm::Llm;
use crate::agent::native::{Clock, ProviderGate};
use crate::agent::process;
use crate::broker::writer::EventWriter;
use crate::config::agents::Catalogue;
use crate::domain::attempt::{AttemptEnd, Phase};
use crate::domain::error_class::ErrorClass;
use crate::domain::ids::WorkerId;
use crate::domain::redact::Redactor;
use crate::sandbox::Sandbox;
use crate::store::Store;
use crate::store::attempts;
use crate::store::claims::Claimed;
use crate::store::finish::Finished;
use crate::store::listen::Listener;
use crate::workspace::{ProjectSpec, Snapshot, WorkspaceError, Workspaces, Worktree};

use drive::Driven;
use finish::Ending;
use leash::Leash;
use prepare::Prepared;
use stream::AttemptStream;

/// What every attempt of a worker shares.
pub struct RunContext {
    /// The database.
    pub store: Store,
    /// Wake-ups.
    pub listener: Listener,
    /// The one writer of streams.
    pub writer: EventWriter,
    /// Worktrees.
    pub workspaces: Workspaces,
    /// What agents are confined with.
    pub sandbox: Sandbox,
    /// Homes of agents, one per conversation.
    pub homes: PathBuf,
    /// The worker.
    pub worker: WorkerId,
    /// Its name, for people.
    pub worker_name: String,
    /// The secrets of its own environment, which no text of an attempt may hold.
    pub own_secrets: Redactor,
    /// Who may ask an LLM provider now.
    pub gate: ProviderGate,
    /// Asks LLM providers.
    pub llm: Arc<dyn Llm>,
    /// Waits for LLM providers.
    pub clock: Arc<dyn Clock>,
    /// The catalogue as it is now; replaced on reload.
    pub agents: RwLock<Arc<Catalogue>>,
}

impl RunContext {
    /// The catalogue as it is now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        match self.agents.read() {
            Ok(agents) => agents.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// Marks every process of an attempt; found in the environment of leftovers.
    pub fn mark(&self, token: i64) -> String {
        format!("{}{token}", marks_of(self.worker))
    }

    /// A number in 0..1 for spreading retries.
    fn jitter(&self) -> f64 {
        let bits = uuid::Uuid::new_v4().as_u128() & 0xffff_ffff;
        f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// Marks of attempts begin with this.
pub const MARK_PREFIX: &str = "dispatch-";

/// How the marks of a worker's attempts begin; their tokens follow.
pub fn marks_of(worker: WorkerId) -> String {
    format!("{MARK_PREFIX}{worker}-")
}

/// Run one claimed task to its end and store it. Never fails: whatever goes wrong becomes the end
/// of the attempt.
pub async fn run_attempt(context: Arc<RunContext>, claimed: Claimed, leash: Leash) {
    let span = tracing::info_span!(
        "attempt",
        task.id = claimed.lease.task().0,
        attempt.id = claimed.lease.token().0,
        agent.name = claimed.agent,
        project = claimed.project,
        conversation.id = claimed.conversation.unwrap_or(claimed.lease.task().0),
        worker.id = %context.worker,
    );
    attempt(&context, &claimed, &leash).instrument(span).await;
}

async fn attempt(context: &RunContext, claimed: &Claimed, leash: &Leash) {
    // A conversation has the id of the task that began it.
    let conversation = claimed.conversation.unwrap_or(claimed.lease.task().0);
    let writer = context.writer.clone();
    let mut stream = AttemptStream::new(writer, claimed, conversation, leash.clone());
    let catalogue = context.catalogue();
    let Some(spec) = catalogue.agents.get(&claimed.agent) else {
        finish::store_end(context, claimed, &stream, agent_gone(context, claimed)).await;
        return;
    };
    stream.redact(secrets::of_attempt(context, spec).await);
    let started = json!({
        "worker": context.worker_name, "agent": claimed.agent, "asked_agent": claimed.asked_agent,
        "path": spec.path, "attempt": claimed.lease.attempt(),
    });
    stream.emit("attempt_started", started).await;
    show(context, claimed, Phase::Preparing).await;
    let prepared = match prepare::prepare(context, claimed, spec, conversation, leash).await {
        Ok(prepared) => prepared,
        Err(end) => {
            let end = stopped_meanwhile(leash, end);
            stream.close().await;
            let recorded = end != AttemptEnd::LeaseLost;
            let ending = Ending {
                end,
                driven: None,
                snapshot: None,
                conversation: recorded.then_some(conversation),
                catalogue: Arc::clone(&catalogue),
            };
            finish::store_end(context, claimed, &stream, ending).await;
            return;
        }
    };
    show(context, claimed, Phase::Launching).await;
    let Prepared {
        project,
        worktree,
        agent,
        mut turn,
        goes_on,
    } = prepared;
    turn.secrets = stream.redactor().clone();
    if let Some(goes_on) = goes_on {
        let place = (&project, &worktree);
        let kept = (turn.secrets.clone(), leash);
        let native = native::turn(context, claimed, place, conversation, goes_on, kept).await;
        turn.native = Some(native);
    }
    let (home, confinement) = (turn.home.clone(), turn.confinement.clone());
    let mut driven = drive::drive(context, claimed, spec, agent, turn, &mut stream, leash).await;
    stream.redact_agent(secrets::renewed(stream.redactor(), spec, &home).await);
    for text in confinement.refusals() {
        stream.emit("notice", json!({ "text": text })).await;
    }
    if let Some(session) = &driven.native_session_id {
        sessions::keep(&home, session).await;
    }
    secrets::clean_driven(stream.agent_redactor(), &mut driven);
    show(context, claimed, Phase::Snapshotting).await;
    tell_cancel(context, claimed, &driven.end, &mut stream).await;
    // Every ending snapshots before anything is cleaned, so that no result is lost.
    let snapshot = snapshot(context, &project, &worktree, stream.agent_redactor()).await;
    if let Err(error) = &snapshot {
        // The attempt's own error, if it has one, stays; a person must still hear of this one.
        let text = format!("what the agent left could not be recorded: {error}");
        stream.emit("notice", json!({ "text": text })).await;
        context.workspaces.keep(&worktree, error);
    }
    let (end, snapshot, keep) = with_snapshot(&driven, snapshot);
    stream.close().await;
    let ending = Ending {
        end,
        driven: Some(driven),
        snapshot,
        conversation: Some(conversation),
        catalogue: Arc::clone(&catalogue),
    };
    let stored = finish::store_end(context, claimed, &stream, ending).await;
    if keep == Keep::Worktree || stored == Finished::CancelFirst {
        return;
    }
    let hooked = project.teardown.is_some();
    context.workspaces.discard(&project, worktree).await;
    if hooked {
        end_hooks(context, claimed).await;
    }
}

/// The end of an attempt whose agent this worker does not have any more. Another one may have it, or a
/// fallback: that is not for this one to say.
fn agent_gone(context: &RunContext, claimed: &Claimed) -> Ending {
    let message = format!(
        "agent \"{}\" is not in the agents.toml of worker {} any more",
        claimed.agent, context.worker_name
    );
    Ending {
        end: AttemptEnd::NotBegun {
            class: ErrorClass::AgentUnavailable,
            message,
        },
        driven: None,
        snapshot: None,
        conversation: None,
        catalogue: context.catalogue(),
    }
}

/// Record what the agent left, its secrets flagged.
async fn snapshot(
    context: &RunContext,
    project: &ProjectSpec,
    worktree: &Worktree,
    secrets: &Redactor,
) -> Result<Snapshot, WorkspaceError> {
    let mut snapshot = context.workspaces.snapshot(project, worktree).await?;
    let flagged = context
        .workspaces
        .flag_secrets(project, &mut snapshot, secrets);
    if let Err(error) = flagged.await {
        let notice = format!("the change could not be searched for secrets: {error}");
        snapshot.notices.push(notice);
    }
    Ok(snapshot)
}

/// End what a hook left running in the background: no agent's end comes after this one.
async fn end_hooks(context: &RunContext, claimed: &Claimed) {
    let mark = context.mark(claimed.lease.token().0);
    let task = claimed.lease.task().0;
    match crate::blocking::run(move || process::sweep_mark(&mark)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(task.id = task, %error, "processes of a hook remain"),
        Err(error) => tracing::warn!(task.id = task, %error, "processes of a hook remain"),
    }
}

/// Whether the worktree is the only copy of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    Worktree,
}

fn with_snapshot(
    driven: &Driven,
    snapshot: Result<Snapshot, WorkspaceError>,
) -> (AttemptEnd, Option<Snapshot>, Keep) {
    match snapshot {
        Ok(snapshot) => (driven.end.clone(), Some(snapshot), Keep::Nothing),
        Err(error) => {
            let message = format!("what the agent left could not be recorded: {error}");
            let end = match &driven.end {
                AttemptEnd::Succeeded => AttemptEnd::Failed {
                    class: error.class,
                    message,
                },
                other => other.clone(),
            };
            tracing::error!(%error, "snapshot failed");
            (end, None, Keep::Worktree)
        }
    }
}

/// A preparation that failed because it was stopped did not fail.
fn stopped_meanwhile(leash: &Leash, end: AttemptEnd) -> AttemptEnd {
    match leash.why() {
        Some(leash::Stop::Cancel) => AttemptEnd::Cancelled,
        Some(leash::Stop::Interrupt) => AttemptEnd::Interrupted,
        Some(leash::Stop::LeaseLost) => AttemptEnd::LeaseLost,
        Some(leash::Stop::Refused) => drive::refused(leash.refusal().unwrap_or_default()),
        None => end,
    }
}

async fn tell_cancel(
    context: &RunContext,
    claimed: &Claimed,
    end: &AttemptEnd,
    stream: &mut AttemptStream,
) {
    if *end != AttemptEnd::Cancelled {
        return;
    }
    let facts = attempts::cancel_facts(&context.store, &claimed.lease)
        .await
        .unwrap_or_default();
    let (by, reason) = facts.unwrap_or_default();
    stream
        .emit("cancel_requested", json!({ "by": by, "reason": reason }))
        .await;
}

async fn show(context: &RunContext, claimed: &Claimed, phase: Phase) {
    if let Err(error) = attempts::set_phase(&context.store, &claimed.lease, phase).await {
        tracing::debug!(%error, "the phase could not be shown");
    }
}
