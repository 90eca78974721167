//! The doctor: what it finds on a real database, and that a broken part hides no other.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::db::TestDb;
use crate::harness::program::Program;
use crate::http::Server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

fn finding<'a>(body: &'a Value, check: &str) -> &'a Value {
    let all = body["data"].as_array().unwrap();
    all.iter()
        .find(|one| one["check"] == check)
        .unwrap_or_else(|| panic!("nothing about {check} in {body}"))
}

#[tokio::test]
async fn a_fleet_without_workers_is_told_what_it_lacks() {
    let server = Server::with_project().await;
    let sql = server.db.client().await;
    let told = server.get("/api/v1/doctor").await.body;
    assert_eq!(told["verdict"], "fail");
    for check in ["schema", "version", "clock", "connections", "listen"] {
        assert_eq!(finding(&told, check)["verdict"], "ok", "{told}");
    }
    for (check, verdict, words) in [
        ("workers", "fail", "dispatch worker"),
        ("agents", "fail", "dispatch agents list"),
        ("fake", "warn", "no worker offers it"),
    ] {
        let found = finding(&told, check);
        assert_eq!(found["verdict"], verdict, "{found}");
        let advice = found["advice"].as_str().unwrap();
        assert!(advice.contains(words), "{found}");
    }
    sql.batch_execute(
        "INSERT INTO workers (id, name, version, slots, sandbox) VALUES (gen_random_uuid(), 'w', '0', 1, 'none');
         INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at)
         SELECT id, 'fake', 'ready', 'acp', now() + interval '1 minute' FROM workers",
    )
    .await
    .unwrap();
    let told = server.get("/api/v1/doctor").await.body;
    for check in ["workers", "agents", "fake"] {
        assert_eq!(finding(&told, check)["verdict"], "ok", "{told}");
    }
    let one = server.get("/api/v1/doctor?agent=fake").await.body;
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    let none = server.get("/api/v1/doctor?agent=nobody").await;
    none.problem(404, "not_found");
    server.end().await;
}

#[tokio::test]
async fn the_command_looks_at_this_machine_too_and_says_by_its_exit_code_what_is_broken() {
    let db = TestDb::new().await;
    let dir = tempfile::tempdir().unwrap();
    let agents = dir.path().join("agents.toml");
    std::fs::write(&agents, "[agents.x]\nlabel = 1\n").unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is started as a person starts it"
    )]
    let mut command = Command::new(PROGRAM);
    command
        .args(["--json", "doctor"])
        .env("DATABASE_URL", db.url())
        .env("DISPATCH_AGENTS", &agents)
        .env("DISPATCH_DATA", dir.path().join("not/yet"))
        .env_remove("DATABASE_LISTEN_URL")
        .stdin(Stdio::null());
    let done = command.output().await.unwrap();
    assert_eq!(done.status.code(), Some(12));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(finding(&told, "agents.toml")["verdict"], "fail", "{told}");
    for check in ["sandbox", "disk", "git"] {
        assert_eq!(finding(&told, check)["area"], "machine");
    }
}

#[tokio::test]
async fn asked_about_an_agent_the_command_tells_of_the_fleet_and_tries_it_here() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let dir = tempfile::tempdir().unwrap();
    let agents = dir.path().join("agents.toml");
    std::fs::write(&agents, "[agents.here]\npath = \"noop\"\n").unwrap();
    sql.batch_execute("INSERT INTO catalogue_agents (name) VALUES ('there')")
        .await
        .unwrap();
    let ask = |agent: &'static str| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = Command::new(PROGRAM);
        command
            .args(["--json", "doctor", agent])
            .env("DATABASE_URL", db.url())
            .env("DISPATCH_AGENTS", &agents)
            .env_remove("DATABASE_LISTEN_URL")
            .stdin(Stdio::null());
        async move {
            let done = command.output().await.unwrap();
            let told: Value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
            (done.status.code().unwrap(), told)
        }
    };
    let (code, told) = ask("here").await;
    assert_eq!(
        (code, &finding(&told, "here")["area"]),
        (0, &"fleet".into())
    );
    assert_eq!(finding(&told, "prompt")["verdict"], "ok");
    let (code, told) = ask("there").await;
    assert_eq!(
        (code, &finding(&told, "there")["area"]),
        (0, &"agent".into())
    );
    assert_eq!(finding(&told, "found")["verdict"], "warn", "not here");
    assert_eq!(ask("nowhere").await.0, 4);
    // What is tried is recorded; what is not here is not tried.
    let query = "SELECT count(*) FROM audit_log WHERE action = 'agent.check'";
    let acts: i64 = sql.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(acts, 1);
}

