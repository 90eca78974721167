//! Every act of an operator leaves one row that nobody can change, by whichever door it came.

use std::sync::Arc;

use dispatch_worker::ops::doctor::Finding;
use dispatch_worker::ops::{self, CheckDepth, Effect, OpContext, OpError, ProbeReport, Prober};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::db::TestDb;

struct Here;

impl Prober for Here {
    fn knows(&self, agent: &str) -> Result<bool, OpError> {
        Ok(agent == "a")
    }

    fn probe<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<Option<ProbeReport>, OpError>> {
        let nothing = Value::Null;
        let report = ProbeReport {
            name: agent.to_owned(),
            worker: None,
            status: "ready".to_owned(),
            error: None,
            execution_path: "acp".to_owned(),
            version: None,
            models: nothing.clone(),
            modes: nothing.clone(),
            thinking_options: nothing.clone(),
            commands: nothing.clone(),
            capabilities: nothing,
        };
        async move { Ok(Some(report)) }.boxed()
    }

    fn check<'a>(
        &'a self,
        _agent: &'a str,
        _depth: CheckDepth,
    ) -> BoxFuture<'a, Result<Option<Vec<Finding>>, OpError>> {
        async { Ok(Some(Vec::new())) }.boxed()
    }
}

/// Task 1 waits, task 2 is over, tasks 3 to 6 are over and left a change each, of which the last is
/// applied; question 1 is open.
const SCENE: &str = "
    INSERT INTO workers(id, name, version, slots) VALUES (gen_random_uuid(), 'w-1', '1', 1);
    INSERT INTO projects(name, path) VALUES ('p', '/x'), ('unused', '/y');
    INSERT INTO tasks(project, input, agent) SELECT 'p', 'x', 'a' FROM generate_series(1, 6);
    DELETE FROM ready_tasks WHERE task_id > 1;
    INSERT INTO outcomes(task_id, seq, attempt, state) SELECT n, 2, 1, 'completed' FROM generate_series(2, 6) n;
    INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                result_ref, digest, files, added_lines, removed_lines, state)
    SELECT n, 1, n, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0, CASE n WHEN 6 THEN 'applied' ELSE 'pending' END
      FROM generate_series(3, 6) n;
    INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind)
    SELECT id, 1, 'f', 'f', 'edit', 'text' FROM pending_changes;
    INSERT INTO permission_requests(task_id, attempt, token, agent, kind, title)
    VALUES (1, 1, 1, 'a', 'execute', 'ls'), (1, 1, 1, 'a', 'execute', 'ls');
    INSERT INTO inbox(conversation_id, text, sent_by, state) VALUES (3, 'x', 'ada', 'held');
    INSERT INTO conversations(id, project, agent) VALUES (3, 'p', 'a');
    INSERT INTO messages(conversation_id, seq, ord, task_id, attempt, step, role, parts)
    VALUES (3, 1, 1, 3, 1, 0, 'user', '[]');
    INSERT INTO provider_pauses(provider, until, class, message) VALUES ('acme', now() + interval '1 hour', 'auth', 'no');
    INSERT INTO tokens(name, hash, scopes, created_by, expires_at)
    VALUES ('old', '', '{read}', 'ada', now() + interval '1 day');";

/// A call of each operation that has an effect, and what its row is about.
fn act(name: &str) -> Option<(Value, &'static str)> {
    Some(match name {
        // The row of the task says who, and is listed with the others.
        "task.submit" | "task.submit-many" => return None,
        "task.cancel" => (json!({"id": 1, "reason": "no"}), "task 1"),
        "task.requeue" => (json!({"id": 2}), "task 2"),
        "change.approve" => (json!({"id": 1, "digest": "d"}), "change 1"),
        "change.reject" => (json!({"id": 2}), "change 2"),
        "change.request-changes" => (json!({"id": 3, "comment": "more"}), "change 3"),
        "change.restore" => (json!({"id": 3, "files": ["f"], "digest": "d"}), "change 3"),
        "change.undo" => (json!({"id": 4}), "change 4"),
        "limit.set" => (json!({"key": "k", "max_running": 2}), "limit k"),
        "setting.set" => (
            json!({"name": "four_eyes", "value": "on"}),
            "setting four_eyes",
        ),
        "permission.answer" => (json!({"id": 1, "answer": "deny"}), "permission 1"),
        "conversation.compact" => (json!({"id": 3}), "conversation 3"),
        "message.send" => (json!({"id": 2, "text": "x"}), "message 2"),
        "message.cancel" => (json!({"id": 1}), "message 1"),
        "provider.resume" => (json!({"name": "acme"}), "provider acme"),
        "token.create" => (json!({"name": "ci", "scopes": ["read"]}), "token 2"),
        "token.revoke" => (json!({"id": 1}), "token 1"),
        "agent.probe" | "agent.check" => (json!({"name": "a", "here": true}), "agent a"),
        "project.add" => (
            json!({"name": "new", "path": "/z", "unchecked": true}),
            "project new",
        ),
        "project.update" => (json!({"name": "p", "max_running": 3}), "project p"),
        "worker.drain" | "worker.resume" => (json!({"worker": "w-1"}), "worker w-1"),
        "project.remove" => (json!({"name": "unused"}), "project unused"),
        other => {
            panic!("{other} has an effect: call it here, and see that it leaves a row in audit_log")
        }
    })
}

