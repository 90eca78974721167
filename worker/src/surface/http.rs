//! HTTP, derived from the list of operations.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, on};
use axum::{Json, Router};
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::auth::{Caller, Gate};
use super::fields::Fields;
use super::problem::{self, Problem};
use super::traffic::Held;
use super::{health, openapi, sse};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::ops::{self, Effect, Method, OpContext, OpEntry, OpError};

/// Where the operations are.
pub const PREFIX: &str = "/api/v1";

/// After the signal to stop, answers under way may take so long.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What the server works with.
pub struct App {
    /// What operations work with.
    pub context: OpContext,
    /// Who may call.
    pub gate: Arc<Gate>,
    /// The metrics of the process.
    pub metrics: Option<PrometheusHandle>,
    /// Ends streams and the server.
    pub stop: CancellationToken,
}

/// What handlers share.
pub(crate) struct Shared {
    pub(crate) context: OpContext,
    gate: Arc<Gate>,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) stop: CancellationToken,
    pub(crate) streams: Arc<Semaphore>,
}

/// The whole server as a service.
pub fn router(app: App) -> Router {
    let shared = Arc::new(Shared {
        context: app.context,
        gate: app.gate,
        metrics: app.metrics,
        stop: app.stop,
        streams: Arc::new(Semaphore::new(limits::HTTP_STREAMS_MAX)),
    });
    let mcp = super::mcp::http(shared.context.clone(), shared.stop.clone());
    let mcp = Router::new()
        .route_service("/mcp", mcp)
        .layer(middleware::from_fn(super::mcp::refusals::told));
    let mut guarded = Router::new()
        .route("/metrics", get(health::metrics))
        .route(&format!("{PREFIX}/tasks/{{id}}/events"), get(sse::events))
        .route("/tasks/{id}/events", get(sse::events))
        .layer(middleware::from_fn(reads))
        .merge(mcp)
        .route(&format!("{PREFIX}/openapi.json"), get(openapi_document));
    for entry in ops::ALL {
        guarded = guarded.route(&format!("{PREFIX}{}", entry.spec.path), op_route(entry));
    }
    let guarded = guarded
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(shared.clone(), admit));
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(with_safe_headers))
        .with_state(shared)
}

/// Health and figures alone, for a worker: nothing can be asked of it.
pub fn health_router(app: App) -> Router {
    let shared = Arc::new(Shared {
        context: app.context,
        gate: app.gate,
        metrics: app.metrics,
        stop: app.stop,
        streams: Arc::new(Semaphore::new(0)),
    });
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(with_safe_headers))
        .with_state(shared)
}

/// Serve until stopped; answers under way are finished, within a bound.
pub async fn serve(
    socket: TcpListener,
    app: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let stopping = stop.clone();
    let with_peers = app.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(socket, with_peers)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .into_future();
    tokio::select! {
        served = served => served,
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => {
            tracing::warn!("some connections did not end in time");
            Ok(())
        }
    }
}

fn op_route(entry: &'static OpEntry) -> MethodRouter<Arc<Shared>, Infallible> {
    let filter = match entry.spec.method {
        Method::Get => axum::routing::MethodFilter::GET,
        Method::Post => axum::routing::MethodFilter::POST,
        Method::Patch => axum::routing::MethodFilter::PATCH,
        Method::Delete => axum::routing::MethodFilter::DELETE,
    };
    let fields = Arc::new(Fields::of(entry));
    on(
        filter,
        move |State(shared): State<Arc<Shared>>,
              axum::Extension(caller): axum::Extension<Caller>,
              path: RawPathParams,
              uri: Uri,
              headers: HeaderMap,
              body: Result<Bytes, BytesRejection>| async move {
            let body = body.map_err(|rejection| unreadable_body(&rejection))?;
            refuse_key(entry, &fields, &headers)?;
            refuse_tag(entry, &fields, &headers)?;
            let path: Vec<(String, String)> = path
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            let input = input(&fields, &path, &uri, &headers, &body)?;
            call(&shared, caller, entry, input).await
        },
    )
}

/// Headers that stand for a field of the input, where it has one: what HTTP has a word of its own for.
pub(super) const FIELDS_OF_HEADERS: [(&str, &str); 2] = [
    ("idempotency-key", "idempotency_key"),
    ("if-match", "digest"),
];

