//! What the native agent needs of its run: the conversation, kept under the attempt's lease, and what
//! the model is told of where it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::agent::conversation::{
    Captured, Compaction, Conversation, Inbox, Outcome, ProviderPause, Remembered, Spent, Step,
    StepFigures,
};
use crate::agent::{AgentError, NativeTurn};
use crate::config::native_spec::Budgets;
use crate::domain::error_class::ErrorClass;
use crate::domain::ids::WorkerId;
use crate::domain::llm::Message;
use crate::domain::reconcile::reconcile_marked;
use crate::domain::redact::Redactor;
use crate::store::attempts::Held;
use crate::store::claims::{Claimed, Lease};
use crate::store::messages::{self, Carried, NewStep, NewSummary};
use crate::store::pauses::{self, NewPause, PauseClass};
use crate::store::steps::Figures;
use crate::store::{Store, StoreError, captures, inbox};
use crate::workspace::{ProjectSpec, Worktree};

use super::RunContext;
use super::leash::Leash;

/// How an attempt goes on.
#[derive(Clone, Debug)]
pub struct GoesOn {
    /// Whether from what the one before it left.
    pub carried: Carried,
    /// Why that one ended.
    pub ended: Option<String>,
    /// Attempts that gave their slot back for their provider since it answered last.
    pub provider_waits: u32,
}

/// Everything that only a native turn needs.
pub async fn turn(
    context: &RunContext,
    claimed: &Claimed,
    place: (&ProjectSpec, &Worktree),
    conversation: i64,
    goes_on: GoesOn,
    (redactor, leash): (Redactor, &Leash),
) -> NativeTurn {
    let (project, worktree) = place;
    let lease = &claimed.lease;
    let base = &worktree.base_commit;
    let instructions = context.workspaces.instructions(project, base).await;
    let instructions = instructions.unwrap_or_else(|error| {
        tracing::warn!(%error, "the instructions of the repository cannot be read");
        None
    });
    let given_back = goes_on.provider_waits;
    let branch = project.target_ref.clone();
    let mut facts = vec![
        ("Project", claimed.project.clone()),
        ("Base commit", base.clone()),
        ("Date", chrono::Utc::now().date_naive().to_string()),
    ];
    facts.extend(branch.map(|branch| ("Branch that the result is for", branch)));
    NativeTurn {
        turn_id: format!("{}.{}", lease.task().0, lease.attempt()),
        conversation: Arc::new(Kept {
            store: context.store.clone(),
            lease: lease.clone(),
            leash: leash.clone(),
            worker: context.worker,
            conversation,
            goes_on,
            redactor,
            places: Mutex::default(),
        }),
        gate: context.gate.clone(),
        llm: Arc::clone(&context.llm),
        instructions,
        facts,
        given_back,
        cache_key: format!("dispatch-{conversation}"),
        clock: Arc::clone(&context.clock),
    }
}

/// A conversation in the database, as one attempt sees it.
struct Kept {
    store: Store,
    lease: Lease,
    leash: Leash,
    worker: WorkerId,
    conversation: i64,
    goes_on: GoesOn,
    redactor: Redactor,
    places: Mutex<Places>,
}

/// Where the messages of the turn's history are stored.
#[derive(Debug, Default)]
struct Places {
    /// By place in the history; a result stands for its answer where it is not stored by itself.
    history: Vec<i64>,
    /// All of them, in the order of the conversation.
    stored: Vec<i64>,
    /// Number of the message that comes next.
    next: i64,
}

impl Places {
    fn add(&mut self, count: usize) {
        let count = i64::try_from(count).unwrap_or(0);
        let added = self.next..self.next + count;
        self.history.extend(added.clone());
        self.stored.extend(added);
        self.next += count;
    }

    /// The last message of those that a summary of so many stands for.
    fn last_of(&self, replaced: usize) -> Option<i64> {
        let Some(stays) = self.history.get(replaced) else {
            return self.stored.last().copied();
        };
        let at = self.stored.iter().position(|seq| seq == stays)?;
        self.stored.get(at.checked_sub(1)?).copied()
    }

    /// Put a summary in their place.
    fn replace(&mut self, replaced: usize, upto: i64) {
        let summary = self.next;
        self.next += 1;
        self.history.splice(..replaced, [summary]);
        let gone = self.stored.iter().position(|seq| *seq == upto);
        self.stored.splice(..gone.map_or(0, |at| at + 1), [summary]);
    }
}

