//! The server over a real socket on a real database.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::ops::OpContext;
use dispatch_worker::surface::auth::{Gate, Strangers};
use dispatch_worker::surface::http::{self, App};
use dispatch_worker::surface::traffic::Traffic;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::db::TestDb;
use crate::harness::eventually;

/// Nothing here takes longer than this, unless it hangs.
const SOON: Duration = Duration::from_secs(20);

pub struct Server {
    pub db: TestDb,
    port: u16,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Server {
    pub async fn start(tokens: &[String]) -> Self {
        Self::limited(tokens, Traffic::unlimited()).await
    }

    async fn limited(tokens: &[String], traffic: Traffic) -> Self {
        let db = TestDb::new().await;
        let (context, listener) = OpContext::open(&db.url(), 4, "http".to_owned()).unwrap();
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let (url, quiet) = (db.url(), stop.clone());
        running.spawn(async move { listener.run(&url, quiet).await });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let strangers = match tokens.is_empty() {
            true => Strangers::Welcome,
            false => Strangers::Refused,
        };
        let app = http::router(App {
            context,
            gate: Arc::new(Gate::new(tokens, &[], strangers).limited(traffic)),
            metrics: None,
            stop: stop.clone(),
        });
        let stopping = stop.clone();
        running.spawn(async move { http::serve(socket, app, stopping).await.unwrap() });
        Self {
            db,
            port,
            stop,
            running,
        }
    }

    /// A server with a project and an agent that no worker offers.
    pub async fn with_project() -> Self {
        let server = Self::start(&[]).await;
        let sql = "INSERT INTO projects (name, path) VALUES ('shop', '/srv/shop');
                   INSERT INTO catalogue_agents (name) VALUES ('fake');";
        server.db.client().await.batch_execute(sql).await.unwrap();
        server
    }

    pub async fn send(&self, head: &str, headers: &str, body: &str) -> Answer {
        tokio::time::timeout(SOON, self.exchange(head, headers, body))
            .await
            .unwrap()
    }

    async fn exchange(&self, head: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.open(head, headers, body, "Host: localhost\r\n").await;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.unwrap();
        Answer::read(&String::from_utf8(raw).unwrap())
    }

    async fn open(&self, head: &str, headers: &str, body: &str, host: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        let request = format!(
            "{head} HTTP/1.1\r\n{host}Connection: close\r\n{kind}Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(&format!("POST {path}"), "", &body.to_string())
            .await
    }

    /// Open a stream and read events until `count` came or it ended.
    async fn events(&self, path: &str, headers: &str, count: usize) -> Vec<(i64, String)> {
        let stream = self
            .open(&format!("GET {path}"), headers, "", "Host: localhost\r\n")
            .await;
        let mut lines = BufReader::new(stream).lines();
        let mut events = Vec::new();
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(data) = line.strip_prefix("data: ") {
                    let event: Value = serde_json::from_str(data).unwrap();
                    events.push((
                        event["seq"].as_i64().unwrap(),
                        event["kind"].as_str().unwrap().to_owned(),
                    ));
                }
                if events.len() == count {
                    break;
                }
            }
        };
        tokio::time::timeout(SOON, read)
            .await
            .expect("the stream went on without events");
        events
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        while let Some(done) = self.running.join_next().await {
            done.unwrap();
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    fn read(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_lowercase(),
            body: serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())),
        }
    }

    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert!(
            self.head.contains("application/problem+json"),
            "{}",
            self.head
        );
        assert!(
            self.head.contains("x-content-type-options: nosniff"),
            "{}",
            self.head
        );
    }
}

