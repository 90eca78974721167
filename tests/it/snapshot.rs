//! What an attempt left is recorded exactly, whatever the agent did.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use dispatch_worker::domain::change::{FileKind, FileOperation};
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::staged_name::staged_name;
use dispatch_worker::sandbox::Means;
use dispatch_worker::workspace::{HooksPolicy, Start};
use tokio_util::sync::CancellationToken;

use crate::harness::repo::{Ground, executable, git, key, rows, sh, write};

/// The tree that git itself would make of a worktree of an ordinary repository.
fn add_all(worktree: &std::path::Path) -> String {
    sh(
        worktree,
        "export GIT_INDEX_FILE=$PWD/.git/probe; git read-tree HEAD; git add -A; git write-tree",
    )
}

#[tokio::test]
async fn an_untouched_checkout_is_an_empty_change() {
    let ground = Ground::empty();
    write(&ground.repo.join("unix.txt"), "a\nb\n");
    write(&ground.repo.join("dos.txt"), "a\r\nb\r\n");
    write(&ground.repo.join("mixed.txt"), "a\r\nb\n");
    write(&ground.repo.join("wide.txt"), [0xff, 0xfe, b'a', 0]);
    write(&ground.repo.join("id.c"), "/* $Id$ */\n");
    write(&ground.repo.join("run.sh"), "#!/bin/sh\n");
    executable(&ground.repo.join("run.sh"));
    symlink("unix.txt", ground.repo.join("link")).unwrap();
    symlink("/nowhere", ground.repo.join("dangling")).unwrap();
    // Bytes are in the repository before the attributes that would change them.
    ground.commit("bytes");
    write(
        &ground.repo.join(".gitattributes"),
        "* text eol=crlf\n*.c ident\nwide.txt working-tree-encoding=UTF-16\n",
    );
    git(&ground.repo, &["config", "core.autocrlf", "true"]);
    ground.commit("attributes");
    let worktree = ground.worktree(1).await;
    for path in ["unix.txt", "dos.txt", "mixed.txt", "wide.txt", "id.c"] {
        let blob = git(&ground.repo, &["rev-parse", &format!("HEAD:{path}")]);
        let here = git(&worktree.tree, &["hash-object", "--no-filters", path]);
        assert_eq!(here, blob, "{path} must be checked out byte for byte");
    }
    assert_eq!(git(&worktree.tree, &["status", "--porcelain"]), "");
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(rows(&snapshot), Vec::<String>::new());
    assert_eq!(snapshot.result_tree, ground.rev("HEAD^{tree}"));
    // Also when every file has to be read again.
    sh(
        &worktree.tree,
        "find . -path ./.git -prune -o -type f -exec touch {} +",
    );
    let again = ground.snapshot(&worktree).await;
    assert_eq!(again.files, []);
    assert_eq!(again.digest, snapshot.digest);
    assert_eq!(again.result_commit, snapshot.result_commit);
}

