//! Logins that are only a submitter, a reviewer or a worker: what they can do, and everything they
//! cannot, each statement run as the login it is forbidden to.

use std::sync::Arc;

use dispatch_worker::localpg::{LocalPostgres, Options};
use dispatch_worker::ops::{self, Effect, OpContext, OpErrorKind};
use dispatch_worker::store::{self, StoreErrorKind, migrate, rights};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::harness::db::{Login, TestDb, connect, with_database, with_login};
use crate::harness::program::Program;
use crate::harness::worker::{Stage, agents, write};

/// A database in which something of each kind is there to be tampered with. Task 1 is the owner's, 2
/// ada's, 3 ada's and over; change 1 (of task 3) waits, change 2 (of task 1's twin, 4) is applied.
const SCENE: &str = "
    INSERT INTO catalogue_agents(name) VALUES ('a');
    INSERT INTO settings VALUES ('default_agent', 'a'), ('four_eyes', 'off');
    INSERT INTO projects(name, path, max_running) VALUES ('p', '/x', 5), ('q', '/y', NULL);
    INSERT INTO tasks(project, input, submitted_by)
    VALUES ('q', 'the secret of the owner', 'owner'), ('q', 'x', 'ADA'), ('q', 'x', 'ADA'), ('q', 'x', 'owner');
    DELETE FROM ready_tasks WHERE task_id IN (1, 3, 4);
    INSERT INTO leases(task_id, token, worker_id, attempt, uncharged, agent)
    VALUES (1, 11, '00000000-0000-0000-0000-000000000001', 1, 0, 'a');
    INSERT INTO outcomes(task_id, seq, attempt, state) VALUES (3, 2, 1, 'completed'), (4, 2, 1, 'completed');
    INSERT INTO events(task_id, seq, attempt, kind, payload) VALUES (1, 2, 1, 'text', '{}');
    INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                result_ref, digest, files, added_lines, removed_lines, state)
    VALUES (3, 1, 3, 'q', 'b', 't', 'c', 'r', 'd1', 1, 1, 0, 'pending'), (4, 1, 4, 'q', 'b', 't', 'c', 'r', 'd2', 1, 1, 0, 'applied');
    INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind)
    VALUES (1, 1, 'f', 'f', 'edit', 'text'), (2, 1, 'f', 'f', 'edit', 'text');
    INSERT INTO reviews(change_id, actor, verdict) VALUES (2, 'bob', 'approved');
    INSERT INTO permission_requests(task_id, attempt, token, agent, kind, title) VALUES (1, 1, 11, 'a', 'execute', 'rm');";

/// What a submitter must not.
const NOT_BY_A_SUBMITTER: &[&str] = &[
    "SELECT approve_change(1, 'd1')",
    "SELECT approve_change_as(1, 'd1', NULL, 'bob', NULL)",
    "SELECT reject_change(1)",
    "SELECT undo_change(2)",
    "SELECT decide_files(1, 'd1', ARRAY['f'], 'rejected')",
    "SELECT request_changes(1, 'more')",
    "SELECT answer_permission(1, 'allow')",
    "UPDATE pending_changes SET state = 'approved' WHERE id = 1",
    "UPDATE pending_change_files SET state = 'approved'",
    "INSERT INTO reviews(change_id, actor, verdict) VALUES (1, 'bob', 'approved')",
    "INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit, result_ref, digest, files, added_lines, removed_lines) VALUES (2, 1, 9, 'q', 'b', 't', 'c', 'r', 'd', 0, 0, 0)",
    // In somebody else's name, or into somebody else's conversation.
    "INSERT INTO tasks(project, input, submitted_by) VALUES ('p', 'x', 'bob')",
    "INSERT INTO tasks(project, input, conversation_id) VALUES ('q', 'go on', 1)",
    "INSERT INTO tasks(project, input, created_at) VALUES ('p', 'x', '2020-01-01')",
    "UPDATE tasks SET submitted_by = 'bob' WHERE id = 2",
    "DELETE FROM tasks WHERE id = 3",
    "TRUNCATE tasks",
    // Of others.
    "SELECT cancel_task(1)",
    "SELECT cancel_task_as(1)",
    "SELECT requeue_task(4)",
    "SELECT id FROM task_status",
    "SELECT * FROM leases",
    "SELECT * FROM permission_requests",
    "SELECT * FROM change_packs",
    "SELECT path FROM projects",
    // The queue.
    "INSERT INTO ready_tasks(run_at, task_id, priority, agent) VALUES (now(), 2, 9, 'a')",
    "UPDATE ready_tasks SET priority = 9",
    "DELETE FROM leases",
    "SELECT claim_tasks('00000000-0000-0000-0000-000000000001', ARRAY['a'], ARRAY[1], array_fill('1970-01-01'::timestamptz, ARRAY[10]), 1)",
    "SELECT finish_plain(ARRAY[1], ARRAY[11], ARRAY[3])",
    "SELECT change_event(3, 1::smallint, 'change_approved', '{}')",
    "INSERT INTO events(task_id, seq, attempt, kind, payload) VALUES (2, 2, 1, 'text', '{}')",
    // Settings.
    "INSERT INTO projects(name, path) VALUES ('mine', '/etc')",
    "UPDATE projects SET four_eyes = false",
    "UPDATE limits SET max_running = 100",
    "INSERT INTO settings VALUES ('other', 'x')",
    "UPDATE settings SET value = 'off' WHERE name = 'four_eyes'",
    // The record.
    "SELECT * FROM audit_log",
    "SELECT * FROM acts",
    "SELECT * FROM fleet_health",
    "SELECT check_agent('a')",
    "INSERT INTO audit_log(actor, action, subject) VALUES ('bob', 'change.approve', 'change 1')",
    // The rights themselves.
    "SELECT grant_rights()",
    "INSERT INTO rights(role, object, privileges) VALUES ('submitter', 'reviews', 'INSERT')",
    "SET ROLE dispatch_reviewer",
    "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
    "DROP POLICY dispatch_submitter ON tasks",
    "ALTER FUNCTION approve_change(bigint, text, text[], text, text) SECURITY INVOKER",
    "CREATE TABLE public.mine (n integer)",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
];

