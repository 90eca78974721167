//! The live stream of a task: the one thing that is not a call with an answer.

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use super::{OpContext, OpError, task};
use crate::broker::Follow;
use crate::domain::ids::TaskId;

pub use crate::domain::event::TaskEvent;

/// Whether to wait for what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only what is there.
    No,
    /// Until the task has ended and everything is told.
    UntilTheEnd,
}

/// The stream of a task after a number, without gap or duplicate; an error when there is no such
/// task.
pub async fn follow(
    context: &OpContext,
    task: TaskId,
    after_seq: i64,
    wait: Wait,
    stop: CancellationToken,
) -> Result<BoxStream<'static, Result<TaskEvent, OpError>>, OpError> {
    task::existing(&context.store, task).await?;
    let follow = match wait {
        Wait::No => Follow::History,
        Wait::UntilTheEnd => Follow::ToTheEnd,
    };
    let events = context.broker.follow(task, after_seq, follow, stop);
    Ok(events.map(|event| event.map_err(OpError::from)).boxed())
}
