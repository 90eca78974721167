//! An approved change reaches the target branch exactly as approved, once, and touches nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use dispatch_worker::domain::change::FileChange;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::workspace::{Applied, HooksPolicy, Reached, UndoRequest, Undone, Workspaces};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::repo::{Ground, approve, executable, git, rows, sh, write};

fn commit_of(applied: &Applied) -> String {
    match applied {
        Applied::Done { commit, .. } => commit.clone(),
        Applied::Conflicted { paths, .. } => panic!("conflicted: {paths:?}"),
    }
}

#[tokio::test]
async fn an_approved_change_lands_on_the_branch_and_not_in_the_checkout() {
    let ground = Ground::files(&[("a", "1\n"), ("b", "1\n")]);
    let before = ground.rev("HEAD");
    let snapshot = ground.attempt(1, "echo 2 >a; echo new >c; rm b").await;
    // Somebody works in the checkout meanwhile.
    write(&ground.repo.join("a"), "dirty\n");
    write(&ground.repo.join("staged"), "staged\n");
    git(&ground.repo, &["add", "staged"]);
    let index = fs::read(ground.repo.join(".git/index")).unwrap();
    let applied = ground
        .work
        .apply(&ground.project(), approve(7, &snapshot))
        .await
        .unwrap();
    let commit = commit_of(&applied);
    let undo_ref = format!("refs/dispatch/undo/7-{}", &snapshot.result_commit[..12]);
    assert_eq!(
        applied,
        Applied::Done {
            target_ref: "refs/heads/main".to_owned(),
            before: before.clone(),
            commit: commit.clone(),
            undo_ref: undo_ref.clone(),
        }
    );
    assert_eq!(ground.rev("main"), commit);
    assert_eq!(ground.rev("main^{tree}"), snapshot.result_tree);
    assert_eq!(ground.rev(&undo_ref), before);
    let shown = git(
        &ground.repo,
        &[
            "log",
            "-1",
            "--format=%an <%ae> %at|%cn|%s|%(trailers:only,unfold)",
        ],
    );
    assert_eq!(
        shown,
        "Agent <agent@localhost> 1700000000|dispatch|Change 7|Dispatch-Change: 7"
    );
    assert_eq!(
        fs::read_to_string(ground.repo.join("a")).unwrap(),
        "dirty\n"
    );
    assert!(ground.repo.join("b").exists());
    assert!(!ground.repo.join("c").exists());
    assert_eq!(fs::read(ground.repo.join(".git/index")).unwrap(), index);
    git(&ground.repo, &["fsck", "--strict"]);
    assert_eq!(
        sh(&ground.repo, "find .git -name '*.keep' -o -name '*.lock'"),
        ""
    );
}

#[tokio::test]
async fn applying_again_changes_nothing_and_gives_the_same_answer() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    let project = ground.project();
    let first = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    let again = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(first, again);
    // Also when work went on since.
    git(&ground.repo, &["reset", "-q", "--hard"]);
    write(&ground.repo.join("a"), "3\n");
    let later = ground.commit("later");
    let again = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(ground.rev("main"), later);
}

#[tokio::test]
async fn a_crash_between_noting_and_moving_the_branch_is_finished_by_the_next_call() {
    let ground = Ground::files(&[("a", "1\n")]);
    let base = ground.rev("HEAD");
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    let project = ground.project();
    let first = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    // As if the worker had died just before the swap.
    git(&ground.repo, &["update-ref", "refs/heads/main", &base]);
    let again = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(first, again, "the same commit is made again");
    assert_eq!(ground.rev("main"), commit_of(&first));
}