const NOT_BY_A_REVIEWER: &[&str] = &[
    "UPDATE pending_changes SET state = 'approved' WHERE id = 1",
    "UPDATE pending_changes SET digest = 'd3' WHERE id = 1",
    "UPDATE pending_change_files SET state = 'approved'",
    "INSERT INTO reviews(change_id, actor, verdict) VALUES (1, 'ada', 'approved')",
    "UPDATE reviews SET actor = 'ada'",
    "DELETE FROM reviews",
    "TRUNCATE reviews",
    "UPDATE permission_requests SET status = 'allowed'",
    "INSERT INTO tasks(project, input) VALUES ('p', 'x')",
    "UPDATE tasks SET input = 'y'",
    "SELECT cancel_task(1)",
    "SELECT requeue_task(4)",
    "UPDATE outcomes SET state = 'failed'",
    "DELETE FROM leases",
    "UPDATE projects SET four_eyes = false",
    "UPDATE settings SET value = 'off'",
    "UPDATE limits SET max_running = 100",
    "INSERT INTO audit_log(actor, action, subject) VALUES ('ada', 'change.approve', 'change 1')",
    "UPDATE audit_log SET actor = 'ada'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    "DROP TABLE audit_log",
    "SELECT grant_rights()",
    "SELECT probe_agent('a')",
    "SELECT check_agent('a')",
    "SELECT ask_about_agent('{\"kind\": \"check\", \"agent\": \"a\"}', NULL, 'ada')",
    "SELECT * FROM requests",
    "SELECT * FROM request_bodies",
    "SELECT claim_tasks('00000000-0000-0000-0000-000000000001', ARRAY['a'], ARRAY[1], array_fill('1970-01-01'::timestamptz, ARRAY[10]), 1)",
];

const NOT_BY_A_WORKER: &[&str] = &[
    "SELECT approve_change(1, 'd1')",
    "SELECT approve_change_as(1, 'd1', NULL, 'bob', NULL)",
    "SELECT reject_change(1)",
    "SELECT undo_change(2)",
    "SELECT decide_files(1, 'd1', ARRAY['f'], 'approved')",
    "SELECT request_changes(1, 'more')",
    "SELECT answer_permission(1, 'allow')",
    "SELECT cancel_task(1)",
    "SELECT requeue_task(4)",
    "UPDATE pending_changes SET state = 'approved' WHERE id = 1",
    "UPDATE pending_changes SET state = 'rejected' WHERE id = 1",
    "UPDATE pending_changes SET undo_asked_at = now() WHERE id = 2",
    "UPDATE pending_changes SET result_commit = 'evil' WHERE id = 1",
    "UPDATE pending_changes SET digest = 'd3' WHERE id = 1",
    "UPDATE pending_changes SET decided_by = 'bob' WHERE id = 1",
    "INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree, result_commit, result_ref, digest, files, added_lines, removed_lines, state) VALUES (1, 1, 11, 'q', 'b', 't', 'c', 'r', 'd', 0, 0, 0, 'approved')",
    "INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind, state) VALUES (1, 2, 'g', 'g', 'edit', 'text', 'approved')",
    "UPDATE pending_change_files SET state = 'approved'",
    "UPDATE permission_requests SET status = 'allowed', decided_by = 'bob' WHERE id = 1",
    "INSERT INTO reviews(change_id, actor, verdict) VALUES (1, 'bob', 'approved')",
    "DELETE FROM reviews",
    "INSERT INTO tasks(project, input) VALUES ('p', 'x')",
    "UPDATE tasks SET submitted_by = 'bob'",
    "UPDATE leases SET cancel_by = 'bob'",
    "UPDATE outcomes SET state = 'failed'",
    "DELETE FROM outcomes",
    "DELETE FROM events",
    "INSERT INTO settings VALUES ('four_eyes_', 'off')",
    "INSERT INTO settings VALUES ('four_eyes', 'off') ON CONFLICT (name) DO UPDATE SET value = 'off'",
    "UPDATE projects SET four_eyes = false",
    "UPDATE limits SET max_running = 100",
    "SELECT * FROM audit_log",
    "SELECT * FROM acts",
    "SELECT check_agent('a')",
    "INSERT INTO audit_log(actor, action, subject) VALUES ('bob', 'change.approve', 'change 1')",
    "UPDATE audit_log SET actor = 'bob'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "SELECT grant_rights()",
    "SET ROLE dispatch_reviewer",
    "CREATE TABLE public.mine (n integer)",
];