/// A fleet on which much is missing.
const LACKING: &str = "
    INSERT INTO workers (id, name, version, slots, sandbox) VALUES (gen_random_uuid(), 'w', '0', 1, 'none');
    INSERT INTO catalogue_agents (name) VALUES ('amp'), ('claude'), ('codex'), ('broken');
    INSERT INTO agent_offers (worker_id, name, status, error, execution_path, version, expires_at)
    SELECT w.id, a.name, a.status, a.error, 'acp', a.version, now() + interval '1 minute'
      FROM workers w, (VALUES
        ('amp', 'unavailable', 'agent amp cannot be started: `amp-acp` is not on the PATH of the worker; npm install --global amp-acp', NULL),
        ('claude', 'unavailable', 'agent claude cannot be started: `claude-agent-acp` is not on the PATH of the worker; npm install --global claude-agent-acp', NULL),
        ('broken', 'error', 'agent broken is installed but does not work: `broken --version` ended with exit code 7; no such module', 'broken 0.0.0-with-a-long-tail.2026.01.01')
      ) a(name, status, error, version);";

/// What is read, however it is broken into lines.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_to_do_is_read_to_its_end_on_eighty_columns_and_on_a_pipe() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(LACKING).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let agents = dir.path().join("agents.toml");
    std::fs::write(&agents, "[agents.x]\nlabel = 1\n").unwrap();
    let url = db.url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("DISPATCH_AGENTS", agents.to_str().unwrap()),
        ("NO_COLOR", "1"),
    ];
    let (code, told) = Program::run(&["--json", "doctor"], &environment);
    assert_eq!(code, Some(12), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let all = told["data"].as_array().unwrap();
    assert_eq!(
        finding(&told, "claude")["verdict"],
        "warn",
        "each by itself"
    );
    let narrow = Program::run_at_columns(80, &["doctor"], &environment);
    let (_, piped) = Program::run(&["doctor"], &environment);
    for shown in [&narrow, &piped] {
        let read = words(shown);
        let absent = |one: &&Value| one["found"].as_str().unwrap().starts_with("unavailable");
        for one in all.iter().filter(|one| !absent(one)) {
            if let Some(advice) = one["advice"].as_str() {
                assert!(read.contains(&words(advice)), "{advice}\n{shown}");
            }
        }
        assert!(
            read.contains("agent unavailable warn amp, claude, codex"),
            "{shown}"
        );
        assert!(!read.contains("npm install"), "the list has it: {shown}");
        assert!(
            !shown.contains('…') && !shown.contains("confined"),
            "{shown}"
        );
    }
    let is_word = |line: &&str| line.split_whitespace().count() == 1;
    let wide = narrow
        .lines()
        .filter(|line| line.chars().count() > 80 && !is_word(line));
    assert_eq!(wide.collect::<Vec<_>>(), [""; 0]);
    let listed = Program::run_at_columns(80, &["agents", "list"], &environment);
    for lack in [
        "npm install --global claude-agent-acp",
        "exit code 7; no such module",
    ] {
        assert!(words(&listed).contains(lack), "{listed}");
    }
}
