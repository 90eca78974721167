//! Conversations of several tasks, and a catalogue that changes under a running worker.

use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::worker::{FAKE, Stage, agents, gates, write};

async fn follow_up(stage: &Stage, first: i64, script: &Value) -> i64 {
    let insert = "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', $1, 'acp', $2) RETURNING id";
    let row = stage
        .sql
        .query_one(insert, &[&script.to_string(), &first])
        .await;
    row.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_by_sql_waits_for_its_conversation_and_pays_only_for_itself() {
    let stage = Stage::new().await;
    let metered = format!(
        "{}\n[agents.acp.usage]\nformat = \"acp\"\ninput = \"/inputTokens\"\noutput = \"/outputTokens\"\n",
        agents()
    );
    let worker = stage.worker_with(&metered, |_| {}).await;
    let gates = gates();
    let gate = gates.path().join("go");
    let used = |input: u32, output: u32| json!({ "usage": { "result": { "usage": { "inputTokens": input, "outputTokens": output } } } });
    let first = stage
        .speaking(
            "acp",
            &json!([{ "say": "working" }, used(100, 20), { "wait_for": gate }]),
        )
        .await;
    let mut later = Vec::new();
    for n in 0..3 {
        later.push(
            follow_up(
                &stage,
                first,
                &json!([used(7, 3), write(&format!("{n}.txt"), "x\n")]),
            )
            .await,
        );
    }
    for task in &later {
        let reason = stage
            .status(*task, "waiting_reason")
            .await
            .unwrap_or_default();
        assert!(reason.contains("conversation"), "{reason}");
    }
    std::fs::write(&gate, "").unwrap();
    for task in &later {
        stage.reaches(*task, "completed").await;
        assert_eq!(
            stage.status(*task, "cost_tokens").await.as_deref(),
            Some("10")
        );
    }
    assert_eq!(
        stage.status(first, "cost_tokens").await.as_deref(),
        Some("120")
    );
    let overlap = "SELECT count(*) FROM attempts a JOIN attempts b ON a.conversation_id = b.conversation_id \
                   AND a.task_id < b.task_id AND b.started_at < a.ended_at";
    assert_eq!(stage.text(overlap).await, "0", "one attempt at a time");
    let sum = "SELECT sum(total_tokens) || ' ' || count(*) FROM usage_reports";
    assert_eq!(stage.text(sum).await, "150 4");
    // Each builds on what the one before left.
    let files = format!(
        "SELECT files FROM pending_changes WHERE task_id = {}",
        later[2]
    );
    assert_eq!(stage.text(&files).await, "3");
    worker.stop().await;
}

/// The scripted ACP agent, which goes on in its session and counts its cost over all of it.
fn going_on(more: &str) -> String {
    let command = format!("command = [\"{FAKE}\", \"acp\"]");
    let able = format!(
        "command = [\"{FAKE}\", \"acp\", '{{\"capabilities\": {{\"loadSession\": true}}}}']"
    );
    agents().replacen(&command, &able, 1) + more
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_of_the_session_is_no_bill_once_an_earlier_cost_is_unknown() {
    let stage = Stage::new().await;
    let usage = "\n[agents.acp.usage]\nformat = \"acp\"\ninput = \"/inputTokens\"\n\
                 output = \"/outputTokens\"\ncost_is = \"session_total\"\n";
    let worker = stage.worker_with(&going_on(usage), |_| {}).await;
    let tokens = json!({ "usage": { "inputTokens": 7, "outputTokens": 3 } });
    let total = |amount: f64| {
        let cost = json!({ "amount": amount, "currency": "USD" });
        json!([{ "usage": { "result": tokens, "update": { "used": 1, "size": 2, "cost": cost } } }])
    };
    let silent = json!([{ "usage": { "result": tokens } }]);
    let first = stage.submit("acp", &total(0.5)).await;
    stage.reaches(first, "completed").await;
    let mut costs = Vec::new();
    for script in [total(0.75), silent, total(1.5), total(1.75)] {
        let task = follow_up(&stage, first, &script).await;
        stage.reaches(task, "completed").await;
        let cost = format!(
            "SELECT coalesce(cost::text, 'unknown') FROM usage_reports WHERE task_id = {task}"
        );
        costs.push(stage.text(&cost).await);
    }
    assert_eq!(costs, ["0.25", "unknown", "unknown", "unknown"]);
    let sessions = "SELECT count(DISTINCT native_session_id) || ' ' || count(*) FROM attempts";
    assert_eq!(stage.text(sessions).await, "1 5");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_in_its_place_only_with_the_home_that_holds_it() {
    let stage = Stage::new().await;
    let in_place = "\n[agents.acp.acp]\nresume = \"in_place\"\n";
    let worker = stage.worker_with(&going_on(in_place), |_| {}).await;
    let script = json!([{ "say": "done" }]);
    let first = stage.submit("acp", &script).await;
    stage.reaches(first, "completed").await;
    let home = stage.data.path().join(format!("homes/c{first}-acp"));
    let mut begun_anew = Vec::new();
    for lost in [false, true, false] {
        if lost {
            // As another host or data directory has it, with its worktrees at the same path.
            std::fs::remove_dir_all(&home).unwrap();
        }
        let task = follow_up(&stage, first, &script).await;
        stage.reaches(task, "completed").await;
        let said = format!(
            "SELECT count(*) FROM events WHERE task_id = {task} AND payload::text LIKE '%acp.resume%'"
        );
        begun_anew.push(stage.text(&said).await);
    }
    assert_eq!(begun_anew, ["0", "1", "0"]);
    let places = "SELECT count(DISTINCT worktree) FROM attempts";
    assert_eq!(
        stage.text(places).await,
        "1",
        "the path alone does not tell"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_catalogue_is_taken_up_and_a_broken_one_is_not() {
    let stage = Stage::new().await;
    let mut worker = Program::worker(&stage, "w", &agents(), &[]).await;
    let file = stage.data.path().join("w.toml");
    let more = format!(
        "{}\n[agents.newcomer]\nlabel = \"new\"\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\n",
        agents()
    );
    std::fs::write(&file, more).unwrap();
    let offered = "SELECT EXISTS (SELECT 1 FROM available_agents WHERE name = 'newcomer' AND status = 'ready')";
    stage.holds("the new agent is offered", offered).await;
    let task = stage
        .submit("newcomer", &json!([write("b.txt", "b\n")]))
        .await;
    stage.reaches(task, "completed").await;
    std::fs::write(&file, "[agents.newcomer]\ncolour = 1\n").unwrap();
    crate::harness::eventually(
        "it says what is wrong",
        crate::harness::worker::PATIENCE,
        || async { worker.log().contains("colour") },
    )
    .await;
    let task = stage
        .submit("newcomer", &json!([write("c.txt", "c\n")]))
        .await;
    stage.reaches(task, "completed").await;
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_follow_up_that_names_no_agent_goes_on_with_the_one_of_its_conversation() {
    let desk = crate::harness::desk::Desk::new().await;
    let default = "INSERT INTO settings VALUES ('default_agent', 'usual')";
    desk.sql.batch_execute(default).await.unwrap();
    let submit = async |columns: &str, values: &str| -> i64 {
        let insert = format!(
            "INSERT INTO tasks (project, input{columns}) VALUES ('p', 'x'{values}) RETURNING id"
        );
        desk.sql.query_one(&insert, &[]).await.unwrap().get(0)
    };
    let first = submit(", agent, model", ", 'a', 'large'").await;
    let second = submit(", conversation_id", &format!(", {first}")).await;
    let third = submit(
        ", conversation_id, agent, model",
        &format!(", {first}, 'b', 'other'"),
    )
    .await;
    let fourth = submit(", conversation_id, model", &format!(", {first}, 'small'")).await;
    let fifth = submit(", conversation_id, agent", &format!(", {first}, 'a'")).await;
    let fresh = submit("", "").await;
    for (task, expected) in [
        (second, "a large"),
        (third, "b other"),
        (fourth, "b small"),
        (fifth, "a none"),
        (fresh, "usual none"),
    ] {
        let query =
            format!("SELECT agent || ' ' || coalesce(model, 'none') FROM tasks WHERE id = {task}");
        assert_eq!(desk.text(&query).await, expected, "{task}");
    }
}
