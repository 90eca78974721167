//! What a login tries beyond statements that it may not run: to give names another meaning, to hold
//! what others wait for, to send the hints of the database itself, to rewrite what was decided.

use serde_json::json;

use crate::harness::worker::{Stage, gates};

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_somebody_wants_a_task_cancelled_cancels_nothing_that_nobody_wants_cancelled() {
    let stage = Stage::new().await;
    let stranger = stage.db.login("stranger", &[]).await.client().await;
    let worker = stage.worker().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let script = json!([{ "say": "working" }, { "wait_for": gate }]);
    let wanted = stage.speaking("acp", &script).await;
    let other = stage.working("acp").await;
    for hint in ["cancel", "events", "permission", "change"] {
        let hint = format!("SELECT pg_notify('dispatch_public', '{hint} {wanted}')");
        stranger.batch_execute(&hint).await.unwrap();
    }
    // Hints are heard in order: when this one was, so were those.
    stage
        .text(&format!("SELECT cancel_task({other}, 'enough', 'anna')"))
        .await;
    stage.reaches(other, "cancelled").await;
    std::fs::write(&gate, "").unwrap();
    stage.reaches(wanted, "completed").await;
    worker.stop().await;
}
