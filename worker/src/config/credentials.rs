//! Where secrets are: in variables, connection strings, arguments and credential files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use serde_json::Value;

use super::agent_spec::AgentSpec;
use super::native_spec::NativeSpec;
use super::secret_file;
use super::secret_look::{Hint, RANDOM_CHARS_MIN, is_open, is_telling, looks_random, of_value};
use crate::domain::attempt::ExecutionPath;
use crate::domain::limits;
use crate::domain::redact::Secret;

/// The secrets in the environment of this process.
pub fn of_environment() -> Vec<Secret> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .flat_map(|(name, value)| {
            let url = of_url(&name, &value);
            let named = is_telling(&name).then(|| of_value(&name, &value, Hint::Named));
            url.into_iter().chain(named.flatten())
        })
        .collect()
}

/// A URL with a password, and the password, as it stands there and decoded. A user that looks like
/// nothing but a token is one: `https://TOKEN@host`.
pub fn of_url(name: &str, url: &str) -> Vec<Secret> {
    let Some((_, rest)) = url.split_once("://") else {
        return of_words(name, url);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user_info = authority.rsplit_once('@').map(|(user_info, _)| user_info);
    let (user, password) = match user_info.map(|info| info.split_once(':').ok_or(info)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    let in_query = rest.split(['?', '&']).skip(1).filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        is_telling(key).then_some(value)
    });
    let mut secrets = Vec::new();
    let user = user.filter(|user| looks_random(&decoded(user)));
    for value in user.into_iter().chain(password).chain(in_query) {
        secrets.extend(Secret::new(name, url));
        secrets.extend(of_value(name, value, Hint::Named));
        secrets.extend(of_value(name, &decoded(value), Hint::Named));
    }
    secrets
}

/// A connection string of words (`host=… password=…`).
fn of_words(name: &str, text: &str) -> Vec<Secret> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| is_telling(key))
        .flat_map(|(_, value)| {
            let value = value.trim_matches('\'');
            let meant = value.replace("\\'", "'").replace("\\\\", "\\");
            let meant = Some(meant).filter(|meant| meant != value);
            let written = of_value(name, value, Hint::Named);
            written
                .into_iter()
                .chain(meant.and_then(|meant| of_value(name, &meant, Hint::Named)))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match code.filter(|_| *byte == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The secrets that an agent gets by its entry: variables, arguments, files. Blocking: reads files.
pub fn of_agent(spec: &AgentSpec) -> Vec<Secret> {
    let allowed = spec.env_allow.iter().filter_map(|name| {
        // A file that cannot be read gives nothing away; that it cannot is said at the agent's start.
        let value = secret_file::variable(name).ok().flatten()?;
        Some((name.as_str(), value))
    });
    let literal = spec
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()));
    let mut secrets = Vec::new();
    for (name, value) in allowed.chain(literal) {
        secrets.extend(of_url(name, &value));
        if value.contains(['\n', '{']) {
            // A document in a variable: its parts count.
            secrets.extend(in_file(name, &value));
        }
        if is_telling(name) {
            secrets.extend(of_value(name, &value, Hint::Named));
        } else if !is_open(name) {
            secrets.extend(of_value(name, &value, Hint::Look));
        }
    }
    secrets.extend(of_arguments(&spec.command));
    if spec.path == ExecutionPath::Native {
        secrets.extend(of_native(&spec.native));
    }
    if let Some(home) = std::env::var_os("HOME") {
        // The operator's own files may be links to where they are kept.
        secrets.extend(in_files(spec, Path::new(&home), OFlag::empty()));
    }
    let public: HashSet<&str> = public_words(spec).collect();
    secrets.retain(|secret| !public.contains(secret.value()));
    secrets
}

/// Why a key that is named for an agent cannot be used: its file is not there, or it is named twice.
/// Blocking: reads files.
pub fn unusable(spec: &AgentSpec) -> Option<String> {
    let of_providers = spec
        .native
        .offered()
        // Every entry knows the providers; only the built-in agent asks them.
        .filter(|_| spec.path == ExecutionPath::Native)
        .filter_map(|one| one.api_key_env.as_deref());
    let mut names = spec
        .env_allow
        .iter()
        .map(String::as_str)
        .chain(of_providers);
    names.find_map(|name| secret_file::variable(name).err())
}

/// What the worker sends to the providers of a native agent, and what its MCP servers get.
fn of_native(native: &NativeSpec) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for provider in native.offered() {
        // One without a key tells no secret; that it has none is the probe's to say.
        if let Ok(Some(key)) = provider.key() {
            let name = provider.api_key_env.as_deref().unwrap_or(&provider.name);
            secrets.extend(of_value(name, key.value(), Hint::Named));
        }
        let headers = serde_json::json!(provider.headers);
        let extra = provider.extra_body.as_ref();
        for value in [&headers].into_iter().chain(extra) {
            leaves(&provider.name, value, Hint::Look, &mut secrets);
        }
    }
    for server in native.mcp.values() {
        leaves(
            "mcp",
            &serde_json::json!(server.env),
            Hint::Look,
            &mut secrets,
        );
        secrets.extend(of_arguments(&server.command));
    }
    secrets
}