impl Kept {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do it until it is done, however long the database is away: the lease decides, not patience.
    async fn persistently<'a, T>(
        &self,
        what: &str,
        act: impl Fn() -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync,
    ) -> Result<T, AgentError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match act().await {
                Ok(done) => return Ok(done),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, what, "a native turn waits for the database");
                }
                Err(error) => {
                    let message = format!("cannot {what}: {error}");
                    return Err(AgentError::new(ErrorClass::Internal, message));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.leash.lost() => return Err(lost()),
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn load_messages(&self) -> Result<Remembered, AgentError> {
        let (store, lease, carried) = (&self.store, &self.lease, self.goes_on.carried);
        let load = || -> BoxFuture<'_, _> {
            Box::pin(messages::load(store, lease, self.conversation, carried))
        };
        let loaded = self.persistently("read the conversation", load).await?;
        let loaded = loaded.ok_or_else(lost)?;
        let stored = loaded.messages.iter().map(|(seq, _)| *seq).collect();
        let (history, messages) = reconcile_marked(loaded.messages).into_iter().unzip();
        *self.places() = Places {
            history,
            stored,
            next: loaded.next_seq,
        };
        let whole = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Remembered {
            messages,
            begun: loaded.begun,
            resumed: match self.goes_on.carried {
                Carried::Yes => self.goes_on.ended.clone(),
                Carried::No => None,
            },
            todos: loaded.todos,
            spent: Spent {
                steps: whole(loaded.used.steps),
                tokens: loaded.used.tokens,
                cost: loaded.used.cost,
            },
            budgets: Budgets {
                max_steps: loaded.budgets.max_steps.map(|most| whole(i64::from(most))),
                max_tokens: loaded.budgets.max_tokens,
                max_cost: loaded.budgets.max_cost,
            },
            context: loaded.context,
        })
    }

    async fn keep_step(&self, step: Step) -> Result<(), AgentError> {
        let clean: Vec<Message> = step.messages.iter().map(|m| self.clean(m)).collect();
        let figures = step.figures.as_ref().map(figures_row);
        let new = NewStep {
            conversation: self.conversation,
            n: number(step.n),
            first_seq: self.places().next,
            messages: &clean,
            figures: figures.as_ref(),
        };
        let keep = || -> BoxFuture<'_, _> {
            Box::pin(messages::keep_step(&self.store, &self.lease, &new))
        };
        held(self.persistently("store a step", keep).await?)?;
        self.places().add(clean.len());
        Ok(())
    }

    async fn take(&self, n: u32) -> Result<Inbox, AgentError> {
        let next = self.places().next;
        let take = || -> BoxFuture<'_, _> {
            Box::pin(inbox::take(&self.store, &self.lease, number(n), next))
        };
        let taken = self.persistently("read what was sent", take).await?;
        let taken = taken.ok_or_else(lost)?;
        self.places().add(usize::from(!taken.texts.is_empty()));
        Ok(Inbox {
            messages: taken.texts,
            compact: taken.compact,
        })
    }

    async fn keep_summary(&self, compaction: Compaction) -> Result<(), AgentError> {
        let (upto, seq) = {
            let places = self.places();
            (places.last_of(compaction.replaced), places.next)
        };
        let Some(upto_seq) = upto else {
            return Ok(());
        };
        let summary = self.clean(&compaction.summary);
        let figures = figures_row(&compaction.figures);
        let new = NewSummary {
            conversation: self.conversation,
            n: number(compaction.n),
            upto_seq,
            seq,
            summary: &summary,
            figures: &figures,
        };
        let keep =
            || -> BoxFuture<'_, _> { Box::pin(messages::compact(&self.store, &self.lease, &new)) };
        held(self.persistently("store a summary", keep).await?)?;
        self.places().replace(compaction.replaced, upto_seq);
        Ok(())
    }

    async fn write_todos(&self, mut todos: Value) -> Result<(), AgentError> {
        self.redactor.clean_value(&mut todos);
        let keep = || -> BoxFuture<'_, _> {
            let (store, lease) = (&self.store, &self.lease);
            Box::pin(messages::keep_todos(
                store,
                lease,
                self.conversation,
                &todos,
            ))
        };
        held(self.persistently("store the list", keep).await?)
    }

    async fn tell_pause(&self, told: ProviderPause) {
        let mut message = told.message;
        self.redactor.clean(&mut message);
        let pause = NewPause {
            provider: &told.provider,
            wait: told.wait,
            class: PauseClass::parse(told.class).unwrap_or(PauseClass::RateLimited),
            message: &message,
        };
        if let Err(error) = pauses::pause(&self.store, self.worker, &pause).await {
            tracing::warn!(%error, provider = told.provider, "other workers do not know of a pause");
        }
    }

    async fn keep_request(&self, request: Captured) {
        let body = String::from_utf8_lossy(&request.body);
        let body = self.redactor.text(&body);
        let what = (number(request.n), request.model.as_str());
        if let Err(error) = captures::keep(&self.store, &self.lease, what, &body).await {
            tracing::warn!(%error, n = request.n, "a request is not kept as it is sent");
        }
    }

    async fn end_request(&self, n: u32, outcome: Outcome) {
        let status = outcome.status.map(i32::from);
        let error = outcome
            .error
            .as_deref()
            .map(|text| self.redactor.text(text));
        let ended = (status, error.as_deref());
        if let Err(error) = captures::ended(&self.store, &self.lease, number(n), ended).await {
            tracing::warn!(%error, n, "the end of a request that was kept is not known");
        }
    }

    /// A message as it is stored: without secrets.
    fn clean(&self, message: &Message) -> Message {
        if self.redactor.is_empty() {
            return message.clone();
        }
        let mut value = serde_json::to_value(message).unwrap_or_default();
        self.redactor.clean_value(&mut value);
        // What is cleaned has the shape that it had.
        serde_json::from_value(value).unwrap_or_else(|_| Message {
            role: message.role,
            parts: Vec::new(),
        })
    }
}

