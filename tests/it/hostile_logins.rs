//! What a login tries beyond statements that it may not run: to give names another meaning, to hold
//! what others wait for, to send the hints of the database itself, to rewrite what was decided.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::harness::db::{TestDb, migration_files};
use crate::harness::worker::{Stage, gates};

/// A worker of the fleet in which task 1 of `ada` has change 1, which waits, and task 2 has change 2,
/// which is applied; questions 1 and 2 are open.
const SCENE: &str = "
    INSERT INTO catalogue_agents(name) VALUES ('a');
    INSERT INTO projects(name, path) VALUES ('p', '/x');
    INSERT INTO tasks(project, input, agent, submitted_by) VALUES ('p', 'x', 'a', 'ada'), ('p', 'x', 'a', 'ada');
    DELETE FROM ready_tasks;
    INSERT INTO outcomes(task_id, seq, attempt, state) VALUES (1, 2, 1, 'completed'), (2, 2, 1, 'completed');
    INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                result_ref, digest, files, added_lines, removed_lines, state)
    VALUES (1, 1, 1, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0, 'pending'),
           (2, 1, 2, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0, 'applied');
    INSERT INTO permission_requests(task_id, attempt, token, agent, kind, title)
    VALUES (1, 1, 1, 'a', 'execute', 'rm'), (1, 1, 1, 'a', 'execute', 'ls')";

async fn scene() -> (TestDb, Client) {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(SCENE).await.unwrap();
    (db, sql)
}