/// The action of an operation's row: its own name, save where plain SQL and a function are doors to it too.
fn action_of(name: &str) -> &str {
    match name {
        "limit.set" => "limit.add",
        "setting.set" => "setting.add",
        "change.restore" => "change.decide-files",
        own => own,
    }
}

async fn rows(sql: &Client, after: i64) -> Vec<(i64, String, String, String)> {
    let query = "SELECT id, actor, action, subject FROM audit_log WHERE id > $1 ORDER BY id";
    let rows = sql.query(query, &[&after]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect()
}

async fn newest(sql: &Client) -> i64 {
    let query = "SELECT coalesce(max(id), 0) FROM audit_log";
    sql.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn every_operation_with_an_effect_leaves_one_row_with_its_actor_and_subject() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(SCENE).await.unwrap();
    let (mut context, _listener) = OpContext::open(&db.url(), 2, "ada".to_owned()).unwrap();
    context.prober = Some(Arc::new(Here));
    let mut walked = 0;
    for entry in ops::ALL {
        if entry.spec.effect == Effect::Read {
            continue;
        }
        let Some((input, subject)) = act(entry.spec.name) else {
            continue;
        };
        let before = newest(&sql).await;
        let done = (entry.call)(&context, input).await;
        done.unwrap_or_else(|error| panic!("{}: {error:?}", entry.spec.name));
        let left = rows(&sql, before).await;
        let [(_, actor, action, about)] = left.as_slice() else {
            panic!("{} leaves {left:?}", entry.spec.name);
        };
        let action = action.replace('_', "-");
        assert_eq!(
            (actor.as_str(), action.as_str(), about.as_str()),
            ("ada", action_of(entry.spec.name), subject)
        );
        walked += 1;
    }
    assert!(walked >= 11, "{walked}");
    // What is not there, or changes nothing, is no act.
    let before = newest(&sql).await;
    for (name, input, done) in [
        ("agent.probe", json!({"name": "nope", "here": true}), false),
        ("agent.check", json!({"name": "nope", "here": true}), false),
        ("agent.probe", json!({"name": "nope"}), false),
        ("agent.check", json!({"name": "nope"}), false),
        ("project.update", json!({"name": "p"}), true),
        (
            "project.update",
            json!({"name": "p", "max_running": 3}),
            true,
        ),
        ("limit.set", json!({"key": "k", "max_running": 2}), true),
        (
            "setting.set",
            json!({"name": "four_eyes", "value": "on"}),
            true,
        ),
    ] {
        let called = (ops::find(name).unwrap().call)(&context, input.clone()).await;
        assert_eq!(called.is_ok(), done, "{name} {input}: {called:?}");
    }
    assert_eq!(rows(&sql, before).await, []);
    // The form of an operation that has another action of its own: files of a change.
    let before = newest(&sql).await;
    let files = json!({"id": 3, "files": ["f"], "digest": "d"});
    let reject = ops::find("change.reject").unwrap();
    (reject.call)(&context, files).await.unwrap();
    let left = rows(&sql, before).await;
    assert_eq!((left.len(), left[0].2.as_str()), (1, "change.decide_files"));
}

#[tokio::test]
async fn whoever_submitted_a_task_is_listed_among_those_who_did_something_page_by_page() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    // Two at the same moment, and one with a later number and an earlier time.
    sql.batch_execute(
        "INSERT INTO projects(name, path) VALUES ('p', '/x');
         INSERT INTO catalogue_agents(name) VALUES ('a');
         INSERT INTO tasks(project, input, agent, submitted_by) VALUES ('p', 'x', 'a', 'bob'), ('p', 'y', 'a', 'ada');
         SELECT cancel_task(1, 'no', 'ada');
         INSERT INTO audit_log(at, actor, action, subject)
         VALUES (now() - interval '1 hour', 'ada', 'x', 'late'), (now(), 'ada', 'x', 'last')",
    )
    .await
    .unwrap();
    let (context, _listener) = OpContext::open(&db.url(), 2, "ada".to_owned()).unwrap();
    let call = async |name: &str, input| (ops::find(name).unwrap().call)(&context, input).await;
    call(
        "task.submit",
        json!({"project": "p", "input": "z", "agent": "a"}),
    )
    .await
    .unwrap();
    let whole = call("audit.list", json!({})).await.unwrap();
    let about = |page: &Value| -> Vec<String> {
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["subject"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = about(&whole);
    assert_eq!(whole["data"][0]["task"], 3, "{whole}");
    assert_eq!(
        whole["data"][0]["detail"],
        json!({"project": "p", "agent": "a"})
    );
    for subject in ["task 1", "task 2", "task 3", "late", "last", "project p"] {
        assert!(all.iter().any(|one| one == subject), "{subject} in {all:?}");
    }
    let mut paged = Vec::new();
    let mut cursor = None;
    loop {
        let page = call("audit.list", json!({"limit": 1, "cursor": cursor})).await;
        let page = page.unwrap();
        paged.extend(about(&page));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let of = async |input| about(&call("audit.list", input).await.unwrap());
    assert_eq!(of(json!({"actor": "bob"})).await, ["task 1"]);
    let first = of(json!({"subject": "task 1"})).await;
    assert_eq!(
        first,
        ["task 1", "task 1"],
        "it was submitted, and cancelled"
    );
    let query = "SELECT count(*) FROM acts WHERE actor = 'ada' AND action = 'task.submit'";
    let acts: i64 = sql.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(acts, 2);
    let made_up = call("audit.list", json!({"cursor": "7"})).await;
    assert!(made_up.unwrap_err().hint.unwrap().contains("next_cursor"));
}

#[tokio::test]
async fn a_change_is_not_approved_by_nobody() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(SCENE).await.unwrap();
    for statement in [
        "UPDATE pending_changes SET state = 'approved' WHERE id = 1",
        "UPDATE pending_changes SET state = 'approved', decided_by = 'ada' WHERE id = 1",
        "UPDATE pending_changes SET state = 'approved', decided_by = ' ', decided_at = now() WHERE id = 1",
    ] {
        let refused = sql.batch_execute(statement).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), "23514", "{statement}");
        assert!(refused.hint().unwrap().contains("approve_change"));
    }
    sql.batch_execute("SELECT approve_change(1, 'd', actor => 'ada')")
        .await
        .unwrap();
    let forgotten = sql.batch_execute("UPDATE pending_changes SET decided_by = NULL WHERE id = 1");
    assert!(forgotten.await.is_err());
    // Who approved it before it came into conflict has not approved it since.
    sql.batch_execute("UPDATE pending_changes SET state = 'conflicted' WHERE id = 1")
        .await
        .unwrap();
    let again = sql.batch_execute("UPDATE pending_changes SET state = 'approved' WHERE id = 1");
    assert!(again.await.is_err());
    sql.batch_execute("SELECT approve_change(1, 'd', actor => 'bob')")
        .await
        .unwrap();
}

