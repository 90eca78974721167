//! How the command line talks: what is wrong, in the form that was asked for, and with a way to mend it.

use serde_json::Value;

use crate::harness::db::TestDb;
use crate::harness::program::Program;

fn json(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_wrong_command_line_is_json_when_json_is_asked_for() {
    for words in [
        &["--json", "list", "--state", "bogus"][..],
        &["list", "--state", "bogus", "--json"],
    ] {
        let (code, said) = Program::run(words, &[]);
        assert_eq!(code, Some(2), "{said}");
        let error = &json(&said)["error"];
        assert_eq!(error["code"], "invalid_input");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("a state is one of"),
            "{said}"
        );
    }
    let (code, said) = Program::run(&["submit", "--", "--json"], &[("DATABASE_URL", "")]);
    assert_ne!(code, Some(0));
    assert!(said.starts_with("error:"), "a word, and no option: {said}");
}

#[test]
fn the_usage_names_what_must_be_typed_and_not_what_a_variable_says() {
    let set = [
        ("DISPATCH_DATA", "/data"),
        ("DATABASE_URL", "postgres://x@nowhere/x"),
    ];
    for words in [
        &["list", "--state", "bogus"][..],
        &["submit"],
        &["changes", "approve"],
    ] {
        let (code, said) = Program::run(words, &set);
        assert_eq!(code, Some(2), "{said}");
        let usage = said.lines().find(|line| line.starts_with("Usage:"));
        assert!(
            !said.contains("--data") && !said.contains("--database-url"),
            "{said}"
        );
        assert!(usage.is_none_or(|usage| usage.contains(words[0])), "{said}");
    }
    let (code, said) = Program::run(&["help", "changes", "approve"], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("changes approve [OPTIONS] <CHANGE>"),
        "{said}"
    );
    assert_eq!(Program::run(&["help"], &[]).0, Some(0));
}

#[tokio::test]
async fn an_error_says_where_it_was_tried_and_how_to_mend_it() {
    let db = TestDb::new().await;
    let url = db.url();
    let fleet = [("DATABASE_URL", url.as_str()), ("DISPATCH_DATA", "")];
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 8] = [
        (&["cancel", "99"], &fleet, &["99", "dispatch list"]),
        (&["requeue", "99"], &fleet, &["99", "dispatch list"]),
        (
            &["projects", "add", "Bad Name", "/x", "--unchecked"],
            &fleet,
            &["lower-case letters", "such as shop"],
        ),
        (
            &["usage", "--since", "bogus"],
            &fleet,
            &["2026-05-04T09:30:00Z", "bogus"],
        ),
        (
            &["list"],
            &[("DATABASE_URL", "postgres://me@127.0.0.1:1/x")],
            &["127.0.0.1:1", "Is the server up"],
        ),
        (
            &["sql", "SELECT 1"],
            &[("DATABASE_URL", "postgres://me@127.0.0.1:1/x")],
            &["127.0.0.1:1", "Is the server up"],
        ),
        (
            &["--database-url", "nonsense", "list"],
            &[],
            &[
                "connection string",
                "--database-url",
                "postgres://user@host",
            ],
        ),
        (&["man", "/proc/x"], &[], &["/proc/x"]),
    ];
    for (words, environment, told) in cases {
        let (code, said) = Program::run(words, environment);
        assert_ne!(code, Some(0), "{words:?}: {said}");
        for part in told {
            assert!(
                said.contains(part),
                "{words:?} does not say {part:?}: {said}"
            );
        }
        assert!(!said.contains("me@"), "{said}");
    }
    // An empty variable is none.
    assert_eq!(Program::run(&["list"], &fleet).0, Some(0));
}

#[tokio::test]
async fn what_is_no_operation_answers_in_json_too() {
    let db = TestDb::new().await;
    let dir = tempfile::tempdir().unwrap();
    let url = db.url();
    let file = dir.path().join("agents.toml");
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("DISPATCH_AGENTS", file.to_str().unwrap()),
    ];
    let ask = |words: &[&str]| {
        let words = [&["--json"], words].concat();
        let (code, said) = Program::run(&words, &environment);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        json(&said)
    };
    let known = ask(&["agents", "add", "--list"]);
    assert!(
        known["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "opencode")
    );
    assert_eq!(ask(&["agents", "add", "opencode"])["name"], "opencode");
    assert!(ask(&["config", "check"])["agents"]["opencode"].is_object());
    let fits = ask(&["migrate", "--check"]);
    assert_eq!(ask(&["migrate"])["version"], fits["version"]);
    let pages = dir.path().join("man1");
    assert!(
        ask(&["man", pages.to_str().unwrap()])["pages"]
            .as_u64()
            .unwrap()
            > 50
    );
    assert_eq!(ask(&["completions", "bash"])["shell"], "bash");
    let data = dir.path().join("data");
    assert_eq!(
        ask(&["down", "--data", data.to_str().unwrap()])["is_running"],
        false
    );
}

#[tokio::test]
async fn who_acts_is_the_login_also_where_no_variable_says_so() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let url = db.url();
    let nobody = [
        ("DATABASE_URL", url.as_str()),
        ("USER", ""),
        ("DISPATCH_ACTOR", ""),
    ];
    let add = ["projects", "add", "p", "/nowhere", "--unchecked"];
    let (code, said) = Program::run(&add, &nobody);
    assert_eq!(code, Some(0), "{said}");
    let uid = nix::unistd::getuid();
    let login = nix::unistd::User::from_uid(uid).unwrap();
    let login = login.map_or_else(|| format!("uid-{uid}"), |user| user.name);
    let row = sql
        .query_one(
            "SELECT actor FROM audit_log WHERE action = 'project.add'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), login);
}

