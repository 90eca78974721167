//! The database goes away, comes back, answers half: nothing is lost and nothing done twice.

use std::time::Duration;

use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::queue::lease::LeaseBook;
use dispatch_worker::queue::rescuer;
use dispatch_worker::store::Store;
use dispatch_worker::store::listen::{Listener, Wakeup};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::eventually;
use crate::harness::program::{make_due, processes_of};
use crate::harness::proxy::{Cut, Proxy};
use crate::harness::worker::{PATIENCE, Stage, TestWorker, agents, gates, write};

/// A worker whose way to the database leads through a proxy. LISTEN goes directly, which also
/// keeps its statements unprepared: their text is on the wire each time.
async fn behind(stage: &Stage, proxy: &Proxy) -> TestWorker {
    let (through, direct) = (proxy.url().to_owned(), stage.db.url());
    stage
        .worker_with(&agents(), |settings| {
            settings.database_url = through;
            settings.listen_url = Some(direct);
        })
        .await
}

async fn stored_once(stage: &Stage, task: i64) {
    for table in ["outcomes", "attempts", "usage_reports", "pending_changes"] {
        let count = format!("SELECT count(*) FROM {table} WHERE task_id = {task}");
        assert_eq!(stage.text(&count).await, "1", "{table}");
    }
    let stream = stage.stream(task).await;
    let ends = stream.iter().filter(|(kind, _)| kind == "task_completed");
    assert_eq!(ends.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_whose_commit_is_cut_off_is_stored_once() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let stage = Stage::new().await;
        let proxy = Proxy::new(&stage.db.url()).await;
        let worker = behind(&stage, &proxy).await;
        proxy.cut_at(cut);
        let task = stage
            .submit("acp", &json!([write("b.txt", "b\n"), { "say": "done" }]))
            .await;
        stage.reaches(task, "completed").await;
        assert!(proxy.has_cut(), "{cut:?}");
        worker.stop().await;
        stored_once(&stage, task).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_is_lost_goes_back_uncharged() {
    const MARKER: &str = "the answer with this is lost";
    let stage = Stage::new().await;
    let proxy = Proxy::new(&stage.db.url()).await;
    let worker = behind(&stage, &proxy).await;
    proxy.cut_at(Cut::Answer(MARKER));
    let script = json!([write("b.txt", "b\n"), { "say": MARKER }]);
    let task = stage.submit("acp", &script).await;
    eventually("the claim is lost", PATIENCE, || async { proxy.has_cut() }).await;
    stage
        .holds("it is claimed", "SELECT count(*) = 1 FROM leases")
        .await;
    assert_eq!(
        stage.text("SELECT count(*) FROM attempts").await,
        "0",
        "and nobody works on it"
    );
    let store = Store::connect(&stage.db.url(), 1).unwrap();
    let id = WorkerId(worker.id.parse().unwrap());
    let nothing_known = LeaseBook::default();
    let soon = rescuer::reclaim_forgotten(&store, id, &nothing_known, Duration::from_secs(30));
    assert_eq!(soon.await.unwrap(), 0, "a claim under way is left alone");
    let later = rescuer::reclaim_forgotten(&store, id, &nothing_known, Duration::ZERO);
    assert_eq!(later.await.unwrap(), 1);
    stage.reaches(task, "completed").await;
    worker.stop().await;
    stored_once(&stage, task).await;
    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds[1], "given_back", "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_before_the_agent_begins_charges_nothing() {
    let steps = [
        "FROM projects\n WHERE name",
        "INSERT INTO attempts",
        "SET base_commit",
    ];
    for step in steps {
        let stage = Stage::new().await;
        let proxy = Proxy::new(&stage.db.url()).await;
        let worker = behind(&stage, &proxy).await;
        proxy.cut_at(Cut::Statement(step));
        let script = json!([write("b.txt", "b\n"), { "say": "done" }]).to_string();
        let insert = "INSERT INTO tasks (project, input, agent, max_attempts) \
                      VALUES ('p', $1, 'acp', 1) RETURNING id";
        let row = stage.sql.query_one(insert, &[&script]).await.unwrap();
        let waits = "SELECT reason LIKE 'the database was away: %' AND uncharged = 1 AND attempt = 2 \
                     FROM later_tasks";
        stage.holds(step, waits).await;
        assert!(proxy.has_cut());
        eventually("no worktree is left", PATIENCE, || async {
            let trees = stage.data.path().join("work/worktrees");
            std::fs::read_dir(trees).unwrap().count() == 0
        })
        .await;
        make_due(&stage).await;
        let task = row.get(0);
        stage.reaches(task, "completed").await;
        let kinds: Vec<String> = stage
            .stream(task)
            .await
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert!(kinds.contains(&"given_back".to_owned()), "{kinds:?}");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_complete_although_every_session_was_killed_meanwhile() {
    const PARTS: usize = 6;
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let gates = gates();
    let gate = |n: usize| gates.path().join(format!("gate-{n}"));
    let (mut script, mut said) = (vec![write("b.txt", "b\n")], String::new());
    for part in 0..PARTS {
        for word in 0..40 {
            let text = format!("{part}.{word} ");
            said.push_str(&text);
            script.push(json!({ "say": text }));
        }
        script.push(json!({ "tool": { "toolCallId": format!("t{part}"), "title": "look" } }));
        script.push(json!({ "wait_for": gate(part) }));
    }
    let task = stage.submit("acp", &Value::from(script)).await;
    for part in 0..PARTS {
        let told = format!("SELECT EXISTS (SELECT 1 FROM events WHERE payload->>'id' = 't{part}')");
        stage.holds("the part is told", &told).await;
        std::fs::write(gate(part), "").unwrap();
        let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert_ne!(stage.text(killed).await, "0");
    }
    stage.reaches(task, "completed").await;
    let told: String = stage
        .stream(task)
        .await
        .iter()
        .filter(|(kind, _)| kind == "text")
        .map(|(_, payload)| payload["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, said);
    stored_once(&stage, task).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_listen_tasks_still_start_and_cancels_still_arrive() {
    let stage = Stage::new().await;
    let proxy = Proxy::new(&stage.db.url()).await;
    let through = proxy.url().to_owned();
    let worker = stage
        .worker_with(&agents(), |settings| settings.listen_url = Some(through))
        .await;
    let listening = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%')";
    stage.holds("it listens", listening).await;
    proxy.down();
    stage
        .holds("it listens no more", &format!("SELECT NOT ({listening})"))
        .await;
    let task = stage.working("acp").await;
    stage.text(&format!("SELECT cancel_task({task})")).await;
    stage.reaches(task, "cancelled").await;
    proxy.up();
    stage.holds("it listens again", listening).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_peer_vanished_without_a_word_finds_out_and_comes_back() {
    let stage = Stage::new().await;
    let proxy = Proxy::new(&stage.db.url()).await;
    let listener = Listener::new().pinging_after(Duration::from_millis(100));
    let (mut connected, mut wakeups) = (listener.connected(), listener.subscribe());
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let (url, quiet) = (proxy.url().to_owned(), stop.clone());
    running.spawn(async move { listener.run(&url, quiet).await });
    connected.wait_for(|up| *up).await.unwrap();
    assert_eq!(wakeups.recv().await.unwrap(), Wakeup::Gap);
    let pings = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                 AND query LIKE 'NOTIFY dispatch_ping%' AND state = 'idle')";
    stage.holds("it pings itself", pings).await;
    stage
        .text("SELECT pg_notify(dispatch_channel(), 'ping 7') IS NULL")
        .await;
    let heard = wakeups.recv().await.unwrap();
    assert_eq!(heard, Wakeup::Ping(7), "its own pings wake nobody");
    assert!(*connected.borrow());
    proxy.deaf(true);
    let found_out = connected.wait_for(|up| !up);
    tokio::time::timeout(PATIENCE, found_out)
        .await
        .expect("it notices")
        .unwrap();
    proxy.down();
    proxy.deaf(false);
    proxy.up();
    connected.wait_for(|up| *up).await.unwrap();
    assert_eq!(wakeups.recv().await.unwrap(), Wakeup::Gap);
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_does_not_look_like_death() {
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(&agents(), |settings| settings.connections = 1)
        .await;
    let gates = gates();
    let gate = gates.path().join("go");
    let script = json!([{ "say": "working" }, { "wait_for": gate }, { "say": "more" }]);
    let task = stage.speaking("acp", &script).await;
    let mut blocker = stage.db.client().await;
    let hold = blocker.transaction().await.unwrap();
    hold.batch_execute("LOCK TABLE events IN SHARE MODE")
        .await
        .unwrap();
    std::fs::write(&gate, "").unwrap();
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    stage.holds("the only connection waits", waits).await;
    let seen = stage.text("SELECT last_seen FROM workers").await;
    let beats = format!("SELECT last_seen > '{seen}' FROM workers");
    stage.holds("its heart beats", &beats).await;
    drop(hold);
    drop(blocker);
    stage.reaches(task, "completed").await;
    assert_eq!(stage.status(task, "attempts").await.as_deref(), Some("1"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_without_a_word_stops_its_agents_before_others_may_begin() {
    let stage = Stage::new().await;
    let proxy = Proxy::new(&stage.db.url()).await;
    let worker = behind(&stage, &proxy).await;
    let id = worker.id.clone();
    let script = json!([{ "say": "working" }, { "fork": "setsid" }, { "hang": true }]);
    let task = stage.speaking("acp", &script).await;
    proxy.deaf(true);
    eventually("its agent is stopped", PATIENCE, || async {
        processes_of(&id) == 0
    })
    .await;
    let silent = "SELECT now() - last_seen < interval '20 seconds' FROM workers";
    assert_eq!(stage.text(silent).await, "true", "before its lease ends");
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("running")
    );
    // A dead connection is not mended by the wire; a new one is.
    proxy.down();
    proxy.deaf(false);
    proxy.up();
    stage
        .holds(
            "the task goes back",
            "SELECT count(*) = 0 FROM leases WHERE attempt = 1",
        )
        .await;
    stage.text(&format!("SELECT cancel_task({task})")).await;
    stage.reaches(task, "cancelled").await;
    worker.stop().await;
}
