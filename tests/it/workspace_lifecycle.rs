//! Worktrees are made whole or not at all, survive the worker, and go away.

use std::fs;

use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::limits;
use dispatch_worker::sandbox::Means;
use dispatch_worker::workspace::{HooksPolicy, Start, WorkspaceError, Workspaces, WorktreeMode};
use tokio_util::sync::CancellationToken;

use crate::harness::eventually;
use crate::harness::repo::{Ground, git, key, rows, sh, try_git, write};

#[tokio::test]
async fn an_agent_has_a_git_of_its_own() {
    let ground = Ground::files(&[("a", "1\n")]);
    let worktree = ground.worktree(1).await;
    assert_eq!(
        git(&worktree.tree, &["rev-parse", "HEAD"]),
        ground.rev("HEAD")
    );
    assert_eq!(git(&worktree.tree, &["status", "--porcelain"]), "");
    assert_eq!(git(&worktree.tree, &["log", "--format=%s"]), "base");
    assert_eq!(git(&worktree.tree, &["remote"]), "");
    write(&worktree.tree.join("a"), "2\n");
    assert!(git(&worktree.tree, &["diff"]).contains("+2"));
    assert!(worktree.home.is_dir() && worktree.tmp.is_dir());
    assert!(worktree.borrowed.join("objects").is_dir());
}

