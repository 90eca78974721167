//! Each example of each operation, sent by the command line, over HTTP and over MCP, each to a database of
//! its own that begins like the others: the answers are the same, and so is what is left behind.

use std::collections::BTreeMap;
use std::process::Stdio;

use dispatch_worker::ops::{self, Effect, OpContext, OpEntry, OpErrorKind};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::harness::db::TestDb;
use crate::http::Server;
use crate::mcp::Client as McpClient;
use crate::ops_parity::request_of;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

/// Operations that are not sent, and why.
const NOT_SENT: [(&str, &str); 1] = [(
    "doctor.show",
    "looks at the machine of the process that is asked",
)];

/// What the examples name is there: task 42 of project shop waits, change 7 is undecided, message, request
/// and token 3 are open, worker build-7 lives and offers opencode. A trigger answers for the worker.
const SCENE: &str = r#"
    INSERT INTO projects (name, path) VALUES ('shop', '/srv/shop') ON CONFLICT DO NOTHING;
    INSERT INTO catalogue_agents (name) VALUES ('opencode'), ('claude') ON CONFLICT DO NOTHING;
    INSERT INTO settings VALUES ('default_agent', 'opencode') ON CONFLICT DO NOTHING;
    INSERT INTO limits VALUES ('shop-lockfile', 1);
    INSERT INTO workers (id, name, version, slots, tries_agents, last_seen)
    VALUES ('00000000-0000-0000-0000-0000000000b7', 'build-7', '1', 4, true, now() + interval '1 hour');
    INSERT INTO agent_offers (worker_id, name, status, execution_path, version, models, modes, commands, capabilities,
                              expires_at)
    VALUES ('00000000-0000-0000-0000-0000000000b7', 'opencode', 'ready', 'acp', '1.2', '["m1"]', '["build"]',
            '[{"name": "plan", "description": "Plan first"}]', '{"providers": [{"name": "anthropic"}]}',
            now() + interval '1 hour');
    INSERT INTO tasks (project, input, agent, submitted_by)
    SELECT 'shop', 'task ' || n, 'opencode', 'ada' FROM generate_series(1, 42) n;
    DELETE FROM ready_tasks WHERE task_id < 42;
    INSERT INTO outcomes (task_id, seq, attempt, state, error_class)
    SELECT n, 2, 1, CASE n WHEN 1 THEN 'failed' ELSE 'completed' END, CASE n WHEN 1 THEN 'internal' END
      FROM generate_series(1, 41) n;
    SELECT append_event(42, 0::smallint, 'notice', '{"text": "x"}') FROM generate_series(1, 9);
    INSERT INTO usage_reports (task_id, attempt, token, agent, source, total_tokens, cost, currency)
    VALUES (41, 1, 1, 'opencode', 'reported', 1200, 0.25, 'USD'), (40, 1, 1, 'opencode', 'none', NULL, NULL, NULL);
    INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree, result_commit, result_ref,
                                 digest, files, added_lines, removed_lines)
    SELECT n, 1, n, 'shop', 'b', 't', 'c', 'refs/dispatch/' || n || '/1', 'd1', 3, 3, 0 FROM generate_series(35, 41) n;
    INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind, patch)
    SELECT c.id, f.n, f.path, f.path::bytea, 'edit', 'text',
           E'diff --git a/' || f.path || ' b/' || f.path || E'\n@@ -0,0 +1 @@\n+x\n'
      FROM pending_changes c, (VALUES (1, 'a.rs'), (2, 'b.rs'), (3, 'src/lib.rs')) f (n, path);
    INSERT INTO permission_requests (task_id, attempt, token, agent, kind, title)
    SELECT 42, 1, 1, 'opencode', 'execute', 'ls' FROM generate_series(1, 3);
    INSERT INTO conversations (id, project, agent) VALUES (42, 'shop', 'opencode');
    INSERT INTO messages (conversation_id, seq, ord, task_id, attempt, step, role, parts)
    VALUES (42, 1, 1, 42, 1, 0, 'user', '[]');
    INSERT INTO items (task_id, attempt, n, turn, conversation_id, kind, text)
    SELECT 42, 1, n, 1, 42, 'text', 'words ' || n FROM generate_series(1, 30) n;
    INSERT INTO inbox (conversation_id, text, sent_by, state) SELECT 42, 'x', 'ada', 'held' FROM generate_series(1, 3);
    INSERT INTO request_bodies (hash, bytes, body) VALUES (sha256('{}'), 2, '{}');
    INSERT INTO requests (task_id, attempt, n, model, hash)
    SELECT 42, 1, n, 'anthropic/m1', sha256('{}') FROM generate_series(0, 3) n;
    INSERT INTO provider_pauses (provider, until, class, message)
    VALUES ('anthropic', now() + interval '1 hour', 'billing', 'no');
    INSERT INTO tokens (name, hash, scopes, created_by, expires_at)
    SELECT 'old', n::text::bytea, '{read}', 'ada', now() + interval '1 day' FROM generate_series(1, 3) n;
    CREATE FUNCTION answered() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.answered_at := now();
        NEW.answered_by := 'build-7';
        NEW.worker_id := '00000000-0000-0000-0000-0000000000b7';
        NEW.answer := CASE NEW.question ->> 'kind'
            WHEN 'preview' THEN '{"preview": {"outcome": "clean", "target_ref": "refs/heads/main", "tip": "abc",
                                              "unified": "+x", "cut": false, "conflicts": []}}'
            WHEN 'probe' THEN '{"probe": {"name": "opencode", "worker": "build-7", "status": "ready", "error": null,
                                          "execution_path": "acp", "version": "1.2", "models": ["m1"],
                                          "modes": ["build"], "thinking_options": [], "commands": [],
                                          "capabilities": {}}}'
            WHEN 'check' THEN '{"check": [{"area": "agent", "check": "found", "verdict": "ok", "found": "opencode",
                                           "advice": null}]}'
            WHEN 'file' THEN '{"file": {"path": "src/lib.rs", "bytes": 1, "text": "x", "cut": false}}'
            ELSE '{"project": {"target_ref": "refs/heads/main", "tip": "abc", "shallow": false, "mirrored": true}}'
        END::jsonb;
        RETURN NEW;
    END $$;
    CREATE TRIGGER answered BEFORE INSERT ON lookups FOR EACH ROW EXECUTE FUNCTION answered();"#;

