//! The only place that starts agents' processes, and the one that ends them: own session, listed
//! environment, bounded stderr, and nothing left when `end` returns.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::environment::{self, Variables};
use super::last_words::LastWords;
use super::{AgentError, Exit, TurnRequest};
use crate::blocking;
use crate::config::agent_spec::AgentSpec;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::sandbox::process_set::ProcessSet;
use crate::sandbox::watch::{self, Who};
use crate::sandbox::{self, Confinement, exec};

pub use crate::sandbox::process_set::{
    Survivors, become_subreaper, roots_of_mark, sweep_mark, sweep_marks,
};

/// A process to be started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Absolute path.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// The worktree.
    pub(crate) cwd: PathBuf,
    /// All of its environment.
    pub(crate) variables: Variables,
    /// Mark of the attempt, already in `variables`.
    pub(crate) mark: String,
    /// Whether it gets a pipe as standard input; else `/dev/null`.
    pub(crate) stdin: Input,
    /// Time between the steps of ending it.
    pub(crate) kill_grace: Duration,
    /// What it may do.
    pub(crate) confinement: Confinement,
    /// What is taken out of its stderr before the beginning of that is cut off.
    pub(crate) secrets: Redactor,
}

/// Standard input of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// `/dev/null`.
    Empty,
    /// A pipe.
    Pipe,
}

/// How to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Close its input and give it time to finish, then TERM, then KILL.
    Gentle,
    /// TERM at once, then KILL.
    Firm,
}

impl Launch {
    /// The launch of an entry's program for a turn.
    pub(crate) fn of(
        spec: &AgentSpec,
        turn: &TurnRequest,
        args: Vec<String>,
        stdin: Input,
        term: &str,
    ) -> Result<Self, AgentError> {
        Ok(Self {
            program: environment::resolve_program(spec, &turn.worktree)?,
            args,
            cwd: turn.worktree.clone(),
            variables: environment::variables(spec, turn, term)?,
            mark: turn.mark.clone(),
            stdin,
            kill_grace: spec.kill_grace,
            confinement: turn.confinement.clone(),
            secrets: turn.secrets.clone(),
        })
    }

    /// Start it on pipes.
    pub(crate) fn start(self) -> Result<AgentProcess, AgentError> {
        let (helper, args) = self.confined()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts agents"
        )]
        let mut command = Command::new(helper);
        command
            .args(args)
            .current_dir(self.helper_dir())
            .env_clear()
            .envs(self.variables_of_helper())
            .stdin(match self.stdin {
                Input::Empty => Stdio::null(),
                Input::Pipe => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        crate::sys::own_session(&mut command);
        let (set, mut child) = ProcessSet::start(&self.mark, || {
            let child = command.spawn()?;
            let pid = child
                .id()
                .ok_or_else(|| std::io::Error::other("ended while starting"))?;
            Ok((pid as i32, child))
        })
        .map_err(|error| self.spawn_failed(&error))?;
        let stderr = Tail::of(child.stderr.take(), self.secrets);
        Ok(AgentProcess {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            leader: Leader::Child(child),
            guard: Guard(Arc::new(set)),
            stderr,
            kill_grace: self.kill_grace,
            confinement: self.confinement,
        })
    }

    /// The helper that confines the program, with its arguments.
    pub(crate) fn confined(&self) -> Result<(PathBuf, Vec<OsString>), AgentError> {
        let args: Vec<OsString> = self.args.iter().map(OsString::from).collect();
        self.confinement
            .command(&self.program, &args, &self.cwd)
            .map_err(|message| AgentError::new(ErrorClass::SpawnFailed, message))
    }

    /// Where the helper starts: it goes to the worktree by itself, once it is confined.
    pub(crate) fn helper_dir(&self) -> &Path {
        match cfg!(target_os = "linux") {
            true => Path::new("/"),
            false => &self.cwd,
        }
    }

    /// What the helper is started with: nothing that has a meaning for it or for what it uses.
    pub(crate) fn variables_of_helper(&self) -> impl Iterator<Item = (String, &str)> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (exec::variable(name), value.as_str()))
    }

    /// Program and arguments for the record, the prompt left out.
    pub(crate) fn shown(&self, prompt: &str) -> Vec<String> {
        std::iter::once(self.program.to_string_lossy().into_owned())
            .chain(self.args.iter().map(|arg| match arg.strip_suffix(prompt) {
                _ if prompt.is_empty() => arg.clone(),
                Some(before) => format!("{before}{{prompt}}"),
                // A short prompt may be part of an argument by chance.
                None if prompt.len() < 8 => arg.clone(),
                None => arg.replace(prompt, "{prompt}"),
            }))
            .collect()
    }

    pub(crate) fn spawn_failed(&self, error: &std::io::Error) -> AgentError {
        let message = format!("cannot start {}: {error}", self.program.display());
        AgentError::new(ErrorClass::SpawnFailed, message)
    }
}

/// A running agent. Dropping it kills the whole set.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    /// Its input, when it has a pipe; taking it is the adapter's part.
    pub(crate) stdin: Option<ChildStdin>,
    /// Its output, likewise.
    pub(crate) stdout: Option<ChildStdout>,
    leader: Leader,
    guard: Guard,
    stderr: Tail,
    kill_grace: Duration,
    confinement: Confinement,
}