#[tokio::test]
async fn every_kind_of_change_is_recorded_as_git_would() {
    let ground = Ground::files(&[
        ("edit.txt", "one\ntwo\nthree\n"),
        ("delete.txt", "gone\n"),
        (
            "old/name.txt",
            "long enough to be found again\nsecond line\nthird\n",
        ),
        ("mode.sh", "#!/bin/sh\n"),
        ("file-to-dir", "x\n"),
        ("file-to-link", "y\n"),
        ("dir-to-file/x", "z\n"),
        (".gitignore", "*.log\n"),
    ]);
    write(&ground.repo.join("kept.log"), "tracked though ignored\n");
    git(&ground.repo, &["add", "-f", "kept.log"]);
    ground.commit("tracked though ignored");
    let worktree = ground.worktree(1).await;
    let tree = &worktree.tree;
    write(&tree.join("edit.txt"), "one\nTWO\nthree\n");
    fs::remove_file(tree.join("delete.txt")).unwrap();
    fs::create_dir(tree.join("new")).unwrap();
    fs::rename(tree.join("old/name.txt"), tree.join("new/name.txt")).unwrap();
    executable(&tree.join("mode.sh"));
    fs::remove_file(tree.join("file-to-dir")).unwrap();
    write(&tree.join("file-to-dir/inside"), "x\n");
    fs::remove_file(tree.join("file-to-link")).unwrap();
    symlink("../../etc/passwd", tree.join("file-to-link")).unwrap();
    fs::remove_dir_all(tree.join("dir-to-file")).unwrap();
    write(&tree.join("dir-to-file"), "now a file\n");
    write(&tree.join("empty"), "");
    write(&tree.join("binary"), [0, 1, 2, 0xff]);
    write(
        &tree.join(OsStr::from_bytes(b"caf\xe9 \"quoted\"")),
        "latin\n",
    );
    write(&tree.join("ignored.log"), "left out\n");
    write(&tree.join("kept.log"), "tracked, changed\n");
    let expected = add_all(tree);
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(snapshot.result_tree, expected);
    assert_eq!(
        rows(&snapshot),
        [
            "create binary",
            "create caf\u{fffd} \"quoted\"",
            "delete delete.txt",
            "create dir-to-file",
            "delete dir-to-file/x",
            "edit edit.txt",
            "create empty",
            "rename file-to-dir/inside <- file-to-dir",
            "edit file-to-link",
            "edit kept.log",
            "mode mode.sh",
            "rename new/name.txt <- old/name.txt",
        ]
    );
    let find = |path: &[u8]| snapshot.files.iter().find(|f| f.path == path).unwrap();
    assert_eq!(find(b"binary").kind, FileKind::Binary);
    assert_eq!(find(b"file-to-link").kind, FileKind::Symlink);
    assert_eq!(find(b"caf\xe9 \"quoted\"").operation, FileOperation::Create);
    assert_eq!(find(b"mode.sh").flags, ["executable", "mode_changed"]);
    let edit = find(b"edit.txt");
    assert_eq!((edit.added_lines, edit.removed_lines), (Some(1), Some(1)));
    let patch = edit.patch.as_deref().unwrap();
    assert!(patch.contains("-two\n+TWO\n"), "{patch}");
    assert_eq!(snapshot.notices, Vec::<String>::new());
}

#[tokio::test]
async fn commits_that_the_agent_made_itself_are_part_of_the_change() {
    let ground = Ground::files(&[("a", "1\n"), ("b", "1\n")]);
    let snapshot = ground
        .attempt(
            1,
            "echo 2 >a; git commit -qam one; git rm -q b; git commit -qm two; git log --oneline; echo 3 >c; git checkout -q -b own",
        )
        .await;
    assert_eq!(rows(&snapshot), ["edit a", "delete b", "create c"]);
    assert_eq!(ground.rev("HEAD"), snapshot.base_commit);
    assert_eq!(
        git(&ground.repo, &["branch", "--format=%(refname:short)"]),
        "main"
    );
}

#[tokio::test]
async fn nested_repositories_are_reported_and_their_files_kept() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground
        .attempt(
            1,
            "git init -q inner; echo x >inner/file; cd inner; git add file; git commit -qm inner; cd ..; git init -q --bare bare; mkdir bare/objects/00; echo x >bare/objects/00/x",
        )
        .await;
    assert_eq!(rows(&snapshot), ["create inner/file"]);
    assert_eq!(snapshot.notices.len(), 2, "{:?}", snapshot.notices);
    assert!(snapshot.notices[0].starts_with("bare is a git directory"));
    assert!(snapshot.notices[1].starts_with("inner holds a repository"));
}

/// Git obeys the configuration of a directory that refers to another for it, wherever that is.
#[tokio::test]
async fn a_directory_that_git_takes_for_a_worktree_of_another_is_left_out() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground
        .attempt(
            1,
            "mkdir -p A/sub B/objects B/refs; echo 'ref: refs/heads/x' >A/HEAD; echo ../B >A/commondir; \
             echo x >A/sub/file; printf '[core]\\n\\tfsmonitor = touch /tmp/x\\n' >B/config; \
             touch B/objects/.keep B/refs/.keep; mkdir C; echo x >C/head; echo ../B >C/CommonDir",
        )
        .await;
    assert_eq!(
        rows(&snapshot),
        [
            "create B/config",
            "create B/objects/.keep",
            "create B/refs/.keep"
        ],
        "a repository without HEAD is none"
    );
    assert_eq!(snapshot.notices.len(), 2, "{:?}", snapshot.notices);
    assert!(snapshot.notices[0].starts_with("A is a git directory"));
}

