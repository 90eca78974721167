//! The only place that runs the git CLI.
//!
//! Every call names its git directory, starts from an empty environment and overrides whatever a
//! repository's configuration could make git execute: hooks, monitors, filters by attribute
//! files, pagers, transports, replace refs, lazy fetches.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::process::{self, Exec, ExecError, Input, Output};
use super::{WorkspaceError, remote};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::remote::RemoteUrl;

/// Command-scope configuration; it wins over the repository's own.
const CONFIG: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.safecrlf=false",
    "core.symlinks=true",
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.untrackedCache=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.logAllRefUpdates=true",
    "core.pager=cat",
    "index.version=2",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "safe.directory=*",
];

/// The git program, found once.
#[derive(Clone, Debug)]
pub(super) struct Git {
    program: PathBuf,
}

/// One call.
pub(super) struct Call<'a> {
    git_dir: Option<&'a Path>,
    work_tree: Option<&'a Path>,
    cwd: Option<&'a Path>,
    index: Option<&'a Path>,
    args: Vec<OsString>,
    stdin: Input,
    stdout_file: Option<PathBuf>,
    stdout_bytes_max: usize,
    owner: Option<(u32, u32)>,
    reaching: Option<&'a RemoteUrl>,
}

impl<'a> Call<'a> {
    /// A call in this git directory.
    pub(super) fn new(git_dir: &'a Path) -> Self {
        Self {
            git_dir: Some(git_dir),
            ..Self::nowhere()
        }
    }

    /// A call that finds the repository of `dir` itself; only for paths that the operator wrote.
    pub(super) fn discovering(dir: &'a Path) -> Self {
        Self {
            cwd: Some(dir),
            ..Self::nowhere()
        }
    }

    fn nowhere() -> Self {
        Self {
            git_dir: None,
            work_tree: None,
            cwd: None,
            index: None,
            args: Vec::new(),
            stdin: Input::Bytes(Vec::new()),
            stdout_file: None,
            stdout_bytes_max: limits::GIT_OUTPUT_BYTES_MAX,
            owner: None,
            reaching: None,
        }
    }

    pub(super) fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn work_tree(mut self, tree: &'a Path) -> Self {
        self.work_tree = Some(tree);
        self
    }

    /// Use this index file instead of the git directory's.
    pub(super) fn index(mut self, file: &'a Path) -> Self {
        self.index = Some(file);
        self
    }

    pub(super) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    pub(super) fn stdin_file(mut self, path: PathBuf) -> Self {
        self.stdin = Input::File(path);
        self
    }

    /// Write output to this new file.
    pub(super) fn stdout_file(mut self, path: PathBuf) -> Self {
        self.stdout_file = Some(path);
        self
    }

    pub(super) fn stdout_max(mut self, bytes: usize) -> Self {
        self.stdout_bytes_max = bytes;
        self
    }

    /// Let it talk to this repository, with what the operator's own git would have for it.
    pub(super) fn reaching(mut self, url: &'a RemoteUrl) -> Self {
        self.reaching = Some(url);
        self
    }

    /// Write as the owner of the git directory. Started as root we would otherwise leave files
    /// that its owner's git can no longer change.
    pub(super) fn owned_as_git_dir(mut self) -> Self {
        if nix::unistd::geteuid().is_root()
            && let Some(meta) = self.git_dir.and_then(|dir| std::fs::metadata(dir).ok())
            && meta.uid() != 0
        {
            self.owner = Some((meta.uid(), meta.gid()));
        }
        self
    }
}

/// What the git program here says of itself; an error: there is none, or it does not run.
pub async fn version() -> Result<String, WorkspaceError> {
    let call = Call::nowhere().args(["--version"]);
    Git::find()?.line(call, &CancellationToken::new()).await
}

