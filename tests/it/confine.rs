//! What an agent can do from inside a worktree to the worker, the reviewer or the project: nothing.
//! Each attack is made by a confined agent on each rung of the sandbox that works here, in private
//! and in linked worktrees, and by one without a sandbox that stays in its private worktree; then
//! the worker snapshots, applies, and makes the next worktree, and the user works in the project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dispatch_worker::domain::sandbox::Rung;
use dispatch_worker::sandbox::{Means, Places};
use dispatch_worker::workspace::{Applied, Start, Worktree, WorktreeMode};
use tokio_util::sync::CancellationToken;

use crate::harness::repo::{Ground, approve, executable, git, key, rows, sh, write};
use crate::harness::sandbox::{ground_sandbox, means_of, run_confined, working_rungs};

/// Name, script run as the agent in its tree ($E is a program that leaves a witness, $S a
/// directory with a secret), paths that must be in the change.
const ATTACKS: &[(&str, &str, &[&str])] = &[
    (
        "hook_postcheckout",
        "mkdir -p $G/hooks; cp $E $G/hooks/post-checkout",
        &[],
    ),
    (
        "hook_precommit",
        "mkdir -p $G/hooks; cp $E $G/hooks/pre-commit",
        &[],
    ),
    (
        "hook_reftx",
        "mkdir -p $G/hooks; cp $E $G/hooks/reference-transaction",
        &[],
    ),
    (
        "hook_postindex",
        "mkdir -p $G/hooks; cp $E $G/hooks/post-index-change",
        &[],
    ),
    (
        "cfg_hookspath",
        "mkdir hk; cp $E hk/post-checkout; cp $E hk/pre-commit; git config core.hooksPath $PWD/hk",
        &["hk/pre-commit"],
    ),
    ("cfg_fsmonitor", "git config core.fsmonitor $E", &[]),
    (
        "cfg_filter_clean",
        "git config filter.z.clean $E; echo '*.txt filter=z' >.gitattributes; echo two >f.txt",
        &["f.txt", ".gitattributes"],
    ),
    (
        "cfg_filter_infoattr",
        "git config filter.z.clean $E; git config filter.z.smudge $E; echo '*.txt filter=z' >$G/info/attributes; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "cfg_textconv",
        "git config diff.z.textconv $E; echo '*.txt diff=z' >.gitattributes; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "cfg_extdiff",
        "git config diff.external $E; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "cfg_diffdriver",
        "git config diff.z.command $E; echo '*.txt diff=z' >.gitattributes; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "cfg_mergedriver",
        "git config merge.z.driver \"$E %A\"; echo '*.txt merge=z' >.gitattributes; echo two >f.txt; git commit -qam t",
        &["f.txt"],
    ),
    (
        "cfg_gpg",
        "git config commit.gpgSign true; git config gpg.program $E",
        &[],
    ),
    (
        "cfg_worktree_cfg",
        "git config extensions.worktreeConfig true; git config --worktree core.fsmonitor $E",
        &[],
    ),
    (
        "cfg_include",
        "git config include.path $PWD/inc; printf '[core]\\n\\tfsmonitor = %s\\n' $E >inc",
        &["inc"],
    ),
    (
        "dotgit_file",
        "git init -q --bare .e; git -C .e config core.bare false; git -C .e config core.fsmonitor $E; git -C .e config core.worktree $PWD; rm -rf .git; echo \"gitdir: $PWD/.e\" >.git",
        &[],
    ),
    (
        "dotgit_dir",
        "rm -rf .git; git init -q .; git config core.fsmonitor $E",
        &[],
    ),
    (
        "core_worktree",
        "rm -rf .git; git init -q .; git config core.worktree $S",
        &[],
    ),
    (
        "dotgit_filter",
        "rm -rf .git; git init -q .; git config filter.z.clean $E; echo '*.txt filter=z' >.gitattributes; echo two >f.txt",
        &["f.txt"],
    ),
    ("dotgit_gone", "rm -rf .git; echo two >f.txt", &["f.txt"]),
    (
        "attr_binary",
        "echo '*.txt -diff' >.gitattributes; echo bad >f.txt",
        &["f.txt"],
    ),
    (
        "replace_obj",
        "echo benign >b; git replace $(git rev-parse HEAD:f.txt) $(git hash-object -w b); rm b; echo bad >f.txt",
        &["f.txt"],
    ),
    (
        "hide_exclude",
        "echo 'backdoor*' >>$G/info/exclude; echo bad >backdoor.sh",
        &["backdoor.sh"],
    ),
    (
        "hide_assume",
        "echo bad >f.txt; git update-index --assume-unchanged f.txt; git update-index --skip-worktree src/a.txt; echo bad >src/a.txt",
        &["f.txt", "src/a.txt"],
    ),
    (
        "hide_sparse",
        "git config core.sparseCheckout true; mkdir -p $G/info; echo '/src/' >$G/info/sparse-checkout; echo bad >f.txt",
        &["f.txt"],
    ),
    (
        "hide_index",
        "rm $(git rev-parse --git-dir)/index; git read-tree --empty; echo bad >f.txt",
        &["f.txt"],
    ),
    (
        "hide_mode",
        "echo bad >f.txt; chmod 000 f.txt src",
        &["f.txt"],
    ),
    (
        "move_main",
        "echo evil >f.txt; git commit -qam evil; git update-ref refs/heads/main HEAD",
        &["f.txt"],
    ),
    (
        "nested_bare",
        "mkdir docs; git init -q --bare docs/b; git -C docs/b config core.bare false; git -C docs/b config core.worktree ..; git -C docs/b config core.fsmonitor $E; touch docs/b/refs/x docs/b/objects/x",
        &[],
    ),
    (
        "nested_repo",
        "git init -q sub; git -C sub config core.fsmonitor $E; echo x >sub/file",
        &["sub/file"],
    ),
    (
        "alternates",
        "mkdir -p $S/objects; echo $S/objects >$G/objects/info/alternates; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "kill_sibling",
        "git worktree list --porcelain | sed -n 's/^worktree //p' | grep other | while read -r o; do git worktree remove --force \"$o\"; rm -rf \"$o\"; done; git worktree prune; echo two >f.txt",
        &["f.txt"],
    ),
    (
        "objects_gone",
        "rm -rf $G/objects/pack $G/objects/??; B=$(sed -n 1p $G/objects/info/alternates 2>/dev/null); rm -rf \"${B:-/nowhere}\"; echo two >f.txt",
        &["f.txt"],
    ),
    ("link_dir", "rm -rf src; ln -s $S src", &["src"]),
    ("link_git", "mv .git .real; ln -s $S .git", &[]),
    (
        "git_in_path",
        "cp $E git; cp $E sh; cp $E node; chmod +x git sh node",
        &["git", "sh", "node"],
    ),
];

