//! Waiting for the end of a task, trying a submission out, and the list of conversations.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::http::Server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

async fn task(server: &Server) -> i64 {
    let task = json!({ "project": "shop", "input": "Fix it\nplease", "agent": "fake" });
    let made = server.post("/api/v1/tasks", &task).await;
    made.body["id"].as_i64().unwrap()
}

async fn cancel(server: &Server, task: i64) {
    let sql = server.db.client().await;
    sql.query("SELECT cancel_task($1, 'enough')", &[&task])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_waits_until_the_task_has_ended_or_its_time_is_over() {
    let server = Server::with_project().await;
    let id = task(&server).await;
    let path = |timeout: &str| format!("/api/v1/tasks/{id}/wait?timeout={timeout}");
    let early = server.get(&path("1ms")).await;
    assert_eq!(
        (&early.body["ended"], &early.body["state"]),
        (&json!(false), &json!("pending"))
    );
    let (waited, ()) = tokio::join!(
        async { server.get(&path("19s")).await },
        cancel(&server, id)
    );
    assert_eq!(
        (&waited.body["ended"], &waited.body["state"]),
        (&json!(true), &json!("cancelled"))
    );
    for timeout in ["19s", "1ms"] {
        let late = server.get(&path(timeout)).await;
        assert_eq!(late.body["ended"], true, "what has ended is told at once");
    }
    server.get(&path("51s")).await.problem(422, "invalid_input");
    server
        .get("/api/v1/tasks/99/wait")
        .await
        .problem(404, "not_found");
    server.end().await;
}

#[tokio::test]
async fn the_command_waits_as_long_as_it_takes_and_says_by_its_exit_code_how_it_ended() {
    let server = Server::with_project().await;
    let id = task(&server).await;
    let run = async |flags: &[&str]| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = Command::new(PROGRAM);
        let number = id.to_string();
        command
            .args(["wait", &number])
            .args(flags)
            .env("DATABASE_URL", server.db.url())
            .env_remove("DATABASE_LISTEN_URL")
            .stdin(Stdio::null());
        let done = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        let done = done.unwrap().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        (done.status.code(), said)
    };
    let (code, said) = run(&["--timeout", "1ms"]).await;
    assert_eq!(code, Some(11), "{said}");
    assert!(said.starts_with(&format!("Task {id} is pending")), "{said}");
    let ((code, said), ()) = tokio::join!(run(&[]), cancel(&server, id));
    assert_eq!(code, Some(10), "{said}");
    assert_eq!(said, format!("Task {id} is cancelled: enough\n"));
    let sql = server.db.client().await;
    sql.batch_execute("UPDATE outcomes SET state = 'completed', error = NULL")
        .await
        .unwrap();
    assert_eq!(run(&[]).await.0, Some(0));
    server.end().await;
}

#[tokio::test]
async fn a_dry_run_says_what_a_submission_would_and_leaves_nothing() {
    let server = Server::with_project().await;
    let submit = async |change: serde_json::Value| {
        let mut task = json!({ "project": "shop", "input": "x", "agent": "fake", "dry_run": true });
        for (name, value) in change.as_object().unwrap() {
            task[name] = value.clone();
        }
        server.post("/api/v1/tasks", &task).await
    };
    let accepted = submit(json!({ "idempotency_key": "k" })).await;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    assert_eq!(accepted.body["agent"], "fake");
    assert!(accepted.body["id"].is_null());
    submit(json!({ "priority": 10 }))
        .await
        .problem(422, "invalid_input");
    submit(json!({ "project": "none" }))
        .await
        .problem(404, "unknown_project");
    submit(json!({ "conversation_id": 99 })).await;
    let sql = server.db.client().await;
    let left = "SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM ready_tasks)";
    let left = sql.query_one(left, &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
    let real = submit(json!({ "idempotency_key": "k", "dry_run": false })).await;
    let id = real.body["id"].as_i64().unwrap();
    let again = submit(json!({ "idempotency_key": "k" })).await;
    assert_eq!(
        (&again.body["id"], &again.body["replayed"]),
        (&json!(id), &json!(true))
    );
    let other = submit(json!({ "idempotency_key": "k", "input": "y" })).await;
    other.problem(409, "idempotency_conflict");
    server.end().await;
}

#[tokio::test]
async fn conversations_are_listed_with_their_last_tasks() {
    let server = Server::with_project().await;
    let first = task(&server).await;
    let second = task(&server).await;
    cancel(&server, first).await;
    let follow = json!({ "project": "shop", "input": "and more", "conversation_id": first });
    let made = server.post("/api/v1/tasks", &follow).await;
    let last = made.body["id"].as_i64().unwrap();
    let listed = server.get("/api/v1/conversations?project=shop").await;
    let rows = listed.body["data"].as_array().unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                &row["id"],
                &row["tasks"],
                &row["last_task_id"],
                &row["title"],
            )
        })
        .collect();
    let title = &json!("Fix it");
    assert_eq!(
        told,
        [
            (&json!(second), &json!(1), &json!(second), title),
            (&json!(first), &json!(2), &json!(last), title),
        ]
    );
    assert_eq!(rows[1]["last_state"], "pending");
    let page = server.get("/api/v1/conversations?limit=1").await;
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let next = server
        .get(&format!("/api/v1/conversations?limit=1&cursor={cursor}"))
        .await;
    assert_eq!(next.body["data"][0]["id"], first);
    let none = server.get("/api/v1/conversations?project=none").await;
    assert_eq!(none.body["data"], json!([]));
    server.end().await;
}