impl AgentProcess {
    /// A process in a terminal: there is neither a pipe nor a stderr of its own.
    pub(crate) fn in_terminal(
        set: ProcessSet,
        mut child: std::process::Child,
        launch: &Launch,
    ) -> Self {
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { blocking::run(move || child.wait()).await.ok()?.ok() });
        Self {
            stdin: None,
            stdout: None,
            leader: Leader::Terminal {
                waiting,
                status: None,
            },
            guard: Guard(Arc::new(set)),
            stderr: Tail::of(None, Redactor::default()),
            kill_grace: launch.kill_grace,
            confinement: launch.confinement.clone(),
        }
    }

    /// Wait until the leader ended. May be dropped and called again.
    pub(crate) async fn wait(&mut self) {
        self.leader.wait().await;
        self.guard.0.leader_reaped();
    }

    async fn look(&self) {
        let set = Arc::clone(&self.guard.0);
        let _used = blocking::run(move || set.look()).await;
    }

    /// All its processes.
    pub(crate) fn set(&self) -> &Arc<ProcessSet> {
        &self.guard.0
    }

    /// Look at the set every second; resolves only when it uses more than allowed.
    pub(crate) fn over_limit(&self) -> impl Future<Output = AgentError> + use<> {
        let set = Arc::clone(&self.guard.0);
        let over = watch::over_limit(Who::Agent, set, self.confinement.clone());
        async { AgentError::new(ErrorClass::Budget, over.await) }
    }

    /// End it and everything it started; returns when nothing of the set is left. `rest` is what
    /// was not read of its output: it is drained, so that a full pipe does not keep it alive.
    pub(crate) async fn end(
        mut self,
        manner: Manner,
        rest: Option<ChildStdout>,
    ) -> Result<Exit, AgentError> {
        drop(self.stdin.take());
        let mut draining = JoinSet::new();
        if let Some(rest) = rest.or_else(|| self.stdout.take()) {
            draining.spawn(discard(rest));
        }
        let grace = self.kill_grace;
        let patient = manner == Manner::Gentle;
        // Who is below must be known before anybody is killed: an orphan has no known parent.
        self.look().await;
        if !(patient && timeout(grace, self.wait()).await.is_ok()) {
            self.guard.0.signal_group(Signal::SIGTERM);
            if timeout(grace, self.wait()).await.is_err() {
                self.look().await;
                // The helper ends what it is the parent of, which is all of it.
                self.guard.0.ask_leader();
                if timeout(limits::HELPER_END, self.wait()).await.is_err() {
                    self.guard.0.signal_group(Signal::SIGKILL);
                }
            }
        }
        let set = Arc::clone(&self.guard.0);
        let swept = blocking::run(move || set.sweep(grace.min(Duration::from_millis(500)))).await;
        if timeout(limits::DRAIN_TIMEOUT, self.wait()).await.is_err() {
            tracing::warn!("an agent's leader was killed and cannot be waited for");
        }
        let mut exit = self.leader.exit();
        exit.stderr_tail = self.stderr.finish().await;
        let swept = match swept {
            Ok(Ok(())) if exit.signal == Some(sandbox::SURVIVED as i32) => Ok(Err(Survivors::Told)),
            swept => swept,
        };
        match swept {
            Ok(Ok(())) => {
                let allowed = self.confinement.limits();
                match watch::ended_for(Who::Agent, &allowed, exit.code, exit.signal) {
                    Some(message) => Err(AgentError {
                        exit,
                        ..AgentError::new(ErrorClass::Budget, message)
                    }),
                    None => Ok(exit),
                }
            }
            Ok(Err(survivors)) => {
                tracing::error!(%survivors, "the end of an agent is not complete");
                Err(with_exit(survivors.to_string(), exit))
            }
            Err(panicked) => Err(with_exit(panicked.to_string(), exit)),
        }
    }
}

fn with_exit(message: String, exit: Exit) -> AgentError {
    AgentError {
        exit,
        ..AgentError::new(ErrorClass::Internal, message)
    }
}

async fn discard(mut rest: impl AsyncRead + Unpin) {
    let mut bytes = vec![0; 16 * 1024];
    // Ends at the end of the output; the JoinSet ends it earlier when the set is swept.
    while matches!(rest.read(&mut bytes).await, Ok(1..)) {}
}

/// Kills the set when the process is dropped before it was ended.
#[derive(Debug)]
struct Guard(Arc<ProcessSet>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill_now();
    }
}

/// The process we started, however.
#[derive(Debug)]
enum Leader {
    Child(Child),
    Terminal {
        waiting: JoinSet<Option<ExitStatus>>,
        status: Option<ExitStatus>,
    },
}

impl Leader {
    async fn wait(&mut self) {
        match self {
            Self::Child(child) => drop(child.wait().await),
            Self::Terminal { waiting, status } => {
                if let Some(Ok(ended)) = waiting.join_next().await {
                    *status = ended;
                }
            }
        }
    }

    fn exit(&mut self) -> Exit {
        let status = match self {
            Self::Child(child) => child.try_wait().ok().flatten(),
            Self::Terminal { status, .. } => *status,
        };
        Exit {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stderr_tail: String::new(),
        }
    }
}

/// The end of a stderr, read as it comes so that the agent never blocks on it.
#[derive(Debug)]
struct Tail {
    reading: JoinSet<()>,
    kept: Arc<Mutex<LastWords>>,
}

impl Tail {
    fn of(stderr: Option<ChildStderr>, secrets: Redactor) -> Self {
        let kept = LastWords::new(secrets, limits::STDERR_TAIL_BYTES_MAX);
        let kept = Arc::new(Mutex::new(kept));
        let mut reading = JoinSet::new();
        if let Some(stderr) = stderr {
            reading.spawn(keep_tail(stderr, Arc::clone(&kept)));
        }
        Self { reading, kept }
    }

    async fn finish(&mut self) -> String {
        let _held_open = timeout(limits::DRAIN_TIMEOUT, self.reading.join_next()).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.text()
    }
}

async fn keep_tail(mut stderr: ChildStderr, kept: Arc<Mutex<LastWords>>) {
    let mut bytes = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_bytes(bytes.get(..count).unwrap_or_default());
    }
}
