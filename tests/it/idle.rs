//! What wakes a worker that has nothing to do.

use dispatch_worker::store::listen::{Listener, Wakeup};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::worker::{PATIENCE, Stage};

/// What the next notification says, except that a stream has more.
async fn heard(stage: &Stage, insert: &str) -> Wakeup {
    let (listener, stop) = (Listener::new(), CancellationToken::new());
    let mut wakeups = listener.subscribe();
    let mut running = JoinSet::new();
    let (url, quiet, ear) = (stage.db.url(), stop.clone(), listener.clone());
    running.spawn(async move { ear.run(&url, quiet).await });
    let next = async |wakeups: &mut tokio::sync::broadcast::Receiver<Wakeup>| {
        tokio::time::timeout(PATIENCE, wakeups.recv())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(
        next(&mut wakeups).await,
        Wakeup::Gap,
        "it listens from now on"
    );
    stage.sql.batch_execute(insert).await.unwrap();
    stage
        .sql
        .batch_execute("SELECT pg_notify(dispatch_channel(), 'ping 7')")
        .await
        .unwrap();
    let mut first = next(&mut wakeups).await;
    while matches!(first, Wakeup::Events(_)) {
        first = next(&mut wakeups).await;
    }
    stop.cancel();
    while running.join_next().await.is_some() {}
    first
}

#[tokio::test]
async fn an_insert_notifies_only_when_somebody_waits() {
    let stage = Stage::new().await;
    stage
        .sql
        .execute("INSERT INTO catalogue_agents VALUES ('noop')", &[])
        .await
        .unwrap();
    let insert = "INSERT INTO tasks (project, input, agent) VALUES ('p', 'x', 'noop')";
    assert_eq!(
        heard(&stage, insert).await,
        Wakeup::Ping(7),
        "nobody waits: nothing is sent"
    );
    let arm = "INSERT INTO bells VALUES (gen_random_uuid(), now() + interval '1 minute')";
    stage.sql.batch_execute(arm).await.unwrap();
    assert_eq!(heard(&stage, insert).await, Wakeup::Ready);
    let scheduled = "INSERT INTO tasks (project, input, agent, run_at) \
                     VALUES ('p', 'x', 'noop', now() + interval '1 hour')";
    assert_eq!(heard(&stage, scheduled).await, Wakeup::Later);
    let limited =
        "INSERT INTO tasks (project, input, agent, limit_key) VALUES ('p', 'x', 'noop', 'k')";
    assert_eq!(heard(&stage, limited).await, Wakeup::Later);
}

#[tokio::test]
async fn nothing_scheduled_is_not_due_now() {
    let stage = Stage::new().await;
    let due = "SELECT coalesce(next_due_ms::text, 'never') FROM maintain(10)";
    assert_eq!(stage.text(due).await, "never");
    let scheduled = "INSERT INTO tasks (project, input, agent, run_at) \
                     VALUES ('p', 'x', 'noop', now() + interval '1 hour')";
    stage.sql.batch_execute(scheduled).await.unwrap();
    let due: i64 = stage.text(due).await.parse().unwrap();
    assert!((3_000_000..=3_600_000).contains(&due), "{due} ms");
}

#[tokio::test]
async fn who_finds_another_at_the_parked_tasks_looks_again_at_once() {
    let stage = Stage::new().await;
    let held =
        "INSERT INTO tasks (project, input, agent, limit_key) VALUES ('p', 'x', 'noop', 'k')";
    stage.sql.batch_execute(held).await.unwrap();
    let mut other = stage.db.client().await;
    let busy = other.transaction().await.unwrap();
    let lock = "LOCK TABLE promoting IN SHARE UPDATE EXCLUSIVE MODE";
    busy.batch_execute(lock).await.unwrap();
    let due = "SELECT moved || ' moved, again in ' || coalesce(next_due_ms::text, 'never') FROM maintain(10)";
    assert_eq!(stage.text(due).await, "0 moved, again in 0");
    busy.rollback().await.unwrap();
    assert_eq!(stage.text(due).await, "1 moved, again in never");
}

#[tokio::test]
async fn more_room_under_a_limit_is_told_to_those_who_wait() {
    let stage = Stage::new().await;
    let armed = "INSERT INTO bells VALUES (gen_random_uuid(), now() + interval '1 minute'); \
                 INSERT INTO limits VALUES ('k', 1)";
    stage.sql.batch_execute(armed).await.unwrap();
    let more = "UPDATE limits SET max_running = 2 WHERE limit_key = 'k'";
    assert_eq!(heard(&stage, more).await, Wakeup::Later);
    let two = "INSERT INTO tasks (project, input, agent, limit_key) \
               SELECT 'p', 'x', 'noop', 'k' FROM generate_series(1, 2)";
    assert_eq!(heard(&stage, two).await, Wakeup::Later);
    let cancel = "SELECT cancel_task(min(id)) FROM tasks";
    assert_eq!(heard(&stage, cancel).await, Wakeup::Later);
}

#[tokio::test]
async fn tasks_that_can_go_nowhere_else_are_not_walked_by_the_maintenance() {
    let mut stage = Stage::new().await;
    let stranded = "INSERT INTO catalogue_agents VALUES ('gone'); \
                    INSERT INTO tasks (project, input, agent) \
                    SELECT 'p', 'x', 'gone' FROM generate_series(1, 2000)";
    stage.sql.batch_execute(stranded).await.unwrap();
    let looking = stage.sql.transaction().await.unwrap();
    let read = async || -> i64 {
        let query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables \
                     WHERE relid = 'ready_tasks'::regclass";
        looking.query_one(query, &[]).await.unwrap().get(0)
    };
    let before = read().await;
    looking.batch_execute("SELECT maintain(500)").await.unwrap();
    let rows = read().await - before;
    assert!(rows < 100, "{rows} rows were read");
}
