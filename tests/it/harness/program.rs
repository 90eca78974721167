//! Workers as processes of their own, for signals, exit codes and sudden death.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::eventually;
use super::worker::{PATIENCE, Stage};

/// The program as it ships.
const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

/// A `dispatch worker`; killed when dropped.
pub struct Program {
    child: Child,
    pub name: String,
    log: PathBuf,
}

impl Program {
    /// Start a worker of this name on the stage's database and data; returns when it is registered.
    pub async fn worker(stage: &Stage, name: &str, agents: &str, flags: &[&str]) -> Self {
        let url = stage.db.url();
        Self::worker_at(stage, &url, name, agents, flags).await
    }

    /// The same with more in its environment.
    pub async fn worker_in(
        stage: &Stage,
        name: &str,
        agents: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::start(stage, &stage.db.url(), name, agents, flags, environment).await
    }

    /// The same with another way to the database.
    pub async fn worker_at(
        stage: &Stage,
        url: &str,
        name: &str,
        agents: &str,
        flags: &[&str],
    ) -> Self {
        Self::start(stage, url, name, agents, flags, &[]).await
    }

    async fn start(
        stage: &Stage,
        url: &str,
        name: &str,
        agents: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let file = stage.data.path().join(format!("{name}.toml"));
        std::fs::write(&file, agents).unwrap();
        let log = stage.data.path().join(format!("{name}.log"));
        let out = std::fs::File::create(&log).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = Command::new(PROGRAM);
        command
            .args(["worker", "--name", name, "--slots", "20", "--agents"])
            .arg(&file)
            .args(flags)
            .env("DATABASE_URL", url)
            .env("DISPATCH_DATA", stage.data.path())
            .env("RUST_LOG", "info")
            .env_remove("DATABASE_LISTEN_URL")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .kill_on_drop(true);
        let mut this = Self {
            child: command.spawn().unwrap(),
            name: name.to_owned(),
            log,
        };
        let registered = format!("SELECT EXISTS (SELECT 1 FROM workers WHERE name = '{name}')");
        eventually(&format!("{name} is registered"), PATIENCE, || async {
            stage.text(&registered).await == "true"
        })
        .await;
        assert!(this.child.try_wait().unwrap().is_none(), "{}", this.log());
        this
    }

    /// `dispatch config check` on this file: exit code and what it said.
    pub fn config_check(file: &std::path::Path) -> (Option<i32>, String) {
        let file = file.to_str().unwrap();
        Self::run(&["config", "check", "--agents", file], &[])
    }

    /// A command that ends by itself: exit code and what it said.
    pub fn run(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
        Self::run_in(std::path::Path::new("."), args, environment)
    }

    /// The same in a directory.
    pub fn run_in(
        dir: &std::path::Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> (Option<i32>, String) {
        Self::run_from(dir, args, environment, Stdio::null())
    }

    fn run_from(
        dir: &std::path::Path,
        args: &[&str],
        environment: &[(&str, &str)],
        input: Stdio,
    ) -> (Option<i32>, String) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = std::process::Command::new(PROGRAM);
        let output = command
            .args(args)
            .current_dir(dir)
            .env_remove("DATABASE_LISTEN_URL")
            .envs(environment.iter().copied())
            .stdin(input)
            .output()
            .unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    }

    /// A command that reads this from a pipe.
    pub fn run_fed(
        args: &[&str],
        environment: &[(&str, &str)],
        input: &str,
    ) -> (Option<i32>, String) {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, input.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Self::run_from(std::path::Path::new("."), args, environment, file.into())
    }

    /// The same at a terminal: what is painted there, with line breaks as in a pipe.
    pub fn run_at_terminal(args: &[&str], environment: &[(&str, &str)]) -> String {
        Self::run_at_columns(400, args, environment)
    }

    /// The same at a terminal of so many columns.
    pub fn run_at_columns(columns: u16, args: &[&str], environment: &[(&str, &str)]) -> String {
        let size = nix::pty::Winsize {
            ws_row: 50,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = nix::pty::openpty(&size, None).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = std::process::Command::new(PROGRAM);
        let mut child = command
            .args(args)
            .env_remove("DATABASE_LISTEN_URL")
            .env_remove("NO_COLOR")
            .env("PAGER", "cat")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(ends.slave.try_clone().unwrap()))
            .stderr(Stdio::from(ends.slave))
            .spawn()
            .unwrap();
        // Ours of the terminal's other end is closed with the command; then reading ends.
        drop(command);
        let mut shown = Vec::new();
        let mut master = std::fs::File::from(ends.master);
        let _closed = std::io::Read::read_to_end(&mut master, &mut shown);
        child.wait().unwrap();
        String::from_utf8(shown).unwrap().replace("\r\n", "\n")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its id in the database.
    pub async fn id(&self, stage: &Stage) -> String {
        let query = format!("SELECT id FROM workers WHERE name = '{}'", self.name);
        stage.text(&query).await
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).unwrap()
    }

    /// Send it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Wait until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{} goes on: {}", self.name, self.log()))
            .unwrap()
    }

    /// Kill it as a crash would, and let the database believe that its lease time has passed.
    pub async fn crash(mut self, stage: &Stage) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
        forget(stage, &self.name).await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of worker {}\n{}", self.name, self.log());
        }
    }
}

/// Time passes for the database alone: the worker was last seen a minute ago.
pub async fn forget(stage: &Stage, name: &str) {
    let age = "UPDATE workers SET last_seen = now() - interval '1 minute' WHERE name = $1";
    stage.sql.execute(age, &[&name]).await.unwrap();
}

/// The wait before a retry is the schedule's; tests do not sit it out.
pub async fn make_due(stage: &Stage) {
    let due =
        "UPDATE later_tasks SET run_at = now(); SELECT pg_notify(dispatch_channel(), 'later')";
    stage.sql.batch_execute(due).await.unwrap();
}

/// How many processes carry the mark of an attempt of this worker.
pub fn processes_of(worker_id: &str) -> usize {
    let mark = format!("DISPATCH_ATTEMPT=dispatch-{worker_id}-");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
        .filter(|environ| {
            let mut variables = environ.split(|byte| *byte == 0);
            variables.any(|variable| variable.starts_with(mark.as_bytes()))
        })
        .count()
}
