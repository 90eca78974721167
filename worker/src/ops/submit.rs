//! Submitting a task. What the database would turn into a failed task, such as an unknown agent,
//! is refused here, where somebody can still mend it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::amount::Amount;
use super::values::{Moment, SOMETHING, Span, TaskRef, Timestamp};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec, notice};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::catalogue;
use crate::store::tasks::{self, NewTask, SubmitFacts};
use crate::store::{StoreError, StoreErrorKind};

/// Give an agent something to do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct SubmitTask {
    /// The project to work on
    pub project: String,
    /// What the agent shall do
    #[arg(
        default_value = "-",
        help = "What the agent shall do; `-` reads standard input"
    )]
    #[schemars(regex(pattern = SOMETHING))]
    pub input: String,
    /// The agent to run; else the conversation's, the project's, or the fleet's default
    #[arg(long, short)]
    #[schemars(length(max = 200))]
    pub agent: Option<String>,
    /// A model the agent offers; else the conversation's, if the agent is
    #[arg(long, short)]
    #[schemars(length(max = 200))]
    pub model: Option<String>,
    /// A mode the agent offers
    #[arg(long = "mode", value_name = "MODE")]
    #[schemars(length(max = 200))]
    pub mode_id: Option<String>,
    /// A thinking option the agent offers
    #[arg(long = "thinking", value_name = "OPTION")]
    #[schemars(length(max = 200))]
    pub thinking_option_id: Option<String>,
    /// Continue the conversation that this task began
    #[arg(long = "conversation", value_name = "TASK")]
    pub conversation_id: Option<TaskRef>,
    /// 0 to 9; 9 runs first
    #[arg(long, short)]
    #[schemars(range(min = 0, max = 9))]
    pub priority: Option<i16>,
    /// Not before this time, such as 2026-05-04T09:30:00Z or +10m
    #[arg(long, value_name = "TIME")]
    pub run_at: Option<Moment>,
    /// Attempts that count, at most
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i16>,
    /// Longest time of one attempt, such as 30m
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Longest silence of the agent, such as 5m
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<Span>,
    /// Not to be worked on after this time
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<Timestamp>,
    /// Tasks that share this key run one at a time
    #[arg(long, value_name = "KEY")]
    #[schemars(length(min = 1, max = 200))]
    pub limit_key: Option<String>,
    /// Submitting again with the same key gives the same task
    #[arg(long, value_name = "KEY")]
    #[schemars(length(min = 1, max = 200))]
    pub idempotency_key: Option<String>,
    /// Agent to run instead when no live worker offers the one asked for
    #[arg(long, value_name = "AGENT")]
    #[schemars(length(max = 200))]
    pub fallback: Option<String>,
    /// Commit or branch to start from; else the tip of the project's branch
    #[arg(long = "base", value_name = "REF")]
    #[schemars(length(max = 1024))]
    pub base_ref: Option<String>,
    /// Requests to the model, all attempts together, for agents that count them
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<i32>,
    /// Tokens, all attempts together, for agents that count them
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<i64>,
    /// Money, all attempts together, for agents that count it, such as 2.50
    #[arg(long, value_name = "AMOUNT")]
    pub max_cost: Option<Amount>,
    /// Only say whether it would be accepted, and which agent would run
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A submitted task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubmittedTask {
    /// Its number; absent: a dry run made none.
    pub id: Option<i64>,
    /// Its project.
    pub project: String,
    /// The agent that will run.
    pub agent: String,
    /// Whether it had been submitted before under the same idempotency key.
    pub replayed: bool,
    /// Something the submitter should know, such as that no live worker offers the agent.
    pub notice: Option<String>,
}

impl Op for SubmitTask {
    const SPEC: Spec = Spec {
        name: "task.submit",
        method: Method::Post,
        path: "/tasks",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Submit,
        summary: "Submit a task",
    };
    type Output = SubmittedTask;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "Fix something with the default agent",
                cli: &["shop", "make the failing test pass"],
                input: json!({"project": "shop", "input": "make the failing test pass"}),
            },
            Example {
                about: "Say everything",
                cli: &[
                    "shop",
                    "--agent",
                    "opencode",
                    "--model",
                    "m1",
                    "--mode",
                    "build",
                    "--thinking",
                    "high",
                    "--conversation",
                    "#42",
                    "--priority",
                    "9",
                    "--run-at",
                    "+10m",
                    "--max-attempts",
                    "2",
                    "--timeout",
                    "1h30m",
                    "--idle-timeout",
                    "5m",
                    "--limit-key",
                    "shop-db",
                    "--idempotency-key",
                    "release-7",
                    "--fallback",
                    "claude",
                    "--base",
                    "main",
                    "--max-steps",
                    "80",
                    "--max-tokens",
                    "2000000",
                    "--max-cost",
                    "2.5",
                    "rename the module",
                ],
                input: json!({
                    "project": "shop", "input": "rename the module", "agent": "opencode",
                    "model": "m1", "mode_id": "build", "thinking_option_id": "high",
                    "conversation_id": 42, "priority": 9, "run_at": "+10m", "max_attempts": 2,
                    "timeout": "1h30m", "idle_timeout": "5m", "limit_key": "shop-db",
                    "idempotency_key": "release-7", "fallback": "claude", "base_ref": "main",
                    "max_steps": 80, "max_tokens": 2_000_000, "max_cost": "2.5",
                }),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<SubmittedTask, OpError> {
        let agent = self.agent_of(context).await?;
        let dry_run = self.dry_run;
        let task = self.into_new_task();
        let made = match dry_run {
            true => tasks::try_out(&context.store, &task, &context.actor).await,
            false => tasks::submit(&context.store, &task, &context.actor).await,
        };
        let made = made.map_err(refused)?;
        let offers = catalogue::list(&context.store).await?;
        Ok(SubmittedTask {
            // Of one that was made before, a dry run tells the number too.
            id: (!dry_run || made.replayed).then_some(made.id.0),
            notice: notice::of(&offers, &agent, &task),
            project: task.project,
            agent,
            replayed: made.replayed,
        })
    }
}

