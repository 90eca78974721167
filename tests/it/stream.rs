//! The stream of a task: one gap-free story, the same for whoever reads it, whenever.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dispatch_worker::broker::{Broker, Follow};
use dispatch_worker::domain::event::TaskEvent;
use dispatch_worker::domain::ids::TaskId;
use dispatch_worker::roles;
use dispatch_worker::store::Store;
use dispatch_worker::store::listen::Listener;
use dispatch_worker::surface::cli::roles::ServeArgs;
use dispatch_worker::surface::traffic::MaybeRate;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::eventually;
use crate::harness::worker::{PATIENCE, Stage, agents, gates, write};

/// A reader's way to the stream, in this process, with a listener of its own.
struct Readers {
    broker: Broker,
    stop: CancellationToken,
    port: u16,
    running: JoinSet<()>,
}

impl Readers {
    async fn new(stage: &Stage) -> Self {
        let url = stage.db.url();
        let listener = Listener::new();
        let broker = Broker::new(Store::connect(&url, 8).unwrap(), listener.clone());
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let (listen, quiet) = (url.clone(), stop.clone());
        running.spawn(async move { listener.run(&listen, quiet).await });
        let (ready, mut is_ready) = tokio::sync::mpsc::channel(1);
        let quiet = stop.clone();
        running.spawn(async move {
            let args = ServeArgs {
                without_token: true,
                listen: "127.0.0.1:0".parse().unwrap(),
                token_file: None,
                token: None,
                hosts: Vec::new(),
                rate_limit: MaybeRate(None),
                open_limit: 0,
            };
            let tell = move |address| ready.try_send(address).unwrap();
            roles::serve_until(&url, url.clone(), args, None, quiet, tell)
                .await
                .unwrap();
        });
        let address = is_ready.recv().await.expect("the server started");
        Self {
            broker,
            stop,
            port: address.port(),
            running,
        }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(done) = self.running.join_next().await {
            done.unwrap();
        }
    }
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Read in this process, leaving after a few events and coming back, until the stream ends.
async fn read_inside(broker: Broker, task: i64, seed: u64, joins: &AtomicU32) -> String {
    let mut dice = Dice(seed);
    let (mut told, mut last) = (String::new(), 0);
    loop {
        joins.fetch_add(1, Ordering::Relaxed);
        let stop = CancellationToken::new();
        let mut events = broker.follow(TaskId(task), last, Follow::ToTheEnd, stop);
        for _ in 0..=dice.below(25) {
            match events.next().await {
                Some(event) => {
                    let event = event.unwrap();
                    last = event.seq;
                    writeln!(told, "{}", serde_json::to_string(&event).unwrap()).unwrap();
                }
                None => return told,
            }
        }
    }
}

/// The same over HTTP: the connection is dropped and taken up again with `Last-Event-ID`.
async fn read_over_http(port: u16, task: i64, seed: u64, joins: &AtomicU32) -> String {
    let mut dice = Dice(seed);
    let (mut told, mut last) = (String::new(), 0);
    loop {
        joins.fetch_add(1, Ordering::Relaxed);
        let mut lines = open_stream(port, task, last).await;
        let mut left = 1 + dice.below(25);
        let mut id = last;
        loop {
            let Some(line) = lines.next_line().await.unwrap() else {
                // The server ends a stream only when everything is told.
                return told;
            };
            if line.starts_with("HTTP/1.1 204") {
                return told;
            }
            if let Some(number) = line.strip_prefix("id: ") {
                id = number.parse().unwrap();
            } else if let Some(data) = line.strip_prefix("data: ") {
                writeln!(told, "{data}").unwrap();
                last = id;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
    }
}

async fn open_stream(port: u16, task: i64, last: i64) -> tokio::io::Lines<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let seen = match last {
        0 => String::new(),
        last => format!("Last-Event-ID: {last}\r\n"),
    };
    let request = format!(
        "GET /tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{seen}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream).lines()
}

/// Everything that is stored, as readers get it.
async fn history(broker: &Broker, task: i64) -> String {
    let stop = CancellationToken::new();
    let events = broker.follow(TaskId(task), 0, Follow::History, stop);
    let events: Vec<TaskEvent> = events.map(Result::unwrap).collect().await;
    let numbers: Vec<i64> = events.iter().map(|e| e.seq).collect();
    let expected: Vec<i64> = (1..).take(events.len()).collect();
    assert_eq!(numbers, expected);
    events.iter().fold(String::new(), |mut told, event| {
        writeln!(told, "{}", serde_json::to_string(event).unwrap()).unwrap();
        told
    })
}

fn gate(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("gate-{n}"))
}

fn open(gate: &Path) {
    std::fs::write(gate, "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_that_come_and_go_all_read_the_history_byte_for_byte() {
    const PARTS: usize = 8;
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let readers = Readers::new(&stage).await;
    let gates = gates();
    let mut script = Vec::new();
    for part in 0..PARTS {
        for word in 0..30 {
            script.push(json!({ "say": format!("part {part} word {word} – ü\n") }));
            if word % 10 == 0 {
                script.push(json!({ "thought": format!("thinking {part}.{word}") }));
            }
        }
        let id = format!("t{part}");
        script.push(json!({ "tool": { "toolCallId": id, "title": "look", "kind": "read" } }));
        script.push(json!({ "wait_for": gate(gates.path(), part) }));
    }
    let task = stage.submit("acp", &Value::from(script)).await;
    let joins = std::sync::Arc::new(AtomicU32::new(0));
    let mut reading = JoinSet::new();
    for n in 0..50_u64 {
        let (broker, joins, port) = (readers.broker.clone(), joins.clone(), readers.port);
        reading.spawn(async move {
            match n % 3 {
                0 => read_over_http(port, task, n, &joins).await,
                _ => read_inside(broker, task, n, &joins).await,
            }
        });
    }
    for part in 0..PARTS {
        let told = format!(
            "SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'tool_call' AND payload->>'id' = 't{part}')"
        );
        stage.holds("the part is told", &told).await;
        open(&gate(gates.path(), part));
    }
    stage.reaches(task, "completed").await;
    let mut all = Vec::new();
    while let Some(told) = tokio::time::timeout(PATIENCE, reading.join_next())
        .await
        .expect("every reader comes to the end")
    {
        all.push(told.unwrap());
    }
    let history = history(&readers.broker, task).await;
    assert_eq!(all.len(), 50);
    for (n, told) in all.iter().enumerate() {
        assert_eq!(*told, history, "reader {n} read something else");
    }
    let ends = history.matches("\"kind\":\"task_").count();
    assert_eq!(ends, 2, "submitted once and ended once");
    assert!(
        joins.load(Ordering::Relaxed) > 100,
        "the readers did come and go"
    );
    readers.end().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_once_and_only_when_it_is_stored() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let readers = Readers::new(&stage).await;
    let scripts = [
        (
            "task_completed",
            json!([{ "say": "fine" }, write("b.txt", "b\n")]),
        ),
        (
            "task_failed",
            json!([{ "say": "hm" }, { "error": { "code": 1, "message": "no" } }]),
        ),
    ];
    for (end, script) in scripts {
        let task = stage.submit("acp", &script).await;
        let stop = CancellationToken::new();
        let mut events = readers
            .broker
            .follow(TaskId(task), 0, Follow::ToTheEnd, stop);
        let mut ends = Vec::new();
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            if event.is_terminal() {
                // Whoever hears of the end finds it, with everything that belongs to it.
                let stored = format!(
                    "SELECT (SELECT count(*) FROM outcomes WHERE task_id = {task}) || ' ' || \
                     (SELECT count(*) FROM attempts WHERE task_id = {task} AND ended_at IS NOT NULL) || ' ' || \
                     (SELECT count(*) FROM usage_reports WHERE task_id = {task}) || ' ' || \
                     (SELECT count(*) FROM leases WHERE task_id = {task})"
                );
                assert_eq!(stage.text(&stored).await, "1 1 1 0");
                ends.push(event.kind);
            }
        }
        assert_eq!(ends, [end]);
    }
    readers.end().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_hold_nobody_up_and_miss_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let readers = Readers::new(&stage).await;
    let gates = gates();
    let go = gate(gates.path(), 0);
    // Far more than sockets and channels hold: 12 MB.
    let mut script = vec![json!({ "wait_for": go })];
    let words = "w".repeat(15_000);
    script.extend((0..800).map(|n| json!({ "say": format!("{n} {words}\n") })));
    let input = serde_json::to_string(&script).unwrap();
    assert!(
        input.len() > 1024 * 1024,
        "too long for a prompt, so it comes by the catalogue"
    );
    let script_file = gates.path().join("script.json");
    std::fs::write(&script_file, input).unwrap();
    let agents = format!(
        "[agents.acp]\nlabel = \"floods\"\npath = \"acp\"\ncommand = [\"{}\", \"acp\", '{}']\nreadable = [{:?}]\n",
        crate::harness::worker::FAKE,
        json!({ "script_file": script_file }),
        gates.path()
    );
    worker.stop().await;
    let worker = stage.worker_with(&agents, |_| {}).await;
    let task = stage.submit("acp", &json!([])).await;
    // Ten that never read their socket, and one that took a single event and stopped.
    let mut deaf = Vec::new();
    for _ in 0..10 {
        deaf.push(open_stream(readers.port, task, 0).await);
    }
    let stop = CancellationToken::new();
    let mut slow = readers
        .broker
        .follow(TaskId(task), 0, Follow::ToTheEnd, stop);
    let first = slow.next().await.unwrap().unwrap();
    assert_eq!(first.seq, 1);
    open(&go);
    stage.reaches(task, "completed").await;
    let mut told = format!("{}\n", serde_json::to_string(&first).unwrap());
    while let Some(event) = slow.next().await {
        writeln!(told, "{}", serde_json::to_string(&event.unwrap()).unwrap()).unwrap();
    }
    assert!(told.len() > 12_000_000);
    assert!(told == history(&readers.broker, task).await);
    drop(deaf);
    readers.end().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_thoughts_and_tools_keep_their_order_in_events_and_items() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let script = json!([
        { "say": "a1 " }, { "say": "a2" },
        { "tool": { "toolCallId": "t1", "title": "look", "kind": "read", "status": "in_progress" } },
        { "say": "b" },
        { "thought": "c" },
        { "tool": { "sessionUpdate": "tool_call_update", "toolCallId": "t1", "status": "completed" } },
        { "say": "d" },
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    // Deltas may be cut anywhere; what stands between two tools is one text.
    let mut order: Vec<String> = Vec::new();
    for (kind, payload) in stage.stream(task).await {
        match kind.as_str() {
            "text" | "thought" => {
                let text = payload["text"].as_str().unwrap();
                match order.last_mut() {
                    Some(before) if before.starts_with(&kind) => before.push_str(text),
                    _ => order.push(format!("{kind} {text}")),
                }
            }
            "tool_call" => order.push(format!("tool {}", payload["status"].as_str().unwrap())),
            _ => {}
        }
    }
    let expected = [
        "text a1 a2",
        "tool in_progress",
        "text b",
        "thought c",
        "tool completed",
        "text d",
    ];
    assert_eq!(order, expected);
    let items = stage
        .text("SELECT string_agg(kind || ' ' || coalesce(text, ''), ' | ' ORDER BY n) FROM items WHERE kind <> 'user'")
        .await;
    assert_eq!(
        items,
        "text a1 a2 | tool_call look | text b | thinking c | text d"
    );
    worker.stop().await;
}

/// Postgres text and jsonb refuse NUL, and pipes carry any bytes at all: nothing of that may cost
/// a result.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_text_may_hold_cost_no_result() {
    let nul = "nul \u{0} here";
    let stage = Stage::new().await;
    let allowed = format!(
        "{}\n[agents.acp.permissions]\ndefault = \"allow\"\n\
         [agents.acp.usage]\nformat = \"acp\"\noutput = \"/totalTokens\"\n",
        agents()
    );
    let worker = stage.worker_with(&allowed, |_| {}).await;
    let cases = [
        ("text", "acp", json!([{ "say": nul }]), "completed"),
        (
            "thought",
            "acp",
            json!([{ "thought": nul }, { "say": "x" }]),
            "completed",
        ),
        (
            "tool call",
            "acp",
            json!([{ "tool": { "toolCallId": nul, "title": nul, "kind": nul, "rawInput": { nul: [nul] } } }]),
            "completed",
        ),
        (
            "unknown update",
            "acp",
            json!([{ "update": { "sessionUpdate": nul, "x": nul } }]),
            "completed",
        ),
        (
            "usage",
            "acp",
            json!([{ "usage": { "update": { "used": 1, "size": 2, "note": nul },
                                "result": { "usage": { "totalTokens": 3, "note": nul } } } }]),
            "completed",
        ),
        (
            "permission",
            "acp",
            json!([{ "ask": { "tool": { "toolCallId": "a", "title": nul, "kind": "execute", "rawInput": { "command": nul } } } }]),
            "completed",
        ),
        (
            "error",
            "acp",
            json!([{ "error": { "code": 1, "message": nul, "data": nul } }]),
            "failed",
        ),
        ("stop reason", "acp", json!([{ "end": nul }]), "failed"),
        (
            "stderr",
            "cli",
            json!([{ "stderr": nul }, { "exit": 7 }]),
            "failed",
        ),
        ("plain text", "cli", json!([{ "say": nul }]), "completed"),
        (
            "broken UTF-8",
            "cli",
            json!([{ "bytes": [0xff, 0x61, 0xc3, 0x00, 0xe2, 0x82] }]),
            "completed",
        ),
        (
            "a terminal",
            "tty",
            json!([{ "bytes": [0xff, 0x61, 0xc3, 0x00, 0xe2, 0x82, 0x0a] }]),
            "completed",
        ),
    ];
    for (what, agent, script, end) in cases {
        let mut script = script;
        script
            .as_array_mut()
            .unwrap()
            .insert(0, write("b.txt", "b\n"));
        let task = stage.submit(agent, &script).await;
        eventually(
            &format!("the task with odd bytes in its {what} ended"),
            PATIENCE,
            || async {
                stage
                    .status(task, "state")
                    .await
                    .is_some_and(|state| state == "completed" || state == "failed")
            },
        )
        .await;
        let facts = format!(
            "SELECT state || ' ' || coalesce(error_class, '') || ' ' || coalesce(error, '') FROM outcomes WHERE task_id = {task}"
        );
        let facts = stage.text(&facts).await;
        assert!(facts.starts_with(end), "{what}: {facts}");
        assert!(!facts.contains("internal"), "{what}: {facts}");
        assert!(!facts.contains("could not be stored"), "{what}: {facts}");
        let changes = format!("SELECT count(*) FROM pending_changes WHERE task_id = {task}");
        assert_eq!(
            stage.text(&changes).await,
            "1",
            "{what}: what it wrote is kept"
        );
        stage.stream(task).await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_gets_through_to_an_agent_that_never_stops_talking() {
    let stage = Stage::new().await;
    let agents = "[agents.loud]\nlabel = \"loud\"\npath = \"pipe\"\nkill_grace = \"100ms\"\n\
         command = [\"sh\", \"-c\", \"exec yes and another thing\", \"{prompt}\"]\n";
    let worker = stage.worker_with(agents, |_| {}).await;
    let task = stage.submit("loud", &json!([])).await;
    stage
        .holds(
            "it talks",
            "SELECT count(*) > 3 FROM events WHERE kind = 'text'",
        )
        .await;
    let begun = std::time::Instant::now();
    stage.text(&format!("SELECT cancel_task({task})")).await;
    stage.reaches(task, "cancelled").await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    worker.stop().await;
}
