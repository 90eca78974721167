//! What class an agent's error text belongs to. Agents say the same thing in many words; only
//! words that several of them use count, anything else is the agent's own failure.

use std::time::Duration;

use crate::domain::error_class::ErrorClass;

use super::AgentError;

/// Signs of missing or refused credentials.
const AUTH: [&str; 12] = [
    "401",
    "unauthorized",
    "authentication required",
    "authentication_error",
    "auth_required",
    "not logged in",
    "please log in",
    "please run /login",
    "invalid api key",
    "invalid_api_key",
    "incorrect api key",
    "api key is missing",
];

/// Signs of a provider that wants us to wait.
const RATE_LIMITED: [&str; 10] = [
    "429",
    "rate limit",
    "rate_limit",
    "ratelimit",
    "too many requests",
    "overloaded",
    "usage limit",
    "quota exceeded",
    "quota_exhausted",
    "usagelimitexceeded",
];

/// An error that an agent reported in words. All of them: who keeps it takes its secrets out, then
/// cuts it.
pub(crate) fn reported(text: &str) -> AgentError {
    let lower = text.to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| contains_sign(&lower, sign));
    let class = if has(&AUTH) {
        ErrorClass::Auth
    } else if has(&RATE_LIMITED) {
        ErrorClass::RateLimited
    } else {
        ErrorClass::AgentFailed
    };
    let message = match class {
        ErrorClass::Auth => format!("the agent is not logged in or its key was refused: {text}"),
        ErrorClass::RateLimited => format!("the agent's provider asks to wait: {text}"),
        _ => format!("the agent failed: {text}"),
    };
    let mut error = AgentError::new(class, message);
    if class == ErrorClass::RateLimited {
        error.retry_after = retry_after(&lower);
    }
    error
}

/// A number counts only as a word of its own: `401` in an id is no refusal.
fn contains_sign(text: &str, sign: &str) -> bool {
    if !sign.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.contains(sign);
    }
    text.match_indices(sign).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text
            .get(at + sign.len()..)
            .and_then(|text| text.chars().next());
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-');
        !part_of_word(before) && !part_of_word(after)
    })
}

/// Seconds after "retry after", "retry-after:" or "try again in".
fn retry_after(lower: &str) -> Option<Duration> {
    let rest = ["retry-after", "retry after", "retry_after", "try again in"]
        .iter()
        .find_map(|words| lower.split_once(words).map(|(_, rest)| rest))?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    // The number stands near the words or belongs to something else.
    if rest.len() - digits.len() > 4 {
        return None;
    }
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let seconds: u64 = digits.get(..end)?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(24 * 3_600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_real_agents_are_understood() {
        let class = |text: &str| reported(text).class;
        assert_eq!(
            class("API Error: 401 {\"type\":\"authentication_error\"}"),
            ErrorClass::Auth
        );
        assert_eq!(class("Authentication required"), ErrorClass::Auth);
        assert_eq!(class("HTTP 429 Too Many Requests"), ErrorClass::RateLimited);
        assert_eq!(class("request req-401-a7 failed"), ErrorClass::AgentFailed);
        assert_eq!(
            class("compile error in main.rs:4290"),
            ErrorClass::AgentFailed
        );
    }

    #[test]
    fn the_wait_is_read_from_the_text() {
        let after = |text: &str| reported(text).retry_after.map(|wait| wait.as_secs());
        assert_eq!(after("429: Retry-After: 17"), Some(17));
        assert_eq!(after("Rate limit reached, try again in 5s"), Some(5));
        assert_eq!(after("rate limit; retry after a while, see error 9"), None);
    }
}
