//! Traces for a collector, by OTLP over HTTP: on only when `OTEL_EXPORTER_OTLP_ENDPOINT` (or the one of
//! traces) is set. What is sent are the spans of this program: ids, names and times; no log line, no
//! prompt, no output. A collector that is slow or away costs spans, never time: they wait in a bounded
//! queue, a thread of its own sends them, and what is lost is counted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, StringValue, Value};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

use super::SECRETS;
use crate::domain::limits;
use crate::domain::redact::Secret;

/// Either names the collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Both carry credentials.
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// What is ended with the process.
static PROVIDER: Mutex<Option<SdkTracerProvider>> = Mutex::new(None);

/// The layer that makes spans of ours into spans of a trace. `None`: nobody collects them. The error is
/// for people.
pub(super) fn layer<S>() -> Result<Option<impl Layer<S>>, String>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value == "true");
    if off || !ENDPOINTS.iter().any(|name| set(name)) {
        return Ok(None);
    }
    super::keep_out(&header_secrets());
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new()?)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder();
    let resource = match set("OTEL_SERVICE_NAME") {
        true => resource,
        false => resource.with_service_name("dispatch"),
    };
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.with_attribute(version).build())
        .with_batch_exporter(Careful {
            inner: exporter,
            failing: AtomicBool::new(false),
        })
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("dispatch"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    *PROVIDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider);
    let ours = FilterFn::new(|meta: &tracing::Metadata<'_>| {
        meta.is_span() && meta.target().starts_with("dispatch_worker")
    });
    Ok(Some(
        layer.with_filter(ours.with_max_level_hint(LevelFilter::INFO)),
    ))
}

/// Send what waits, within a bound. Blocking: for the end of the process, while its runtime still runs.
pub fn finish() {
    let provider = PROVIDER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(provider) = provider
        && let Err(error) = provider.shutdown_with_timeout(limits::TRACES_FLUSH_MAX)
    {
        tracing::warn!(%error, "the last spans did not reach the collector");
    }
}

/// The values of `name=value,name=value`.
fn header_secrets() -> Vec<Secret> {
    let lists = HEADERS.iter().filter_map(|name| std::env::var(name).ok());
    let secrets = lists.flat_map(|list| {
        let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
        let values = pairs.map(|(_, value)| value.trim().to_owned());
        values.collect::<Vec<_>>()
    });
    secrets
        .filter_map(|value| Secret::new("OTEL_EXPORTER_OTLP_HEADERS", &value))
        .collect()
}

/// Sends what holds no secret and nothing long.
#[derive(Debug)]
struct Careful<E> {
    inner: E,
    failing: AtomicBool,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter
    for Careful<E>
{
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let redactor = SECRETS.redactor();
        for span in &mut batch {
            for attribute in &mut span.attributes {
                if let Value::String(text) = &attribute.value {
                    let most = limits::SPAN_TEXT_CHARS_MAX;
                    let safe = redactor.head_chars(text.as_str(), most).into_owned();
                    attribute.value = Value::String(StringValue::from(safe));
                }
            }
        }
        let spans = batch.len() as u64;
        let sent = self.inner.export(batch).await;
        let failed = sent.is_err();
        if failed {
            super::figures::spans_lost(spans);
        }
        let failed_before = self.failing.swap(failed, Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the collector of traces does not take spans; they are lost until it does");
            }
            Ok(()) if failed_before => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&mut self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The HTTP client that is here anyway, for the exporter's thread, which has no runtime.
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn new() -> Result<Self, String> {
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A certificate of the system that rustls cannot read verifies nothing.
            let _unreadable = roots.add(certificate);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limits::TRACES_EXPORT_MAX)
            .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http, runtime })
    }
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'client, 'sent>(&'client self, request: Request<Bytes>) -> Sent<'sent>
    where
        'client: 'sent,
        Self: 'sent,
    {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request.try_into()?).await?;
            let status = answer.status();
            // The body says nothing that is needed, and could be long.
            Ok::<_, reqwest::Error>(status)
        });
        Box::pin(async move {
            let status = sending.await??;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            Ok(response)
        })
    }
}
