//! Agents that a worker tries when somebody asks: the host that is asked needs none.

use std::time::Duration;

use dispatch_worker::domain::lookup::Answer;
use dispatch_worker::ops::{self, OpContext, OpError};
use dispatch_worker::store::lookups::{self, Kind};
use serde_json::{Value, json};

use crate::agent_check::{acp, healthy};
use crate::harness::db::TestDb;
use crate::harness::eventually;
use crate::harness::program::processes_of;
use crate::harness::repo::git;
use crate::harness::worker::{FAKE, PATIENCE, Stage, gates, write};

/// An operation by its name, by somebody on a host without agents.
async fn ask(stage: &Stage, name: &str, input: Value) -> Result<Value, OpError> {
    let (context, _listener) = OpContext::open(&stage.db.url(), 2, "ada".to_owned())?;
    (ops::find(name).unwrap().call)(&context, input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_made_by_a_worker_which_offers_what_it_found_at_once() {
    let stage = Stage::new().await;
    let gates = gates();
    let program = gates.path().join("agent");
    let shown = program.display();
    let agents = format!(
        "[agents.late]\npath = \"acp\"\ncommand = [\"{shown}\", \"acp\"]\nversion_args = [\"--version\"]\n"
    );
    let worker = stage.worker_with(&agents, |_| {}).await;
    let offer = "SELECT status FROM agent_offers WHERE name = 'late'";
    stage
        .holds(
            "it was probed",
            "SELECT status = 'unavailable' FROM agent_offers",
        )
        .await;
    let found = ask(&stage, "agent.probe", json!({"name": "late"})).await;
    let found = found.unwrap();
    assert_eq!(
        (&found["status"], &found["worker"]),
        (&json!("unavailable"), &json!("test"))
    );
    assert!(found["error"].as_str().unwrap().contains("late"), "{found}");
    // Somebody installs it, and does not wait for the next look.
    std::fs::copy(FAKE, &program).unwrap();
    let found = ask(&stage, "agent.probe", json!({"name": "late"})).await;
    assert_eq!(found.unwrap()["status"], "ready");
    stage
        .holds("it is offered", &format!("SELECT ({offer}) = 'ready'"))
        .await;
    let acts = "SELECT string_agg(concat_ws(' ', actor, action, subject, detail ->> 'worker'), ',' ORDER BY id)
                  FROM audit_log WHERE action LIKE 'agent%'";
    let act = "ada agent.probe agent late test";
    assert_eq!(stage.text(acts).await, format!("{act},{act}"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_not_offered_whatever_its_path() {
    let stage = Stage::new().await;
    let agents = "[agents.off]\npath = \"noop\"\nenabled = false\n";
    let worker = stage.worker_with(agents, |_| {}).await;
    let said = "SELECT status = 'unavailable' AND error LIKE '%enabled = false%' FROM agent_offers";
    stage.holds("it is said why it is not offered", said).await;
    let found = ask(&stage, "agent.probe", json!({"name": "off"})).await;
    let found = found.unwrap();
    assert_eq!(
        (&found["status"], &found["commands"]),
        (&json!("unavailable"), &json!([]))
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_made_by_a_worker_and_leaves_nothing_there() {
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(&acp("fake", &healthy(), ""), |_| {})
        .await;
    let ready = "SELECT status = 'ready' FROM agent_offers";
    stage.holds("the agent is offered", ready).await;
    let found = ask(&stage, "agent.check", json!({"name": "fake"})).await;
    let found = found.unwrap();
    assert_eq!(found["verdict"], "ok", "{found}");
    let checks: Vec<&str> = found["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    assert_eq!((checks[0], checks.len()), ("worker", 11), "{checks:?}");
    assert_eq!(found["data"][0]["found"], "test");
    let input = json!({"name": "fake", "without_prompt": true, "worker": worker.id});
    let found = ask(&stage, "agent.check", input).await.unwrap();
    assert_eq!(found["data"].as_array().unwrap().len(), 6, "{found}");
    let tries = stage.data.path().join(format!("probes/try-{}", worker.id));
    let left = std::fs::read_dir(&tries).unwrap().count();
    assert_eq!(left, 0);
    worker.stop().await;
    assert!(!tries.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_check_keeps_no_preview_waiting_and_whoever_asks_again_joins_it() {
    let stage = Stage::new().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let mut setting = healthy();
    setting["by_words"]["make the file"] = json!([{"wait_for": gate}, {"end": "end_turn"}]);
    setting["by_words"]["edit"] = json!([write("a.txt", "ONE\n")]);
    let more = format!("readable = [{:?}]", gates.path());
    let worker = stage
        .worker_with(&acp("fake", &setting, &more), |_| {})
        .await;
    let task = stage.submit("fake", &json!("edit")).await;
    stage.reaches(task, "completed").await;
    let change: i64 = stage
        .text("SELECT id FROM pending_changes")
        .await
        .parse()
        .unwrap();
    let (context, _listener) = OpContext::open(&stage.db.url(), 2, "ada".to_owned()).unwrap();
    // As over HTTP, where nobody waits for minutes.
    let hasty = context.for_caller("ada".to_owned(), Duration::from_secs(5));
    let check = ops::find("agent.check").unwrap();
    for _ in 0..2 {
        let late = (check.call)(&hasty, json!({"name": "fake"})).await;
        let late = late.unwrap_err();
        assert_eq!(late.code, "no_answer");
        assert!(late.hint.unwrap().contains("Ask the same again"));
    }
    let seen = ask(&stage, "change.preview", json!({"id": change})).await;
    assert_eq!(seen.unwrap()["outcome"], "clean");
    std::fs::write(&gate, "").unwrap();
    // It ends when nobody listens: what it found was paid for, and is not thrown away.
    let ended = "SELECT answered_at IS NOT NULL FROM lookups WHERE id = 1";
    stage.holds("the check ends", ended).await;
    let told = (check.call)(&context, json!({"name": "fake"})).await;
    assert_eq!(told.unwrap()["data"][0]["found"], "test");
    let checks = "SELECT count(*) FROM lookups WHERE question ->> 'kind' = 'check'";
    assert_eq!(stage.text(checks).await, "1");
    // Once it was heard, the next one is a new one.
    let free = json!({"name": "fake", "without_prompt": true});
    for _ in 0..2 {
        (check.call)(&context, free.clone()).await.unwrap();
    }
    assert_eq!(stage.text(checks).await, "3");
    assert!(git(&stage.ground.repo, &["status", "--short"]).is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_ends_what_it_tries_and_whoever_asked_is_told() {
    let stage = Stage::new().await;
    let mut setting = healthy();
    setting["by_words"]["make the file"] = json!([{"say": "x"}, {"hang": true}]);
    let worker = stage.worker_with(&acp("fake", &setting, ""), |_| {}).await;
    let id = worker.id.clone();
    let ready = "SELECT status = 'ready' FROM agent_offers";
    stage.holds("the agent is offered", ready).await;
    let asked = ask(&stage, "agent.check", json!({"name": "fake"}));
    let stopped = async {
        eventually("its turn runs", PATIENCE, || async {
            processes_of(&id) > 0
        })
        .await;
        worker.stop().await;
    };
    let (told, ()) = tokio::join!(asked, stopped);
    let told = told.unwrap_err();
    assert_eq!(told.code, "no_answer");
    assert!(told.message.contains("stopped"), "{}", told.message);
    assert_eq!(processes_of(&id), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_off_is_answered_and_not_tried_again() {
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(&acp("fake", &healthy(), ""), |_| {})
        .await;
    let context = worker.context();
    let taken = format!(
        "INSERT INTO lookups (question, worker_id, asked_by, token, taken_until)
         SELECT jsonb_build_object('kind', k, 'agent', 'fake'), '{}', 'ada', 1, now() - interval '1 hour'
           FROM unnest(ARRAY['probe', 'check']) k",
        worker.id
    );
    stage.sql.batch_execute(&taken).await.unwrap();
    let this = (context.worker, "test");
    for kind in [Kind::Probe, Kind::Check] {
        let again = lookups::take(&context.store, context.worker, kind, PATIENCE).await;
        assert!(again.unwrap().is_none());
        let why = Answer::Failed("broke off".to_owned());
        lookups::broken_off(&context.store, this, kind, &why)
            .await
            .unwrap();
    }
    let answers = "SELECT count(*) FROM lookups WHERE answer ->> 'failed' = 'broke off'";
    assert_eq!(stage.text(answers).await, "2");
    drop(context);
    worker.stop().await;
}

#[tokio::test]
async fn the_worker_is_one_where_the_agent_is_ready_or_the_one_that_was_named() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO workers (id, name, version, slots, tries_agents, draining, last_seen) VALUES
         ('00000000-0000-0000-0000-00000000000a', 'a', '1', 1, true, false, now()),
         ('00000000-0000-0000-0000-00000000000b', 'b', '1', 1, true, false, now() - interval '5 seconds'),
         ('00000000-0000-0000-0000-00000000000c', 'c', '1', 1, true, false, now() - interval '1 minute'),
         ('00000000-0000-0000-0000-00000000000d', 'd', '1', 1, true, false, now()),
         -- Of the release before, and on its way out.
         ('00000000-0000-0000-0000-0000000000a0', 'old', '0', 1, false, false, now()),
         ('00000000-0000-0000-0000-0000000000a1', 'ends', '1', 1, true, true, now());
         INSERT INTO catalogue_agents (name) VALUES ('x'), ('gone');
         INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at)
         SELECT w.id, 'x', CASE WHEN w.name IN ('b', 'old', 'ends') THEN 'ready' ELSE 'unavailable' END, 'acp', now() + interval '1 hour'
           FROM workers w WHERE w.name <> 'd';
         INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at)
         SELECT w.id, 'gone', 'ready', 'acp', now() + interval '1 hour' FROM workers w WHERE w.name = 'c'",
    )
    .await
    .unwrap();
    let id = |worker: char| format!("'00000000-0000-0000-0000-00000000000{worker}'::uuid");
    let ask = async |call: &str| {
        let asked = sql.query_one(&format!("SELECT {call}"), &[]).await?;
        let asked: i64 = asked.get(0);
        let by =
            "SELECT w.name FROM lookups l JOIN workers w ON w.id = l.worker_id WHERE l.id = $1";
        let row = sql.query_one(by, &[&asked]).await?;
        Ok::<(i64, String), tokio_postgres::Error>((asked, row.get(0)))
    };
    let (first, by) = ask("probe_agent('x')").await.unwrap();
    assert_eq!(by, "b");
    assert_eq!(ask("probe_agent('x')").await.unwrap().0, first, "joined");
    let named = format!("probe_agent('x', {})", id('a'));
    assert_eq!(ask(&named).await.unwrap().1, "a");
    assert_ne!(ask("check_agent('x')").await.unwrap().0, first);
    let free = ask("check_agent('x', without_prompt => true)").await;
    assert_eq!(free.unwrap().1, "b");
    for (call, code) in [
        ("probe_agent('nobody')".to_owned(), "P0002"),
        ("check_agent(NULL)".to_owned(), "P0002"),
        ("check_agent('gone')".to_owned(), "55000"),
        // Not live, and live without it.
        (format!("probe_agent('x', {})", id('c')), "55000"),
        (format!("probe_agent('x', {})", id('d')), "55000"),
        (format!("probe_agent('x', {})", id('e')), "P0002"),
        (
            "probe_agent('x', (SELECT id FROM workers WHERE name = 'old'))".to_owned(),
            "55000",
        ),
    ] {
        let refused = ask(&call).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), code, "{call}");
        assert!(refused.hint().is_some(), "{call}");
    }
    let acts = "SELECT count(*) FROM audit_log WHERE action IN ('agent.probe', 'agent.check')";
    let acts: i64 = sql.query_one(acts, &[]).await.unwrap().get(0);
    assert_eq!(acts, 4, "one for each that is not joined or refused");
}
