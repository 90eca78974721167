//! What runs a fleet: secrets that stand in files, and the files below `deploy/` that must fit the program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

use dispatch_worker::ops::OpContext;
use dispatch_worker::store::migrate;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::db::TestDb;
use crate::harness::worker::{Stage, gates, write};

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
