//! Which repositories can be used; every refusal says what to do.

use dispatch_worker::sandbox::Means;
use std::path::Path;

use dispatch_worker::domain::error_class::ErrorClass;

use crate::harness::repo::{Ground, approve, git, rows, sh, try_git, write};

async fn refused(ground: &Ground, path: &Path, words: &str) {
    let mut project = ground.project();
    project.path = path.to_path_buf();
    let error = ground.work.check_project(&project).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Workspace, "{error}");
    assert!(error.message.contains(words), "{words:?} not in: {error}");
    assert!(error.message.contains("project demo"), "{error}");
}

#[tokio::test]
async fn what_is_no_usable_repository_is_refused_with_advice() {
    let ground = Ground::files(&[("a", "1\n"), ("sub/b", "1\n")]);
    let dir = ground.dir.path();
    refused(&ground, Path::new("relative"), "absolute").await;
    refused(&ground, &dir.join("missing"), "no such directory").await;
    std::fs::create_dir(dir.join("plain")).unwrap();
    refused(&ground, &dir.join("plain"), "git init").await;
    refused(&ground, &ground.repo.join("sub"), "root").await;
    git(dir, &["init", "-q", "-b", "main", "unborn"]);
    refused(&ground, &dir.join("unborn"), "first commit").await;
    if try_git(dir, &["init", "-q", "--object-format=sha256", "sha256"]).0 == Some(0) {
        git(
            &dir.join("sha256"),
            &["commit", "-q", "--allow-empty", "-m", "x"],
        );
        refused(&ground, &dir.join("sha256"), "SHA-256").await;
    }
    if try_git(dir, &["init", "-q", "--ref-format=reftable", "reftable"]).0 == Some(0) {
        git(
            &dir.join("reftable"),
            &["commit", "-q", "--allow-empty", "-m", "x"],
        );
        refused(&ground, &dir.join("reftable"), "git refs migrate").await;
    }
}

#[tokio::test]
async fn sparse_partial_and_filtered_repositories_are_refused_with_advice() {
    let ground = Ground::files(&[("a", "1\n"), ("sub/b", "1\n")]);
    let dir = ground.dir.path();
    git(dir, &["clone", "-q", "project", "sparse"]);
    git(&dir.join("sparse"), &["sparse-checkout", "set", "sub"]);
    refused(&ground, &dir.join("sparse"), "sparse-checkout disable").await;
    git(&dir.join("sparse"), &["sparse-checkout", "disable"]);
    let mut project = ground.project();
    project.path = dir.join("sparse");
    ground.work.check_project(&project).await.unwrap();

    git(&ground.repo, &["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", ground.repo.display());
    git(dir, &["clone", "-q", "--filter=blob:none", &url, "partial"]);
    refused(&ground, &dir.join("partial"), "partial clone").await;

    git(&ground.repo, &["checkout", "-q", "--detach"]);
    refused(&ground, &ground.repo, "detached").await;
    git(&ground.repo, &["checkout", "-q", "main"]);
    write(
        &ground.repo.join("sub/.gitattributes"),
        "*.bin filter=lfs diff=lfs -text\n",
    );
    ground.commit("lfs");
    refused(&ground, &ground.repo, "\"lfs\"").await;
}

#[tokio::test]
async fn the_target_branch_can_be_named_and_need_not_be_checked_out() {
    let ground = Ground::files(&[("a", "1\n")]);
    git(&ground.repo, &["branch", "results"]);
    let main = ground.rev("main");
    let mut project = ground.project();
    project.target_ref = Some("results".to_owned());
    let check = ground.work.check_project(&project).await.unwrap();
    assert_eq!(check.target_ref, "refs/heads/results");
    assert_eq!(check.tip, main);
    let snapshot = ground.attempt(1, "echo 2 >a").await;
    ground
        .work
        .apply(&project, approve(1, &snapshot))
        .await
        .unwrap();
    assert_eq!(ground.rev("main"), main);
    assert_eq!(ground.show("results:a"), "2");
    for bad in ["../x", "refs/tags/v1", "a..b", "-x y"] {
        project.target_ref = Some(bad.to_owned());
        assert!(ground.work.check_project(&project).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn bare_shallow_and_linked_repositories_work() {
    let ground = Ground::files(&[("a", "1\n")]);
    write(&ground.repo.join("a"), "2\n");
    ground.commit("second");
    let dir = ground.dir.path();
    git(dir, &["clone", "-q", "--bare", "project", "bare"]);
    let url = format!("file://{}", ground.repo.display());
    git(dir, &["clone", "-q", "--depth=1", &url, "shallow"]);
    git(
        &ground.repo,
        &["worktree", "add", "-q", "-b", "linked", "../linked"],
    );
    for (n, name) in ["bare", "shallow", "linked"].into_iter().enumerate() {
        let mut project = ground.project();
        project.path = dir.join(name);
        project.name = name.to_owned();
        let check = ground.work.check_project(&project).await.unwrap();
        assert_eq!(check.shallow, name == "shallow");
        let cancel = tokio_util::sync::CancellationToken::new();
        let start = dispatch_worker::workspace::Start::Tip;
        let key = crate::harness::repo::key(n as i64);
        let worktree = ground
            .work
            .create(&project, key, None, start, &Means::NONE, &cancel)
            .await
            .unwrap();
        sh(
            &worktree.tree,
            "git log >/dev/null; git fsck; echo 3 >a; git commit -qam three",
        );
        let snapshot = ground.work.snapshot(&project, &worktree).await.unwrap();
        assert_eq!(rows(&snapshot), ["edit a"]);
        ground
            .work
            .apply(&project, approve(1, &snapshot))
            .await
            .unwrap();
        let branch = if name == "linked" {
            "linked:a"
        } else {
            "main:a"
        };
        assert_eq!(git(&project.path, &["show", branch]), "3");
        git(&project.path, &["fsck", "--strict"]);
    }
}