/// Change 7 is undecided again.
const UNDECIDED: &str = "SET session_replication_role = replica;
    UPDATE pending_changes SET state = 'pending', decided_at = NULL, decided_by = NULL WHERE id = 7;
    UPDATE pending_change_files SET state = 'pending' WHERE change_id = 7;
    SET session_replication_role = origin;";

/// Change 7 is undecided, and one of its files is set aside.
const SET_ASIDE: &str = "SET session_replication_role = replica;
    UPDATE pending_changes SET state = 'pending', decided_at = NULL, decided_by = NULL WHERE id = 7;
    UPDATE pending_change_files SET state = CASE path WHEN 'a.rs' THEN 'rejected' ELSE 'pending' END
     WHERE change_id = 7;
    SET session_replication_role = origin;";

/// Change 7 is in its branch.
const APPLIED: &str = "SET session_replication_role = replica;
    UPDATE pending_changes SET state = 'applied', undo_asked_at = NULL WHERE id = 7;
    SET session_replication_role = origin;";

/// Nothing of the project is open.
const CLOSED: &str = "
    SELECT cancel_task(id, 'x', 'ada') FROM task_status WHERE project = 'shop' AND ended_at IS NULL;
    SELECT reject_change(id, 'x', 'ada') FROM pending_changes WHERE state IN ('pending', 'approved', 'conflicted');";

/// What has to be so for the examples of an operation to do something, after those before it.
fn before(op: &str) -> &'static str {
    match op {
        "task.wait" => "SELECT cancel_task(42, 'x', 'ada')",
        "task.cancel" => "SELECT requeue_task(42, 'ada') FROM outcomes WHERE task_id = 42",
        // A task that is cancelled while it waits loses what was said.
        "conversation.compact" => "UPDATE messages SET lost_at = NULL",
        "change.approve" | "change.reject" | "change.request-changes" => UNDECIDED,
        "change.restore" => SET_ASIDE,
        "change.undo" => APPLIED,
        "project.remove" => CLOSED,
        _ => "",
    }
}

/// Calls beside the examples: what is refused is told alike too.
fn refusals() -> [(&'static str, Vec<&'static str>, Value); 7] {
    [
        ("task.show", vec!["4711"], json!({"id": 4711})),
        (
            "change.approve",
            vec!["6", "--digest", "d0"],
            json!({"id": 6, "digest": "d0"}),
        ),
        ("agent.show", vec!["nope"], json!({"name": "nope"})),
        ("provider.resume", vec!["nope"], json!({"name": "nope"})),
        (
            "limit.set",
            vec!["project:shop", "2"],
            json!({"key": "project:shop", "max_running": 2}),
        ),
        (
            "setting.set",
            vec!["default_agent", "claude"],
            json!({"name": "default_agent", "value": "claude"}),
        ),
        (
            "message.send",
            vec!["42", "stop", "--idempotency-key", "go-7"],
            json!({"id": 42, "text": "stop", "idempotency_key": "go-7"}),
        ),
    ]
}