async fn scene(ada: &str) -> String {
    SCENE.replace("ADA", ada)
}

/// Everything in the database, as one number.
async fn everything(sql: &Client) -> String {
    let tables = "SELECT string_agg(format('SELECT %L || coalesce(md5(string_agg(t::text, ''|'' ORDER BY t::text)), '''') FROM %I t',
                                     relname, relname), ' UNION ALL ' ORDER BY relname)
                    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    let query: String = sql.query_one(tables, &[]).await.unwrap().get(0);
    let rows = sql.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect()
}

async fn denied(login: &Client, statement: &str) {
    let error = match login.simple_query(statement).await {
        Ok(_) => panic!("allowed: {statement}"),
        Err(error) => error,
    };
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
}

#[tokio::test]
async fn forbidden_statements_are_denied_and_change_nothing() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let ada = db.login("ada", &["dispatch_submitter"]).await;
    let bob = db.login("bob", &["dispatch_reviewer"]).await;
    let worker = db.login("worker", &["dispatch_worker"]).await;
    sql.batch_execute(&scene(&ada.name).await).await.unwrap();
    let before = everything(&sql).await;
    for (login, statements) in [
        (&ada, NOT_BY_A_SUBMITTER),
        (&bob, NOT_BY_A_REVIEWER),
        (&worker, NOT_BY_A_WORKER),
    ] {
        assert!(statements.len() >= 20);
        let client = login.client().await;
        for statement in statements {
            denied(&client, statement).await;
        }
    }
    // The rule on rows hides these from a worker, so that there is nothing to deny.
    let client = worker.client().await;
    let unseen = client.execute(
        "UPDATE settings SET value = 'on' WHERE name = 'four_eyes'",
        &[],
    );
    assert_eq!(unseen.await.unwrap(), 0);
    let unseen = client.execute("DELETE FROM settings WHERE name = 'four_eyes'", &[]);
    assert_eq!(unseen.await.unwrap(), 0);
    assert!(everything(&sql).await == before, "something changed");
}

#[tokio::test]
async fn a_login_without_a_role_can_do_nothing() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(&scene("ada").await).await.unwrap();
    let stranger = db.login("stranger", &[]).await.client().await;
    let before = everything(&sql).await;
    for statement in [
        "INSERT INTO tasks(project, input) VALUES ('p', 'x')",
        "SELECT * FROM tasks",
        "SELECT * FROM my_tasks",
        "SELECT approve_change(1, 'd1')",
        "SELECT cancel_task(1)",
        "SELECT began_conversation(1)",
        "SELECT change_event(3, 1::smallint, 'x', '{}')",
    ] {
        denied(&stranger, statement).await;
    }
    assert!(everything(&sql).await == before);
}

