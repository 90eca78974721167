//! Every bad input end to end: a named class, words that say what to do, and nothing left behind.

use dispatch_worker::domain::remote::Place;
use serde_json::{Value, json};

use crate::harness::db::TestDb;
use crate::harness::eventually;
use crate::harness::program::{Program, processes_of};
use crate::harness::repo::{git, try_git, write as put};
use crate::harness::worker::{FAKE, PATIENCE, Stage, TestWorker, agents, write};

/// Submit with one attempt and wait for the end: class and text.
async fn ends(
    stage: &Stage,
    project: &str,
    agent: &str,
    columns: &str,
    script: &Value,
) -> (i64, String, String) {
    let (names, values) = match columns.split_once('=') {
        Some((name, value)) => (format!(", {name}"), format!(", '{value}'")),
        None => (String::new(), String::new()),
    };
    let insert = format!(
        "INSERT INTO tasks (project, agent, input, max_attempts{names}) \
         VALUES ($1, $2, $3, 1{values}) RETURNING id"
    );
    let script = script.to_string();
    let row = stage
        .sql
        .query_one(&insert, &[&project, &agent, &script])
        .await;
    let task: i64 = row.unwrap().get(0);
    let over = format!("task {task} of {agent} in {project} {columns} ends");
    let ended = format!("SELECT count(*) = 1 FROM outcomes WHERE task_id = {task}");
    eventually(&over, PATIENCE, || async {
        stage.text(&ended).await == "true"
    })
    .await;
    let text = async |column: &str| stage.status(task, column).await.unwrap_or_default();
    (task, text("error_class").await, text("error").await)
}