#[tokio::test]
async fn only_a_known_token_of_this_host_gets_in() {
    let token = "correct-horse-battery-staple".to_owned();
    let server = Server::start(std::slice::from_ref(&token)).await;
    server
        .get("/api/v1/tasks")
        .await
        .problem(401, "unauthorized");
    server.get("/metrics").await.problem(401, "unauthorized");
    let wrong = "Authorization: Bearer correct-horse-battery-stapl\r\n";
    server
        .send("GET /api/v1/tasks", wrong, "")
        .await
        .problem(401, "unauthorized");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(
        server.send("GET /api/v1/tasks", &bearer, "").await.status,
        200
    );
    let foreign = format!("{bearer}Origin: https://evil.example\r\n");
    server
        .send("GET /api/v1/tasks", &foreign, "")
        .await
        .problem(403, "foreign_origin");
    let mut rebound = server
        .open("GET /api/v1/tasks", &bearer, "", "Host: evil.example\r\n")
        .await;
    let mut raw = String::new();
    rebound.read_to_string(&mut raw).await.unwrap();
    Answer::read(&raw).problem(403, "foreign_host");
    assert_eq!(server.get("/healthz").await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn a_choice_that_the_agent_does_not_list_is_noticed_before_the_task_fails_by_it() {
    let server = Server::with_project().await;
    let sql = server.db.client().await;
    let offers = "INSERT INTO catalogue_agents (name) VALUES ('native');
        INSERT INTO agent_offers (worker_id, name, status, execution_path, models, modes, expires_at)
        SELECT gen_random_uuid(), a.name, 'ready', a.path, '[\"m1\", \"m2\"]', '[\"plan\"]', now() + interval '1 hour'
          FROM (VALUES ('fake', 'acp'), ('native', 'native')) a (name, path)";
    sql.batch_execute(offers).await.unwrap();
    for (agent, choice, said) in [
        ("fake", json!({"model": "m3"}), Some("the model \"m3\"")),
        ("fake", json!({"model": "m2", "mode_id": "plan"}), None),
        ("fake", json!({"mode_id": "build"}), Some("it offers: plan")),
        // Nothing is known of what it may be.
        ("fake", json!({"thinking_option_id": "high"}), None),
        ("native", json!({"model": "acme/new"}), None),
    ] {
        let mut task = json!({"project": "shop", "input": "x", "agent": agent, "dry_run": true});
        let fields = task.as_object_mut().unwrap();
        fields.extend(choice.as_object().unwrap().clone());
        let told = server.post("/api/v1/tasks", &task).await;
        let notice = told.body["notice"].as_str();
        match said {
            Some(said) => assert!(notice.unwrap().contains(said), "{told:?}"),
            None => assert_eq!(notice, None, "{task}"),
        }
    }
    server.end().await;
}

#[tokio::test]
async fn a_task_is_submitted_shown_listed_and_cancelled() {
    let server = Server::with_project().await;
    let body = json!({"project": "shop", "input": "do it", "agent": "fake", "timeout": "30m"});
    let made = server.post("/api/v1/tasks", &body).await;
    assert_eq!(
        (made.status, &made.body["replayed"]),
        (201, &json!(false)),
        "{made:?}"
    );
    assert!(
        made.body["notice"]
            .as_str()
            .unwrap()
            .contains("no live worker offers"),
        "{made:?}"
    );
    let id = made.body["id"].as_i64().unwrap();
    let shown = server.get(&format!("/api/v1/tasks/{id}")).await;
    assert_eq!(
        (&shown.body["state"], &shown.body["submitted_by"]),
        (&json!("pending"), &json!("http"))
    );
    for state in ["", "?state=pending"] {
        let listed = server.get(&format!("/api/v1/tasks{state}")).await;
        assert_eq!(listed.body["data"][0]["id"], json!(id), "{listed:?}");
        assert_eq!(listed.body["next_cursor"], Value::Null);
    }
    let actor = "X-Dispatch-Actor: ada\r\n";
    let path = format!("POST /api/v1/tasks/{id}/cancel");
    let cancelled = server.send(&path, actor, "").await;
    assert_eq!(cancelled.body["outcome"], "cancelled");
    assert_eq!(
        server.send(&path, actor, "").await.body["outcome"],
        "already_over"
    );
    let audit = server.get("/api/v1/audit").await;
    assert_eq!(audit.body["data"][0]["actor"], "ada (http)", "{audit:?}");
    let listed = server.get("/api/v1/tasks?state=cancelled").await;
    assert_eq!(listed.body["data"][0]["id"], json!(id), "{listed:?}");
    server.end().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let server = Server::with_project().await;
    let sql = "INSERT INTO tasks (project, input, agent) SELECT 'shop', 'n ' || g, 'fake' FROM generate_series(1, 5) g";
    server.db.client().await.batch_execute(sql).await.unwrap();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..3 {
        let page = server
            .get(&format!("/api/v1/tasks?limit=2{cursor}"))
            .await
            .body;
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["id"].as_i64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    server
        .get("/api/v1/tasks?limit=0")
        .await
        .problem(422, "invalid_input");
    server
        .get("/api/v1/tasks?cursor=x")
        .await
        .problem(422, "invalid_input");
    server.end().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_task_and_another_body_is_refused() {
    let server = Server::with_project().await;
    let key = "Idempotency-Key: k1\r\n";
    let body =
        json!({"project": "shop", "input": "do it", "agent": "fake", "timeout": "1h"}).to_string();
    let first = server.send("POST /api/v1/tasks", key, &body).await;
    let again = server.send("POST /api/v1/tasks", key, &body).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(
        (&again.body["id"], &again.body["replayed"]),
        (&first.body["id"], &json!(true))
    );
    let other = body.replace("do it", "do more");
    let refused = server.send("POST /api/v1/tasks", key, &other).await;
    refused.problem(409, "idempotency_conflict");
    let named = format!("task {}", first.body["id"]);
    assert!(
        refused.body["detail"].as_str().unwrap().contains(&named),
        "{refused:?}"
    );
    let both = body.replace("}", ", \"idempotency_key\": \"k2\"}");
    server
        .send("POST /api/v1/tasks", key, &both)
        .await
        .problem(409, "contradiction");
    server.end().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_a_code_and_a_way_out() {
    let server = Server::with_project().await;
    let task = |changes: Value| {
        let mut body = json!({"project": "shop", "input": "x", "agent": "fake"});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let cases = [
        (json!({"project": "nope"}), 404, "unknown_project", "shop"),
        (json!({"agent": "ghost"}), 422, "unknown_agent", "fake"),
        (json!({"input": "  \n"}), 422, "invalid_input", "Say what"),
        (json!({"input": "a\u{0}b"}), 422, "invalid_input", ""),
        (
            json!({"input": "x".repeat(1_100_000)}),
            422,
            "input_too_large",
            "file of the repository",
        ),
        (json!({"priority": 11}), 422, "invalid_input", ""),
        (json!({"timeout": "soon"}), 422, "invalid_input", ""),
        (
            json!({"conversation_id": 9}),
            422,
            "invalid_input",
            "first task",
        ),
        (json!({"colour": "red"}), 422, "unknown_field", ""),
    ];
    for (changes, status, code, way_out) in cases {
        let answer = server.post("/api/v1/tasks", &task(changes)).await;
        answer.problem(status, code);
        let hint = answer.body["hint"].as_str().unwrap_or("");
        assert!(hint.contains(way_out), "{answer:?}");
    }
    server
        .send("POST /api/v1/tasks", "", "{nope")
        .await
        .problem(400, "malformed_json");
    server
        .send("POST /api/v1/tasks", "", "[1]")
        .await
        .problem(400, "malformed_json");
    server
        .get("/api/v1/tasks/99")
        .await
        .problem(404, "not_found");
    server
        .get("/api/v1/tasks/x")
        .await
        .problem(422, "invalid_input");
    server
        .get("/api/v1/nothing")
        .await
        .problem(404, "no_such_path");
    server
        .send("PUT /api/v1/tasks", "", "")
        .await
        .problem(405, "wrong_method");
    let unseen = server.post("/api/v1/changes/1/approve", &json!({})).await;
    unseen.problem(422, "invalid_input");
    let hint = unseen.body["hint"].as_str().unwrap();
    assert!(hint.starts_with("digest: Digest of the change"), "{hint}");
    for what in ["probe", "check"] {
        let path = format!("/api/v1/agents/fake/{what}");
        let here = server.post(&path, &json!({"here": true})).await;
        here.problem(503, "no_agents_here");
        let nowhere = server.post(&path, &json!({})).await;
        nowhere.problem(409, "wrong_state");
        let both = server
            .post(&path, &json!({"here": true, "worker": "w"}))
            .await;
        both.problem(422, "invalid_input");
    }
    let count = server
        .db
        .client()
        .await
        .query_one("SELECT count(*) FROM tasks", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 0, "a refused task was left behind");
    server.end().await;
}

#[tokio::test]
async fn a_stream_is_resumed_without_gap_and_ends_after_everything_is_told() {
    let server = Server::with_project().await;
    let client = server.db.client().await;
    let sql = "INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake');
               SELECT append_event(1, 0::smallint, 'notice', '{\"text\": \"two\"}');
               SELECT append_event(1, 0::smallint, 'notice', '{\"text\": \"three\"}');";
    client.batch_execute(sql).await.unwrap();
    let first = server.events("/tasks/1/events", "", 3).await;
    let seqs: Vec<i64> = first.iter().map(|event| event.0).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let live = server.events(
        "/api/v1/tasks/1/events?since_seq=1",
        "Last-Event-ID: 3\r\n",
        9,
    );
    let cancel = async {
        client.batch_execute("SELECT cancel_task(1)").await.unwrap();
    };
    let (rest, ()) = tokio::join!(live, cancel);
    assert_eq!(rest, [(4, "task_cancelled".to_owned())]);
    let after = server
        .send("GET /tasks/1/events", "Last-Event-ID: 4\r\n", "")
        .await;
    assert_eq!(after.status, 204);
    server
        .get("/tasks/7/events")
        .await
        .problem(404, "not_found");
    server
        .send("GET /tasks/1/events", "Last-Event-ID: x\r\n", "")
        .await
        .problem(422, "invalid_input");
    for odd in [
        "/tasks/1/events?since_seq=-1",
        "/api/v1/tasks/1/events/page?since_seq=-1",
    ] {
        server.get(odd).await.problem(422, "invalid_input");
    }
    server.end().await;
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let server = Server::with_project().await;
    let client = server.db.client().await;
    client
        .batch_execute("INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake')")
        .await
        .unwrap();
    let mut stream = server
        .open("GET /tasks/1/events", "", "", "Host: localhost\r\n")
        .await;
    let mut seen = [0; 64];
    stream.read_exact(&mut seen).await.unwrap();
    let ended = async {
        server.end().await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .expect("the stream held the server");
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_back_and_keeps_nobody_else_out() {
    let tokens = ["a", "b"].map(|who| format!("correct-horse-battery-{who}"));
    let traffic = Traffic::new("2/m".parse().unwrap(), 0);
    let server = Server::limited(&tokens, traffic).await;
    let ask = async |token: &str| {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        server.send("GET /api/v1/tasks", &bearer, "").await
    };
    for _ in 0..2 {
        assert_eq!(ask(&tokens[0]).await.status, 200);
    }
    let refused = ask(&tokens[0]).await;
    refused.problem(429, "rate_limited");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(ask(&tokens[1]).await.status, 200);
    for _ in 0..30 {
        ask("nobody").await.problem(401, "unauthorized");
    }
    let refused = ask("nobody").await;
    refused.problem(429, "rate_limited");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    ask("dt_nobody").await.problem(429, "rate_limited");
    assert_eq!(ask(&tokens[1]).await.status, 200);
    // Health is asked by machines without a token, and never refused.
    assert_eq!(server.get("/healthz").await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn streams_of_one_caller_are_bounded_and_a_closed_one_makes_room() {
    let tokens = ["a", "b"].map(|who| format!("correct-horse-battery-{who}"));
    let traffic = Traffic::new("0".parse().unwrap(), 1);
    let server = Server::limited(&tokens, traffic).await;
    let sql = "INSERT INTO projects (name, path) VALUES ('shop', '/srv/shop');
               INSERT INTO catalogue_agents (name) VALUES ('fake');
               INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake')";
    server.db.client().await.batch_execute(sql).await.unwrap();
    let [mine, other] = tokens.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let path = "GET /api/v1/tasks/1/events";
    let stream = server.open(path, &mine, "", "Host: localhost\r\n").await;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("data: ") {
            break;
        }
    }
    let asked = "GET /api/v1/tasks";
    let refused = server.send(asked, &mine, "").await;
    refused.problem(429, "too_many_open");
    assert_eq!(server.send(asked, &other, "").await.status, 200);
    drop(lines);
    let free = async || server.send(asked, &mine, "").await.status == 200;
    eventually("the place of a closed stream is free", SOON, free).await;
    server.end().await;
}
