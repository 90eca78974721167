//! What operators say for the whole fleet, over operations: limits of keys, settings, and files of a change
//! that come back.

use std::process::Stdio;

use dispatch_worker::ops::{self, OpContext, OpError, OpErrorKind};
use dispatch_worker::store::listen::Listener;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::harness::db::TestDb;
use crate::http::Server;

/// A database with project `p`, and `ada` who asks it.
struct Fleet {
    db: TestDb,
    sql: Client,
    context: OpContext,
    _listener: Listener,
}

impl Fleet {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let sql = db.client().await;
        sql.batch_execute("INSERT INTO projects (name, path) VALUES ('p', '/x')")
            .await
            .unwrap();
        let (context, _listener) = OpContext::open(&db.url(), 2, "ada".to_owned()).unwrap();
        Self {
            db,
            sql,
            context,
            _listener,
        }
    }

    async fn call(&self, name: &str, input: Value) -> Result<Value, OpError> {
        (ops::find(name).unwrap().call)(&self.context, input).await
    }

    async fn text(&self, query: &str) -> String {
        let query = format!("SELECT ({query})::text");
        self.sql.query_one(&query, &[]).await.unwrap().get(0)
    }

    async fn submit(&self, tasks: i32, key: Option<&str>) {
        let insert = "INSERT INTO tasks (project, input, agent, limit_key, submitted_by) \
                      SELECT 'p', 'x', 'a', $2, 'ada' FROM generate_series(1, $1)";
        self.sql.execute(insert, &[&tasks, &key]).await.unwrap();
    }

    /// Let out what may go and take it; says how many tasks began.
    async fn claim(&self) -> i64 {
        self.text("SELECT moved FROM maintain(500)").await;
        let claim = "SELECT count(*) FROM claim_tasks('00000000-0000-0000-0000-000000000001', ARRAY['a'], \
                     ARRAY[9], array_fill('1970-01-01'::timestamptz, ARRAY[10]), 9)";
        self.sql.query_one(claim, &[]).await.unwrap().get(0)
    }

    /// Who did what to whom, and with what, from first to last.
    async fn acts(&self, of: &str) -> Vec<(String, String, String, Value)> {
        let query =
            "SELECT actor, action, subject, detail FROM audit_log WHERE action LIKE $1 ORDER BY id";
        let rows = self.sql.query(query, &[&of]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect()
    }
}

fn act(action: &str, subject: &str, detail: Value) -> (String, String, String, Value) {
    (
        "ada".to_owned(),
        action.to_owned(),
        subject.to_owned(),
        detail,
    )
}

#[tokio::test]
async fn a_limit_that_is_raised_lets_the_next_task_run_and_one_of_zero_lets_none() {
    let fleet = Fleet::new().await;
    fleet.submit(4, Some("k")).await;
    assert_eq!(fleet.claim().await, 1);
    assert_eq!(fleet.claim().await, 0, "one at a time");
    let listed = fleet.call("limit.list", json!({})).await.unwrap();
    let one = json!({"key": "k", "max_running": 1, "running": 1, "ready": 0, "waiting": 3});
    assert_eq!(listed["data"], json!([one]));
    let raise = json!({"key": "k", "max_running": 2});
    for _ in 0..2 {
        let raised = fleet.call("limit.set", raise.clone()).await.unwrap();
        let two = json!({"key": "k", "max_running": 2, "running": 1, "ready": 0, "waiting": 3});
        assert_eq!(raised, two);
    }
    assert_eq!(fleet.claim().await, 1);
    let held = json!({"key": "k", "max_running": 0});
    let held = fleet.call("limit.set", held).await.unwrap();
    assert_eq!((&held["running"], &held["waiting"]), (&json!(2), &json!(2)));
    fleet.sql.batch_execute("DELETE FROM leases").await.unwrap();
    assert_eq!(fleet.claim().await, 0, "held back");
    let acts = fleet.acts("limit.%").await;
    let moved = |from: i32, to: i32| json!({"max_running": {"from": from, "to": to}});
    let wanted = [
        act("limit.update", "limit k", moved(1, 2)),
        act("limit.update", "limit k", moved(2, 0)),
    ];
    assert_eq!(acts, wanted, "what changes nothing is no act");
}

