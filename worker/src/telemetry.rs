//! Logs and metrics of a process: text for people at a terminal, JSON for collectors. No line holds
//! a known secret, or a character that a terminal would act on.

use std::backtrace::BacktraceStatus;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{OnceLock, PoisonError, RwLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::domain::redact::{Redactor, Secret};
use crate::domain::{limits, safe_text};

/// Upper edges of the histograms of durations, in seconds: from a statement to an attempt.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0,
];

/// Start logging to standard error. `format` is `text` or `json`; absent: text at a terminal,
/// JSON elsewhere. `DISPATCH_LOG` (else `RUST_LOG`) is the filter; a second call does nothing.
pub fn init(format: Option<&str>) {
    let filter = ["DISPATCH_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| "warn,dispatch_worker=info".to_owned());
    let filter = EnvFilter::builder().parse_lossy(filter);
    let json = match format {
        Some(format) => format == "json",
        None => !std::io::stderr().is_terminal(),
    };
    let form = if json { Form::Json } else { Form::Text };
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(move || Careful { form });
    // A panic quotes what it stumbled over: it is told as everything else is.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        tracing::error!(backtrace, "{panic}");
    }));
    // Somebody, such as a test, may have installed a subscriber already.
    let _installed = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        let colour = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        lines.with_ansi(colour).with_target(false).try_init()
    };
}

/// Secrets of this process and of the agents it runs, for its log.
static SECRETS: RwLock<Option<Redactor>> = RwLock::new(None);

/// Leave these secrets out of the log from now on.
pub fn keep_out(secrets: &[Secret]) {
    let known = secrets_known();
    let new = || secrets.iter().filter(|secret| !known.knows(secret));
    if new().next().is_none() {
        return;
    }
    // The newest first: when tokens are renewed for weeks, the oldest are forgotten.
    let all = new().chain(known.secrets()).cloned();
    let fresh = Redactor::new(all.take(limits::SECRETS_MAX));
    *SECRETS.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
}

/// A message for people without the secrets that this process knows.
pub fn without_secrets(text: &str) -> String {
    secrets_known().text(text).into_owned()
}

fn secrets_known() -> Redactor {
    let known = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    known.clone().unwrap_or_default()
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Standard error, for one line at a time: a subscriber hands over whole lines.
struct Careful {
    form: Form,
}

impl Write for Careful {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(careful(self.form, &secrets_known(), line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn careful(form: Form, secrets: &Redactor, line: &[u8]) -> String {
    let line: Cow<'_, str> = String::from_utf8_lossy(line);
    let line = secrets.text(&line);
    match form {
        Form::Text => safe_text::log_line(&line),
        Form::Json => safe_text::json(&line),
    }
}

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Install the recorder of metrics, once for the process; `None` when another one is installed.
pub fn metrics() -> Option<PrometheusHandle> {
    METRICS
        .get_or_init(|| {
            let built = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
            built
                .and_then(PrometheusBuilder::install_recorder)
                .inspect_err(|error| tracing::warn!(%error, "metrics are off"))
                .ok()
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_holds_no_secret_and_no_control() {
        let redactor = Redactor::new(Secret::new("API_KEY", "canary/\"0123456789"));
        let text = b"\x1b[31mERROR\x1b[0m it said canary/\"0123456789 \x1b]0;t\x07\n";
        assert_eq!(
            careful(Form::Text, &redactor, text),
            "\x1b[31mERROR\x1b[0m it said [secret API_KEY] ␛]0;t␇\n"
        );
        let said = "canary/\"0123456789 \u{9b}31m\u{202e}";
        let json = format!("{}\n", serde_json::json!({ "message": said }));
        assert_eq!(
            careful(Form::Json, &redactor, json.as_bytes()),
            "{\"message\":\"[secret API_KEY] \\u009b31m\\u202e\"}\n"
        );
    }
}
