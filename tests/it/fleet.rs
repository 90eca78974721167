//! What runs a fleet: secrets that stand in files, and the files below `deploy/` that must fit the program.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use dispatch_worker::ops::OpContext;
use dispatch_worker::store::migrate;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::db::TestDb;
use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::worker::{PATIENCE, Stage, agents, gates, write};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

async fn dispatch(args: &[&str], variables: &[(&str, &str)]) -> Output {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is started as a person starts it"
    )]
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    for name in [
        "DATABASE_URL",
        "DATABASE_URL_FILE",
        "DATABASE_LISTEN_URL",
        "DATABASE_LISTEN_URL_FILE",
        "DATABASE_PASSWORD_FILE",
        "DISPATCH_HTTP_TOKEN",
        "DISPATCH_HTTP_TOKEN_FILE",
    ] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.output().await.unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_database_and_its_password_may_stand_in_files() {
    let db = TestDb::new().await;
    let login = db.login("filed", &[]).await;
    let bare = login.url.replace(":of-a-test@", "@");
    assert_ne!(bare, login.url);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let asked = "SELECT current_user";
    let url = file("url", &format!("{}\n", login.url));
    let done = dispatch(&["sql", asked], &[("DATABASE_URL_FILE", &url)]).await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains(&login.name));
    let password = file("password", "of-a-test\n");
    let apart = [
        ("DATABASE_URL", &*bare),
        ("DATABASE_PASSWORD_FILE", &*password),
    ];
    let done = dispatch(&["sql", asked], &apart).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let missing = dir.path().join("missing");
    for (variables, words) in [
        (
            [("DATABASE_URL", &*bare), ("DATABASE_URL_FILE", &*url)],
            "leave one of them out",
        ),
        (
            [
                ("DATABASE_URL", &*login.url),
                ("DATABASE_PASSWORD_FILE", &*password),
            ],
            "leave one of them out",
        ),
        (
            [
                ("DATABASE_URL", &*bare),
                ("DATABASE_PASSWORD_FILE", missing.to_str().unwrap()),
            ],
            "missing",
        ),
    ] {
        let done = dispatch(&["sql", asked], &variables).await;
        let told = stderr(&done);
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(
            told.contains(words) && !told.contains("of-a-test"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_token_stands_in_one_place_and_a_file_of_tokens_holds_one() {
    let db = TestDb::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "# nobody\n").unwrap();
    let (url, file) = (db.url(), file.to_str().unwrap().to_owned());
    let named = [("DATABASE_URL", &*url), ("DISPATCH_HTTP_TOKEN_FILE", &file)];
    let done = dispatch(&["serve", "--listen", "127.0.0.1:0"], &named).await;
    let told = stderr(&done);
    assert!(told.contains("tokens holds no token"), "{told}");
    let both = [named[0], named[1], ("DISPATCH_HTTP_TOKEN", "x")];
    let done = dispatch(&["serve", "--listen", "127.0.0.1:0"], &both).await;
    let told = stderr(&done);
    assert!(told.contains("are both set"), "{told}");
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Names of our metrics in a text, as the program calls them.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("dispatch_"));
    let parts = ["_bucket", "_count", "_sum"];
    ours.map(|word| {
        let whole = parts.iter().find_map(|part| word.strip_suffix(part));
        whole.unwrap_or(word).to_owned()
    })
    .collect()
}

/// Names of the metrics that the sources make.
fn exported(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            exported(&path, found);
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        for kind in ["counter!(", "gauge!(", "histogram!("] {
            for (at, _) in source.match_indices(kind) {
                let name = source[at + kind.len()..].trim_start().strip_prefix('"');
                let name = name.and_then(|rest| rest.split('"').next());
                found.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric_that_the_program_has_and_no_other() {
    let mut there = BTreeSet::new();
    exported(&root().join("worker/src"), &mut there);
    assert!(there.len() > 10, "{there:?}");
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/dispatch.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let shown: BTreeSet<String> = targets
        .flat_map(|target| metrics_in(target["expr"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, there);
    let alerts = text("deploy/prometheus/alerts.yml");
    let alarming = metrics_in(&alerts);
    assert!(alarming.is_subset(&there), "{alarming:?}");
}

/// The answer of a worker's /metrics.
async fn scrape(worker: &Program) -> String {
    let said = || {
        let log = worker.log();
        let line = log
            .lines()
            .find_map(|line| line.strip_prefix("health is at http://"));
        line.map(str::to_owned)
    };
    eventually("it says its address", PATIENCE, || async {
        said().is_some()
    })
    .await;
    let address = said().unwrap();
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A provider and prices beside the agents of every stage.
const WITH_FIGURES: &str = r#"
[providers.stub]
api = "openai"
base_url = "http://127.0.0.1:1/v1/"
api_key_env = "NO_SUCH_KEY"

[prices."model-of-a-test"]
input = "1"
output = "2"
currency = "EUR"
"#;

#[tokio::test]
async fn every_metric_of_dashboard_and_alerts_is_there_when_a_worker_has_started() {
    let stage = Stage::new().await;
    let agents = format!("{}{WITH_FIGURES}", agents());
    let worker = Program::worker(&stage, "fresh", &agents, &["--health", "127.0.0.1:0"]).await;
    let named: BTreeSet<String> = metrics_in(&text("deploy/grafana/dispatch.json"))
        .union(&metrics_in(&text("deploy/prometheus/alerts.yml")))
        .cloned()
        .collect();
    assert!(named.len() > 20, "{named:?}");
    // The queue is counted a moment after the start.
    eventually("the queue is counted", PATIENCE, || async {
        scrape(&worker).await.contains("dispatch_tasks{")
    })
    .await;
    let answer = scrape(&worker).await;
    let there = metrics_in(&answer);
    let missing: Vec<&String> = named.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} in {answer}");

    // An increase is seen only in a series that was there before it.
    let series: Vec<String> = [
        "leases_lost_total",
        "leases_rescued_total",
        r#"service_panics_total{service="applier"}"#,
        r#"service_panics_total{service="offers"}"#,
        r#"attempts_total{agent="acp",end="failed"}"#,
        r#"attempts_total{agent="acp",end="again"}"#,
        r#"retries_total{class="orphaned"}"#,
        r#"retries_total{class="rate_limited"}"#,
        r#"provider_pauses_total{provider="stub",class="billing"}"#,
        r#"cost_micros_total{agent="acp",currency="USD"}"#,
        r#"cost_micros_total{agent="acp",currency="EUR"}"#,
        r#"tokens_total{agent="acp"}"#,
        r#"changes_total{outcome="conflicted"}"#,
        r#"gateway_connections_total{outcome="refused"}"#,
        r#"gateway_bytes_total{direction="received"}"#,
        "spans_lost_total",
        "agent_unknown_messages_total",
        "claim_latency_seconds_count",
    ]
    .map(|series| format!("dispatch_{series} 0"))
    .into();
    let lines: BTreeSet<&str> = answer.lines().map(str::trim).collect();
    let late: Vec<&String> = series
        .iter()
        .filter(|one| !lines.contains(one.as_str()))
        .collect();
    assert!(late.is_empty(), "{late:?} in {answer}");
}

#[tokio::test]
async fn a_failure_that_is_tried_again_is_counted_by_its_class() {
    let stage = Stage::new().await;
    let flags = ["--health", "127.0.0.1:0"];
    let worker = Program::worker(&stage, "counts", &agents(), &flags).await;
    let task = stage.submit("acp", &json!([{ "exit": 3 }])).await;
    let retried = format!(
        "SELECT count(*) > 0 FROM task_events({task}, 0, 1000) WHERE kind = 'retry_scheduled'"
    );
    stage.holds("a retry", &retried).await;
    eventually("a count of it", PATIENCE, || async {
        let answer = scrape(&worker).await;
        let count = answer
            .lines()
            .find_map(|line| line.strip_prefix(r#"dispatch_retries_total{class="protocol"} "#));
        count.is_some_and(|count| count != "0")
    })
    .await;
}

/// The lines that make secrets and settings, as a page tells them: up to the one that starts everything.
fn recipe(page: &str) -> Vec<String> {
    let all = text(page);
    let lines = all.lines().map(|line| line.trim_start_matches("#   "));
    lines
        .skip_while(|line| !line.starts_with("mkdir "))
        .take_while(|line| !line.starts_with("docker compose"))
        // Spaces before a remark differ.
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn secrets_made_as_the_pages_say_are_for_containers_and_for_nobody_else_here() {
    let told = recipe("docker-compose.yml");
    assert!(told.len() > 3, "{told:?}");
    for page in ["README.md", "docs/operators.md"] {
        assert_eq!(recipe(page), told, "{page}");
    }
    for umask in ["022", "077"] {
        let dir = tempfile::tempdir().unwrap();
        for file in [".env.example", "agents.env.example"] {
            std::fs::write(dir.path().join(file), text(file)).unwrap();
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the lines are run as a person runs them"
        )]
        let mut shell = Command::new("sh");
        let script = format!("umask {umask}\n{}", told.join("\n"));
        let done = shell.args(["-euc", &script]).current_dir(dir.path());
        let done = done.output().await.unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        let mode = |path: &str| {
            let about = std::fs::metadata(dir.path().join(path)).unwrap();
            about.permissions().mode() & 0o777
        };
        assert_eq!(mode("secrets"), 0o700, "umask {umask}");
        assert_eq!(mode("agents.env"), 0o600, "it may hold keys");
        assert_eq!(
            mode("secrets/keys") & 0o055,
            0o055,
            "mounted, entered by 10001"
        );
        for secret in ["secrets/postgres_password", "secrets/http_token"] {
            assert_eq!(mode(secret) & 0o044, 0o044, "{secret}: read by 10001");
            let long = std::fs::metadata(dir.path().join(secret)).unwrap().len();
            assert!(long >= 20, "{secret}: {long}");
        }
    }
}

/// A line that starts the parts would otherwise build ours over an image of somebody's own.
#[test]
fn what_is_built_here_never_takes_the_name_of_an_image_of_your_own() {
    let compose = text("docker-compose.yml");
    let worker = compose.split("\n  worker:\n").nth(1).unwrap();
    let worker = worker.split("\n  prometheus:\n").next().unwrap();
    assert!(
        worker.contains("image: ${WORKER_IMAGE:-dispatch:local}"),
        "{worker}"
    );
    assert!(!worker.contains("build:"), "{worker}");
    let shared = compose.split("\nservices:\n").next().unwrap();
    assert!(
        !shared.contains("build:"),
        "merged into the worker: {shared}"
    );
    assert_eq!(compose.matches("build: .").count(), 1);
}

#[test]
fn what_a_replica_keeps_lies_in_a_volume_that_it_shares_with_none() {
    let compose = text("docker-compose.yml");
    let worker = compose.split("\n  worker:\n").nth(1).unwrap();
    let worker = worker.split("\n  prometheus:\n").next().unwrap();
    let lines: Vec<&str> = worker.lines().map(str::trim).collect();
    let data = lines
        .iter()
        .find_map(|line| line.strip_prefix("DISPATCH_DATA: "));
    let data = data.expect("it is said where");
    assert!(
        lines.contains(&format!("- {data}").as_str()),
        "a volume without a name at {data}: {worker}"
    );
    assert!(text("Dockerfile").contains(&format!("DISPATCH_DATA={data}")));
}

#[test]
fn a_container_is_given_more_time_to_stop_than_its_worker_takes() {
    let compose = text("docker-compose.yml");
    let seconds = |key: &str| -> Vec<u64> {
        let lines = compose.lines().filter_map(|line| {
            let value = line.trim().strip_prefix(key)?.strip_prefix(':')?;
            value.trim().strip_suffix('s')?.parse().ok()
        });
        lines.collect()
    };
    let drain = seconds("DISPATCH_DRAIN_TIMEOUT");
    let worker = compose.split("\n  worker:\n").nth(1).unwrap();
    let grace = worker.split("stop_grace_period:").nth(1).unwrap();
    let grace: u64 = grace.split('s').next().unwrap().trim().parse().unwrap();
    assert!(grace >= drain[0] + 15, "{grace} for {drain:?}");
}

/// What a migration of the next release may do, done to every table at once.
const NEXT_RELEASE: &str = "
    DO $$
    DECLARE t record;
    BEGIN
        FOR t IN SELECT tablename FROM pg_tables
                  WHERE schemaname = current_schema() AND tablename <> 'refinery_schema_history' LOOP
            EXECUTE format('ALTER TABLE %I ADD COLUMN of_next_release text NOT NULL DEFAULT %L', t.tablename, 'new');
        END LOOP;
    END $$;
    CREATE TABLE of_next_release (id bigint PRIMARY KEY, task_id bigint REFERENCES tasks);
    CREATE INDEX of_next_release_index ON outcomes (of_next_release);
    INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
    SELECT max(version) + 1, 'next', now()::text, '0' FROM refinery_schema_history";

#[tokio::test]
async fn a_worker_goes_on_when_the_next_release_has_migrated() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let script = json!([write("b.txt", "b\n"), { "say": "working" }, { "wait_for": gate }]);
    let before = stage.speaking("acp", &script).await;
    let (context, _listener) = OpContext::open(&stage.db.url(), 1, "test".to_owned()).unwrap();
    assert_eq!(context.check().await.unwrap(), migrate::wanted_version());

    stage.sql.batch_execute(NEXT_RELEASE).await.unwrap();
    std::fs::write(&gate, "").unwrap();
    stage.reaches(before, "completed").await;
    let change = format!("SELECT count(*) FROM pending_changes WHERE task_id = {before}");
    assert_eq!(stage.text(&change).await, "1");
    let after = stage
        .submit("acp", &json!([write("c.txt", "c\n"), { "say": "done" }]))
        .await;
    stage.reaches(after, "completed").await;
    let last = stage.submit("noop", &json!([])).await;
    stage.reaches(last, "completed").await;
    let cancelled = stage.working("acp").await;
    let cancel = format!("SELECT cancel_task({cancelled})");
    stage.sql.batch_execute(&cancel).await.unwrap();
    stage.reaches(cancelled, "cancelled").await;

    let found = context.check().await.unwrap();
    assert_eq!(found, migrate::wanted_version() + 1, "it stays ready");
    let refused = migrate::check(&stage.db.url())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("Run a newer dispatch"), "{refused}");
    let url = stage.db.url();
    let told = dispatch(&["--json", "doctor"], &[("DATABASE_URL", &url)]).await;
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let findings = told["data"].as_array().unwrap();
    let schema = findings
        .iter()
        .find(|one| one["check"] == "schema")
        .unwrap();
    assert_eq!(schema["verdict"], "warn", "{schema}");
    worker.stop().await;
}