#[tokio::test]
async fn a_limit_is_set_before_a_task_names_its_key() {
    let fleet = Fleet::new().await;
    let set = json!({"key": "db", "max_running": 3});
    fleet.call("limit.set", set).await.unwrap();
    fleet.submit(5, Some("db")).await;
    assert_eq!(fleet.claim().await, 3);
    let acts = fleet.acts("limit.%").await;
    assert_eq!(
        acts,
        [act("limit.add", "limit db", json!({"max_running": 3}))]
    );
}

#[tokio::test]
async fn the_limit_of_a_project_is_its_own_to_set_and_a_key_has_a_length() {
    let fleet = Fleet::new().await;
    let (long, wide) = ("k".repeat(201), "ä".repeat(101));
    for (key, code) in [
        ("project:p", "limit_of_project"),
        ("project:nobody", "limit_of_project"),
        ("", "invalid_input"),
        (&long, "invalid_input"),
        (&wide, "invalid_input"),
    ] {
        let set = json!({"key": key, "max_running": 3});
        let refused = fleet.call("limit.set", set).await.unwrap_err();
        assert_eq!(
            (refused.kind, refused.code),
            (OpErrorKind::Invalid, code),
            "{key}"
        );
        assert!(refused.hint.is_some(), "{refused:?}");
    }
    let set = json!({"key": "project:p", "max_running": 3});
    let refused = fleet.call("limit.set", set).await.unwrap_err();
    let hint = refused.hint.unwrap();
    assert!(
        hint.starts_with("dispatch projects update p --max-running N"),
        "{hint}"
    );
    let negative = json!({"key": "k", "max_running": -1});
    let refused = fleet.call("limit.set", negative).await.unwrap_err();
    assert_eq!(refused.message, "not allowed: a limit is 0 or more");
    assert_eq!(fleet.text("SELECT count(*) FROM limits").await, "0");
    // It is listed beside the others, also when it is lifted.
    let update = |most: i32| json!({"name": "p", "max_running": most});
    for (most, listed) in [(2, json!(2)), (0, Value::Null)] {
        fleet.call("project.update", update(most)).await.unwrap();
        let page = fleet.call("limit.list", json!({})).await.unwrap();
        let limit = &page["data"][0];
        assert_eq!(
            (&limit["key"], &limit["max_running"]),
            (&json!("project:p"), &listed)
        );
    }
}

