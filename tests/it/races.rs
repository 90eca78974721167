//! What may go wrong between two statements: promotion, cancel, requeue and review at once, and
//! ends whose facts Postgres would refuse.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::store::Store;
use dispatch_worker::store::claims::{self, Demand, Look, LowWaterMarks};

use crate::harness::worker::{PATIENCE, Stage, agents, write};
use crate::harness::{db::TestDb, eventually};

/// A database with a project `p`, agents that a catalogue knows, and no worker.
async fn quiet() -> (TestDb, Client) {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects (name, path) VALUES ('p', '/nowhere'); \
         INSERT INTO catalogue_agents VALUES ('a'), ('b')",
    )
    .await
    .unwrap();
    (db, sql)
}

async fn text(sql: &Client, query: &str) -> String {
    let row = sql.query_one(query, &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Insert a task for agent `a`; further columns and values as SQL.
async fn task(sql: &Client, columns: &str, values: &str) -> i64 {
    let insert = format!(
        "INSERT INTO tasks (project, input, agent {columns}) VALUES ('p', 'x', 'a' {values}) RETURNING id"
    );
    sql.query_one(&insert, &[]).await.unwrap().get(0)
}

/// End a task as if it had run.
async fn end(sql: &Client, id: i64, state: &str) {
    let end = format!(
        "DELETE FROM ready_tasks WHERE task_id = {id}; DELETE FROM leases WHERE task_id = {id}; \
         INSERT INTO outcomes (task_id, seq, attempt, state) VALUES ({id}, 2, 1, '{state}')"
    );
    sql.batch_execute(&end).await.unwrap();
}

#[tokio::test]
async fn two_follow_ups_of_a_conversation_never_come_out_together() {
    let (db, sql) = quiet().await;
    let root = task(&sql, "", "").await;
    end(&sql, root, "completed").await;
    let (late, first, second) = (db.client().await, db.client().await, db.client().await);
    let follow = format!(", {root}");
    // The smaller id is committed last, while the larger one is on its way out.
    late.batch_execute("BEGIN").await.unwrap();
    task(&late, ", conversation_id", &follow).await;
    task(&sql, ", conversation_id", &follow).await;
    first
        .batch_execute("BEGIN; SELECT promote_parked(500)")
        .await
        .unwrap();
    late.batch_execute("COMMIT").await.unwrap();
    second
        .batch_execute("SELECT promote_parked(500)")
        .await
        .unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    second
        .batch_execute("SELECT promote_parked(500)")
        .await
        .unwrap();
    assert_eq!(
        text(&sql, "SELECT count(*)::text FROM ready_tasks").await,
        "1"
    );
}

#[tokio::test]
async fn a_key_with_room_is_found_behind_any_number_of_full_ones() {
    let (_db, sql) = quiet().await;
    sql.batch_execute(
        "INSERT INTO tasks (project, input, agent, limit_key) \
         SELECT 'p', 'x', 'a', 'full' || n FROM generate_series(1, 600) n, generate_series(1, 2); \
         SELECT promote_parked(500); SELECT promote_parked(500); \
         INSERT INTO tasks (project, input, agent, limit_key) VALUES ('p', 'x', 'a', 'zz')",
    )
    .await
    .unwrap();
    for _ in 0..3 {
        sql.batch_execute("SELECT promote_parked(500)")
            .await
            .unwrap();
    }
    assert_eq!(
        text(
            &sql,
            "SELECT count(*)::text FROM ready_tasks WHERE limit_key = 'zz'"
        )
        .await,
        "1"
    );
}

#[tokio::test]
async fn a_limit_set_later_holds_for_what_waits_and_counts_what_runs() {
    let (_db, sql) = quiet().await;
    for _ in 0..6 {
        task(&sql, "", "").await;
    }
    sql.batch_execute(
        "WITH gone AS (DELETE FROM ready_tasks WHERE task_id = 1 RETURNING task_id) \
         INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent) \
         SELECT task_id, 1, gen_random_uuid(), 1, 0, 'a' FROM gone; \
         UPDATE projects SET max_running = 2 WHERE name = 'p'; SELECT promote_parked(500)",
    )
    .await
    .unwrap();
    let places =
        "SELECT (SELECT count(*) FROM ready_tasks) || ' ' || (SELECT count(*) FROM parked_tasks)";
    assert_eq!(text(&sql, places).await, "1 4", "one runs, so one more may");
}

#[tokio::test]
async fn a_task_that_went_to_the_fallback_of_its_agent_can_be_cancelled() {
    let (_db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    sql.batch_execute(
        "INSERT INTO agent_offers (worker_id, name, status, execution_path, fallback, expires_at) VALUES \
         (gen_random_uuid(), 'a', 'error', 'acp', 'b', now()), \
         (gen_random_uuid(), 'b', 'ready', 'acp', NULL, now() + interval '1 hour')",
    )
    .await
    .unwrap();
    assert_eq!(text(&sql, "SELECT fall_back(500)::text").await, "1");
    assert_eq!(text(&sql, "SELECT agent FROM ready_tasks").await, "b");
    assert_eq!(
        text(&sql, &format!("SELECT cancel_task({id})")).await,
        "cancelled"
    );
}

#[tokio::test]
async fn a_task_comes_back_from_its_fallback_when_the_agent_it_asked_for_is_there_again() {
    let (_db, sql) = quiet().await;
    task(&sql, ", fallback", ", 'b'").await;
    sql.batch_execute(
        "INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at) VALUES \
         (gen_random_uuid(), 'b', 'ready', 'acp', now() + interval '1 hour'); \
         SELECT fall_back(500); \
         UPDATE agent_offers SET status = 'error'; \
         INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at) VALUES \
         (gen_random_uuid(), 'a', 'ready', 'acp', now() + interval '1 hour'); \
         SELECT fall_back(500)",
    )
    .await
    .unwrap();
    assert_eq!(text(&sql, "SELECT agent FROM ready_tasks").await, "a");
}

#[tokio::test]
async fn what_was_spent_before_a_cancel_is_part_of_the_outcome() {
    let (_db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    sql.batch_execute(&format!(
        "DELETE FROM ready_tasks; INSERT INTO later_tasks VALUES (now() + interval '1 hour', {id}, 2, 0, 'retry'); \
         INSERT INTO usage_reports (task_id, attempt, token, agent, source, total_tokens, cost, currency) \
         VALUES ({id}, 1, 1, 'a', 'reported', 700, 0.25, 'USD'); SELECT cancel_task({id})"
    ))
    .await
    .unwrap();
    assert_eq!(
        text(&sql, "SELECT cost_tokens || ' ' || cost FROM outcomes").await,
        "700 0.25"
    );
}

#[tokio::test]
async fn costs_in_two_currencies_are_not_added_up() {
    let (_db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    sql.batch_execute(&format!(
        "INSERT INTO usage_reports (task_id, attempt, token, agent, source, total_tokens, cost, currency) \
         VALUES ({id}, 1, 1, 'a', 'reported', 700, 0.25, 'USD'), ({id}, 2, 2, 'b', 'reported', 1, 3, 'EUR'); \
         SELECT cancel_task({id})"
    ))
    .await
    .unwrap();
    let spent = "SELECT cost_tokens || ' ' || coalesce(cost::text, 'unknown') FROM outcomes";
    assert_eq!(text(&sql, spent).await, "701 unknown");
}

#[tokio::test]
async fn a_task_is_not_requeued_while_its_approved_change_waits_to_be_applied() {
    let (_db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    end(&sql, id, "completed").await;
    sql.batch_execute(&format!(
        "INSERT INTO pending_changes (task_id, attempt, token, project, state, decided_by, decided_at, base_commit, \
             result_tree, result_commit, result_ref, digest, files, added_lines, removed_lines) \
         VALUES ({id}, 1, 1, 'p', 'approved', 'ada', now(), 'b', 't', 'c', 'r', 'd', 1, 1, 0)"
    ))
    .await
    .unwrap();
    let error = sql
        .execute("SELECT requeue_task($1)", &[&id])
        .await
        .expect_err("its second result would have no place");
    assert_eq!(error.code().unwrap().code(), "55000", "{error}");
    assert_eq!(text(&sql, "SELECT count(*)::text FROM outcomes").await, "1");
}

#[tokio::test]
async fn a_conversation_is_named_by_its_first_task_only() {
    let (_db, sql) = quiet().await;
    let root = task(&sql, "", "").await;
    let follow_up = task(&sql, ", conversation_id", &format!(", {root}")).await;
    let insert =
        "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'a', $1)";
    let error = sql
        .execute(insert, &[&follow_up])
        .await
        .expect_err("it is not the first task");
    let said = error.as_db_error().unwrap();
    assert!(said.hint().unwrap().contains("first task"), "{said}");
}

#[tokio::test]
async fn an_open_task_cannot_be_deleted_and_an_ended_one_can() {
    let (_db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    let error = sql
        .execute("DELETE FROM tasks", &[])
        .await
        .expect_err("it is open");
    assert!(
        error
            .as_db_error()
            .unwrap()
            .hint()
            .unwrap()
            .contains("cancel_task"),
        "{error}"
    );
    end(&sql, id, "cancelled").await;
    assert_eq!(sql.execute("DELETE FROM tasks", &[]).await.unwrap(), 1);
}

#[tokio::test]
async fn names_in_a_task_are_bounded() {
    let (_db, sql) = quiet().await;
    for column in [
        "agent",
        "model",
        "mode_id",
        "thinking_option_id",
        "fallback",
        "base_ref",
        "submitted_by",
    ] {
        let columns = if column == "agent" {
            "agent".to_owned()
        } else {
            format!("agent, {column}")
        };
        let values = if column == "agent" {
            "repeat('x', 5000)"
        } else {
            "'a', repeat('x', 5000)"
        };
        let insert =
            format!("INSERT INTO tasks (project, input, {columns}) VALUES ('p', 'x', {values})");
        let error = sql.execute(&insert, &[]).await.expect_err(column);
        assert_eq!(error.code().unwrap().code(), "23514", "{column}: {error}");
    }
}

#[tokio::test]
async fn the_highest_priority_runs_first_whatever_its_agent() {
    let (db, sql) = quiet().await;
    for _ in 0..3 {
        task(&sql, ", priority", ", 1").await;
    }
    sql.batch_execute(
        "INSERT INTO tasks (project, input, agent, priority) VALUES ('p', 'x', 'b', 9)",
    )
    .await
    .unwrap();
    let store = Store::connect(&db.url(), 1).unwrap();
    let demand = ["a", "b"].map(|agent| Demand {
        agent: agent.to_owned(),
        free: 2,
    });
    let marks = LowWaterMarks::default();
    let worker = WorkerId::fresh();
    let claimed = claims::claim(&store, worker, &demand, 2, Look::All, &marks)
        .await
        .unwrap();
    let mut agents: Vec<&str> = claimed.iter().map(|c| c.agent.as_str()).collect();
    agents.sort_unstable();
    assert_eq!(
        agents,
        ["a", "b"],
        "the agent that comes first in the alphabet does not take all"
    );
    assert_eq!(text(&sql, "SELECT count(*)::text FROM leases").await, "2");
}

#[tokio::test]
async fn a_late_commit_is_behind_the_marks_and_the_sweep_finds_it() {
    let (db, sql) = quiet().await;
    let late = db.client().await;
    late.batch_execute("BEGIN").await.unwrap();
    let early = task(&late, ", run_at", ", now() - interval '1 minute'").await;
    task(&sql, "", "").await;
    let store = Store::connect(&db.url(), 1).unwrap();
    let demand = [Demand {
        agent: "a".to_owned(),
        free: 9,
    }];
    let marks = LowWaterMarks::default();
    let worker = WorkerId::fresh();
    let look = async |look| {
        claims::claim(&store, worker, &demand, 9, look, &marks)
            .await
            .unwrap()
    };
    assert_eq!(look(Look::New).await.len(), 1);
    late.batch_execute("COMMIT").await.unwrap();
    assert!(
        look(Look::New).await.is_empty(),
        "cheap looks are blind to it"
    );
    let behind = async || {
        claims::behind_marks(&store, &["a"], &marks.of(&["a"]))
            .await
            .unwrap()
    };
    assert!(behind().await, "the sweeper sees it");
    let swept = look(Look::All).await;
    assert!(!behind().await, "and nothing once it is claimed");
    assert_eq!(
        swept.iter().map(|c| c.lease.task().0).collect::<Vec<_>>(),
        [early]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_what_was_committed_late() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let slow = stage.db.client().await;
    slow.batch_execute("BEGIN").await.unwrap();
    let early = "INSERT INTO tasks (project, input, agent, run_at) \
                 VALUES ('p', '[]', 'noop', now() - interval '1 minute') RETURNING id";
    let early: i64 = slow.query_one(early, &[]).await.unwrap().get(0);
    let next = stage.submit("noop", &json!([])).await;
    stage.reaches(next, "completed").await;
    slow.batch_execute("COMMIT").await.unwrap();
    stage.reaches(early, "completed").await;
    worker.stop().await;
}

#[tokio::test]
async fn what_is_moved_back_to_ready_asks_for_a_sweep() {
    let (db, sql) = quiet().await;
    let id = task(&sql, "", "").await;
    end(&sql, id, "failed").await;
    sql.batch_execute("INSERT INTO bells VALUES (gen_random_uuid(), now() + interval '1 hour')")
        .await
        .unwrap();
    let listener = dispatch_worker::store::listen::Listener::new();
    let mut wakeups = listener.subscribe();
    let mut up = listener.connected();
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (url, until) = (db.url(), stop.clone());
    tasks.spawn(async move { listener.run(&url, until).await });
    up.wait_for(|up| *up).await.unwrap();
    sql.execute("SELECT requeue_task($1)", &[&id])
        .await
        .unwrap();
    sql.batch_execute("SELECT maintain(500)").await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, async {
        loop {
            if wakeups.recv().await.unwrap() == dispatch_worker::store::listen::Wakeup::Moved {
                return;
            }
        }
    });
    heard
        .await
        .expect("its run_at is older than what was claimed meanwhile");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_of_a_project_run_than_its_limit_allows() {
    let stage = Stage::new().await;
    stage
        .sql
        .batch_execute(
            "UPDATE projects SET max_running = 3; \
             INSERT INTO catalogue_agents VALUES ('noop'); \
             CREATE TABLE seen (most bigint); \
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 INSERT INTO seen SELECT count(*) FROM leases; RETURN NULL; END $$; \
             CREATE TRIGGER look AFTER INSERT ON leases FOR EACH STATEMENT EXECUTE FUNCTION look(); \
             INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'noop' FROM generate_series(1, 120)",
        )
        .await
        .unwrap();
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(stage.worker_with(&agents(), |s| s.slots = 20).await);
    }
    stage
        .holds("all have ended", "SELECT count(*) = 120 FROM outcomes")
        .await;
    let most = stage.text("SELECT max(most) FROM seen").await;
    for worker in workers {
        worker.stop().await;
    }
    assert!(
        ["1", "2", "3"].contains(&most.as_str()),
        "{most} ran at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nul_in_what_an_agent_says_never_costs_the_result() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let said = stage
        .submit(
            "acp",
            &json!([write("b.txt", "b\n"), { "say": "nul \u{0} here" }]),
        )
        .await;
    let failed = stage
        .submit(
            "acp",
            &json!([{ "error": { "code": -32000, "message": "bad \u{0} byte" } }]),
        )
        .await;
    let ended = stage
        .submit("acp", &json!([{ "end": "max_tokens\u{0}" }]))
        .await;
    stage.reaches(said, "completed").await;
    let summary = stage.status(said, "output_summary").await.unwrap();
    assert_eq!(summary, "nul \u{fffd} here");
    assert_eq!(
        stage.text("SELECT count(*) FROM pending_changes").await,
        "1"
    );
    for task in [failed, ended] {
        stage
            .holds(
                "it ended or is tried again",
                &format!("SELECT count(*) > 0 FROM attempts WHERE task_id = {task} AND ended_at IS NOT NULL"),
            )
            .await;
        let error = stage
            .text(&format!(
                "SELECT error FROM attempts WHERE task_id = {task}"
            ))
            .await;
        assert!(!error.contains("could not be stored"), "{error}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_that_failed_does_not_take_the_place_of_a_good_change() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let first = stage
        .submit("cli", &json!([write("a.txt", "good\n")]))
        .await;
    stage.reaches(first, "completed").await;
    let comment = json!([write("a.txt", "half"), { "exit": 7 }]).to_string();
    let query = "SELECT request_changes((SELECT id FROM pending_changes), $1)";
    let second: i64 = stage
        .sql
        .query_one(query, &[&comment])
        .await
        .unwrap()
        .get(0);
    stage.reaches(second, "failed").await;
    let states =
        "SELECT string_agg(state || ' ' || partial, ', ' ORDER BY id) FROM pending_changes";
    assert_eq!(stage.text(states).await, "pending false, pending true");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_ended_although_its_events_cannot_be_stored_now() {
    let stage = Stage::new().await;
    stage
        .sql
        .batch_execute(
            "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$; \
             CREATE TRIGGER stall BEFORE INSERT ON events FOR EACH ROW \
                 WHEN (NEW.kind = 'tool_call') EXECUTE FUNCTION stall(); \
             SELECT pg_advisory_lock(42)",
        )
        .await
        .unwrap();
    let worker = stage.worker().await;
    let mark = format!("dispatch-{}-", worker.id);
    let tool = json!({ "tool": { "toolCallId": "t", "title": "again", "status": "in_progress" } });
    let mut script = vec![write("b.txt", "b\n"), json!({ "say": "working" })];
    script.extend(vec![tool; 3_000]);
    script.push(json!({ "hang": true }));
    let task = stage.submit("acp", &json!(script)).await;
    let behind =
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    stage.holds("the writer is behind", behind).await;
    assert!(runs(&mark));
    let ended = async {
        eventually(
            "its processes are gone",
            Duration::from_secs(30),
            || async { !runs(&mark) },
        )
        .await;
        let unlock = "SELECT pg_advisory_unlock(42)";
        stage.sql.batch_execute(unlock).await.unwrap();
    };
    tokio::join!(worker.interrupt(), ended);
    assert_eq!(
        stage.text("SELECT end_kind FROM attempts").await,
        "interrupted"
    );
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("pending")
    );
    stage.stream(task).await;
}

/// Whether a process with this mark in its environment runs.
fn runs(mark: &str) -> bool {
    let here = std::fs::read_dir("/proc").unwrap().flatten();
    here.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
        .any(|environment| {
            environment
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        })
}
