//! `[providers.NAME]` of agents.toml: how it is written, and which settings make sense together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::agent_check::{ENV_FORBIDDEN, check_name};
use super::agent_entry::At;
use super::agents::CatalogueError;
use super::native_spec::{Api, ModelSpec, ProviderSpec};

/// Headers that carry the key, which are the client's to write.
const HEADERS_OF_KEYS: [&str; 3] = ["authorization", "x-api-key", "x-goog-api-key"];

/// Most that providers take as a temperature.
const TEMPERATURE_MAX: f64 = 2.0;

/// The key in question and what is wrong with it.
type Fault = (&'static str, String);

/// A provider as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderEntry {
    api: Option<Api>,
    base_url: Option<String>,
    api_key_env: Option<String>,
    api_key_file: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    extra_body: Option<toml::Table>,
    max_concurrent: Option<u32>,
    enabled: Option<bool>,
    default_model: Option<String>,
    #[serde(default)]
    models: BTreeMap<String, ModelSpec>,
}

impl ProviderEntry {
    /// The provider, checked.
    pub(super) fn resolve(
        self,
        at: &At<'_>,
        config_dir: &Path,
    ) -> Result<ProviderSpec, CatalogueError> {
        check_name(at.name).map_err(|message| at.error("name", message))?;
        self.checked(at.name, config_dir)
            .map_err(|(key, message)| at.error(key, message))
    }

    fn checked(self, name: &str, config_dir: &Path) -> Result<ProviderSpec, Fault> {
        let Some(api) = self.api else {
            let known = "openai, openai-responses, anthropic, gemini or ollama";
            return Err(("api", format!("is missing; write {known}")));
        };
        let key = self.api_key_env.is_some() || self.api_key_file.is_some();
        let sends = if key { Sends::Key } else { Sends::NoKey };
        let base_url = self.base_url.as_deref().unwrap_or(api.base_url());
        let base_url = check_url(base_url, sends).map_err(|message| ("base_url", message))?;
        if let Some(variable) = &self.api_key_env {
            check_variable(variable).map_err(|message| ("api_key_env", message))?;
        }
        let api_key_file = self.api_key_file.map(|file| key_file(&file, config_dir));
        check_headers(&self.headers)?;
        if self.max_concurrent == Some(0) {
            let message = "must be at least 1; use enabled = false to switch a provider off";
            return Err(("max_concurrent", message.to_owned()));
        }
        let model_names = self.models.keys().chain(&self.default_model);
        for model in model_names {
            check_model_name(model)?;
        }
        for (model, spec) in &self.models {
            check_model(model, spec)?;
        }
        let extra_body = self
            .extra_body
            .map(|table| json_of(toml::Value::Table(table)));
        Ok(ProviderSpec {
            name: name.to_owned(),
            api,
            base_url,
            api_key_env: self.api_key_env,
            api_key_file: api_key_file.transpose()?,
            headers: self.headers,
            extra_body: extra_body
                .transpose()
                .map_err(|message| ("extra_body", message))?,
            max_concurrent: self.max_concurrent,
            enabled: self.enabled.unwrap_or(true),
            default_model: self.default_model,
            models: self.models,
        })
    }
}

/// Whether requests carry a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    Key,
    NoKey,
}

/// The URL with a slash at its end, below which the client finds its paths. No message repeats it:
/// it may hold a password.
fn check_url(text: &str, sends: Sends) -> Result<String, String> {
    let mut url = Url::parse(text).map_err(|error| {
        format!("is no URL ({error}); write one such as \"https://api.openai.com/v1/\"")
    })?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err("must begin with https:// (or http:// for a server of yours)".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("may not hold a name or a password; use api_key_env".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("may not hold a query or a fragment: paths are put behind it".to_owned());
    }
    if url.scheme() == "http" && sends == Sends::Key && !is_loopback(&url) {
        let message = "would send the key over the network in the clear; use https, or no key";
        return Err(message.to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url.into())
}

/// Whether what is sent there stays on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl ProviderSpec {
    /// Host and port of its server.
    pub fn address(&self) -> Option<(String, u16)> {
        let url = Url::parse(&self.base_url).ok()?;
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some((host, url.port_or_known_default()?))
    }

    /// Whether its server is on this machine.
    pub fn is_local(&self) -> bool {
        Url::parse(&self.base_url).is_ok_and(|url| is_loopback(&url))
    }
}

/// No message repeats it: people put the key itself there.
fn check_variable(name: &str) -> Result<(), String> {
    if ENV_FORBIDDEN.contains(&name) {
        return Err(format!("{name} holds no key of a provider"));
    }
    let mut letters = name.chars();
    let head = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if head && letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err("is the name of a variable, such as OPENAI_API_KEY, and never the key itself".to_owned())
}

fn key_file(file: &str, config_dir: &Path) -> Result<std::path::PathBuf, Fault> {
    if !file.starts_with('/') && !file.starts_with("{config_dir}/") {
        let message = format!("{file} must be absolute or begin with {{config_dir}}/");
        return Err(("api_key_file", message));
    }
    Ok(file
        .replace("{config_dir}", &config_dir.to_string_lossy())
        .into())
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Fault> {
    for (name, value) in headers {
        let fault = |message: &str| Err(("headers", format!("`{name}` {message}")));
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return fault("is no name of a header");
        }
        if HEADERS_OF_KEYS.contains(&name.to_ascii_lowercase().as_str()) {
            return fault("carries the key: use api_key_env or api_key_file");
        }
        if HeaderValue::from_str(value).is_err() {
            return fault("has a value with characters that no header may hold");
        }
    }
    Ok(())
}

fn check_model_name(name: &str) -> Result<(), Fault> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(());
    }
    let message =
        format!("{name:?} is no name of a model: it is one word, as the provider writes it");
    Err(("models", message))
}