#[tokio::test]
async fn editing_ignore_rules_hides_nothing() {
    let ground = Ground::files(&[(".gitignore", "target/\n"), ("a", "1\n")]);
    let snapshot = ground
        .attempt(
            1,
            "echo 'backdoor*' >>.gitignore; echo 'backdoor*' >>.git/info/exclude; echo bad >backdoor.sh; mkdir -p target sub; echo x >target/out; echo '*' >sub/.gitignore; echo y >sub/file; mkdir -p .claude; echo '{}' >.claude/settings.local.json",
        )
        .await;
    assert_eq!(
        rows(&snapshot),
        [
            "edit .gitignore",
            "create backdoor.sh",
            "create sub/.gitignore",
            "create sub/file"
        ]
    );
}

#[tokio::test]
async fn a_change_that_keeps_size_and_time_is_seen() {
    let ground = Ground::files(&[("a", "old content\n"), ("b", "old content\n")]);
    let worktree = ground.worktree(1).await;
    sh(
        &worktree.tree,
        "touch -r a /tmp/stamp.$$; printf 'new content\n' >a; touch -r /tmp/stamp.$$ a; rm /tmp/stamp.$$; git update-index --assume-unchanged b; git update-index --skip-worktree b; printf 'bad content\n' >b",
    );
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(rows(&snapshot), ["edit a", "edit b"]);
}

#[tokio::test]
async fn odd_files_are_left_out_with_a_notice_and_never_block() {
    let ground = Ground::files(&[("tracked", "1\n"), ("README.md", "hi\n")]);
    let worktree = ground.worktree(1).await;
    sh(
        &worktree.tree,
        "mkfifo pipe; truncate -s 3G huge; truncate -s 3G tracked; echo x >'a:b'; echo x >'tail.'; mkdir .GIT; echo x >.GIT/config; echo x >readme.MD; ln -s x .gitmodules; echo ok >fine",
    );
    let started = std::time::Instant::now();
    let snapshot = ground.snapshot(&worktree).await;
    assert!(started.elapsed().as_secs() < 5);
    assert_eq!(rows(&snapshot), ["create fine"]);
    let notices = snapshot.notices.join("\n");
    for name in [
        "pipe",
        "huge",
        "tracked",
        "a:b",
        "tail.",
        ".GIT/config",
        "readme.MD",
        ".gitmodules",
    ] {
        assert!(notices.contains(name), "{name} must be named in: {notices}");
    }
}

#[tokio::test]
async fn what_a_killed_write_left_is_no_part_of_a_change() {
    let ground = Ground::empty();
    let name = |n: u128| staged_name(uuid::Uuid::from_u128(n));
    write(&ground.repo.join(name(1)), "somebody committed it\n");
    ground.commit("a file with such a name");
    let worktree = ground.worktree(1).await;
    write(
        &worktree.tree.join(name(1)),
        "so it is a file as others are\n",
    );
    write(&worktree.tree.join(name(2)), "half of\n");
    write(&worktree.tree.join("below").join(name(3)), "half of\n");
    write(&worktree.tree.join("below/whole"), "all of\n");
    let snapshot = ground.snapshot(&worktree).await;
    let paths: Vec<_> = snapshot.files.iter().map(|file| &file.path).collect();
    assert_eq!(paths, [name(1).as_bytes(), b"below/whole"]);
    assert_eq!(snapshot.notices.len(), 2, "{:?}", snapshot.notices);
    for (n, notice) in [2, 3].into_iter().zip(&snapshot.notices) {
        assert!(notice.contains(&name(n)), "{notice}");
    }
}

#[tokio::test]
async fn directories_nested_beyond_the_limit_are_refused_and_kept() {
    let ground = Ground::files(&[("a", "1\n")]);
    let worktree = ground.worktree(1).await;
    sh(
        &worktree.tree,
        "for i in $(seq 220); do mkdir d; cd d; done; echo x >deep",
    );
    let error = ground
        .work
        .snapshot(&ground.project(), &worktree)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Budget);
    assert!(worktree.tree.join("d").is_dir());
    ground.work.discard(&ground.project(), worktree).await;
    ground.work.close().await;
    let trash = ground.dir.path().join("work/trash");
    assert_eq!(fs::read_dir(trash).unwrap().count(), 0);
}