#[tokio::test]
async fn limits_are_listed_page_by_page() {
    let fleet = Fleet::new().await;
    let keys = "INSERT INTO limits SELECT unnest(ARRAY['b', 'a c', 'ä', '#1', 'B/x'])";
    fleet.sql.batch_execute(keys).await.unwrap();
    let keys = |page: &Value| -> Vec<String> {
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = keys(&fleet.call("limit.list", json!({})).await.unwrap());
    assert_eq!(all.len(), 5);
    let (mut paged, mut cursor) = (Vec::new(), None);
    loop {
        let page = json!({"limit": 2, "cursor": cursor});
        let page = fleet.call("limit.list", page).await.unwrap();
        paged.extend(keys(&page));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    for made_up in [String::new(), "k".repeat(201)] {
        let page = json!({"cursor": made_up});
        let refused = fleet.call("limit.list", page).await.unwrap_err();
        assert!(refused.hint.unwrap().contains("next_cursor"));
    }
}

/// A task of this person, ended, with a change that waits; its number.
async fn change_of(sql: &Client, person: &str) -> i64 {
    let submit = "INSERT INTO tasks (project, input, agent, submitted_by) VALUES ('p', 'x', 'a', $1) RETURNING id";
    let task: i64 = sql.query_one(submit, &[&person]).await.unwrap().get(0);
    let end = format!(
        "DELETE FROM ready_tasks WHERE task_id = {task};
         INSERT INTO outcomes (task_id, seq, attempt, state) VALUES ({task}, 2, 1, 'completed');
         INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree, result_commit,
                                      result_ref, digest, files, added_lines, removed_lines)
         VALUES ({task}, 1, {task}, 'p', 'b', 't', 'c', 'r', 'd', 2, 2, 0);
         INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind)
         SELECT c.id, f.n, f.path, f.path::bytea, 'edit', 'text'
           FROM pending_changes c, (VALUES (1, 'f'), (2, 'g')) f (n, path) WHERE c.task_id = {task}"
    );
    sql.batch_execute(&end).await.unwrap();
    let newest = "SELECT max(id) FROM pending_changes";
    sql.query_one(newest, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn four_eyes_that_are_set_for_the_fleet_hold_until_they_are_taken_back() {
    let fleet = Fleet::new().await;
    let value = async |name: &str| {
        let listed = fleet.call("setting.list", json!({})).await.unwrap();
        let rows = listed["data"].as_array().unwrap().clone();
        let row = rows.into_iter().find(|row| row["name"] == name).unwrap();
        assert!(row["about"].as_str().is_some_and(|about| !about.is_empty()));
        row["value"].clone()
    };
    assert_eq!(value("four_eyes").await, "off");
    assert_eq!(value("default_agent").await, Value::Null);
    let set = |to: &str| json!({"name": "four_eyes", "value": to});
    for _ in 0..2 {
        let answer = fleet.call("setting.set", set("on")).await.unwrap();
        assert_eq!(
            (&answer["name"], &answer["value"]),
            (&json!("four_eyes"), &json!("on"))
        );
    }
    assert_eq!(value("four_eyes").await, "on");
    let change = change_of(&fleet.sql, "ada").await;
    let approve = json!({"id": change, "digest": "d"});
    let refused = fleet.call("change.approve", approve.clone()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, OpErrorKind::Forbidden, "{refused:?}");
    assert!(refused.message.contains("second pair of eyes"), "{refused}");
    fleet.call("setting.set", set("off")).await.unwrap();
    fleet.call("change.approve", approve).await.unwrap();
    let acts = fleet.acts("setting.%").await;
    let wanted = [
        act("setting.add", "setting four_eyes", json!({"value": "on"})),
        act(
            "setting.update",
            "setting four_eyes",
            json!({"value": {"from": "on", "to": "off"}}),
        ),
    ];
    assert_eq!(acts, wanted);
}

#[tokio::test]
async fn a_setting_that_nobody_reads_or_that_agents_toml_says_is_not_set() {
    let fleet = Fleet::new().await;
    let set = async |name: &str, value: &str| {
        let refused = fleet
            .call("setting.set", json!({"name": name, "value": value}))
            .await
            .unwrap_err();
        (refused.code, refused.message, refused.hint)
    };
    let (code, _, hint) = set("four-eyes", "on").await;
    assert_eq!(code, "unknown_setting");
    assert!(hint.unwrap().contains("default_agent, four_eyes"));
    let (code, _, hint) = set("default_agent", "claude").await;
    assert_eq!(code, "set_elsewhere");
    assert!(hint.unwrap().contains("agents.toml"));
    let (_, message, _) = set("four_eyes", "yes").await;
    assert_eq!(message, "not allowed: four_eyes is on or off");
    assert_eq!(fleet.text("SELECT count(*) FROM settings").await, "0");
    let written = "INSERT INTO settings VALUES ('default_agent', 'claude')";
    fleet.sql.batch_execute(written).await.unwrap();
    let listed = fleet.call("setting.list", json!({})).await.unwrap();
    assert_eq!(listed["data"][0]["value"], "claude");
}

#[tokio::test]
async fn files_that_were_set_aside_are_taken_back_without_an_approval() {
    let fleet = Fleet::new().await;
    let change = change_of(&fleet.sql, "bob").await;
    let states = async || {
        let states =
            "SELECT string_agg(path || ' ' || state, ', ' ORDER BY n) FROM pending_change_files";
        fleet.text(states).await
    };
    let of = |files: Value, digest: &str| json!({"id": change, "files": files, "digest": digest});
    let both = of(json!(["f", "g"]), "d");
    fleet.call("change.reject", both).await.unwrap();
    assert_eq!(states().await, "f rejected, g rejected");
    for (files, digest, kind) in [
        (json!([]), "d", OpErrorKind::Invalid),
        (json!(["f"]), "", OpErrorKind::Invalid),
        (json!(["f", "h"]), "d", OpErrorKind::Invalid),
        (json!(["f"]), "d0", OpErrorKind::Conflict),
    ] {
        let refused = fleet.call("change.restore", of(files, digest)).await;
        assert_eq!(refused.unwrap_err().kind, kind, "{digest}");
    }
    assert_eq!(states().await, "f rejected, g rejected");
    let back = of(json!(["f"]), "d");
    let back = fleet.call("change.restore", back).await.unwrap();
    assert_eq!(
        (&back["id"], &back["state"]),
        (&json!(change), &json!("pending"))
    );
    assert_eq!(states().await, "f pending, g rejected");
    let last = fleet.acts("change.%").await.pop().unwrap();
    let detail = json!({"files": ["f"], "verdict": "pending"});
    let subject = format!("change {change}");
    assert_eq!(last, act("change.decide_files", &subject, detail));
    // What comes back is approved with the rest.
    let approve = json!({"id": change, "digest": "d"});
    fleet.call("change.approve", approve).await.unwrap();
    assert_eq!(states().await, "f approved, g rejected");
    let late = of(json!(["g"]), "d");
    let late = fleet.call("change.restore", late).await.unwrap_err();
    assert_eq!(late.kind, OpErrorKind::Conflict, "{late:?}");
}

#[tokio::test]
async fn who_may_not_approve_takes_no_file_back() {
    let fleet = Fleet::new().await;
    let on = json!({"name": "four_eyes", "value": "on"});
    fleet.call("setting.set", on).await.unwrap();
    let change = change_of(&fleet.sql, "ada").await;
    let files = json!({"id": change, "files": ["f"], "digest": "d"});
    fleet.call("change.reject", files.clone()).await.unwrap();
    let refused = fleet.call("change.restore", files).await.unwrap_err();
    assert_eq!(refused.kind, OpErrorKind::Forbidden, "{refused:?}");
}

#[tokio::test]
async fn over_http_a_key_may_have_any_character_and_an_empty_list_of_files_is_refused() {
    let server = Server::with_project().await;
    let key = "/api/v1/limits/shop%2Flock%20file";
    let set = server.post(key, &json!({"max_running": 2})).await;
    assert_eq!(set.body["key"], "shop/lock file", "{set:?}");
    let after = server
        .get("/api/v1/limits?cursor=shop%2Flock%20filf")
        .await
        .body;
    assert_eq!(after["data"], json!([]));
    let of_project = "/api/v1/limits/project:shop";
    server
        .post(of_project, &json!({"max_running": 2}))
        .await
        .problem(422, "limit_of_project");
    let restore = "/api/v1/changes/1/restore";
    let nothing = json!({"files": [], "digest": "d"});
    server
        .post(restore, &nothing)
        .await
        .problem(422, "invalid_input");
    let nowhere = json!({"files": ["f"], "digest": "d"});
    server
        .post(restore, &nowhere)
        .await
        .problem(404, "not_found");
    server.end().await;
}

/// What the program says to a person.
async fn typed(fleet: &Fleet, words: &[&str]) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is started as a person starts it"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_dispatch-under-test"));
    let run = command
        .args(["--as", "ada"])
        .args(words)
        .env("DATABASE_URL", fleet.db.url())
        .env_remove("DATABASE_LISTEN_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = run.await.unwrap();
    String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap()
}

