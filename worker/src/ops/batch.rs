//! Many tasks at once: all of them, or none.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::Page;
use super::submit::{self, SubmitTask, SubmittedTask};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec, notice};
use crate::domain::batch_key::BatchKey;
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::{catalogue, tasks};

/// Submit many tasks in one transaction.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct SubmitTasks {
    /// The tasks, each with the fields of one submission, 1 to 200
    // The command line reads files of them too.
    #[arg(skip)]
    #[schemars(length(min = 1, max = 200))]
    pub tasks: Vec<SubmitTask>,
    /// Only say whether all of them would be accepted, and which agents would run
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Submitting the batch again with the same key gives the same tasks: each without a key of its own gets
    /// one from this
    #[arg(long, value_name = "KEY")]
    #[schemars(length(min = 1, max = 200))]
    pub idempotency_key: Option<String>,
}

impl Op for SubmitTasks {
    const SPEC: Spec = Spec {
        name: "task.submit-many",
        method: Method::Post,
        path: "/tasks/batch",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Submit,
        summary: "Submit many tasks: all of them, or none",
    };
    type Output = Page<SubmittedTask>;

    fn examples() -> Vec<Example> {
        const ONE: &str = r#"{"project": "shop", "input": "fix the cart"}"#;
        vec![
            Example {
                about: "Two at once",
                cli: &[
                    ONE,
                    r#"{"project": "shop", "input": "fix the till", "priority": 9}"#,
                ],
                input: json!({"tasks": [
                    {"project": "shop", "input": "fix the cart"},
                    {"project": "shop", "input": "fix the till", "priority": 9},
                ]}),
            },
            Example {
                about: "Only try it",
                cli: &["--dry-run", ONE],
                input: json!({
                    "tasks": [{"project": "shop", "input": "fix the cart"}], "dry_run": true,
                }),
            },
            Example {
                about: "Once, however often it is sent",
                cli: &[
                    r#"{"project": "shop", "input": "tidy up"}"#,
                    "--idempotency-key",
                    "night-7",
                ],
                input: json!({
                    "tasks": [{"project": "shop", "input": "tidy up"}], "idempotency_key": "night-7",
                }),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let count = self.tasks.len();
        if !(1..=limits::BATCH_TASKS_MAX).contains(&count) {
            let most = limits::BATCH_TASKS_MAX;
            return Err(
                OpError::invalid(format!("a batch has 1 to {most} tasks, not {count}"))
                    .hint("Send several batches; by SQL one INSERT takes any number."),
            );
        }
        let named = |n: usize, error: OpError| OpError {
            message: format!("task {} of {count}: {}", n + 1, error.message),
            ..error
        };
        let mut agents = Vec::with_capacity(count);
        for (n, task) in self.tasks.iter().enumerate() {
            if task.dry_run {
                let refused = OpError::invalid("dry_run is of the whole batch, not of one of it");
                return Err(named(n, refused.hint("Say it beside the tasks.")));
            }
            let agent = task.agent_of(context).await;
            agents.push(agent.map_err(|error| named(n, error))?);
        }
        let key = self.idempotency_key.as_deref().map(batch_key).transpose()?;
        let mut new: Vec<_> = self
            .tasks
            .into_iter()
            .map(SubmitTask::into_new_task)
            .collect();
        if let Some(key) = &key {
            for (n, task) in new.iter_mut().enumerate() {
                task.idempotency_key.get_or_insert_with(|| key.of(n));
            }
        }
        let (dry_run, key) = (self.dry_run, key.as_ref());
        let made = match dry_run {
            true => tasks::try_out_all(&context.store, &new, key, &context.actor).await,
            false => tasks::submit_all(&context.store, &new, key, &context.actor).await,
        };
        let made = made.map_err(|(n, error)| named(n, submit::refused(error)))?;
        let fresh = made.iter().filter(|one| !one.replayed);
        let fresh: HashSet<i64> = fresh.map(|one| one.id.0).collect();
        let offers = catalogue::list(&context.store).await?;
        let submitted = new.into_iter().zip(agents).zip(made);
        let submitted = submitted.map(|((task, agent), made)| SubmittedTask {
            // Of those that were made before, a dry run tells the numbers too.
            id: Some(made.id.0).filter(|id| !dry_run || !fresh.contains(id)),
            notice: notice::of(&offers, &agent, &task),
            project: task.project,
            agent,
            replayed: made.replayed,
        });
        Ok(Page::whole(submitted.collect()))
    }
}

fn batch_key(key: &str) -> Result<BatchKey, OpError> {
    BatchKey::new(key).ok_or_else(|| {
        let most = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        OpError::invalid(format!("an idempotency key has 1 to {most} bytes"))
    })
}
