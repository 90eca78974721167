//! Who runs what when: exactly once, cancel, retry, rescue, stop, limits, priorities, bad rows.

use serde_json::json;

use dispatch_worker::agent::process;

use crate::harness::eventually;
use crate::harness::worker::{PATIENCE, Stage, agents, write};

#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_run_a_thousand_tasks_each_exactly_once() {
    let stage = Stage::new().await;
    stage
        .sql
        .execute("INSERT INTO catalogue_agents VALUES ('noop')", &[])
        .await
        .unwrap();
    let insert = "INSERT INTO tasks (project, input, agent) \
                  SELECT 'p', 'nothing', 'noop' FROM generate_series(1, 1000)";
    stage.sql.execute(insert, &[]).await.unwrap();
    let mut workers = Vec::new();
    for _ in 0..8 {
        workers.push(stage.worker_with(&agents(), |s| s.slots = 25).await);
    }
    stage
        .holds(
            "all have ended",
            "SELECT count(*) = 1000 FROM outcomes WHERE state = 'completed'",
        )
        .await;
    for worker in workers {
        worker.stop().await;
    }
    // Every claim draws a token: as many tokens as tasks means that none was claimed twice.
    assert_eq!(
        stage.text("SELECT last_value FROM lease_tokens").await,
        "1000"
    );
    assert_eq!(stage.text("SELECT count(*) FROM leases").await, "0");
    assert_eq!(stage.text("SELECT count(*) FROM ready_tasks").await, "0");
    assert_eq!(stage.text("SELECT max(attempt) FROM outcomes").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_cancelled_and_what_it_wrote_is_kept() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let task = stage
        .speaking(
            "acp",
            &json!([write("half.txt", "half\n"), { "say": "working" }, { "hang": true }]),
        )
        .await;
    let answer = stage
        .text(&format!("SELECT cancel_task({task}, 'enough', 'anna')"))
        .await;
    assert_eq!(answer, "cancel_requested");
    stage.reaches(task, "cancelled").await;
    let stream = stage.stream(task).await;
    let asked = stream
        .iter()
        .find(|(kind, _)| kind == "cancel_requested")
        .unwrap();
    assert_eq!(asked.1, json!({ "by": "anna", "reason": "enough" }));
    assert_eq!(
        stage.text("SELECT partial FROM pending_changes").await,
        "true"
    );
    let answer = stage.text(&format!("SELECT cancel_task({task})")).await;
    assert_eq!(answer, "already_over", "cancelling twice is harmless");
    worker.stop().await;
}