/// Why the database does not take a task.
pub(super) fn refused(error: StoreError) -> OpError {
    match error.kind {
        StoreErrorKind::Duplicate => OpError::from(error).code("idempotency_conflict"),
        _ => error.into(),
    }
}

impl SubmitTask {
    /// The agent that it would run on, once everything that can be checked before is checked.
    pub(super) async fn agent_of(&self, context: &OpContext) -> Result<String, OpError> {
        check_input(&self.input)?;
        let (agent, conversation) = (self.agent.as_deref(), self.conversation_id.as_ref());
        let conversation = conversation.map(|task| task.0.0);
        let facts = tasks::facts(&context.store, &self.project, agent, conversation).await?;
        check_facts(self, &facts)
    }

    pub(super) fn into_new_task(self) -> NewTask {
        let (run_at, delay_s) = match self.run_at {
            Some(Moment::At(at)) => (Some(at), None),
            Some(Moment::In(span)) => (None, Some(span.seconds())),
            None => (None, None),
        };
        NewTask {
            project: self.project,
            input: self.input,
            agent: self.agent,
            model: self.model,
            mode_id: self.mode_id,
            thinking_option_id: self.thinking_option_id,
            conversation_id: self.conversation_id.map(|task| task.0.0),
            priority: self.priority,
            run_at,
            delay_s,
            max_attempts: self.max_attempts,
            timeout_s: self.timeout.map(Span::seconds),
            idle_timeout_s: self.idle_timeout.map(Span::seconds),
            deadline: self.deadline.map(|deadline| deadline.0),
            limit_key: self.limit_key,
            idempotency_key: self.idempotency_key,
            fallback: self.fallback,
            base_ref: self.base_ref,
            max_steps: self.max_steps,
            max_tokens: self.max_tokens,
            max_cost: self.max_cost.map(|amount| amount.0),
        }
    }
}

fn check_input(input: &str) -> Result<(), OpError> {
    if input.trim().is_empty() {
        return Err(
            OpError::invalid("the input of the task is empty").hint("Say what the agent shall do.")
        );
    }
    if input.len() > limits::INPUT_BYTES_MAX {
        return Err(OpError::invalid(format!(
            "the input of the task has {} bytes; {} are allowed",
            input.len(),
            limits::INPUT_BYTES_MAX
        ))
        .code("input_too_large")
        .hint("Put long material into a file of the repository and name the file in the input."));
    }
    Ok(())
}

/// The agent the task would run on, if its project and its agents are known.
fn check_facts(task: &SubmitTask, facts: &SubmitFacts) -> Result<String, OpError> {
    if !facts.project_exists {
        let hint = if facts.projects.is_empty() {
            "There is none yet; add one: dispatch projects add NAME PATH".to_owned()
        } else {
            format!("Known projects: {}.", facts.projects.join(", "))
        };
        return Err(
            OpError::not_found(format!("there is no project {:?}", task.project))
                .code("unknown_project")
                .hint(hint),
        );
    }
    let known = || match facts.known_agents.as_slice() {
        [] => "No worker has listed its agents yet.".to_owned(),
        names => format!("Known agents: {}.", names.join(", ")),
    };
    let Some(agent) = &facts.agent else {
        return Err(OpError::invalid(
            "the task names no agent and neither the project nor the fleet has a default",
        )
        .code("no_agent")
        .hint(format!("Name one with --agent. {}", known())));
    };
    for name in [Some(agent), task.fallback.as_ref()].into_iter().flatten() {
        if !facts.known_agents.is_empty() && !facts.known_agents.contains(name) {
            return Err(OpError::invalid(format!("no agent is called {name:?}"))
                .code("unknown_agent")
                .hint(known()));
        }
    }
    Ok(agent.clone())
}