#[tokio::test]
async fn a_submitter_submits_in_the_usual_way_and_sees_and_ends_what_is_their_own() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let login = db.login("ada", &["dispatch_submitter"]).await;
    sql.batch_execute(&scene(&login.name).await).await.unwrap();
    let mut ada = login.client().await;
    let first = "INSERT INTO tasks(project, input, idempotency_key) VALUES ('p', 'Fix it', 'k')
                 ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING id";
    let task: i64 = ada.query_one(first, &[]).await.unwrap().get(0);
    assert!(
        ada.query(first, &[]).await.unwrap().is_empty(),
        "the key is taken"
    );
    let by = "SELECT submitted_by, agent FROM tasks WHERE id = $1";
    let row = sql.query_one(by, &[&task]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (login.name.as_str(), "a"));
    // It is the project's limit that holds it, as for everybody's.
    let parked = "SELECT limit_key FROM parked_tasks WHERE task_id = $1";
    let parked = sql.query_one(parked, &[&task]).await.unwrap();
    assert_eq!(parked.get::<_, String>(0), "project:p");
    // Transactional.
    let transaction = ada.transaction().await.unwrap();
    transaction
        .batch_execute("INSERT INTO tasks(project, input) VALUES ('q', 'x')")
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    // Many at once, scheduled, and one more in a conversation of their own.
    let more = "INSERT INTO tasks(project, input, run_at, deadline, limit_key)
                SELECT 'q', 'x', now() + interval '1 hour', now() + interval '1 day', 'key' FROM generate_series(1, 100);
                INSERT INTO tasks(project, input, conversation_id) VALUES ('q', 'go on', 2)";
    ada.batch_execute(more).await.unwrap();

    let count = |rows: Vec<tokio_postgres::Row>| rows[0].get::<_, i64>(0);
    let own = "SELECT count(*) FROM tasks";
    assert_eq!(count(ada.query(own, &[]).await.unwrap()), 2 + 1 + 101);
    let own = "SELECT count(*) FROM my_tasks WHERE submitted_by = session_user";
    assert_eq!(count(ada.query(own, &[]).await.unwrap()), 2 + 1 + 101);
    let state = ada
        .query_one(
            "SELECT state, change_state, attention FROM my_tasks WHERE id = 3",
            &[],
        )
        .await
        .unwrap();
    let state = (state.get(0), state.get(1), state.get(2));
    assert_eq!(state, ("completed", "pending", "review"));
    let kinds = ada
        .query("SELECT kind FROM task_events(3, 0, 10)", &[])
        .await
        .unwrap();
    assert_eq!(kinds.len(), 2);
    assert!(
        ada.query("SELECT * FROM task_events(1, 0, 10)", &[])
            .await
            .unwrap()
            .is_empty()
    );
    let change = ada
        .query("SELECT digest FROM pending_changes", &[])
        .await
        .unwrap();
    assert_eq!(change.len(), 1, "the one of task 3 and not the owner's");
    let files = ada
        .query("SELECT change_id FROM pending_change_files", &[])
        .await
        .unwrap();
    assert_eq!((files.len(), files[0].get::<_, i64>(0)), (1, 1));
    assert!(
        ada.query("SELECT * FROM reviews", &[])
            .await
            .unwrap()
            .is_empty()
    );

    ada.query("SELECT name, default_agent FROM projects", &[])
        .await
        .unwrap();
    ada.query("SELECT name, status FROM available_agents", &[])
        .await
        .unwrap();

    let cancelled = ada
        .query_one(
            "SELECT cancel_task($1, 'not needed', 'somebody else')",
            &[&task],
        )
        .await
        .unwrap();
    assert_eq!(cancelled.get::<_, String>(0), "cancelled");
    ada.query("SELECT requeue_task($1)", &[&task])
        .await
        .unwrap();
    let acts =
        "SELECT string_agg(DISTINCT actor, ' ') FROM audit_log WHERE subject = 'task ' || $1::text";
    let acts = sql.query_one(acts, &[&task.to_string()]).await.unwrap();
    assert_eq!(
        acts.get::<_, String>(0),
        login.name,
        "under their own name only"
    );
}

#[tokio::test]
async fn the_eyes_of_a_submitter_cannot_be_lent_to_a_function_of_theirs() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let login = db.login("ada", &["dispatch_submitter"]).await;
    sql.batch_execute(&scene(&login.name).await).await.unwrap();
    let ada = login.client().await;
    // Cheap, so that a planner would like to ask it first.
    ada.batch_execute(
        "CREATE TEMP TABLE told (text text);
         CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
         $$ BEGIN INSERT INTO told VALUES ($1); RETURN true; END $$;",
    )
    .await
    .unwrap();
    for query in [
        "SELECT count(*) FROM tasks WHERE pg_temp.tell(input)",
        "SELECT count(*) FROM my_tasks WHERE pg_temp.tell(input)",
    ] {
        ada.query(query, &[]).await.unwrap();
    }
    let told = "SELECT count(*) FILTER (WHERE text LIKE '%secret%'), count(*) FROM told";
    let told = ada.query_one(told, &[]).await.unwrap();
    assert_eq!(told.get::<_, i64>(0), 0);
    assert!(told.get::<_, i64>(1) >= 4, "it was asked about their own");
}

