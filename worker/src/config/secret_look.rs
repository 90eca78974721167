//! Which values are secret: those with a telling name, and those that look like nothing but a
//! credential. What everybody may know (paths, names of models, switches) is not, or half of every
//! text would be hidden. Pure.

use crate::domain::redact::Secret;

/// Words of a name whose value is secret.
const TELLING: [&str; 21] = [
    "key",
    "keys",
    "apikey",
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pass",
    "credential",
    "credentials",
    "auth",
    "bearer",
    "refresh",
    "access",
    "cookie",
    "jwt",
    "pat",
];

/// Ends of such words that are written in one with what is before: `PGPASSWORD`, `MYAPIKEY`.
const TELLING_ENDS: [&str; 10] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "secret",
    "credential",
];

/// Last words of names whose value is none, whatever the words before.
const OPEN: [&str; 36] = [
    "url", "uri", "host", "hostname", "port", "region", "zone", "model", "models", "mode", "path",
    "dir", "home", "file", "sock", "user", "name", "lang", "endpoint", "version", "level", "type",
    "method", "kind", "provider", "scheme", "scope", "scopes", "expiry", "expires", "limit", "max",
    "count", "ttl", "timeout", "at",
];

/// Values that stand where secrets do and are everybody's.
const STOP: [&str; 16] = [
    "password",
    "passwords",
    "changeme",
    "postgres",
    "dispatch",
    "localhost",
    "anonymous",
    "undefined",
    "disabled",
    "enabled",
    "required",
    "optional",
    "default",
    "keychain",
    "database",
    "username",
];

/// Shortest value that counts as a credential by its look alone.
pub(super) const RANDOM_CHARS_MIN: usize = 16;

/// How sure it is that a value is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Its name says so.
    Named,
    /// Only its look can.
    Look,
}

/// The value, if it is one.
pub(super) fn of_value(name: &str, value: &str, hint: Hint) -> Option<Secret> {
    let value = value.trim();
    let secret = match hint {
        Hint::Named => !is_open_value(value),
        Hint::Look => !is_open_value(value) && looks_random(value),
    };
    Secret::new(name, value).filter(|_| secret)
}

/// The words of a name: `OPENAI_API_KEY` and `openaiApiKey` have the same.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (lower && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        lower = c.is_ascii_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphanumeric()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

/// Whether a value of this name is one.
pub(super) fn is_telling(name: &str) -> bool {
    let sounds = |word: &String| {
        let one = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let one = one.strip_suffix('s').unwrap_or(one);
        TELLING.contains(&word.as_str()) || TELLING_ENDS.iter().any(|end| one.ends_with(end))
    };
    words_of(name).iter().any(sounds) && !is_open(name)
}

/// Whether a value of this name is none, however it looks.
pub(super) fn is_open(name: &str) -> bool {
    let words = words_of(name);
    let first = words.first().map_or("", String::as_str);
    let last = words.last().map_or("", String::as_str);
    OPEN.contains(&last) || first == "lc"
}

/// Whether everybody may know a value although its name sounds secret.
fn is_open_value(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_path = value.starts_with(['/', '~', '.'])
        && value.contains('/')
        && value
            .trim_start_matches('~')
            .split('/')
            .all(|part| part.chars().all(plain) && !looks_random(part));
    let is_figure = value.len() < RANDOM_CHARS_MIN
        && value
            .chars()
            .all(|c| c.is_ascii_digit() || "-:.+TZ ".contains(c));
    let is_date = value.len() >= 10
        && value.get(4..5) == Some("-")
        && value
            .chars()
            .all(|c| c.is_ascii_digit() || "-:.+TZ ".contains(c));
    let one = value.chars().next();
    STOP.contains(&value.to_ascii_lowercase().as_str())
        || is_path
        || is_figure
        || is_date
        || value.chars().all(|c| Some(c) == one)
        || (value.contains("://") && !value.contains(['@', '?']))
}

/// Whether it looks like nothing but a credential: a long part of letters and digits that alternate.
pub(super) fn looks_random(value: &str) -> bool {
    if value.len() < RANDOM_CHARS_MIN || value.contains(char::is_whitespace) {
        return false;
    }
    value
        .split(['-', '_', '.', ':', '/', '@', '=', '+'])
        .any(|part| {
            let kind = |c: char| (c.is_ascii_digit(), c.is_ascii_uppercase());
            let kinds: Vec<_> = part.chars().map(kind).collect();
            let turns = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let digits = part.chars().filter(char::is_ascii_digit).count();
            part.len() >= 12 && turns >= 3 && digits >= 2 && digits < part.len()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_names_are_told_from_others() {
        for name in [
            "OPENAI_API_KEY",
            "accessToken",
            "db.password",
            "GH_TOKEN",
            "--auth-token",
            "PGPASSWORD",
            "DBPASSWORD",
            "MYAPIKEY",
            "apikeys",
            "clientsecret",
            "DB_PASSWORD2",
        ] {
            assert!(is_telling(name), "{name}");
        }
        for name in [
            "KEYBOARD",
            "MONKEY",
            "TOKENIZERS_PARALLELISM",
            "selectedAuthType",
            "SSH_AUTH_SOCK",
            "PATH",
            "author",
            "PGPASSFILE",
            "secretary",
            "passwordless",
        ] {
            assert!(!is_telling(name), "{name}");
        }
    }

    #[test]
    fn what_everybody_may_know_is_no_secret() {
        for value in [
            "/run/user/1000/ssh-agent.sock",
            "~/.config/agent/auth.json",
            "https://api.example.com/v1",
            "2026-11-21T20:54:35Z",
            "1795294475",
            "********",
            "ChangeMe",
            "dispatch",
        ] {
            assert!(of_value("API_KEY", value, Hint::Named).is_none(), "{value}");
        }
        for value in [
            "claude-sonnet-4-5-20250929",
            "openai/gpt-5.1-codex-max",
            "a-long-name-of-a-project-in-words",
            "registry.example.com:5000/team",
        ] {
            assert!(of_value("X", value, Hint::Look).is_none(), "{value}");
        }
        for value in ["sk-ant-api03-aB3dE5fG7hI9jK1l", "AKIA4XZ7Q2M9T5RB8WLC"] {
            assert!(of_value("X", value, Hint::Look).is_some(), "{value}");
        }
    }
}
