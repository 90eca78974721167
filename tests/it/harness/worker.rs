//! Whole workers inside the test process, with scripted agents and a real repository.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::config::worker::WorkerSettings;
use dispatch_worker::queue::supervisor::{StopSignals, Worker};
use dispatch_worker::run::RunContext;
use dispatch_worker::store::listen::Listener;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::db::TestDb;
use super::eventually;
use super::repo::Ground;

/// The scripted agent.
pub const FAKE: &str = env!("CARGO_BIN_EXE_fake-agent");

/// The program that confines agents.
pub const HELPER: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

/// Longest wait for anything a worker does in a test, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A database with a project on a real repository, and a data directory for workers.
pub struct Stage {
    pub db: TestDb,
    pub sql: Client,
    pub ground: Ground,
    pub data: TempDir,
}

impl Stage {
    /// A project `p` whose branch `main` has `a.txt`.
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let sql = db.client().await;
        let ground = Ground::files(&[("a.txt", "one\ntwo\nthree\n")]);
        let path = ground.repo.to_str().unwrap();
        sql.execute(
            "INSERT INTO projects (name, path) VALUES ('p', $1)",
            &[&path],
        )
        .await
        .unwrap();
        Self {
            db,
            sql,
            ground,
            data: tempfile::tempdir().unwrap(),
        }
    }

    /// Start a worker with the usual agents.
    pub async fn worker(&self) -> TestWorker {
        self.worker_with(&agents(), |_| {}).await
    }

    /// Start a worker with this catalogue, its settings changed by `adjust`.
    pub async fn worker_with(
        &self,
        agents: &str,
        adjust: impl FnOnce(&mut WorkerSettings),
    ) -> TestWorker {
        TestWorker::start(&self.db, self.data.path(), agents, adjust).await
    }

    /// Submit a script for an agent, by plain SQL.
    pub async fn submit(&self, agent: &str, script: &Value) -> i64 {
        let insert = "INSERT INTO tasks (project, input, agent) VALUES ('p', $1, $2) RETURNING id";
        self.sql
            .query_one(insert, &[&script.to_string(), &agent])
            .await
            .unwrap()
            .get(0)
    }

    /// Submit a script and wait until its agent has said something.
    pub async fn speaking(&self, agent: &str, script: &Value) -> i64 {
        let task = self.submit(agent, script).await;
        let spoken = format!(
            "SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'text' AND task_id = {task})"
        );
        self.holds("the agent works", &spoken).await;
        task
    }

    /// A task whose agent works and does not end by itself.
    pub async fn working(&self, agent: &str) -> i64 {
        let endless = serde_json::json!([{ "say": "working" }, { "hang": true }]);
        self.speaking(agent, &endless).await
    }

    /// One text column of the task's status.
    pub async fn status(&self, task: i64, column: &str) -> Option<String> {
        let query = format!("SELECT {column}::text FROM task_status WHERE id = $1");
        self.sql.query_one(&query, &[&task]).await.unwrap().get(0)
    }

    /// Wait until the task is in this state.
    pub async fn reaches(&self, task: i64, state: &str) {
        eventually(&format!("task {task} is {state}"), PATIENCE, || async {
            self.status(task, "state").await.as_deref() == Some(state)
        })
        .await;
    }

    /// Wait until a query gives a row whose first column is true.
    pub async fn holds(&self, what: &str, query: &str) {
        eventually(what, PATIENCE, || async {
            self.sql
                .query_opt(query, &[])
                .await
                .unwrap()
                .is_some_and(|row| row.get(0))
        })
        .await;
    }

    /// The first column of the only row.
    pub async fn text(&self, query: &str) -> String {
        let query = format!("SELECT ({query})::text");
        let row = self.sql.query_one(&query, &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// The kinds of a task's stream, after checking that it has no gap and one end at most.
    pub async fn stream(&self, task: i64) -> Vec<(String, Value)> {
        let query = "SELECT seq, kind, payload FROM task_events($1, 0, 100000)";
        let rows = self.sql.query(query, &[&task]).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let expected: Vec<i64> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "the stream of task {task} has a gap");
        rows.iter().map(|row| (row.get(1), row.get(2))).collect()
    }
}