#[tokio::test]
async fn a_reviewer_decides_under_their_own_name_and_the_owner_under_any() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(&scene("ada").await).await.unwrap();
    let login = db.login("bob", &["dispatch_reviewer"]).await;
    let bob = login.client().await;
    for read in [
        "task_status",
        "my_tasks",
        "pending_changes",
        "pending_change_files",
        "permission_requests",
        "reviews",
        "audit_log",
        "attempts",
        "events",
        "items",
        "projects",
        "available_agents",
    ] {
        bob.query(&format!("SELECT count(*) FROM {read}"), &[])
            .await
            .unwrap();
    }
    assert_eq!(
        bob.query("SELECT id FROM tasks", &[]).await.unwrap().len(),
        4,
        "all of them"
    );
    bob.query(
        "SELECT decide_files(1, 'd1', ARRAY['f'], 'pending', 'eve')",
        &[],
    )
    .await
    .unwrap();
    let follow_up: i64 = bob
        .query_one("SELECT request_changes(1, 'more', 'eve')", &[])
        .await
        .unwrap()
        .get(0);
    bob.query("SELECT cancel_task($1)", &[&follow_up])
        .await
        .unwrap();
    bob.query("SELECT approve_change(1, 'd1', actor => 'eve')", &[])
        .await
        .unwrap();
    bob.query("SELECT reject_change(1, 'no', 'eve')", &[])
        .await
        .unwrap();
    bob.query("SELECT undo_change(2, 'no', 'eve')", &[])
        .await
        .unwrap();
    bob.query("SELECT answer_permission(1, 'deny', 'eve')", &[])
        .await
        .unwrap();
    let names = "SELECT string_agg(DISTINCT who, ' ') FROM (
                     SELECT actor AS who FROM audit_log WHERE action ~ '^(change|permission|task)'
                     UNION ALL SELECT actor FROM reviews WHERE change_id = 1
                     UNION ALL SELECT decided_by FROM pending_changes WHERE id = 1
                     UNION ALL SELECT undo_asked_by FROM pending_changes WHERE id = 2
                     UNION ALL SELECT decided_by FROM permission_requests
                     UNION ALL SELECT submitted_by FROM tasks WHERE id > 4) x";
    let names: String = sql.query_one(names, &[]).await.unwrap().get(0);
    assert_eq!(names, login.name);
    // The owner speaks for people.
    sql.query("SELECT cancel_task(2, NULL, 'carol')", &[])
        .await
        .unwrap();
    let last = "SELECT actor FROM audit_log ORDER BY id DESC LIMIT 1";
    assert_eq!(
        sql.query_one(last, &[]).await.unwrap().get::<_, String>(0),
        "carol"
    );
}

