//! What an agent may do through us when its entry offers it: read and write files below the
//! worktree, run commands in terminals. Off by default: almost every agent does both itself.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::agent::acp::beneath;
use crate::agent::environment::{self, Variables};
use crate::agent::jsonrpc::{RpcError, unknown_method};
use crate::agent::process::{AgentProcess, Input, Launch, Manner};
use crate::agent::{AgentError, Exit, MARK_VARIABLE, TurnRequest};
use crate::blocking;
use crate::config::agent_spec::AgentSpec;
use crate::domain::limits;
use crate::domain::redact::Redactor;
use crate::sandbox::Confinement;
use crate::sandbox::process_set::ProcessSet;

/// The files and terminals of one attempt.
#[derive(Debug)]
pub(crate) struct Host {
    spec: Arc<AgentSpec>,
    worktree: PathBuf,
    variables: Variables,
    mark: String,
    confinement: Confinement,
    secrets: Redactor,
    /// Its limits are for what runs in terminals too.
    agent: Arc<ProcessSet>,
    opened: usize,
    terminals: HashMap<String, Terminal>,
    ending: JoinSet<()>,
}

#[derive(Debug)]
struct Terminal {
    output: Arc<Mutex<Kept>>,
    exit: watch::Receiver<Option<Exit>>,
    kill: CancellationToken,
}

/// The end of a terminal's output.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    max: usize,
    cut: bool,
    secrets: Redactor,
}

impl Host {
    pub(crate) fn new(
        spec: &AgentSpec,
        turn: &TurnRequest,
        agent: &Arc<ProcessSet>,
    ) -> Result<Self, AgentError> {
        Ok(Self {
            variables: environment::variables(spec, turn, "dumb")?,
            spec: Arc::new(spec.clone()),
            worktree: turn.worktree.clone(),
            mark: turn.mark.clone(),
            confinement: turn.confinement.clone(),
            secrets: turn.secrets.clone(),
            agent: Arc::clone(agent),
            opened: 0,
            terminals: HashMap::new(),
            ending: JoinSet::new(),
        })
    }

    /// Serve `fs/read_text_file` and `fs/write_text_file`.
    pub(crate) async fn file(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        if !self.spec.acp.offer_fs {
            return Err(unknown_method(method));
        }
        let path = self.inside(text(params, "path")?)?;
        let root = self.worktree.clone();
        if method == "fs/write_text_file" {
            let content = text(params, "content")?.to_owned();
            let write = move || beneath::write(&root, &path, content.as_bytes());
            return done(blocking::run(write).await).map(|()| json!({}));
        }
        let read = done(blocking::run(move || beneath::read(&root, &path)).await)?;
        let content = String::from_utf8_lossy(&read);
        let from = params
            .get("line")
            .and_then(Value::as_u64)
            .unwrap_or(1)
            .max(1)
            - 1;
        let limit = params.get("limit").and_then(Value::as_u64);
        if from == 0 && limit.is_none() {
            return Ok(json!({ "content": content }));
        }
        let count = limit.map_or(usize::MAX, |limit| limit as usize);
        let lines = content
            .split_inclusive('\n')
            .skip(from as usize)
            .take(count);
        Ok(json!({ "content": lines.collect::<String>() }))
    }

    /// Serve `terminal/create`, `output`, `kill` and `release`.
    pub(crate) fn terminal(&mut self, method: &str, params: &Value) -> Result<Value, RpcError> {
        if !self.spec.acp.offer_terminal {
            return Err(unknown_method(method));
        }
        match method {
            "terminal/create" => self.create(params),
            "terminal/output" => Ok(self.find(params)?.shown()),
            "terminal/kill" => {
                self.find(params)?.kill.cancel();
                Ok(json!({}))
            }
            "terminal/release" => {
                let id = text(params, "terminalId")?;
                let terminal = self.terminals.remove(id).ok_or_else(|| no_terminal(id))?;
                terminal.kill.cancel();
                Ok(json!({}))
            }
            other => Err(unknown_method(other)),
        }
    }

