//! What the library of the protocol refuses by itself, told as this server tells its other refusals.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::problem::Problem;
use crate::domain::limits;

/// The library says why in a sentence.
const SENTENCE_BYTES_MAX: usize = 4_096;

/// Answers with a problem where the library answers with a plain text.
pub(in crate::surface) async fn told(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let claims_json = kind(request.headers()).eq_ignore_ascii_case("application/json");
    let response = next.run(request).await;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    if !refused || is_json(response.headers()) {
        return response;
    }
    let (head, body) = response.into_parts();
    let said = sentence(body).await;
    let allow = head.headers.get(header::ALLOW).cloned();
    let mut answer = problem(status, &method, claims_json, said).into_response();
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// Answers and problems.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = kind(headers);
    kind == "application/json" || kind.ends_with("+json")
}

/// The type of a body, without its parameters.
fn kind(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim()
}

async fn sentence(body: Body) -> String {
    let read = to_bytes(body, SENTENCE_BYTES_MAX).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&read);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn problem(status: StatusCode, method: &Method, claims_json: bool, said: String) -> Problem {
    let hinted = |status, code, detail: String, hint: &str| Problem {
        hint: Some(hint.to_owned()),
        ..Problem::new(status, code, detail)
    };
    match status {
        // So the library calls what is sent as JSON and is none, or no message.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if claims_json => hinted(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            format!("the body is no JSON-RPC message: {said}"),
            r#"Such as {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}."#,
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(status, "not_json", "send the body as application/json")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            let most = limits::HTTP_BODY_BYTES_MAX;
            let detail = format!("the body has more than {most} bytes");
            Problem::new(status, "body_too_large", detail)
        }
        StatusCode::NOT_ACCEPTABLE => hinted(
            status,
            "not_acceptable",
            said,
            "Accept: application/json, text/event-stream",
        ),
        StatusCode::METHOD_NOT_ALLOWED => hinted(
            status,
            "wrong_method",
            format!("{method} cannot be used here"),
            "Messages of MCP are sent with POST; there are no sessions and no streams.",
        ),
        _ if status.is_server_error() => {
            tracing::error!(%status, said, "the MCP library failed");
            Problem::new(status, "internal", "the message could not be answered")
        }
        _ => Problem::new(status, "bad_request", said),
    }
}
