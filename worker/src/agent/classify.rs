//! What class an agent's error text belongs to. Agents say the same thing in many words; only
//! words that several of them use count, anything else is the agent's own failure.

use std::time::Duration;

use crate::config::agent_spec::ErrorRule;
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
    of_class(class, text)
}

/// The failure that the end of what an agent said tells by the first rule that finds itself in it. It is
/// short (`ERROR_TEXT_CHARS_MAX`), and no pattern takes longer than that is long.
pub(crate) fn told(rules: &[ErrorRule], said: &str) -> Option<AgentError> {
    rules.iter().find_map(|rule| {
        // The catalogue has checked that it compiles.
        let pattern = regex::Regex::new(&rule.pattern).ok()?;
        let found = pattern.find(said)?;
        Some(of_class(rule.class, found.as_str().trim()))
    })
}

fn of_class(class: ErrorClass, text: &str) -> AgentError {
    let message = match class {
        ErrorClass::Auth => format!("the agent is not logged in or its key was refused: {text}"),
        ErrorClass::RateLimited => format!("the agent's provider asks to wait: {text}"),
        ErrorClass::InvalidOption => format!("the agent's provider does not offer this: {text}"),
        ErrorClass::Refused => format!("the agent refused the work: {text}"),
        _ => format!("the agent failed: {text}"),
    };
    let mut error = AgentError::new(class, message);
    if class == ErrorClass::RateLimited {
        error.retry_after = retry_after(&text.to_lowercase());
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
    use crate::config::agents::Catalogue;

    /// The class that the rules of an entry give to what its agent said, and the words they keep.
    fn by_rules(entry: &str, said: &str) -> Option<(ErrorClass, String)> {
        let catalogue = Catalogue::parse(include_str!("../config/more_agents.toml")).unwrap();
        let error = told(&catalogue.agents[entry].errors, said)?;
        let (_, words) = error.message.split_once(": ").unwrap();
        Some((error.class, words.to_owned()))
    }

    #[test]
    fn what_copilot_says_of_a_failed_request_has_its_class() {
        // GitHub Copilot CLI 1.0.102; the first words came before the failure.
        let key = "Error: Authentication failed with provider at http://127.0.0.1:1/v1 (HTTP 401).\n  \
                   Check your COPILOT_PROVIDER_API_KEY, COPILOT_PROVIDER_API_KEY_COMMAND, or \
                   COPILOT_PROVIDER_BEARER_TOKEN.";
        let model = "Error: Model 'm' not found on provider at [secret COPILOT_PROVIDER_BASE_URL] (HTTP \
                     404).\n  Check that the model is available on your provider.";
        let failed = |last: &str| {
            format!(
                "Error: Failed to get response from the AI model; retried 5 times (total retry wait \
                 time: 5.49 seconds) Last error: {last}"
            )
        };
        for (said, class) in [
            (key.to_owned(), ErrorClass::Auth),
            (model.to_owned(), ErrorClass::InvalidOption),
            (failed("429 Rate limit reached"), ErrorClass::RateLimited),
            (failed("500 upstream failure"), ErrorClass::AgentFailed),
        ] {
            let before = "Info: Request failed due to a transient API error. Retrying...";
            let found = by_rules("copilot", &format!("{before}{said}"));
            assert_eq!(found, Some((class, said.clone())));
        }
        let answer = format!("It told `{key}`, and `{model}`: both are handled now.");
        assert_eq!(by_rules("copilot", &answer), None, "an answer about it");
        let long = "Error: 400 This model's maximum context length is 128000 tokens.";
        let found = by_rules("copilot", long);
        assert_eq!(found, Some((ErrorClass::AgentFailed, long.to_owned())));
        assert_eq!(by_rules("copilot", &format!("It ended with {long}")), None);
    }

    #[test]
    fn what_aider_prints_of_a_failed_request_has_its_class() {
        // aider 0.86.2, which breaks lines at 80 columns.
        let begin = "Repo-map: using 1024 tokens, auto refresh\n\n";
        let key = "litellm.AuthenticationError: AuthenticationError: OpenAIException - Incorrect \nAPI key \
                   provided: x. You can find your API key at \nhttps://platform.example/api-keys.\nThe API \
                   provider is not able to authenticate you. Check your API key.";
        let model = "litellm.NotFoundError: OpenAIException - The model `m` does not exist \nor you do not \
                     have access to it.";
        let other = "litellm.BadRequestError: OpenAIException - Your key may not use this.";
        let limit = "The API provider has rate limited you. Try again later or check your quotas.";
        let down = "The API provider's servers are down or overloaded.";
        for (said, class) in [
            (key, ErrorClass::Auth),
            (model, ErrorClass::InvalidOption),
            (other, ErrorClass::AgentFailed),
            (limit, ErrorClass::RateLimited),
            (down, ErrorClass::AgentFailed),
        ] {
            let found = by_rules("aider", &format!("{begin}{said}\n\n"));
            assert_eq!(found, Some((class, said.to_owned())));
            let answered = format!("{begin}{said}\nTokens: 580 sent, 2 received.\n");
            assert_eq!(by_rules("aider", &answered), None, "{said}: an answer came");
        }
        let shown = by_rules(
            "aider",
            &format!("{begin}{key}\n\nhttps://platform.example/api-keys\n\n"),
        );
        assert_eq!(shown.map(|(class, _)| class), Some(ErrorClass::Auth));
    }

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
