//! Idempotency keys: of batches, of messages, and where there is none to give.

use serde_json::{Value, json};

use crate::http::{Answer, Server};

const BATCH: &str = "POST /api/v1/tasks/batch";
const MESSAGE: &str = "POST /api/v1/conversations/1/messages";

fn task(input: &str) -> Value {
    json!({ "project": "shop", "input": input, "agent": "fake" })
}

async fn keyed(server: &Server, head: &str, key: &str, body: &Value) -> Answer {
    let key = format!("Idempotency-Key: {key}\r\n");
    server.send(head, &key, &body.to_string()).await
}

async fn count(server: &Server, table: &str) -> i64 {
    let sql = server.db.client().await;
    let count = format!("SELECT count(*) FROM {table}");
    sql.query_one(&count, &[]).await.unwrap().get(0)
}

fn ids(answer: &Answer) -> Vec<i64> {
    let all = answer.body["data"].as_array().unwrap();
    all.iter().map(|one| one["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_sent_again_under_its_key_gives_the_same_tasks_and_another_is_refused() {
    let server = Server::with_project().await;
    let batch = |inputs: &[&str]| {
        let tasks: Vec<Value> = inputs.iter().map(|input| task(input)).collect();
        json!({ "tasks": tasks })
    };
    for key in ["night", &"k".repeat(200)] {
        let before = count(&server, "tasks").await;
        let first = keyed(&server, BATCH, key, &batch(&["a", "b", "a"])).await;
        assert_eq!(first.status, 201, "{first:?}");
        let again = keyed(&server, BATCH, key, &batch(&["a", "b", "a"])).await;
        assert_eq!((again.status, ids(&again)), (200, ids(&first)), "{again:?}");
        assert_eq!(again.body["data"][2]["replayed"], true);
        for other in [
            vec!["a", "c", "a"],
            vec!["a", "b"],
            vec!["a", "b", "a", "d"],
            vec!["c"],
        ] {
            let refused = keyed(&server, BATCH, key, &batch(&other)).await;
            refused.problem(409, "idempotency_conflict");
        }
        assert_eq!(count(&server, "tasks").await, before + 3);
    }
    // A task with a key of its own keeps it.
    let mut own = batch(&["x", "y"]);
    own["tasks"][0]["idempotency_key"] = json!("mine");
    let first = keyed(&server, BATCH, "day", &own).await;
    let mut alone = task("x");
    alone["idempotency_key"] = json!("mine");
    let same = server.post("/api/v1/tasks", &alone).await;
    assert_eq!(same.body["id"], first.body["data"][0]["id"], "{same:?}");
    let long = keyed(&server, BATCH, &"k".repeat(201), &batch(&["a"])).await;
    long.problem(422, "invalid_input");
    server.end().await;
}

#[tokio::test]
async fn a_message_sent_again_under_its_key_is_the_same_message() {
    let server = Server::with_project().await;
    for input in ["one", "two"] {
        server.post("/api/v1/tasks", &task(input)).await;
    }
    let hello = json!({ "text": "hello" });
    let first = keyed(&server, MESSAGE, "m1", &hello).await;
    let again = keyed(&server, MESSAGE, "m1", &hello).await;
    assert_eq!((first.status, again.status), (200, 200), "{again:?}");
    assert_eq!(first.body["replayed"], false);
    assert_eq!(again.body["replayed"], true);
    assert_eq!(again.body["id"], first.body["id"]);
    let other = keyed(&server, MESSAGE, "m1", &json!({ "text": "bye" })).await;
    other.problem(409, "idempotency_conflict");
    // Keys are those of a conversation.
    let elsewhere = "POST /api/v1/conversations/2/messages";
    let elsewhere = keyed(&server, elsewhere, "m1", &json!({ "text": "bye" })).await;
    assert_eq!(elsewhere.body["replayed"], false, "{elsewhere:?}");
    assert_eq!(count(&server, "inbox").await, 2);
    let long = keyed(&server, MESSAGE, &"k".repeat(201), &hello).await;
    long.problem(422, "invalid_input");
    server.end().await;
}

#[tokio::test]
async fn a_key_is_refused_where_it_would_promise_what_is_not_so() {
    let server = Server::with_project().await;
    server.post("/api/v1/tasks", &task("one")).await;
    let token = json!({ "name": "ci", "scopes": ["read"] });
    let project = json!({ "name": "docs", "path": "/srv/docs", "unchecked": true });
    for (head, body) in [
        ("POST /api/v1/tokens", &token),
        ("POST /api/v1/projects", &project),
        ("POST /api/v1/tasks/1/requeue", &json!({})),
    ] {
        let refused = keyed(&server, head, "k", body).await;
        refused.problem(422, "no_idempotency_key");
    }
    assert_eq!(count(&server, "tokens").await, 0);
    let cancel = "POST /api/v1/tasks/1/cancel";
    for outcome in ["cancelled", "already_over"] {
        let done = keyed(&server, cancel, "k", &json!({})).await;
        assert_eq!(done.body["outcome"], outcome, "{done:?}");
    }
    let read = server.send("GET /api/v1/tasks", "Idempotency-Key: k\r\n", "");
    assert_eq!(read.await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn a_provider_that_nobody_has_is_not_resumed() {
    let server = Server::with_project().await;
    let resume = |name: &str| format!("/api/v1/providers/{name}/resume");
    let none = json!({});
    server
        .post(&resume("nope"), &none)
        .await
        .problem(404, "not_found");
    let named = r#"INSERT INTO agent_offers (worker_id, name, status, execution_path, capabilities, expires_at)
        VALUES (gen_random_uuid(), 'fake', 'ready', 'native', '{"providers": [{"name": "acme", "usable": true}]}', now());
        INSERT INTO provider_pauses (provider, until, class, message)
        VALUES ('gone', now() + interval '1 hour', 'auth', 'no')"#;
    server.db.client().await.batch_execute(named).await.unwrap();
    for (name, was_paused) in [("acme", false), ("gone", true)] {
        let done = server.post(&resume(name), &none).await;
        assert_eq!(done.body["was_paused"], was_paused, "{done:?}");
    }
    server
        .post(&resume("gone"), &none)
        .await
        .problem(404, "not_found");
    server.end().await;
}
