//! What went wrong with a request, from what a provider or the way to it said.

use std::error::Error as _;

use genai::webc::{Error as WebError, StreamTimeout};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::domain::limits::LLM_ERROR_CHARS;

use super::retry_after;
use super::{LlmError, LlmFault};

/// Whom an error is of, and what must not be in it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Name of the provider.
    pub(super) provider: String,
    /// Texts that are taken out of messages.
    pub(super) secrets: Vec<String>,
}

impl Asked {
    /// An error in these words.
    pub(super) fn error(&self, fault: LlmFault, words: &str) -> LlmError {
        LlmError {
            fault,
            status: None,
            retry_after: None,
            message: self.clean(&format!("provider {} {words}", self.provider)),
        }
    }

    /// It was not asked, because of what agents.toml says.
    pub(super) fn unasked(&self, why: &str) -> LlmError {
        self.error(LlmFault::BadRequest, &format!("was not asked: {why}"))
    }

    /// The connection broke before the answer was complete.
    pub(super) fn truncated(&self, cause: &str) -> LlmError {
        let words = format!("broke off before its answer was complete{cause}");
        self.error(LlmFault::Truncated, &words)
    }

    /// What came is no answer.
    pub(super) fn garbage(&self, cause: &str) -> LlmError {
        let words = format!("answered with something that is not its format: {cause}");
        self.error(LlmFault::Garbage, &words)
    }

    /// An error of the client library.
    pub(super) fn of_library(&self, error: genai::Error) -> LlmError {
        match error {
            genai::Error::HttpError {
                status,
                body,
                headers,
                ..
            } => self.of_answer(status.as_u16(), &headers, &body),
            genai::Error::WebStream { error, .. } => self.of_box(error),
            genai::Error::WebAdapterCall { webc_error, .. }
            | genai::Error::WebModelCall { webc_error, .. } => self.of_web(webc_error),
            genai::Error::ChatResponse { body, .. } => self.of_event(&body),
            genai::Error::StreamParse { serde_error, .. } => self.garbage(&serde_error.to_string()),
            genai::Error::JsonValueExt(error) => self.garbage(&error.to_string()),
            genai::Error::SerdeJson(error) => self.garbage(&error.to_string()),
            other => self.unasked(&other.to_string()),
        }
    }

    /// An answer that is an error.
    pub(super) fn of_answer(&self, status: u16, headers: &HeaderMap, body: &str) -> LlmError {
        let json = serde_json::from_str(body).unwrap_or(Value::Null);
        let said = Said::of(&json, body);
        let mut words = format!("answered {status}");
        if (300..400).contains(&status) {
            let to = headers.get("location").and_then(|to| to.to_str().ok());
            let to = to.unwrap_or("another place");
            words = format!("{words}: it sends requests on to {to}; correct its base_url");
        } else if !said.words.is_empty() {
            words = format!("{words}: {}", said.words);
        }
        self.said(Some(status), Some(headers), &json, &said, &words)
    }

    /// An error within an answer.
    pub(super) fn of_event(&self, body: &Value) -> LlmError {
        let said = Said::of(body, &body.to_string());
        let words = format!("broke off with an error: {}", said.words);
        self.said(None, None, body, &said, &words)
    }

    fn said(
        &self,
        status: Option<u16>,
        headers: Option<&HeaderMap>,
        body: &Value,
        said: &Said,
        words: &str,
    ) -> LlmError {
        let status = status.or(said.status);
        let fault = said.fault(status);
        let mut error = self.error(fault, words);
        error.status = status;
        if fault.is_passing() {
            error.retry_after = retry_after::of(headers, body, &said.words);
        }
        error
    }

    fn of_box(&self, error: genai::BoxError) -> LlmError {
        let error = match error.downcast::<genai::Error>() {
            Ok(inner) => return self.of_library(*inner),
            Err(other) => other,
        };
        let error = match error.downcast::<reqwest::Error>() {
            Ok(inner) => return self.of_transport(*inner),
            Err(other) => other,
        };
        if let Some(timeout) = error.downcast_ref::<StreamTimeout>() {
            let words = format!("did not answer in time: {timeout}");
            return self.error(LlmFault::Unreachable, &words);
        }
        self.garbage(&error.to_string())
    }

    fn of_web(&self, error: WebError) -> LlmError {
        match error {
            WebError::ResponseFailedStatus {
                status,
                body,
                headers,
            } => self.of_answer(status.as_u16(), &headers, &body),
            WebError::Reqwest(error) => self.of_transport(error),
            WebError::ResponseFailedNotJson { content_type, .. } => {
                self.garbage(&format!("its type is {content_type:?}"))
            }
            WebError::ResponseFailedInvalidJson { cause, .. } => self.garbage(&cause),
            WebError::JsonValueExt(error) => self.garbage(&error.to_string()),
        }
    }