/// Who sends a key believes that sending again is harmless: refuse it where that is not so.
fn refuse_key(entry: &OpEntry, fields: &Fields, headers: &HeaderMap) -> Result<(), OpError> {
    let [(header, field), _] = FIELDS_OF_HEADERS;
    if !headers.contains_key(header) || fields.has(field) || entry.spec.idempotent {
        return Ok(());
    }
    let name = entry.spec.name;
    let refused = OpError::invalid(format!(
        "{name} takes no Idempotency-Key: sent twice, it would not be done once"
    ));
    Err(refused
        .code("no_idempotency_key")
        .hint("Leave the header out, and look what was done before you send it again."))
}

/// Who names what they saw believes that nothing else is touched: refuse it where nobody compares.
fn refuse_tag(entry: &OpEntry, fields: &Fields, headers: &HeaderMap) -> Result<(), OpError> {
    let [_, (header, field)] = FIELDS_OF_HEADERS;
    if !headers.contains_key(header) || fields.has(field) || entry.spec.effect == Effect::Read {
        return Ok(());
    }
    let name = entry.spec.name;
    let refused = OpError::invalid(format!("{name} takes no If-Match: it compares nothing"));
    Err(refused
        .code("no_if_match")
        .hint("Leave the header out; the answer shows what was there."))
}

/// The input of an operation from the parts of a request.
pub fn input(
    fields: &Fields,
    path: &[(String, String)],
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, Problem> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "malformed_query", e.to_string()))?;
    let mut input = fields.gather(path, &query.0, object(headers, body)?)?;
    for (header, field) in FIELDS_OF_HEADERS {
        let Some(value) = headers.get(header).filter(|_| fields.has(field)) else {
            continue;
        };
        let wrong = || OpError::invalid(format!("the header {header} is not plain text"));
        let value = value.to_str().map_err(|_| wrong())?;
        let value = Value::String(value.trim().trim_matches('"').to_owned());
        let named = &input[field];
        if !named.is_null() && *named != value {
            let detail =
                format!("the header {header} and the body name different values of {field}");
            let error = OpError::wrong_state(detail).code("contradiction");
            return Err(error.hint("Give it once, or twice the same.").into());
        }
        input[field] = value;
    }
    Ok(input)
}

fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("").split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "send the body as application/json",
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            format!("the body is not a JSON object: {error}"),
        )
    })
}

async fn call(
    shared: &Shared,
    caller: Caller,
    entry: &OpEntry,
    input: Value,
) -> Result<Response, Problem> {
    caller.needs(entry.spec.scope)?;
    let patience = limits::HTTP_ANSWER_TIMEOUT;
    let context = shared.context.for_caller(caller.actor, patience);
    let answer = tokio::time::timeout(patience, (entry.call)(&context, input));
    let name = entry.spec.name;
    let value = match answer.await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            error.log(name);
            return Err(error.into());
        }
        Err(_) => {
            tracing::warn!(op = name, "an operation took too long");
            let late = OpError::unavailable("the answer took too long").code("timeout");
            return Err(late.into());
        }
    };
    let again = |one: &Value| one["replayed"] == true;
    let all_again = value["data"]
        .as_array()
        .is_some_and(|all| all.iter().all(again));
    let made = entry.spec.makes()
        && !(again(&value) || all_again)
        // A dry run makes nothing, which has no number.
        && value.get("id") != Some(&Value::Null);
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let tag = value["digest"].as_str().and_then(problem::tag);
    let mut response = (status, Json(value)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn admit(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (gate, context) = (&shared.gate, &shared.context);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip());
    let (caller, place) = gate
        .admit(context, request.uri(), request.headers(), peer)
        .await?;
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    Ok(match place {
        Some(place) => response.map(|body| Body::new(Held::new(body, place))),
        None => response,
    })
}

/// For what is no operation and shows something.
async fn reads(
    axum::Extension(caller): axum::Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    caller.needs(Scope::Read)?;
    Ok(next.run(request).await)
}

fn unreadable_body(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!(
                "the body has more than {} bytes",
                limits::HTTP_BODY_BYTES_MAX
            ),
        ),
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "unreadable_body",
            rejection.body_text(),
        ),
    }
}

async fn openapi_document() -> Json<Value> {
    Json(openapi::document())
}

async fn no_such_path(uri: Uri) -> Problem {
    let detail = format!(
        "there is nothing at {}; see {PREFIX}/openapi.json",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, "no_such_path", detail)
}

async fn wrong_method() -> Problem {
    let detail = format!("not with this method; see {PREFIX}/openapi.json");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail)
}

fn panicked(_payload: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request made the server panic");
    Problem::from(OpError::internal("a fault of the server")).into_response()
}

async fn with_safe_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    headers.insert("dispatch-api-version", HeaderValue::from_static("1"));
    response
}
