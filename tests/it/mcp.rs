//! The tools of the Model Context Protocol, as a client sees them: over standard input and output, and
//! over HTTP.

use std::process::Stdio;
use std::time::Duration;

use dispatch_worker::domain::limits;
use dispatch_worker::ops::{self, Effect};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::http::{Answer, Server};
use crate::ops_parity::request_of;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");
const SOON: Duration = Duration::from_secs(30);

/// `dispatch mcp`, as a client starts it.
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    last: i64,
}

impl Client {
    pub async fn start(url: &str, flags: &[&str]) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a client starts it"
        )]
        let mut command = Command::new(PROGRAM);
        let mut child = command
            .args(["--as", "robin", "mcp"])
            .args(flags)
            .env("DATABASE_URL", url)
            .env_remove("DATABASE_LISTEN_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut client = Self {
            child,
            stdin,
            stdout,
            last: 0,
        };
        let hello = client.ask("initialize", hello()).await;
        assert_eq!(hello["result"]["serverInfo"]["name"], "dispatch", "{hello}");
        client
            .say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        client
    }

    async fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let message =
            json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params });
        self.say(&message).await;
        let line = tokio::time::timeout(SOON, self.stdout.next_line()).await;
        let answer: Value = serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], self.last, "{answer}");
        answer
    }

    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }

    /// It ends by itself when its client goes.
    pub async fn end(mut self) {
        drop(self.stdin);
        let status = tokio::time::timeout(SOON, self.child.wait()).await;
        assert!(status.unwrap().unwrap().success());
    }
}

fn hello() -> Value {
    json!({ "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" } })
}

async fn post(server: &Server, path: &str, method: &str, params: Value) -> Answer {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let headers =
        "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n";
    server
        .send(&format!("POST {path}"), headers, &message.to_string())
        .await
}

fn names(answer: &Value) -> Vec<String> {
    let tools = answer["result"]["tools"].as_array().unwrap();
    let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
    tools.iter().map(name).collect()
}

#[tokio::test]
async fn a_client_of_standard_input_lists_and_calls_tools_for_its_user() {
    let server = Server::with_project().await;
    let mut client = Client::start(&server.db.url(), &[]).await;
    let all = names(&client.ask("tools/list", json!({})).await);
    assert_eq!(all.len(), ops::ALL.len());
    let made = client
        .call(
            "task_submit",
            json!({ "project": "shop", "input": "Fix it", "agent": "fake" }),
        )
        .await;
    let made = &made["result"];
    assert_eq!(made["isError"], false, "{made}");
    let task = made["structuredContent"]["id"].as_i64().unwrap();
    let text: Value = serde_json::from_str(made["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(
        text, made["structuredContent"],
        "for clients that know only text"
    );
    let sent = client
        .call(
            "message_send",
            json!({ "id": task, "text": "mind the tests" }),
        )
        .await;
    assert_eq!(
        sent["result"]["structuredContent"]["state"], "waiting",
        "{sent}"
    );
    let sql = server.db.client().await;
    let by = "SELECT t.submitted_by, i.sent_by FROM tasks t JOIN inbox i ON i.task_id = t.id";
    let row = sql.query_one(by, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("robin", "robin"));
    client.end().await;
    server.end().await;
}

#[tokio::test]
async fn what_is_refused_is_told_with_a_way_out_and_what_is_no_tool_is_an_error() {
    let server = Server::with_project().await;
    let mut client = Client::start(&server.db.url(), &[]).await;
    for (tool, input, code) in [
        ("task_show", json!({ "id": 99 }), "not_found"),
        (
            "task_submit",
            json!({ "project": "none", "input": "x" }),
            "unknown_project",
        ),
        (
            "task_submit",
            json!({ "project": "shop", "input": " " }),
            "invalid_input",
        ),
        ("task_list", json!({ "colour": "red" }), "unknown_field"),
    ] {
        let told = client.call(tool, input).await;
        let result = &told["result"];
        assert_eq!(result["isError"], true, "{told}");
        let text: Value =
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text["code"], code, "{told}");
        assert!(!text["message"].as_str().unwrap().is_empty());
    }
    let unknown = client.call("task_delete", json!({})).await;
    let words = unknown["error"]["message"].as_str().unwrap();
    assert!(words.contains("no tool `task_delete`"), "{unknown}");
    client.end().await;
    server.end().await;
}

