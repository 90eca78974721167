//! From an entry of agents.toml to an agent, and what can be found out about it before a task is
//! given to it: whether it is installed, whether it is logged in, whether it speaks its protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::acp::{self, AcpAgent};
use super::noop::NoopAgent;
use super::options::{self, Choice};
use super::permission::{Permission, PermissionAnswer, PermissionAsk};
use super::pipe::PipeAgent;
use super::process::{Input, Launch, Manner};
use super::pty::PtyAgent;
use super::{Agent, AgentError, TurnRequest, confine, environment, native};
use crate::blocking;
use crate::config::agent_spec::AgentSpec;
use crate::config::credentials;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::lookup::ProbeReport;
use crate::domain::redact::Redactor;
use crate::sandbox::{Places, Sandbox};

/// The agent of an entry.
pub fn build(spec: &AgentSpec) -> Arc<dyn Agent> {
    let own = || Arc::new(spec.clone());
    match spec.path {
        ExecutionPath::Native => Arc::new(native::NativeAgent::new(own())),
        ExecutionPath::Acp => Arc::new(AcpAgent::new(own())),
        ExecutionPath::Pipe => Arc::new(PipeAgent::new(own())),
        ExecutionPath::Pty => Arc::new(PtyAgent::new(own())),
        ExecutionPath::Noop => Arc::new(NoopAgent),
    }
}

/// Whether tasks may be given to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeStatus {
    /// It can work.
    Ready,
    /// It is there and does not work: not logged in, wrong protocol, a crash.
    Error,
    /// It is switched off or not installed.
    Unavailable,
}

impl ProbeStatus {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Error => "error",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What was found out about an agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// Whether it can work.
    pub status: ProbeStatus,
    /// What is wrong and what to do about it.
    pub error: Option<String>,
    /// The class of that error; `auth` is what a person must log in for.
    pub error_class: Option<ErrorClass>,
    /// What the program says its version is.
    pub version: Option<String>,
    /// Models it offers.
    pub models: Vec<String>,
    /// Modes it offers.
    pub modes: Vec<String>,
    /// Thinking options it offers.
    pub thinking_options: Vec<String>,
    /// Commands it announced, a list.
    pub commands: Value,
    /// What it says it can do; null when it says nothing.
    pub capabilities: Value,
}

impl Probe {
    /// Of an agent that nobody started: what its entry says.
    fn of(spec: &AgentSpec) -> Self {
        Self {
            status: ProbeStatus::Ready,
            error: None,
            error_class: None,
            version: None,
            models: spec.models.clone(),
            modes: spec.modes.clone(),
            thinking_options: spec.thinking_options.clone(),
            commands: Value::Array(Vec::new()),
            capabilities: Value::Null,
        }
    }

    /// As it is told to whoever asked for it; the worker is none where a host looked for itself.
    pub fn report(self, spec: &AgentSpec, worker: Option<String>) -> ProbeReport {
        ProbeReport {
            name: spec.name.clone(),
            worker,
            status: self.status.as_str().to_owned(),
            error: self.error,
            execution_path: spec.path.as_str().to_owned(),
            version: self.version,
            models: self.models.into(),
            modes: self.modes.into(),
            thinking_options: self.thinking_options.into(),
            commands: self.commands,
            capabilities: self.capabilities,
        }
    }

    /// Of an agent that did not work, or could not be tried.
    pub fn failed(spec: &AgentSpec, class: ErrorClass, message: String) -> Self {
        let mut probe = Self::of(spec);
        probe.fail(AgentError::new(class, message));
        probe
    }

    fn fail(&mut self, error: AgentError) {
        self.status = match error.class {
            ErrorClass::AgentUnavailable => ProbeStatus::Unavailable,
            _ => ProbeStatus::Error,
        };
        self.error_class = Some(error.class);
        self.error = Some(error.message);
    }

