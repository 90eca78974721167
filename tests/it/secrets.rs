//! Secrets: what an agent was given does not stand in what is stored or logged of it, and what it was
//! not given it does not have.

use dispatch_worker::domain::redact::{RedactedText, Redactor, Secret};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::worker::{FAKE, Stage};

/// In the environment of the agent.
const KEY: &str = "sk-canary-9f/Q7x2+Wm=4Lp&8Zt";

/// In a file of its HOME.
const TOKEN: &str = "rt-canary-5Hs8Kd3Vb6Nq1Yc0";

/// What the agent makes of it during its turn.
const RENEWED: &str = "rt-canary-renewed-7Jw2Xe4Ua9Pd";

/// In the environment of the worker alone.
const OTHERS: &str = "worker-canary-2Gt6Rf8Ol3";

/// The forms in which a value is looked for afterwards.
fn forms(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let url = bytes.iter().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    // The part of the base64 text that the bytes before and after do not decide.
    let base64 = |ahead: &str| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{ahead}{value}"));
        text[4..value.len()].to_owned()
    };
    vec![
        value.to_owned(),
        url.collect(),
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        base64("key="),
        base64("a"),
        base64("ab"),
        base64("abc"),
    ]
}

fn leaks(where_: &str, text: &str) -> Vec<String> {
    [KEY, TOKEN, RENEWED, OTHERS]
        .into_iter()
        .flat_map(forms)
        .filter(|form| text.contains(form.as_str()))
        .map(|form| format!("{form} in {where_}"))
        .collect()
}

/// All rows of all tables as text.
async fn database(stage: &Stage) -> Vec<(String, String)> {
    let tables = "SELECT table_name::text FROM information_schema.tables \
                  WHERE table_schema = current_schema()";
    let mut all = Vec::new();
    for row in stage.sql.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let rows = format!("SELECT t::text FROM \"{table}\" t");
        for row in stage.sql.query(&rows, &[]).await.unwrap() {
            all.push((table.clone(), row.get::<_, String>(0)));
        }
    }
    all
}

fn agents() -> String {
    let given = r#"env_allow = ["CANARY_API_KEY"]
home_files = [".canary/auth.json"]
slots = 2
kill_grace = "200ms""#;
    format!(
        r#"
[agents.acp]
path = "acp"
command = ["{FAKE}", "acp"]
permissions.default = "allow"
{given}
[agents.cli]
path = "pipe"
command = ["{FAKE}", "cli"]
cli.prompt_via = "stdin"
{given}
[agents.tty]
path = "pty"
command = ["{FAKE}", "tty", "{{prompt}}"]
{given}
"#
    )
}

/// A worker whose environment and HOME hold the canaries.
async fn worker(stage: &Stage) -> Program {
    let home = stage.data.path().join("operator");
    std::fs::create_dir_all(home.join(".canary")).unwrap();
    let auth = json!({ "tokens": { "refresh_token": TOKEN }, "model": "gpt-5-codex" });
    std::fs::write(home.join(".canary/auth.json"), auth.to_string()).unwrap();
    let environment = [
        ("CANARY_API_KEY", KEY),
        ("OTHERS_API_KEY", OTHERS),
        ("HOME", home.to_str().unwrap()),
        ("RUST_LOG", "dispatch_worker=trace"),
    ];
    Program::worker_in(stage, "careful", &agents(), &[], &environment).await
}

