//! Workers that die: kill -9 at every stage, orderly stops, and a task that kills its worker.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::program::{Program, forget, make_due, processes_of};
use crate::harness::repo::git;
use crate::harness::worker::{PATIENCE, Stage, agents, gates, write};
use crate::harness::{eventually, is_an_argument};

/// Nothing of any attempt is left on disk.
async fn worktrees_are_gone(stage: &Stage) {
    eventually("no worktree is left", PATIENCE, || async {
        let dir = stage.data.path().join("work/worktrees");
        std::fs::read_dir(dir).map_or(0, Iterator::count) == 0
    })
    .await;
}

/// Each task has one end, one live change at most, and attempts without a gap.
async fn nothing_is_lost_or_twice(stage: &Stage, tasks: i64) {
    let ends = stage
        .text("SELECT count(*) || ' ' || count(DISTINCT task_id) FROM outcomes")
        .await;
    assert_eq!(ends, format!("{tasks} {tasks}"));
    for table in ["leases", "ready_tasks", "later_tasks", "parked_tasks"] {
        let left = stage.text(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(left, "0", "{table}");
    }
    let open = "SELECT count(*) FROM attempts WHERE ended_at IS NULL";
    assert_eq!(stage.text(open).await, "0", "every attempt has its end");
    let twice = "SELECT count(*) FROM (SELECT task_id FROM pending_changes \
                 WHERE state <> 'superseded' GROUP BY task_id HAVING count(*) > 1) AS double";
    assert_eq!(stage.text(twice).await, "0", "one change of a task at most");
    for task in 1..=tasks {
        let stream = stage.stream(task).await;
        let ends = stream.iter().filter(|(kind, _)| {
            ["task_completed", "task_failed", "task_cancelled"].contains(&kind.as_str())
        });
        assert_eq!(ends.count(), 1, "task {task}");
    }
}

/// What the dead attempt had written is found under its commit.
async fn half_is_recorded(stage: &Stage) {
    let recorded = "SELECT coalesce((SELECT result_commit IS NOT NULL FROM attempts WHERE attempt = 1), false)";
    stage.holds("what was there is recorded", recorded).await;
    let commit = stage
        .text("SELECT result_commit FROM attempts WHERE attempt = 1")
        .await;
    let stores = std::fs::read_dir(stage.data.path().join("work/stores")).unwrap();
    let store = stores.flatten().next().unwrap().path().join("results.git");
    let told = git(
        stage.data.path(),
        &[
            "--git-dir",
            store.to_str().unwrap(),
            "show",
            &format!("{commit}:half.txt"),
        ],
    );
    assert_eq!(told, "half");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_during_a_turn_leaves_no_process_no_worktree_and_no_task_behind() {
    let stage = Stage::new().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let script = json!([
        write("half.txt", "half\n"), { "fork": "setsid" }, { "say": "working" },
        { "wait_for": gate }, write("whole.txt", "whole\n"),
    ]);
    let first = Program::worker(&stage, "first", &agents(), &[]).await;
    let id = first.id(&stage).await;
    let task = stage.speaking("acp", &script).await;
    first.crash(&stage).await;
    // The helper notices, before any other worker comes.
    eventually("the agent ends with its worker", PATIENCE, || async {
        processes_of(&id) == 0
    })
    .await;
    let mut second = Program::worker(&stage, "second", &agents(), &[]).await;
    let rescued = "SELECT coalesce((SELECT end_kind || ' ' || error_class = 'lease_lost orphaned' \
                   FROM attempts WHERE attempt = 1), false)";
    stage.holds("it was rescued", rescued).await;
    half_is_recorded(&stage).await;
    std::fs::write(&gate, "").unwrap();
    make_due(&stage).await;
    stage.reaches(task, "completed").await;
    worktrees_are_gone(&stage).await;
    nothing_is_lost_or_twice(&stage, 1).await;
    let files = "SELECT string_agg(path, ' ' ORDER BY path) FROM pending_change_files";
    assert_eq!(stage.text(files).await, "half.txt whole.txt");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_prepares_is_replaced() {
    let stage = Stage::new().await;
    // A number of seconds that nobody else sleeps.
    let own = format!("83{}", std::process::id());
    let setup = async |line: String| {
        let set = "UPDATE projects SET setup = $1";
        stage.sql.execute(set, &[&line]).await.unwrap();
    };
    setup(format!("sleep {own}")).await;
    let first = Program::worker(&stage, "first", &agents(), &["--allow-hooks"]).await;
    let task = stage.submit("acp", &json!([write("b.txt", "b\n")])).await;
    eventually("it prepares", PATIENCE, || async { is_an_argument(&own) }).await;
    first.crash(&stage).await;
    setup("true".to_owned()).await;
    let second = Program::worker(&stage, "second", &agents(), &["--allow-hooks"]).await;
    let rescued =
        "SELECT coalesce((SELECT end_kind = 'lease_lost' FROM attempts WHERE attempt = 1), false)";
    stage.holds("it was rescued", rescued).await;
    make_due(&stage).await;
    stage.reaches(task, "completed").await;
    worktrees_are_gone(&stage).await;
    nothing_is_lost_or_twice(&stage, 1).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_stores_the_end_stores_nothing_by_halves() {
    let stage = Stage::new().await;
    let mut blocker = stage.db.client().await;
    let hold = blocker.transaction().await.unwrap();
    // Reading goes on; the end, which is one transaction, waits at its last table.
    hold.batch_execute("LOCK TABLE outcomes IN SHARE MODE")
        .await
        .unwrap();
    let first = Program::worker(&stage, "first", &agents(), &[]).await;
    let script = json!([write("half.txt", "half\n"), { "say": "done" }]);
    let task = stage.submit("acp", &script).await;
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO outcomes%')";
    stage.holds("the end waits", waits).await;
    first.crash(&stage).await;
    drop(hold);
    drop(blocker);
    let second = Program::worker(&stage, "second", &agents(), &[]).await;
    half_is_recorded(&stage).await;
    make_due(&stage).await;
    stage.reaches(task, "completed").await;
    worktrees_are_gone(&stage).await;
    nothing_is_lost_or_twice(&stage, 1).await;
    let usage = "SELECT string_agg(attempt::text, ' ') FROM usage_reports";
    assert_eq!(
        stage.text(usage).await,
        "2",
        "the half transaction left nothing"
    );
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_lose_nothing_and_do_nothing_twice() {
    let stage = Stage::new().await;
    let script =
        json!([write("b.txt", "b\n"), { "fork": "setsid" }, { "say": "working" }]).to_string();
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts) \
                  SELECT 'p', $1, 'acp', 20 FROM generate_series(1, 12)";
    stage.sql.execute(insert, &[&script]).await.unwrap();
    // Killed when so many attempts had begun, whatever each of them was doing then.
    for (n, begun) in [1, 6, 11, 14].into_iter().enumerate() {
        let worker = Program::worker(&stage, &format!("w{n}"), &agents(), &[]).await;
        make_due(&stage).await;
        let reached = format!(
            "SELECT (SELECT count(*) FROM attempts) >= {begun} OR (SELECT count(*) FROM outcomes) = 12"
        );
        eventually("attempts have begun", PATIENCE, || async {
            make_due(&stage).await;
            stage.text(&reached).await == "true"
        })
        .await;
        worker.crash(&stage).await;
    }
    let last = Program::worker(&stage, "last", &agents(), &[]).await;
    eventually("all have ended", PATIENCE, || async {
        make_due(&stage).await;
        stage
            .text("SELECT count(*) FROM outcomes WHERE state = 'completed'")
            .await
            == "12"
    })
    .await;
    worktrees_are_gone(&stage).await;
    nothing_is_lost_or_twice(&stage, 12).await;
    let changes = "SELECT count(*) FROM pending_changes WHERE state = 'pending'";
    assert_eq!(stage.text(changes).await, "12");
    drop(last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_after_its_lease_stops_its_agent_and_writes_nothing() {
    let stage = Stage::new().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let script = json!([write("b.txt", "b\n"), { "say": "working" }, { "wait_for": gate }]);
    let mut first = Program::worker(&stage, "first", &agents(), &[]).await;
    let id = first.id(&stage).await;
    let task = stage.submit("acp", &script).await;
    let works = |attempt: i16| {
        format!("SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'text' AND attempt = {attempt})")
    };
    stage.holds("it works", &works(1)).await;
    first.signal(Signal::SIGSTOP);
    forget(&stage, "first").await;
    let second = Program::worker(&stage, "second", &agents(), &[]).await;
    assert!(processes_of(&id) > 0, "what lives is not swept");
    let rescued =
        "SELECT coalesce((SELECT end_kind = 'lease_lost' FROM attempts WHERE attempt = 1), false)";
    stage.holds("it was rescued", rescued).await;
    make_due(&stage).await;
    stage.holds("it works again", &works(2)).await;
    first.signal(Signal::SIGCONT);
    eventually("the late one stops its agent", PATIENCE, || async {
        processes_of(&id) == 0
    })
    .await;
    assert!(first.log().contains("lease lost"), "{}", first.log());
    std::fs::write(&gate, "").unwrap();
    stage.reaches(task, "completed").await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.log());
    worktrees_are_gone(&stage).await;
    nothing_is_lost_or_twice(&stage, 1).await;
    let ends = "SELECT string_agg(attempt || ' ' || end_kind, ', ' ORDER BY attempt) FROM attempts";
    assert_eq!(stage.text(ends).await, "1 lease_lost, 2 succeeded");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_worker_fails_after_its_attempts_and_harms_no_other() {
    let stage = Stage::new().await;
    let poison = format!(
        "{}\n[agents.poison]\nlabel = \"poison\"\npath = \"pipe\"\nsandbox = \"none\"\n\
         command = [\"sh\", \"-c\", \"kill -9 $(ps -o ppid= -p $PPID)\", \"{{prompt}}\"]\n",
        agents()
    );
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts) VALUES ('p', 'x', 'poison', 2) RETURNING id";
    let task: i64 = stage.sql.query_one(insert, &[]).await.unwrap().get(0);
    for n in ["first", "second"] {
        let mut worker = Program::worker(&stage, n, &poison, &[]).await;
        eventually("the worker is killed", PATIENCE, || async {
            make_due(&stage).await;
            processes_gone(&stage, n).await
        })
        .await;
        let ended = worker.ended().await;
        assert_eq!(ended.code(), None, "{}", worker.log());
        forget(&stage, n).await;
    }
    let other = stage.submit("acp", &json!([write("b.txt", "b\n")])).await;
    let third = Program::worker(&stage, "third", &poison, &[]).await;
    stage.reaches(task, "failed").await;
    stage.reaches(other, "completed").await;
    let facts =
        format!("SELECT error_class || ' ' || attempt FROM outcomes WHERE task_id = {task}");
    assert_eq!(stage.text(&facts).await, "orphaned 2");
    let error = stage.status(task, "error").await.unwrap();
    assert!(error.contains("not seen any more"), "{error}");
    worktrees_are_gone(&stage).await;
    drop(third);
}

/// Its process is gone, by the lock that the kernel lets go of.
async fn processes_gone(stage: &Stage, name: &str) -> bool {
    let query = format!("SELECT id FROM workers WHERE name = '{name}'");
    let id = stage.text(&query).await;
    let path = stage.data.path().join(format!("alive/{id}.lock"));
    std::fs::File::open(path).is_ok_and(|file| {
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockSharedNonblock).is_ok()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_takes_no_more_lets_run_and_gives_back_the_rest_uncharged() {
    let stage = Stage::new().await;
    let gates = gates();
    let gate = gates.path().join("go");
    let mut worker = Program::worker(&stage, "w", &agents(), &["--drain-timeout", "4s"]).await;
    let quick = json!([write("b.txt", "b\n"), { "say": "nearly" }, { "wait_for": gate }]);
    let endless = json!([write("half.txt", "half\n"), { "say": "working" }, { "hang": true }]);
    let quick = stage.submit("acp", &quick).await;
    let endless = stage.submit("acp", &endless).await;
    let both = "SELECT count(DISTINCT task_id) = 2 FROM events WHERE kind = 'text'";
    stage.holds("both work", both).await;
    worker.signal(Signal::SIGTERM);
    let told = Instant::now();
    eventually("it has heard", PATIENCE, || async {
        worker.log().contains("draining")
    })
    .await;
    let late = stage.submit("acp", &json!([])).await;
    std::fs::write(&gate, "").unwrap();
    stage.reaches(quick, "completed").await;
    let ended = worker.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", worker.log());
    // The drain time, then recording and giving back.
    assert!(
        told.elapsed() < Duration::from_secs(4 + 10),
        "{:?}",
        told.elapsed()
    );
    for task in [endless, late] {
        assert_eq!(
            stage.status(task, "state").await.as_deref(),
            Some("pending")
        );
    }
    let given_back = format!("SELECT end_kind FROM attempts WHERE task_id = {endless}");
    assert_eq!(stage.text(&given_back).await, "interrupted");
    let kept = format!("SELECT result_commit IS NOT NULL FROM attempts WHERE task_id = {endless}");
    assert_eq!(
        stage.text(&kept).await,
        "true",
        "what it had written is recorded"
    );
    assert_eq!(uncharged(&stage, endless).await, "1");
    assert_eq!(stage.text("SELECT count(*) FROM leases").await, "0");
    worktrees_are_gone(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_does_not_wait_for_the_drain_time() {
    let stage = Stage::new().await;
    let mut worker = Program::worker(&stage, "w", &agents(), &["--drain-timeout", "10m"]).await;
    let script: Value = json!([{ "say": "working" }, { "fork": "setsid" }, { "hang": true }]);
    let task = stage.speaking("acp", &script).await;
    let id = worker.id(&stage).await;
    worker.signal(Signal::SIGTERM);
    eventually("it has heard", PATIENCE, || async {
        worker.log().contains("draining")
    })
    .await;
    worker.signal(Signal::SIGINT);
    let ended = worker.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", worker.log());
    assert_eq!(
        stage.status(task, "state").await.as_deref(),
        Some("pending")
    );
    assert_eq!(uncharged(&stage, task).await, "1");
    assert_eq!(processes_of(&id), 0);
}

async fn uncharged(stage: &Stage, task: i64) -> String {
    let query = format!(
        "SELECT uncharged FROM (SELECT task_id, uncharged FROM later_tasks UNION ALL \
         SELECT task_id, uncharged FROM ready_tasks) AS waiting WHERE task_id = {task}"
    );
    stage.text(&query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_and_what_it_left_running_end_with_their_worker() {
    let stage = Stage::new().await;
    let setup = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & sleep 1000";
    let set = "UPDATE projects SET setup = $1";
    stage.sql.execute(set, &[&setup]).await.unwrap();
    let first = Program::worker(&stage, "first", &agents(), &["--allow-hooks"]).await;
    let id = first.id(&stage).await;
    let task = stage.submit("acp", &json!([{ "say": "done" }])).await;
    eventually("the hook runs, and what it began", PATIENCE, || async {
        processes_of(&id) >= 3
    })
    .await;
    first.crash(&stage).await;
    eventually("nothing of it is left", PATIENCE, || async {
        processes_of(&id) == 0
    })
    .await;
    stage.text(&format!("SELECT cancel_task({task})")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_which_port_its_health_got() {
    let stage = Stage::new().await;
    let flags = ["--health", "127.0.0.1:0"];
    let worker = Program::worker(&stage, "healthy", &agents(), &flags).await;
    let said = || {
        let log = worker.log();
        let line = log
            .lines()
            .find_map(|l| l.strip_prefix("health is at http://"));
        line.map(str::to_owned)
    };
    eventually("it says so", PATIENCE, || async { said().is_some() }).await;
    let address = said().unwrap();
    let mut socket = std::net::TcpStream::connect(&address).unwrap();
    let ask = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
        "{answer}"
    );
}