#[tokio::test]
async fn a_change_merges_with_what_the_branch_got_meanwhile() {
    let ground = Ground::files(&[("a", "1\n2\n3\n4\n5\n6\n7\n"), ("b", "1\n")]);
    let snapshot = ground.attempt(1, "sed -i s/1/one/ a").await;
    sh(&ground.repo, "sed -i s/7/seven/ a; git mv b moved");
    let tip = ground.commit("meanwhile");
    let applied = ground
        .work
        .apply(&ground.project(), approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(ground.show("main:a"), "one\n2\n3\n4\n5\n6\nseven");
    assert_eq!(ground.rev("main^"), tip);
    assert_eq!(
        git(&ground.repo, &["ls-tree", "--name-only", "main"]),
        "a\nmoved"
    );
    assert_eq!(ground.rev("main"), commit_of(&applied));
}

#[tokio::test]
async fn conflicts_are_listed_and_nothing_moves() {
    let ground = Ground::files(&[("a", "1\n"), ("b", "1\n"), ("c", "1\n")]);
    let snapshot = ground
        .attempt(1, "echo mine >a; echo mine >b; echo mine >c")
        .await;
    write(&ground.repo.join("a"), "theirs\n");
    fs::remove_file(ground.repo.join("b")).unwrap();
    let tip = ground.commit("meanwhile");
    let project = ground.project();
    let applied = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(
        applied,
        Applied::Conflicted {
            target_ref: "refs/heads/main".to_owned(),
            tip: tip.clone(),
            paths: vec!["a".to_owned(), "b".to_owned()],
        }
    );
    assert_eq!(ground.rev("main"), tip);
    // The file that does not conflict can still be taken alone.
    let mut request = approve(1, &snapshot);
    request.only_paths = Some(vec![b"c".to_vec()]);
    commit_of(&ground.work.apply(&project, request).await.unwrap());
    assert_eq!(ground.show("main:c"), "mine");
    assert_eq!(ground.show("main:a"), "theirs");
}

#[tokio::test]
async fn changes_approved_at_the_same_time_all_land() {
    let ground = Ground::files(&[("a", "1\n")]);
    let mut snapshots = Vec::new();
    for n in 1..=4 {
        snapshots.push(ground.attempt(n, &format!("echo {n} >file{n}")).await);
    }
    // Another process has its own lock holder and competes for the same branch.
    let other = Workspaces::open(ground.dir.path().join("elsewhere"), HooksPolicy::Off).unwrap();
    let project = ground.project();
    let applied = futures::future::join_all(snapshots.iter().enumerate().map(|(n, snapshot)| {
        let work = if n % 2 == 0 { &ground.work } else { &other };
        work.apply(&project, approve(n as i64, snapshot))
    }))
    .await;
    let commits: BTreeSet<String> = applied
        .iter()
        .map(|a| commit_of(a.as_ref().unwrap()))
        .collect();
    assert_eq!(commits.len(), 4);
    let names = git(&ground.repo, &["ls-tree", "--name-only", "main"]);
    assert_eq!(names, "a\nfile1\nfile2\nfile3\nfile4");
    assert_eq!(git(&ground.repo, &["rev-list", "--count", "main"]), "5");
}

#[tokio::test]
async fn a_change_survives_collection_in_the_project_and_the_loss_of_its_host() {
    let ground = Ground::files(&[("a", "1\n")]);
    git(&ground.repo, &["checkout", "-q", "-b", "side"]);
    write(&ground.repo.join("a"), "side\n");
    ground.commit("only on side");
    let snapshot = ground.attempt(1, "echo 2 >a; seq 1000 >long").await;
    git(&ground.repo, &["checkout", "-q", "main"]);
    git(&ground.repo, &["branch", "-q", "-D", "side"]);
    sh(
        &ground.repo,
        "git reflog expire --expire=now --all; git gc -q --prune=now",
    );
    assert!(
        crate::harness::repo::try_git(&ground.repo, &["cat-file", "-e", &snapshot.base_commit]).0
            != Some(0),
        "the base is really gone from the project"
    );
    git(&ground.results(), &["fsck", "--strict"]);
    let project = ground.project();
    // main never had the side's content, so that file conflicts; the other applies.
    let mut request = approve(1, &snapshot);
    request.only_paths = Some(vec![b"long".to_vec()]);
    commit_of(&ground.work.apply(&project, request).await.unwrap());
    assert!(ground.show("main:long").ends_with("1000"));

    // A change whose host is gone: its pack alone is enough where the project is.
    let snapshot = ground.attempt(2, "echo 3 >a; mkdir d; echo x >d/y").await;
    let other = Workspaces::open(ground.dir.path().join("other-host"), HooksPolicy::Off).unwrap();
    let mut request = approve(2, &snapshot);
    request.pack = None;
    let error = other.apply(&project, request).await.unwrap_err();
    assert_eq!(error.error.class, ErrorClass::Workspace);
    assert_eq!(error.reached, Reached::Looked);
    commit_of(&other.apply(&project, approve(2, &snapshot)).await.unwrap());
    assert_eq!(ground.show("main:d/y"), "x");
}

/// What undoes this application.
fn undo_of(applied: &Applied) -> UndoRequest {
    match applied {
        Applied::Done {
            target_ref,
            before,
            commit,
            ..
        } => UndoRequest {
            change: 1,
            target_ref: target_ref.clone(),
            before: before.clone(),
            applied_commit: commit.clone(),
        },
        Applied::Conflicted { paths, .. } => panic!("conflicted: {paths:?}"),
    }
}

#[tokio::test]
async fn an_applied_change_can_be_undone_until_work_follows() {
    let ground = Ground::files(&[("a", "1\n")]);
    let before = ground.rev("main");
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    let project = ground.project();
    let apply = async || {
        let request = approve(1, &snapshot);
        ground.work.apply(&project, request).await.unwrap()
    };
    let undo = undo_of(&apply().await);
    // The branch it went to is meant, not the one that is checked out by now.
    git(&ground.repo, &["checkout", "-q", "-b", "feature"]);
    let feature = ground.rev("feature");
    for _ in 0..2 {
        let undone = ground.work.undo(&project, &undo).await.unwrap();
        assert_eq!(undone, Undone::Done(before.clone()), "also the second time");
        assert_eq!(ground.rev("main"), before);
        assert_eq!(ground.rev("feature"), feature);
    }
    git(&ground.repo, &["checkout", "-q", "main"]);
    write(&ground.repo.join("b"), "later\n");
    let next = ground.commit("after the undo");
    let undone = ground.work.undo(&project, &undo).await.unwrap();
    assert_eq!(undone, Undone::Done(next), "the branch does not have it");

    let undo = undo_of(&apply().await);
    git(&ground.repo, &["reset", "-q", "--hard"]);
    write(&ground.repo.join("c"), "later\n");
    let later = ground.commit("later");
    let kept = ground.work.undo(&project, &undo).await.unwrap();
    assert!(
        matches!(&kept, Undone::Refused(why) if why.contains("git revert")),
        "{kept:?}"
    );
    assert_eq!(ground.rev("main"), later);
}

#[tokio::test]
async fn a_change_that_added_nothing_takes_nothing_out() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    write(&ground.repo.join("a"), "2\n");
    let same = ground.commit("the same by hand");
    let project = ground.project();
    let request = approve(1, &snapshot);
    let undo = undo_of(&ground.work.apply(&project, request).await.unwrap());
    let kept = ground.work.undo(&project, &undo).await.unwrap();
    assert!(matches!(&kept, Undone::Refused(_)), "{kept:?}");
    assert_eq!(ground.rev("main"), same);
}

