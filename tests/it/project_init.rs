//! `dispatch init` in, below and outside of repositories; and what lists say that are empty.

use std::path::Path;

use serde_json::Value;

use crate::harness::db::TestDb;
use crate::harness::program::Program;
use crate::harness::repo::{git, try_git, write};

fn at(dir: &Path, url: &str, args: &[&str]) -> (Option<i32>, String) {
    Program::run_in(dir, args, &[("DATABASE_URL", url)])
}

/// A repository on `main` with one commit.
fn repository(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q", "-b", "main"]);
    write(&dir.join(".gitignore"), ".env\nlocal/\n*.log\n");
    write(&dir.join("src/a.rs"), "1\n");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", "base"]);
}

#[tokio::test]
async fn a_repository_becomes_a_project_once_from_wherever_in_it() {
    let db = TestDb::new().await;
    let (url, sql) = (db.url(), db.client().await);
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("My Shop");
    repository(&shop);
    write(&shop.join(".env"), "KEY=1\n");
    write(&shop.join("x.log"), "\n");
    write(&shop.join("src/a.rs"), "2\n");
    let (code, said) = at(&shop.join("src"), &url, &["init"]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "Project my-shop is added",
        "refs/heads/main at ",
        "2 files, 1 MiB",
        "1 files",
        "commit what they need",
        ".env",
        "--copy FILE",
        "none: results stay",
        "dispatch submit my-shop",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("x.log"), "{said}");
    let all = "SELECT string_agg(concat_ws(' ', name, path, target_ref, copy_files), ';' ORDER BY name) FROM projects";
    let rows = || async { sql.query_one(all, &[]).await.unwrap().get::<_, String>(0) };
    let top = shop.canonicalize().unwrap().display().to_string();
    assert_eq!(rows().await, format!("my-shop {top} {{}}"));
    // Again: nothing changes, whatever else is named.
    let (code, said) = at(&shop, &url, &["init", "--copy", ".env", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&told["added"], &told["project"]["name"]),
        (&false.into(), &"my-shop".into())
    );
    assert_eq!(rows().await, format!("my-shop {top} {{}}"));
    // Another repository of that name says how to go on.
    let other = dir.path().join("other/my-shop");
    repository(&other);
    git(&other, &["remote", "add", "up\u{9b}31m", "/nowhere"]);
    let (code, said) = at(&other, &url, &["init"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("dispatch init NAME"), "{said}");
    let settings = [
        "init",
        "shop",
        "--target",
        "refs/heads/main",
        "--copy",
        ".env",
    ];
    let (code, said) = at(&other, &url, &settings);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("up<U+009B>31m"), "{said}");
    assert!(rows().await.contains("refs/heads/main {.env}"));
}

#[tokio::test]
async fn what_no_agent_can_work_in_becomes_no_project() {
    let db = TestDb::new().await;
    let (url, sql) = (db.url(), db.client().await);
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = at(dir.path(), &url, &["init"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not inside of a git repository"), "{said}");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q", "-b", "main"]);
    let (code, said) = at(&empty, &url, &["init"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("make a first commit"), "{said}");
    let shop = dir.path().join("shop");
    repository(&shop);
    let (code, said) = at(&shop, &url, &["init", "--target", "release"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("refs/heads/release has no commit"), "{said}");
    let (_, _) = try_git(&shop, &["checkout", "-q", "--detach"]);
    let (code, said) = at(&shop, &url, &["init"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("detached"), "{said}");
    let count: i64 = sql
        .query_one("SELECT count(*) FROM projects", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 0);
}

#[tokio::test]
async fn an_empty_list_says_what_would_be_there_and_what_makes_it() {
    let db = TestDb::new().await;
    let url = db.url();
    let lists = [
        ("list", "dispatch submit"),
        ("tasks", "dispatch submit"),
        ("conversations", "dispatch submit"),
        ("changes", "dispatch submit"),
        ("permissions", "agents.toml"),
        ("agents", "dispatch worker"),
        ("projects", "dispatch init"),
        ("workers", "dispatch worker"),
        ("providers", "is paused"),
        ("tokens", "dispatch tokens create"),
    ];
    let environment = [("DATABASE_URL", url.as_str())];
    for (list, way) in lists {
        let words: Vec<&str> = list.split(' ').collect();
        let (code, said) = Program::run(&words, &environment);
        assert_eq!(code, Some(0), "{list}: {said}");
        assert!(
            said.contains(way) && said.lines().count() == 1,
            "{list}: {said}"
        );
    }
    let task = "INSERT INTO projects (name, path) VALUES ('p', '/nowhere');
                INSERT INTO tasks (project, input, agent) VALUES ('p', 'x', 'a')";
    db.client().await.batch_execute(task).await.unwrap();
    for (list, way) in [
        ("messages", "dispatch send"),
        ("steps", "No requests to a model"),
    ] {
        let (code, said) = Program::run(&[list, "1"], &environment);
        assert_eq!(code, Some(0), "{list}: {said}");
        assert!(said.contains(way), "{list}: {said}");
    }
    let offered = "INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at)
                   VALUES (gen_random_uuid(), 'a', 'ready', 'acp', now() + interval '1 hour')";
    db.client().await.batch_execute(offered).await.unwrap();
    let (_, said) = Program::run(&["list", "--attention"], &environment);
    assert_eq!(said.trim(), "Nothing waits for a person.");
    // A list that is only narrowed says that there may be more.
    for args in [
        &["list", "--state", "failed"][..],
        &["changes", "list", "--state", "pending"],
    ] {
        let (_, said) = Program::run(args, &environment);
        assert!(said.starts_with("Nothing fits"), "{said}");
    }
    // What somebody got wrong is one sentence and a way out.
    for args in [
        &["show", "70"][..],
        &["changes", "show", "7"],
        &["review", "x"],
        &["projects", "show", "none"],
        &["submit", "none", "x"],
    ] {
        let (code, said) = Program::run(args, &environment);
        assert!(!matches!(code, Some(0 | 1) | None), "{args:?}: {said}");
        assert!(
            said.contains("error:") && !said.contains("panicked"),
            "{said}"
        );
        assert!(!said.contains("stack backtrace"), "{said}");
    }
}
