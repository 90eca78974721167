//! Real repositories for tests, driven by the real git.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dispatch_worker::domain::change::ShownFile;
use dispatch_worker::domain::sandbox::Demand;
use dispatch_worker::sandbox::Means;
use dispatch_worker::workspace::{
    ApplyRequest, HooksPolicy, ProjectSpec, Snapshot, Start, Workspaces, Worktree, WorktreeKey,
    WorktreeMode,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A project repository and a workspace, gone with the test.
pub(crate) struct Ground {
    pub(crate) dir: TempDir,
    pub(crate) repo: PathBuf,
    pub(crate) work: Workspaces,
}

/// Run git as a user would; panics with its words when it fails.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let (code, text) = try_git(dir, args);
    assert_eq!(code, Some(0), "git {args:?} in {}: {text}", dir.display());
    text
}

/// Run git; exit code and what it printed.
pub(crate) fn try_git(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    shell(
        dir,
        &std::iter::once("git")
            .chain(args.iter().copied())
            .collect::<Vec<_>>(),
    )
}

/// Run a script as the agent or the user would.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    let (code, text) = shell(dir, &["bash", "-euc", script]);
    assert_eq!(code, Some(0), "{script}: {text}");
    text
}

fn shell(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests play the user and the agent with real programs"
    )]
    let mut command = std::process::Command::new(args[0]);
    let output = command
        .args(&args[1..])
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "user")
        .env("GIT_AUTHOR_EMAIL", "user@localhost")
        .env("GIT_COMMITTER_NAME", "user")
        .env("GIT_COMMITTER_EMAIL", "user@localhost")
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (output.status.code(), text)
}

/// Write a file, with the directories it needs.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Make it executable.
pub(crate) fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The key of the n-th attempt of a test.
pub(crate) fn key(n: i64) -> WorktreeKey {
    WorktreeKey {
        task: n,
        attempt: 1,
        token: 1000 + n,
    }
}

impl Ground {
    /// An empty repository on branch `main`.
    pub(crate) fn empty() -> Self {
        Self::with(HooksPolicy::Off)
    }

    /// The same, with the operator's switch as given.
    pub(crate) fn with(hooks: HooksPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("project");
        fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        git(&repo, &["config", "gc.auto", "0"]);
        let work = Workspaces::open(dir.path().join("work"), hooks).unwrap();
        Self { dir, repo, work }
    }

    /// A repository with these files in one commit.
    pub(crate) fn files(files: &[(&str, &str)]) -> Self {
        let ground = Self::empty();
        for (path, content) in files {
            write(&ground.repo.join(path), content);
        }
        ground.commit("base");
        ground
    }

    /// Commit everything in the project's checkout.
    pub(crate) fn commit(&self, message: &str) -> String {
        git(&self.repo, &["add", "-A"]);
        git(
            &self.repo,
            &["commit", "-q", "--allow-empty", "-m", message],
        );
        self.rev("HEAD")
    }

    pub(crate) fn rev(&self, name: &str) -> String {
        git(&self.repo, &["rev-parse", name])
    }

    /// What a file has at a commit of the project.
    pub(crate) fn show(&self, name: &str) -> String {
        git(&self.repo, &["show", name])
    }

    pub(crate) fn project(&self) -> ProjectSpec {
        ProjectSpec {
            name: "demo".to_owned(),
            path: self.repo.clone(),
            remote: None,
            target_ref: None,
            mode: WorktreeMode::Private,
            trusted: false,
            demand: Demand::Required,
            copy_files: Vec::new(),
            setup: None,
            teardown: None,
        }
    }

    pub(crate) async fn worktree(&self, n: i64) -> Worktree {
        let cancel = CancellationToken::new();
        self.work
            .create(
                &self.project(),
                key(n),
                None,
                Start::Tip,
                &Means::NONE,
                &cancel,
            )
            .await
            .unwrap()
    }

    pub(crate) async fn snapshot(&self, worktree: &Worktree) -> Snapshot {
        self.work.snapshot(&self.project(), worktree).await.unwrap()
    }

    /// One attempt from the tip that runs a script.
    pub(crate) async fn attempt(&self, n: i64, script: &str) -> Snapshot {
        let worktree = self.worktree(n).await;
        sh(&worktree.tree, script);
        let snapshot = self.snapshot(&worktree).await;
        self.work.discard(&self.project(), worktree).await;
        snapshot
    }

    /// The repository of results of the one project.
    pub(crate) fn results(&self) -> PathBuf {
        let stores = self.dir.path().join("work").join("stores");
        let store = fs::read_dir(stores).unwrap().next().unwrap().unwrap();
        store.path().join("results.git")
    }
}

/// Approval of a whole change.
pub(crate) fn approve(change: i64, snapshot: &Snapshot) -> ApplyRequest {
    ApplyRequest {
        change,
        base_commit: snapshot.base_commit.clone(),
        result_commit: snapshot.result_commit.clone(),
        digest: snapshot.digest.clone(),
        files: snapshot.files.iter().map(ShownFile::of).collect(),
        pack: snapshot.pack.clone(),
        only_paths: None,
        message: format!("Change {change}\n\nDispatch-Change: {change}\n"),
        author: "Agent <agent@localhost>".to_owned(),
        authored_at: 1_700_000_000,
    }
}

/// Short form of the rows: operation, path, former path.
pub(crate) fn rows(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .files
        .iter()
        .map(|file| {
            let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
            match &file.old_path {
                Some(old) => format!(
                    "{} {} <- {}",
                    file.operation.as_str(),
                    shown(&file.path),
                    shown(old)
                ),
                None => format!("{} {}", file.operation.as_str(), shown(&file.path)),
            }
        })
        .collect()
}
