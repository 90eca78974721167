//! Many tasks in one call: all of them, or none.

use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::http::{Answer, Server};

const BATCH: &str = "/api/v1/tasks/batch";

fn task(input: &str) -> Value {
    json!({ "project": "shop", "input": input, "agent": "fake" })
}

async fn submit(server: &Server, tasks: &[Value]) -> Answer {
    server.post(BATCH, &json!({ "tasks": tasks })).await
}

async fn inputs(server: &Server) -> Vec<String> {
    let sql = server.db.client().await;
    let rows = sql.query("SELECT input FROM tasks ORDER BY id", &[]).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_batch_makes_all_its_tasks_in_order() {
    let server = Server::with_project().await;
    let made = submit(&server, &[task("a"), task("b"), task("c")]).await;
    assert_eq!(made.status, 201, "{made:?}");
    let ids: Vec<i64> = made.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted());
    assert_eq!(inputs(&server).await, ["a", "b", "c"]);
    assert_eq!(made.body["data"][1]["agent"], "fake");
    server.end().await;
}

#[tokio::test]
async fn one_that_is_refused_is_named_and_none_is_made() {
    let server = Server::with_project().await;
    let with = |field: &str, value: Value| {
        let mut task = task("b");
        task[field] = value;
        task
    };
    for (second, code, words) in [
        (
            with("project", json!("none")),
            "unknown_project",
            "task 2 of 3",
        ),
        (with("input", json!(" ")), "invalid_input", "task 2 of 3"),
        (with("priority", json!(10)), "invalid_input", "task 2 of 3"),
        (
            with("conversation_id", json!(99)),
            "invalid_input",
            "task 2 of 3",
        ),
        (
            with("dry_run", json!(true)),
            "invalid_input",
            "of the whole batch",
        ),
    ] {
        let refused = submit(&server, &[task("a"), second, task("c")]).await;
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{refused:?}");
        assert!(
            refused.status < 500 && refused.body["code"] == code,
            "{refused:?}"
        );
    }
    submit(&server, &[]).await.problem(422, "invalid_input");
    let many: Vec<Value> = (0..201).map(|n| task(&n.to_string())).collect();
    submit(&server, &many).await.problem(422, "invalid_input");
    assert!(inputs(&server).await.is_empty());
    server.end().await;
}

#[tokio::test]
async fn the_same_batch_again_gives_the_same_tasks_and_a_key_is_good_for_one() {
    let server = Server::with_project().await;
    let keyed = |input: &str, key: &str| {
        let mut task = task(input);
        task["idempotency_key"] = json!(key);
        task
    };
    let batch = [keyed("a", "k1"), keyed("b", "k2"), keyed("a", "k1")];
    let first = submit(&server, &batch).await.body;
    let again = submit(&server, &batch).await.body;
    for n in 0..3 {
        assert_eq!(first["data"][n]["id"], again["data"][n]["id"]);
        assert_eq!(again["data"][n]["replayed"], true);
    }
    assert_eq!(first["data"][0]["id"], first["data"][2]["id"]);
    let other = submit(&server, &[task("c"), keyed("x", "k2")]).await;
    other.problem(409, "idempotency_conflict");
    assert!(
        other.body["detail"]
            .as_str()
            .unwrap()
            .contains("task 2 of 2")
    );
    assert_eq!(inputs(&server).await, ["a", "b"]);
    server.end().await;
}

#[tokio::test]
async fn a_dry_run_tries_each_task_and_makes_none() {
    let server = Server::with_project().await;
    let earlier = json!({
        "project": "shop", "input": "z", "agent": "fake", "idempotency_key": "k0",
    });
    let earlier = server.post("/api/v1/tasks", &earlier).await.body["id"].clone();
    let keyed = |input: &str, key: &str| {
        let mut task = task(input);
        task["idempotency_key"] = json!(key);
        task
    };
    let tasks = [
        task("a"),
        keyed("b", "k1"),
        keyed("b", "k1"),
        keyed("z", "k0"),
    ];
    let dry = |tasks: &[Value]| json!({ "tasks": tasks, "dry_run": true });
    let tried = server.post(BATCH, &dry(&tasks)).await;
    assert_eq!(tried.status, 201, "{tried:?}");
    let data = tried.body["data"].as_array().unwrap();
    let ids: Vec<&Value> = data.iter().map(|one| &one["id"]).collect();
    let none = &Value::Null;
    assert_eq!(ids, [none, none, none, &earlier], "a number that is kept");
    let replayed: Vec<&Value> = data.iter().map(|one| &one["replayed"]).collect();
    assert_eq!(replayed, [false, false, true, true]);
    assert_eq!(inputs(&server).await, ["z"]);
    let refused = [task("a"), keyed("x", "k0")];
    let refused = server.post(BATCH, &dry(&refused)).await;
    refused.problem(409, "idempotency_conflict");
    server.end().await;
}

#[tokio::test]
async fn the_command_line_takes_a_batch_from_a_file_and_a_pipe() {
    let server = Server::with_project().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("tasks.jsonl"),
        format!("{}\n{}\n", task("a"), task("b")),
    )
    .unwrap();
    let url = server.db.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let many = |args: &[&str]| {
        let args = [&["--json", "tasks", "submit-many"], args].concat();
        Program::run_in(dir.path(), &args, &environment)
    };
    let (code, said) = many(&["--dry-run", "tasks.jsonl"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(inputs(&server).await.is_empty());
    assert_eq!(many(&["tasks.jsonl"]).0, Some(0));
    assert_eq!(inputs(&server).await, ["a", "b"]);
    let array = json!([task("c"), task("d")]).to_string();
    let piped = ["tasks", "submit-many", "-"];
    let (code, said) = Program::run_fed(&piped, &environment, &array);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(inputs(&server).await, ["a", "b", "c", "d"]);
    let (code, said) = many(&["none.json"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot read none.json"), "{said}");
    server.end().await;
}
