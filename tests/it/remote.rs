//! Projects whose repository is elsewhere: each worker has its own mirror, and what is applied is
//! pushed, once and only onto what was seen.

use std::fs;
use std::path::PathBuf;

use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::remote::Place;
use dispatch_worker::sandbox::Means;
use dispatch_worker::workspace::{
    Applied, ApplyRequest, HooksPolicy, NotApplied, ProjectSpec, Snapshot, Start, UndoRequest,
    Undone, Workspaces,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::db::TestDb;
use crate::harness::git_server::GitServer;
use crate::harness::program::Program;
use crate::harness::repo::{Ground, approve, executable, git, key, sh, write};
use crate::harness::worker::{Stage, agents, write as write_step};

/// A repository elsewhere, and two workers' directories.
struct Far {
    ground: Ground,
    origin: PathBuf,
    other: Workspaces,
}

impl Far {
    fn new() -> Self {
        let ground = Ground::files(&[("a", "1\n"), ("b", "1\n")]);
        let origin = ground.dir.path().join("origin.git");
        let root = ground.dir.path();
        git(root, &["clone", "-q", "--bare", "project", "origin.git"]);
        let other = Workspaces::open(root.join("other"), HooksPolicy::Off).unwrap();
        Self {
            ground,
            origin,
            other,
        }
    }

    fn project(&self) -> ProjectSpec {
        let url = format!("file://{}", self.origin.display());
        let Ok(Place::Remote(remote)) = Place::parse(&url) else {
            panic!("{url}");
        };
        ProjectSpec {
            path: url.into(),
            remote: Some(remote),
            ..self.ground.project()
        }
    }

    /// One attempt of a worker that runs a script.
    async fn attempt(&self, work: &Workspaces, n: i64, script: &str) -> Snapshot {
        let (project, cancel) = (self.project(), CancellationToken::new());
        let made = work.create(&project, key(n), None, Start::Tip, &Means::NONE, &cancel);
        let worktree = made.await.unwrap();
        sh(&worktree.tree, script);
        let snapshot = work.snapshot(&project, &worktree).await.unwrap();
        work.discard(&project, worktree).await;
        snapshot
    }

    async fn apply(&self, work: &Workspaces, request: ApplyRequest) -> Result<Applied, NotApplied> {
        work.apply(&self.project(), request).await
    }

    fn at_origin(&self, name: &str) -> String {
        git(&self.origin, &["rev-parse", name])
    }

    /// A program that the repository's host runs before it takes a push.
    fn hook(&self, script: &str) {
        let hook = self.origin.join("hooks/pre-receive");
        write(&hook, format!("#!/bin/sh\n{script}\n"));
        executable(&hook);
    }
}

fn commit_of(applied: &Applied) -> String {
    match applied {
        Applied::Done { commit, .. } => commit.clone(),
        Applied::Conflicted { paths, .. } => panic!("conflicted: {paths:?}"),
    }
}

#[tokio::test]
async fn what_one_worker_made_another_one_pushes_and_a_third_takes_back() {
    let far = Far::new();
    let base = far.at_origin("main");
    let snapshot = far.attempt(&far.ground.work, 1, "echo 2 >a").await;
    assert_eq!(snapshot.base_commit, base);
    assert_eq!(far.at_origin("main"), base, "a snapshot pushes nothing");
    let applied = far.apply(&far.other, approve(7, &snapshot)).await.unwrap();
    let commit = commit_of(&applied);
    assert_eq!(far.at_origin("main"), commit);
    assert_eq!(git(&far.origin, &["show", "main:a"]), "2");
    let refs = git(&far.origin, &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main", "nothing else is pushed");
    // The next attempt starts from what is there now.
    let later = far.attempt(&far.ground.work, 2, "echo 3 >b").await;
    assert_eq!(later.base_commit, commit);
    let undo = UndoRequest {
        change: 7,
        target_ref: "refs/heads/main".to_owned(),
        before: base.clone(),
        applied_commit: commit,
    };
    let undone = far.ground.work.undo(&far.project(), &undo).await.unwrap();
    assert_eq!(undone, Undone::Done(base.clone()));
    assert_eq!(far.at_origin("main"), base);
}

#[tokio::test]
async fn a_push_that_nobody_recorded_is_found_by_another_worker_and_not_repeated() {
    let far = Far::new();
    let snapshot = far.attempt(&far.ground.work, 1, "echo 2 >a").await;
    let first = far.apply(&far.ground.work, approve(7, &snapshot)).await;
    let first = first.unwrap();
    // Somebody else goes on from there, so that the tip is another one.
    let clone = far.ground.dir.path().join("clone");
    let clone_at = far.origin.to_str().unwrap();
    git(far.ground.dir.path(), &["clone", "-q", clone_at, "clone"]);
    sh(
        &clone,
        "echo 9 >b; git commit -qam 'Dispatch-Change: 7'; git push -q",
    );
    let tip = far.at_origin("main");
    let again = far.apply(&far.other, approve(7, &snapshot)).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(far.at_origin("main"), tip);
    // A change of another number is not taken for it.
    let mut changed = approve(8, &snapshot);
    changed.message = "Change 8\n\nDispatch-Change: 8\n".to_owned();
    let other = far.apply(&far.other, changed).await.unwrap();
    assert_eq!(commit_of(&other), tip, "the branch has its content already");
}

#[tokio::test]
async fn a_branch_that_moves_during_a_push_is_merged_again_and_never_overwritten() {
    let far = Far::new();
    let snapshot = far.attempt(&far.ground.work, 1, "echo 2 >a").await;
    let clone = far.ground.dir.path().join("clone");
    let clone_at = far.origin.to_str().unwrap();
    git(far.ground.dir.path(), &["clone", "-q", clone_at, "clone"]);
    sh(
        &clone,
        "echo 9 >b; git commit -qam theirs; git push -q origin HEAD:refs/heads/theirs",
    );
    // Somebody's push wins in the moment between our look and ours.
    far.hook("unset GIT_QUARANTINE_PATH; rm -f hooks/pre-receive; git update-ref refs/heads/main refs/heads/theirs");
    let applied = far.apply(&far.ground.work, approve(7, &snapshot)).await;
    let commit = commit_of(&applied.unwrap());
    assert_eq!(far.at_origin("main"), commit);
    assert_eq!(far.at_origin("main^"), far.at_origin("theirs"));
    assert_eq!(git(&far.origin, &["show", "main:b"]), "9");
}

#[tokio::test]
async fn a_host_that_refuses_says_so_to_the_reviewer_and_nothing_is_lost() {
    let far = Far::new();
    let base = far.at_origin("main");
    let snapshot = far.attempt(&far.ground.work, 1, "echo 2 >a").await;
    far.hook("echo 'main is protected' >&2; exit 1");
    let refused = far.apply(&far.ground.work, approve(7, &snapshot)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.error.class, ErrorClass::Workspace);
    let told = refused.error.to_string();
    assert!(told.contains("main is protected"), "{told}");
    assert_eq!(far.at_origin("main"), base);
    fs::remove_file(far.origin.join("hooks/pre-receive")).unwrap();
    let applied = far.apply(&far.other, approve(7, &snapshot)).await.unwrap();
    assert_eq!(far.at_origin("main"), commit_of(&applied));
}

#[tokio::test]
async fn a_repository_that_cannot_be_reached_is_named_with_what_to_do() {
    let far = Far::new();
    fs::rename(&far.origin, far.origin.with_extension("gone")).unwrap();
    let found = far.ground.work.check_project(&far.project()).await;
    let error = found.unwrap_err();
    assert_eq!(error.class, ErrorClass::Workspace);
    assert!(error.message.contains("cannot fetch file://"), "{error}");
    assert!(error.message.contains("docs/projects.md"), "{error}");
}

#[tokio::test]
async fn a_branch_deleted_there_and_a_new_default_branch_are_followed() {
    let far = Far::new();
    let project = far.project();
    far.ground.work.check_project(&project).await.unwrap();
    sh(&far.origin, "git branch -m main trunk/main");
    let check = far.ground.work.check_project(&project).await.unwrap();
    assert_eq!(check.target_ref, "refs/heads/trunk/main");
    assert_eq!(check.checkout, None);
}

#[tokio::test]
async fn the_command_line_takes_an_address_as_it_is_typed_wherever_it_is_typed() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let (dir, url) = (tempfile::tempdir().unwrap(), db.url());
    let at_place = async |args: &[&str]| {
        let args = [&["projects"], args].concat();
        let (code, said) = Program::run_in(dir.path(), &args, &[("DATABASE_URL", &url)]);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        let path = "SELECT path FROM projects WHERE name = $1";
        let row = sql.query_one(path, &[&args[2]]).await.unwrap();
        row.get::<_, String>(0)
    };
    for (name, address) in [
        ("https", "https://git.example.com/docs.git"),
        ("ssh", "ssh://git@git.example.com:2222/docs.git"),
        ("scp", "git@git.example.com:docs.git"),
        ("file", "file:///srv/docs.git"),
    ] {
        assert_eq!(at_place(&["add", name, address]).await, address);
        let unchecked = format!("{name}-unchecked");
        let added = at_place(&["add", &unchecked, address, "--unchecked"]).await;
        assert_eq!(added, address);
        let path = at_place(&["update", &unchecked, "--path", "here", "--unchecked"]).await;
        let here = dir.path().canonicalize().unwrap().join("here");
        assert_eq!(path, here.to_str().unwrap(), "a path is this machine's");
        let moved = at_place(&["update", &unchecked, "--path", address]).await;
        assert_eq!(moved, address);
    }
    let odd = ["projects", "add", "odd", "ftp://git.example.com/docs.git"];
    let (code, said) = Program::run_in(dir.path(), &odd, &[("DATABASE_URL", &url)]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("use one of https"), "{said}");
}

/// Two workers that share nothing but the database and a git host, each with its own directory.
#[tokio::test(flavor = "multi_thread")]
async fn workers_without_a_shared_disk_work_on_one_project_by_its_address() {
    let stage = Stage::new().await;
    let root = stage.ground.dir.path();
    git(root, &["clone", "-q", "--bare", "project", "shop.git"]);
    let server = GitServer::new(root).await;
    let settings = server.settings(root);
    let moved = ["projects", "update", "p", "--path", &server.url("shop.git")];
    let (code, said) = Program::run_in(root, &moved, &[("DATABASE_URL", &stage.db.url())]);
    assert_eq!(code, Some(0), "{said}");
    let (here, there) = (root.join("here"), root.join("there"));
    let own = |dir: &PathBuf| {
        fs::create_dir_all(dir).unwrap();
        vec![
            ("DISPATCH_DATA".to_owned(), dir.to_str().unwrap().to_owned()),
            (
                "GIT_CONFIG_GLOBAL".to_owned(),
                settings.to_str().unwrap().to_owned(),
            ),
        ]
    };
    let start = async |name: &str, dir: &PathBuf, agents: &str| {
        let own = own(dir);
        let own: Vec<(&str, &str)> = own.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Program::worker_in(&stage, name, agents, &[], &own).await
    };
    let first = start("first", &here, &agents()).await;
    // What the agent can see of the password that its worker has is nothing.
    let script = json!([write_step("b.txt", "from the first\n")]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    first.crash(&stage).await;
    fs::remove_dir_all(&here).unwrap();
    // Its follow-up, and the change itself, are another host's work.
    let _second = start("second", &there, &agents()).await;
    let approve = "SELECT approve_change(id, digest) FROM pending_changes WHERE task_id = $1";
    stage.sql.query(approve, &[&task]).await.unwrap();
    let applied = format!("SELECT state = 'applied' FROM pending_changes WHERE task_id = {task}");
    stage.holds("it is pushed", &applied).await;
    let origin = root.join("shop.git");
    assert_eq!(git(&origin, &["show", "main:b.txt"]), "from the first");
    let again = stage
        .submit("acp", &json!([write_step("c.txt", "more\n")]))
        .await;
    stage.reaches(again, "completed").await;
    let base = "SELECT base_commit FROM pending_changes ORDER BY id DESC LIMIT 1";
    assert_eq!(stage.text(base).await, git(&origin, &["rev-parse", "main"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_missing_fails_the_task_with_what_to_do_and_asks_nobody() {
    let stage = Stage::new().await;
    let root = stage.ground.dir.path();
    git(root, &["clone", "-q", "--bare", "project", "shop.git"]);
    let server = GitServer::new(root).await;
    let set = "UPDATE projects SET path = $1";
    stage
        .sql
        .execute(set, &[&server.url("shop.git")])
        .await
        .unwrap();
    let nothing = [("GIT_CONFIG_GLOBAL", "/dev/null"), ("HOME", "/nonexistent")];
    let _worker = Program::worker_in(&stage, "only", &agents(), &[], &nothing).await;
    let task = stage.submit("acp", &json!([{ "say": "never" }])).await;
    stage.reaches(task, "failed").await;
    let told = stage.status(task, "error").await.unwrap();
    assert!(told.contains("cannot fetch http://"), "{told}");
    assert!(told.contains("docs/projects.md"), "{told}");
}