#[tokio::test]
async fn a_worktree_left_by_a_dead_worker_is_found_recorded_and_removed() {
    let ground = Ground::files(&[("a", "1\n")]);
    let worktree = ground.worktree(5).await;
    write(&worktree.tree.join("a"), "2\n");
    assert_eq!(ground.work.leftovers().await, [], "it is in use");
    let tree = worktree.tree.clone();
    let base = worktree.base_commit.clone();
    drop(worktree);
    // The project went on.
    write(&ground.repo.join("a"), "3\n");
    ground.commit("meanwhile");
    let root = ground.dir.path().join("work");
    let later = Workspaces::open(root.clone(), HooksPolicy::Off).unwrap();
    let found = later.leftovers().await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, key(5));
    let project = ground.project();
    let adopted = later.adopt(&project, key(5)).await.unwrap();
    assert_eq!((&adopted.tree, &adopted.base_commit), (&tree, &base));
    assert!(later.adopt(&project, key(5)).await.is_err(), "once");
    let snapshot = later.snapshot(&project, &adopted).await.unwrap();
    assert_eq!(rows(&snapshot), ["edit a"]);
    later.discard(&project, adopted).await;
    assert!(!tree.exists());
    later.close().await;
    assert_eq!(later.leftovers().await, []);
    assert_eq!(fs::read_dir(root.join("trash")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("worktrees")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_worktree_with_too_much_in_it_is_kept_and_not_read_again() {
    let ground = Ground::files(&[("a", "1\n")]);
    let project = ground.project();
    let worktree = ground.worktree(6).await;
    let deep = "d/".repeat(250);
    write(&worktree.tree.join(deep).join("x"), "x");
    let tree = worktree.tree.clone();
    drop(worktree);
    assert_eq!(ground.work.leftovers().await.len(), 1);
    let adopted = ground.work.adopt(&project, key(6)).await.unwrap();
    let error = ground.work.snapshot(&project, &adopted).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Budget, "{error}");
    ground.work.keep(&adopted, &error);
    drop(adopted);
    assert_eq!(ground.work.leftovers().await, []);
    let note = ground
        .dir
        .path()
        .join("work/worktrees/t6-a1-1006/unrecorded");
    assert!(fs::read_to_string(&note).unwrap().contains("nested deeper"));
    assert!(tree.join("d").exists());
    // Whoever made it smaller says so by removing the note.
    fs::remove_dir_all(tree.join("d")).unwrap();
    fs::remove_file(&note).unwrap();
    assert_eq!(ground.work.leftovers().await.len(), 1);
    // What may be better later is tried again, not at once.
    let adopted = ground.work.adopt(&project, key(6)).await.unwrap();
    let error = WorkspaceError::new(ErrorClass::DiffFailed, "the disk was away");
    ground.work.keep(&adopted, &error);
    drop(adopted);
    assert_eq!(ground.work.leftovers().await, []);
    let long_ago = std::time::SystemTime::now() - limits::UNRECORDED_LOOK * 2;
    let noted = fs::File::options().write(true).open(&note).unwrap();
    noted.set_modified(long_ago).unwrap();
    assert_eq!(ground.work.leftovers().await.len(), 1);
}

#[tokio::test]
async fn a_half_made_worktree_is_never_used() {
    let ground = Ground::files(&[("a", "1\n")]);
    let root = ground.dir.path().join("work");
    let half = root.join("worktrees/t1-a1-1001");
    write(&half.join("tree/.git/HEAD"), "garbage");
    write(&half.join("tree/left"), "from a crash\n");
    write(&half.join("lock"), "");
    let worktree = ground.worktree(1).await;
    assert!(!worktree.tree.join("left").exists());
    assert_eq!(
        rows(&ground.snapshot(&worktree).await),
        Vec::<String>::new()
    );

    let other = root.join("worktrees/t2-a1-1002");
    write(&other.join("tree/x"), "x");
    write(&other.join("lock"), "");
    write(&root.join("trash/worktree-old/gone/x"), "x");
    assert_eq!(ground.work.leftovers().await, []);
    ground.work.close().await;
    assert!(!other.exists());
    assert_eq!(fs::read_dir(root.join("trash")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cancelled_creation_leaves_nothing() {
    let ground = Ground::files(&[("a", "1\n")]);
    let mut project = ground.project();
    let cancel = CancellationToken::new();
    let work = Workspaces::open(ground.dir.path().join("work"), HooksPolicy::Allowed).unwrap();
    let started = ground.dir.path().join("started");
    project.setup = Some(format!(
        "echo >{}; (sleep 1000)& sleep 1000",
        started.display()
    ));
    let create = work.create(&project, key(1), None, Start::Tip, &Means::NONE, &cancel);
    let stop = async {
        let bound = std::time::Duration::from_secs(30);
        eventually("the hook runs", bound, || {
            std::future::ready(started.exists())
        })
        .await;
        cancel.cancel();
    };
    let (made, ()) = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        tokio::join!(create, stop)
    })
    .await
    .unwrap();
    assert_eq!(made.unwrap_err().class, ErrorClass::Cancelled);
    work.close().await;
    let worktrees = ground.dir.path().join("work/worktrees");
    assert_eq!(fs::read_dir(worktrees).unwrap().count(), 0);
}

#[tokio::test]
async fn work_continues_on_top_of_an_earlier_result_and_is_reviewed_against_its_base() {
    let ground = Ground::files(&[("a", "1\n")]);
    let first = ground.attempt(1, "echo 2 >a; echo x >b").await;
    // The branch moves meanwhile; the follow-up stays where the change was made.
    write(&ground.repo.join("c"), "c\n");
    ground.commit("meanwhile");
    let start = Start::Continue {
        base: first.base_commit.clone(),
        result: first.result_commit.clone(),
    };
    let project = ground.project();
    let cancel = CancellationToken::new();
    let worktree = ground
        .work
        .create(&project, key(2), None, start.clone(), &Means::NONE, &cancel)
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(worktree.tree.join("b")).unwrap(), "x\n");
    assert_eq!(git(&worktree.tree, &["status", "--porcelain"]), "");
    let untouched = ground.snapshot(&worktree).await;
    assert_eq!(untouched.result_tree, first.result_tree);
    assert_eq!(untouched.digest, first.digest);
    sh(&worktree.tree, "rm b; echo 3 >a");
    let second = ground.snapshot(&worktree).await;
    assert_eq!(rows(&second), ["edit a"]);
    assert_eq!(second.base_commit, first.base_commit);

    // On another host the earlier result comes from its pack.
    let other = Workspaces::open(ground.dir.path().join("other"), HooksPolicy::Off).unwrap();
    assert!(
        other
            .create(&project, key(3), None, start.clone(), &Means::NONE, &cancel)
            .await
            .is_err()
    );
    let pack = first.pack.as_deref().unwrap();
    other
        .import(&project, &first.base_commit, &first.result_commit, pack)
        .await
        .unwrap();
    let worktree = other
        .create(&project, key(4), None, start, &Means::NONE, &cancel)
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(worktree.tree.join("b")).unwrap(), "x\n");
}