#[tokio::test]
async fn a_change_of_another_database_with_the_same_number_is_not_taken_for_this_one() {
    let ground = Ground::files(&[("a", "1\n")]);
    let project = ground.project();
    let of_old = ground.attempt(1, "echo old >b").await;
    let applied = ground.work.apply(&project, approve(1, &of_old)).await;
    commit_of(&applied.unwrap());
    let of_new = ground.attempt(2, "echo new >c").await;
    let applied = ground.work.apply(&project, approve(1, &of_new)).await;
    commit_of(&applied.unwrap());
    assert_eq!(ground.show("main:c"), "new");
}

#[tokio::test]
async fn approving_a_file_never_removes_one_that_was_not_approved() {
    let ground = Ground::files(&[("a", "1\n"), ("d/x", "1\n")]);
    let snapshot = ground
        .attempt(1, "rm a; mkdir a; seq 50 >a/b; rm -r d; seq 60 90 >d")
        .await;
    assert_eq!(
        rows(&snapshot),
        ["delete a", "create a/b", "create d", "delete d/x"]
    );
    let project = ground.project();
    for only in [&b"a/b"[..], b"d"] {
        let mut request = approve(1, &snapshot);
        request.only_paths = Some(vec![only.to_vec()]);
        let applied = ground.work.apply(&project, request).await.unwrap();
        assert!(matches!(applied, Applied::Conflicted { .. }), "{applied:?}");
    }
    let mut request = approve(1, &snapshot);
    request.only_paths = Some(vec![b"a/b".to_vec(), b"a".to_vec()]);
    commit_of(&ground.work.apply(&project, request).await.unwrap());
    let names = git(&ground.repo, &["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(names, "a/b\nd/x");
    let mut request = approve(2, &snapshot);
    request.only_paths = Some(vec![b"nothing".to_vec()]);
    assert!(ground.work.apply(&project, request).await.is_err());
}

#[tokio::test]
async fn nothing_of_the_project_runs_when_a_change_is_applied() {
    let ground = Ground::files(&[("a", "1\n")]);
    let witness = ground.dir.path().join("ran");
    let script = format!("#!/bin/sh\necho \"$0\" >>{}\n", witness.display());
    for hook in [
        "pre-commit",
        "post-commit",
        "commit-msg",
        "reference-transaction",
        "update",
        "pre-receive",
        "post-receive",
        "post-update",
        "post-checkout",
        "post-index-change",
        "pre-auto-gc",
        "post-merge",
    ] {
        let path = ground.repo.join(".git/hooks").join(hook);
        write(&path, &script);
        executable(&path);
    }
    let hook = ground.repo.join(".git/hooks/post-commit");
    git(
        &ground.repo,
        &["config", "core.fsmonitor", hook.to_str().unwrap()],
    );
    git(
        &ground.repo,
        &[
            "config",
            "core.alternateRefsCommand",
            hook.to_str().unwrap(),
        ],
    );
    git(&ground.repo, &["config", "commit.gpgSign", "true"]);
    git(
        &ground.repo,
        &["config", "gpg.program", hook.to_str().unwrap()],
    );
    git(
        &ground.repo,
        &["config", "merge.z.driver", hook.to_str().unwrap()],
    );
    git(
        &ground.repo,
        &["config", "diff.external", hook.to_str().unwrap()],
    );
    write(
        &ground.repo.join(".git/info/attributes"),
        "* merge=z diff=z\n",
    );
    let _ = fs::remove_file(&witness);
    let snapshot = ground
        .attempt(1, "echo 2 >a; echo '* merge=z' >.gitattributes")
        .await;
    let applied = ground
        .work
        .apply(&ground.project(), approve(1, &snapshot))
        .await;
    commit_of(&applied.unwrap());
    assert!(
        !witness.exists(),
        "{}",
        fs::read_to_string(&witness).unwrap_or_default()
    );
}

#[tokio::test]
async fn as_root_the_project_stays_its_owners() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let ground = Ground::files(&[("a", "1\n")]);
    fs::set_permissions(ground.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    sh(ground.dir.path(), "chown -R 65534:65534 project");
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    let applied = ground
        .work
        .apply(&ground.project(), approve(1, &snapshot))
        .await;
    commit_of(&applied.unwrap());
    assert_eq!(sh(ground.dir.path(), "find project -not -user 65534"), "");
}

// -- any subset of approved files ------------------------------------------------------------

#[derive(Clone, PartialEq, Eq)]
enum Thing {
    File(Vec<u8>),
    Program(Vec<u8>),
    Link(Vec<u8>),
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, bytes) = match self {
            Self::File(bytes) => ("file", bytes),
            Self::Program(bytes) => ("program", bytes),
            Self::Link(bytes) => ("link", bytes),
        };
        let tail = &bytes[bytes.len().saturating_sub(12)..];
        write!(
            f,
            "{name} {}:{:?}",
            bytes.len(),
            String::from_utf8_lossy(tail)
        )
    }
}