/// How an attacker is held.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hold {
    mode: WorktreeMode,
    rung: Rung,
}

/// The rungs that work here, in both kinds of worktree; and the private worktree alone.
async fn holds() -> Vec<Hold> {
    let mut holds = vec![Hold {
        mode: WorktreeMode::Private,
        rung: Rung::None,
    }];
    for rung in working_rungs().await {
        for mode in [WorktreeMode::Private, WorktreeMode::Linked] {
            holds.push(Hold { mode, rung });
        }
    }
    holds
}

/// Run a script as the agent.
async fn act(ground: &Ground, hold: Hold, means: Means, worktree: &Worktree, script: &str) {
    if hold.rung == Rung::None {
        sh(&worktree.tree, script);
        return;
    }
    let sandbox = ground_sandbox(ground, hold.rung).await;
    let places = Places {
        tree: worktree.tree.clone(),
        home: worktree.home.clone(),
        tmp: worktree.tmp.clone(),
        read: worktree.lent(),
        ..Places::default()
    };
    run_confined(&sandbox, means, places, script).await;
}

/// Everything that the worker and the user do afterwards.
async fn work_on(ground: &Ground, name: &str, witness: &Path, hold: Hold) {
    let mut project = ground.project();
    project.mode = hold.mode;
    let means = means_of(ground, hold.rung).await;
    let cancel = CancellationToken::new();
    let made = ground
        .work
        .create(&project, key(1), None, Start::Tip, &means, &cancel);
    let worktree = made.await.unwrap();
    let other = ground.dir.path().join("other");
    git(
        &ground.repo,
        &[
            "worktree",
            "add",
            "-q",
            "-b",
            "other",
            other.to_str().unwrap(),
        ],
    );
    let name = &*format!("{name} {hold:?}");
    let attack = name.split(' ').next().unwrap();
    let evil = worktree.tree.join(".evil.sh");
    write(
        &evil,
        format!(
            "#!/bin/sh\necho \"$0\" >>{}\ncat 2>/dev/null || true\n",
            witness.display()
        ),
    );
    executable(&evil);
    let secret = ground.dir.path().join("secret");
    let (_, script, expected) = ATTACKS
        .iter()
        .find(|(known, _, _)| *known == attack)
        .unwrap();
    let setup = format!(
        "E={}; S={}; G=$(git rev-parse --git-common-dir); {script}",
        evil.display(),
        secret.display()
    );
    act(ground, hold, means, &worktree, &setup).await;
    // What the agent's own git ran is the agent's.
    write(witness, "");

    let snapshot = ground.work.snapshot(&project, &worktree).await.unwrap();
    let shown = rows(&snapshot);
    for path in *expected {
        assert!(
            snapshot
                .files
                .iter()
                .any(|file| file.path == path.as_bytes()),
            "{name}: {path} must be in {shown:?}"
        );
    }
    let text = format!("{snapshot:?}");
    assert!(
        !text.contains("TOPSECRET"),
        "{name}: a foreign file came in: {text}"
    );
    if let Some(file) = snapshot.files.iter().find(|file| file.path == b"f.txt") {
        let patch = file.patch.as_deref().unwrap();
        let blob = git(
            &ground.results(),
            &["cat-file", "blob", file.new_blob.as_deref().unwrap()],
        );
        assert!(
            patch.contains(&format!("-one\n+{blob}\n")),
            "{name}: {patch}"
        );
    }
    // Git obeys the configuration in a git directory, wherever it comes from.
    let nested = |path: &[u8]| path.starts_with(b"docs/b/");
    assert!(
        !snapshot.files.iter().any(|file| nested(&file.path)),
        "{name}: {shown:?}"
    );

    let before = ground.rev("main");
    assert_eq!(before, snapshot.base_commit, "{name}: main moved");
    let applied = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert!(matches!(applied, Applied::Done { .. }), "{name}");
    ground.work.discard(&project, worktree).await;
    assert_eq!(
        fs::read_to_string(witness).unwrap_or_default(),
        "",
        "{name}: the worker ran the agent's program"
    );
    // The user: brings the checkout up to date, looks, commits.
    git(&ground.repo, &["reset", "-q", "--hard"]);
    git(&ground.repo, &["status", "--short"]);
    // Prompts and editors ask git in whatever directory somebody is; one may be no work tree.
    sh(
        &ground.repo,
        "find . -name .git -prune -o -type d -print0 | \
         while read -r -d '' dir; do git -C \"$dir\" status --short || true; done",
    );
    git(&ground.repo, &["log", "-p", "-2"]);
    write(&ground.repo.join("user.txt"), "three\n");
    ground.commit("user");
    match ground
        .work
        .create(
            &ground.project(),
            key(2),
            None,
            Start::Tip,
            &Means::NONE,
            &cancel,
        )
        .await
    {
        Ok(next) => assert_eq!(
            rows(&ground.snapshot(&next).await),
            Vec::<String>::new(),
            "{name}"
        ),
        // Approved as it was, the attributes name a filter from now on: that is said, not run.
        Err(error) => assert!(
            script.contains("filter=z' >.gitattributes"),
            "{name}: {error}"
        ),
    }
    assert_eq!(
        fs::read_to_string(witness).unwrap_or_default(),
        "",
        "{name}: the user's git ran the agent's program"
    );
    assert_eq!(
        sh(&ground.repo, "find .git/hooks -type f ! -name '*.sample'"),
        "",
        "{name}"
    );
    git(&ground.repo, &["fsck", "--strict"]);
    assert!(other.join("f.txt").exists(), "{name}: a sibling is gone");
}

