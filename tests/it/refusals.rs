//! What Postgres itself refuses to store, for whatever reason, ends the task; nothing is tried for
//! ever. The reasons here are constraints that an operator could have added.

use serde_json::json;

use crate::harness::program::make_due;
use crate::harness::worker::{Stage, write};

/// Submit a task with two attempts whose agent says "odd words" and edits a file.
async fn submit(stage: &Stage) -> i64 {
    let script = json!([{ "say": "odd words" }, write("b.txt", "b\n")]).to_string();
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts) \
                  VALUES ('p', $1, 'acp', 2) RETURNING id";
    let row = stage.sql.query_one(insert, &[&script]).await.unwrap();
    row.get(0)
}

/// The first attempt failed and was charged.
async fn first_attempt_counts(stage: &Stage) {
    let waits = "SELECT attempt = 2 AND uncharged = 0 FROM later_tasks";
    stage.holds("the first attempt counted", waits).await;
}

/// Both attempts fail and are charged.
async fn fails_at_its_second(stage: &Stage, task: i64) {
    first_attempt_counts(stage).await;
    make_due(stage).await;
    stage.reaches(task, "failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_database_refuses_fails_the_task_with_its_words() {
    let stage = Stage::new().await;
    stage
        .sql
        .batch_execute(
            "ALTER TABLE events ADD CONSTRAINT no_odd_words CHECK (payload::text NOT LIKE '%odd words%')",
        )
        .await
        .unwrap();
    let worker = stage.worker().await;
    let task = submit(&stage).await;
    fails_at_its_second(&stage, task).await;
    let status = "error_class || ' ' || attempts || ' ' || error";
    let error = stage.status(task, status).await.unwrap();
    let words = "internal 2 the database refuses to store an event";
    assert!(error.starts_with(words), "{error}");
    assert!(error.contains("no_odd_words"), "{error}");
    let stream = stage.stream(task).await;
    assert_eq!(stream.last().unwrap().0, "task_failed", "{stream:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_database_refuses_fails_the_task_with_its_words() {
    let stage = Stage::new().await;
    stage
        .sql
        .batch_execute(
            "ALTER TABLE usage_reports ADD CONSTRAINT nothing_is_used CHECK (false) NOT VALID",
        )
        .await
        .unwrap();
    let worker = stage.worker().await;
    let task = submit(&stage).await;
    fails_at_its_second(&stage, task).await;
    let error = stage.status(task, "error").await.unwrap();
    assert!(error.contains("nothing_is_used"), "{error}");
    let recorded =
        "SELECT count(*) FROM attempts WHERE end_kind = 'failed' AND error_class = 'internal'";
    assert_eq!(stage.text(recorded).await, "2");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_although_not_even_the_last_events_of_its_attempt_can_be_stored() {
    let stage = Stage::new().await;
    stage
        .sql
        .batch_execute(
            "ALTER TABLE events ADD CONSTRAINT no_retry CHECK (kind <> 'retry_scheduled')",
        )
        .await
        .unwrap();
    let worker = stage.worker().await;
    let task = stage
        .submit("acp", &json!([{ "say": "oh" }, { "signal": 9 }]))
        .await;
    first_attempt_counts(&stage).await;
    let kinds = stage.stream(task).await;
    assert!(kinds.iter().all(|(kind, _)| kind != "retry_scheduled"));
    stage.text(&format!("SELECT cancel_task({task})")).await;
    worker.stop().await;
}
