//! What only a worker can find out: previews, files, checks of projects; and workers at rest.

use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::ops::{self, OpContext, OpError};
use dispatch_worker::store::claims::{self, Demand, Look, LowWaterMarks};
use serde_json::{Value, json};

use crate::harness::desk::Desk;
use crate::harness::eventually;
use crate::harness::repo::{git, write as put};
use crate::harness::worker::{PATIENCE, Stage, agents, write};

/// An operation by its name, as whoever may do everything.
async fn ask(stage: &Stage, name: &str, input: Value) -> Result<Value, OpError> {
    let (context, _listener) = OpContext::open(&stage.db.url(), 2, "ada".to_owned())?;
    (ops::find(name).unwrap().call)(&context, input).await
}

/// A change of two files, and its worker.
async fn changed(stage: &Stage) -> i64 {
    let script = json!([
        write("a.txt", "ONE\ntwo\nthree\n"),
        write("new.txt", "new\n")
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let id = stage.text("SELECT id FROM pending_changes").await;
    id.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_the_branch_would_get_and_moves_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let id = changed(&stage).await;
    let tip = stage.ground.rev("main");
    let refs = git(&stage.ground.repo, &["for-each-ref"]);
    let found = ask(&stage, "change.preview", json!({"id": id}))
        .await
        .unwrap();
    assert_eq!(
        (&found["outcome"], &found["target_ref"], &found["tip"]),
        (&json!("clean"), &json!("refs/heads/main"), &json!(tip))
    );
    let unified = found["unified"].as_str().unwrap();
    assert!(
        unified.contains("+ONE") && unified.contains("+new"),
        "{unified}"
    );
    let some = json!({"id": id, "files": ["new.txt"]});
    let found = ask(&stage, "change.preview", some).await.unwrap();
    let unified = found["unified"].as_str().unwrap();
    assert!(
        !unified.contains("ONE") && unified.contains("+new"),
        "{unified}"
    );
    // The branch goes on, in the same line.
    put(&stage.ground.repo.join("a.txt"), "uno\ntwo\nthree\n");
    stage.ground.commit("theirs");
    let found = ask(&stage, "change.preview", json!({"id": id}))
        .await
        .unwrap();
    assert_eq!(found["outcome"], "conflicts");
    assert_eq!(found["conflicts"][0]["path"], "a.txt");
    let text = found["conflicts"][0]["text"].as_str().unwrap();
    assert!(text.contains("uno\n=======\nONE\n"), "{text}");
    let unknown = json!({"id": id, "files": ["b.txt"]});
    let error = ask(&stage, "change.preview", unknown).await.unwrap_err();
    assert_eq!(error.code, "not_found");
    let now = git(&stage.ground.repo, &["for-each-ref"]);
    assert_eq!(
        refs.lines().count(),
        now.lines().count(),
        "no ref came or went"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_the_diff_of_a_change_are_told_whole() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let id = changed(&stage).await;
    let file = async |path: &str, side: &str| {
        let input = json!({"id": id, "path": path, "side": side});
        ask(&stage, "change.file", input).await.unwrap()
    };
    assert_eq!(file("a.txt", "after").await["text"], "ONE\ntwo\nthree\n");
    assert_eq!(file("a.txt", "before").await["text"], "one\ntwo\nthree\n");
    let missing = file("new.txt", "before").await;
    assert_eq!(
        (&missing["bytes"], &missing["text"]),
        (&Value::Null, &Value::Null)
    );
    let diff = ask(&stage, "change.diff", json!({"id": id})).await.unwrap();
    assert!(diff["unified"].as_str().unwrap().contains("-one\n+ONE\n"));
    let diff = ask(&stage, "change.diff", json!({"id": id, "form": "json"})).await;
    let diff = diff.unwrap();
    let hunk = &diff["files"][0]["hunks"][0];
    assert_eq!(
        (&hunk["old_start"], &hunk["lines"][0], &hunk["lines"][1]),
        (&json!(1), &json!("-one"), &json!("+ONE"))
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_live_worker_says_whether_it_can_work_in_a_project() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let good = ask(&stage, "project.check", json!({"name": "p"}))
        .await
        .unwrap();
    assert_eq!(good["verdict"], "ok", "{good}");
    let set = "UPDATE projects SET path = '/nowhere'";
    stage.sql.execute(set, &[]).await.unwrap();
    let bad = ask(&stage, "project.check", json!({"name": "p"}))
        .await
        .unwrap();
    assert_eq!(bad["verdict"], "fail", "{bad}");
    let told = bad["data"][0]["found"].as_str().unwrap();
    assert!(told.contains("there is no such directory"), "{told}");
    worker.stop().await;
    let nobody = ask(&stage, "project.check", json!({"name": "p"}))
        .await
        .unwrap();
    assert_eq!(nobody["verdict"], "fail");
    assert_eq!(nobody["data"][0]["found"], "none is live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_one_worker_cannot_answer_goes_to_the_next() {
    let stage = Stage::new().await;
    let first = stage.worker().await;
    let id = changed(&stage).await;
    first.stop().await;
    // One that sees nothing at the project's path, and says so at once.
    let gone = "UPDATE projects SET path = '/nowhere'";
    stage.sql.execute(gone, &[]).await.unwrap();
    let asked = "SELECT ask_workers(jsonb_build_object('kind', 'preview', 'change', $1::bigint))";
    let question: i64 = stage.sql.query_one(asked, &[&id]).await.unwrap().get(0);
    let blind = stage.worker().await;
    let declined = format!("SELECT cardinality(declined) = 1 FROM lookups WHERE id = {question}");
    stage.holds("it declines", &declined).await;
    let open = format!("SELECT answered_at IS NULL FROM lookups WHERE id = {question}");
    stage.holds("it stays open for another", &open).await;
    blind.stop().await;
    let back = "UPDATE projects SET path = $1";
    let path = stage.ground.repo.to_str().unwrap();
    stage.sql.execute(back, &[&path]).await.unwrap();
    let sees = stage.worker().await;
    let answered = format!("SELECT answered_at IS NOT NULL FROM lookups WHERE id = {question}");
    stage.holds("the next one answers", &answered).await;
    let outcome = "SELECT answer -> 'preview' ->> 'outcome' FROM lookups";
    assert_eq!(stage.text(outcome).await, "clean");
    sees.stop().await;
}

#[tokio::test]
async fn a_worker_takes_nothing_from_the_moment_it_is_drained_and_not_from_its_next_heartbeat() {
    let desk = Desk::new().await;
    let worker = WorkerId::fresh();
    let register = "INSERT INTO workers (id, name, version, slots) VALUES ($1, 'w', '1', 1)";
    desk.sql.execute(register, &[&worker.0]).await.unwrap();
    let task = desk.task().await;
    let claim = async || {
        let demand = [Demand {
            agent: "a".to_owned(),
            free: 1,
        }];
        let marks = LowWaterMarks::default();
        let claimed = claims::claim(&desk.store, worker, &demand, 1, Look::All, &marks).await;
        let claimed = claimed.unwrap().into_iter();
        claimed.map(|one| one.lease.task().0).collect::<Vec<_>>()
    };
    desk.text(&format!("SELECT drain_worker('{}')", worker.0))
        .await;
    assert!(claim().await.is_empty());
    desk.text(&format!("SELECT resume_worker('{}')", worker.0))
        .await;
    assert_eq!(claim().await, [task]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_and_takes_nothing_until_it_is_resumed() {
    let stage = Stage::new().await;
    let agents = agents();
    let worker = stage.worker_with(&agents, |settings| settings.name = "rest".to_owned());
    let worker = worker.await;
    let gates = crate::harness::worker::gates();
    let gate = gates.path().join("go");
    let running = json!([{ "say": "working" }, { "wait_for": gate }, write("b.txt", "b\n")]);
    let running = stage.speaking("acp", &running).await;
    let told = ask(&stage, "worker.drain", json!({"worker": "rest"}))
        .await
        .unwrap();
    assert_eq!(
        (&told["news"], &told["status"]),
        (&json!(true), &json!("draining"))
    );
    let withdrawn = "SELECT bool_and(status <> 'ready') FROM agent_offers";
    stage.holds("it offers nothing", withdrawn).await;
    let waits = stage.submit("acp", &json!([{ "say": "later" }])).await;
    std::fs::write(&gate, "").unwrap();
    stage.reaches(running, "completed").await;
    let again = ask(&stage, "worker.drain", json!({"worker": "rest"}))
        .await
        .unwrap();
    assert_eq!(
        (&again["news"], &again["status"]),
        (&json!(false), &json!("drained"))
    );
    assert_eq!(
        stage.status(waits, "state").await.as_deref(),
        Some("pending")
    );
    let told = ask(&stage, "worker.resume", json!({"worker": "rest"}))
        .await
        .unwrap();
    assert_eq!(
        (&told["news"], &told["status"]),
        (&json!(true), &json!("live"))
    );
    stage.reaches(waits, "completed").await;
    let audit = "SELECT string_agg(actor || ' ' || action || ' ' || subject, ', ' ORDER BY id) FROM audit_log \
                 WHERE action LIKE 'worker.%'";
    eventually("both acts are recorded", PATIENCE, || async {
        stage.text(audit).await == "ada worker.drain worker rest, ada worker.resume worker rest"
    })
    .await;
    let unknown = ask(&stage, "worker.drain", json!({"worker": "nobody"})).await;
    assert_eq!(unknown.unwrap_err().code, "not_found");
    worker.stop().await;
}
