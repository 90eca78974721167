//! Whether the process lives, whether it can work, and its figures.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::http::Shared;
use super::problem::Problem;
use crate::ops::OpError;

/// Whoever asks for readiness wants to know soon.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// The process lives.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// The database answers and its schema fits, or is that of a newer release that is being rolled out.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    if shared.stop.is_cancelled() {
        return Err(OpError::unavailable("stopping").code("stopping").into());
    }
    let check = tokio::time::timeout(READY_TIMEOUT, shared.context.check());
    match check.await {
        Ok(Ok(_version)) => Ok("ready\n"),
        Ok(Err(error)) => Err(Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..error.into()
        }),
        Err(_) => Err(OpError::unavailable("the database does not answer").into()),
    }
}

/// Figures in the text format of Prometheus.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match &shared.metrics {
        Some(handle) => {
            let kind = [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )];
            (kind, handle.render()).into_response()
        }
        None => {
            Problem::new(StatusCode::NOT_FOUND, "no_metrics", "metrics are off").into_response()
        }
    }
}
