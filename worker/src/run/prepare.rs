//! Before the turn: project, agent, worktree, prompt.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent::confine;
use crate::agent::{Agent, AgentError, TurnRequest, catalog};
use crate::config::agent_spec::AgentSpec;
use crate::domain::attempt::{AttemptEnd, ExecutionPath};
use crate::domain::error_class::ErrorClass;
use crate::domain::remote::Place;
use crate::domain::sandbox::Demand;
use crate::domain::usage::SessionUsage;
use crate::sandbox::{Confinement, Means, Places};
use crate::store::StoreError;
use crate::store::applies;
use crate::store::attempts::{self, ConversationState, Held, OpenChange};
use crate::store::carried::{self, CarriedWork};
use crate::store::claims::Claimed;
use crate::store::messages::{self, Carried};
use crate::store::projects::{self, Project};
use crate::workspace::{ProjectSpec, Start, Worktree, WorktreeKey, WorktreeMode};

use super::RunContext;
use super::leash::Leash;
use super::native::GoesOn;
use super::sessions;

/// What the turn runs with.
pub struct Prepared {
    /// The project.
    pub project: ProjectSpec,
    /// The checkout.
    pub worktree: Worktree,
    /// The agent.
    pub agent: Arc<dyn Agent>,
    /// What the turn needs.
    pub turn: TurnRequest,
    /// How a native turn goes on.
    pub goes_on: Option<GoesOn>,
}

/// Find out what to run with, and make the worktree. An error is the end of the attempt.
pub async fn prepare(
    context: &RunContext,
    claimed: &Claimed,
    spec: &AgentSpec,
    conversation: i64,
    leash: &Leash,
) -> Result<Prepared, AttemptEnd> {
    let project = load_project(context, &claimed.project).await?;
    let means = confine::means(&context.sandbox, spec, project.demand).map_err(not_begun)?;
    let agent = catalog::build(spec);
    let path = agent.path();
    match attempts::begin(
        &context.store,
        claimed,
        path,
        conversation,
        (means.rung, spec.network),
    )
    .await
    {
        Ok(Held::Yes) => {}
        Ok(Held::Lost) => return Err(AttemptEnd::LeaseLost),
        Err(error) => return Err(internal("record the attempt", &error)),
    }
    if claimed.timeout_ms.is_some_and(|ms| ms <= 0) {
        return Err(AttemptEnd::Failed {
            class: ErrorClass::Timeout,
            message: "the task's deadline had passed before it could begin: submit it again with a later tasks.deadline".to_owned(),
        });
    }
    let before = match claimed.conversation {
        Some(id) => attempts::conversation(&context.store, id)
            .await
            .map_err(|error| internal("read the conversation", &error))?,
        None => ConversationState::default(),
    };
    let (start, goes_on) = match path {
        ExecutionPath::Native => carried(context, claimed, &project, conversation).await?,
        ExecutionPath::Acp | ExecutionPath::Pty | ExecutionPath::Pipe | ExecutionPath::Noop => {
            (None, None)
        }
    };
    let start = match start {
        Some(start) => start,
        None => start_of(context, claimed, &project, &before).await?,
    };
    let wanted = Wanted {
        conversation,
        start,
        means: &means,
    };
    let worktree = checkout(context, claimed, &project, wanted, leash).await?;
    let settled = match settle_in(context, claimed, &worktree, conversation).await {
        Ok(home) => confined(context, spec, means, &worktree, &home).map(|held| (home, held)),
        Err(end) => Err(end),
    };
    let (home, confinement) = match settled {
        Ok(settled) => settled,
        Err(end) => return Err(undo(context, claimed, &project, worktree, end).await),
    };
    let turn = request(context, claimed, spec, &worktree, home, confinement);
    let turn = with_session(turn, claimed, before).await;
    Ok(Prepared {
        project,
        worktree,
        agent,
        turn,
        goes_on,
    })
}

/// Where a native attempt goes on, when the one before it left its work, and how.
async fn carried(
    context: &RunContext,
    claimed: &Claimed,
    project: &ProjectSpec,
    conversation: i64,
) -> Result<(Option<Start>, Option<GoesOn>), AttemptEnd> {
    let resumed = carried::resume(&context.store, &claimed.lease, conversation)
        .await
        .map_err(|error| internal("read what the attempt before left", &error))?;
    let Some(resumed) = resumed else {
        return Err(AttemptEnd::LeaseLost);
    };
    let start = match resumed.carried {
        Some(work) => start_from(context, project, work).await?,
        None => None,
    };
    let carried = match (&start, &resumed.ended) {
        (Some(_), _) | (None, None) => Carried::Yes,
        (None, Some(_)) => Carried::No,
    };
    if carried == Carried::No {
        let lost = messages::lose_work(&context.store, &claimed.lease).await;
        match lost.map_err(|error| internal("forget what was lost", &error))? {
            Held::Yes => {}
            Held::Lost => return Err(AttemptEnd::LeaseLost),
        }
    }
    let goes_on = GoesOn {
        carried,
        ended: resumed.ended,
        provider_waits: resumed.provider_waits,
    };
    Ok((start, Some(goes_on)))
}

