//! `wait`: call after call, until the task has ended or the time is over.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::out::Out;
use super::{CliError, End, document};
use crate::domain::limits;
use crate::ops::values::Span;
use crate::ops::wait::{WaitTask, WaitedTask};
use crate::ops::{Op, OpContext, OpError};
use crate::surface::safe_text;

/// Wait, and print where the task stands then.
pub(crate) async fn run(
    context: &OpContext,
    out: &mut Out,
    input: Value,
    json: bool,
) -> Result<End, CliError> {
    let asked: WaitTask =
        serde_json::from_value(input).map_err(|e| OpError::invalid(e.to_string()))?;
    let began = Instant::now();
    let left = |timeout: Duration| timeout.saturating_sub(began.elapsed());
    let waited = loop {
        let left = asked.timeout.map(|timeout| left(timeout.0));
        let now = left.map_or(limits::WAIT_MAX, |left| left.min(limits::WAIT_MAX));
        let call = WaitTask {
            id: asked.id,
            timeout: Some(Span(now)),
        };
        let waited = call.run(context).await?;
        if waited.ended || left.is_some_and(|left| left <= limits::WAIT_MAX) {
            break waited;
        }
    };
    let WaitedTask { ended, task } = &waited;
    if json {
        let value = serde_json::to_value(&waited).unwrap_or_default();
        out.line(&document(&value))?;
    } else {
        let why = task.error.as_deref().or(task.waiting_reason.as_deref());
        let why = why.map(|why| format!(": {}", safe_text::line(why)));
        out.line(&format!(
            "Task {} is {}{}",
            task.id,
            task.state,
            why.unwrap_or_default()
        ))?;
    }
    Ok(match (ended, task.state.as_str()) {
        (false, _) => End::NotYet,
        (true, "completed") => End::Done,
        (true, _) => End::TaskFailed,
    })
}