fn check_model(name: &str, spec: &ModelSpec) -> Result<(), Fault> {
    let fault = |what: &str| Err(("models", format!("`{name}`: {what}")));
    if spec.context_window == Some(0) || spec.max_output_tokens == Some(0) {
        return fault(
            "context_window and max_output_tokens are at least 1; leave out what is unknown",
        );
    }
    let sane = |degrees: f64| (0.0..=TEMPERATURE_MAX).contains(&degrees);
    if !spec.temperature.is_none_or(sane) {
        return fault("temperature is between 0 and 2");
    }
    Ok(())
}

/// TOML has dates and infinities, JSON has none.
fn json_of(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("{number} cannot be written as JSON"))?,
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => {
            return Err(format!(
                "{time} cannot be written as JSON; write it as a text"
            ));
        }
        toml::Value::Array(values) => {
            let values: Result<Vec<Value>, String> = values.into_iter().map(json_of).collect();
            values?.into()
        }
        toml::Value::Table(table) => {
            let members = table
                .into_iter()
                .map(|(key, value)| Ok((key, json_of(value)?)));
            Value::Object(members.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    fn parsed(rest: &str) -> Result<Catalogue, String> {
        let text = format!("\n[providers.p]\n{rest}\n");
        Catalogue::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_of_a_provider_is_read() {
        let catalogue = parsed(
            "api = \"openai\"\nbase_url = \"https://llm.example/v1\"\napi_key_env = \"P_KEY\"\n\
             api_key_file = \"{config_dir}/p.key\"\nheaders = { X-Title = \"dispatch\" }\n\
             extra_body = { provider = { sort = \"price\", tries = [1, 2.5, true] } }\n\
             max_concurrent = 3\nenabled = false\ndefault_model = \"maker/large\"\n\
             models = { \"maker/large\" = { context_window = 200000, max_output_tokens = 8000, \
             efforts = [\"low\", \"xhigh\"], temperature = 0.5 } }",
        );
        let catalogue = catalogue.unwrap();
        let provider = &catalogue.providers["p"];
        assert_eq!((provider.name.as_str(), provider.api), ("p", Api::Openai));
        assert_eq!(provider.base_url, "https://llm.example/v1/");
        assert_eq!(provider.api_key_env.as_deref(), Some("P_KEY"));
        assert_eq!(provider.api_key_file.as_deref(), Some(Path::new("./p.key")));
        assert_eq!(provider.headers["X-Title"], "dispatch");
        let extra = serde_json::json!({ "provider": { "sort": "price", "tries": [1, 2.5, true] } });
        assert_eq!(provider.extra_body, Some(extra));
        assert_eq!(
            (provider.max_concurrent, provider.enabled),
            (Some(3), false)
        );
        assert_eq!(provider.known_models().collect::<Vec<_>>(), ["maker/large"]);
        let model = &provider.models["maker/large"];
        assert_eq!(
            (model.context_window, model.efforts.len()),
            (Some(200_000), 2)
        );
    }

    #[test]
    fn the_usual_address_of_each_api_is_where_its_client_begins_its_paths() {
        for (api, url) in [
            ("openai", "https://api.openai.com/v1/"),
            ("openai-responses", "https://api.openai.com/v1/"),
            ("anthropic", "https://api.anthropic.com/v1/"),
            (
                "gemini",
                "https://generativelanguage.googleapis.com/v1beta/",
            ),
            ("ollama", "http://localhost:11434/"),
        ] {
            let catalogue = parsed(&format!("api = \"{api}\"")).unwrap();
            assert_eq!(catalogue.providers["p"].base_url, url);
        }
    }

    #[test]
    fn a_key_goes_in_the_clear_to_this_machine_only() {
        let at =
            |url: &str, key: &str| parsed(&format!("api = \"openai\"\nbase_url = {url:?}\n{key}"));
        for local in [
            "http://localhost:1/v1",
            "http://127.0.0.9:1",
            "http://[::1]:1/v1",
        ] {
            assert!(at(local, "api_key_env = \"K\"").is_ok(), "{local}");
        }
        for far in [
            "http://llm.example/v1",
            "http://10.0.0.1/",
            "http://localhost.example/",
        ] {
            let error = at(far, "api_key_env = \"K\"").unwrap_err();
            assert!(
                error.contains("line 2, providers.p.base_url") && error.contains("https"),
                "{error}"
            );
            assert!(at(far, "api_key_file = \"/k\"").is_err());
            assert!(at(far, "").is_ok(), "{far}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line_and_key() {
        for (rest, key, hint) in [
            ("", "api", "anthropic"),
            (
                "api = \"openai\"\nbase_url = \"ftp://x/\"",
                "base_url",
                "https://",
            ),
            ("api = \"openai\"\nbase_url = \"x\"", "base_url", "no URL"),
            (
                "api = \"openai\"\nbase_url = \"https://x/?a=1\"",
                "base_url",
                "query",
            ),
            (
                "api = \"openai\"\napi_key_env = \"DATABASE_URL\"",
                "api_key_env",
                "no key",
            ),
            (
                "api = \"openai\"\napi_key_file = \"k\"",
                "api_key_file",
                "{config_dir}/",
            ),
            (
                "api = \"openai\"\nheaders = { authorization = \"x\" }",
                "headers",
                "api_key_env",
            ),
            (
                "api = \"openai\"\nheaders = { X-Api-Key = \"x\" }",
                "headers",
                "api_key_env",
            ),
            (
                "api = \"openai\"\nheaders = { \"a b\" = \"x\" }",
                "headers",
                "no name",
            ),
            (
                "api = \"openai\"\nheaders = { a = \"x\\ny\" }",
                "headers",
                "characters",
            ),
            (
                "api = \"openai\"\nextra_body = { a = nan }",
                "extra_body",
                "JSON",
            ),
            (
                "api = \"openai\"\nextra_body = { a = 2026-01-01 }",
                "extra_body",
                "text",
            ),
            (
                "api = \"openai\"\nmax_concurrent = 0",
                "max_concurrent",
                "enabled",
            ),
            (
                "api = \"openai\"\ndefault_model = \"\"",
                "models",
                "one word",
            ),
            (
                "api = \"openai\"\nmodels = { a = { context_window = 0 } }",
                "models",
                "at least 1",
            ),
            (
                "api = \"openai\"\nmodels = { a = { temperature = 3.0 } }",
                "models",
                "between",
            ),
        ] {
            let error = parsed(rest).unwrap_err();
            let place = format!("line 2, providers.p.{key}:");
            assert!(
                error.contains(&place) && error.contains(hint),
                "{rest}: {error}"
            );
        }
        let error = Catalogue::parse("[providers.P]\napi = \"openai\"\n").unwrap_err();
        assert!(error.to_string().contains("lower-case"));
    }

    #[test]
    fn keys_and_words_that_nobody_knows_are_refused_with_those_that_are_known() {
        for (rest, what) in [
            ("api = \"openai\"\ncolour = \"red\"", "colour"),
            ("api = \"mistral\"", "openai-responses"),
            (
                "api = \"openai\"\nmodels = { a = { efforts = [\"hard\"] } }",
                "xhigh",
            ),
        ] {
            let error = parsed(rest).unwrap_err();
            assert!(error.contains("line") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn no_error_and_no_view_repeats_a_secret() {
        for rest in [
            "api = \"openai\"\nbase_url = \"https://ada:s3cret@llm.example/\"",
            "api = \"openai\"\napi_key_env = \"sk-s3cret\"",
            "api = \"openai\"\nheaders = { authorization = \"s3cret\" }",
        ] {
            let error = parsed(rest).unwrap_err();
            assert!(
                error.contains("line 2") && !error.contains("s3cret"),
                "{error}"
            );
        }
        let text = "api = \"openai\"\nheaders = { X-Gate = \"s3cret\" }\nextra_body = { user = \"s3cret\" }\n\
                    [agents.n]\npath = \"native\"\n\
                    [agents.n.native.mcp.s]\ncommand = [\"s\"]\nenv = { A = \"s3cret\" }";
        let catalogue = parsed(text).unwrap();
        let shown = catalogue.agents["n"].describe().to_string();
        assert!(shown.contains("X-Gate") && shown.contains("user") && !shown.contains("s3cret"));
        assert!(
            !catalogue.providers["p"]
                .describe()
                .to_string()
                .contains("s3cret")
        );
    }
}