    /// An error of the way to the provider.
    pub(super) fn of_transport(&self, error: reqwest::Error) -> LlmError {
        let error = error.without_url();
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            words = format!("{words}: {cause}");
            source = cause.source();
        }
        if error.is_builder() {
            let words = format!("cannot be asked: {words}; see its base_url and headers");
            return self.error(LlmFault::BadRequest, &words);
        }
        if error.is_timeout() || error.is_connect() || error.is_request() {
            let words = format!("cannot be reached: {words}");
            return self.error(LlmFault::Unreachable, &words);
        }
        self.truncated(&format!(": {words}"))
    }

    /// Without secrets and control characters, and not too long.
    fn clean(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            message = message.replace(secret.as_str(), "[key]");
        }
        let plain = message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c });
        plain.take(LLM_ERROR_CHARS).collect()
    }
}

/// What an error says.
struct Said {
    /// In people's words.
    words: String,
    /// In a program's words, in small letters.
    codes: String,
    /// HTTP status, where the body has it.
    status: Option<u16>,
}

impl Said {
    /// What is in a body; `text` is what it is when it is no JSON.
    fn of(body: &Value, text: &str) -> Self {
        // Gemini's is an array sometimes.
        let body = body.get(0).unwrap_or(body);
        let error = match &body["error"] {
            Value::Null => body,
            error => error,
        };
        let members = ["message", "detail", "error_description"];
        let words = match error {
            Value::String(words) => Some(words.as_str()),
            error => members
                .iter()
                .find_map(|name| error[*name].as_str().or_else(|| body[*name].as_str())),
        };
        let words = words.unwrap_or(text.trim()).to_owned();
        let names = ["code", "type", "status", "error_type"];
        let codes = names.iter().filter_map(|name| error[*name].as_str());
        let codes = codes.collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        let status = ["code", "status", "status_code"]
            .iter()
            .find_map(|name| error[*name].as_u64())
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (400..600).contains(status));
        Self {
            words,
            codes,
            status,
        }
    }

    fn fault(&self, status: Option<u16>) -> LlmFault {
        let words = self.words.to_ascii_lowercase();
        let coded = |names: &[&str]| names.iter().any(|name| self.codes.contains(name));
        let says = |names: &[&str]| names.iter().any(|name| words.contains(name));
        let is_about_the_request = status.is_none_or(|s| [400, 413, 422].contains(&s));
        if is_about_the_request && (coded(TOO_LONG_CODES) || is_too_long(&words)) {
            return LlmFault::ContextTooLong;
        }
        if status == Some(402)
            || coded(&["insufficient_quota", "billing", "insufficient_balance"])
            // One provider says it of its rate limits too.
            || (status != Some(429) && says(&["credit balance is too low", "insufficient balance"]))
        {
            return LlmFault::Billing;
        }
        if coded(&[
            "content_filter",
            "content_policy",
            "responsibleai",
            "moderation",
        ]) || says(&["content management policy", "content_filter"])
        {
            return LlmFault::Refused;
        }
        if matches!(status, Some(401 | 403))
            || coded(&[
                "authentication",
                "permission_",
                "invalid_api_key",
                "unauthenticated",
            ])
            || says(&["api key not valid", "invalid api key", "incorrect api key"])
        {
            return LlmFault::Auth;
        }
        if coded(&["overloaded", "unavailable"]) || status == Some(529) {
            return LlmFault::Overloaded;
        }
        if status == Some(429)
            || coded(&["rate_limit", "resource_exhausted", "too_many_requests"])
            || (status.is_none() && says(&["rate limit", "too many requests"]))
        {
            return LlmFault::RateLimited;
        }
        match status {
            Some(408 | 409 | 500..) => LlmFault::Overloaded,
            Some(404) => LlmFault::UnknownModel,
            Some(413) => LlmFault::ContextTooLong,
            _ if coded(&["model_not_found", "not_found"]) => LlmFault::UnknownModel,
            Some(_) => LlmFault::BadRequest,
            None if says(&["overloaded"]) => LlmFault::Overloaded,
            None if coded(&["invalid_request", "invalid_argument", "invalid_prompt"]) => {
                LlmFault::BadRequest
            }
            // It began to answer, so the request was one; the next may do better.
            None => LlmFault::Overloaded,
        }
    }
}

/// Codes of a conversation that is too long.
const TOO_LONG_CODES: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size",
    "request_too_large",
    "string_above_max_length",
];

/// Whether these words are of a conversation that is too long: some providers have no code for it.
fn is_too_long(words: &str) -> bool {
    let says = |part: &str| words.contains(part);
    says("prompt is too long")
        || says("maximum context length")
        || says("context_length_exceeded")
        || says("exceed context limit")
        || (says("context window") && says("exceed"))
        || (says("input token count") && says("exceed"))
        || (says("available context size") && says("exceed"))
        || (says("input length") && says("exceed"))
}
