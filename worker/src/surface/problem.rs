//! Refusals and failures as HTTP answers: `application/problem+json` with a stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::ops::OpError;
use crate::telemetry;

/// An answer that says why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word for programs.
    pub code: &'static str,
    /// What went wrong, for people.
    pub detail: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// Digest of what is there now, when the caller saw something else.
    pub digest: Option<String>,
    /// When to ask again.
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem of HTTP itself rather than of an operation.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            hint: None,
            digest: None,
            retry_after_s: None,
        }
    }
}

impl From<OpError> for Problem {
    fn from(error: OpError) -> Self {
        let status = StatusCode::from_u16(error.kind.http_status());
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: error.code,
            detail: error.message,
            hint: error.hint,
            digest: error.digest,
            retry_after_s: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": telemetry::without_secrets(&self.detail),
            "hint": self.hint,
        });
        if let Some(digest) = &self.digest {
            body["digest"] = json!(digest);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        if let Some(tag) = self.digest.as_deref().and_then(tag) {
            headers.insert(header::ETAG, tag);
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The same outside of HTTP: what programs are told of a refusal or a failure.
pub(super) fn told(error: &OpError) -> Value {
    let mut told = json!({
        "code": error.code,
        "message": telemetry::without_secrets(&error.message),
        "hint": error.hint,
    });
    if let Some(digest) = &error.digest {
        told["digest"] = json!(digest);
    }
    told
}

/// The digest of a change as the tag of what is there. Given back as `If-Match` with a decision, it keeps
/// what was not seen from being decided on.
pub(super) fn tag(digest: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{digest}\"")).ok()
}