async fn code_of(client: &Client, statement: &str) -> String {
    match client.batch_execute(statement).await {
        Ok(()) => String::new(),
        Err(error) => error.as_db_error().unwrap().code().code().to_owned(),
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_stopped_and_that_nobody_wants_cancelled_goes_back() {
    let stage = Stage::new().await;
    // The wish is gone by the time the end is stored.
    let forget = "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                      UPDATE leases SET cancel_requested_at = NULL WHERE task_id = NEW.task_id; RETURN NULL; END $$;
                  CREATE TRIGGER forget AFTER INSERT ON events FOR EACH ROW
                      WHEN (NEW.kind = 'cancel_requested') EXECUTE FUNCTION forget()";
    stage.sql.batch_execute(forget).await.unwrap();
    let worker = stage.worker().await;
    let task = stage.working("acp").await;
    let cancel = format!("SELECT cancel_task({task})");
    assert_eq!(stage.text(&cancel).await, "cancel_requested");
    let ended = "SELECT coalesce(end_kind, '') = 'interrupted' FROM attempts WHERE attempt = 1";
    stage.holds("it went back", ended).await;
    assert_eq!(stage.text("SELECT count(*) FROM outcomes").await, "0");
    stage
        .sql
        .batch_execute("DROP TRIGGER forget ON events")
        .await
        .unwrap();
    stage.text(&cancel).await;
    stage.reaches(task, "cancelled").await;
    worker.stop().await;
}

#[tokio::test]
async fn tables_of_a_login_in_place_of_the_catalogue_let_a_worker_decide_nothing() {
    let (db, sql) = scene().await;
    let worker = db.login("worker", &["dispatch_worker"]).await;
    let client = worker.client().await;
    let disguise = format!(
        "CREATE TEMP TABLE pg_class AS
         SELECT c.oid, r.oid AS relowner FROM pg_catalog.pg_class c, pg_catalog.pg_roles r WHERE r.rolname = '{}';
         CREATE TEMP TABLE change_moves(from_state text, to_state text);
         INSERT INTO pg_temp.change_moves VALUES ('pending', 'applied'), ('applied', 'pending');",
        worker.name
    );
    client.batch_execute(&disguise).await.unwrap();
    for path in ["public", "pg_temp, public, pg_catalog"] {
        client
            .batch_execute(&format!("SET search_path = {path}"))
            .await
            .unwrap();
        for (statement, code) in [
            (
                "UPDATE public.pending_changes SET state = 'approved' WHERE id = 1",
                "42501",
            ),
            (
                "UPDATE public.pending_changes SET state = 'rejected' WHERE id = 1",
                "42501",
            ),
            (
                "UPDATE public.pending_changes SET undo_asked_at = now() WHERE id = 2",
                "42501",
            ),
            (
                "UPDATE public.pending_changes SET state = 'applied' WHERE id = 1",
                "55000",
            ),
            (
                "UPDATE public.pending_changes SET state = 'pending' WHERE id = 2",
                "55000",
            ),
            (
                "UPDATE public.permission_requests SET status = 'allowed', decided_by = 'policy' WHERE id = 1",
                "42501",
            ),
        ] {
            assert_eq!(
                code_of(&client, statement).await,
                code,
                "{path}: {statement}"
            );
        }
    }
    let states = "SELECT string_agg(state, ' ' ORDER BY id) FROM pending_changes";
    let states: String = sql.query_one(states, &[]).await.unwrap().get(0);
    assert_eq!(states, "pending applied");
}

/// Functions and operators of a login, in a schema of its own, before those of the system.
const DISGUISE: &str = "
    CREATE FUNCTION NAME.pg_has_role(name, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION NAME.pg_has_role(name, name, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION NAME.pg_has_role(name, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION NAME.always(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR NAME.= (LEFTARG = name, RIGHTARG = name, FUNCTION = NAME.always);
    CREATE FUNCTION NAME.always(text, name) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR NAME.= (LEFTARG = text, RIGHTARG = name, FUNCTION = NAME.always);
    CREATE FUNCTION NAME.never(text, name) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR NAME.<> (LEFTARG = text, RIGHTARG = name, FUNCTION = NAME.never);
    SET search_path = NAME, pg_catalog, public;";

#[tokio::test]
async fn functions_and_operators_of_a_login_show_a_submitter_nothing_of_others() {
    let (db, sql) = scene().await;
    let eve = db
        .login("eve", &["dispatch_submitter", "dispatch_reviewer"])
        .await;
    let mallory = db.login("mallory", &["dispatch_submitter"]).await;
    for login in [&eve, &mallory] {
        let schema = format!(
            "CREATE SCHEMA {0} AUTHORIZATION {0}; INSERT INTO tasks(project, input, agent, submitted_by) VALUES ('p', 'x', 'a', '{0}')",
            login.name
        );
        sql.batch_execute(&schema).await.unwrap();
    }
    let client = mallory.client().await;
    client
        .batch_execute(&DISGUISE.replace("NAME", &mallory.name))
        .await
        .unwrap();
    for table in ["tasks", "my_tasks", "outcomes", "pending_changes"] {
        let count = format!("SELECT count(*) FROM public.{table} WHERE true");
        let seen: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        let own = i64::from(table.ends_with("tasks"));
        assert_eq!(seen, own, "{table}");
    }
    for statement in [
        "SELECT cancel_task(1)",
        "SELECT requeue_task(1)",
        "INSERT INTO tasks(project, input, agent, submitted_by) VALUES ('p', 'x', 'a', 'ada')",
    ] {
        assert_eq!(code_of(&client, statement).await, "42501", "{statement}");
    }
    // Who decides is recorded under their own name.
    let client = eve.client().await;
    client
        .batch_execute(&DISGUISE.replace("NAME", &eve.name))
        .await
        .unwrap();
    client
        .batch_execute("SELECT reject_change(1, 'no', 'ada')")
        .await
        .unwrap();
    let by: String = sql
        .query_one("SELECT decided_by FROM pending_changes WHERE id = 1", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(by, eve.name);
}

#[tokio::test]
async fn every_function_of_the_schema_takes_names_as_the_schema_does() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let loose = "SELECT p.oid::regprocedure::text FROM pg_proc p
                  WHERE p.pronamespace = 'public'::regnamespace AND p.prosqlbody IS NULL
                    AND NOT coalesce('search_path=public, pg_temp' = ANY (p.proconfig), false)";
    let loose = sql.query(loose, &[]).await.unwrap();
    let loose: Vec<String> = loose.iter().map(|row| row.get(0)).collect();
    assert!(
        loose.is_empty(),
        "{loose:?}: in SQL BEGIN ATOMIC …, in PL/pgSQL SET search_path = …, pg_temp"
    );
    let all = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert!(sql.query_one(all, &[]).await.unwrap().get::<_, i64>(0) >= 60);
    // What a worker and its listener agree on is not the caller's to say.
    let channel = "CREATE SCHEMA other; SET search_path = other, public";
    sql.batch_execute(channel).await.unwrap();
    let channel = sql.query_one("SELECT dispatch_channel()", &[]).await;
    assert_eq!(channel.unwrap().get::<_, String>(0), "dispatch_public");
}

#[tokio::test]
async fn a_worker_answers_no_question_in_the_name_of_a_person_and_no_answer_changes() {
    let (db, sql) = scene().await;
    let worker = db.login("worker", &["dispatch_worker"]).await;
    let client = worker.client().await;
    sql.batch_execute("SELECT answer_permission(1, 'allow', 'anna')")
        .await
        .unwrap();
    let row = "INSERT INTO permission_requests(task_id, attempt, token, agent, kind, title, status, decided_by) VALUES (1, 1, 1, 'a', 'k', 't', ";
    for (statement, code) in [
        // Given.
        (
            "UPDATE permission_requests SET decided_by = 'bob' WHERE id = 1",
            "55000",
        ),
        (
            "UPDATE permission_requests SET status = 'pending', decided_by = NULL WHERE id = 1",
            "55000",
        ),
        (
            "UPDATE permission_requests SET status = 'expired', decided_by = 'deadline' WHERE id = 1",
            "55000",
        ),
        // Open.
        (
            "UPDATE permission_requests SET decided_by = 'bob' WHERE id = 2",
            "42501",
        ),
        (
            "UPDATE permission_requests SET status = 'expired', decided_by = 'bob' WHERE id = 2",
            "42501",
        ),
        (
            "UPDATE permission_requests SET status = 'cancelled', decided_by = NULL WHERE id = 2",
            "42501",
        ),
        (
            "UPDATE permission_requests SET status = 'denied', decided_by = 'policy' WHERE id = 2",
            "42501",
        ),
        // New.
        (&format!("{row} 'allowed', 'bob')"), "42501"),
        (&format!("{row} 'denied', NULL)"), "42501"),
        (&format!("{row} 'pending', 'bob')"), "42501"),
        // What its work needs.
        (&format!("{row} 'allowed', 'policy')"), ""),
        (&format!("{row} 'pending', NULL)"), ""),
        (
            "UPDATE permission_requests SET status = 'expired', decided_by = 'deadline', decided_at = now() WHERE id = 2",
            "",
        ),
    ] {
        assert_eq!(code_of(&client, statement).await, code, "{statement}");
    }
    // Nobody, the owner included.
    let again = "UPDATE permission_requests SET status = 'pending', decided_by = NULL WHERE id = 2";
    assert_eq!(code_of(&sql, again).await, "55000");
    let answers = "SELECT string_agg(status || coalesce(' ' || decided_by, ''), ', ' ORDER BY id) FROM permission_requests";
    let answers: String = sql.query_one(answers, &[]).await.unwrap().get(0);
    assert_eq!(
        answers,
        "allowed anna, expired deadline, allowed policy, pending"
    );
}

#[tokio::test]
async fn a_worker_forges_no_wish_to_cancel() {
    let (db, _sql) = scene().await;
    let client = db
        .login("worker", &["dispatch_worker"])
        .await
        .client()
        .await;
    let forged = "INSERT INTO leases(task_id, token, worker_id, attempt, uncharged, agent, cancel_requested_at, cancel_by)
                  VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 1, 0, 'a', now(), 'bob')";
    assert_eq!(code_of(&client, forged).await, "42501");
}

#[tokio::test]
async fn who_holds_every_lock_that_a_login_can_hold_stops_no_parked_task() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects(name, path) VALUES ('p', '/x');
         INSERT INTO tasks(project, input, agent, limit_key) VALUES ('p', 'x', 'a', 'k')",
    )
    .await
    .unwrap();
    let login = db
        .login("eve", &["dispatch_submitter", "dispatch_reviewer"])
        .await;
    let eve = login.client().await;
    // The keys are known: they are in the functions, which everybody can read, and in pg_locks.
    eve.batch_execute(
        "SELECT pg_advisory_lock(hashtext(what || ' public')) FROM unnest(ARRAY['dispatch promote', 'dispatch rights']) what",
    )
    .await
    .unwrap();
    let moved: Option<i32> = sql
        .query_one("SELECT promote_parked(10)", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(moved, Some(1));
    let lock = "BEGIN; LOCK TABLE promoting IN SHARE UPDATE EXCLUSIVE MODE";
    assert_eq!(code_of(&eve, lock).await, "42501");
    eve.batch_execute("ROLLBACK").await.unwrap();
    let granting = sql.query("SELECT grant_rights()", &[]);
    let granting = tokio::time::timeout(Duration::from_secs(20), granting).await;
    granting.expect("nobody holds it up").unwrap();
}

#[tokio::test]
async fn one_promoter_at_a_time_and_the_next_one_is_told_to_look_again() {
    let db = TestDb::new().await;
    let login = db.login("worker", &["dispatch_worker"]).await;
    let (mut one, two) = (login.client().await, login.client().await);
    let promote = "SELECT promote_parked(10)";
    let first = one.transaction().await.unwrap();
    let got = async |row: Result<tokio_postgres::Row, tokio_postgres::Error>| -> Option<i32> {
        row.unwrap().get(0)
    };
    assert_eq!(got(first.query_one(promote, &[]).await).await, Some(0));
    assert_eq!(got(two.query_one(promote, &[]).await).await, None);
    first.rollback().await.unwrap();
    assert_eq!(got(two.query_one(promote, &[]).await).await, Some(0));
}

#[tokio::test]
async fn a_right_that_is_taken_out_of_the_table_is_taken_back() {
    let (db, sql) = scene().await;
    let login = db.login("bob", &["dispatch_reviewer"]).await;
    let bob = login.client().await;
    let grant = "SELECT grant_rights()";
    for (before, statement, after) in [
        // A table, single columns of one, a function, and what somebody granted besides.
        (
            "DELETE FROM rights WHERE role = 'reviewer' AND object = 'audit_log'",
            "SELECT * FROM audit_log",
            "42501",
        ),
        (
            "UPDATE rights SET privileges = 'SELECT (name)' WHERE role = 'reviewer' AND object = 'projects'",
            "SELECT path FROM projects",
            "42501",
        ),
        ("", "SELECT name FROM projects", ""),
        (
            "DELETE FROM rights WHERE role = 'reviewer' AND object = 'undo_change'",
            "SELECT undo_change(2)",
            "42501",
        ),
        (
            "GRANT UPDATE (priority) ON tasks TO dispatch_reviewer; GRANT USAGE ON lease_tokens TO dispatch_reviewer",
            "UPDATE tasks SET priority = 9",
            "42501",
        ),
        ("", "SELECT nextval('lease_tokens')", "42501"),
    ] {
        sql.batch_execute(before).await.unwrap();
        sql.query(grant, &[]).await.unwrap();
        assert_eq!(code_of(&bob, statement).await, after, "{statement}");
    }
    // A rule on rows.
    let mallory = db.login("mallory", &["dispatch_submitter"]).await;
    let client = mallory.client().await;
    let seen = async || -> i64 {
        let row = client.query_one("SELECT count(*) FROM tasks", &[]).await;
        row.unwrap().get(0)
    };
    assert_eq!(seen().await, 0);
    for (rule, count) in [("true", 2), ("false", 0)] {
        let change = format!(
            "UPDATE rights SET seen = '{rule}' WHERE role = 'submitter' AND object = 'tasks'"
        );
        sql.batch_execute(&change).await.unwrap();
        sql.query(grant, &[]).await.unwrap();
        assert_eq!(seen().await, count, "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_stay_are_put_without_waiting_for_anybody_and_others_when_nobody_is_in_the_way()
{
    let (db, sql) = scene().await;
    let mut reader = db.client().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .batch_execute("SELECT count(*) FROM tasks, reviews, settings")
        .await
        .unwrap();
    let grant = "SELECT grant_rights()";
    let done = tokio::time::timeout(Duration::from_secs(20), sql.query(grant, &[])).await;
    done.expect("nothing to wait for").unwrap();
    sql.batch_execute("UPDATE rights SET seen = 'false' WHERE role = 'submitter' AND object IN ('tasks', 'reviews')")
        .await
        .unwrap();
    let owner = db.client().await;
    let granting = async { owner.query(grant, &[]).await };
    let working = async {
        // While it is tried, whoever works gets through.
        for _ in 0..5 {
            sql.batch_execute("INSERT INTO tasks(project, input, agent) VALUES ('p', 'x', 'a')")
                .await
                .unwrap();
        }
        reading.commit().await.unwrap();
    };
    let (granted, ()) = tokio::join!(granting, working);
    granted.unwrap();
    let login = db.login("mallory", &["dispatch_submitter"]).await;
    let client = login.client().await;
    let seen = client.query_one("SELECT count(*) FROM tasks", &[]).await;
    assert_eq!(seen.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_holes_of_an_older_installation_are_closed_under_its_running_workers() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let login = db.login("worker", &["dispatch_worker"]).await;
    sql.batch_execute("CREATE SCHEMA older; SET search_path = older")
        .await
        .unwrap();
    let files = migration_files();
    let migrate = async |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).unwrap();
        sql.batch_execute(&format!("BEGIN; {text}; COMMIT"))
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
    };
    for file in &files[..9] {
        migrate(file).await;
    }
    let grant = "CREATE TABLE refinery_schema_history(version integer); SELECT grant_rights()";
    sql.batch_execute(grant).await.unwrap();
    sql.batch_execute(SCENE).await.unwrap();
    let worker = login.client().await;
    let path = "SET search_path = older; SELECT promote_parked(10)";
    worker.batch_execute(path).await.unwrap();
    let answer = "UPDATE permission_requests SET decided_by = 'bob' WHERE id = 1";
    assert_eq!(code_of(&worker, answer).await, "", "the hole is there");
    sql.batch_execute("UPDATE permission_requests SET decided_by = NULL")
        .await
        .unwrap();
    for file in &files[9..] {
        migrate(file).await;
    }
    // Before anybody has granted anything anew.
    let work = "SELECT promote_parked(10); SELECT * FROM maintain(10);
                SELECT finish_plain(ARRAY[1::bigint], ARRAY[1::bigint], ARRAY[2::bigint]);
                SELECT claim_tasks('00000000-0000-0000-0000-000000000001', ARRAY['a'], ARRAY[1], array_fill('1970-01-01'::timestamptz, ARRAY[10]), 1)";
    assert_eq!(code_of(&worker, work).await, "");
    assert_eq!(code_of(&worker, answer).await, "42501");
    let forged =
        "INSERT INTO leases(task_id, token, worker_id, attempt, uncharged, agent, cancel_by)
                  VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 1, 0, 'a', 'bob')";
    sql.batch_execute("SELECT grant_rights()").await.unwrap();
    assert_eq!(code_of(&worker, work).await, "");
    assert_eq!(code_of(&worker, forged).await, "42501");
    let channel = sql.query_one("SELECT dispatch_channel()", &[]).await;
    assert_eq!(channel.unwrap().get::<_, String>(0), "dispatch_older");
}