type Model = BTreeMap<Vec<u8>, Thing>;

const PATHS: &[&[u8]] = &[
    b"a",
    b"b.txt",
    b"c/x",
    b"c/y",
    b"d",
    b"d/z",
    b"e",
    b"e/f",
    b"e/f/g",
    b"caf\xe9",
    b"sp ace/q\"t",
    b"-rf",
];

fn thing() -> impl Strategy<Value = Thing> {
    let text = prop_oneof![
        Just(b"".to_vec()),
        (0_u8..6).prop_map(|n| (0..20)
            .flat_map(|line| format!("line {line}\n").into_bytes())
            .chain(format!("tail {n}\n").into_bytes())
            .collect()),
        (0_u8..6).prop_map(|n| format!("short {n}\r\n").into_bytes()),
        (0_u8..6).prop_map(|n| vec![0, 0xff, n, 0]),
    ];
    prop_oneof![
        5 => text.clone().prop_map(Thing::File),
        1 => text.prop_map(Thing::Program),
        1 => (0_u8..3).prop_map(|n| Thing::Link(format!("../target{n}").into_bytes())),
    ]
}

/// A tree; where a file and a directory would have one name, the file stays.
fn model() -> impl Strategy<Value = Model> {
    proptest::collection::vec(proptest::option::weighted(0.6, thing()), PATHS.len()).prop_map(
        |things| {
            let mut model = Model::new();
            for (path, thing) in PATHS.iter().zip(things) {
                let taken = |end: usize| model.contains_key(&path[..end]);
                let below = path.iter().enumerate().any(|(n, b)| *b == b'/' && taken(n));
                if let (Some(thing), false) = (thing, below) {
                    model.insert(path.to_vec(), thing);
                }
            }
            model
        },
    )
}

