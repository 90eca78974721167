//! How a native turn ended, and its last event.

use tokio::time::Instant;

use super::turn;
use crate::agent::{AgentError, AgentEvent, EventSink};
use crate::domain::usage::{UsageReport, UsageSource};

/// How the loop ended, with what it used.
pub(super) struct Ended {
    pub(super) result: Result<&'static str, AgentError>,
    pub(super) usage: Option<UsageReport>,
    /// When the turn began; absent: it did not.
    pub(super) began: Option<Instant>,
}

impl Ended {
    pub(super) fn with(error: AgentError) -> Self {
        Self {
            result: Err(error),
            usage: None,
            began: None,
        }
    }

    /// Of a turn that was dropped in the middle: what it used nobody knows.
    pub(super) fn dropped(began: Instant) -> Self {
        Self {
            result: Err(turn::aborted()),
            usage: Some(UsageReport {
                source: UsageSource::Metered,
                ..UsageReport::default()
            }),
            began: Some(began),
        }
    }

    /// Tell that it ended, if it began.
    pub(super) async fn tell(&self, events: &EventSink) {
        let Some(began) = self.began else {
            return;
        };
        let reason = match &self.result {
            Ok(reason) => (*reason).to_owned(),
            Err(error) => error
                .stop_reason
                .clone()
                .unwrap_or_else(|| "error".to_owned()),
        };
        let usage = self.usage.as_ref();
        let tokens = usage.map(|usage| usage.tokens);
        events
            .send(AgentEvent::TurnDone {
                reason,
                duration_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
                tokens: tokens.filter(|tokens| tokens.total().is_some()),
                context: usage.and_then(|usage| usage.context),
            })
            .await;
    }
}