/// What an entry itself names in the open: a value that is one of these is none.
fn public_words(spec: &AgentSpec) -> impl Iterator<Item = &str> {
    let lists = [&spec.models, &spec.modes, &spec.thinking_options];
    let single = [&spec.model, &spec.mode, &spec.thinking];
    lists
        .into_iter()
        .flatten()
        .chain(single.into_iter().flatten())
        .chain([&spec.name, &spec.label])
        .map(String::as_str)
}

/// `--api-key VALUE` and `--token=VALUE`.
fn of_arguments(command: &[String]) -> Vec<Secret> {
    let joined = command.iter().filter_map(|word| {
        let (flag, value) = word.strip_prefix("--")?.split_once('=')?;
        Some((flag, value))
    });
    let apart = command.windows(2).filter_map(|pair| match pair {
        [flag, value] if !value.starts_with('-') => {
            Some((flag.strip_prefix("--")?, value.as_str()))
        }
        _ => None,
    });
    joined
        .chain(apart)
        .filter(|(flag, value)| is_telling(flag) && !value.contains(['{', '}']))
        .filter_map(|(flag, value)| of_value(flag, value, Hint::Named))
        .collect()
}

/// The secrets in the entry's credential files as they lie in a HOME of its agent, who may have put
/// anything there: only what looks like nothing else is one, or the agent could have any word left
/// out of what is told of it. Blocking: reads files.
pub fn of_home(spec: &AgentSpec, home: &Path) -> Vec<Secret> {
    let mut secrets = in_files(spec, home, OFlag::O_NOFOLLOW);
    secrets.retain(|secret| looks_random(secret.value()));
    secrets
}

fn in_files(spec: &AgentSpec, home: &Path, flags: OFlag) -> Vec<Secret> {
    let texts = spec.home_files.iter().filter_map(|file| {
        let text = read(&home.join(file), flags).ok().flatten()?;
        Some((file.to_string_lossy(), text))
    });
    texts
        .flat_map(|(name, text)| in_file(&name, &text))
        .collect()
}