fn put(root: &Path, model: &Model) {
    sh(
        root,
        "find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +",
    );
    for (path, thing) in model {
        let path = root.join(OsStr::from_bytes(path));
        match thing {
            Thing::File(bytes) => write(&path, bytes),
            Thing::Program(bytes) => {
                write(&path, bytes);
                executable(&path);
            }
            Thing::Link(target) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(OsStr::from_bytes(target), &path).unwrap();
            }
        }
    }
}

/// The files of a commit, read with plumbing only.
fn read(repo: &Path, commit: &str) -> Model {
    let repo = git2::Repository::open(repo).unwrap();
    let tree = repo
        .revparse_single(commit)
        .unwrap()
        .peel_to_tree()
        .unwrap();
    let mut index = git2::Index::new().unwrap();
    index.read_tree(&tree).unwrap();
    index
        .iter()
        .map(|entry| {
            let bytes = repo.find_blob(entry.id).unwrap().content().to_vec();
            let thing = match entry.mode {
                0o120_000 => Thing::Link(bytes),
                0o100_755 => Thing::Program(bytes),
                _ => Thing::File(bytes),
            };
            (entry.path, thing)
        })
        .collect()
}

fn row_text(row: &FileChange) -> String {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    format!(
        "{} {} {:?} {:?} {:?}",
        row.operation.as_str(),
        shown(&row.path),
        row.old_path.as_deref().map(shown),
        row.old_mode,
        row.new_mode
    )
}

/// The base with the chosen rows; `None`: that is no tree.
fn expect(base: &Model, result: &Model, chosen: &[&FileChange]) -> Option<Model> {
    let mut model = base.clone();
    for row in chosen {
        model.remove(row.old_path.as_ref().unwrap_or(&row.path));
    }
    for row in chosen {
        if let Some(thing) = result.get(&row.path) {
            model.insert(row.path.clone(), thing.clone());
        }
    }
    let clash = model.keys().any(|path| {
        path.iter()
            .enumerate()
            .any(|(n, byte)| *byte == b'/' && model.contains_key(&path[..n]))
    });
    (!clash).then_some(model)
}

#[test]
fn any_subset_of_approved_files_applies_to_exactly_the_expected_tree() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut runner = TestRunner::new(Config {
        cases: cases.unwrap_or(24),
        failure_persistence: None,
        ..Config::default()
    });
    let input = (model(), model(), any::<u32>(), any::<bool>());
    let outcome = runner.run(&input, |(base, result, bits, all)| {
        runtime.block_on(async {
            let ground = Ground::empty();
            put(&ground.repo, &base);
            ground.commit("base");
            let worktree = ground.worktree(1).await;
            put(&worktree.tree, &result);
            let snapshot = ground.snapshot(&worktree).await;
            let paths: BTreeSet<_> = snapshot.files.iter().map(|row| &row.path).collect();
            prop_assert_eq!(paths.len(), snapshot.files.len(), "one row per path");
            prop_assert_eq!(&snapshot.notices, &Vec::<String>::new());
            prop_assert_eq!(&read(&ground.results(), &snapshot.result_commit), &result);
            let chosen: Vec<&FileChange> = snapshot
                .files
                .iter()
                .enumerate()
                .filter(|(n, _)| all || bits >> (n % 32) & 1 == 1)
                .map(|(_, row)| row)
                .collect();
            let mut request = approve(1, &snapshot);
            request.only_paths = Some(chosen.iter().map(|row| row.path.clone()).collect());
            let applied = ground.work.apply(&ground.project(), request).await.unwrap();
            match expect(&base, &result, &chosen) {
                Some(expected) => {
                    let done = matches!(applied, Applied::Done { .. });
                    prop_assert!(done, "{:?}", applied);
                    let chosen: Vec<String> = chosen.iter().map(|row| row_text(row)).collect();
                    prop_assert_eq!(&read(&ground.repo, "main"), &expected, "{:?}", chosen);
                    if all {
                        prop_assert_eq!(&expected, &result);
                    }
                }
                None => {
                    let conflicted = matches!(applied, Applied::Conflicted { .. });
                    prop_assert!(conflicted, "{:?}", applied);
                    prop_assert_eq!(&read(&ground.repo, "main"), &base);
                }
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
