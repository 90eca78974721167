//! Four eyes: nobody approves a change whose agent they told what to do.

use dispatch_worker::ops::{self, OpContext, OpErrorKind};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::db::TestDb;

/// A task of this person in project `p`, ended, with a change that waits; numbers of both.
async fn change_of(sql: &Client, person: &str, conversation: Option<i64>) -> (i64, i64) {
    let submit = "INSERT INTO tasks(project, input, agent, submitted_by, conversation_id)
                  VALUES ('p', 'x', 'a', $1, $2) RETURNING id";
    let task: i64 = sql
        .query_one(submit, &[&person, &conversation])
        .await
        .unwrap()
        .get(0);
    (task, change_for(sql, task).await)
}

/// The end of a task with a change.
async fn change_for(sql: &Client, task: i64) -> i64 {
    let end = format!(
        "DELETE FROM ready_tasks WHERE task_id = {task}; DELETE FROM parked_tasks WHERE task_id = {task};
         INSERT INTO outcomes(task_id, seq, attempt, state) VALUES ({task}, 2, 1, 'completed');
         INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                     result_ref, digest, files, added_lines, removed_lines)
         VALUES ({task}, 1, {task}, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0);
         INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind)
         SELECT max(id), 1, 'f', 'f', 'edit', 'text' FROM pending_changes"
    );
    sql.batch_execute(&end).await.unwrap();
    let newest = "SELECT max(id) FROM pending_changes";
    sql.query_one(newest, &[]).await.unwrap().get(0)
}

/// The message of a refusal; `None`: it was approved.
async fn approve(sql: &Client, change: i64, person: &str) -> Option<String> {
    let approve = "SELECT approve_change($1, 'd', actor => $2)";
    match sql.query(approve, &[&change, &person]).await {
        Ok(_) => None,
        Err(error) => {
            let error = error.as_db_error().unwrap().clone();
            assert_eq!(error.code().code(), "42501", "{error:?}");
            assert!(error.hint().unwrap().contains("somebody"), "{error:?}");
            Some(error.message().to_owned())
        }
    }
}

async fn database(rule: &str) -> (TestDb, Client) {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute("INSERT INTO projects(name, path) VALUES ('p', '/x')")
        .await
        .unwrap();
    sql.batch_execute(rule).await.unwrap();
    (db, sql)
}

const BY_PROJECT: &str = "UPDATE projects SET four_eyes = true";
const BY_FLEET: &str = "INSERT INTO settings VALUES ('four_eyes', 'on')";

#[tokio::test]
async fn who_submitted_a_task_does_not_approve_its_change_where_the_rule_holds() {
    for rule in [BY_PROJECT, BY_FLEET] {
        let (_db, sql) = database(rule).await;
        let (task, change) = change_of(&sql, "ada", None).await;
        let told = approve(&sql, change, "ada").await.unwrap();
        assert_eq!(
            told,
            format!(
                "change {change} needs a second pair of eyes: ada submitted task {task}, which led to it"
            )
        );
        // The same person over HTTP.
        assert!(approve(&sql, change, "ada (http)").await.is_some());
        let state: String = sql
            .query_one("SELECT state FROM pending_changes", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(state, "pending");
        assert_eq!(approve(&sql, change, "bob").await, None);
    }
}

#[tokio::test]
async fn without_the_rule_everybody_approves() {
    let off = "INSERT INTO settings VALUES ('four_eyes', 'off')";
    for rule in ["", off] {
        let (_db, sql) = database(rule).await;
        let (_, change) = change_of(&sql, "ada", None).await;
        assert_eq!(approve(&sql, change, "ada").await, None);
    }
    let (_db, sql) = database("").await;
    let typo = sql.execute("INSERT INTO settings VALUES ('four_eyes', 'yes')", &[]);
    let typo = typo.await.unwrap_err();
    let rule = typo.as_db_error().unwrap().constraint();
    assert_eq!(rule, Some("four_eyes_is_on_or_off"));
}

#[tokio::test]
async fn a_follow_up_makes_nobody_a_second_pair_of_eyes() {
    let (_db, sql) = database(BY_PROJECT).await;
    let (first, change) = change_of(&sql, "ada", None).await;
    // bob asks for more: from then on the agent follows his words, too.
    let ask = "SELECT request_changes($1, 'also this', 'bob')";
    let follow_up: i64 = sql.query_one(ask, &[&change]).await.unwrap().get(0);
    let newer = change_for(&sql, follow_up).await;
    for person in ["ada", "bob"] {
        assert!(approve(&sql, newer, person).await.is_some(), "{person}");
    }
    // The change before it has nothing of bob's.
    assert!(approve(&sql, change, "ada").await.is_some());
    assert_eq!(approve(&sql, change, "bob").await, None);
    // A third one of the conversation, submitted plainly by carol.
    let (_, third) = change_of(&sql, "carol", Some(first)).await;
    for person in ["ada", "bob", "carol"] {
        assert!(approve(&sql, third, person).await.is_some(), "{person}");
    }
    assert_eq!(approve(&sql, third, "dan").await, None);
    // A change of another conversation is bob's to approve.
    let (_, other) = change_of(&sql, "ada", None).await;
    assert_eq!(approve(&sql, other, "bob").await, None);
}

#[tokio::test]
async fn a_requeued_task_that_works_on_top_of_a_later_one_makes_nobody_a_second_pair_of_eyes() {
    let (_db, sql) = database(BY_PROJECT).await;
    let (first, _) = change_of(&sql, "bob", None).await;
    let ran = "INSERT INTO attempts(task_id, attempt, token, worker_id, agent, execution_path, conversation_id)
               VALUES ($1, 1, $1, '00000000-0000-0000-0000-000000000001', 'a', 'acp', $2)";
    let (later, _) = change_of(&sql, "ada", Some(first)).await;
    sql.execute(ran, &[&later, &first]).await.unwrap();
    // Dan's comes after: nothing of his is in what the first task leaves now.
    sql.query("SELECT requeue_task($1, 'ada')", &[&first])
        .await
        .unwrap();
    let again = format!(
        "DELETE FROM later_tasks WHERE task_id = {first};
         INSERT INTO outcomes(task_id, seq, attempt, state) VALUES ({first}, 9, 2, 'completed');
         INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                     result_ref, digest, files, added_lines, removed_lines)
         VALUES ({first}, 2, 99, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0);
         INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind)
         SELECT max(id), 1, 'f', 'f', 'edit', 'text' FROM pending_changes"
    );
    sql.batch_execute(&again).await.unwrap();
    let newest: i64 = sql
        .query_one("SELECT max(id) FROM pending_changes", &[])
        .await
        .unwrap()
        .get(0);
    let (dans, _) = change_of(&sql, "dan", Some(first)).await;
    sql.execute(ran, &[&dans, &first]).await.unwrap();
    for person in ["bob", "ada"] {
        assert!(approve(&sql, newest, person).await.is_some(), "{person}");
    }
    assert_eq!(approve(&sql, newest, "dan").await, None);
}

