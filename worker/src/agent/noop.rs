//! An agent that does nothing and says so at once. For benchmarks of the queue only.

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::event::Started;
use super::{Agent, AgentError, AgentEvent, EventSink, Permission, TurnOutcome, TurnRequest};
use crate::domain::attempt::ExecutionPath;

/// Does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopAgent;

impl Agent for NoopAgent {
    fn path(&self) -> ExecutionPath {
        ExecutionPath::Noop
    }

    fn run_turn<'a>(
        &'a self,
        _turn: TurnRequest,
        events: EventSink,
        _permission: &'a dyn Permission,
        _cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<TurnOutcome, AgentError>> {
        Box::pin(async move {
            events.send(AgentEvent::Started(Started::default())).await;
            Ok(TurnOutcome {
                stop_reason: "noop".to_owned(),
                ..TurnOutcome::default()
            })
        })
    }
}