impl Conversation for Kept {
    fn load(&self) -> BoxFuture<'_, Result<Remembered, AgentError>> {
        Box::pin(self.load_messages())
    }

    fn keep(&self, step: Step) -> BoxFuture<'_, Result<(), AgentError>> {
        Box::pin(self.keep_step(step))
    }

    fn take_inbox(&self, n: u32) -> BoxFuture<'_, Result<Inbox, AgentError>> {
        Box::pin(self.take(n))
    }

    fn compact(&self, compaction: Compaction) -> BoxFuture<'_, Result<(), AgentError>> {
        Box::pin(self.keep_summary(compaction))
    }

    fn keep_todos(&self, todos: Value) -> BoxFuture<'_, Result<(), AgentError>> {
        Box::pin(self.write_todos(todos))
    }

    fn pause_provider(&self, pause: ProviderPause) -> BoxFuture<'_, ()> {
        Box::pin(self.tell_pause(pause))
    }

    fn capture(&self, request: Captured) -> BoxFuture<'_, ()> {
        Box::pin(self.keep_request(request))
    }

    fn capture_ended(&self, n: u32, outcome: Outcome) -> BoxFuture<'_, ()> {
        Box::pin(self.end_request(n, outcome))
    }
}

fn figures_row(figures: &StepFigures) -> Figures {
    Figures {
        model: figures.model.clone(),
        finish: figures.finish.clone(),
        tokens: figures.tokens,
        raw: figures.raw.clone(),
        cost: figures.cost.clone(),
        estimate: figures.estimate.map(|guess| (guess.tokens, guess.cost)),
        context_tokens: figures.context_tokens,
        ttft_ms: figures.ttft_ms,
        decode_ms: figures.decode_ms,
        request_ms: Some(figures.request_ms),
        tools_ms: Some(figures.tools_ms),
        total_ms: Some(figures.total_ms),
        retries: number(figures.retries),
    }
}

fn number(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn held(held: Held) -> Result<(), AgentError> {
    match held {
        Held::Yes => Ok(()),
        Held::Lost => Err(lost()),
    }
}

fn lost() -> AgentError {
    let message = "another worker has the task now";
    AgentError::new(ErrorClass::Orphaned, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_stands_for_all_that_is_stored_before_what_stays() {
        // The result of 2 came behind 3: it is sent behind its call.
        let mut places = Places {
            history: vec![1, 2, 2, 3, 5],
            stored: vec![1, 2, 3, 4, 5],
            next: 6,
        };
        assert_eq!(places.last_of(3), Some(2));
        assert_eq!(places.last_of(4), Some(4), "with the result that came late");
        assert_eq!(places.last_of(9), Some(5));
        places.replace(4, 4);
        assert_eq!(
            (&places.history[..], &places.stored[..]),
            (&[6, 5][..], &[6, 5][..])
        );
        places.add(2);
        assert_eq!(places.history, [6, 5, 7, 8]);
        assert_eq!(places.last_of(2), Some(5));
    }
}