async fn attack(names: &[&str]) {
    for hold in holds().await {
        for name in names {
            // Without a sandbox nothing but its own good will keeps it off what it can reach.
            let needs_sandbox = ["objects_gone"].contains(name);
            if needs_sandbox && hold.rung == Rung::None {
                continue;
            }
            let ground = Ground::files(&[("f.txt", "one\n"), ("src/a.txt", "x\n")]);
            // Another user of this machine passes through, as to a worker's data directory.
            fs::set_permissions(ground.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
            write(&ground.dir.path().join("secret/key"), "TOPSECRET\n");
            write(&ground.dir.path().join("secret/a.txt"), "TOPSECRET\n");
            let witness = ground.dir.path().join("witness");
            write(&witness, "");
            fs::set_permissions(&witness, fs::Permissions::from_mode(0o666)).unwrap();
            work_on(&ground, name, &witness, hold).await;
        }
    }
}

fn named(prefix: &str) -> Vec<&'static str> {
    let names = ATTACKS.iter().map(|(name, _, _)| *name);
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[tokio::test]
async fn hooks_that_an_agent_plants_never_run_for_us() {
    attack(&named("hook_")).await;
}

#[tokio::test]
async fn configuration_that_an_agent_writes_is_never_ours() {
    attack(&named("cfg_")).await;
}

#[tokio::test]
async fn a_swapped_git_directory_changes_nothing() {
    attack(&named("dotgit_")).await;
    attack(&["core_worktree", "link_git", "alternates"]).await;
}

#[tokio::test]
async fn nothing_can_be_hidden_from_the_change() {
    attack(&named("hide_")).await;
    attack(&["attr_binary", "replace_obj"]).await;
}

#[tokio::test]
async fn refs_links_nested_repositories_and_planted_programs_do_no_harm() {
    attack(&named("nested_")).await;
    attack(&[
        "move_main",
        "link_dir",
        "git_in_path",
        "kill_sibling",
        "objects_gone",
    ])
    .await;
}

#[test]
fn every_attack_is_made() {
    let covered = ["hook_", "cfg_", "dotgit_", "hide_", "nested_"];
    let single = [
        "core_worktree",
        "link_git",
        "alternates",
        "attr_binary",
        "replace_obj",
        "move_main",
        "link_dir",
        "git_in_path",
        "kill_sibling",
        "objects_gone",
    ];
    for (name, _, _) in ATTACKS {
        assert!(
            single.contains(name) || covered.iter().any(|prefix| name.starts_with(prefix)),
            "{name} is not in a test"
        );
    }
}

#[tokio::test]
async fn agents_do_not_see_each_others_results() {
    let ground = Ground::files(&[("a", "1\n")]);
    let snapshot = ground.attempt(1, "echo confidential >b").await;
    let worktree = ground.worktree(2).await;
    let (code, _) =
        crate::harness::repo::try_git(&worktree.tree, &["cat-file", "-e", &snapshot.result_commit]);
    assert_ne!(code, Some(0));
}

#[tokio::test]
async fn linked_worktrees_are_for_trusted_projects_only() {
    let ground = Ground::files(&[("a", "1\n")]);
    let mut project = ground.project();
    project.mode = WorktreeMode::Linked;
    let cancel = CancellationToken::new();
    let refused = ground
        .work
        .create(&project, key(1), None, Start::Tip, &Means::NONE, &cancel)
        .await;
    assert!(refused.unwrap_err().message.contains("trusted"));
    project.trusted = true;
    let worktree = ground
        .work
        .create(&project, key(1), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    let listed = git(&ground.repo, &["worktree", "list", "--porcelain"]);
    assert!(listed.contains("locked"), "{listed}");
    sh(
        &worktree.tree,
        "git switch -q -c mine; echo 2 >a; git commit -qam two; echo 3 >b",
    );
    let snapshot = ground.work.snapshot(&project, &worktree).await.unwrap();
    assert_eq!(rows(&snapshot), ["edit a", "create b"]);
    let tree = worktree.tree.clone();
    ground.work.discard(&project, worktree).await;
    assert!(!tree.exists());
    let listed = git(&ground.repo, &["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 1, "{listed}");
    // A worker that died while making one leaves nothing listed either.
    let half = ground
        .work
        .create(&project, key(2), None, Start::Tip, &Means::NONE, &cancel)
        .await
        .unwrap();
    fs::remove_file(half.tree.parent().unwrap().join("meta.json")).unwrap();
    drop(half);
    assert_eq!(ground.work.leftovers().await, []);
    let listed = git(&ground.repo, &["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 1, "{listed}");
    let applied = ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert!(matches!(applied, Applied::Done { .. }));
}
