//! A project whose repository is elsewhere: this worker has a mirror of it, bare and its own, which is
//! brought up to date before it is looked at. What is applied goes back by a push that moves the branch
//! only from where the mirror saw it.
//!
//! Git is given the operator's own settings and credentials here (HOME, the agent of ssh, helpers for
//! credentials, proxies), and nowhere else. It asks nobody anything.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::objects::{self, Objects};
use super::process::Output;
use super::project::{self, ProjectCheck};
use super::{ProjectSpec, WorkspaceError, internal};
use crate::domain::error_class::ErrorClass;
use crate::domain::remote::RemoteUrl;

/// What a mirror has of its repository: all branches and tags, under their own names.
const REFSPECS: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

/// Where the mirrors of a worker are, and how fresh.
#[derive(Debug)]
pub(super) struct Mirrors {
    dir: PathBuf,
    /// When the last fetch of each began that came to a good end.
    fetched: Mutex<HashMap<PathBuf, Instant>>,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The branch is where we put it.
    Done,
    /// It was not where we saw it.
    Moved,
    /// The other side does not want it, for this reason.
    Refused(String),
}

impl Mirrors {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            dir: root.join("mirrors"),
            fetched: Mutex::default(),
        }
    }

    /// Look at a project as it is now, its lock not held.
    pub(super) async fn look(
        &self,
        git: &Git,
        objects: &Objects,
        project: &ProjectSpec,
        cancel: &CancellationToken,
    ) -> Result<ProjectCheck, WorkspaceError> {
        let asked = Instant::now();
        let lock = match project.remote {
            Some(_) => Some(objects.lock().await?),
            None => None,
        };
        let check = self.look_since(git, project, asked, cancel).await;
        drop(lock);
        check
    }

    /// The same for whoever holds the lock.
    pub(super) async fn look_held(
        &self,
        git: &Git,
        project: &ProjectSpec,
        cancel: &CancellationToken,
    ) -> Result<ProjectCheck, WorkspaceError> {
        self.look_since(git, project, Instant::now(), cancel).await
    }

    async fn look_since(
        &self,
        git: &Git,
        project: &ProjectSpec,
        asked: Instant,
        cancel: &CancellationToken,
    ) -> Result<ProjectCheck, WorkspaceError> {
        let Some(url) = &project.remote else {
            return project::inspect(git, project, &project.path, cancel).await;
        };
        let mirror = self.place(url);
        // Who waited for the lock may have what it needs by now.
        if !self.is_fresh(&mirror, asked) {
            let began = Instant::now();
            refresh(git, project, url, &mirror, cancel).await?;
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.insert(mirror.clone(), began);
        }
        project::inspect(git, project, &mirror, cancel).await
    }

    fn is_fresh(&self, mirror: &Path, asked: Instant) -> bool {
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.get(mirror).is_some_and(|began| *began >= asked)
    }

    /// Keep the mirror quick; nothing to do for a project that has none. Call with the lock held.
    pub(super) async fn maintain(
        &self,
        git: &Git,
        project: &ProjectSpec,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let mirror = project.remote.as_ref().map(|url| self.place(url));
        let Some(mirror) = mirror.filter(|mirror| mirror.is_dir()) else {
            return Ok(());
        };
        let call = Call::new(&mirror).args(["repack", "-d", "-l", "-q", "--geometric=2"]);
        git.ok(call, cancel).await.map(|_| ())
    }

    fn place(&self, url: &RemoteUrl) -> PathBuf {
        let hash = Sha256::digest(url.as_str().as_bytes());
        let hash: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        self.dir.join(format!("{hash}.git"))
    }
}

/// Make the mirror unless it is there, and have what the repository has now.
async fn refresh(
    git: &Git,
    project: &ProjectSpec,
    url: &RemoteUrl,
    mirror: &Path,
    cancel: &CancellationToken,
) -> Result<(), WorkspaceError> {
    objects::init_bare(mirror).map_err(|error| {
        internal(format!(
            "cannot make a mirror at {}: {error}",
            mirror.display()
        ))
    })?;
    let call = Call::new(mirror)
        .reaching(url)
        .args(["fetch", "--prune", "--quiet", "--no-tags", "--force"])
        .args(["--no-recurse-submodules", "--no-write-fetch-head", "--"])
        .args([url.as_str()])
        .args(REFSPECS);
    let fetched = git.run(call, cancel).await?;
    if fetched.code != Some(0) {
        return Err(unreachable(project, url, &fetched));
    }
    if project.target_ref.is_none() {
        follow_head(git, project, url, mirror, cancel).await?;
    }
    Ok(())
}

