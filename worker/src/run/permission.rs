//! Answers an agent's questions: by policy at once, or by a person through a durable row with a
//! deadline and a default.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use crate::config::agent_spec::{AskDefault, PermissionPolicy, Verdict};
use crate::domain::attempt::Phase;
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::store::asks::{self, Question};
use crate::store::attempts;
use crate::store::claims::Lease;
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError};

use super::text::{storable, storable_text};

/// How often an open question is looked at although nothing woke us.
const LOOK: Duration = Duration::from_secs(1);

/// Something to tell on the stream of the attempt.
pub type Note = (&'static str, Value);

/// Asks on behalf of one attempt.
pub struct Asker {
    /// Where questions are kept.
    pub store: Store,
    /// Wakes us when one is answered.
    pub listener: Listener,
    /// The attempt.
    pub lease: Lease,
    /// What to answer without asking.
    pub policy: PermissionPolicy,
    /// To the attempt's stream.
    pub notes: mpsc::Sender<Note>,
    /// The attempt is ending.
    pub ending: CancellationToken,
    /// Takes secrets out of what is stored.
    pub redactor: Redactor,
    /// Open questions; while there are some, silence is not a stall.
    pub open: AtomicUsize,
}

impl Asker {
    /// Whether the agent waits for a person now.
    pub fn is_waiting(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    async fn answer(&self, ask: PermissionAsk) -> PermissionAnswer {
        let outside = ask.outside;
        let mut question = Question {
            kind: storable_text(ask.kind),
            title: storable_text(ask.title),
            detail: storable(ask.detail),
            options: storable(ask.options),
        };
        self.redactor.clean(&mut question.title);
        self.redactor.clean_value(&mut question.detail);
        self.redactor.clean_value(&mut question.options);
        let by_policy = match self.policy.verdict(&question.kind, outside) {
            Verdict::Allow => Some(("allowed", PermissionAnswer::Allow)),
            Verdict::Deny => Some(("denied", PermissionAnswer::Deny)),
            Verdict::Ask => None,
        };
        if let Some((status, answer)) = by_policy {
            return self.answer_by_policy(&question, status, answer).await;
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits::PERMISSIONS_OPEN_MAX {
            self.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(
                task.id = self.lease.task().0,
                "the agent floods with questions"
            );
            return PermissionAnswer::Deny;
        }
        let answer = self.ask_a_person(&question).await.unwrap_or_else(|error| {
            tracing::warn!(%error, task.id = self.lease.task().0, "a question could not be kept");
            PermissionAnswer::Deny
        });
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.show(Phase::Turn).await;
        }
        answer
    }

    async fn answer_by_policy(
        &self,
        question: &Question,
        status: &'static str,
        answer: PermissionAnswer,
    ) -> PermissionAnswer {
        let id = asks::note(&self.store, &self.lease, question, status)
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "an answer by policy could not be recorded");
                None
            });
        let payload = json!({
            "permission_id": id, "kind": question.kind, "title": question.title,
            "answer": status, "by": "policy",
        });
        self.tell("permission_resolved", payload).await;
        answer
    }

    async fn ask_a_person(&self, question: &Question) -> Result<PermissionAnswer, StoreError> {
        // Subscribed before the row is there, so that no answer slips through.
        let mut wakeups = self.listener.subscribe();
        let time = self.policy.ask_timeout;
        let Some(id) = asks::ask(&self.store, &self.lease, question, time).await? else {
            return Ok(PermissionAnswer::Cancelled);
        };
        let payload = json!({
            "permission_id": id, "kind": question.kind, "title": question.title,
            "detail": question.detail, "options": question.options,
            "deadline_ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        });
        self.tell("permission_requested", payload).await;
        self.show(Phase::AwaitingPermission).await;
        let deadline = Instant::now() + time;
        loop {
            let (status, by) = asks::status(&self.store, id).await?;
            if status != "pending" {
                return Ok(self.resolved(id, &status, by.as_deref()).await);
            }
            tokio::select! {
                () = self.ending.cancelled() => {
                    asks::close(&self.store, id, "cancelled", "the attempt ended").await?;
                    return Ok(PermissionAnswer::Cancelled);
                }
                () = tokio::time::sleep_until(deadline) => {
                    if asks::close(&self.store, id, "expired", "deadline").await? {
                        return Ok(self.resolved(id, "expired", Some("deadline")).await);
                    }
                }
                () = heard(&mut wakeups, id) => {}
            }
        }
    }

    async fn resolved(&self, id: i64, status: &str, by: Option<&str>) -> PermissionAnswer {
        let answer = match (status, self.policy.ask_default) {
            ("allowed", _) | ("expired", AskDefault::Allow) => PermissionAnswer::Allow,
            ("cancelled", _) => PermissionAnswer::Cancelled,
            _ => PermissionAnswer::Deny,
        };
        let given = if answer == PermissionAnswer::Allow {
            "allowed"
        } else {
            "denied"
        };
        let payload = json!({ "permission_id": id, "status": status, "answer": given, "by": by });
        self.tell("permission_resolved", payload).await;
        answer
    }

    async fn tell(&self, kind: &'static str, payload: Value) {
        let _run_ended = self.notes.send((kind, payload)).await;
    }

    async fn show(&self, phase: Phase) {
        if let Err(error) = attempts::set_phase(&self.store, &self.lease, phase).await {
            tracing::debug!(%error, "the phase could not be shown");
        }
    }
}

impl Permission for Asker {
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        Box::pin(self.answer(ask))
    }
}

/// Until this question may have been answered.
async fn heard(wakeups: &mut broadcast::Receiver<Wakeup>, id: i64) {
    let timer = tokio::time::sleep(LOOK);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            () = &mut timer => return,
            wakeup = wakeups.recv() => match wakeup {
                Ok(Wakeup::Permission(answered)) if answered == id => return,
                Ok(Wakeup::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    timer.await;
                    return;
                }
            }
        }
    }
}