    /// Leave secrets out of what the agent said of itself, and cut its error to what is stored.
    pub fn redact(&mut self, redactor: &Redactor) {
        if let Some(error) = &mut self.error {
            *error = redactor
                .head_chars(error, limits::ERROR_TEXT_CHARS_MAX)
                .into_owned();
        }
        let names = self.models.iter_mut().chain(&mut self.modes);
        for text in names
            .chain(&mut self.version)
            .chain(&mut self.thinking_options)
        {
            redactor.clean(text);
        }
        redactor.clean_value(&mut self.commands);
        redactor.clean_value(&mut self.capabilities);
    }
}

/// Find out about an agent, in a directory of the probe's own that the caller removes.
pub async fn probe(spec: &AgentSpec, sandbox: &Sandbox, scratch_dir: &Path) -> Probe {
    let mut probe = Probe::of(spec);
    if !spec.enabled {
        probe.status = ProbeStatus::Unavailable;
        probe.error = Some("it is switched off in agents.toml (enabled = false)".to_owned());
        return probe;
    }
    if let Err(error) = look(spec, sandbox, scratch_dir, &mut probe).await {
        probe.fail(error);
    }
    probe
}

async fn look(
    spec: &AgentSpec,
    sandbox: &Sandbox,
    scratch_dir: &Path,
    probe: &mut Probe,
) -> Result<(), AgentError> {
    match spec.path {
        ExecutionPath::Noop => return Ok(()),
        ExecutionPath::Native => {
            native::probe::look(spec, probe).await?;
            // Its tools run confined.
            confine::means(sandbox, spec, spec.sandbox)?;
            return Ok(());
        }
        ExecutionPath::Acp | ExecutionPath::Pipe | ExecutionPath::Pty => {}
    }
    let turn = scratch_turn(spec, sandbox, scratch_dir).await?;
    environment::resolve_program(spec, &turn.worktree)?;
    let asked = spec.clone();
    if let Ok(Some(why)) = blocking::run(move || credentials::unusable(&asked)).await {
        let message = format!("agent {} cannot be started: {why}", spec.name);
        return Err(AgentError::new(ErrorClass::AgentUnavailable, message));
    }
    if !spec.version_args.is_empty() {
        probe.version = version(spec, &turn).await?;
    }
    if spec.path != ExecutionPath::Acp {
        return Ok(());
    }
    let mut probed = acp::probe(spec, &turn, &Nobody, limits::PROBE_TIMEOUT).await?;
    if let Some(refused) = probed.refused.take() {
        return Err(refused);
    }
    let listed = |own: &mut Vec<String>, found: Vec<String>| {
        if own.is_empty() {
            *own = found;
        }
    };
    if let Some(mode) = &spec.mode
        && !probed.modes.is_empty()
        && !probed.modes.contains(mode)
    {
        return Err(options::invalid(
            &spec.name,
            Choice::Mode,
            mode,
            &probed.modes,
        ));
    }
    listed(&mut probe.models, probed.models);
    listed(&mut probe.modes, probed.modes);
    listed(&mut probe.thinking_options, probed.thinking_options);
    probe.version = probed.version.or(probe.version.take());
    if let Some(commands) = probed.commands {
        probe.commands = commands;
    }
    probe.capabilities = probed.capabilities;
    Ok(())
}