/// The mirror's HEAD names the branch that the repository's own does.
async fn follow_head(
    git: &Git,
    project: &ProjectSpec,
    url: &RemoteUrl,
    mirror: &Path,
    cancel: &CancellationToken,
) -> Result<(), WorkspaceError> {
    let call =
        Call::new(mirror)
            .reaching(url)
            .args(["ls-remote", "--symref", "--", url.as_str(), "HEAD"]);
    let listed = git.run(call, cancel).await?;
    if listed.code != Some(0) {
        return Err(unreachable(project, url, &listed));
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let named = text
        .lines()
        .find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
    let Some(name) = named.filter(|name| name.starts_with("refs/heads/")) else {
        return Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!(
                "project {} ({url}): its HEAD names no branch with a commit; push a first commit, or set the project's target branch",
                project.name
            ),
        ));
    };
    let call = Call::new(mirror).args(["symbolic-ref", "HEAD", name]);
    git.ok(call, cancel).await.map(|_| ())
}

/// Move a branch of the repository from one commit to another, in one step; the mirror follows.
pub(super) async fn push(
    git: &Git,
    url: &RemoteUrl,
    check: &ProjectCheck,
    (before, after): (&str, &str),
    cancel: &CancellationToken,
) -> Result<Pushed, WorkspaceError> {
    let (mirror, branch) = (&check.common_dir, &check.target_ref);
    let call = Call::new(mirror)
        .reaching(url)
        .args(["push", "--porcelain", "--no-verify", "--no-signed"])
        .args(["--no-follow-tags", "--recurse-submodules=no"])
        .args([format!("--force-with-lease={branch}:{before}")])
        .args(["--", url.as_str(), &format!("{after}:{branch}")]);
    let output = git.run(call, cancel).await?;
    if output.code == Some(0) {
        let line = format!("update {branch} {after}\n");
        let call = Call::new(mirror)
            .args(["update-ref", "--stdin"])
            .stdin(line);
        // The next fetch does it otherwise.
        if let Err(error) = git.ok(call, cancel).await {
            tracing::debug!(%error, "the mirror's branch stays behind");
        }
        return Ok(Pushed::Done);
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(line) = told.lines().find(|line| line.starts_with('!')) else {
        return Err(failed(&format!("cannot push to {url}"), &output));
    };
    let moved = [
        "stale info",
        "fetch first",
        "non-fast-forward",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
    ];
    if line.contains("[rejected]") && moved.iter().any(|text| line.contains(text))
        || line.contains("[remote rejected]") && moved[3..].iter().any(|text| line.contains(text))
    {
        return Ok(Pushed::Moved);
    }
    let why = line.rsplit('\t').next().unwrap_or(line);
    let said = last_lines(&output.stderr);
    Ok(Pushed::Refused(format!(
        "{url} did not take the branch: {why}\n{said}"
    )))
}

fn unreachable(project: &ProjectSpec, url: &RemoteUrl, output: &Output) -> WorkspaceError {
    failed(
        &format!("project {}: cannot fetch {url}", project.name),
        output,
    )
}

/// What a person must mend is told from what may go away by itself.
fn failed(what: &str, output: &Output) -> WorkspaceError {
    let persons = [
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "unable to get password",
        "terminal prompts disabled",
        "Permission denied",
        "Host key verification failed",
        "not found",
        "does not appear to be a git repository",
        "does not exist",
        "access denied",
        "dubious ownership",
        "The requested URL returned error: 40",
        "transport '",
    ];
    let said = last_lines(&output.stderr);
    if persons.iter().any(|text| said.contains(text)) {
        let hint = "the worker's own git has to reach it without being asked anything: see `Projects elsewhere` in docs/projects.md";
        return WorkspaceError::new(ErrorClass::Workspace, format!("{what}: {said}; {hint}"));
    }
    internal(format!("{what}: {said}"))
}

/// The other side may say a lot.
fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// The variables by which an operator tells git how to reach a repository. Nothing is shown a
/// terminal: whatever wants to ask gets no for an answer.
pub(super) fn environment() -> Vec<(OsString, OsString)> {
    let passed = std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            let numbered = ["GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"];
            PASSED.contains(&name) || numbered.iter().any(|prefix| name.starts_with(prefix))
        })
    });
    let fixed = [
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", "false"),
        ("SSH_ASKPASS", "false"),
        ("SSH_ASKPASS_REQUIRE", "force"),
        ("GCM_INTERACTIVE", "never"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
    ];
    passed
        .chain(fixed.map(|(name, value)| (name.into(), value.into())))
        .collect()
}

const PASSED: [&str; 25] = [
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "USER",
    "LOGNAME",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_COUNT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_PROXY_COMMAND",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "XDG_RUNTIME_DIR",
];

/// Slower than this for so long is not coming any more.
pub(super) const CONFIG: [&str; 4] = [
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "credential.interactive=false",
    "fetch.writeCommitGraph=false",
];

/// How a fetch or a push may reach its repository; an alias of the operator may lead from one to another.
pub(super) fn protocols(url: &RemoteUrl) -> Vec<String> {
    let usual = ["https", "http", "ssh", "git"];
    let named = [url.scheme].into_iter().filter(|one| !usual.contains(one));
    let all = usual.into_iter().chain(named);
    all.map(|one| format!("protocol.{one}.allow=always"))
        .collect()
}
