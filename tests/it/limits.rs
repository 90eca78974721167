//! Limits that change, or go, while tasks wait under them.

use dispatch_worker::store::listen::{Listener, Wakeup};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::worker::{PATIENCE, Stage};

/// Ready tasks after one look of the maintenance.
async fn let_out(stage: &Stage) -> String {
    stage.text("SELECT moved FROM maintain(500)").await;
    stage.text("SELECT count(*) FROM ready_tasks").await
}

async fn submit(stage: &Stage, tasks: i32, key: Option<&str>) {
    let insert = "INSERT INTO tasks (project, input, agent, limit_key) \
                  SELECT 'p', 'x', 'acp', $2 FROM generate_series(1, $1)";
    stage.sql.execute(insert, &[&tasks, &key]).await.unwrap();
}

#[tokio::test]
async fn a_limit_whose_row_is_deleted_lets_one_task_out_at_a_time() {
    let stage = Stage::new().await;
    submit(&stage, 3, Some("k")).await;
    submit(&stage, 2, Some("other")).await;
    stage.sql.batch_execute("DELETE FROM limits").await.unwrap();
    assert_eq!(let_out(&stage).await, "2", "one of each key");
    assert_eq!(let_out(&stage).await, "2");
    stage
        .text("SELECT cancel_task(task_id) FROM ready_tasks WHERE limit_key = 'k'")
        .await;
    assert_eq!(let_out(&stage).await, "2", "the next one");
}

#[tokio::test]
async fn a_project_whose_limit_row_is_deleted_keeps_its_limit() {
    let stage = Stage::new().await;
    let sql = &stage.sql;
    sql.batch_execute("UPDATE projects SET max_running = 2")
        .await
        .unwrap();
    submit(&stage, 4, None).await;
    sql.batch_execute("DELETE FROM limits").await.unwrap();
    assert_eq!(let_out(&stage).await, "2");
    sql.batch_execute("UPDATE projects SET max_running = 3")
        .await
        .unwrap();
    assert_eq!(let_out(&stage).await, "3");
    sql.batch_execute("UPDATE projects SET max_running = NULL; DELETE FROM limits")
        .await
        .unwrap();
    assert_eq!(let_out(&stage).await, "4", "no limit any more");
}

#[tokio::test]
async fn a_limit_of_a_project_that_is_lifted_lets_everything_out() {
    let stage = Stage::new().await;
    let sql = &stage.sql;
    sql.batch_execute("UPDATE projects SET max_running = 1")
        .await
        .unwrap();
    submit(&stage, 3, None).await;
    assert_eq!(let_out(&stage).await, "1");
    sql.batch_execute("UPDATE projects SET max_running = NULL")
        .await
        .unwrap();
    assert_eq!(let_out(&stage).await, "3");
}

#[tokio::test]
async fn a_key_of_its_own_stands_in_for_the_limit_of_the_project() {
    let stage = Stage::new().await;
    let sql = &stage.sql;
    sql.batch_execute("UPDATE projects SET max_running = 1")
        .await
        .unwrap();
    submit(&stage, 2, None).await;
    submit(&stage, 2, Some("k")).await;
    assert_eq!(let_out(&stage).await, "2", "one for each key");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_limit_wakes_the_maintenance() {
    let stage = Stage::new().await;
    submit(&stage, 1, Some("k")).await;
    let listener = Listener::new();
    let stop = CancellationToken::new();
    let (mut connected, mut heard) = (listener.connected(), listener.subscribe());
    let mut listening = JoinSet::new();
    let (url, quiet) = (stage.db.url(), stop.clone());
    listening.spawn(async move { listener.run(&url, quiet).await });
    connected.wait_for(|up| *up).await.unwrap();
    let waits = "INSERT INTO bells VALUES (gen_random_uuid(), now() + interval '1 minute')";
    stage.sql.batch_execute(waits).await.unwrap();
    for change in ["UPDATE limits SET max_running = 2", "DELETE FROM limits"] {
        stage.sql.batch_execute(change).await.unwrap();
        let told = async { while heard.recv().await.unwrap() != Wakeup::Later {} };
        tokio::time::timeout(PATIENCE, told).await.expect(change);
    }
    stop.cancel();
    listening.join_next().await.unwrap().unwrap();
}
