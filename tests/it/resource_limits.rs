//! An attempt that takes more than its entry allows ends, says which key it was, keeps what it had
//! done, and takes nothing from anybody else.

use std::time::Duration;

use dispatch_worker::domain::limits;
use dispatch_worker::domain::sandbox::Rung;
use serde_json::json;

use crate::harness::eventually;
use crate::harness::sandbox::{demand, rungs};
use crate::harness::worker::{FAKE, PATIENCE, Stage, gates, write};

/// An agent that takes too much of one thing: its name, its limit, what the error must name, and
/// its script.
type Greedy = (&'static str, &'static str, &'static str, String);

/// All of them. `bomb`: whether the kernel bounds the number of processes too.
fn greedy(bomb: bool) -> Vec<Greedy> {
    let processes = match bomb {
        true => format!("{FAKE} bomb & exec sleep 1000"),
        // So many at once that they are there before the next look.
        false => "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done".to_owned(),
    };
    let files = |dir: &str| format!("head -c 30000000 /dev/zero | split -a 4 -b 16k - {dir}/x");
    let nested = |levels: usize, then: &str| {
        let all = format!("for (1..{levels}) {{ $d = \"d\" x 100; mkdir $d; chdir $d }} {then}");
        format!("cd $TMPDIR; perl -e '{all}'; cd -")
    };
    let all: [Greedy; 12] = [
        (
            "memory",
            "memory_mb = 100",
            "memory_mb = 100",
            "{ head -c 300000000 /dev/zero; sleep 1000; } | tail".to_owned(),
        ),
        ("pids", "pids = 64", "pids = 64", processes),
        (
            "cpu",
            "cpu_time = \"2s\"",
            "cpu_time = \"2s\"",
            "while :; do :; done".to_owned(),
        ),
        (
            "cpu-children",
            "cpu_time = \"2s\"",
            "cpu_time = \"2s\"",
            "while :; do sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done'; done".to_owned(),
        ),
        (
            "file",
            "file_mb = 3",
            "file_mb = 3",
            "trap '' XFSZ; head -c 9000000 /dev/zero >grown".to_owned(),
        ),
        (
            "file-signal",
            "file_mb = 3",
            "file_mb = 3",
            "exec head -c 9000000 /dev/zero >grown".to_owned(),
        ),
        (
            "disk",
            "disk_mb = 8",
            "disk_mb = 8",
            "head -c 30000000 /dev/zero | split -b 1000k - piece".to_owned(),
        ),
        ("disk-home", "disk_mb = 8", "disk_mb = 8", files("$HOME")),
        ("disk-tmp", "disk_mb = 8", "disk_mb = 8", files("$TMPDIR")),
        (
            "disk-shut",
            "disk_mb = 8",
            "disk_mb = 8",
            "mkdir $TMPDIR/d; chmod 300 $TMPDIR/d; head -c 30000000 /dev/zero >$TMPDIR/d/x"
                .to_owned(),
        ),
        (
            "disk-far",
            "disk_mb = 8",
            "disk_mb = 8",
            nested(60, "open F, \">x\"; print F \"x\" x 30000000; close F"),
        ),
        (
            "disk-deep",
            "disk_mb = 8",
            "nested deeper",
            nested(5_000, ""),
        ),
    ];
    all.to_vec()
}

fn entry(greedy: &Greedy, rung: Rung) -> String {
    let (name, limit, _, _) = greedy;
    let sandbox = demand(rung);
    format!(
        "[agents.{name}]\nlabel = \"greedy\"\npath = \"pipe\"\nsandbox = \"{sandbox}\"\n\
         command = [\"/bin/sh\", \"-c\", \"{{prompt}}\"]\nkill_grace = \"100ms\"\n\
         readable = [\"{FAKE}\"]\n{limit}\n"
    )
}

/// The program ends by a signal of its own, or would go on for ever.
fn script(greedy: &Greedy) -> String {
    format!("echo kept >kept.txt; {}; sleep 1000", greedy.3)
}

async fn seconds_silent(stage: &Stage) -> f64 {
    let silent = "SELECT extract(epoch FROM clock_timestamp() - last_seen) FROM workers";
    stage.text(silent).await.parse().unwrap()
}

async fn all_are_held(rung: Rung) {
    let bomb = rung != Rung::None && rung != Rung::Landlock;
    let all = greedy(bomb);
    let entries: String = all.iter().map(|greedy| entry(greedy, rung)).collect();
    let stage = Stage::new().await;
    let gates = gates();
    let patient = format!(
        "[agents.patient]\nlabel = \"patient\"\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\n\
         sandbox = \"{}\"\nreadable = [\"{}\"]\n",
        demand(rung),
        gates.path().display(),
    );
    let catalogue = patient + &entries;
    let worker = stage
        .worker_with(&catalogue, |settings| settings.sandbox = Some(rung))
        .await;
    let gate = gates.path().join("go");
    // Of somebody else, and under way all the time.
    let steps = json!([{ "say": "working\n" }, { "wait_for": gate }, write("b.txt", "b\n")]);
    let other = stage.speaking("patient", &steps).await;
    let mut tasks = Vec::new();
    for greedy in &all {
        let insert = "INSERT INTO tasks (project, input, agent, max_attempts) \
                      VALUES ('p', $1, $2, 1) RETURNING id";
        let row = stage
            .sql
            .query_one(insert, &[&script(greedy), &greedy.0])
            .await
            .unwrap();
        tasks.push(row.get::<_, i64>(0));
    }
    let mut longest = 0.0_f64;
    let ended = format!("SELECT count(*) FROM outcomes WHERE task_id <> {other}");
    let expected = all.len().to_string();
    for _look in 0.. {
        longest = longest.max(seconds_silent(&stage).await);
        if stage.text(&ended).await == expected {
            break;
        }
        let begun = std::time::Instant::now();
        eventually("a moment passed", PATIENCE, || async {
            begun.elapsed() > Duration::from_millis(100)
        })
        .await;
    }
    let beat = limits::HEARTBEAT.as_secs_f64();
    assert!(longest < beat * 2.0, "{rung}: silent for {longest} s");
    assert_eq!(
        stage.status(other, "state").await.as_deref(),
        Some("running"),
        "the other goes on"
    );
    let mut wrong = Vec::new();
    for (greedy, task) in all.iter().zip(tasks) {
        let class = stage.status(task, "error_class").await.unwrap_or_default();
        let error = stage.status(task, "error").await.unwrap_or_default();
        let kept = format!(
            "SELECT string_agg(c.partial::text, ' ') FROM pending_changes AS c JOIN pending_change_files AS f \
             ON f.change_id = c.id WHERE c.task_id = {task} AND f.path = 'kept.txt'"
        );
        let kept = stage.text(&kept).await;
        if class != "budget" || !error.contains(greedy.2) || kept != "true" {
            wrong.push(format!(
                "{} on {rung}: {class}: {error}; kept: {kept}",
                greedy.0
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    std::fs::write(&gate, "").unwrap();
    stage.reaches(other, "completed").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_too_much_is_ended_by_the_name_of_the_limit_and_nobody_else_is() {
    for rung in rungs().await {
        let begun = std::time::Instant::now();
        all_are_held(rung).await;
        println!("{rung}: {:?}", begun.elapsed());
    }
}

/// A command that the worker runs for an agent is the agent's, also when it is over before the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_an_agents_terminals_counts_as_its_own() {
    let burn = "i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done";
    // A shell would end where the kernel refuses it a process, and with it what it has, before
    // anybody looked: this one goes on with what it got.
    let fork = "exec perl -e 'for (1..12) { my $p = fork; last if defined $p && !$p } sleep 1000'";
    let all = [
        (
            "memory",
            "memory_mb = 100",
            "{ head -c 300000000 /dev/zero; sleep 1000; } | tail",
            1,
        ),
        ("pids", "pids = 40", fork, 3),
        ("cpu", "cpu_time = \"4s\"", burn, 20),
    ];
    let entry = |(name, limit, _, _): &(&str, &str, &str, usize)| {
        format!(
            "[agents.{name}]\nlabel = \"greedy\"\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\n\
             kill_grace = \"100ms\"\nreadable = [\"{FAKE}\"]\nacp.offer_terminal = true\n{limit}\n"
        )
    };
    let entries: String = all.iter().map(entry).collect();
    let stage = Stage::new().await;
    let worker = stage.worker_with(&entries, |_| {}).await;
    for (name, limit, command, terminals) in all {
        let create = json!({ "command": "sh", "args": ["-c", command] });
        let mut steps = vec![write("kept.txt", "kept")];
        for n in 1..=terminals {
            steps.push(json!({ "request": { "method": "terminal/create", "params": create } }));
            if name == "cpu" {
                let params = json!({ "terminalId": format!("t{n}") });
                steps.push(
                    json!({ "request": { "method": "terminal/wait_for_exit", "params": params } }),
                );
            }
        }
        steps.push(json!({ "hang": "" }));
        let task = stage.submit(name, &json!(steps)).await;
        stage.reaches(task, "failed").await;
        let class = stage.status(task, "error_class").await.unwrap_or_default();
        let error = stage.status(task, "error").await.unwrap_or_default();
        assert_eq!(class, "budget", "{name}: {error}");
        assert!(error.contains(limit), "{name}: {error}");
    }
    worker.stop().await;
}