    /// Serve `terminal/wait_for_exit`: the future gives the answer.
    pub(crate) fn wait_for_exit(
        &self,
        params: &Value,
    ) -> Result<BoxFuture<'static, Value>, RpcError> {
        if !self.spec.acp.offer_terminal {
            return Err(unknown_method("terminal/wait_for_exit"));
        }
        let mut exit = self.find(params)?.exit.clone();
        Ok(Box::pin(async move {
            match exit.wait_for(Option::is_some).await {
                Ok(ended) => ended.as_ref().map_or(Value::Null, exit_status),
                Err(_) => json!({"exitCode": null, "signal": null}),
            }
        }))
    }

    /// End all terminals; agents do not do it themselves when they are cancelled.
    pub(crate) fn kill_all(&self) {
        for terminal in self.terminals.values() {
            terminal.kill.cancel();
        }
    }

    /// The same, and wait until their processes are gone.
    pub(crate) async fn end_all(&mut self) {
        self.kill_all();
        self.terminals.clear();
        while self.ending.join_next().await.is_some() {}
    }

    fn create(&mut self, params: &Value) -> Result<Value, RpcError> {
        // One that was released counts until its processes are gone.
        while self.ending.try_join_next().is_some() {}
        if self.ending.len() >= limits::TERMINALS_OPEN_MAX
            || self.terminals.len() >= limits::TERMINALS_OPEN_MAX
        {
            return Err(refused("too many terminals are open; release some"));
        }
        let cwd = match params.get("cwd").and_then(Value::as_str) {
            Some(cwd) => self.worktree.join(self.inside(cwd)?),
            None => self.worktree.clone(),
        };
        // A directory below the worktree may be a link that leaves it.
        let real = cwd
            .canonicalize()
            .map_err(|error| refused(&format!("cwd: {error}")))?;
        let root = self
            .worktree
            .canonicalize()
            .map_err(|error| refused(&error.to_string()))?;
        if !real.starts_with(root) {
            return Err(refused("cwd is outside the worktree"));
        }
        self.opened += 1;
        let id = format!("t{}", self.opened);
        let process = self.start(&id, text(params, "command")?, params, real)?;
        self.agent.join(process.set());
        let asked = params.get("outputByteLimit").and_then(Value::as_u64);
        let max = asked.map_or(limits::TERMINAL_OUTPUT_BYTES_MAX, |asked| asked as usize);
        let max = max.min(limits::TERMINAL_OUTPUT_BYTES_MAX);
        let output = Arc::new(Mutex::new(Kept {
            max,
            secrets: self.secrets.clone(),
            ..Kept::default()
        }));
        let (ended, exit) = watch::channel(None);
        let kill = CancellationToken::new();
        self.ending
            .spawn(attend(process, Arc::clone(&output), kill.clone(), ended));
        self.terminals
            .insert(id.clone(), Terminal { output, exit, kill });
        Ok(json!({ "terminalId": id }))
    }

    fn start(
        &self,
        id: &str,
        command: &str,
        params: &Value,
        cwd: PathBuf,
    ) -> Result<AgentProcess, RpcError> {
        // Both outputs into one pipe, in order, as in a terminal; the command is data in `$@`.
        let mut args = vec![
            "-c".to_owned(),
            "exec \"$@\" 2>&1".to_owned(),
            "sh".to_owned(),
        ];
        args.push(command.to_owned());
        let given = params
            .get("args")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        args.extend(given.filter_map(|arg| arg.as_str().map(str::to_owned)));
        // Its own mark, so that ending this terminal does not end the agent.
        let mark = format!("{}/{id}", self.mark);
        let mut variables = self.variables.clone();
        let wanted = params
            .get("env")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        variables.extend(wanted.filter_map(|pair| {
            Some((
                pair.get("name")?.as_str()?.to_owned(),
                pair.get("value")?.as_str()?.to_owned(),
            ))
        }));
        variables.retain(|(name, _)| name != MARK_VARIABLE);
        variables.push((MARK_VARIABLE.to_owned(), mark.clone()));
        let launch = Launch {
            program: PathBuf::from("/bin/sh"),
            args,
            cwd,
            variables,
            mark,
            stdin: Input::Empty,
            kill_grace: self.spec.kill_grace,
            confinement: self.confinement.clone(),
            secrets: self.secrets.clone(),
        };
        launch.start().map_err(|error| refused(&error.message))
    }

    fn find(&self, params: &Value) -> Result<&Terminal, RpcError> {
        let id = text(params, "terminalId")?;
        self.terminals.get(id).ok_or_else(|| no_terminal(id))
    }

    /// The path relative to the worktree. Links are the kernel's to refuse, later.
    fn inside(&self, path: &str) -> Result<PathBuf, RpcError> {
        let outside = || refused(&format!("{path} is outside the worktree"));
        let path = Path::new(path);
        let relative = match path.strip_prefix(&self.worktree) {
            Ok(relative) => relative,
            Err(_) if path.is_absolute() => return Err(outside()),
            Err(_) => path,
        };
        let plain = |part: Component<'_>| match part {
            Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
            Component::CurDir => true,
            _ => false,
        };
        if relative.components().all(plain) {
            Ok(relative.to_owned())
        } else {
            Err(outside())
        }
    }
}

impl Terminal {
    fn shown(&self) -> Value {
        let kept = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let exit = self.exit.borrow();
        json!({
            "output": String::from_utf8_lossy(kept.end()),
            "truncated": kept.truncated(),
            "exitStatus": exit.as_ref().map(exit_status),
        })
    }
}

impl Kept {
    /// The end is kept, and before it as much as a secret across the cut can have.
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        let seen = self.max.saturating_add(self.secrets.longest_bytes());
        let over = self.bytes.len().saturating_sub(seen);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    fn truncated(&self) -> bool {
        self.cut || self.bytes.len() > self.max
    }

