//! Decisions over HTTP: only on what the reviewer saw, only once, and on single files.

use serde_json::{Value, json};

use crate::http::Server;

/// A completed task with a change of two files, and an open question.
const CHANGE: &str = "
    INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake');
    DELETE FROM ready_tasks;
    INSERT INTO outcomes (task_id, token, seq, attempt, state) VALUES (1, 1, 2, 1, 'completed');
    INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree,
        result_commit, result_ref, digest, files, added_lines, removed_lines)
    VALUES (1, 1, 1, 'shop', 'b', 't', 'c', 'refs/dispatch/1/1', 'd1', 2, 2, 0);
    INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind, patch)
    VALUES (1, 1, 'a.rs', 'a.rs', 'edit', 'text', '+a'), (1, 2, 'b.rs', 'b.rs', 'create', 'text', '+b');
    INSERT INTO permission_requests (task_id, attempt, token, agent, kind, title)
    VALUES (1, 1, 1, 'fake', 'execute', 'run it');";

async fn server() -> Server {
    let server = Server::with_project().await;
    server
        .db
        .client()
        .await
        .batch_execute(CHANGE)
        .await
        .unwrap();
    server
}

fn states(change: &Value) -> Vec<&str> {
    let files = change["file_list"].as_array().unwrap();
    files
        .iter()
        .map(|file| file["state"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_tag_is_refused_where_nobody_would_compare_it() {
    let server = server().await;
    for head in ["POST /api/v1/changes/1/undo", "POST /api/v1/tasks/1/cancel"] {
        let refused = server.send(head, "If-Match: \"d1\"\r\n", "{}").await;
        refused.problem(422, "no_if_match");
    }
    let read = server.send("GET /api/v1/changes/1", "If-Match: \"d0\"\r\n", "");
    assert_eq!(read.await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn an_empty_list_of_files_means_none_of_them_and_not_all() {
    let server = server().await;
    for (act, digest) in [("approve", "d1"), ("reject", "d1")] {
        let body = json!({ "digest": digest, "files": [] });
        let refused = server
            .post(&format!("/api/v1/changes/1/{act}"), &body)
            .await;
        refused.problem(422, "invalid_input");
    }
    let change = server.get("/api/v1/changes/1").await.body;
    assert_eq!(change["state"], "pending");
    assert_eq!(states(&change), ["pending", "pending"]);
    server.end().await;
}

#[tokio::test]
async fn an_approval_needs_the_digest_that_is_there_and_counts_once() {
    let server = server().await;
    let approve = "/api/v1/changes/1/approve";
    server
        .post(approve, &json!({"digest": ""}))
        .await
        .problem(422, "digest_required");
    let stale = server.post(approve, &json!({"digest": "d0"})).await;
    stale.problem(409, "stale");
    assert_eq!(stale.body["digest"], "d1", "{stale:?}");
    assert!(stale.head.contains("etag: \"d1\"\r\n"), "{}", stale.head);
    // The same by the words that HTTP has for it.
    let shown = server.get("/api/v1/changes/1").await;
    assert!(shown.head.contains("etag: \"d1\"\r\n"), "{}", shown.head);
    let by_tag = |tag: &str| format!("If-Match: {tag}\r\n");
    let head = format!("POST {approve}");
    let stale = server.send(&head, &by_tag("\"d0\""), "").await;
    stale.problem(409, "stale");
    // Who contradicts himself has seen one of them at most.
    let both = server
        .send(&head, &by_tag("\"d1\""), "{\"digest\": \"d0\"}")
        .await;
    both.problem(409, "contradiction");
    let strange = json!({"digest": "d1", "files": ["c.rs"]});
    server
        .post(approve, &strange)
        .await
        .problem(422, "invalid_input");
    let some = json!({"digest": "d1", "files": ["a.rs"], "comment": "only this"});
    let body = "{\"files\": [\"a.rs\"], \"comment\": \"only this\"}";
    let approved = server.send(&head, &by_tag("\"d1\""), body).await;
    assert_eq!(
        (approved.status, &approved.body["state"]),
        (200, &json!("approved"))
    );
    let shown = server.get("/api/v1/changes/1").await.body;
    assert_eq!(states(&shown), ["approved", "rejected"]);
    assert_eq!(shown["reviews"][0]["comment"], "only this");
    server
        .post(approve, &some)
        .await
        .problem(409, "wrong_state");
    let withdrawn = json!({"reason": "on second thought"});
    let withdrawn = server.post("/api/v1/changes/1/reject", &withdrawn).await;
    assert_eq!(withdrawn.body["state"], "rejected", "{withdrawn:?}");
    server
        .post("/api/v1/changes/2/approve", &some)
        .await
        .problem(404, "not_found");
    server.end().await;
}

#[tokio::test]
async fn files_are_set_aside_before_the_rest_is_rejected() {
    let server = server().await;
    let reject = "/api/v1/changes/1/reject";
    server
        .post(reject, &json!({"files": ["b.rs"]}))
        .await
        .problem(422, "digest_required");
    let aside = server
        .post(reject, &json!({"files": ["b.rs"], "digest": "d1"}))
        .await;
    assert_eq!(aside.body["state"], "pending", "{aside:?}");
    let one = server.get("/api/v1/changes/1?file=b.rs").await.body;
    assert_eq!(
        (states(&one), &one["file_list"][0]["patch"]),
        (vec!["rejected"], &json!("+b"))
    );
    server
        .get("/api/v1/changes/1?file=c.rs")
        .await
        .problem(404, "not_found");
    for stale in [
        json!({"digest": "d0"}),
        json!({"digest": "d0", "files": ["b.rs"]}),
    ] {
        let stale = server.post(reject, &stale).await;
        stale.problem(409, "stale");
        assert_eq!(stale.body["digest"], "d1", "{stale:?}");
    }
    let rejected = server.post(reject, &json!({"reason": "no"})).await;
    assert_eq!(rejected.body["state"], "rejected", "{rejected:?}");
    server
        .post(reject, &json!({"reason": "again"}))
        .await
        .problem(409, "wrong_state");
    let listed = server
        .get("/api/v1/changes?state=rejected&task=1")
        .await
        .body;
    assert_eq!(listed["data"][0]["id"], 1);
    server.end().await;
}

#[tokio::test]
async fn asking_for_more_keeps_the_change_and_submits_into_its_conversation() {
    let server = server().await;
    let ask = "/api/v1/changes/1/request-changes";
    server
        .post(ask, &json!({"comment": " "}))
        .await
        .problem(422, "invalid_input");
    let another = json!({"comment": "add a test", "digest": "d0"});
    server.post(ask, &another).await.problem(409, "stale");
    let asked = json!({"comment": "add a test", "digest": "d1"});
    let asked = server.post(ask, &asked).await;
    assert_eq!(asked.body["change_id"], 1, "{asked:?}");
    let task = server
        .get(&format!("/api/v1/tasks/{}", asked.body["task_id"]))
        .await
        .body;
    assert_eq!(
        (&task["conversation_id"], &task["input"]),
        (&json!(1), &json!("add a test"))
    );
    assert_eq!(
        server.get("/api/v1/changes/1").await.body["state"],
        "pending"
    );
    server
        .post(ask, &json!({"comment": "and more"}))
        .await
        .problem(409, "wrong_state");
    server.end().await;
}

#[tokio::test]
async fn a_question_is_answered_once() {
    let server = server().await;
    let shown = server.get("/api/v1/tasks/1").await.body;
    assert_eq!(shown["open_permissions"][0]["title"], "run it");
    let answer = "/api/v1/permissions/1/answer";
    server
        .post(answer, &json!({"answer": "maybe"}))
        .await
        .problem(422, "invalid_input");
    let answered = server.post(answer, &json!({"answer": "allow"})).await;
    assert_eq!(answered.body, json!({"id": 1, "answer": "allow"}));
    server
        .post(answer, &json!({"answer": "deny"}))
        .await
        .problem(409, "wrong_state");
    let listed = server.get("/api/v1/permissions?status=allowed").await.body;
    assert_eq!(listed["data"][0]["decided_by"], "http");
    server.end().await;
}

#[tokio::test]
async fn unknown_usage_stays_unknown_in_sums() {
    let server = server().await;
    let sql = "INSERT INTO usage_reports (task_id, attempt, token, agent, source, input_tokens, total_tokens, cost, currency)
               VALUES (1, 1, 1, 'fake', 'reported', 10, 10, 0.10, 'USD'), (1, 2, 2, 'fake', 'none', NULL, NULL, NULL, NULL);";
    server.db.client().await.batch_execute(sql).await.unwrap();
    let sums = server.get("/api/v1/usage?by=agent").await.body;
    let told: Vec<(&Value, &Value, &Value)> = sums["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sum| (&sum["total_tokens"], &sum["cost"], &sum["unknown"]))
        .collect();
    let (ten, cost, none) = (json!(10), json!("0.10"), json!(0));
    assert_eq!(
        told,
        [
            (&ten, &cost, &none),
            (&Value::Null, &Value::Null, &json!(1))
        ]
    );
    server.end().await;
}
