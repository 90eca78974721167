//! Logs and metrics of a process: text for people at a terminal, JSON for collectors.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

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
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Somebody, such as a test, may have installed a subscriber already.
    let _installed = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        let colour = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        lines.with_ansi(colour).with_target(false).try_init()
    };
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