#[tokio::test]
async fn a_large_history_is_borrowed_not_copied() {
    let ground = Ground::files(&[("a", "1\n")]);
    sh(&ground.repo, "head -c 3000000 /dev/urandom >blob");
    ground.commit("large");
    git(&ground.repo, &["gc", "-q"]);
    let worktree = ground.worktree(1).await;
    let own = sh(&worktree.tree, "du -sk .git | cut -f1")
        .parse::<u64>()
        .unwrap();
    assert!(own < 300, "{own} KiB in the attempt's own git directory");
    // One pack, two names.
    let links = sh(&ground.repo, "stat -c %h .git/objects/pack/*.pack");
    assert_eq!(links, "2");
    assert_eq!(try_git(&worktree.tree, &["fsck"]).0, Some(0));
}

#[tokio::test]
async fn a_named_start_is_a_commit_or_a_branch_and_never_an_option() {
    let ground = Ground::files(&[("a", "1\n")]);
    let first = ground.rev("HEAD");
    write(&ground.repo.join("a"), "2\n");
    ground.commit("second");
    let project = ground.project();
    let cancel = CancellationToken::new();
    for (n, name) in [first.as_str(), "main~1", &first[..12]]
        .into_iter()
        .enumerate()
    {
        let start = Start::Named(name.to_owned());
        let worktree = ground
            .work
            .create(&project, key(n as i64), None, start, &Means::NONE, &cancel)
            .await
            .unwrap();
        assert_eq!(worktree.base_commit, first);
    }
    for (n, name) in ["--upload-pack=touch x", "nowhere", "", "-h", "HEAD:a"]
        .into_iter()
        .enumerate()
    {
        let start = Start::Named(name.to_owned());
        let refused = ground
            .work
            .create(
                &project,
                key(10 + n as i64),
                None,
                start,
                &Means::NONE,
                &cancel,
            )
            .await;
        assert_eq!(refused.unwrap_err().class, ErrorClass::Workspace, "{name}");
    }
}

#[tokio::test]
async fn the_teardown_hook_runs_before_the_files_go() {
    let ground = Ground::with(HooksPolicy::Allowed);
    write(&ground.repo.join("a"), "1\n");
    ground.commit("base");
    let mut project = ground.project();
    let witness = ground.dir.path().join("witness");
    project.teardown = Some(format!("cp a {}; chmod 555 .; exit 1", witness.display()));
    let worktree = ground.worktree(1).await;
    let dir = worktree.tree.parent().unwrap().to_path_buf();
    ground.work.discard(&project, worktree).await;
    assert_eq!(fs::read_to_string(witness).unwrap(), "1\n");
    assert!(!dir.exists());
}