#[tokio::test]
async fn at_the_terminal_each_of_them_says_what_holds_now() {
    let fleet = Fleet::new().await;
    let change = change_of(&fleet.sql, "bob").await.to_string();
    let cases: [(&[&str], &str); 9] = [
        (&["limits"], "No limits. A task names the key of one"),
        (
            &["limits", "set", "k", "1"],
            "One task with key k runs at a time; now 0 run and 0 wait.",
        ),
        (
            &["limit", "set", "a key", "0"],
            "No task with key a key begins until that is raised; now 0 run and 0 wait.",
        ),
        (&["limits", "-n", "1"], "More with --cursor 'a key'"),
        (&["limits", "set", "k", "-1"], "a limit is 0 or more"),
        (
            &["settings", "set", "four_eyes", "on"],
            "Setting four_eyes is on for the whole fleet.",
        ),
        (&["settings"], "nobody approves a change"),
        (
            &["changes", "restore", &change, "--file", "f"],
            "no --digest",
        ),
        (
            &[
                "changes", "restore", &change, "--file", "f", "--digest", "d",
            ],
            "Taken back.",
        ),
    ];
    for (words, said) in cases {
        let told = typed(&fleet, words).await;
        assert!(told.contains(said), "{words:?}: {told}");
    }
}

#[tokio::test]
async fn null_takes_a_setting_of_a_project_away_and_what_is_left_out_stays() {
    let fleet = Fleet::new().await;
    let set = json!({ "name": "p", "default_agent": "a", "max_running": 2, "setup": "make", "four_eyes": true });
    fleet.call("project.update", set).await.unwrap();
    let clear = json!({ "name": "p", "default_agent": null, "max_running": null });
    let now = fleet.call("project.update", clear).await.unwrap();
    assert_eq!(
        (&now["default_agent"], &now["max_running"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&now["setup"], &now["four_eyes"]),
        (&json!("make"), &json!(true))
    );
}
