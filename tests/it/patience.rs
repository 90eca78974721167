//! A lock that somebody holds holds nothing up for ever.

use std::time::Duration;

use dispatch_worker::domain::ids::TaskId;
use dispatch_worker::store::{Store, StoreErrorKind, tasks};
use serde_json::json;

use crate::harness::worker::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_a_lock_ends_with_a_clear_error_and_its_connection_goes() {
    let stage = Stage::new().await;
    let task = TaskId(stage.submit("acp", &json!([])).await);
    let store = Store::connect(&stage.db.url(), 1)
        .unwrap()
        .with_patience(Duration::from_millis(300));
    let mut blocker = stage.db.client().await;
    let hold = blocker.transaction().await.unwrap();
    hold.batch_execute("LOCK TABLE tasks").await.unwrap();
    let error = tasks::get(&store, task).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    assert!(
        error.message.contains("did not answer within 300ms"),
        "{error}"
    );
    assert_eq!(
        store.pool_status(),
        (0, 0),
        "nobody gets the busy connection"
    );
    let waiting = "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock')";
    stage
        .holds("the server does not go on with it", waiting)
        .await;
    drop(hold);
    drop(blocker);
    let seen = tasks::get(&store, task).await.unwrap();
    assert!(seen.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_caller_gave_up_is_not_given_to_the_next_one() {
    let stage = Stage::new().await;
    let task = TaskId(stage.submit("acp", &json!([])).await);
    let store = Store::connect(&stage.db.url(), 1).unwrap();
    let mut blocker = stage.db.client().await;
    let hold = blocker.transaction().await.unwrap();
    hold.batch_execute("LOCK TABLE tasks").await.unwrap();
    let gave_up = tokio::time::timeout(Duration::from_millis(300), tasks::get(&store, task)).await;
    assert!(gave_up.is_err());
    // Behind the statement that waits this would wait too, longer than the bound of the test.
    let version = tokio::time::timeout(Duration::from_secs(10), store.schema_version()).await;
    assert!(version.unwrap().unwrap() > 0);
    drop(hold);
}