/// The start of an attempt that goes on; nothing when the objects are on another host only.
async fn start_from(
    context: &RunContext,
    project: &ProjectSpec,
    work: CarriedWork,
) -> Result<Option<Start>, AttemptEnd> {
    let workspaces = &context.workspaces;
    let CarriedWork {
        base,
        result,
        changed,
        pack,
    } = work;
    if !changed {
        return Ok(Some(Start::Named(base)));
    }
    match pack {
        Some(pack) => workspaces
            .import(project, &base, &result, &pack)
            .await
            .map_err(|error| AttemptEnd::Failed {
                class: error.class,
                message: error.message,
            })?,
        None if workspaces.has_result(project, &result).await => {}
        None => return Ok(None),
    }
    Ok(Some(Start::Continue { base, result }))
}

/// What the worktree begins with.
async fn start_of(
    context: &RunContext,
    claimed: &Claimed,
    project: &ProjectSpec,
    before: &ConversationState,
) -> Result<Start, AttemptEnd> {
    match (&claimed.base_ref, &before.open_change) {
        (Some(name), _) => Ok(Start::Named(name.clone())),
        (None, Some(change)) => {
            bring_objects(context, project, change).await?;
            Ok(Start::Continue {
                base: change.base.clone(),
                result: change.result.clone(),
            })
        }
        (None, None) => Ok(Start::Tip),
    }
}

/// What the agent's processes may do.
fn confined(
    context: &RunContext,
    spec: &AgentSpec,
    means: Means,
    worktree: &Worktree,
    home: &Path,
) -> Result<Confinement, AttemptEnd> {
    let places = Places {
        tree: worktree.tree.clone(),
        home: home.to_owned(),
        tmp: worktree.tmp.clone(),
        read: worktree.lent(),
        linked: worktree.common_dir.is_some(),
        ..Places::default()
    };
    confine::confine(&context.sandbox, spec, means, places).map_err(not_begun)
}

fn request(
    context: &RunContext,
    claimed: &Claimed,
    spec: &AgentSpec,
    worktree: &Worktree,
    home: PathBuf,
    confinement: Confinement,
) -> TurnRequest {
    let thinking = &claimed.thinking_option_id;
    TurnRequest {
        worktree: worktree.tree.clone(),
        home,
        tmp: worktree.tmp.clone(),
        confinement,
        mark: context.mark(claimed.lease.token().0),
        model: claimed.model.clone().or_else(|| spec.model.clone()),
        mode_id: claimed.mode_id.clone().or_else(|| spec.mode.clone()),
        thinking_option_id: thinking.clone().or_else(|| spec.thinking.clone()),
        ..TurnRequest::bare(claimed.input.clone())
    }
}

/// The same in the agent's own session of the conversation, if there is one.
async fn with_session(
    turn: TurnRequest,
    claimed: &Claimed,
    before: ConversationState,
) -> TurnRequest {
    let kept_here = match &before.native_session_id {
        Some(session) => sessions::is_kept(&turn.home, session).await,
        None => false,
    };
    // Another agent's session means nothing to this one.
    let same_agent = before.agent.as_deref() == Some(claimed.agent.as_str());
    TurnRequest {
        session_used: match same_agent {
            true => before.session_used,
            false => SessionUsage::default(),
        },
        session_worktree: before.session_worktree.filter(|_| kept_here),
        resume: before.native_session_id.filter(|_| same_agent),
        ..turn
    }
}

/// What is missing on this machine, another one may have.
fn not_begun(error: AgentError) -> AttemptEnd {
    let AgentError { class, message, .. } = error;
    AttemptEnd::NotBegun { class, message }
}

/// Give the worktree up again.
async fn undo(
    context: &RunContext,
    claimed: &Claimed,
    project: &ProjectSpec,
    worktree: Worktree,
    end: AttemptEnd,
) -> AttemptEnd {
    let hooked = project.setup.is_some() || project.teardown.is_some();
    context.workspaces.discard(project, worktree).await;
    if hooked {
        super::end_hooks(context, claimed).await;
    }
    end
}