#[tokio::test]
async fn settings_that_are_changed_by_plain_sql_leave_a_row_each_with_what_changed() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let login: String = sql
        .query_one("SELECT session_user::text", &[])
        .await
        .unwrap()
        .get(0);
    let before = newest(&sql).await;
    for (statement, action, subject, detail) in [
        (
            "INSERT INTO projects(name, path) VALUES ('p', '/x')",
            "project.add",
            "project p",
            "/x",
        ),
        (
            "UPDATE projects SET four_eyes = true, max_running = 2",
            "project.update",
            "project p",
            r#""max_running": {"to": 2, "from": null}"#,
        ),
        (
            "UPDATE projects SET name = 'q'",
            "project.update",
            "project p",
            r#""to": "q""#,
        ),
        (
            "DELETE FROM projects",
            "project.remove",
            "project q",
            r#""four_eyes": true"#,
        ),
        (
            "INSERT INTO settings VALUES ('four_eyes', 'on')",
            "setting.add",
            "setting four_eyes",
            "on",
        ),
        (
            "UPDATE settings SET value = 'off'",
            "setting.update",
            "setting four_eyes",
            r#"{"to": "off", "from": "on"}"#,
        ),
        (
            "DELETE FROM settings",
            "setting.remove",
            "setting four_eyes",
            "off",
        ),
        (
            "INSERT INTO limits VALUES ('k', 2)",
            "limit.add",
            "limit k",
            "2",
        ),
        (
            "UPDATE limits SET max_running = 3 WHERE limit_key = 'k'",
            "limit.update",
            "limit k",
            r#""from": 2"#,
        ),
        (
            "DELETE FROM limits WHERE limit_key = 'k'",
            "limit.remove",
            "limit k",
            "3",
        ),
        ("TRUNCATE limits", "limit.remove", "limit (all)", "{}"),
        ("TRUNCATE settings", "setting.remove", "setting (all)", "{}"),
        ("SELECT grant_rights()", "rights.grant", "rights", "made"),
    ] {
        let before = newest(&sql).await;
        sql.batch_execute(statement).await.unwrap();
        let query = "SELECT actor, action, subject, detail::text FROM audit_log WHERE id > $1";
        let left = sql.query(query, &[&before]).await.unwrap();
        assert_eq!(left.len(), 1, "{statement}");
        let told: [String; 4] = std::array::from_fn(|n| left[0].get(n));
        assert_eq!(told[..3], [login.as_str(), action, subject], "{statement}");
        assert!(told[3].contains(detail), "{statement}: {}", told[3]);
    }
    let all = rows(&sql, before).await;
    assert!(all.len() == 13, "{all:?}");
}