#[tokio::test]
async fn links_are_recorded_and_never_followed() {
    let ground = Ground::files(&[("dir/file", "1\n"), ("a", "1\n")]);
    let secret = ground.dir.path().join("secret");
    write(&secret.join("file"), "TOP SECRET\n");
    let worktree = ground.worktree(1).await;
    fs::remove_dir_all(worktree.tree.join("dir")).unwrap();
    symlink(&secret, worktree.tree.join("dir")).unwrap();
    fs::remove_file(worktree.tree.join("a")).unwrap();
    symlink(secret.join("file"), worktree.tree.join("a")).unwrap();
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(rows(&snapshot), ["edit a", "create dir", "delete dir/file"]);
    let shown = format!("{:?}", snapshot.files);
    assert!(!shown.contains("TOP SECRET"), "{shown}");
}

#[tokio::test]
async fn submodules_stay_as_they_were() {
    let ground = Ground::files(&[("a", "1\n")]);
    let commit = ground.rev("HEAD");
    git(
        &ground.repo,
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{commit},sub"),
        ],
    );
    git(&ground.repo, &["commit", "-qm", "submodule"]);
    let untouched = ground.attempt(1, "true").await;
    assert_eq!(rows(&untouched), Vec::<String>::new());
    let filled = ground.attempt(2, "echo x >sub/file").await;
    assert_eq!(rows(&filled), Vec::<String>::new());
    assert_eq!(filled.notices.len(), 1);
    let removed = ground.attempt(3, "rmdir sub").await;
    assert_eq!(rows(&removed), ["delete sub"]);
    assert_eq!(removed.files[0].kind, FileKind::Submodule);
}

#[tokio::test]
async fn files_of_the_operator_are_not_part_of_the_change() {
    let mut ground = Ground::with(HooksPolicy::Allowed);
    write(&ground.repo.join("a"), "1\n");
    write(&ground.repo.join("lock"), "1\n");
    ground.commit("base");
    write(&ground.repo.join(".env"), "KEY=1\n");
    write(&ground.repo.join("conf/local.toml"), "x = 1\n");
    write(&ground.repo.join("conf/other.txt"), "no\n");
    let mut project = ground.project();
    project.copy_files = vec![".env".to_owned(), "conf/*.toml".to_owned()];
    project.setup =
        Some("echo made >generated; echo 2 >lock; test -n \"$DISPATCH_TASK\"".to_owned());
    let cancel = CancellationToken::new();
    let worktree = ground
        .work
        .create(&project, key(1), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    assert_eq!(
        fs::read_to_string(worktree.tree.join(".env")).unwrap(),
        "KEY=1\n"
    );
    assert!(worktree.tree.join("conf/local.toml").exists());
    assert!(!worktree.tree.join("conf/other.txt").exists());
    let untouched = ground.work.snapshot(&project, &worktree).await.unwrap();
    assert_eq!(rows(&untouched), Vec::<String>::new());
    write(&worktree.tree.join("conf/local.toml"), "x = 2\n");
    write(&worktree.tree.join("lock"), "3\n");
    let changed = ground.work.snapshot(&project, &worktree).await.unwrap();
    assert_eq!(rows(&changed), ["create conf/local.toml", "edit lock"]);

    project.copy_files = vec!["../secret".to_owned()];
    let error = ground
        .work
        .create(&project, key(2), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Workspace);
    project.copy_files.clear();
    project.setup = Some("echo no such tool >&2; exit 3".to_owned());
    let error = ground
        .work
        .create(&project, key(3), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap_err();
    assert!(error.message.contains("no such tool"), "{error}");
    assert!(!ground.dir.path().join("work/worktrees/t3-a1-1003").exists());
    ground.work = dispatch_worker::workspace::Workspaces::open(
        ground.dir.path().join("work"),
        HooksPolicy::Off,
    )
    .unwrap();
    assert!(
        ground
            .work
            .create(&project, key(4), None, Start::Tip, &Means::NONE, &cancel)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_list_of_submodules_never_becomes_a_link() {
    let ground = Ground::files(&[(".gitmodules", "[submodule \"x\"]\n"), ("a", "1\n")]);
    let snapshot = ground
        .attempt(1, "ln -sf /etc/passwd .gitmodules; echo 2 >a")
        .await;
    assert_eq!(rows(&snapshot), ["edit a"]);
    assert!(snapshot.notices[0].starts_with(".gitmodules became a link"));
}

#[tokio::test]
async fn more_notices_than_a_person_reads_are_counted() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground
        .attempt(1, "for n in $(seq 130); do mkfifo p$n; done")
        .await;
    assert_eq!(snapshot.notices.len(), 101);
    assert_eq!(snapshot.notices[100], "… and 30 more");
}