    /// The end, cut at a character boundary, as the protocol wants it, and never within a secret: the
    /// agent quotes what it is shown, and half of one is known to nobody.
    fn end(&self) -> &[u8] {
        if !self.truncated() {
            return &self.bytes;
        }
        let over = self.bytes.len().saturating_sub(self.max);
        let mut over = self.secrets.after_secret(&self.bytes, over);
        while self.bytes.get(over).is_some_and(|byte| byte & 0xC0 == 0x80) {
            over += 1;
        }
        self.bytes.get(over..).unwrap_or_default()
    }
}

/// Read a terminal's output until its process ends or is to end.
async fn attend(
    mut process: AgentProcess,
    output: Arc<Mutex<Kept>>,
    kill: CancellationToken,
    ended: watch::Sender<Option<Exit>>,
) {
    let mut stdout = process.stdout.take();
    tokio::select! {
        () = keep(&mut stdout, &output) => tokio::select! {
            () = process.wait() => {}
            () = kill.cancelled() => {}
        },
        // What it left behind may hold the output open: the rest gets a bounded time.
        () = process.wait() => {
            let _held_open = timeout(limits::DRAIN_TIMEOUT, keep(&mut stdout, &output)).await;
        }
        () = kill.cancelled() => {}
    }
    let exit = process.end(Manner::Firm, stdout).await.unwrap_or_default();
    let _nobody_waits = ended.send(Some(exit));
}

async fn keep(stdout: &mut Option<ChildStdout>, output: &Mutex<Kept>) {
    let Some(stdout) = stdout else {
        return;
    };
    let mut bytes = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = stdout.read(&mut bytes).await {
        let mut kept = output.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(bytes.get(..count).unwrap_or_default());
    }
}

fn exit_status(exit: &Exit) -> Value {
    json!({"exitCode": exit.code, "signal": exit.signal.map(|signal| signal.to_string())})
}

fn text<'a>(params: &'a Value, key: &str) -> Result<&'a str, RpcError> {
    params
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError {
            code: -32_602,
            message: format!("Invalid params: {key} is missing"),
            data: Value::Null,
        })
}

fn refused(message: &str) -> RpcError {
    RpcError {
        code: -32_602,
        message: message.to_owned(),
        data: Value::Null,
    }
}

fn no_terminal(id: &str) -> RpcError {
    RpcError {
        code: -32_002,
        message: format!("no terminal {id}"),
        data: Value::Null,
    }
}

fn done<T>(result: Result<std::io::Result<T>, blocking::BlockingPanic>) -> Result<T, RpcError> {
    let code = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => -32_002,
        _ => -32_603,
    };
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(RpcError {
            code: code(&error),
            message: error.to_string(),
            data: Value::Null,
        }),
        Err(error) => Err(RpcError {
            code: -32_603,
            message: error.to_string(),
            data: Value::Null,
        }),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_worktree_are_refused_by_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        let secret = tempfile::tempdir().unwrap();
        std::fs::write(secret.path().join("s"), "secret").unwrap();
        std::os::unix::fs::symlink(secret.path(), root.path().join("out")).unwrap();
        assert!(beneath::read(root.path(), Path::new("out/s")).is_err());
        assert!(beneath::write(root.path(), Path::new("out/t"), b"x").is_err());
        assert!(!secret.path().join("t").exists());
        beneath::write(root.path(), Path::new("a/b/c.txt"), b"in").unwrap();
        assert_eq!(
            beneath::read(root.path(), Path::new("a/b/c.txt")).unwrap(),
            b"in"
        );
    }

    #[test]
    fn the_end_of_an_output_is_kept_at_a_character_boundary() {
        let mut kept = Kept {
            max: 4,
            ..Kept::default()
        };
        kept.push("aé€".as_bytes());
        assert_eq!(
            (
                String::from_utf8_lossy(kept.end()).as_ref(),
                kept.truncated()
            ),
            ("€", true)
        );
    }

    #[test]
    fn an_output_is_never_cut_within_a_secret() {
        const VALUE: &str = "k-3f9a7c51e0d2b846";
        let secrets = Redactor::new(crate::domain::redact::Secret::new("KEY", VALUE));
        for after in 0..40 {
            let mut kept = Kept {
                max: 20,
                secrets: secrets.clone(),
                ..Kept::default()
            };
            let said = format!("begin {VALUE}{}", "z".repeat(after));
            for piece in said.as_bytes().chunks(7) {
                kept.push(piece);
            }
            let end = String::from_utf8_lossy(kept.end()).into_owned();
            let rest = secrets.text(&end);
            let left = (0..VALUE.len() - 4).any(|n| rest.contains(&VALUE[n..]));
            assert!(!left, "{after}: {end}");
            assert!(end.len() <= 20 && said.ends_with(&end));
            assert_eq!(kept.truncated(), said.len() > 20);
        }
    }
}