#[tokio::test]
async fn a_task_that_did_not_begin_is_cancelled_at_once() {
    let stage = Stage::new().await;
    let task = stage.submit("acp", &json!([])).await;
    assert_eq!(
        stage.text(&format!("SELECT cancel_task({task})")).await,
        "cancelled"
    );
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("cancelled")
    );
    assert_eq!(stage.text("SELECT count(*) FROM ready_tasks").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_agent_is_retried_until_its_attempts_are_used_up() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let script = json!([{ "say": "oh" }, { "signal": 9 }]).to_string();
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts) VALUES ('p', $1, 'acp', 2) RETURNING id";
    let task: i64 = stage
        .sql
        .query_one(insert, &[&script])
        .await
        .unwrap()
        .get(0);
    stage
        .holds(
            "it waits for a retry",
            "SELECT reason LIKE 'retry after%' FROM later_tasks",
        )
        .await;
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("pending")
    );
    // The wait is the schedule's; the test does not sit it out.
    stage
        .sql
        .batch_execute("UPDATE later_tasks SET run_at = now(); NOTIFY x")
        .await
        .unwrap();
    stage.reaches(task, "failed").await;
    assert_eq!(stage.status(task, "attempts").await.as_deref(), Some("2"));
    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds.iter().filter(|k| *k == "retry_scheduled").count(),
        1,
        "{kinds:?}"
    );
    assert_eq!(
        kinds.iter().filter(|k| *k == "task_failed").count(),
        1,
        "{kinds:?}"
    );
    assert_eq!(
        stage
            .text("SELECT count(*) FROM attempts WHERE ended_at IS NOT NULL")
            .await,
        "2"
    );
    assert_eq!(stage.text("SELECT count(*) FROM usage_reports").await, "2");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_a_worker_that_went_silent_are_rescued_and_its_late_end_is_refused() {
    let stage = Stage::new().await;
    let first = stage.worker().await;
    let task = stage.working("acp").await;
    let silent = first.id.clone();
    // Its heartbeat and services stop; its attempt, unaware, goes on.
    first.go_silent().await;
    // Time passes for the database alone: the worker was last seen a minute ago.
    let age =
        format!("UPDATE workers SET last_seen = now() - interval '1 minute' WHERE id = '{silent}'");
    stage.sql.batch_execute(&age).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other_host = elsewhere.path().to_owned();
    let second = stage
        .worker_with(&agents(), |s| s.data_dir = other_host)
        .await;
    let rescued = "SELECT coalesce(end_kind || ' ' || error_class = 'lease_lost orphaned', false) \
                   FROM attempts WHERE attempt = 1";
    stage.holds("it was rescued", rescued).await;
    assert_eq!(
        stage.text(&format!("SELECT cancel_task({task})")).await,
        "cancelled"
    );
    let stream = stage.stream(task).await;
    // The silent worker's agent ends now, and its worker comes back with a result: too late.
    let mark = format!("dispatch-{silent}-");
    let ended = process::sweep_marks(|found| found.starts_with(&mark)).unwrap();
    assert!(ended >= 1);
    eventually("the late attempt is over", PATIENCE, || async {
        std::fs::read_dir(stage.data.path().join("work/worktrees"))
            .unwrap()
            .count()
            == 0
    })
    .await;
    assert_eq!(stage.stream(task).await, stream, "nothing was added");
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("cancelled")
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_gives_running_tasks_back_without_charging_them() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let task = stage.working("acp").await;
    worker.interrupt().await;
    let row = stage
        .text(
            "SELECT attempt || ' ' || uncharged FROM (SELECT attempt, uncharged FROM later_tasks \
             UNION ALL SELECT attempt, uncharged FROM ready_tasks) waiting",
        )
        .await;
    assert_eq!(
        row, "2 1",
        "the next attempt is the second, and one did not count"
    );
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("pending")
    );
    assert_eq!(stage.text("SELECT count(*) FROM workers").await, "0");
    assert_eq!(
        stage.text("SELECT end_kind FROM attempts").await,
        "interrupted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_share_a_limit_key_run_one_after_the_other() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let insert = "INSERT INTO tasks (project, input, agent, limit_key) \
                  SELECT 'p', $1, 'acp', 'deploy' FROM generate_series(1, 3) RETURNING id";
    let script = json!([{ "say": "working" }, { "hang": true }]).to_string();
    let rows = stage.sql.query(insert, &[&script]).await.unwrap();
    stage
        .holds("one runs", "SELECT count(*) = 1 FROM leases")
        .await;
    let waiting = stage
        .text("SELECT string_agg(DISTINCT waiting_reason, ',') FROM task_status WHERE state = 'pending'")
        .await;
    assert_eq!(waiting, "limit deploy");
    for row in &rows {
        let task: i64 = row.get(0);
        let running = format!(
            "SELECT coalesce(array_agg(task_id) = ARRAY[{task}::bigint], false) FROM leases"
        );
        stage.holds("the next one runs, alone", &running).await;
        stage.text(&format!("SELECT cancel_task({task})")).await;
        stage.reaches(task, "cancelled").await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_runs_first_and_the_oldest_within_it() {
    let stage = Stage::new().await;
    for priority in [1, 9, 5, 9] {
        let insert = format!(
            "INSERT INTO tasks (project, input, agent, priority) VALUES ('p', 'x', 'noop', {priority})"
        );
        stage.sql.batch_execute(&insert).await.unwrap();
    }
    let worker = stage.worker_with(&agents(), |s| s.slots = 1).await;
    stage
        .holds("all have ended", "SELECT count(*) = 4 FROM outcomes")
        .await;
    let order = stage
        .text("SELECT string_agg(task_id::text, ' ' ORDER BY token) FROM outcomes")
        .await;
    assert_eq!(order, "2 4 3 1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_task_waits_for_its_time() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let insert = "INSERT INTO tasks (project, input, agent, run_at) \
                  VALUES ('p', 'x', 'noop', now() + interval '700 ms') RETURNING id";
    let task: i64 = stage.sql.query_one(insert, &[]).await.unwrap().get(0);
    assert_eq!(
        stage.status(task, "waiting_reason").await.as_deref(),
        Some("scheduled")
    );
    stage.reaches(task, "completed").await;
    let on_time = "SELECT o.ended_at >= t.run_at FROM outcomes o JOIN tasks t ON t.id = o.task_id";
    assert_eq!(stage.text(on_time).await, "true");
    worker.stop().await;
}

#[tokio::test]
async fn bad_rows_are_refused_in_words_that_say_what_to_do() {
    let stage = Stage::new().await;
    let refused = [
        (
            "INSERT INTO tasks (project, input, agent) VALUES ('nope', 'x', 'acp')",
            "unknown project \"nope\"",
        ),
        (
            "INSERT INTO tasks (project, input, agent) VALUES ('p', E' \\n', 'acp')",
            "the input of a task is empty",
        ),
        (
            "INSERT INTO tasks (project, input, agent) VALUES ('p', repeat('x', 10000000), 'acp')",
            "has 10000000 bytes",
        ),
        (
            "INSERT INTO tasks (project, input) VALUES ('p', 'x')",
            "no default agent is set",
        ),
        (
            "INSERT INTO tasks (project, input, agent, priority) VALUES ('p', 'x', 'acp', 10)",
            "priority 10 is not 0 to 9",
        ),
        (
            "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'acp', 99)",
            "conversation_id does not name",
        ),
        (
            "INSERT INTO tasks (project, input, agent, deadline) VALUES ('p', 'x', 'acp', 'infinity')",
            "deadline infinity is no real date",
        ),
        (
            "INSERT INTO tasks (project, input, agent, max_attempts) VALUES ('p', 'x', 'acp', 0)",
            "max_attempts 0 is not 1 to 100",
        ),
        (
            "INSERT INTO tasks (project, input, agent, idle_timeout) VALUES ('p', 'x', 'acp', '-1s')",
            "timeout and idle_timeout must be more than nothing",
        ),
        (
            "INSERT INTO tasks (project, input, agent, limit_key) VALUES ('p', 'x', 'acp', '')",
            "limit_key must have 1 to 200 bytes",
        ),
        (
            "INSERT INTO tasks (project, input, agent, idempotency_key) VALUES ('p', 'x', 'acp', repeat('k', 201))",
            "idempotency_key must have 1 to 200 bytes",
        ),
        (
            "INSERT INTO tasks (project, input, agent, model) VALUES ('p', 'x', 'acp', repeat('m', 201))",
            "a name is too long",
        ),
        (
            "INSERT INTO tasks (project, input, agent, run_at) VALUES ('p', 'x', 'acp', '-infinity')",
            "run_at -infinity is no real date",
        ),
    ];
    for (insert, words) in refused {
        let error = stage.sql.execute(insert, &[]).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains(words), "{insert}: {message}");
    }
    assert_eq!(
        stage.text("SELECT count(*) FROM tasks").await,
        "0",
        "nothing is left behind"
    );
}

#[tokio::test]
async fn a_task_for_an_agent_that_no_catalogue_knows_fails_at_once() {
    let stage = Stage::new().await;
    stage
        .sql
        .execute("INSERT INTO catalogue_agents VALUES ('acp')", &[])
        .await
        .unwrap();
    let task = stage.submit("nope", &json!([])).await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("agent_unavailable")
    );
    let error = stage.status(task, "error").await.unwrap();
    assert!(error.contains("known agents: acp"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_no_repository_fails_the_task_and_says_so() {
    let stage = Stage::new().await;
    stage
        .sql
        .execute("UPDATE projects SET path = '/nonexistent'", &[])
        .await
        .unwrap();
    let worker = stage.worker().await;
    let task = stage.submit("acp", &json!([])).await;
    stage.reaches(task, "failed").await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("workspace")
    );
    let error = stage.status(task, "error").await.unwrap();
    assert!(error.contains("/nonexistent"), "{error}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_away_stops_the_agent_and_nothing_more_is_written() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let task = stage.working("acp").await;
    let events = stage.text("SELECT count(*) FROM events").await;
    stage
        .sql
        .batch_execute(
            "WITH gone AS (DELETE FROM leases RETURNING task_id) \
             INSERT INTO outcomes (task_id, seq, attempt, state) SELECT task_id, next_seq(task_id), 1, 'failed' FROM gone",
        )
        .await
        .unwrap();
    stage
        .holds("the agent is gone", "SELECT count(*) = 0 FROM leases")
        .await;
    worker.stop().await;
    assert_eq!(stage.text("SELECT count(*) FROM events").await, events);
    assert_eq!(
        stage.text("SELECT count(*) FROM pending_changes").await,
        "0"
    );
    assert_eq!(stage.status(task, "state").await.as_deref(), Some("failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_task_runs_again_and_its_old_end_stays_in_its_stream() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let task = stage.submit("cli", &json!([{ "exit": 3 }])).await;
    stage.reaches(task, "failed").await;
    stage
        .text(&format!("SELECT requeue_task({task}, 'anna') IS NULL"))
        .await;
    stage
        .holds("it ended again", "SELECT attempt = 2 FROM outcomes")
        .await;
    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds.iter().filter(|k| *k == "task_failed").count(),
        2,
        "{kinds:?}"
    );
    assert!(kinds.contains(&"task_requeued".to_owned()), "{kinds:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_task_says_whether_its_agent_is_missing_or_only_being_probed() {
    let stage = Stage::new().await;
    let task = stage.submit("acp", &json!([])).await;
    let reason = async || stage.status(task, "waiting_reason").await.unwrap();
    assert_eq!(reason().await, "no live worker offers agent acp");
    let probing = "INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at) \
                   VALUES (gen_random_uuid(), 'acp', 'loading', 'acp', now() + interval '1 minute')";
    stage.sql.batch_execute(probing).await.unwrap();
    assert_eq!(reason().await, "agent acp is being probed");
    let ready = "UPDATE agent_offers SET status = 'ready'";
    stage.sql.batch_execute(ready).await.unwrap();
    assert_eq!(reason().await, "a free slot");
}