#[tokio::test]
async fn an_author_sets_files_aside_and_takes_none_back() {
    let (_db, sql) = database(BY_PROJECT).await;
    let (_, change) = change_of(&sql, "ada", None).await;
    let decide = "SELECT decide_files($1, 'd', ARRAY['f'], $2, $3)";
    for verdict in ["pending", "approved"] {
        let refused = sql.query(decide, &[&change, &verdict, &"ada"]).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.as_db_error().unwrap().code().code(), "42501");
    }
    for (verdict, person) in [("rejected", "ada"), ("pending", "bob"), ("rejected", "bob")] {
        sql.query(decide, &[&change, &verdict, &person])
            .await
            .unwrap();
    }
    // Own work may be rejected and asked more of.
    let ask = "SELECT request_changes($1, 'more', 'ada')";
    sql.query(ask, &[&change]).await.unwrap();
    sql.query("SELECT reject_change($1, 'no', 'ada')", &[&change])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_conflict_that_is_approved_again_needs_the_second_pair_again() {
    let (_db, sql) = database(BY_PROJECT).await;
    let (_, change) = change_of(&sql, "ada", None).await;
    assert_eq!(approve(&sql, change, "bob").await, None);
    sql.batch_execute("UPDATE pending_changes SET state = 'conflicted'")
        .await
        .unwrap();
    assert!(approve(&sql, change, "ada").await.is_some());
    assert_eq!(approve(&sql, change, "bob").await, None);
}

#[tokio::test]
async fn the_rule_is_set_by_the_operations_and_told_as_a_refusal() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let (context, _listener) = OpContext::open(&db.url(), 2, "ada".to_owned()).unwrap();
    let call =
        async |name: &str, input: Value| (ops::find(name).unwrap().call)(&context, input).await;
    let added = json!({"name": "p", "path": "/x", "unchecked": true, "four_eyes": true});
    let added = call("project.add", added).await.unwrap();
    assert_eq!(added["four_eyes"], true);
    let (_, change) = change_of(&sql, "ada", None).await;
    let refused = call("change.approve", json!({"id": change, "digest": "d"})).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, OpErrorKind::Forbidden, "{refused:?}");
    assert!(refused.message.contains("second pair of eyes"), "{refused}");
    assert!(refused.hint.unwrap().starts_with("Let somebody approve it"));
    let kept = call("project.update", json!({"name": "p", "max_running": 2}))
        .await
        .unwrap();
    assert_eq!(kept["four_eyes"], true, "what is not named stays");
    let off = call("project.update", json!({"name": "p", "four_eyes": false}))
        .await
        .unwrap();
    assert_eq!(off["four_eyes"], false);
    call("change.approve", json!({"id": change, "digest": "d"}))
        .await
        .unwrap();
    let told = "SELECT detail::text FROM audit_log WHERE action = 'project.update' ORDER BY id DESC LIMIT 1";
    let told: String = sql.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, r#"{"four_eyes": {"to": false, "from": true}}"#);
}