/// The catalogue of most tests: the scripted agent on every path, and the path that does nothing.
pub fn agents() -> String {
    let gates = in_sight();
    let gates = gates.display();
    format!(
        r#"
[agents.acp]
label = "scripted ACP agent"
path = "acp"
command = ["{FAKE}", "acp"]
slots = 8
kill_grace = "200ms"
readable = ["{gates}"]

[agents.cli]
label = "scripted program"
path = "pipe"
command = ["{FAKE}", "cli"]
cli.prompt_via = "stdin"
slots = 8
kill_grace = "200ms"
readable = ["{gates}"]

[agents.tty]
label = "scripted program in a terminal"
path = "pty"
command = ["{FAKE}", "tty", "{{prompt}}"]
slots = 8
kill_grace = "200ms"
readable = ["{gates}"]

[agents.noop]
label = "nothing"
path = "noop"
slots = 200
"#
    )
}

/// A directory for files that scripted agents wait for: outside of their worktrees, and in sight.
pub fn gates() -> TempDir {
    tempfile::tempdir_in(in_sight()).unwrap()
}

/// What the agents of `agents()` may read beside what every agent may.
fn in_sight() -> PathBuf {
    // One for each person who tests here.
    let name = format!("dispatch-test-gates-{}", nix::unistd::Uid::current());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A worker that runs in this process.
pub struct TestWorker {
    stop: StopSignals,
    tasks: JoinSet<()>,
    context: Weak<RunContext>,
    pub id: String,
}

impl TestWorker {
    async fn start(
        db: &TestDb,
        data: &Path,
        agents: &str,
        adjust: impl FnOnce(&mut WorkerSettings),
    ) -> Self {
        let mut settings = WorkerSettings {
            database_url: db.url(),
            listen_url: None,
            data_dir: data.to_owned(),
            agents_file: PathBuf::new(),
            secret_files: Vec::new(),
            slots: 200,
            name: "test".to_owned(),
            drain: Duration::ZERO,
            allow_hooks: false,
            sandbox: None,
            helper: Some(HELPER.into()),
            connections: 8,
        };
        adjust(&mut settings);
        // Only says something when RUST_LOG asks for it; another test may have set it up.
        let _already_there = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let listener = Listener::new();
        let stop = StopSignals::default();
        let catalogue = Catalogue::parse(agents).unwrap();
        let listen_url = settings
            .listen_url
            .clone()
            .unwrap_or(settings.database_url.clone());
        let (worker, writer) = Worker::start(settings, catalogue, listener.clone())
            .await
            .unwrap();
        let id = worker.context().worker.to_string();
        let context = Arc::downgrade(&worker.context());
        let mut tasks = JoinSet::new();
        let listen_stop = stop.hard.clone();
        tasks.spawn(async move { listener.run(&listen_url, listen_stop).await });
        let signals = stop.clone();
        tasks.spawn(async move { worker.run(writer, signals).await.unwrap() });
        Self {
            stop,
            tasks,
            context,
            id,
        }
    }

    /// What its attempts share.
    pub fn context(&self) -> Arc<RunContext> {
        self.context.upgrade().unwrap()
    }

    /// Give it another catalogue, as a reload does in the moment before its offers follow.
    pub fn reload(&self, agents: &str) {
        let context = self.context();
        *context.agents.write().unwrap() = Arc::new(Catalogue::parse(agents).unwrap());
    }

    /// Ask it to stop and wait until it has.
    pub async fn stop(mut self) {
        self.stop.soft.cancel();
        // LISTEN goes on while the worker drains, as it does in the product.
        while !self.tasks.is_empty() {
            if self.tasks.len() == 1 {
                self.stop.hard.cancel();
            }
            if let Some(done) = self.tasks.join_next().await {
                done.unwrap();
            }
        }
    }

    /// Interrupt at once, as the second signal does.
    pub async fn interrupt(self) {
        self.stop.hard.cancel();
        self.stop().await;
    }

    /// Stop its services without a word, as a host that freezes: its rows stay, its attempts are
    /// unaware.
    pub async fn go_silent(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A step of a script that writes a file of the worktree.
pub fn write(path: &str, text: &str) -> Value {
    json!({ "write": { "path": path, "text": text } })
}