#[tokio::test]
async fn the_command_line_works_with_the_login_of_a_reviewer() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(&scene("ada").await).await.unwrap();
    let login = db.login("bob", &["dispatch_reviewer"]).await;
    // The name that the system gives, which is not the login's.
    let (context, _listener) = OpContext::open(&login.url, 2, "root".to_owned()).unwrap();
    context.check().await.unwrap();
    for entry in ops::ALL {
        // Tokens, and what was sent to providers, are the operators'.
        let own = ["token.list", "task.requests", "task.request"];
        if entry.spec.effect != Effect::Read || own.contains(&entry.spec.name) {
            continue;
        }
        for example in (entry.examples)() {
            let done = (entry.call)(&context, example.input).await;
            let kind = done.map_err(|error| error.kind).err();
            assert!(
                matches!(kind, None | Some(OpErrorKind::NotFound)),
                "{}: {kind:?}",
                entry.spec.name
            );
        }
    }
    let call = async |name: &str, input| (ops::find(name).unwrap().call)(&context, input).await;
    let approved = call("change.approve", json!({"id": 1, "digest": "d1"}))
        .await
        .unwrap();
    assert_eq!(approved["decided_by"], login.name.as_str());
    for (name, input) in [
        ("task.cancel", json!({"id": 1})),
        (
            "project.add",
            json!({"name": "x", "path": "/x", "unchecked": true}),
        ),
        ("project.update", json!({"name": "p", "four_eyes": false})),
        ("project.remove", json!({"name": "p"})),
        ("limit.set", json!({"key": "k", "max_running": 9})),
        ("setting.set", json!({"name": "four_eyes", "value": "off"})),
        ("task.submit", json!({"project": "p", "input": "x"})),
        ("agent.probe", json!({"name": "a"})),
        ("agent.check", json!({"name": "a"})),
    ] {
        let Err(refused) = call(name, input).await else {
            panic!("{name} is a reviewer's");
        };
        assert_eq!(refused.kind, OpErrorKind::Forbidden, "{name}: {refused:?}");
        assert!(refused.hint.is_some(), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn what_runs_as_the_owner_sees_its_own_schema_whatever_the_caller_puts_before_it() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let login = db
        .login("ada", &["dispatch_submitter", "dispatch_reviewer"])
        .await;
    sql.batch_execute(&scene(&login.name).await).await.unwrap();
    sql.batch_execute("UPDATE projects SET four_eyes = true")
        .await
        .unwrap();
    let ada = login.client().await;
    ada.batch_execute(
        "CREATE TEMP TABLE projects AS SELECT 'q'::text AS name, false AS four_eyes, NULL::integer AS max_running;
         CREATE TEMP TABLE settings (name text, value text);
         CREATE TEMP TABLE tasks (id bigint, conversation_id bigint, submitted_by text);
         CREATE TEMP TABLE audit_log (actor text, action text, subject text, detail jsonb);
         CREATE FUNCTION pg_temp.person(text) RETURNS text LANGUAGE sql AS $$ SELECT random()::text $$;
         SET search_path = pg_temp, public;",
    )
    .await
    .unwrap();
    denied(&ada, "SELECT approve_change(1, 'd1')").await;
    ada.batch_execute("SELECT reject_change(1)").await.unwrap();
    let mine = "SELECT count(*) FROM audit_log WHERE action = 'change.reject'";
    assert_eq!(sql.query_one(mine, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(ada.query_one(mine, &[]).await.unwrap().get::<_, i64>(0), 0);
    // A table of their own in place of the queue catches nothing.
    ada.batch_execute("CREATE TEMP TABLE ready_tasks (LIKE public.ready_tasks); INSERT INTO public.tasks(project, input, agent) VALUES ('q', 'x', 'a')")
        .await
        .unwrap();
    let queued = "SELECT count(*) FROM ready_tasks";
    assert_eq!(
        sql.query_one(queued, &[]).await.unwrap().get::<_, i64>(0),
        2
    );
}

#[tokio::test]
async fn every_function_that_runs_as_the_owner_has_a_fixed_path_and_is_granted_by_role() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let loose = "SELECT p.proname::text FROM pg_proc p
                  WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
                    AND (p.proconfig IS NULL OR NOT 'search_path=public, pg_temp' = ANY (p.proconfig)
                         OR EXISTS (SELECT 1 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                                     WHERE a.grantee = 0))";
    let loose = sql.query(loose, &[]).await.unwrap();
    let loose: Vec<String> = loose.iter().map(|row| row.get(0)).collect();
    assert!(
        loose.is_empty(),
        "{loose:?}: SET search_path = …, pg_temp; REVOKE … FROM PUBLIC; a row in rights"
    );
    let all =
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef";
    assert!(sql.query_one(all, &[]).await.unwrap().get::<_, i64>(0) >= 12);
    // And a submitter's view shows what everybody's does.
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0";
    let of =
        async |view: &str| -> String { sql.query_one(columns, &[&view]).await.unwrap().get(0) };
    assert_eq!(of("my_tasks").await, of("task_status").await);
}

/// Statements of the modules that a worker uses, the ones of a person's surfaces left out.
fn statements_of_a_worker() -> impl Iterator<Item = &'static store::Statement> {
    let modules = [
        store::applies::ALL,
        store::asks::ALL,
        store::attempts::ALL,
        store::captures::ALL,
        store::carried::ALL,
        store::claims::ALL,
        store::finish::ALL,
        store::fleet::ALL,
        store::inbox::ALL,
        store::lookups::ALL,
        store::messages::ALL,
        store::new_changes::ALL,
        store::pauses::ALL,
        store::steps::ALL,
        store::streams::ALL,
        store::undos::ALL,
        store::ALL,
    ];
    // Asked by people, and read by them.
    let asked = ["lookup_ask", "agent_probe", "agent_check", "lookup_left"];
    let all = modules.into_iter().flatten().copied();
    all.filter(move |statement| !asked.contains(&statement.name))
}

#[tokio::test]
async fn each_statement_of_a_worker_is_allowed_to_its_login() {
    let db = TestDb::new().await;
    let worker = db
        .login("worker", &["dispatch_worker"])
        .await
        .client()
        .await;
    let mut refused = Vec::new();
    for statement in statements_of_a_worker() {
        let nulls = vec!["NULL"; statement.types().len()].join(", ");
        let arguments = if nulls.is_empty() {
            nulls
        } else {
            format!("({nulls})")
        };
        worker
            .batch_execute(&format!("DEALLOCATE ALL; PREPARE it AS {}", statement.sql))
            .await
            .unwrap();
        // Rights are looked at when a plan is made ready to run.
        if let Err(error) = worker
            .batch_execute(&format!("EXPLAIN EXECUTE it {arguments}"))
            .await
        {
            refused.push(format!(
                "{}: {}",
                statement.name,
                error.as_db_error().unwrap().message()
            ));
        }
    }
    assert!(
        refused.is_empty(),
        "add to the rights of a worker: {refused:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_login_of_its_own_does_all_of_a_workers_work() {
    let stage = Stage::new().await;
    let worker = stage.db.login("worker", &["dispatch_worker"]).await;
    let ada = stage
        .db
        .login("ada", &["dispatch_submitter"])
        .await
        .client()
        .await;
    let bob = stage
        .db
        .login("bob", &["dispatch_reviewer"])
        .await
        .client()
        .await;
    let program = Program::worker_at(&stage, &worker.url, "own", &agents(), &[]).await;
    let submit = async |script: &serde_json::Value| -> i64 {
        let insert =
            "INSERT INTO tasks (project, input, agent) VALUES ('p', $1, 'acp') RETURNING id";
        ada.query_one(insert, &[&script.to_string()])
            .await
            .unwrap()
            .get(0)
    };
    let task = submit(&json!([{ "say": "on it" }, write("b.txt", "b\n")])).await;
    stage.reaches(task, "completed").await;
    let seen: String = ada
        .query_one("SELECT change_state FROM my_tasks WHERE id = $1", &[&task])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, "pending");
    let change: (i64, String) = {
        let row = bob
            .query_one(
                "SELECT id, digest FROM pending_changes WHERE task_id = $1",
                &[&task],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1))
    };
    bob.query("SELECT approve_change($1, $2)", &[&change.0, &change.1])
        .await
        .unwrap();
    let state = async |wanted: &str| {
        let query = format!(
            "SELECT state = '{wanted}' FROM pending_changes WHERE id = {}",
            change.0
        );
        stage
            .holds(&format!("the change is {wanted}"), &query)
            .await;
    };
    state("applied").await;
    assert_eq!(
        crate::harness::repo::git(&stage.ground.repo, &["show", "main:b.txt"]),
        "b"
    );
    bob.query("SELECT undo_change($1)", &[&change.0])
        .await
        .unwrap();
    state("undone").await;
    // A follow-up in the conversation, a retry, a cancel, a task that does nothing, one with a limit.
    let follow_up: i64 = {
        let other = submit(&json!([write("c.txt", "c\n")])).await;
        stage.reaches(other, "completed").await;
        let row = bob
            .query_one(
                "SELECT id FROM pending_changes WHERE task_id = $1",
                &[&other],
            )
            .await
            .unwrap();
        let script = json!([write("d.txt", "d\n")]).to_string();
        bob.query_one(
            "SELECT request_changes($1, $2)",
            &[&row.get::<_, i64>(0), &script],
        )
        .await
        .unwrap()
        .get(0)
    };
    stage.reaches(follow_up, "completed").await;
    let superseded = "SELECT EXISTS (SELECT 1 FROM pending_changes WHERE state = 'superseded')";
    stage
        .holds("the change before it is superseded", superseded)
        .await;
    let endless = submit(&json!([{ "say": "working" }, { "hang": true }])).await;
    let spoken =
        format!("SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'text' AND task_id = {endless})");
    stage.holds("the agent works", &spoken).await;
    ada.query("SELECT cancel_task($1)", &[&endless])
        .await
        .unwrap();
    stage.reaches(endless, "cancelled").await;
    let plain = "INSERT INTO tasks (project, input, agent, limit_key, run_at)
                 VALUES ('p', 'x', 'noop', 'key', now() + interval '100 milliseconds') RETURNING id";
    let plain: i64 = ada.query_one(plain, &[]).await.unwrap().get(0);
    stage.reaches(plain, "completed").await;
    let log = program.log();
    assert!(
        !log.contains("permission denied") && !log.contains("42501"),
        "{log}"
    );
}