/// A plain file; nothing is waited for, or read without bound.
fn read(path: &Path, flags: OFlag) -> io::Result<Option<String>> {
    let file = File::options()
        .read(true)
        .custom_flags((flags | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(limits::SECRET_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The secrets in a credential file: JSON, TOML, or lines (YAML, `.env`, netrc, keys).
pub fn in_file(name: &str, text: &str) -> Vec<Secret> {
    let document = serde_json::from_str::<Value>(text)
        .ok()
        .or_else(|| toml::from_str::<Value>(text).ok());
    let mut secrets = Vec::new();
    match document.filter(|d| d.is_object() || d.is_array()) {
        Some(document) => leaves(name, &document, Hint::Look, &mut secrets),
        None => lines(name, text, &mut secrets),
    }
    secrets
}

fn leaves(name: &str, value: &Value, hint: Hint, secrets: &mut Vec<Secret>) {
    match value {
        Value::String(text) => {
            secrets.extend(of_url(name, text));
            secrets.extend(of_value(name, text, hint));
            if text.contains('\n') {
                lines(name, text, secrets);
            }
        }
        Value::Array(values) => {
            for value in values {
                leaves(name, value, hint, secrets);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                // What a telling name stands over is named, not what is deeper below.
                let hint = if is_telling(key) {
                    Hint::Named
                } else {
                    Hint::Look
                };
                leaves(name, value, hint, secrets);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lines(name: &str, text: &str, secrets: &mut Vec<Secret>) {
    let mut in_key = false;
    let mut filled = text.lines().filter(|line| !line.trim().is_empty());
    // A file that is nothing but one word is a token.
    if let (Some(only), None) = (filled.next(), filled.next())
        && !only.trim().contains(char::is_whitespace)
        && !only.contains(['=', ':'])
    {
        secrets.extend(of_value(name, only, Hint::Named));
        return;
    }
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----") {
            in_key = line.starts_with("-----BEGIN") && line.contains("PRIVATE");
            continue;
        }
        if in_key {
            secrets.extend(Secret::new(name, line).filter(|_| line.len() >= RANDOM_CHARS_MIN));
            continue;
        }
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let (key, glued) = word
                .split_once(['=', ':'])
                .map_or((word, None), |(key, value)| (key, Some(value)));
            let key = key.trim_matches(['"', '\'', '-']);
            let value = glued.filter(|value| !value.is_empty());
            // `password = x`, `password: x`, `password x`.
            let apart = || words.clone().find(|word| !matches!(*word, "=" | ":"));
            if is_telling(key)
                && let Some(value) = value.or_else(apart)
            {
                secrets.extend(of_value(name, unquoted(value), Hint::Named));
            }
            secrets.extend(of_value(name, unquoted(value.unwrap_or(word)), Hint::Look));
            if word.contains("://") {
                secrets.extend(of_url(name, unquoted(word)));
            }
        }
    }
}

fn unquoted(value: &str) -> &str {
    value.trim_matches(['"', '\'', ',', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let secrets = in_file(name, text);
        secrets.iter().map(|s| s.value().to_owned()).collect()
    }

    #[test]
    fn credential_files_give_their_secrets_and_nothing_else() {
        let json = r#"{"tokens": {"access_token": "at-abcdefgh", "account": "ada lovelace"},
            "expires_at": 1795294475, "model": "gpt-5-codex", "list": [{"secret": "listed-one"}],
            "id": "Zk3x9Qw7Lm2p8Rt5"}"#;
        assert_eq!(
            found("auth.json", json),
            ["at-abcdefgh", "listed-one", "Zk3x9Qw7Lm2p8Rt5"]
        );
        let toml = "model = \"gpt-5-codex\"\n[mcp.x]\napi_key = \"toml-value\"\n";
        assert_eq!(found("config.toml", toml), ["toml-value"]);
        let yaml =
            "github.com:\n    user: ada\n    oauth_token: yaml-value\n    git_protocol: https\n";
        assert_eq!(found("hosts.yml", yaml), ["yaml-value"]);
        let dotenv = "# settings\nexport API_KEY='dotenv-value'\nDEBUG=true\n";
        assert_eq!(found(".env", dotenv), ["dotenv-value"]);
        let netrc = "machine example.com\nlogin ada\npassword netrc-value\n";
        assert_eq!(found(".netrc", netrc), ["netrc-value"]);
        assert_eq!(found("token", "only-one-word\n"), ["only-one-word"]);
        let pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
        assert_eq!(found("id", pem), ["b3BlbnNzaC1rZXktdjEAAAAA"]);
    }

    #[test]
    fn an_agent_makes_no_secret_of_words_in_its_home() {
        let text = "[agents.a]\npath = \"pipe\"\ncommand = [\"a\", \"{prompt}\"]\nhome_files = [\"auth.json\"]\n";
        let catalogue = crate::config::agents::Catalogue::parse(text).unwrap();
        let home = tempfile::tempdir().unwrap();
        let tokens = r#"{"token": "was left out: it is absolute", "secret": "left-out-because",
            "password": "/etc/passwd-and-others", "refresh_token": "rt-Zk3x9Qw7Lm2p8Rt5"}"#;
        std::fs::write(home.path().join("auth.json"), tokens).unwrap();
        let secrets = of_home(&catalogue.agents["a"], home.path());
        let values: Vec<&str> = secrets.iter().map(Secret::value).collect();
        assert_eq!(values, ["rt-Zk3x9Qw7Lm2p8Rt5"]);
    }

    #[test]
    fn a_providers_key_is_taken_out_of_the_events_of_a_native_agent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "correct horse\n").unwrap();
        let text = format!(
            "[providers.p]\napi = \"openai\"\napi_key_file = {file:?}\n\
             headers = {{ X-Gateway-Token = \"of-the-gateway\" }}\n\
             [agents.n]\npath = \"native\"\n\
             [agents.n.native.mcp.s]\ncommand = [\"s\", \"--token=of-the-server\"]\n\
             [agents.other]\npath = \"acp\"\ncommand = [\"a\"]\n"
        );
        let catalogue = crate::config::agents::Catalogue::parse(&text).unwrap();
        let redactor = || crate::domain::redact::Redactor::new(of_agent(&catalogue.agents["n"]));
        let said = "sk-of-provider of-the-gateway of-the-server";
        let mut event = serde_json::json!({ "text": said });
        redactor().clean_value(&mut event);
        assert_eq!(event["text"], "sk-of-provider [secret p] [secret token]");
        std::fs::write(&file, "sk-of-provider\n").unwrap();
        let mut event = serde_json::json!({ "text": said });
        redactor().clean_value(&mut event);
        assert_eq!(event["text"], "[secret p] [secret p] [secret token]");
        assert!(of_agent(&catalogue.agents["other"]).is_empty());
    }

    #[test]
    fn urls_give_their_passwords() {
        let url = "postgres://ada:p%40ss-word%21@db.example.com:5432/d?sslmode=require";
        let secrets = of_url("DATABASE_URL", url);
        let values: Vec<&str> = secrets.iter().map(Secret::value).collect();
        assert_eq!(values, [url, "p%40ss-word%21", "p@ss-word!"]);
        assert!(of_url("X", "postgres://ada@db/d").is_empty());
        for url in [
            "https://ghp_aB3dE5fG7hI9jK1lM2nO@github.com/a/b",
            "https://ghp_aB3dE5fG7hI9jK1lM2nO:x-oauth-basic@github.com/a",
        ] {
            let secrets = of_url("X", url);
            let found = secrets
                .iter()
                .any(|s| s.value() == "ghp_aB3dE5fG7hI9jK1lM2nO");
            assert!(found, "{url}");
        }
        assert!(of_url("X", "https://git@github.com/a/b").is_empty());
        let words = of_url("X", "host=db user=ada password=in-words");
        assert_eq!(
            words.iter().map(Secret::value).collect::<Vec<_>>(),
            ["in-words"]
        );
    }

    #[test]
    fn arguments_with_telling_flags_count() {
        let command = [
            "agent",
            "--api-key",
            "first-value",
            "--token=second-value",
            "--auth",
            "{prompt}",
        ];
        let secrets = of_arguments(&command.map(str::to_owned));
        let values: Vec<&str> = secrets.iter().map(Secret::value).collect();
        assert_eq!(values, ["second-value", "first-value"]);
    }
}
