//! The whole of an attempt on the path that does nothing; it exists for benchmarks only.

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use crate::agent::{EventSink, TurnRequest, catalog};
use crate::store::claims::Claimed;

use super::RunContext;

/// Run the turn; there is nothing to prepare, to record or to clean.
pub async fn run_attempt(context: &RunContext, claimed: &Claimed) {
    let catalogue = context.catalogue();
    let Some(spec) = catalogue.agents.get(&claimed.agent) else {
        return;
    };
    let agent = catalog::build(spec);
    let (sink, _events) = EventSink::channel();
    let turn = TurnRequest::bare(claimed.input.clone());
    if let Err(error) = agent
        .run_turn(turn, sink, &NobodyAsks, CancellationToken::new())
        .await
    {
        tracing::warn!(%error, "the path that does nothing failed");
    }
}

struct NobodyAsks;

impl Permission for NobodyAsks {
    fn ask(&self, _ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        Box::pin(std::future::ready(PermissionAnswer::Deny))
    }
}