/// Tell it all, in every way and form.
fn tell_all(end: &Value) -> Value {
    let every = "${environment} ${home:.canary/auth.json} ${env:CANARY_API_KEY} \
                 ${base64:CANARY_API_KEY} ${url:CANARY_API_KEY} ${hex:CANARY_API_KEY}";
    json!([
        { "say": every },
        { "say_slowly": every },
        { "thought": "${env:CANARY_API_KEY}" },
        { "tool": { "toolCallId": "1", "title": every, "kind": "execute", "status": "completed",
            "rawInput": { "command": every, "${env:CANARY_API_KEY}": 1 },
            "content": [{ "type": "content", "content": { "type": "text", "text": every } }] } },
        { "plan": [{ "content": every, "status": "pending", "priority": "high" }] },
        { "ask": { "tool": { "toolCallId": "2", "title": every, "kind": "execute" } } },
        { "garbage": every },
        { "raw": "{\"jsonrpc\":\"2.0\",\"method\":\"${env:CANARY_API_KEY}\",\"params\":[\"${env:CANARY_API_KEY}\"]}" },
        { "usage": { "result": { "usage": { "inputTokens": 3, "outputTokens": 4, "totalTokens": 7,
            "${env:CANARY_API_KEY}": every } }, "text": every, "line": { "x": every } } },
        { "stderr": every },
        { "say": "the end: ${env:CANARY_API_KEY}" },
        end.clone(),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_agent_tells_in_every_way_is_stored_and_logged_nowhere() {
    let stage = Stage::new().await;
    let worker = worker(&stage).await;
    let told = tell_all(&json!({ "end": "end_turn" }));
    let renewed: String = RENEWED.chars().rev().collect();
    let renewed = format!("{{\"tokens\":{{\"refresh_token\":\"${{reverse:{renewed}}}\"}}}}");
    let failed = json!([
        { "say": "${env:CANARY_API_KEY}" },
        { "write": { "path": "${env:HOME}/.canary/auth.json",
            "text": renewed } },
        { "stderr": "used ${env:CANARY_API_KEY}" },
        { "stderr_file": "${env:HOME}/.canary/auth.json" },
        { "error": { "code": -32000, "message": "401 for ${env:CANARY_API_KEY}", "data": "${base64:CANARY_API_KEY}" } },
    ]);
    let mut tasks = Vec::new();
    for (agent, script, state) in [
        ("acp", &told, "completed"),
        ("acp", &failed, "failed"),
        ("cli", &tell_all(&json!({ "exit": 3 })), "failed"),
        ("tty", &tell_all(&json!({ "exit": 0 })), "completed"),
    ] {
        let task = stage.submit(agent, script).await;
        stage
            .sql
            .execute("UPDATE later_tasks SET run_at = now()", &[])
            .await
            .unwrap();
        stage.reaches(task, state).await;
        tasks.push(task);
    }
    let mut found = Vec::new();
    for (table, row) in database(&stage).await {
        found.extend(leaks(&table, &row));
    }
    found.extend(leaks("the log", &worker.log()));
    let url = stage.db.url();
    for task in &tasks {
        // Fragments joined as a reader joins them.
        let joined = format!(
            "SELECT string_agg(payload->>'text', '' ORDER BY seq) FROM events \
             WHERE task_id = {task} AND kind = 'text'"
        );
        let text = stage.text(&joined).await;
        assert!(
            text.contains("[secret CANARY_API_KEY]"),
            "task {task} said: {text}"
        );
        found.extend(leaks("joined fragments", &text));
        let task = task.to_string();
        for args in [
            vec!["logs", &task],
            vec!["show", &task],
            vec!["logs", &task, "--json"],
        ] {
            let (_, said) = Program::run(&args, &[("DATABASE_URL", &url)]);
            assert!(
                said.contains("[secret CANARY_API_KEY]"),
                "{args:?} said: {said}"
            );
            found.extend(leaks(args[0], &said));
        }
    }
    assert_eq!(found, Vec::<String>::new());
    // The other half: what is left out is named, and the rest is there.
    let told = stage
        .text("SELECT string_agg(t::text, ' ') FROM events t")
        .await;
    assert!(told.contains("[secret .canary/auth.json]"), "{told}");
    assert!(told.contains("gpt-5-codex"), "what is no secret stays");
    let status = stage.status(tasks[1], "error").await.unwrap();
    assert!(
        status.contains("401 for [secret CANARY_API_KEY]"),
        "{status}"
    );
    let summary = stage.status(tasks[0], "output_summary").await.unwrap();
    assert!(
        summary.contains("the end: [secret CANARY_API_KEY]"),
        "{summary}"
    );
}

/// Parts of a secret that say which one it is.
fn parts(value: &str, text: &str) -> Vec<String> {
    let parts = (0..=value.len() - 9).filter_map(|at| value.get(at..at + 9));
    parts
        .filter(|part| text.contains(part))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_across_a_cut_leaves_no_part_behind() {
    let stage = Stage::new().await;
    let _worker = worker(&stage).await;
    // Wherever a text is cut, it is cut within one.
    let many = |count: usize| "${env:CANARY_API_KEY}".repeat(count);
    let (long, huge) = (many(400), many(10_000));
    let refused = json!([
        { "garbage": long },
        { "tool": { "toolCallId": "1", "title": "t", "kind": "execute", "status": "completed",
            "rawInput": { "command": long },
            "content": [{ "type": "content", "content": { "type": "text", "text": huge } }] } },
        { "ask": { "tool": { "toolCallId": "2", "title": "t", "kind": "execute",
            "rawInput": { "command": long } } } },
        { "stderr": many(1_000) },
        { "error": { "code": -32603, "message": format!("429 too many requests for {long}") } },
    ]);
    let asked_to_wait = "429 too many requests";
    let broken =
        json!([{ "garbage": long }, { "say": long }, { "say": asked_to_wait }, { "exit": 3 }]);
    let died = json!([{ "stderr": many(1_000) }, { "stderr": asked_to_wait }, { "exit": 3 }]);
    for (agent, script) in [
        ("acp", &refused),
        ("cli", &broken),
        ("cli", &died),
        ("tty", &broken),
    ] {
        let task = stage.submit(agent, script).await;
        let waits = format!("SELECT true FROM later_tasks WHERE task_id = {task}");
        stage.holds("the attempt ended", &waits).await;
    }
    let mut found = Vec::new();
    for (table, row) in database(&stage)
        .await
        .iter()
        .filter(|(table, _)| table != "tasks")
    {
        found.extend(
            parts(KEY, row)
                .into_iter()
                .map(|part| format!("{part} in {table}")),
        );
    }
    assert_eq!(found, Vec::<String>::new());
    let told = "SELECT string_agg(reason, ' ') FROM later_tasks";
    let told = stage.text(told).await;
    assert!(told.contains("[secret CANARY_API_KEY]"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_make_secrets_of_the_words_of_a_warning() {
    let stage = Stage::new().await;
    let _worker = worker(&stage).await;
    let name = "aB3dE5fG7hI9jK1lM2nO";
    let tokens = json!({ "token": "is a pipe, socket or device", "access_token": name });
    let script = json!([
        { "write": { "path": "${env:HOME}/.canary/auth.json", "text": tokens.to_string() } },
        { "write": { "path": "plain.txt", "text": "nothing\n" } },
        { "sh": format!("mkfifo {name}") },
        { "say": format!("made {name}") },
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let notices = stage
        .text("SELECT notices::text FROM pending_changes")
        .await;
    let words = format!("{name} is a pipe, socket or device and was left out");
    assert!(notices.contains(&words), "{notices}");
    assert!(!notices.contains("[secret"), "{notices}");
    let said = stage.status(task, "output_summary").await.unwrap();
    assert_eq!(
        said, "made [secret .canary/auth.json]",
        "what the agent said is another matter"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_has_nothing_of_the_worker_that_its_entry_does_not_name() {
    let stage = Stage::new().await;
    let _worker = worker(&stage).await;
    let script = json!([{ "env": "env.txt" }, { "fds": "fds.txt" }]);
    for agent in ["acp", "cli", "tty"] {
        let task = stage.submit(agent, &script).await;
        stage.reaches(task, "completed").await;
        let patch = |path: &str| {
            format!(
                "SELECT f.patch FROM pending_change_files f JOIN pending_changes c ON c.id = f.change_id \
                 WHERE c.task_id = {task} AND f.path = '{path}'"
            )
        };
        let env = stage.text(&patch("env.txt")).await;
        assert!(
            env.contains("\n+CANARY_API_KEY=") && env.contains("\n+HOME="),
            "{env}"
        );
        for name in [
            "DATABASE_URL",
            "OTHERS_API_KEY",
            "DISPATCH_DATA",
            "RUST_LOG",
        ] {
            assert!(
                !env.contains(&format!("\n+{name}=")),
                "{agent} has {name}: {env}"
            );
        }
        assert!(
            !env.contains(OTHERS) && !env.contains(&stage.db.url()),
            "{env}"
        );
        let fds = stage.text(&patch("fds.txt")).await;
        let lines: Vec<&str> = fds
            .lines()
            .filter_map(|line| line.strip_prefix('+'))
            .collect();
        for line in lines.iter().filter(|line| !line.starts_with("++")) {
            let (number, to) = line.split_once(' ').unwrap();
            let standard = matches!(number, "0" | "1" | "2")
                && (to.starts_with("pipe:")
                    || to.starts_with("/dev/null")
                    || to.starts_with("/dev/pts/"));
            // The listing itself holds its directory open.
            let listing = to.starts_with("/proc/") && to.ends_with("/fd");
            assert!(standard || listing, "{agent} holds {line}");
        }
        assert!(lines.len() >= 3, "{fds}");
    }
}

proptest! {
    #[test]
    fn a_text_in_fragments_is_redacted_as_the_whole(
        secrets in prop::collection::vec("[abé/]{8,12}", 1..4),
        // Parts of secrets, so that beginnings and overlaps are frequent.
        parts in prop::collection::vec((0usize..4, 0usize..24, 0usize..24, 0usize..3), 0..24),
        cuts in prop::collection::vec(1usize..5, 1..12),
    ) {
        use base64::Engine;
        let redactor = Redactor::new(
            secrets.iter().enumerate().filter_map(|(n, value)| Secret::new(&format!("S{n}"), value)),
        );
        let mut text = String::new();
        for (which, from, len, form) in parts {
            let value = &secrets[which % secrets.len()];
            let value = match form {
                0 => value.clone(),
                1 => base64::engine::general_purpose::STANDARD.encode(format!("x{value}y")),
                _ => value.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            };
            // More often than not the whole.
            let from = if from > 12 { 0 } else { from };
            let len = if len > 8 { usize::MAX } else { len };
            text.extend(value.chars().skip(from).take(len));
        }
        let whole = redactor.text(&text).into_owned();
        let mut stream = RedactedText::new(redactor);
        let mut joined = String::new();
        let mut rest = text.chars().peekable();
        for size in cuts.iter().cycle() {
            if rest.peek().is_none() {
                break;
            }
            let fragment: String = rest.by_ref().take(*size).collect();
            joined.push_str(&stream.push(&fragment));
        }
        joined.push_str(&stream.finish());
        prop_assert_eq!(&joined, &whole);
        for value in &secrets {
            prop_assert!(!whole.contains(value.as_str()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_holds_a_secret_says_so_loudly_and_keeps_its_bytes() {
    let stage = Stage::new().await;
    let worker = worker(&stage).await;
    let script = json!([
        { "write": { "path": "settings.py", "text": "KEY = '${env:CANARY_API_KEY}'\n" } },
        { "write": { "path": "encoded.txt", "text": "${base64:CANARY_API_KEY}\n" } },
        { "write": { "path": "Makefile", "text": "all:\n" } },
        { "write": { "path": "plain.txt", "text": "nothing\n" } },
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let flags = "SELECT string_agg(path || array_to_string(flags, '+', '')::text, ' ' ORDER BY path) \
                 FROM pending_change_files";
    assert_eq!(
        stage.text(flags).await,
        "Makefileruns_in_build encoded.txtsecret plain.txt settings.pysecret"
    );
    let of_change = "SELECT array_to_string(flags, ' ') FROM pending_changes";
    assert_eq!(stage.text(of_change).await, "secret runs_in_build");
    let bytes =
        "SELECT patch LIKE '%' || $1 || '%' FROM pending_change_files WHERE path = 'settings.py'";
    let kept: bool = stage.sql.query_one(bytes, &[&KEY]).await.unwrap().get(0);
    assert!(kept, "a reviewer sees the bytes that are approved");
    let ready = "SELECT payload->>'flags' FROM events WHERE kind = 'change_ready'";
    assert_eq!(stage.text(ready).await, r#"["secret", "runs_in_build"]"#);
    let url = stage.db.url();
    let cli = |args: &[&str]| Program::run(args, &[("DATABASE_URL", &url)]).1;
    let listed = cli(&["changes", "list"]);
    assert!(
        listed.contains("HOLDS A SECRET, runs in the build"),
        "{listed}"
    );
    let shown = cli(&["changes", "show", "1"]);
    let warning = "  Warning: HOLDS A SECRET: encoded.txt, settings.py\n  Warning: runs in the build: Makefile\n";
    assert_eq!(
        shown.matches(warning).count(),
        2,
        "above and below the diffs: {shown}"
    );
    let logs = cli(&["logs", &task.to_string()]);
    assert!(
        logs.contains("+4 -0 · HOLDS A SECRET, runs in the build"),
        "{logs}"
    );
    assert_eq!(leaks("the log", &worker.log()), Vec::<String>::new());
}