#[tokio::test]
async fn what_tasks_and_workers_write_by_themselves_is_no_act_of_an_operator() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute("INSERT INTO projects(name, path) VALUES ('p', '/x')")
        .await
        .unwrap();
    let before = newest(&sql).await;
    sql.batch_execute(
        "INSERT INTO tasks(project, input, agent, limit_key) SELECT 'p', 'x', 'a', 'k' || n FROM generate_series(1, 5) n",
    )
    .await
    .unwrap();
    assert_eq!(newest(&sql).await, before);
    // What agents.toml says is told once, and not at each start of a worker.
    let worker = db.login("worker", &["dispatch_worker"]).await;
    let client = worker.client().await;
    let publish = "INSERT INTO settings VALUES ('default_agent', 'a') ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value";
    for _ in 0..3 {
        client.batch_execute(publish).await.unwrap();
    }
    let left = rows(&sql, before).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1, worker.name);
    // A name that a login gives itself is not believed.
    client
        .batch_execute(
            "BEGIN; SET LOCAL dispatch.actor = 'bob'; UPDATE settings SET value = 'b'; COMMIT",
        )
        .await
        .unwrap();
    let left = rows(&sql, left[0].0).await;
    assert_eq!((left.len(), left[0].1.as_str()), (1, worker.name.as_str()));
}

#[tokio::test]
async fn the_log_and_the_reviews_are_append_only_for_their_owner_too() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects(name, path) VALUES ('p', '/x');
         INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                     result_ref, digest, files, added_lines, removed_lines)
         VALUES (1, 1, 1, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0);
         INSERT INTO reviews(change_id, actor, verdict) VALUES (1, 'bob', 'approved')",
    )
    .await
    .unwrap();
    let before = rows(&sql, 0).await;
    for (begin, statement) in [
        ("", "UPDATE audit_log SET actor = 'nobody'"),
        ("", "DELETE FROM audit_log"),
        ("", "TRUNCATE audit_log"),
        ("", "TRUNCATE reviews"),
        ("", "UPDATE reviews SET actor = 'nobody'"),
        ("", "DELETE FROM reviews"),
        // They would go with it.
        ("", "DELETE FROM pending_changes"),
        // Where triggers are off for what comes by replication.
        (
            "SET LOCAL session_replication_role = replica;",
            "DELETE FROM audit_log",
        ),
        (
            "SET LOCAL session_replication_role = replica;",
            "TRUNCATE audit_log",
        ),
        (
            "SET LOCAL session_replication_role = replica;",
            "DELETE FROM reviews",
        ),
    ] {
        let refused = sql
            .batch_execute(&format!("BEGIN; {begin} {statement}; COMMIT"))
            .await;
        let refused = refused.unwrap_err();
        sql.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(
            refused.as_db_error().unwrap().code().code(),
            "23001",
            "{statement}"
        );
    }
    assert_eq!(rows(&sql, 0).await, before);
}
