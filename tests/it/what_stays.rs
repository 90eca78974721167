//! What plain SQL may not undo, and what it says then.

use tokio_postgres::Client;

use crate::harness::db::TestDb;

/// Task 1 ran and left a change, task 2 never ran, task 3 goes on with task 4's conversation.
const SCENE: &str = "
    INSERT INTO projects (name, path) VALUES ('p', '/x');
    INSERT INTO catalogue_agents VALUES ('a');
    INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'a' FROM generate_series(1, 4);
    DELETE FROM ready_tasks;
    INSERT INTO outcomes (task_id, token, seq, attempt, state) SELECT n, n, 2, 1, 'completed' FROM generate_series(1, 4) n;
    INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'a', 4);
    INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                 result_ref, digest, files, added_lines, removed_lines)
    VALUES (1, 1, 1, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0);
    INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind)
    VALUES (1, 1, 'a.rs', 'a.rs', 'edit', 'text');";

async fn scene() -> (TestDb, Client) {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(SCENE).await.unwrap();
    (db, sql)
}

/// The code of a refusal, which says what to do.
async fn refused(sql: &Client, statement: &str) -> String {
    let error = sql.batch_execute(statement).await.expect_err(statement);
    let error = error.as_db_error().expect("the database refuses");
    assert!(error.hint().is_some(), "{statement}: {error}");
    error.code().code().to_owned()
}

#[tokio::test]
async fn what_a_task_did_and_left_is_not_deleted_and_the_log_keeps_what_is() {
    let (_db, sql) = scene().await;
    for (statement, why) in [
        ("DELETE FROM tasks WHERE id = 1", "it left a change"),
        ("DELETE FROM tasks WHERE id = 4", "a task goes on with it"),
        ("TRUNCATE tasks", "all of it"),
    ] {
        assert_eq!(refused(&sql, statement).await, "23001", "{why}");
    }
    sql.batch_execute("DELETE FROM tasks WHERE id = 2")
        .await
        .unwrap();
    let kept =
        "SELECT detail ->> 'project', detail ->> 'submitted_by' = session_user FROM audit_log
                 WHERE action = 'task.remove' AND subject = 'task 2'";
    let kept = sql.query_one(kept, &[]).await.unwrap();
    assert_eq!((kept.get(0), kept.get(1)), ("p", true));
}

#[tokio::test]
async fn a_token_is_what_it_was_made_for_and_ends_once() {
    let (_db, sql) = scene().await;
    for name in ["ci", "old"] {
        let make = "SELECT id FROM create_token($1, '{read}', interval '1 hour', 'ada')";
        sql.query_one(make, &[&name]).await.unwrap();
    }
    sql.batch_execute("SELECT revoke_token(2)").await.unwrap();
    for statement in [
        "UPDATE tokens SET scopes = '{admin}' WHERE id = 1",
        "UPDATE tokens SET name = 'root' WHERE id = 1",
        "UPDATE tokens SET expires_at = now() + interval '9 years' WHERE id = 1",
        "UPDATE tokens SET revoked_at = NULL, revoked_by = NULL WHERE id = 2",
        "UPDATE tokens SET revoked_at = now() WHERE id = 1",
        "DELETE FROM tokens WHERE id = 1",
        "TRUNCATE tokens",
    ] {
        assert_eq!(refused(&sql, statement).await, "23001", "{statement}");
    }
}

#[tokio::test]
async fn a_decision_on_no_file_is_none() {
    let (_db, sql) = scene().await;
    for statement in [
        "SELECT decide_files(1, 'd', '{}', 'rejected')",
        "SELECT decide_files(1, 'd', '{}', 'approved')",
        "SELECT approve_change(1, 'd', only_files => '{}')",
    ] {
        assert_eq!(refused(&sql, statement).await, "22023", "{statement}");
    }
    let reviews = "SELECT count(*) FROM reviews";
    let reviews: i64 = sql.query_one(reviews, &[]).await.unwrap().get(0);
    assert_eq!(reviews, 0);
}

#[tokio::test]
async fn half_a_question_is_refused_and_not_left_to_a_worker() {
    let (_db, sql) = scene().await;
    for question in [
        r#"{"kind": "preview"}"#,
        r#"{"kind": "preview", "change": "7"}"#,
        r#"{"kind": "file", "change": 7, "side": "after"}"#,
        r#"{"kind": "file", "change": 7, "path": "a.rs"}"#,
        r#"{"kind": "check_project", "name": "p"}"#,
    ] {
        let ask = format!("SELECT ask_workers('{question}')");
        assert_eq!(refused(&sql, &ask).await, "23514", "{question}");
    }
    let whole =
        r#"SELECT ask_workers('{"kind": "file", "change": 1, "path": "a.rs", "side": "after"}')"#;
    sql.batch_execute(whole).await.unwrap();
}

#[tokio::test]
async fn who_goes_on_with_a_conversation_of_somebody_else_is_told_so() {
    let (db, sql) = scene().await;
    let ada = db.login("ada", &["dispatch_submitter"]).await;
    let ada = ada.client().await;
    let go_on =
        "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'a', 4)";
    let error = ada.batch_execute(go_on).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.code().code(), error.message()),
        ("42501", "conversation 4 was not begun by you")
    );
    assert!(error.hint().is_some());
    let begun: i64 = ada
        .query_one(
            "INSERT INTO tasks (project, input, agent) VALUES ('p', 'x', 'a') RETURNING id",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let own =
        "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'a', $1)";
    ada.execute(own, &[&begun]).await.unwrap();
    drop(sql);
}
