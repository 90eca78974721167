//! What a hostile patch would do to whoever applies it, as the files that an agent can leave. A
//! change is never applied as a patch: nothing lands outside of the repository or in its `.git`,
//! and what was approved is what is there.

use std::fs;

use dispatch_worker::workspace::Applied;

use crate::harness::repo::{Ground, approve, git, rows, sh};

/// What becomes of it.
enum Then {
    /// The path is left out of the change, with a notice that holds this.
    LeftOut(&'static str),
    /// The change has this row, and applies.
    Row(&'static str),
    /// There is nothing to change.
    Nothing,
}
use Then::{LeftOut, Nothing, Row};

/// Name, script run in the worktree, outcome. The project has `f.txt` and a tracked link `pre` to a
/// directory outside of it ($OUT).
const ATTACKS: &[(&str, &str, Then)] = &[
    (
        "dotdot",
        "mkdir -p a; echo EVIL >a/../../out-of-tree",
        Nothing,
    ),
    (
        "dotgit_case",
        "mkdir -p .GIT/hooks; echo EVIL >.GIT/hooks/post-checkout",
        LeftOut(".GIT"),
    ),
    (
        "dotgit_ntfs83",
        "mkdir -p 'git~1/hooks'; echo EVIL >'git~1/hooks/post-checkout'",
        LeftOut("git~1"),
    ),
    (
        "dotgit_trailing_dot",
        "mkdir -p .git./hooks; echo EVIL >.git./hooks/x",
        LeftOut(".git."),
    ),
    (
        "dotgit_hfs",
        "d=$(printf '.g\\342\\200\\214it'); mkdir -p \"$d/hooks\"; echo EVIL >\"$d/hooks/x\"",
        LeftOut("hooks/x"),
    ),
    (
        "dotgit_stream",
        "mkdir -p '.git::$INDEX_ALLOCATION'; echo EVIL >'.git::$INDEX_ALLOCATION/x'",
        LeftOut("INDEX_ALLOCATION"),
    ),
    (
        "nested_dotgit",
        "mkdir -p sub/.git/hooks; echo EVIL >sub/.git/hooks/post-checkout",
        Nothing,
    ),
    (
        "symlink_then_write",
        "ln -s $OUT lnk; rm lnk; mkdir lnk; echo EVIL >lnk/x",
        Row("create lnk/x"),
    ),
    ("symlink_outside", "ln -s $OUT lnk", Row("create lnk")),
    (
        "preexisting_symlink_replaced",
        "rm pre; mkdir pre; echo EVIL >pre/x",
        Row("create pre/x"),
    ),
    ("write_through_symlink", "echo EVIL >pre/x", Nothing),
    (
        "gitmodules_symlink",
        "ln -s ../out/x .gitmodules",
        LeftOut(".gitmodules"),
    ),
    ("setuid", "echo EVIL >f2; chmod 4755 f2", Row("create f2")),
    (
        "file_to_directory",
        "rm f.txt; mkdir f.txt; echo EVIL >f.txt/x",
        Row("create f.txt/x"),
    ),
    ("case_collision", "echo EVIL >F.TXT", LeftOut("F.TXT")),
    ("backslash", "echo EVIL >'..\\out\\x'", LeftOut("out")),
    (
        "control_character",
        "echo EVIL >\"$(printf 'a\\033[2Jb')\"",
        LeftOut("2Jb"),
    ),
];

#[tokio::test]
async fn no_change_writes_outside_of_the_repository_or_into_its_git_directory() {
    for (name, script, then) in ATTACKS {
        let ground = Ground::files(&[("f.txt", "one\n")]);
        let out = ground.dir.path().join("out");
        fs::create_dir(&out).unwrap();
        sh(&ground.repo, &format!("ln -s {} pre", out.display()));
        ground.commit("a link to elsewhere");
        let hooks = sh(&ground.repo, "ls .git/hooks");
        let config = fs::read(ground.repo.join(".git/config")).unwrap();
        let worktree = ground.worktree(1).await;
        // What the agent does on its own reaches what its user reaches: the sandbox's part.
        sh(
            &worktree.tree,
            &format!("OUT={}; {script}; true", out.display()),
        );
        sh(&out, "rm -f x");
        let snapshot = ground.snapshot(&worktree).await;
        let shown = rows(&snapshot);
        match then {
            LeftOut(path) => {
                assert_eq!(shown, Vec::<String>::new(), "{name}");
                let notices = snapshot.notices.join("\n");
                assert!(notices.contains(path), "{name}: {notices:?}");
                continue;
            }
            Nothing => {
                assert_eq!(shown, Vec::<String>::new(), "{name}");
                continue;
            }
            Row(row) => assert!(shown.iter().any(|r| r == row), "{name}: {shown:?}"),
        }
        let applied = ground
            .work
            .apply(&ground.project(), approve(1, &snapshot))
            .await;
        assert!(
            matches!(applied, Ok(Applied::Done { .. })),
            "{name}: {applied:?}"
        );
        assert_eq!(
            git(&ground.repo, &["rev-parse", "main^{tree}"]),
            snapshot.result_tree,
            "{name}"
        );
        // The user takes it.
        git(&ground.repo, &["reset", "-q", "--hard"]);
        assert_eq!(sh(&out, "ls -A"), "", "{name}: written outside");
        assert_eq!(sh(&ground.repo, "ls .git/hooks"), hooks, "{name}");
        assert_eq!(
            fs::read(ground.repo.join(".git/config")).unwrap(),
            config,
            "{name}"
        );
        let modes = git(&ground.repo, &["ls-tree", "-r", "main"]);
        assert!(!modes.contains("104755"), "{name}: {modes}");
        git(&ground.repo, &["fsck", "--strict"]);
    }
}