#[tokio::test]
async fn a_client_gets_no_more_than_its_groups() {
    let server = Server::with_project().await;
    let mut client = Client::start(&server.db.url(), &["--only", "read"]).await;
    let reads = ops::ALL
        .iter()
        .filter(|entry| entry.spec.effect == Effect::Read)
        .count();
    let listed = names(&client.ask("tools/list", json!({})).await);
    assert_eq!(listed.len(), reads);
    let refused = client
        .call(
            "task_submit",
            json!({ "project": "shop", "input": "x", "agent": "fake" }),
        )
        .await;
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("write tools"), "{refused}");
    client.end().await;

    let answer = post(&server, "/mcp?only=read", "tools/list", json!({})).await;
    assert_eq!(names(&answer.body), listed);
    let submit = json!({ "name": "task_submit", "arguments": { "project": "shop", "input": "x", "agent": "fake" } });
    let answer = post(&server, "/mcp?only=read", "tools/call", submit).await;
    assert!(answer.body["error"].is_object(), "{:?}", answer.body);
    let answer = post(&server, "/mcp?only=everything", "tools/list", json!({})).await;
    assert!(answer.body["error"].is_object(), "{:?}", answer.body);
    let tasks = server.db.client().await;
    let count = tasks.query_one("SELECT count(*) FROM tasks", &[]).await;
    assert_eq!(count.unwrap().get::<_, i64>(0), 0);
    server.end().await;
}

#[tokio::test]
async fn http_answers_each_request_by_itself_behind_the_same_gate() {
    let server = Server::with_project().await;
    let answer = post(&server, "/mcp", "initialize", hello()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["result"]["serverInfo"]["name"], "dispatch");
    let answer = post(&server, "/mcp", "tools/list", json!({})).await;
    assert_eq!(names(&answer.body).len(), ops::ALL.len());
    let submit = json!({ "name": "task_submit", "arguments": { "project": "shop", "input": "x", "agent": "fake" } });
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": submit });
    let headers = "Accept: application/json, text/event-stream\r\nX-Dispatch-Actor: robin\r\n";
    let made = server
        .send("POST /mcp", headers, &message.to_string())
        .await;
    assert_eq!(made.body["result"]["isError"], false, "{:?}", made.body);
    let sql = server.db.client().await;
    let by = sql.query_one("SELECT submitted_by FROM tasks", &[]).await;
    assert_eq!(by.unwrap().get::<_, &str>(0), "robin (http)");
    let foreign = server
        .send(
            "POST /mcp",
            "Origin: https://evil.example\r\nAccept: application/json, text/event-stream\r\n",
            &message.to_string(),
        )
        .await;
    foreign.problem(403, "foreign_origin");
    server.end().await;
}

#[tokio::test]
async fn what_is_no_message_of_the_protocol_is_refused_as_any_other_request_is() {
    let server = Server::with_project().await;
    let accept = "Accept: application/json, text/event-stream\r\n";
    let list = r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#;
    for (head, headers, body, status, code) in [
        ("POST /mcp", accept, "{", 400, "malformed_json"),
        ("POST /mcp", accept, "{}", 400, "malformed_json"),
        ("POST /mcp", accept, "", 415, "not_json"),
        (
            "POST /mcp",
            "Accept: text/html\r\n",
            list,
            406,
            "not_acceptable",
        ),
        ("PUT /mcp", accept, list, 405, "wrong_method"),
        ("GET /mcp", accept, "", 405, "wrong_method"),
    ] {
        let answer = server.send(head, headers, body).await;
        answer.problem(status, code);
        assert!(
            !answer.body["detail"].as_str().unwrap().is_empty(),
            "{answer:?}"
        );
    }
    let allowed = server.send("PUT /mcp", accept, list).await;
    assert!(
        allowed.head.to_lowercase().contains("\r\nallow: "),
        "{allowed:?}"
    );
    let big = format!("{list}{}", " ".repeat(limits::HTTP_BODY_BYTES_MAX));
    server
        .send("POST /mcp", accept, &big)
        .await
        .problem(413, "body_too_large");
    server.end().await;
}

#[tokio::test]
async fn each_reading_example_gives_the_same_over_mcp_and_http() {
    let server = Server::with_project().await;
    let mut client = Client::start(&server.db.url(), &[]).await;
    for entry in ops::ALL.iter().filter(|e| e.spec.effect == Effect::Read) {
        for example in (entry.examples)() {
            let (head, _) = request_of(entry, &example.input);
            let http = server.send(&head, "", "").await;
            let mcp = client.call(&entry.spec.word(), example.input.clone()).await;
            let mcp = &mcp["result"];
            let name = entry.spec.name;
            if http.status == 200 {
                assert_eq!(mcp["structuredContent"], http.body, "{name}");
            } else {
                let text = mcp["content"][0]["text"].as_str().unwrap();
                let told: Value = serde_json::from_str(text).unwrap();
                assert_eq!(told["code"], http.body["code"], "{name}");
                assert_eq!(told["message"], http.body["detail"], "{name}");
            }
        }
    }
    client.end().await;
    server.end().await;
}