/// The example by the program, as a person types it.
async fn by_program(url: &str, entry: &OpEntry, words: &[&str]) -> Value {
    let (noun, verb) = entry.spec.noun_verb();
    let noun = if noun == "worker" { "workers" } else { noun };
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is started as a person starts it"
    )]
    let mut command = Command::new(PROGRAM);
    let run = command
        .args(["--as", "robin", "--json", noun, verb])
        .args(words)
        .env("DATABASE_URL", url)
        .env_remove("DATABASE_LISTEN_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = run.await.unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    match serde_json::from_slice::<Value>(&run.stdout) {
        Ok(answer) => json!({"done": answer}),
        Err(_) => {
            let last = said.lines().last().unwrap_or_default();
            serde_json::from_str(last).unwrap_or_else(|_| panic!("{noun} {verb} {words:?}: {said}"))
        }
    }
}

async fn by_http(server: &Server, entry: &OpEntry, input: &Value) -> Value {
    let (head, body) = request_of(entry, input);
    let body = match body.is_null() {
        true => String::new(),
        false => body.to_string(),
    };
    let answer = server
        .send(&head, "X-Dispatch-Actor: robin\r\n", &body)
        .await;
    if answer.status < 400 {
        return json!({"done": answer.body});
    }
    let mut told = Map::new();
    for (name, other) in [
        ("code", "code"),
        ("message", "detail"),
        ("hint", "hint"),
        ("digest", "digest"),
    ] {
        if let Some(value) = answer.body.get(other) {
            told.insert(name.to_owned(), value.clone());
        }
    }
    json!({"error": told})
}

async fn by_mcp(client: &mut McpClient, entry: &OpEntry, input: &Value) -> Value {
    let called = client.call(&entry.spec.word(), input.clone()).await;
    let result = &called["result"];
    if result["isError"] == false {
        return json!({"done": result["structuredContent"]});
    }
    let text = result["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("{}: {called}", entry.spec.name));
    json!({"error": serde_json::from_str::<Value>(text).unwrap()})
}

/// Without what is another each time: moments, and the text of a new token.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => {
            json!("a moment")
        }
        Value::String(text) if text.starts_with("dt_") => json!("a token"),
        // The gate marks the names that clients over HTTP give themselves.
        Value::String(text) => json!(text.replace(" (http)", "")),
        Value::Array(all) => all.iter().map(plain).collect(),
        Value::Object(fields) => {
            let plain = |(name, value): (&String, &Value)| match name.as_str() {
                "remaining_ms" => (name.clone(), Value::Null),
                _ => (name.clone(), plain(value)),
            };
            fields.iter().map(plain).collect()
        }
        other => other.clone(),
    }
}

/// Every row of every table.
async fn rows(sql: &Client) -> BTreeMap<String, Vec<Value>> {
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let mut all = BTreeMap::new();
    for table in sql.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let rows = format!("SELECT to_jsonb(t) FROM \"{table}\" t");
        let rows = sql.query(&rows, &[]).await.unwrap();
        let mut rows: Vec<Value> = rows.iter().map(|row| row.get(0)).collect();
        rows.sort_by_key(Value::to_string);
        all.insert(table, rows);
    }
    all
}

/// The same without what is another in each database.
fn alike(rows: BTreeMap<String, Vec<Value>>) -> BTreeMap<String, Vec<String>> {
    let alike = |(table, rows): (String, Vec<Value>)| {
        let row = |row: &Value| {
            let mut row = plain(row);
            if table == "tokens" {
                row["hash"] = Value::Null;
            }
            row.to_string()
        };
        let mut rows: Vec<String> = rows.iter().map(row).collect();
        rows.sort();
        (table, rows)
    };
    rows.into_iter().map(alike).collect()
}