#[tokio::test]
async fn maintenance_folds_packs_and_loses_nothing() {
    let ground = Ground::files(&[("a", "1\n")]);
    let project = ground.project();
    let mut snapshots = Vec::new();
    for n in 1..=6 {
        write(&ground.repo.join("b"), format!("{n}\n"));
        ground.commit("next");
        snapshots.push(ground.attempt(n, &format!("echo {n} >c{n}")).await);
    }
    let kept = ground.worktree(9).await;
    let stale = ground.results().join("refs/dispatch/9/1.lock");
    write(&stale, "");
    ground.work.maintain(&project).await.unwrap();
    let packs = ground
        .results()
        .parent()
        .unwrap()
        .join("base.git/objects/pack");
    let count = sh(&packs, "ls *.pack | wc -l").parse::<usize>().unwrap();
    assert!(count < 6, "{count} packs");
    git(&kept.tree, &["fsck", "--strict"]);
    git(&ground.results(), &["fsck", "--strict"]);
    sh(&kept.tree, "echo x >d");
    assert_eq!(rows(&ground.snapshot(&kept).await), ["create d"]);
    for (n, mut snapshot) in snapshots.into_iter().enumerate() {
        snapshot.pack = None;
        let request = crate::harness::repo::approve(n as i64, &snapshot);
        ground.work.apply(&project, request).await.unwrap();
    }
    assert_eq!(
        git(&ground.repo, &["ls-tree", "--name-only", "main"])
            .lines()
            .count(),
        8
    );
}

/// A file system of its own, where the machine allows one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let script = format!(
            "mount -t tmpfs -o size=16m tmpfs {} 2>/dev/null || echo no",
            at.display()
        );
        (sh(std::path::Path::new("/"), &script) != "no").then(|| Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        sh(
            std::path::Path::new("/"),
            &format!("umount -l {}", self.0.display()),
        );
    }
}