/// No process, no worktree, no lease.
async fn nothing_is_left(stage: &Stage, worker: &TestWorker) {
    let left = || async {
        let dir = stage.data.path().join("work/worktrees");
        let trees = std::fs::read_dir(dir).map_or(0, Iterator::count);
        (
            processes_of(&worker.id),
            trees,
            stage.text("SELECT count(*) FROM leases").await,
        )
    };
    eventually("nothing is left", PATIENCE, || async {
        left().await == (0, 0, "0".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_that_cannot_be_worked_on_fail_their_tasks_with_advice() {
    let stage = Stage::new().await;
    let dir = stage.ground.dir.path();
    std::fs::create_dir(dir.join("plain")).unwrap();
    git(
        dir,
        &["clone", "-q", stage.ground.repo.to_str().unwrap(), "sparse"],
    );
    git(&dir.join("sparse"), &["sparse-checkout", "set", "sub"]);
    git(
        dir,
        &["clone", "-q", stage.ground.repo.to_str().unwrap(), "lfs"],
    );
    put(
        &dir.join("lfs/.gitattributes"),
        "*.bin filter=lfs diff=lfs -text\n",
    );
    git(&dir.join("lfs"), &["add", "-A"]);
    git(&dir.join("lfs"), &["commit", "-q", "-m", "lfs"]);
    let mut cases = vec![
        ("missing", "no such directory"),
        ("plain", "git init"),
        ("sparse", "sparse-checkout disable"),
        ("lfs", "\"lfs\""),
    ];
    if try_git(dir, &["init", "-q", "--object-format=sha256", "sha256"]).0 == Some(0) {
        git(
            &dir.join("sha256"),
            &["commit", "-q", "--allow-empty", "-m", "x"],
        );
        cases.push(("sha256", "SHA-256"));
    }
    let worker = stage.worker().await;
    for (name, advice) in cases {
        let path = dir.join(name);
        let add = "INSERT INTO projects (name, path) VALUES ($1, $2)";
        stage
            .sql
            .execute(add, &[&name, &path.to_str().unwrap()])
            .await
            .unwrap();
        let (_, class, error) = ends(&stage, name, "acp", "", &json!([])).await;
        assert_eq!(class, "workspace", "{name}: {error}");
        assert!(error.contains(advice), "{name}: {error}");
    }
    nothing_is_left(&stage, &worker).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_misbehave_end_with_a_class_and_a_text_and_leave_nothing() {
    let stage = Stage::new().await;
    let catalogue = format!(
        r#"{}
[agents.hasty]
label = "short of patience"
path = "acp"
command = ["{FAKE}", "acp"]
kill_grace = "100ms"
idle_timeout = "400ms"

[agents.brief]
label = "short of time"
path = "acp"
command = ["{FAKE}", "acp"]
kill_grace = "100ms"
total_timeout = "700ms"

[agents.choosy]
label = "has two modes"
path = "acp"
command = ["{FAKE}", "acp", '{{"offers": {{"modes": {{"currentModeId": "ask", "availableModes": [{{"id": "ask", "name": "Ask"}}, {{"id": "code", "name": "Code"}}]}}}}}}']
models = ["small", "large"]
"#,
        agents()
    );
    let worker = stage.worker_with(&catalogue, |_| {}).await;
    let survivor = json!({ "fork": "setsid" });
    let half = write("half.txt", "half\n");
    let run = write("ran.txt", "the prompt was run\n");
    let big = 70_000_000;
    // What the agent does, its name, a column of the task, the class, and what the text must say.
    let cases = [
        (
            "says garbage and goes",
            "acp",
            "",
            json!([half, survivor, { "garbage": "Segfault? {" }, { "exit": 1 }]),
            "protocol",
            "exit code 1",
        ),
        (
            "exits mid-turn",
            "acp",
            "",
            json!([half, { "say": "so" }, { "exit": 0 }]),
            "protocol",
            "exit code 0",
        ),
        (
            "is killed",
            "acp",
            "",
            json!([half, { "stderr": "Killed" }, { "signal": 9 }]),
            "protocol",
            "signal 9",
        ),
        (
            "writes an endless line",
            "acp",
            "",
            json!([half, survivor, { "big_line": big }]),
            "protocol",
            "64 MiB",
        ),
        (
            "ends with an error text",
            "acp",
            "",
            json!([half, { "error": { "code": -32603, "message": "the model said no" } }]),
            "agent_failed",
            "the model said no",
        ),
        (
            "is not logged in",
            "acp",
            "",
            json!([{ "error": { "code": -32000, "message": "Authentication required" } }]),
            "auth",
            "log in with its own program",
        ),
        (
            "fails as a program",
            "cli",
            "",
            json!([half, { "stderr": "no such flag" }, { "exit": 2 }]),
            "agent_failed",
            "no such flag",
        ),
        (
            "fails in a terminal",
            "tty",
            "",
            json!([half, { "say": "no such flag\n" }, { "exit": 2 }]),
            "agent_failed",
            "exit code 2",
        ),
        (
            "is silent for ever",
            "hasty",
            "",
            json!([half, survivor, { "hang": true }]),
            "idle_timeout",
            "idle_timeout",
        ),
        (
            "never ends",
            "brief",
            "",
            json!([half, survivor, { "ignore_term": true }, { "hang": true }]),
            "timeout",
            "total_timeout",
        ),
        (
            "is not given the time",
            "acp",
            "timeout=500 milliseconds",
            json!([half, { "hang": true }]),
            "timeout",
            "tasks.timeout",
        ),
        (
            "has no such mode",
            "choosy",
            "mode_id=yolo",
            json!([run]),
            "invalid_option",
            "ask, code",
        ),
        (
            "has no such model",
            "choosy",
            "model=huge",
            json!([run]),
            "invalid_option",
            "small, large",
        ),
    ];
    for (what, agent, columns, script, class, words) in cases {
        let (task, found, error) = ends(&stage, "p", agent, columns, &script).await;
        assert_eq!(found, class, "{what}: {error}");
        assert!(error.contains(words), "{what}: {error}");
        let files = format!(
            "SELECT coalesce(string_agg(f.path, ' '), '') FROM pending_changes c \
             JOIN pending_change_files f ON f.change_id = c.id WHERE c.task_id = {task}"
        );
        let kept = if script.to_string().contains("half.txt") {
            "half.txt"
        } else {
            ""
        };
        assert_eq!(stage.text(&files).await, kept, "{what}");
        stage.stream(task).await;
        nothing_is_left(&stage, &worker).await;
    }
    // A long line alone is no fault.
    let (task, class, error) = ends(
        &stage,
        "p",
        "acp",
        "",
        &json!([{ "big_line": 20_000_000 }, { "say": "x" }]),
    )
    .await;
    assert_eq!((class, error), (String::new(), String::new()));
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("completed")
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_run_shows_why_and_its_tasks_wait_visibly() {
    let stage = Stage::new().await;
    let catalogue = format!(
        r#"{}
[agents.absent]
label = "not installed"
path = "acp"
command = ["no-such-agent-anywhere", "acp"]
install = "npm install no-such-agent"

[agents.stranger]
label = "not logged in"
path = "acp"
command = ["{FAKE}", "acp", '{{"auth": true}}']
"#,
        agents()
    );
    let worker = stage.worker_with(&catalogue, |_| {}).await;
    for (agent, words) in [("absent", "npm install no-such-agent"), ("stranger", "og")] {
        let shown = format!(
            "SELECT EXISTS (SELECT 1 FROM available_agents WHERE name = '{agent}' AND error IS NOT NULL)"
        );
        stage.holds("the probe's word is shown", &shown).await;
        let error = stage
            .text(&format!(
                "SELECT status || ' ' || error FROM available_agents WHERE name = '{agent}'"
            ))
            .await;
        assert!(!error.starts_with("ready"), "{error}");
        assert!(error.contains(words), "{error}");
        let task = stage.submit(agent, &json!([])).await;
        let reason = stage.status(task, "waiting_reason").await.unwrap();
        assert!(reason.contains(agent), "{reason}");
        // Never another agent in its place, unless somebody asked for that.
        assert_eq!(
            stage.status(task, "state").await.as_deref(),
            Some("pending")
        );
    }
    // Named as a fallback it is used, and recorded.
    let insert = "INSERT INTO tasks (project, input, agent, fallback) VALUES ('p', $1, 'absent', 'acp') RETURNING id";
    let script = json!([write("b.txt", "b\n")]).to_string();
    let task: i64 = stage
        .sql
        .query_one(insert, &[&script])
        .await
        .unwrap()
        .get(0);
    stage.reaches(task, "completed").await;
    let recorded = stage
        .text("SELECT agent || ' for ' || fallback_from FROM attempts")
        .await;
    assert_eq!(recorded, "acp for absent");
    assert_eq!(
        stage.text("SELECT count(*) FROM ready_tasks").await,
        "2",
        "the others still wait"
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_key_that_was_used_is_refused_by_sql_and_leaves_nothing() {
    let stage = Stage::new().await;
    let insert =
        "INSERT INTO tasks (project, input, agent, idempotency_key) VALUES ('p', $1, 'acp', 'k1')";
    stage.sql.execute(insert, &[&"one"]).await.unwrap();
    let error = stage.sql.execute(insert, &[&"two"]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "23505");
    let again = format!("{insert} ON CONFLICT DO NOTHING");
    assert_eq!(stage.sql.execute(&again, &[&"one"]).await.unwrap(), 0);
    for table in ["tasks", "ready_tasks"] {
        assert_eq!(
            stage.text(&format!("SELECT count(*) FROM {table}")).await,
            "1",
            "{table}"
        );
    }
}

#[test]
fn a_malformed_catalogue_is_refused_with_line_and_key() {
    let head = "[agents.a]\nlabel = \"a\"\npath = \"acp\"\ncommand = [\"x\"]\n";
    let cases = [
        (format!("{head}colour = 1\n"), vec!["5", "colour"]),
        (format!("{head}slots = \"many\"\n"), vec!["5", "slots"]),
        (
            head.replace("\"acp\"", "\"telepathy\""),
            vec!["3", "telepathy", "acp"],
        ),
        (
            format!("{head}idle_timeout = \"soon\"\n"),
            vec!["5", "idle"],
        ),
        (
            head.replace("command = [\"x\"]\n", ""),
            vec!["1", "command"],
        ),
        (
            format!("{head}fallback = \"nobody\"\n"),
            vec!["line 1", "fallback", "nobody"],
        ),
        ("[agents.a\n".to_owned(), vec!["1"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agents.toml");
    for (text, words) in cases {
        std::fs::write(&file, &text).unwrap();
        let (code, said) = Program::config_check(&file);
        assert_ne!(code, Some(0), "{text}");
        for word in words {
            assert!(said.contains(word), "{text}\n→ {said}");
        }
    }
    std::fs::write(&file, head).unwrap();
    assert_eq!(Program::config_check(&file).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_be_made_says_why_and_does_not_deny_the_agent() {
    let stage = Stage::new().await;
    let url = stage.db.url();
    let file = stage.data.path().join("own.toml");
    std::fs::write(&file, "[agents.here]\npath = \"noop\"\n").unwrap();
    let nowhere = stage.data.path().join("nowhere");
    let probe = |agent: &str, extra: (&str, &str)| {
        let environment = [
            ("DATABASE_URL", url.as_str()),
            ("DISPATCH_AGENTS", file.to_str().unwrap()),
            extra,
        ];
        Program::run(
            &["agents", "probe", agent, "--here", "--json"],
            &environment,
        )
        .1
    };
    let said = probe("here", ("TMPDIR", nowhere.to_str().unwrap()));
    assert!(
        said.contains("cannot make a directory to try it in"),
        "{said}"
    );
    let said = probe("elsewhere", ("LANG", "C"));
    assert!(said.contains("has no agent"), "{said}");
    std::fs::write(&file, "[agents.here]\npath = \"noop\"\nfoo = 1\n").unwrap();
    let said = probe("here", ("LANG", "C"));
    assert!(
        said.contains("foo") && !said.contains("has no agent"),
        "{said}"
    );
}

#[tokio::test]
async fn the_database_takes_what_the_program_takes_as_a_place_and_nothing_else() {
    let db = TestDb::new().await;
    let client = db.client().await;
    let places = [
        "/srv/shop",
        "/srv/a:b",
        "shop",
        "./a:b",
        "",
        "https://git.example.com/a/b.git",
        "ssh://git@git.example.com:2222/b",
        "git@git.example.com:a/b.git",
        "host:b",
        "http://[::1]:3000/b",
        "file:///srv/b.git",
        "ext::sh -c id",
        "ext::sh",
        "https://user:secret@git.example.com/b",
        "ftp://host/b",
        "ssh://-oProxyCommand=id/b",
        "ssh://-oProxyCommand=id@host/b",
        "-oProxyCommand=id:b",
        "https://host",
        "https:///b",
        "host:",
        "https://host/a b",
        "https://host/a\nb",
    ];
    for (n, place) in places.into_iter().enumerate() {
        let by_program = match Place::parse(place) {
            Ok(Place::Remote(_)) => true,
            Ok(Place::Path) => place.starts_with('/'),
            Err(_) => false,
        };
        let sql = "INSERT INTO projects (name, path) VALUES ($1, $2)";
        let by_sql = client.execute(sql, &[&format!("p{n}"), &place]).await;
        assert_eq!(by_sql.is_ok(), by_program, "{place:?}: {by_sql:?}");
    }
}