impl Git {
    /// Find git on the worker's own PATH, absolute directories only.
    pub(super) fn find() -> Result<Self, WorkspaceError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join("git"))
            .find(|program| program.is_file())
            .map(|program| Self { program })
            .ok_or_else(|| {
                WorkspaceError::new(
                    ErrorClass::Workspace,
                    "git is not installed: install git 2.36 or newer and put it on PATH",
                )
            })
    }

    /// Run it; any exit code is an answer.
    pub(super) async fn run(
        &self,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<Output, WorkspaceError> {
        let what = call
            .args
            .first()
            .map(|arg| arg.to_string_lossy().into_owned())
            .unwrap_or_default();
        process::run(self.exec(call), cancel)
            .await
            .map_err(|error| match error {
                ExecError::Cancelled => {
                    WorkspaceError::new(ErrorClass::Cancelled, format!("git {what}: {error}"))
                }
                ExecError::TimedOut(_)
                | ExecError::OverLimit(_)
                | ExecError::Survived(_)
                | ExecError::Io(_) => {
                    WorkspaceError::new(ErrorClass::Internal, format!("git {what}: {error}"))
                }
            })
    }

    /// Run it; anything but exit code 0 is an error that quotes what git said.
    pub(super) async fn ok(
        &self,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, WorkspaceError> {
        let what = call
            .args
            .first()
            .map(|arg| arg.to_string_lossy().into_owned())
            .unwrap_or_default();
        let dir = call.git_dir.map(Path::to_path_buf);
        let output = self.run(call, cancel).await?;
        if output.code == Some(0) && !output.cut {
            return Ok(output.stdout);
        }
        let place = dir.map_or_else(String::new, |dir| format!(" in {}", dir.display()));
        let said = if output.cut {
            "it printed more than is allowed".to_owned()
        } else {
            output.stderr
        };
        Err(WorkspaceError::new(
            class_of(&said),
            format!("git {what}{place} failed: {said}"),
        ))
    }

    /// Like `ok`, as text without the line end.
    pub(super) async fn line(
        &self,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<String, WorkspaceError> {
        let stdout = self.ok(call, cancel).await?;
        Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
    }

    fn exec(&self, call: Call<'_>) -> Exec {
        let mut args: Vec<OsString> = Vec::new();
        if let Some(dir) = call.git_dir {
            args.push(join("--git-dir=", dir));
        }
        if let Some(tree) = call.work_tree {
            args.push(join("--work-tree=", tree));
        }
        let reaching = call.reaching.map(remote::protocols).unwrap_or_default();
        let more: &[&str] = if call.reaching.is_some() {
            &remote::CONFIG
        } else {
            &[]
        };
        let own = CONFIG
            .iter()
            .chain(more)
            .map(|setting| OsString::from(*setting));
        for setting in own.chain(reaching.into_iter().map(OsString::from)) {
            args.push("-c".into());
            args.push(setting);
        }
        args.extend(call.args);
        let cwd = call
            .work_tree
            .or(call.cwd)
            .or(call.git_dir)
            .unwrap_or(Path::new("/"));
        Exec {
            program: self.program.clone(),
            args,
            cwd: cwd.to_path_buf(),
            env: match call.reaching {
                Some(_) => remote::environment(),
                None => environment(call.cwd, call.index),
            },
            stdin: call.stdin,
            stdout_file: call.stdout_file,
            stdout_bytes_max: call.stdout_bytes_max,
            timeout: match call.reaching {
                Some(_) => limits::GIT_NETWORK_TIMEOUT,
                None => limits::GIT_TIMEOUT,
            },
            owner: call.owner,
            held: None,
        }
    }
}

fn join(option: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(path);
    joined
}

fn environment(discover_in: Option<&Path>, index: Option<&Path>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_COMMITTER_NAME", "dispatch"),
        ("GIT_COMMITTER_EMAIL", "dispatch@localhost"),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    if let Some(parent) = discover_in.and_then(Path::parent) {
        env.push(("GIT_CEILING_DIRECTORIES".into(), parent.into()));
    }
    if let Some(index) = index {
        env.push(("GIT_INDEX_FILE".into(), index.into()));
    }
    env
}

/// What a person must mend is theirs; the rest may go away by itself.
fn class_of(stderr: &str) -> ErrorClass {
    let persons = [
        "Permission denied",
        "not a git repository",
        "invalid path",
        "Read-only file system",
    ];
    if persons.iter().any(|text| stderr.contains(text)) {
        ErrorClass::Workspace
    } else {
        ErrorClass::Internal
    }
}
