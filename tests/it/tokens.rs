//! Tokens of those who call over HTTP: what each is good for, and for how long.

use dispatch_worker::domain::scope::Scope;
use dispatch_worker::ops;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::http::{Answer, Server};
use crate::ops_parity::request_of;

/// A server that admits nobody without a token, and a login on its database.
async fn server() -> (Server, Client) {
    let server = Server::start(&["of-the-file-0123456789".to_owned()]).await;
    let sql = server.db.client().await;
    let shop = "INSERT INTO projects (name, path) VALUES ('shop', '/srv/shop');
                INSERT INTO catalogue_agents (name) VALUES ('fake');";
    sql.batch_execute(shop).await.unwrap();
    (server, sql)
}

async fn token(sql: &Client, name: &str, scopes: &[&str]) -> (i64, String) {
    let make = "SELECT id, token FROM create_token($1, $2, interval '1 hour', 'ada')";
    let row = sql.query_one(make, &[&name, &scopes]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn with(server: &Server, token: &str, head: &str, body: &Value) -> Answer {
    let headers = format!("Authorization: Bearer {token}\r\nX-Dispatch-Actor: somebody\r\n");
    let body = match body.is_null() {
        true => String::new(),
        false => body.to_string(),
    };
    server.send(head, &headers, &body).await
}

#[tokio::test]
async fn each_operation_wants_its_scope_and_no_other() {
    let (server, sql) = server().await;
    for scope in Scope::ALL {
        let (_, token) = token(&sql, "who", &[scope.as_str()]).await;
        for entry in ops::ALL {
            let spec = entry.spec;
            let example = (entry.examples)().remove(0);
            let (head, body) = request_of(entry, &example.input);
            let answer = with(&server, &token, &head, &body).await;
            let refused = answer.body["code"] == "insufficient_scope";
            let wanted = !spec.scope.is_in(&[scope]);
            assert_eq!(refused, wanted, "{scope:?} {head}: {answer:?}");
            if refused {
                answer.problem(403, "insufficient_scope");
            }
        }
        let metrics = with(&server, &token, "GET /metrics", &Value::Null).await;
        let may = Scope::Read.is_in(&[scope]);
        assert_eq!(
            metrics.body["code"] != "insufficient_scope",
            may,
            "{scope:?}"
        );
        let stream = with(&server, &token, "GET /api/v1/tasks/1/events", &Value::Null).await;
        assert_eq!(
            stream.body["code"] != "insufficient_scope",
            may,
            "{scope:?}"
        );
    }
    server.end().await;
}

#[tokio::test]
async fn a_token_ends_when_its_time_is_over_or_somebody_ends_it() {
    let (server, sql) = server().await;
    let (first, token_one) = token(&sql, "ci", &["read"]).await;
    let (second, token_two) = token(&sql, "ci", &["read"]).await;
    let list = "GET /api/v1/tasks";
    for token in [&token_one, &token_two] {
        assert_eq!(with(&server, token, list, &Value::Null).await.status, 200);
    }
    let used = "SELECT count(*) FROM tokens WHERE last_used_at IS NOT NULL";
    assert_eq!(sql.query_one(used, &[]).await.unwrap().get::<_, i64>(0), 2);
    let revoke = "SELECT revoke_token($1, 'ada')";
    for expected in [true, false] {
        let row = sql.query_one(revoke, &[&first]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), expected);
    }
    let past = "UPDATE tokens SET expires_at = now() WHERE id = $1";
    sql.execute(past, &[&second]).await.unwrap();
    for token in [&token_one, &token_two, "dt_guessed", ""] {
        let answer = with(&server, token, list, &Value::Null).await;
        answer.problem(401, "unauthorized");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_with_its_token() {
    let (server, sql) = server().await;
    let task = "INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake')";
    sql.batch_execute(task).await.unwrap();
    let (id, reader) = token(&sql, "reader", &["read"]).await;
    let stream = with(&server, &reader, "GET /api/v1/tasks/1/events", &Value::Null);
    let end = async {
        let used = format!("SELECT last_used_at IS NOT NULL FROM tokens WHERE id = {id}");
        while !sql.query_one(&used, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
        let revoke = "SELECT revoke_token($1, 'ada')";
        sql.query_one(revoke, &[&id]).await.unwrap();
    };
    // The task never ends: only its token's end lets this go on.
    let (read, ()) = tokio::join!(stream, end);
    assert_eq!(read.status, 200, "it had begun: {read:?}");
    server.end().await;
}

#[tokio::test]
async fn its_holder_acts_under_its_name_and_it_is_kept_as_a_hash() {
    let (server, sql) = server().await;
    let (_, admin) = token(&sql, "root", &["admin"]).await;
    let ask = json!({ "name": "ci", "scopes": ["submit", "read"], "valid": "30d" });
    let made = with(&server, &admin, "POST /api/v1/tokens", &ask).await;
    assert_eq!(made.status, 201, "{made:?}");
    let token = made.body["token"].as_str().unwrap();
    let task = json!({ "project": "shop", "input": "x", "agent": "fake" });
    let answer = with(&server, token, "POST /api/v1/tasks", &task).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let by = sql.query_one("SELECT submitted_by FROM tasks", &[]).await;
    assert_eq!(by.unwrap().get::<_, &str>(0), "ci (http)");
    let listed = with(&server, &admin, "GET /api/v1/tokens", &Value::Null).await;
    let first = &listed.body["data"][0];
    assert_eq!(
        (&first["name"], &first["state"], &first["created_by"]),
        (&json!("ci"), &json!("valid"), &json!("root (http)"))
    );
    assert_eq!(first["scopes"], json!(["read", "submit"]));
    for table in ["tokens", "audit_log"] {
        let found = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        let row = sql.query_one(&found, &[&token]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{table}");
    }
    let audited = "SELECT string_agg(actor || ': ' || action, ', ' ORDER BY id) FROM audit_log WHERE action LIKE 'token.%'";
    let row = sql.query_one(audited, &[]).await.unwrap();
    assert_eq!(
        row.get::<_, &str>(0),
        "ada: token.create, root (http): token.create"
    );
    // Whoever may do everything may do it for somebody else, and says for whom.
    let file = with(
        &server,
        "of-the-file-0123456789",
        "POST /api/v1/tasks",
        &task,
    )
    .await;
    assert_eq!(file.status, 201, "{file:?}");
    let by = "SELECT submitted_by FROM tasks ORDER BY id DESC LIMIT 1";
    let row = sql.query_one(by, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "somebody (http)");
    server.end().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_is_refused_with_a_way_out() {
    let (server, sql) = server().await;
    for (call, words) in [
        ("create_token(' ', ARRAY['read'])", "needs a name"),
        ("create_token(E'a\\nb', ARRAY['read'])", "needs a name"),
        ("create_token('ci', ARRAY['root'])", "not \"root\""),
        ("create_token('ci', ARRAY[]::text[])", "not none"),
        ("create_token('ci', ARRAY['read', NULL])", "not none"),
        (
            "create_token('ci', ARRAY['read'], interval '0')",
            "valid for",
        ),
        (
            "create_token('ci', ARRAY['read'], interval '11 years')",
            "valid for",
        ),
        ("revoke_token(99)", "no token 99"),
    ] {
        let query = format!("SELECT {call}");
        let refused = sql.batch_execute(&query).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert!(refused.message().contains(words), "{call}: {refused}");
    }
    let ask = json!({ "name": "ci", "scopes": [] });
    let answer = with(
        &server,
        "of-the-file-0123456789",
        "POST /api/v1/tokens",
        &ask,
    )
    .await;
    assert_eq!(answer.status, 422, "{answer:?}");
    server.end().await;
}

#[tokio::test]
async fn an_mcp_client_sees_what_its_token_is_good_for() {
    let (server, sql) = server().await;
    let (_, token) = token(&sql, "eye", &["read"]).await;
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
    let ask = async |token: &str, message: &Value| {
        let headers = format!(
            "Authorization: Bearer {token}\r\nAccept: application/json, text/event-stream\r\n"
        );
        server
            .send("POST /mcp", &headers, &message.to_string())
            .await
    };
    let answer = ask(&token, &list).await;
    let tools = answer.body["result"]["tools"].as_array().unwrap();
    let readers = ops::ALL.iter().filter(|e| e.spec.scope == Scope::Read);
    assert_eq!(tools.len(), readers.count());
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "task_submit", "arguments": { "project": "shop", "input": "x", "agent": "fake" } } });
    let answer = ask(&token, &call).await;
    let result = &answer.body["result"];
    assert_eq!(result["isError"], true, "{answer:?}");
    assert!(
        result["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("insufficient_scope")
    );
    assert_eq!(ask("dt_none", &list).await.status, 401);
    server.end().await;
}