#[tokio::test]
async fn a_full_disk_fails_clearly_and_is_given_back() {
    let ground = Ground::files(&[("a", "1\n")]);
    let Some(disk) = SmallDisk::mount(ground.dir.path().join("small")) else {
        return;
    };
    let work = Workspaces::open(disk.0.join("work"), HooksPolicy::Off).unwrap();
    let project = ground.project();
    let cancel = CancellationToken::new();
    let worktree = work
        .create(&project, key(1), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    sh(
        &worktree.tree,
        "head -c 100M /dev/urandom >big 2>/dev/null || true; test -s big",
    );
    let error = work.snapshot(&project, &worktree).await.unwrap_err();
    assert!(error.class.retryable(), "{error:?}");
    let refused = work
        .create(&project, key(2), None, Start::Tip, &Means::NONE, &cancel)
        .await;
    assert!(refused.is_err());
    work.discard(&project, worktree).await;
    work.close().await;
    let worktree = work
        .create(&project, key(3), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    write(&worktree.tree.join("a"), "2\n");
    let snapshot = work.snapshot(&project, &worktree).await.unwrap();
    assert_eq!(rows(&snapshot), ["edit a"]);
}

#[tokio::test]
async fn attempts_of_one_conversation_work_in_the_same_directory() {
    let ground = Ground::files(&[("a", "1\n")]);
    let project = ground.project();
    let create = async |n, conversation| {
        let cancel = CancellationToken::new();
        let made = ground.work.create(
            &project,
            key(n),
            conversation,
            Start::Tip,
            &Means::NONE,
            &cancel,
        );
        made.await.unwrap()
    };
    let first = create(1, Some(7)).await;
    let (place, other) = (first.tree.clone(), create(2, Some(8)).await);
    assert_ne!(other.tree, place, "another conversation has its own");
    // Its worker lost the lease and still ends it: nobody works in its directory meanwhile.
    let meanwhile = create(3, Some(7)).await;
    assert_ne!(meanwhile.tree, place);
    write(&first.tree.join("b"), "2\n");
    assert_eq!(rows(&ground.snapshot(&first).await), ["create b"]);
    assert_eq!(
        rows(&ground.snapshot(&meanwhile).await),
        Vec::<String>::new()
    );
    // One that is claimed while its predecessor leaves waits for it.
    let (next, ()) = tokio::join!(create(4, Some(7)), ground.work.discard(&project, first));
    assert_eq!(next.tree, place);
    assert!(!place.join("b").exists(), "nothing is left of the first");
    // Its worker dies: it is found with its files, and its directory is free again after that.
    write(&next.tree.join("c"), "3\n");
    for gone in [meanwhile, other] {
        ground.work.discard(&project, gone).await;
    }
    drop(next);
    let left = ground.work.leftovers().await;
    let [(found, _)] = &left[..] else {
        panic!("{left:?}")
    };
    let adopted = ground.work.adopt(&project, *found).await.unwrap();
    assert_eq!(adopted.tree, place);
    assert_eq!(rows(&ground.snapshot(&adopted).await), ["create c"]);
    drop(adopted);
    // Only half put away when the worker died again.
    let root = ground.dir.path().canonicalize().unwrap().join("work");
    fs::remove_dir_all(root.join("worktrees").join("t4-a1-1004")).unwrap();
    assert!(place.exists());
    let last = create(5, Some(7)).await;
    assert_eq!(last.tree, place);
    assert_eq!(rows(&ground.snapshot(&last).await), Vec::<String>::new());
    ground.work.discard(&project, last).await;
    // What a crash of the machine may leave of it.
    for (n, owner) in [(6, Some("")), (7, Some("t6-a")), (8, None)] {
        write(&place.join("left"), "");
        let name = place.parent().unwrap().join("owner");
        match owner {
            Some(owner) => write(&name, owner),
            None => assert!(!name.exists()),
        }
        let next = create(n, Some(7)).await;
        assert_eq!(next.tree, place, "{owner:?}");
        assert!(!place.join("left").exists());
        ground.work.discard(&project, next).await;
    }
    write(&root.join("places/c9/owner"), "");
    assert_eq!(ground.work.leftovers().await, []);
    ground.work.close().await;
    assert_eq!(fs::read_dir(root.join("places")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_creation_that_dies_at_any_moment_leaves_nothing_behind() {
    let ground = Ground::empty();
    sh(
        &ground.repo,
        "for n in $(seq 600); do mkdir -p d$((n % 20)); echo $n >d$((n % 20))/f$n; done",
    );
    ground.commit("base");
    let mut project = ground.project();
    project.trusted = true;
    let cancel = CancellationToken::new();
    let root = ground.dir.path().join("work");
    for n in 0..24 {
        project.mode = if n % 2 == 0 {
            WorktreeMode::Private
        } else {
            WorktreeMode::Linked
        };
        // Not a wait for something: the point at which the worker dies.
        let dies_at = std::time::Duration::from_millis(4 * n as u64);
        let create =
            ground
                .work
                .create(&project, key(n), Some(7), Start::Tip, &Means::NONE, &cancel);
        let _ = tokio::time::timeout(dies_at, create).await;
        for (key, _) in ground.work.leftovers().await {
            let left = ground.work.adopt(&project, key).await.unwrap();
            let snapshot = ground.work.snapshot(&project, &left).await.unwrap();
            assert_eq!(
                rows(&snapshot),
                Vec::<String>::new(),
                "complete or not at all"
            );
            ground.work.discard(&project, left).await;
        }
        ground.work.close().await;
        // Only what died before it was locked, and is too young to be judged, may be there.
        for entry in fs::read_dir(root.join("worktrees")).unwrap() {
            let left = entry.unwrap().path();
            assert!(!left.join("lock").exists(), "{}", left.display());
        }
        let listed = git(&ground.repo, &["worktree", "list", "--porcelain"]);
        assert_eq!(listed.matches("worktree ").count(), 1, "{listed}");
        assert_eq!(fs::read_dir(root.join("places")).unwrap().count(), 0);
    }
    let worktree = ground
        .work
        .create(&project, key(99), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    assert_eq!(
        rows(&ground.snapshot(&worktree).await),
        Vec::<String>::new()
    );
    git(&ground.repo, &["fsck", "--strict"]);
    assert_eq!(
        git(&ground.repo, &["branch", "--format=%(refname:short)"]),
        "main"
    );
}
