//! How long a provider asks to wait: headers, members of its errors, words in its texts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::domain::limits::LLM_RETRY_AFTER_MAX;

/// The wait that an answer asks for, from what says it most exactly.
pub(super) fn of(headers: Option<&HeaderMap>, body: &Value, words: &str) -> Option<Duration> {
    headers
        .and_then(of_headers)
        .or_else(|| of_details(body))
        .or_else(|| of_words(words))
        .map(|wait| wait.min(LLM_RETRY_AFTER_MAX))
}

fn of_headers(headers: &HeaderMap) -> Option<Duration> {
    let value = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let milliseconds = value("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok());
    if let Some(wait) = milliseconds.and_then(|ms| seconds(ms / 1_000.0)) {
        return Some(wait);
    }
    let after = value("retry-after")?;
    if let Ok(wait) = after.parse::<f64>() {
        return seconds(wait);
    }
    let at = DateTime::parse_from_rfc2822(after).ok()?;
    let wait = at.with_timezone(&Utc).signed_duration_since(Utc::now());
    // A time that has passed is no wait.
    Some(wait.to_std().unwrap_or(Duration::ZERO))
}

/// Gemini's `RetryInfo`.
fn of_details(body: &Value) -> Option<Duration> {
    let details = body
        .pointer("/error/details")
        .or_else(|| body.get("details"))?;
    let mut delays = details
        .as_array()?
        .iter()
        .filter_map(|d| d["retryDelay"].as_str());
    delays.find_map(span)
}

/// "Please try again in 1.5s", "Please retry in 7.2s".
fn of_words(words: &str) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    let places = ["try again in ", "retry in ", "retry after "];
    let rest = places.iter().find_map(|place| words.split_once(place))?.1;
    let mut parts = rest.split_whitespace();
    let first = parts.next()?;
    span(first).or_else(|| {
        let unit = parts.next()?;
        let unit = match unit {
            _ if unit.starts_with("ms") || unit.starts_with("milli") => "ms",
            _ if unit.starts_with('s') => "s",
            _ if unit.starts_with('m') => "m",
            _ if unit.starts_with('h') => "h",
            _ => return None,
        };
        span(&format!("{first}{unit}"))
    })
}

/// `7s`, `1.5s`, `350ms`, `1m2.5s`, `1h0m0s`; what follows is not read.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut any = false;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let Some(digits) = digits.filter(|at| *at > 0) else {
            break;
        };
        let (number, after) = rest.split_at(digits);
        let Ok(number) = number.parse::<f64>() else {
            break;
        };
        let (scale, unit) = match after {
            _ if after.starts_with("ms") => (0.001, 2),
            _ if after.starts_with('s') => (1.0, 1),
            _ if after.starts_with('m') => (60.0, 1),
            _ if after.starts_with('h') => (3_600.0, 1),
            _ => break,
        };
        total = total.saturating_add(seconds(number * scale)?);
        any = true;
        rest = &after[unit..];
    }
    any.then_some(total)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        HeaderMap::from_iter([(name.parse().unwrap(), value)])
    }

    fn in_headers(name: &'static str, value: &str) -> Option<Duration> {
        of(Some(&headers(name, value)), &Value::Null, "")
    }

    #[test]
    fn a_header_says_seconds_milliseconds_or_a_date() {
        assert_eq!(in_headers("retry-after", "7"), Some(Duration::from_secs(7)));
        let half = Some(Duration::from_millis(1_500));
        assert_eq!(in_headers("retry-after", "1.5"), half);
        assert_eq!(in_headers("retry-after-ms", "1500"), half);
        let past = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(in_headers("retry-after", past), Some(Duration::ZERO));
        let soon = (Utc::now() + chrono::Duration::seconds(90)).to_rfc2822();
        let wait = in_headers("retry-after", &soon).unwrap();
        assert!((80..=90).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn nonsense_is_no_wait_and_a_week_is_a_day() {
        for nonsense in ["-1", "NaN", "inf", "1e400", "soon", ""] {
            assert_eq!(in_headers("retry-after", nonsense), None, "{nonsense}");
        }
        assert_eq!(
            in_headers("retry-after", "604800"),
            Some(LLM_RETRY_AFTER_MAX)
        );
    }

    #[test]
    fn a_body_says_it_in_members_or_words() {
        let details = json!({"error": {"details": [{"@type": "x"}, {"retryDelay": "7s"}]}});
        assert_eq!(of(None, &details, ""), Some(Duration::from_secs(7)));
        let said = |words: &str| of(None, &Value::Null, words);
        let wait = said("Rate limit reached. Please try again in 1.5s. Visit us.");
        assert_eq!(wait, Some(Duration::from_millis(1_500)));
        assert_eq!(said("try again in 350ms"), Some(Duration::from_millis(350)));
        assert_eq!(said("try again in 1m2s"), Some(Duration::from_secs(62)));
        assert_eq!(
            said("Try again in 20 seconds"),
            Some(Duration::from_secs(20))
        );
        assert_eq!(said("try again in \u{20ac}s"), None);
        assert_eq!(said("try again in "), None);
    }
}