#[tokio::test]
async fn usage_has_a_row_a_group_and_a_title_over_each_column() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects (name, path) VALUES ('p', '/nowhere');
         INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'a' FROM generate_series(1, 3);
         INSERT INTO usage_reports (task_id, attempt, token, agent, source, total_tokens, cost, currency)
         VALUES (1, 1, 1, 'acp', 'reported', 1000, 1.5, 'USD'), (2, 1, 1, 'acp', 'reported', 500, NULL, NULL),
                (3, 1, 1, 'acp', 'none', NULL, NULL, NULL)",
    )
    .await
    .unwrap();
    let url = db.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let (_, said) = Program::run(&["usage", "--by", "agent"], &environment);
    let rows: Vec<Vec<&str>> = said
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(
        rows,
        [
            [
                "AGENT", "ATTEMPTS", "UNKNOWN", "TOTAL", "NO COST", "COST", "IN"
            ],
            ["acp", "3", "1", "1,500", "2", "1.5", "USD"]
        ]
    );
    let (_, said) = Program::run(&["--json", "usage", "--by", "agent"], &environment);
    assert_eq!(
        json(&said)["data"].as_array().unwrap().len(),
        2,
        "programs get both"
    );
    assert!(Program::run(&["usage"], &environment).1.starts_with("DAY"));
}

#[test]
fn up_says_what_is_wrong_with_its_agents_or_its_tokens_before_it_starts_anything() {
    let dir = tempfile::tempdir().unwrap();
    let entry = "[agents.x]\npath = \"pipe\"\ncommand = [\"true\"]\n";
    std::fs::write(dir.path().join("agents.toml"), entry).unwrap();
    let data = dir.path().join("data");
    let environment = [
        ("DISPATCH_DATA", data.to_str().unwrap()),
        ("DATABASE_URL", ""),
    ];
    let (code, said) = Program::run_in(dir.path(), &["up"], &environment);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("error: agents file, line 1"), "{said}");
    std::fs::remove_file(dir.path().join("agents.toml")).unwrap();
    let args = ["up", "--token-file", "nothing"];
    let (code, said) = Program::run_in(dir.path(), &args, &environment);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("nothing") && said.contains("--token-file"),
        "{said}"
    );
    assert!(!data.exists(), "a database was made");
}

#[test]
fn a_command_that_is_missing_is_answered_with_the_help() {
    let set = [("DISPATCH_DATA", "/data")];
    let (code, said) = Program::run(&[], &set);
    assert_eq!(code, Some(2), "{said}");
    let mut lines = said.lines().map(str::trim_start);
    assert!(lines.any(|line| line.starts_with("submit ")), "{said}");
    assert!(!said.contains("error:"), "{said}");
    let (code, said) = Program::run(&["--json"], &set);
    assert_eq!(code, Some(2));
    assert_eq!(json(&said)["error"]["message"], "a command is missing");
}

#[test]
fn a_key_that_cannot_be_read_is_told_as_that() {
    let there = tempfile::tempdir().unwrap();
    let agents = there.path().join("agents.toml");
    let text = "[providers.p]\napi = \"anthropic\"\napi_key_env = \"SOME_KEY\"\n\
                [agents.n]\npath = \"native\"\n\
                [agents.c]\npath = \"pipe\"\ncommand = [\"true\", \"{prompt}\"]\nenv_allow = [\"SOME_KEY\"]\n\
                [agents.other]\npath = \"pipe\"\ncommand = [\"true\", \"{prompt}\"]\n";
    std::fs::write(&agents, text).unwrap();
    let set = [
        ("DISPATCH_AGENTS", agents.to_str().unwrap()),
        ("DATABASE_URL", ""),
        ("SOME_KEY_FILE", "/nowhere/key"),
    ];
    for agent in ["n", "c"] {
        let (_, said) = Program::run(&["--json", "agents", "probe", agent, "--here"], &set);
        let told = json(&said);
        assert_eq!(told["status"], "unavailable", "{said}");
        let error = told["error"].as_str().unwrap();
        assert!(
            error.contains("SOME_KEY_FILE") && error.contains("/nowhere/key"),
            "{said}"
        );
    }
    // Whoever does not get the key has no fault of it.
    let (_, said) = Program::run(&["--json", "agents", "probe", "other", "--here"], &set);
    assert_eq!(json(&said)["status"], "ready", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_submissions_say_what_fits_the_command() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects (name, path, default_agent) VALUES ('shop', '/srv/shop', 'nobody');
         INSERT INTO catalogue_agents VALUES ('a');
         INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'a');
         SELECT cancel_task(1);
         INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'a')",
    )
    .await
    .unwrap();
    let url = db.url();
    let run = |words: &[&str]| Program::run(words, &[("DATABASE_URL", &url)]);
    let (code, said) = run(&["submit", "shop", "x", "--agent", "a", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("Note: no live worker offers agent a"),
        "{said}"
    );
    let (_, said) = run(&["tasks", "events", "1", "--limit", "1"]);
    assert!(
        said.contains("--since-seq") && !said.contains("--cursor"),
        "{said}"
    );
    let (code, said) = run(&["projects", "check", "shop"]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("\"nobody\", which no worker ever had"),
        "{said}"
    );
    let (_, said) = run(&["tokens", "create", "a\u{1b}[31mb", "--scope", "read"]);
    assert!(said.contains("no control characters"), "{said}");
}