/// What kind of worktree.
struct Wanted<'a> {
    conversation: i64,
    start: Start,
    means: &'a Means,
}

/// Make the worktree.
async fn checkout(
    context: &RunContext,
    claimed: &Claimed,
    project: &ProjectSpec,
    wanted: Wanted<'_>,
    leash: &Leash,
) -> Result<Worktree, AttemptEnd> {
    let cancel = leash.pulled();
    let key = WorktreeKey {
        task: claimed.lease.task().0,
        attempt: claimed.lease.attempt(),
        token: claimed.lease.token().0,
    };
    let (start, means) = (wanted.start, wanted.means);
    let workspaces = &context.workspaces;
    let conversation = Some(wanted.conversation);
    let made = workspaces.create(project, key, conversation, start, means, &cancel);
    match made.await {
        Ok(worktree) => Ok(worktree),
        Err(error) => {
            if project.setup.is_some() {
                super::end_hooks(context, claimed).await;
            }
            Err(AttemptEnd::Failed {
                class: error.class,
                message: error.message,
            })
        }
    }
}

/// Record the worktree and make the agent's home.
async fn settle_in(
    context: &RunContext,
    claimed: &Claimed,
    worktree: &Worktree,
    conversation: i64,
) -> Result<PathBuf, AttemptEnd> {
    let shown = worktree.tree.display().to_string();
    let base = &worktree.base_commit;
    attempts::record_worktree(&context.store, &claimed.lease, base, &shown)
        .await
        .map_err(|error| internal("record the worktree", &error))?;
    let home = home_of(&context.homes, conversation, &claimed.agent);
    match tokio::fs::create_dir_all(&home).await {
        Ok(()) => Ok(home),
        Err(error) => Err(AttemptEnd::Failed {
            class: ErrorClass::Workspace,
            message: format!("cannot make the agent's home {}: {error}", home.display()),
        }),
    }
}

/// The change may have been made on another host: its objects come from Postgres.
async fn bring_objects(
    context: &RunContext,
    project: &ProjectSpec,
    change: &OpenChange,
) -> Result<(), AttemptEnd> {
    let pack = applies::pack(&context.store, change.id)
        .await
        .map_err(|error| internal("read the objects of the change", &error))?;
    let Some(pack) = pack else { return Ok(()) };
    context
        .workspaces
        .import(project, &change.base, &change.result, &pack)
        .await
        .map_err(|error| AttemptEnd::Failed {
            class: error.class,
            message: error.message,
        })
}

/// One HOME per conversation and agent: sessions live there and are continued from there.
fn home_of(homes: &Path, conversation: i64, agent: &str) -> PathBuf {
    homes.join(format!("c{conversation}-{agent}"))
}

async fn load_project(context: &RunContext, name: &str) -> Result<ProjectSpec, AttemptEnd> {
    match projects::get(&context.store, name).await {
        Ok(Some(project)) => Ok(project_spec(project)),
        Ok(None) => Err(AttemptEnd::Failed {
            class: ErrorClass::Workspace,
            message: format!(
                "the project \"{name}\" was removed: add it again and requeue the task"
            ),
        }),
        Err(error) => Err(internal("read the project", &error)),
    }
}

/// The workspace's view of a project row.
pub fn project_spec(project: Project) -> ProjectSpec {
    // What is neither is refused as a path.
    let remote = match Place::parse(&project.path) {
        Ok(Place::Remote(url)) => Some(url),
        Ok(Place::Path) | Err(_) => None,
    };
    ProjectSpec {
        name: project.name,
        path: PathBuf::from(project.path),
        remote,
        target_ref: project.target_ref,
        mode: match project.worktree.as_str() {
            "linked" => WorktreeMode::Linked,
            _ => WorktreeMode::Private,
        },
        trusted: project.trusted,
        demand: project
            .sandbox
            .as_deref()
            .and_then(Demand::parse)
            .unwrap_or_default(),
        copy_files: project.copy_files,
        setup: project.setup,
        teardown: project.teardown,
    }
}

/// A database that is away says nothing about the task: the attempt does not count.
fn internal(what: &str, error: &StoreError) -> AttemptEnd {
    let class = ErrorClass::Internal;
    if error.is_transient() {
        return AttemptEnd::NotBegun {
            class,
            message: format!("the database was away: could not {what}: {error}"),
        };
    }
    AttemptEnd::Failed {
        class,
        message: format!("could not {what}: {error}"),
    }
}
