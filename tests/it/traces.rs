//! Traces and log lines of a worker: what a collector gets, and that one which is away costs nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use dispatch_worker::config::native_spec::Api;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::llm::{FakeLlm, script};
use crate::harness::native::catalogue;
use crate::harness::program::Program;
use crate::harness::worker::Stage;

type Bodies = Arc<Mutex<Vec<Bytes>>>;

async fn take(State(bodies): State<Bodies>, body: Bytes) {
    bodies.lock().unwrap().push(body);
}

/// A collector that keeps what it gets.
async fn collector(running: &mut JoinSet<()>) -> (String, Bodies) {
    let bodies = Bodies::default();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let app = Router::new()
        .route("/v1/traces", post(take))
        .with_state(bodies.clone());
    running.spawn(async move { axum::serve(socket, app).await.unwrap() });
    (format!("http://{address}"), bodies)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A span's name, or an attribute's, as protobuf writes a string field.
fn string(field: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2, text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// An attribute with a small number.
fn number(name: &str, value: i64) -> Vec<u8> {
    let mut bytes = string(1, name);
    bytes.extend([0x12, 0x02, 0x18, u8::try_from(value).unwrap()]);
    bytes
}

/// The prompt is the script of the answers: a word of one is a word of the other.
async fn native_task(stage: &Stage) -> i64 {
    let steps = json!([
        { "text": "canary-of-the-answer", "calls": [{ "name": "read", "input": { "path": "a.txt" } }] },
        { "text": "Done." },
    ]);
    let insert =
        "INSERT INTO tasks (project, input, agent) VALUES ('p', $1, 'native') RETURNING id";
    let row = stage
        .sql
        .query_one(insert, &[&script(&steps)])
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_an_attempt_and_every_line_of_its_log_says_whose_it_is() {
    let mut running = JoinSet::new();
    let (endpoint, bodies) = collector(&mut running).await;
    let stage = Stage::new().await;
    let llm = FakeLlm::start();
    let agents = catalogue(&llm, Api::Openai, "");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=canary-of-the-header",
        ),
        ("DISPATCH_LOG_FORMAT", "json"),
        ("DISPATCH_LOG", "warn,dispatch_worker=debug"),
    ];
    let mut worker = Program::worker_in(&stage, "w", &agents, &[], &environment).await;
    let task = native_task(&stage).await;
    stage.reaches(task, "completed").await;
    let query = format!("SELECT max(token) FROM attempts WHERE task_id = {task}");
    let attempt: i64 = stage.text(&query).await.parse().unwrap();
    // What waits is sent at the end.
    worker.signal(Signal::SIGTERM);
    worker.ended().await;

    let sent = bodies.lock().unwrap().concat();
    for name in ["attempt", "turn", "step", "provider.request", "tool"] {
        assert!(has(&sent, &string(5, name)), "no span {name}");
    }
    assert!(has(&sent, &number("task.id", task)));
    assert!(has(&sent, &number("attempt.id", attempt)));
    assert!(has(&sent, b"service.name") && has(&sent, b"dispatch"));
    assert!(!has(&sent, b"canary"), "prompts and answers stay here");

    let log = worker.log();
    assert!(!log.contains("canary-of-the-header"));
    let mut told = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let target = line["target"].as_str().unwrap_or_default();
        let of_attempt = ["run", "agent", "workspace::worktree", "toolhost"]
            .iter()
            .any(|module| target.starts_with(&format!("dispatch_worker::{module}")));
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        let names = |key: &str, id: i64| {
            let places = spans.iter().chain([&line]);
            places.into_iter().any(|place| place[key] == id)
        };
        // A probe is of no attempt.
        if of_attempt && !line.to_string().contains("probe") {
            assert!(
                names("task.id", task) && names("attempt.id", attempt),
                "{line}"
            );
            told += 1;
        }
    }
    assert!(told > 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_nothing_up() {
    // Nobody accepts.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    let stage = Stage::new().await;
    let llm = FakeLlm::start();
    let agents = catalogue(&llm, Api::Openai, "");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
    ];
    let mut worker = Program::worker_in(&stage, "w", &agents, &[], &environment).await;
    for _ in 0..3 {
        let task = native_task(&stage).await;
        stage.reaches(task, "completed").await;
    }
    worker.signal(Signal::SIGTERM);
    let ended = tokio::time::timeout(Duration::from_secs(20), worker.ended()).await;
    assert!(ended.expect("it ends within a bound").success());
    let log = worker.log();
    assert!(log.contains("did not reach the collector"), "{log}");
}
