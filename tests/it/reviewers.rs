//! Several reviewers at once, and applications that are interrupted or meet a branch that moved.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::store::{Store, applies};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::harness::proxy::{Cut, Proxy};
use crate::harness::repo::{git, write as put};
use crate::harness::worker::{Stage, TestWorker, agents, write};

/// A task's change that waits for a decision; its id.
async fn change(stage: &Stage, file: &str, text: &str) -> i64 {
    let task = stage.submit("acp", &json!([write(file, text)])).await;
    stage.reaches(task, "completed").await;
    let query = "SELECT id FROM pending_changes WHERE task_id = $1";
    stage.sql.query_one(query, &[&task]).await.unwrap().get(0)
}

async fn approve(stage: &Stage, change: i64) {
    let approve = "SELECT approve_change(id, digest) FROM pending_changes WHERE id = $1";
    stage.sql.query(approve, &[&change]).await.unwrap();
}

async fn becomes(stage: &Stage, change: i64, state: &str) {
    let query = format!("SELECT state = '{state}' FROM pending_changes WHERE id = {change}");
    stage
        .holds(&format!("change {change} is {state}"), &query)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_change_is_undone_unless_work_stands_on_it() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let tip = || stage.ground.rev("main");
    let before = tip();
    let first = change(&stage, "a.txt", "x\n").await;
    let early = "SELECT undo_change($1)";
    let error = stage.sql.query(early, &[&first]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(
        error.message().contains("is pending, not applied"),
        "{error}"
    );
    approve(&stage, first).await;
    becomes(&stage, first, "applied").await;
    assert_ne!(tip(), before);
    let undo = "SELECT undo_change($1, 'broke the build', 'ada')";
    stage.sql.query(undo, &[&first]).await.unwrap();
    becomes(&stage, first, "undone").await;
    assert_eq!(tip(), before);

    let second = change(&stage, "b.txt", "x\n").await;
    approve(&stage, second).await;
    becomes(&stage, second, "applied").await;
    let third = change(&stage, "c.txt", "x\n").await;
    approve(&stage, third).await;
    becomes(&stage, third, "applied").await;
    let later = tip();
    stage.sql.query(undo, &[&second]).await.unwrap();
    let told = format!(
        "SELECT apply_error LIKE '%git revert%' AND state = 'applied' AND undo_asked_at IS NULL \
         FROM pending_changes WHERE id = {second}"
    );
    stage.holds("the wish is refused", &told).await;
    assert_eq!(tip(), later, "nothing moved");
    let kinds = |stream: Vec<(String, serde_json::Value)>| -> Vec<String> {
        stream
            .into_iter()
            .map(|(kind, _)| kind)
            .filter(|kind| kind.starts_with("change_"))
            .collect()
    };
    let task = |change: i64| format!("SELECT task_id FROM pending_changes WHERE id = {change}");
    let of_first: i64 = stage.text(&task(first)).await.parse().unwrap();
    let of_second: i64 = stage.text(&task(second)).await.parse().unwrap();
    assert_eq!(
        kinds(stage.stream(of_first).await),
        [
            "change_ready",
            "change_approved",
            "change_applied",
            "change_undo_asked",
            "change_undone"
        ]
    );
    assert_eq!(
        kinds(stage.stream(of_second).await).last().unwrap(),
        "change_undo_refused"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_reviewers_at_once_one_decides() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let mut changes = Vec::new();
    for n in 0..3 {
        changes.push(change(&stage, &format!("{n}.txt"), "x\n").await);
    }
    // Nobody applies while we count.
    worker.stop().await;
    // All approve; approve or reject; all reject.
    for (n, change) in changes.into_iter().enumerate() {
        let start = Arc::new(Barrier::new(20));
        let mut reviewers = JoinSet::new();
        for reviewer in 0..20 {
            let (client, start) = (stage.db.client().await, start.clone());
            let rejects = n == 2 || (n == 1 && reviewer % 2 == 0);
            reviewers.spawn(async move {
                start.wait().await;
                let actor = format!("reviewer {reviewer}");
                let decision = if rejects {
                    "SELECT reject_change(id, 'no', $2) FROM pending_changes WHERE id = $1"
                } else {
                    "SELECT approve_change(id, digest, NULL, $2) FROM pending_changes WHERE id = $1"
                };
                client.query(decision, &[&change, &actor]).await.map(|_| ())
            });
        }
        let mut decided = 0;
        while let Some(done) = reviewers.join_next().await {
            match done.unwrap() {
                Ok(()) => decided += 1,
                Err(error) => {
                    let error = error.as_db_error().unwrap().clone();
                    assert_eq!(error.code().code(), "55000", "{error}");
                    assert!(error.message().contains("is already"), "{error}");
                }
            }
        }
        // Whoever rejects takes back what somebody approved a moment before.
        let stories: &[&str] = match n {
            0 => &["approved"],
            1 => &["rejected", "approved rejected"],
            _ => &["rejected"],
        };
        let story = format!(
            "SELECT string_agg(verdict, ' ' ORDER BY id) FROM reviews WHERE change_id = {change}"
        );
        let story = stage.text(&story).await;
        assert!(stories.contains(&story.as_str()), "{story}");
        assert_eq!(decided, story.split(' ').count());
        let agree = format!(
            "SELECT r.verdict = c.state AND r.actor = c.decided_by FROM reviews r \
             JOIN pending_changes c ON c.id = r.change_id WHERE c.id = {change} ORDER BY r.id DESC LIMIT 1"
        );
        assert_eq!(
            stage.text(&agree).await,
            "true",
            "the last one is the decision"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_change_that_cannot_be_applied_can_be_taken_back() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let change = change(&stage, "b.txt", "b\n").await;
    let sql = &stage.sql;
    sql.batch_execute("UPDATE projects SET path = '/nonexistent'")
        .await
        .unwrap();
    approve(&stage, change).await;
    stage
        .holds(
            "it cannot be applied",
            "SELECT apply_error IS NOT NULL FROM pending_changes",
        )
        .await;
    let reject = format!("SELECT reject_change({change}, 'the project is gone', 'ada') IS NULL");
    stage.text(&reject).await;
    let state = "SELECT state || ' ' || decided_by FROM pending_changes";
    assert_eq!(stage.text(state).await, "rejected ada");
    let files = "SELECT string_agg(DISTINCT state, ' ') FROM pending_change_files";
    assert_eq!(stage.text(files).await, "rejected");
    // Nobody tries it again.
    sql.batch_execute("UPDATE pending_changes SET apply_until = now(); SELECT pg_notify(dispatch_channel(), 'change 1')")
        .await
        .unwrap();
    let task = stage.text("SELECT task_id FROM pending_changes").await;
    stage
        .text(&format!("SELECT requeue_task({task}) IS NULL"))
        .await;
    let kinds: Vec<String> = stage
        .stream(task.parse().unwrap())
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert!(kinds.contains(&"change_rejected".to_owned()), "{kinds:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_somebody_applies_now_or_died_applying_cannot_be_taken_back() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let change = change(&stage, "b.txt", "b\n").await;
    worker.stop().await;
    approve(&stage, change).await;
    let store = Store::connect(&stage.db.url(), 1).unwrap();
    // A worker that says nothing more, at once or when its time is over.
    let claimed = applies::claim(&store, Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let reject = "SELECT reject_change($1)";
    let error = stage.sql.query(reject, &[&change]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55000", "{error}");
    assert_eq!(error.message(), format!("change {change} is being applied"));
    // While it says that it goes on, nobody else takes the change.
    let minute = Duration::from_secs(60);
    applies::renew(&store, &claimed, minute).await.unwrap();
    let taken = applies::claim(&store, minute).await.unwrap();
    assert!(taken.is_none(), "{taken:?}");
    // It cannot tell whether it moved the branch: nobody may reject what may be applied.
    let unknown = applies::mark_failed(&store, &claimed, "no", Duration::ZERO, false);
    unknown.await.unwrap();
    stage.sql.query(reject, &[&change]).await.unwrap_err();
    // An error is told before its transaction lets go of the row: its next answer comes after that.
    stage.text("SELECT 1").await;
    let resumed = applies::claim(&store, Duration::ZERO).await.unwrap();
    let resumed = resumed.unwrap();
    assert!(resumed.resumed && !claimed.resumed);
    // The next one knows that nothing came of it: now it can.
    let nothing = applies::mark_failed(&store, &resumed, "no", Duration::ZERO, true);
    nothing.await.unwrap();
    stage.sql.query(reject, &[&change]).await.unwrap();
    let late = applies::mark_applied(&store, &claimed, "refs/heads/main", "a", "b", "c");
    late.await.unwrap();
    assert_eq!(
        stage.text("SELECT state FROM pending_changes").await,
        "rejected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_died_after_moving_the_branch_is_finished_without_a_second_commit() {
    let stage = Stage::new().await;
    let proxy = Proxy::new(&stage.db.url()).await;
    let (through, direct) = (proxy.url().to_owned(), stage.db.url());
    let worker: TestWorker = stage
        .worker_with(&agents(), |settings| {
            settings.database_url = through;
            settings.listen_url = Some(direct);
        })
        .await;
    let change = change(&stage, "b.txt", "b\n").await;
    proxy.cut_at(Cut::Statement("SET state = 'applied'"));
    approve(&stage, change).await;
    let moved = || async { git(&stage.ground.repo, &["rev-list", "--count", "main"]) == "2" };
    crate::harness::eventually(
        "the branch has moved",
        crate::harness::worker::PATIENCE,
        moved,
    )
    .await;
    crate::harness::eventually(
        "the fact is lost",
        crate::harness::worker::PATIENCE,
        || async { proxy.has_cut() },
    )
    .await;
    let state = stage.text("SELECT state FROM pending_changes").await;
    assert_eq!(state, "approved");
    let tip = git(&stage.ground.repo, &["rev-parse", "main"]);
    // The time of the claim that died is over.
    stage
        .sql
        .batch_execute("UPDATE pending_changes SET apply_until = now(); SELECT pg_notify(dispatch_channel(), 'change 1')")
        .await
        .unwrap();
    becomes(&stage, change, "applied").await;
    assert_eq!(
        stage
            .text("SELECT applied_commit FROM pending_changes")
            .await,
        tip
    );
    assert_eq!(git(&stage.ground.repo, &["rev-parse", "main"]), tip);
    let told = stage
        .text("SELECT count(*) FROM events WHERE kind = 'change_applied'")
        .await;
    assert_eq!(told, "1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_moved_is_merged_with_or_the_conflict_is_shown_and_reviewed_again() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let repo = &stage.ground.repo;
    let beside = change(&stage, "b.txt", "b\n").await;
    let against = change(&stage, "a.txt", "one\nagent\nthree\n").await;
    put(&repo.join("a.txt"), "one\nperson\nthree\n");
    git(repo, &["commit", "-qam", "meanwhile"]);
    approve(&stage, beside).await;
    becomes(&stage, beside, "applied").await;
    assert_eq!(git(repo, &["show", "main:b.txt"]), "b");
    assert_eq!(git(repo, &["show", "main:a.txt"]), "one\nperson\nthree");
    let before = git(repo, &["rev-parse", "main"]);
    approve(&stage, against).await;
    becomes(&stage, against, "conflicted").await;
    assert_eq!(
        git(repo, &["rev-parse", "main"]),
        before,
        "nothing is forced"
    );
    let paths = format!("SELECT conflicts FROM pending_changes WHERE id = {against}");
    assert_eq!(stage.text(&paths).await, r#"["a.txt"]"#);
    // Somebody clears the way; the reviewer decides again.
    git(repo, &["reset", "-q", "--hard"]);
    put(&repo.join("a.txt"), "one\ntwo\nthree\n");
    git(repo, &["commit", "-qam", "clear the way"]);
    approve(&stage, against).await;
    becomes(&stage, against, "applied").await;
    assert_eq!(git(repo, &["show", "main:a.txt"]), "one\nagent\nthree");
    let reviews = format!("SELECT count(*) FROM reviews WHERE change_id = {against}");
    assert_eq!(stage.text(&reviews).await, "2");
    worker.stop().await;
}
