//! `tasks.deadline`: what has not begun by then never begins, wherever it waits.

use std::time::Duration;

use dispatch_worker::queue::rescuer;
use dispatch_worker::store::Store;
use serde_json::json;

use crate::harness::worker::Stage;

/// Submit a task whose deadline is this far from now, with further columns.
async fn submit(stage: &Stage, deadline: &str, columns: &str, values: &str) -> i64 {
    let insert = format!(
        "INSERT INTO tasks (project, input, agent, deadline{columns}) \
         VALUES ('p', 'x', 'acp', now() + interval '{deadline}'{values}) RETURNING id"
    );
    stage.sql.query_one(&insert, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_waiting_task_ends_when_its_deadline_passes_wherever_it_waits() {
    let stage = Stage::new().await;
    let sql = &stage.sql;
    let ready = submit(&stage, "-1 second", "", "").await;
    let later = submit(
        &stage,
        "-1 second",
        ", run_at",
        ", now() + interval '1 hour'",
    )
    .await;
    let parked = submit(&stage, "-1 second", ", limit_key", ", 'k'").await;
    let in_time = submit(&stage, "1 hour", "", "").await;
    let without = stage.submit("acp", &json!([])).await;
    let runs = submit(&stage, "-1 second", "", "").await;
    sql.batch_execute(&format!(
        "UPDATE limits SET max_running = 0;
         WITH gone AS (DELETE FROM ready_tasks WHERE task_id = {runs} RETURNING task_id)
         INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent)
         SELECT task_id, 1, gen_random_uuid(), 1, 0, 'acp' FROM gone"
    ))
    .await
    .unwrap();
    let due = stage.text("SELECT next_due_ms FROM maintain(500)").await;
    for (task, waited_for) in [
        (ready, "no live worker offers agent acp"),
        (later, "scheduled"),
        (parked, "limit k"),
    ] {
        let status = stage
            .status(task, "state || ' ' || error_class || ' ' || attempts")
            .await;
        assert_eq!(status.as_deref(), Some("failed timeout 0"));
        let error = stage.status(task, "error").await.unwrap();
        assert!(error.contains(waited_for), "{error}");
        assert!(error.contains("later tasks.deadline"), "{error}");
        let stream = stage.stream(task).await;
        assert_eq!(stream.last().unwrap().0, "task_failed");
    }
    for (task, state) in [
        (in_time, "pending"),
        (without, "pending"),
        (runs, "running"),
    ] {
        assert_eq!(stage.status(task, "state").await.as_deref(), Some(state));
    }
    let hour = 3_600_000_i64;
    let due: i64 = due.parse().unwrap();
    assert!(
        (hour - 60_000..=hour).contains(&due),
        "the next deadline: {due}"
    );
    let left = "SELECT string_agg(task_id::text, ' ' ORDER BY task_id) FROM deadlines";
    assert_eq!(stage.text(left).await, format!("{in_time} {runs}"));
}

#[tokio::test]
async fn the_deadline_of_a_task_that_ended_is_forgotten_and_comes_back_with_a_requeue() {
    let stage = Stage::new().await;
    let task = submit(&stage, "-1 second", "", "").await;
    stage.text(&format!("SELECT cancel_task({task})")).await;
    stage.text("SELECT moved FROM maintain(500)").await;
    assert_eq!(stage.text("SELECT count(*) FROM deadlines").await, "0");
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("cancelled")
    );
    // Nor is one that was deleted looked at for ever.
    let gone = submit(&stage, "-1 second", "", "").await;
    stage.text(&format!("SELECT cancel_task({gone})")).await;
    let delete = "DELETE FROM tasks WHERE id = $1";
    stage.sql.execute(delete, &[&gone]).await.unwrap();
    stage.text("SELECT moved FROM maintain(500)").await;
    assert_eq!(stage.text("SELECT count(*) FROM deadlines").await, "0");
    stage
        .text(&format!("SELECT requeue_task({task}) IS NULL"))
        .await;
    stage.text("SELECT moved FROM maintain(500)").await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("timeout")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_an_overdue_task_by_itself() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let tomorrow = ", now() + interval '1 day'";
    let in_time = submit(&stage, "2 days", ", run_at", tomorrow).await;
    let late = submit(&stage, "900 ms", ", run_at", tomorrow).await;
    stage.reaches(late, "failed").await;
    let after = "SELECT o.ended_at >= t.deadline FROM outcomes o JOIN tasks t ON t.id = o.task_id";
    assert_eq!(stage.text(after).await, "true");
    let state = stage.status(in_time, "state").await;
    assert_eq!(state.as_deref(), Some("pending"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_would_begin_after_the_deadline_is_not_waited_for() {
    let stage = Stage::new().await;
    let script = json!([{ "say": "oh" }, { "signal": 9 }]).to_string();
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts, deadline) \
                  VALUES ('p', $1, 'acp', 9, now() + interval '100 seconds') RETURNING id";
    let task: i64 = stage
        .sql
        .query_one(insert, &[&script])
        .await
        .unwrap()
        .get(0);
    // The wait after the fifth attempt is four minutes at least.
    let tried = "WITH gone AS (DELETE FROM ready_tasks RETURNING task_id) \
                 INSERT INTO later_tasks (task_id, run_at, attempt, reason) \
                 SELECT task_id, now(), 5, 'retry' FROM gone";
    stage.sql.batch_execute(tried).await.unwrap();
    let worker = stage.worker().await;
    stage.reaches(task, "failed").await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("protocol")
    );
    let error = stage.status(task, "error").await.unwrap();
    assert!(
        error.contains("the task's deadline comes before the next attempt"),
        "{error}"
    );
    let stream = stage.stream(task).await;
    assert!(
        stream.iter().all(|(kind, _)| kind != "retry_scheduled"),
        "{stream:?}"
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_rescued_task_whose_deadline_has_passed_is_not_tried_again() {
    let stage = Stage::new().await;
    let task = submit(&stage, "-1 second", "", "").await;
    stage
        .sql
        .batch_execute(
            "WITH gone AS (DELETE FROM ready_tasks RETURNING task_id)
             INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent)
             SELECT task_id, 1, gen_random_uuid(), 1, 0, 'acp' FROM gone",
        )
        .await
        .unwrap();
    let store = Store::connect(&stage.db.url(), 1).unwrap();
    assert_eq!(rescuer::run_once(&store, Duration::ZERO).await.unwrap(), 1);
    let status = stage.status(task, "state || ' ' || error_class").await;
    assert_eq!(status.as_deref(), Some("failed orphaned"));
    let error = stage.status(task, "error").await.unwrap();
    assert!(error.contains("deadline"), "{error}");
}