#[tokio::test]
async fn each_example_gives_the_same_by_every_door_and_leaves_the_same() {
    let server = Server::start(&[]).await;
    let (typed, tools) = (TestDb::new().await, TestDb::new().await);
    let sql = [
        typed.client().await,
        server.db.client().await,
        tools.client().await,
    ];
    for sql in &sql {
        sql.batch_execute(SCENE).await.unwrap();
    }
    let mut client = McpClient::start(&tools.url(), &[]).await;
    let mut calls = Vec::new();
    for entry in ops::ALL {
        if NOT_SENT.iter().any(|(name, _)| *name == entry.spec.name) {
            continue;
        }
        for example in (entry.examples)() {
            calls.push((entry, example.cli.to_vec(), example.input, true));
        }
        for (name, words, input) in refusals() {
            if name == entry.spec.name {
                calls.push((entry, words, input, false));
            }
        }
    }
    // Reading the certificates of the machine takes longer than most commands.
    let url = typed.url();
    let url = format!(
        "{url}{}sslmode=disable",
        if url.contains('?') { '&' } else { '?' }
    );
    let mut refused = Vec::new();
    for (entry, words, input, example) in calls {
        let name = entry.spec.name;
        for sql in &sql {
            sql.batch_execute(before(name)).await.unwrap();
        }
        let (typed, sent, called) = tokio::join!(
            by_program(&url, entry, &words),
            by_http(&server, entry, &input),
            by_mcp(&mut client, entry, &input),
        );
        let typed = plain(&typed);
        assert_eq!(typed, plain(&sent), "{name} {words:?}: program and HTTP");
        assert_eq!(typed, plain(&called), "{name} {words:?}: program and MCP");
        match (example, typed.get("error")) {
            (true, Some(error)) => refused.push(format!("{name}: {}", error["code"])),
            (false, None) => panic!("{name} {words:?} is not refused: {typed}"),
            _ => {}
        }
    }
    // Almost all of them do something here.
    assert_eq!(refused, ["project.add: \"duplicate\""]);
    let [typed, sent, called] = [
        rows(&sql[0]).await,
        rows(&sql[1]).await,
        rows(&sql[2]).await,
    ];
    let (typed, sent, called) = (alike(typed), alike(sent), alike(called));
    for (table, rows) in &typed {
        assert_eq!(Some(rows), sent.get(table), "{table}: program and HTTP");
        assert_eq!(Some(rows), called.get(table), "{table}: program and MCP");
    }
    client.end().await;
    server.end().await;
}

#[tokio::test]
async fn what_may_be_sent_again_changes_nothing_the_second_time() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(SCENE).await.unwrap();
    let (context, _listener) = OpContext::open(&db.url(), 2, "robin".to_owned()).unwrap();
    let mut tried = 0;
    for entry in ops::ALL {
        let name = entry.spec.name;
        if entry.spec.effect == Effect::Read {
            assert!(entry.spec.idempotent, "{name} reads");
        }
        if entry.spec.effect == Effect::Read || !entry.spec.idempotent {
            continue;
        }
        for example in (entry.examples)() {
            sql.batch_execute(before(name)).await.unwrap();
            let first = rows(&sql).await;
            let done = (entry.call)(&context, example.input.clone()).await;
            done.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let second = rows(&sql).await;
            assert_ne!(first, second, "{name} does nothing here: nothing is shown");
            let again = (entry.call)(&context, example.input).await;
            let gone = |error: &ops::OpError| {
                entry.spec.effect == Effect::Destructive && error.kind == OpErrorKind::NotFound
            };
            assert!(again.as_ref().err().is_none_or(gone), "{name}: {again:?}");
            assert_eq!(second, rows(&sql).await, "{name}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
}

#[tokio::test]
async fn an_agent_and_a_conversation_are_shown_whole() {
    let db = TestDb::new().await;
    db.client().await.batch_execute(SCENE).await.unwrap();
    let (context, _listener) = OpContext::open(&db.url(), 2, "robin".to_owned()).unwrap();
    let show = async |op: &str, input: Value| {
        let entry = ops::find(op).unwrap();
        (entry.call)(&context, input).await.unwrap()
    };
    let agent = show("agent.show", json!({"name": "opencode"})).await;
    let told = ["status", "version", "models", "commands"].map(|name| agent[name].clone());
    let plan = json!([{"name": "plan", "description": "Plan first"}]);
    assert_eq!(told, [json!("ready"), json!("1.2"), json!(["m1"]), plan]);
    let offer = &agent["offers"][0];
    assert_eq!(
        (&offer["worker"], &offer["status"]),
        (&json!("build-7"), &json!("ready")),
        "{agent}"
    );
    let nobody = show("agent.show", json!({"name": "claude"})).await;
    assert_eq!(
        (&nobody["status"], &nobody["offers"]),
        (&json!("unavailable"), &json!([]))
    );
    let waits = show("conversation.show", json!({"id": 42})).await;
    assert_eq!(waits["messages_waiting"], 3, "{waits}");
    assert_eq!(waits["task_list"][0]["state"], "pending");
    assert_eq!(
        (&waits["project"], &waits["agent"]),
        (&json!("shop"), &json!("opencode"))
    );
    let over = show("conversation.show", json!({"id": 41})).await;
    let usage = json!([{"attempts": 1, "unknown": 0, "total_tokens": 1200, "cost": "0.25", "currency": "USD"}]);
    assert_eq!(over["usage"], usage);
    assert_eq!(over["task_list"][0]["change_id"], 7);
    let silent = show("conversation.show", json!({"id": 40})).await;
    let usage = &silent["usage"][0];
    assert_eq!(
        (&usage["unknown"], &usage["total_tokens"]),
        (&json!(1), &Value::Null)
    );
}