/// An attempt of the agent below this directory, confined as a task's is.
pub(crate) async fn scratch_turn(
    spec: &AgentSpec,
    sandbox: &Sandbox,
    dir: &Path,
) -> Result<TurnRequest, AgentError> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot use {} for a probe: {error}", dir.display());
        AgentError::new(ErrorClass::Workspace, message)
    };
    let dir = dir.canonicalize().map_err(failed)?;
    let places = Places {
        tree: dir.join("worktree"),
        home: dir.join("home"),
        tmp: dir.join("tmp"),
        ..Places::default()
    };
    for place in [&places.tree, &places.home, &places.tmp] {
        tokio::fs::create_dir_all(place).await.map_err(failed)?;
    }
    // As in an attempt: agents look for the root of the repository above their directory, and
    // without one go up into whatever stands above the worker's own.
    let tree = places.tree.clone();
    let init = move || match tree.join(".git").exists() {
        true => Ok(()),
        false => git2::Repository::init(tree).map(drop),
    };
    match blocking::run(init).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed(std::io::Error::other(error))),
        Err(panicked) => return Err(failed(std::io::Error::other(panicked.to_string()))),
    }
    let means = confine::means(sandbox, spec, spec.sandbox)?;
    let confinement = confine::confine(sandbox, spec, means, places.clone())?;
    confinement.give(&places.tree).map_err(failed)?;
    let turn = TurnRequest {
        native: None,
        prompt: String::new(),
        worktree: places.tree,
        home: places.home,
        tmp: places.tmp,
        confinement,
        secrets: Redactor::default(),
        mark: format!("probe-{}", uuid::Uuid::new_v4()),
        model: None,
        mode_id: None,
        thinking_option_id: None,
        resume: None,
        session_worktree: None,
        session_used: Default::default(),
    };
    environment::seed_home(spec, &turn).await?;
    Ok(turn)
}

/// Where the agent's program is.
pub(crate) fn program(spec: &AgentSpec) -> Result<PathBuf, AgentError> {
    environment::resolve_program(spec, Path::new("/nonexistent"))
}

/// Open a session, within so long, and close it.
pub(crate) async fn greet(
    spec: &AgentSpec,
    turn: &TurnRequest,
    most: Duration,
) -> Result<acp::Probed, AgentError> {
    acp::probe(spec, turn, &Nobody, most).await
}

/// The first line that the program prints when asked for its version.
pub(crate) async fn version(
    spec: &AgentSpec,
    turn: &TurnRequest,
) -> Result<Option<String>, AgentError> {
    let launch = Launch::of(spec, turn, spec.version_args.clone(), Input::Empty, "dumb")?;
    let mut process = launch.start()?;
    let mut stdout = process.stdout.take();
    let mut text = Vec::new();
    let reading = async {
        if let Some(stdout) = &mut stdout {
            let _unreadable = stdout.take(VERSION_BYTES_MAX).read_to_end(&mut text).await;
        }
        process.wait().await;
    };
    let in_time = timeout(VERSION_TIMEOUT, reading).await.is_ok();
    let exit = process.end(Manner::Firm, stdout).await?;
    if in_time && exit.code == Some(0) {
        let is_cut = text.len() as u64 >= VERSION_BYTES_MAX;
        let text = super::utf8::clean(&String::from_utf8_lossy(&text));
        // A line that was cut may end within a secret; a version is no such line.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let text = if is_cut { whole } else { &text };
        return Ok(text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(str::to_owned));
    }
    let how = match exit.code {
        _ if !in_time => format!("did not end within {} s", VERSION_TIMEOUT.as_secs()),
        Some(code) => format!("ended with exit code {code}"),
        None => "was ended by a signal".to_owned(),
    };
    let tail = exit.stderr_tail.trim();
    let message = format!(
        "agent {} is installed but does not work: `{} {}` {how}; {tail}",
        spec.name,
        spec.command.first().map_or("", String::as_str),
        spec.version_args.join(" "),
    );
    Err(AgentError {
        exit: exit.clone(),
        ..AgentError::new(ErrorClass::AgentFailed, message)
    })
}

/// A version is one short line.
const VERSION_BYTES_MAX: u64 = 4_096;

/// Big agents take seconds to print it on a busy machine.
const VERSION_TIMEOUT: Duration = Duration::from_secs(limits::PROBE_TIMEOUT.as_secs() / 2);

/// Nobody is asked during a probe.
struct Nobody;

impl Permission for Nobody {
    fn ask(&self, _ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        Box::pin(async { PermissionAnswer::Cancelled })
    }
}