/// A cluster in which nothing was made yet.
struct Bare {
    postgres: LocalPostgres,
    _dir: tempfile::TempDir,
}

impl Bare {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = LocalPostgres::start(Options::throwaway(dir.path()))
            .await
            .unwrap();
        Self {
            postgres,
            _dir: dir,
        }
    }

    async fn database(&self, name: &str, more: &str) -> String {
        let admin = connect(&self.postgres.url("postgres")).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        if !more.is_empty() {
            admin.batch_execute(more).await.unwrap();
        }
        self.postgres.url(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_cluster_make_the_roles_together_and_schemas_have_any_name() {
    let bare = Bare::start().await;
    let mut parallel = JoinSet::new();
    for n in 0..4 {
        let url = bare
            .database(
                &format!("d{n}"),
                &format!("ALTER DATABASE d{n} SET search_path = \"Our \"\"Own\"\"\""),
            )
            .await;
        connect(&url)
            .await
            .batch_execute("CREATE SCHEMA \"Our \"\"Own\"\"\"")
            .await
            .unwrap();
        parallel.spawn(async move { migrate::migrate(&url).await.unwrap().rights.unwrap() });
    }
    while let Some(done) = parallel.join_next().await {
        done.unwrap();
    }
    let admin = connect(&bare.postgres.url("d2")).await;
    admin
        .batch_execute(
            "CREATE ROLE ada LOGIN PASSWORD 'x'; GRANT dispatch_submitter, dispatch_reviewer TO ada;
             INSERT INTO projects(name, path) VALUES ('p', '/x'); INSERT INTO settings VALUES ('default_agent', 'a')",
        )
        .await
        .unwrap();
    let url = with_login(&bare.postgres.url("d2"), "ada", "x");
    migrate::check(&url).await.unwrap();
    let ada = connect(&url).await;
    ada.batch_execute("INSERT INTO tasks(project, input) VALUES ('p', 'x'); SELECT cancel_task(1); SELECT requeue_task(1)")
        .await
        .unwrap();
    // Again, while it is in use: nothing to make, nothing changes.
    assert_eq!(
        rights::grant(&bare.postgres.url("d2")).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        ada.query("SELECT 1 FROM tasks", &[]).await.unwrap().len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_may_not_make_roles_migrates_all_the_same_and_is_told_what_to_do() {
    let bare = Bare::start().await;
    let make = "CREATE ROLE plain LOGIN PASSWORD 'x'; ALTER DATABASE shop OWNER TO plain";
    bare.database("shop", make).await;
    let url = with_login(
        &with_database(&bare.postgres.url("postgres"), "shop"),
        "plain",
        "x",
    );
    let migrated = migrate::migrate(&url).await.unwrap();
    assert_eq!(
        migrated.applied.len(),
        crate::harness::db::migration_files().len()
    );
    let refused = migrated.rights.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Forbidden);
    assert!(
        refused
            .hint
            .unwrap()
            .contains("CREATE ROLE dispatch_submitter")
    );
    migrate::check(&url).await.unwrap();
    let owner = connect(&url).await;
    let all = "INSERT INTO projects(name, path) VALUES ('p', '/x');
               INSERT INTO tasks(project, input, agent, submitted_by) VALUES ('p', 'x', 'a', 'carol');
               SELECT cancel_task(1, actor => 'carol')";
    owner.batch_execute(all).await.unwrap();
    let (code, said) = Program::run(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = Program::run(&["migrate", "--roles"], &[("DATABASE_URL", &url)]);
    assert!(
        code == Some(6) && said.contains("CREATEROLE"),
        "{code:?} {said}"
    );
    // A login of that name is not taken for the group.
    let admin = connect(&bare.postgres.url("postgres")).await;
    admin
        .batch_execute("CREATE ROLE dispatch_submitter; CREATE ROLE dispatch_reviewer; CREATE ROLE dispatch_worker LOGIN")
        .await
        .unwrap();
    let refused = rights::grant(&url).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::WrongState, "{refused}");
    admin
        .batch_execute("ALTER ROLE dispatch_worker NOLOGIN")
        .await
        .unwrap();
    let (code, said) = Program::run(&["migrate", "--roles"], &[("DATABASE_URL", &url)]);
    assert!(
        code == Some(0) && said.contains("have their rights"),
        "{said}"
    );
    admin
        .batch_execute("CREATE ROLE ada LOGIN PASSWORD 'x'; GRANT dispatch_submitter TO ada")
        .await
        .unwrap();
    let ada = connect(&with_login(&url, "ada", "x")).await;
    ada.batch_execute("INSERT INTO tasks(project, input, agent) VALUES ('p', 'x', 'a')")
        .await
        .unwrap();
    let own: i64 = ada
        .query_one("SELECT count(*) FROM my_tasks", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(own, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_submitters_at_once_stay_apart() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(&scene("x").await).await.unwrap();
    let mut logins: Vec<Arc<Login>> = Vec::new();
    for n in 0..4 {
        logins.push(Arc::new(
            db.login(&format!("s{n}"), &["dispatch_submitter"]).await,
        ));
    }
    let mut parallel = JoinSet::new();
    for login in logins {
        parallel.spawn(async move {
            let client = login.client().await;
            for _ in 0..20 {
                client
                    .batch_execute("INSERT INTO tasks(project, input) VALUES ('p', 'x')")
                    .await
                    .unwrap();
            }
            let own: i64 = client
                .query_one("SELECT count(*) FROM my_tasks", &[])
                .await
                .unwrap()
                .get(0);
            assert_eq!(own, 20);
        });
    }
    while let Some(done) = parallel.join_next().await {
        done.unwrap();
    }
}
