//! Logs and metrics of a process: text for people at a terminal, JSON for collectors. No line holds
//! a known secret, or a character that a terminal would act on.

use std::backtrace::BacktraceStatus;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::domain::redact::{Redactor, Secret};
use crate::domain::{limits, safe_text};

pub mod figures;
mod traces;

pub use traces::finish;

/// Upper edges of the histograms of durations, in seconds: from a statement to an attempt.
const SECONDS: [f64; 14] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0,
];

/// How often samples become the figures that are shown.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);

/// What a process logs when nobody says what it shall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual {
    /// What it goes through: it runs for long, and nobody sits before it.
    Milestones,
    /// What goes wrong: its answer tells the rest.
    Faults,
}

/// Start logging to standard error. `format` is `text` or `json`; absent: text at a terminal,
/// JSON elsewhere. `DISPATCH_LOG` (else `RUST_LOG`) is the filter; a second call does nothing.
/// Unless asked for, genai is not heard, which logs what a provider sent, nor what rmcp has to say of a
/// refusal: each fault is told by us.
pub fn init(format: Option<&str>, usual: Usual) {
    let usual = match usual {
        Usual::Milestones => "warn,dispatch_worker=info,genai=off,rmcp=error",
        Usual::Faults => "warn,genai=off,rmcp=error",
    };
    let filter = ["DISPATCH_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| usual.to_owned());
    let filter = EnvFilter::builder().parse_lossy(filter);
    let json = match format {
        Some(format) => format == "json",
        None => !std::io::stderr().is_terminal(),
    };
    let form = if json { Form::Json } else { Form::Text };
    // A panic quotes what it stumbled over: it is told as everything else is.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        tracing::error!(backtrace, "{panic}");
    }));
    let lines = fmt::layer().with_writer(move || Careful { form });
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        let colour = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        lines.with_ansi(colour).with_target(false).boxed()
    };
    let (traces, fault) = match traces::layer() {
        Ok(layer) => (layer, None),
        Err(fault) => (None, Some(fault)),
    };
    // Somebody, such as a test, may have installed a subscriber already.
    let _installed = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces)
        .try_init();
    if let Some(fault) = fault {
        tracing::warn!(fault, "traces are off: the settings OTEL_* cannot be used");
    }
}

/// Secrets of this process and of the agents it runs, for its log.
static SECRETS: LogSecrets = LogSecrets::new();

/// Leave these secrets out of the log from now on. Blocking: making the search takes a moment.
pub fn keep_out(secrets: &[Secret]) {
    SECRETS.add(Origin::Given, secrets);
}

/// The same for secrets that an agent made during its turn.
pub fn keep_out_renewed(secrets: &[Secret]) {
    SECRETS.add(Origin::Renewed, secrets);
}

/// A message for people without the secrets that this process knows.
pub fn without_secrets(text: &str) -> String {
    SECRETS.redactor().text(text).into_owned()
}

/// Who says that something is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The operator: environment, catalogue, credential files.
    Given,
    /// An agent.
    Renewed,
}

/// Secrets that grow while lines are written.
struct LogSecrets {
    /// What there is, the newest first. Held from reading to writing, so that none is lost.
    all: Mutex<Gathered>,
    /// The search for it, which no line waits for.
    redactor: RwLock<Option<Redactor>>,
}

struct Gathered {
    given: Vec<Secret>,
    renewed: Vec<Secret>,
}

impl LogSecrets {
    const fn new() -> Self {
        Self {
            all: Mutex::new(Gathered {
                given: Vec::new(),
                renewed: Vec::new(),
            }),
            redactor: RwLock::new(None),
        }
    }

    fn add(&self, origin: Origin, secrets: &[Secret]) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match origin {
            Origin::Given => &mut all.given,
            Origin::Renewed => &mut all.renewed,
        };
        let is_new = |secret: &&Secret| known.iter().all(|k| k.value() != secret.value());
        let new: Vec<Secret> = secrets.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return;
        }
        // When tokens are renewed for weeks, the oldest are forgotten; those of the operator never
        // for what agents make up.
        known.splice(..0, new);
        known.truncate(limits::SECRETS_MAX);
        let fresh = Redactor::new(all.given.iter().chain(&all.renewed).cloned());
        let mut redactor = self
            .redactor
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *redactor = Some(fresh);
    }

    fn redactor(&self) -> Redactor {
        let known = self.redactor.read().unwrap_or_else(PoisonError::into_inner);
        known.clone().unwrap_or_default()
    }
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
        io::stderr().write_all(careful(self.form, &SECRETS.redactor(), line).as_bytes())?;
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
            let recorder = built
                .and_then(PrometheusBuilder::install_recorder)
                .inspect_err(|error| tracing::warn!(%error, "metrics are off"))
                .ok();
            figures::spans_lost(0);
            recorder
        })
        .clone()
}

/// Keep what was measured small until stopped: samples pile up while nobody asks for the metrics.
pub async fn keep_small(stop: CancellationToken) {
    let Some(metrics) = metrics() else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(UPKEEP_EVERY) => metrics.run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_come_at_once_are_all_kept_out() {
        let log = LogSecrets::new();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (log, together) = (&log, &together);
                scope.spawn(move || {
                    let secret = Secret::new("KEY", &format!("canary-{n}-0123456789")).unwrap();
                    together.wait();
                    log.add(Origin::Given, &[secret]);
                });
            }
        });
        for n in 0..8 {
            let value = format!("canary-{n}-0123456789");
            assert_eq!(log.redactor().text(&value), "[secret KEY]");
        }
    }

    #[test]
    fn what_an_agent_makes_up_does_not_displace_what_the_operator_gave() {
        let log = LogSecrets::new();
        let secret = |value: &str| Secret::new("KEY", value).unwrap();
        log.add(Origin::Given, &[secret("canary-0123456789")]);
        log.add(Origin::Renewed, &[secret("made-up-0123456789")]);
        log.add(Origin::Renewed, &[secret("made-up-later-0123")]);
        let redactor = log.redactor();
        let values: Vec<&str> = redactor.secrets().iter().map(Secret::value).collect();
        assert_eq!(
            values,
            [
                "canary-0123456789",
                "made-up-later-0123",
                "made-up-0123456789"
            ],
            "what is too many is cut off at the end"
        );
    }

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
