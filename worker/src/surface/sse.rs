//! The stream of a task as server-sent events. The id of an event is its number, so that a client
//! that comes back continues where it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, future};
use serde::Deserialize;
use serde_json::json;

use super::auth::Caller;
use super::http::Shared;
use super::problem::Problem;
use crate::ops::stream::{self, TaskEvent, Wait};
use crate::ops::task::{ShowTask, TaskEvents};
use crate::ops::values::TaskRef;
use crate::ops::{Op, OpError};

/// Proxies close a connection on which nothing moves.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The query of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamQuery {
    since_seq: Option<i64>,
}

/// History after a number, then what comes, to the end of the task.
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    axum::Extension(caller): axum::Extension<Caller>,
    Path(id): Path<String>,
    query: Result<Query<StreamQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task: TaskRef = id.parse().map_err(OpError::invalid)?;
    let Query(query) = query.map_err(|rejection| OpError::invalid(rejection.body_text()))?;
    let last = last_event_id(&headers)?;
    if query.since_seq.is_some_and(|seq| seq < 0) {
        return Err(OpError::invalid("since_seq is the number of an event, or 0").into());
    }
    let after = last.or(query.since_seq).unwrap_or(0);
    if after > 0 && everything_told(&shared, task, after).await? {
        // The answer that makes an EventSource stop coming back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place =
        shared.streams.clone().try_acquire_owned().map_err(|_| {
            OpError::unavailable("too many streams are open").code("too_many_streams")
        })?;
    let stop = shared.stop.child_token();
    let ends_with_reader = stop.clone().drop_guard();
    let events = stream::follow(
        &shared.context,
        task.0,
        after,
        Wait::UntilTheEnd,
        stop.clone(),
    )
    .await?;
    let over = future::select(
        Box::pin(stop.cancelled_owned()),
        Box::pin(caller.ends(shared.context.clone())),
    );
    let events = events.take_until(over).map(move |event| {
        let _held = (&place, &ends_with_reader);
        Ok(sent(event))
    });
    Ok(answer(events))
}

fn answer(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // Proxies that collect answers would hold the stream back.
    let unbuffered = axum::http::HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    response
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, OpError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|seq| *seq >= 0);
    number
        .map(Some)
        .ok_or_else(|| OpError::invalid("Last-Event-ID is the number of an event"))
}

async fn everything_told(shared: &Shared, task: TaskRef, after: i64) -> Result<bool, OpError> {
    let shown = ShowTask { id: task }.run(&shared.context).await?;
    if shown.task.ended_at.is_none() {
        return Ok(false);
    }
    let rest = TaskEvents {
        id: task,
        since_seq: Some(after),
        limit: Some(1),
    };
    Ok(rest.run(&shared.context).await?.data.is_empty())
}

fn sent(event: Result<TaskEvent, OpError>) -> Event {
    match event {
        Ok(event) => {
            let id = event.seq.to_string();
            Event::default()
                .id(id)
                .json_data(&event)
                .unwrap_or_default()
        }
        Err(error) => {
            let facts = json!({"code": error.code, "detail": error.message, "hint": error.hint});
            Event::default()
                .event("problem")
                .json_data(facts)
                .unwrap_or_default()
        }
    }
}
