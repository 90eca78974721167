//! The native agent in the whole house: queue, worktree, conversation, change, money.

use dispatch_worker::config::native_spec::Api;
use dispatch_worker::ops::{self, OpContext};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::llm::{FakeLlm, script};
use crate::harness::native::catalogue;
use crate::harness::program::{Program, forget, make_due};
use crate::harness::repo::git;
use crate::harness::worker::{PATIENCE, Stage};

/// One call of a tool.
fn call(name: &str, input: Value) -> Value {
    json!({ "calls": [{ "name": name, "input": input }] })
}

fn write(path: &str, text: &str) -> Value {
    call("write", json!({ "path": path, "content": text }))
}

/// A house with a native agent that tasks run with when they name none.
struct House {
    stage: Stage,
    llm: FakeLlm,
    agents: String,
}

impl House {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(native: &str) -> Self {
        let llm = FakeLlm::start();
        let own = catalogue(&llm, Api::Openai, native);
        Self {
            stage: Stage::new().await,
            agents: format!("default_agent = \"native\"\n{own}"),
            llm,
        }
    }

    /// Submit by plain SQL, without an agent.
    async fn submit(&self, answers: &Value) -> i64 {
        let known = "SELECT EXISTS (SELECT 1 FROM settings WHERE name = 'default_agent')";
        self.stage.holds("the default agent is known", known).await;
        let insert = "INSERT INTO tasks (project, input) VALUES ('p', $1) RETURNING id";
        let row = self.stage.sql.query_one(insert, &[&script(answers)]).await;
        row.unwrap().get(0)
    }

    async fn follow_up(&self, conversation: i64, answers: &Value) -> i64 {
        let insert =
            "INSERT INTO tasks (project, input, conversation_id) VALUES ('p', $1, $2) RETURNING id";
        let params: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            &[&script(answers), &conversation];
        self.stage
            .sql
            .query_one(insert, params)
            .await
            .unwrap()
            .get(0)
    }

    async fn send(&self, target: i64, text: &str) -> (String, Option<i64>) {
        let query = "SELECT state, task_id FROM send_message($1, $2)";
        let row = self
            .stage
            .sql
            .query_one(query, &[&target, &text])
            .await
            .unwrap();
        (row.get(0), row.get(1))
    }

    /// Wait until the task's stream has an event of this kind.
    async fn tells(&self, task: i64, kind: &str) {
        let query = format!(
            "SELECT EXISTS (SELECT 1 FROM events WHERE task_id = {task} AND kind = '{kind}')"
        );
        self.stage.holds(kind, &query).await;
    }

    /// The messages of a request, as the provider got them.
    fn sent(&self, n: usize) -> String {
        self.llm.ledger()[n]["body"]["messages"].to_string()
    }

    /// What the provider counted in all.
    fn counted(&self) -> i64 {
        let ledger = self.llm.ledger();
        let sum = |key: &str| -> i64 {
            let said = ledger.iter().map(|entry| &entry["usage"][key]);
            said.filter_map(Value::as_i64).sum()
        };
        sum("input") + sum("output")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_an_agent_runs_natively_and_ends_as_a_change_that_can_be_applied() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let edit = json!({ "path": "a.txt", "old_string": "two", "new_string": "2" });
    let task = house
        .submit(&json!([
            { "text": "I look.", "calls": [{ "name": "read", "input": { "path": "a.txt" } }] },
            call("edit", edit),
            { "text": "Two is 2 now." },
        ]))
        .await;
    stage.reaches(task, "completed").await;
    let status =
        |column: &'static str| async move { stage.status(task, column).await.unwrap_or_default() };
    assert_eq!(status("execution_path").await, "native");
    assert_eq!(status("model").await, "stub/m1");
    assert_eq!(status("output_summary").await, "Two is 2 now.");
    assert_eq!(status("cost_tokens").await, house.counted().to_string());
    let source = "SELECT source || ' ' || cost_source FROM usage_reports";
    assert_eq!(stage.text(source).await, "metered price_table");
    // The cost of the attempt is the sum of those of its steps, to the last digit.
    let cost = "SELECT (SELECT cost FROM usage_reports) = (SELECT sum(cost) FROM steps)";
    assert_eq!(stage.text(cost).await, "true");
    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    let at = |wanted: &str| {
        kinds
            .iter()
            .position(|kind| kind == wanted)
            .unwrap_or_else(|| panic!("{wanted}: {kinds:?}"))
    };
    assert!(at("agent_started") < at("turn_started") && at("turn_started") < at("step_completed"));
    assert!(at("turn_done") < at("change_ready") && at("change_ready") < at("task_completed"));
    assert_eq!(kinds.last().unwrap(), "task_completed");
    let digest = stage.text("SELECT digest FROM pending_changes").await;
    let approve = "SELECT approve_change((SELECT id FROM pending_changes), $1)";
    stage.sql.query(approve, &[&digest]).await.unwrap();
    stage
        .holds(
            "it is applied",
            "SELECT state = 'applied' FROM pending_changes",
        )
        .await;
    assert_eq!(
        git(&stage.ground.repo, &["show", "main:a.txt"]),
        "one\n2\nthree"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_asks_to_wait_gets_its_peace_and_the_task_goes_on_with_its_work() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let limited = json!({ "fail": { "status": 429, "times": 1, "retry_after": "3600" }, "calls": [{ "name": "write", "input": { "path": "second.txt", "content": "2" } }] });
    let task = house
        .submit(&json!([write("first.txt", "1"), limited, { "text": "Both." }]))
        .await;
    stage.holds("it waits", &format!("SELECT state = 'pending' AND coalesce(runs_at > now() + interval '50 minutes', false) FROM task_status WHERE id = {task}")).await;
    let reason = stage.status(task, "waiting_reason").await.unwrap();
    assert!(reason.contains("429"), "{reason}");
    let pause = "SELECT provider || ' ' || class FROM provider_pauses WHERE until > now() + interval '50 minutes'";
    assert_eq!(stage.text(pause).await, "stub rate_limited");
    // Everybody waits: another task is not even begun, and says why.
    let other = house.submit(&json!([{ "text": "me too" }])).await;
    stage
        .holds(
            "the agent is not offered",
            "SELECT status = 'error' FROM available_agents WHERE name = 'native'",
        )
        .await;
    let reason = stage.status(other, "waiting_reason").await.unwrap();
    assert!(reason.contains("provider stub is paused"), "{reason}");
    assert_eq!(house.llm.ledger().len(), 2);
    stage
        .sql
        .query("SELECT resume_provider('stub')", &[])
        .await
        .unwrap();
    make_due(stage).await;
    stage.reaches(task, "completed").await;
    stage.reaches(other, "completed").await;
    // The work of the first attempt is in the change, nothing was asked for twice, and every token of
    // both attempts is counted.
    let files = format!(
        "SELECT string_agg(f.path, ' ' ORDER BY f.path) FROM pending_change_files f JOIN pending_changes c ON c.id = f.change_id WHERE c.task_id = {task}"
    );
    assert_eq!(stage.text(&files).await, "first.txt second.txt");
    assert_eq!(stage.status(task, "attempts").await.as_deref(), Some("2"));
    let mine: i64 = stage
        .text(&format!(
            "SELECT sum(total_tokens) FROM steps WHERE task_id = {task}"
        ))
        .await
        .parse()
        .unwrap();
    assert_eq!(
        stage.status(task, "cost_tokens").await,
        Some(mine.to_string())
    );
    let all: i64 = stage
        .text("SELECT sum(total_tokens) FROM steps")
        .await
        .parse()
        .unwrap();
    assert_eq!(all, house.counted());
    let roles =
        format!("SELECT string_agg(role, ' ' ORDER BY seq) FROM messages WHERE task_id = {task}");
    assert_eq!(
        stage.text(&roles).await,
        "user assistant tool assistant tool assistant"
    );
    assert_eq!(stage.text("SELECT count(*) FROM carried_work").await, "0");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_cancelled_while_its_provider_rests_leaves_its_work_for_review() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let limited =
        json!({ "fail": { "status": 429, "times": 1, "retry_after": "3600" }, "text": "never" });
    let task = house
        .submit(&json!([write("first.txt", "1"), limited]))
        .await;
    stage.holds("it waits", &format!("SELECT state = 'pending' AND coalesce(runs_at > now() + interval '50 minutes', false) FROM task_status WHERE id = {task}")).await;
    stage.text(&format!("SELECT cancel_task({task})")).await;
    let change = format!("SELECT id FROM pending_changes WHERE task_id = {task} AND partial");
    let change = stage.text(&change).await;
    let approve = format!(
        "SELECT approve_change({change}, (SELECT digest FROM pending_changes WHERE id = {change}))"
    );
    stage.text(&approve).await;
    let applied = format!("SELECT state = 'applied' FROM pending_changes WHERE id = {change}");
    stage.holds("it is applied", &applied).await;
    assert_eq!(git(&stage.ground.repo, &["show", "main:first.txt"]), "1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_costs_one_request_and_no_task() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage
        .worker_with(&house.agents, |settings| settings.slots = 1)
        .await;
    let refused = json!([{ "fail": { "status": 401, "times": 1 }, "text": "fine" }]);
    let first = house.submit(&refused).await;
    let second = house.submit(&json!([{ "text": "fine" }])).await;
    stage
        .holds(
            "the provider is paused",
            "SELECT EXISTS (SELECT 1 FROM provider_pauses WHERE class = 'auth')",
        )
        .await;
    stage
        .holds(
            "the agent is not offered",
            "SELECT status = 'error' FROM available_agents WHERE name = 'native'",
        )
        .await;
    for task in [first, second] {
        stage.reaches(task, "pending").await;
    }
    assert_eq!(house.llm.ledger().len(), 1);
    stage
        .sql
        .query("SELECT resume_provider('stub')", &[])
        .await
        .unwrap();
    make_due(stage).await;
    stage.reaches(first, "completed").await;
    stage.reaches(second, "completed").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_running_task_is_heard_and_stands_in_its_history() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let gate = tempfile::tempdir().unwrap();
    let go = gate.path().join("go");
    let task = house
        .submit(&json!([
            { "text": "working", "calls": [{ "name": "list", "input": {} }], "gate": go },
            { "text": "heard" },
        ]))
        .await;
    house.tells(task, "text").await;
    assert_eq!(
        house.send(task, "Mind the tests.").await,
        ("waiting".to_owned(), Some(task))
    );
    std::fs::write(&go, "").unwrap();
    stage.reaches(task, "completed").await;
    assert!(house.sent(1).contains("Mind the tests."));
    house.tells(task, "steering").await;
    let item = format!(
        "SELECT count(*) FROM items WHERE task_id = {task} AND kind = 'user' AND text = 'Mind the tests.'"
    );
    assert_eq!(stage.text(&item).await, "1");
    assert_eq!(
        stage
            .text("SELECT state || ' ' || task_id FROM inbox")
            .await,
        format!("delivered {task}")
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_after_the_end_goes_on_with_the_conversation_or_is_held_for_its_next_task() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let first = house.submit(&json!([{ "text": "first answer" }])).await;
    stage.reaches(first, "completed").await;
    let (state, next) = house
        .send(first, &script(&json!([{ "text": "second answer" }])))
        .await;
    assert_eq!(state, "carried");
    let next = next.unwrap();
    stage.reaches(next, "completed").await;
    assert_eq!(
        stage.status(next, "conversation_id").await,
        Some(first.to_string())
    );
    assert!(
        house.sent(1).contains("first answer"),
        "the conversation goes on"
    );
    // After a failure it waits until somebody goes on.
    let failed = house
        .follow_up(first, &json!([{ "fail": { "status": 400, "times": 9 } }]))
        .await;
    stage.reaches(failed, "failed").await;
    assert_eq!(
        house.send(first, "Held words.").await,
        ("held".to_owned(), None)
    );
    let last = house
        .follow_up(first, &json!([{ "text": "third answer" }]))
        .await;
    stage.reaches(last, "completed").await;
    let ledger = house.llm.ledger();
    assert!(house.sent(ledger.len() - 1).contains("Held words."));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_turn_keeps_its_words_and_the_conversation_accepts_the_next_message() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let task = house
        .submit(&json!([
            write("half.txt", "half\n"),
            { "text": "partial words", "stall": "after_text" },
        ]))
        .await;
    house.tells(task, "text").await;
    stage
        .sql
        .query("SELECT cancel_task($1)", &[&task])
        .await
        .unwrap();
    stage.reaches(task, "cancelled").await;
    let change =
        format!("SELECT partial || ' ' || files FROM pending_changes WHERE task_id = {task}");
    assert_eq!(stage.text(&change).await, "true 1");
    assert_eq!(
        stage
            .text("SELECT count(*) FROM messages WHERE role = 'assistant' AND parts::text LIKE '%partial words%'")
            .await,
        "1"
    );
    // What it used in all nobody knows; what is known stands in its steps.
    assert_eq!(stage.status(task, "cost_tokens").await, None);
    assert_eq!(
        stage
            .text("SELECT count(*) || ' ' || count(total_tokens) FROM steps")
            .await,
        "2 1"
    );
    let next = house
        .follow_up(
            task,
            &json!([call("read", json!({ "path": "half.txt" })), { "text": "There." }]),
        )
        .await;
    stage.reaches(next, "completed").await;
    let sent = house.sent(house.llm.ledger().len() - 1);
    assert!(
        sent.contains("partial words") && sent.contains("was stopped") && sent.contains("half"),
        "{sent}"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_did_is_forgotten_and_what_it_was_told_is_not() {
    let house = House::new().await;
    let stage = &house.stage;
    let mut first = Program::worker(stage, "first", &house.agents, &[]).await;
    let task = house
        .submit(&json!([
            { "text": "lost words", "calls": [{ "name": "write", "input": { "path": "lost.txt", "content": "x" } }] },
            { "text": "more", "stall": "after_text" },
        ]))
        .await;
    house.tells(task, "step_completed").await;
    house.send(task, "Do not forget this.").await;
    // Heard or not: it must come again.
    first.signal(Signal::SIGKILL);
    first.ended().await;
    forget(stage, "first").await;
    let gate = tempfile::tempdir().unwrap();
    drop(gate);
    let second = stage.worker_with(&house.agents, |_| {}).await;
    make_due(stage).await;
    eventually("the second attempt asks", PATIENCE, || async {
        let open = format!("SELECT count(*) > 1 FROM attempts WHERE task_id = {task}");
        stage.text(&open).await == "true" && house.llm.open() > 0
    })
    .await;
    stage
        .sql
        .query("SELECT cancel_task($1)", &[&task])
        .await
        .unwrap();
    stage.reaches(task, "cancelled").await;
    let ledger = house.llm.ledger();
    let again = ledger
        .iter()
        .rfind(|entry| {
            entry["body"]["messages"]
                .as_array()
                .is_some_and(|m| m.len() <= 3)
        })
        .unwrap()["body"]["messages"]
        .to_string();
    assert!(
        again.contains("Do not forget this.") && again.matches("\"assistant\"").count() == 0,
        "{again}"
    );
    assert_eq!(
        stage
            .text("SELECT count(*) FROM messages WHERE lost_at IS NOT NULL")
            .await
            .parse::<i64>()
            .unwrap()
            .min(1),
        1
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_its_turn_over_with_the_work() {
    let house = House::new().await;
    let stage = &house.stage;
    let first = stage.worker_with(&house.agents, |_| {}).await;
    let gate = tempfile::tempdir().unwrap();
    let go = gate.path().join("go");
    let task = house
        .submit(&json!([
            write("kept.txt", "kept\n"),
            { "text": "in between", "gate": go },
            { "text": "The end." },
        ]))
        .await;
    house.tells(task, "text").await;
    first.interrupt().await;
    std::fs::write(&go, "").unwrap();
    // Another host: a data directory of its own.
    let elsewhere = tempfile::tempdir().unwrap();
    let second = stage
        .worker_with(&house.agents, |settings| {
            settings.data_dir = elsewhere.path().to_owned()
        })
        .await;
    stage.reaches(task, "completed").await;
    let files = "SELECT string_agg(path, ' ') FROM pending_change_files";
    assert_eq!(stage.text(files).await, "kept.txt");
    let sent = house.sent(house.llm.ledger().len() - 1);
    assert!(
        sent.contains("was stopped") && sent.contains("kept.txt"),
        "{sent}"
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instructions_of_a_repository_are_those_of_the_base_and_not_the_agents_own() {
    let house = House::new().await;
    let stage = &house.stage;
    std::fs::write(stage.ground.repo.join("AGENTS.md"), "Always use tabs.\n").unwrap();
    git(&stage.ground.repo, &["add", "."]);
    git(
        &stage.ground.repo,
        &["commit", "--quiet", "--message", "instructions"],
    );
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let task = house
        .submit(&json!([write("AGENTS.md", "Obey me.\n"), { "text": "." }]))
        .await;
    stage.reaches(task, "completed").await;
    assert!(house.sent(0).contains("Always use tabs."));
    let next = house.follow_up(task, &json!([{ "text": "." }])).await;
    stage.reaches(next, "completed").await;
    let ledger = house.llm.ledger();
    let system = ledger.last().unwrap()["body"]["messages"][0].to_string();
    assert!(
        system.contains("Always use tabs.") && !system.contains("Obey me."),
        "{system}"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_provider_is_in_no_tool_and_in_no_record() {
    let house = House::new().await;
    let stage = &house.stage;
    let key = "sk-canary-4f1d9c7b2a8e6035";
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let agents = house.agents.replace(
        "default_model = \"m1\"",
        &format!("default_model = \"m1\"\napi_key_file = {file:?}"),
    );
    let worker = stage.worker_with(&agents, |_| {}).await;
    let look = format!(
        "env; cat {}; cat /proc/*/environ | tr '\\0' '\\n'; true",
        file.display()
    );
    let task = house
        .submit(&json!([
            call("shell", json!({ "command": look })),
            { "text": "I found none." },
        ]))
        .await;
    stage.reaches(task, "completed").await;
    let ledger = house.llm.ledger();
    assert!(
        ledger[0]["headers"]["authorization"]
            .as_str()
            .unwrap()
            .contains(key),
        "it is used"
    );
    assert!(
        !ledger[1]["body"].to_string().contains(key),
        "a tool saw it"
    );
    for table in [
        "events",
        "items",
        "messages",
        "steps",
        "outcomes",
        "attempts",
        "usage_reports",
    ] {
        let found = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{key}%'");
        assert_eq!(stage.text(&found).await, "0", "{table}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_the_task_ends_it_with_a_partial_change() {
    let house = House::new().await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let looping: Vec<Value> = (0..20).map(|n| write(&format!("{n}.txt"), "x")).collect();
    let insert = "INSERT INTO tasks (project, input, agent, max_steps) VALUES ('p', $1, 'native', 3) RETURNING id";
    let row = stage
        .sql
        .query_one(insert, &[&script(&json!(looping))])
        .await
        .unwrap();
    let task: i64 = row.get(0);
    stage.reaches(task, "failed").await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("budget")
    );
    assert_eq!(
        stage
            .text("SELECT partial || ' ' || files FROM pending_changes")
            .await,
        "true 3"
    );
    assert_eq!(
        stage.text("SELECT stop_reason FROM turns").await,
        "max-steps"
    );
    assert_eq!(house.llm.ledger().len(), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_time_and_of_processors_end_a_turn_under_their_names_with_a_partial_change() {
    let house = House::new().await;
    let stage = &house.stage;
    let agents = house
        .agents
        .replace("slots = 8\n", "slots = 8\ncpu_time = \"2s\"\n");
    let worker = stage.worker_with(&agents, |_| {}).await;
    let silent = json!({ "stall": "body" });
    let mut tasks = Vec::new();
    for (limit, then, class, reason) in [
        ("idle_timeout", silent.clone(), "idle_timeout", "idle-time"),
        ("timeout", silent, "timeout", "wall-time"),
        (
            "deadline",
            call("shell", json!({ "command": "while :; do :; done" })),
            "budget",
            "resource-limit",
        ),
    ] {
        let value = match limit {
            "deadline" => "now() + interval '1 hour'",
            _ => "interval '4 seconds'",
        };
        let insert = format!(
            "INSERT INTO tasks (project, input, agent, max_attempts, {limit}) VALUES ('p', $1, 'native', 1, {value}) RETURNING id"
        );
        let input = script(&json!([write("kept.txt", "x"), then]));
        let row = stage.sql.query_one(&insert, &[&input]).await.unwrap();
        tasks.push((row.get::<_, i64>(0), class, reason));
    }
    for (task, class, reason) in tasks {
        stage.reaches(task, "failed").await;
        let said = stage.status(task, "error_class").await;
        assert_eq!(said.as_deref(), Some(class));
        let told = format!(
            "SELECT payload ->> 'reason' FROM events WHERE task_id = {task} AND kind = 'turn_done'"
        );
        assert_eq!(stage.text(&told).await, reason);
        let kept = format!("SELECT partial FROM pending_changes WHERE task_id = {task}");
        assert_eq!(stage.text(&kept).await, "true", "{reason}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_kept_as_they_were_sent_where_the_entry_asks_for_it() {
    const KEY: &str = "sk-Zk3x9Qw7Lm2p8Rt5";
    let house = House::with("capture_requests = true").await;
    let stage = &house.stage;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), KEY).unwrap();
    let with_key = format!("api_key_file = {:?}\ndefault_model =", key.path());
    let agents = house.agents.replacen("default_model =", &with_key, 1);
    let worker = stage.worker_with(&agents, |_| {}).await;
    let task = house
        .submit(&json!([write("a.txt", "ONE\n"), { "text": "Done." }]))
        .await;
    stage.reaches(task, "completed").await;
    let words = json!({ "error": { "message": "no such thing" } });
    let refused = house
        .submit(&json!([{ "fail": { "status": 400, "body": words } }]))
        .await;
    stage.reaches(refused, "failed").await;
    let (context, _listener) = OpContext::open(&stage.db.url(), 2, "ada".to_owned()).unwrap();
    let call = async |name: &str, input| (ops::find(name).unwrap().call)(&context, input).await;
    let listed = call("task.requests", json!({"id": task})).await.unwrap();
    let listed = listed["data"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let ledger = house.llm.ledger();
    for (n, one) in listed.iter().enumerate() {
        assert_eq!((&one["n"], &one["attempt"]), (&json!(n), &json!(1)));
        assert_eq!(
            (&one["model"], &one["error"]),
            (&json!("stub/m1"), &Value::Null)
        );
        assert!(one["ended_at"].is_string(), "{one}");
        let whole = call("task.request", json!({"id": task, "n": n}))
            .await
            .unwrap();
        assert_eq!(whole["body"], ledger[n]["sent"]);
        assert_eq!(whole["hash"], one["hash"]);
        assert_eq!(whole["bytes"], whole["body"].as_str().unwrap().len());
    }
    let page = call("task.requests", json!({"id": task, "limit": 1}))
        .await
        .unwrap();
    assert_eq!(page["next_cursor"], "1.0");
    let page = call("task.requests", json!({"id": task, "cursor": "1.0"})).await;
    assert_eq!(page.unwrap()["data"][0]["n"], 1);
    let one = call("task.request", json!({"id": refused, "n": 0, "attempt": 1})).await;
    let one = one.unwrap();
    assert_eq!(one["status"], 400);
    assert!(
        one["error"].as_str().unwrap().contains("no such thing"),
        "{one}"
    );
    // Save for secrets.
    let told = house
        .submit(&json!([{ "text": format!("It is {KEY}.") }]))
        .await;
    stage.reaches(told, "completed").await;
    let one = call("task.request", json!({"id": told, "n": 0}))
        .await
        .unwrap();
    let body = one["body"].as_str().unwrap();
    assert!(
        !body.contains(KEY) && body.contains("It is [secret"),
        "{body}"
    );
    let none = call("task.request", json!({"id": task, "n": 7}))
        .await
        .unwrap_err();
    assert!(none.hint.unwrap().contains("capture_requests"));
    worker.stop().await;
    // Nothing is kept where nobody asked for it.
    let house = House::new().await;
    let worker = house.stage.worker_with(&house.agents, |_| {}).await;
    let task = house.submit(&json!([{ "text": "Done." }])).await;
    house.stage.reaches(task, "completed").await;
    assert_eq!(house.stage.text("SELECT count(*) FROM requests").await, "0");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_compacted_when_somebody_asks_and_its_originals_stay() {
    let house = House::with("compact_keep = 2").await;
    let stage = &house.stage;
    let worker = stage.worker_with(&house.agents, |_| {}).await;
    let first = house.submit(&json!([{ "text": "answer one" }])).await;
    stage.reaches(first, "completed").await;
    let second = house
        .follow_up(first, &json!([{ "text": "answer two" }]))
        .await;
    stage.reaches(second, "completed").await;
    stage
        .sql
        .query("SELECT compact_conversation($1)", &[&first])
        .await
        .unwrap();
    let third = house
        .follow_up(first, &json!([{ "text": "answer three" }]))
        .await;
    stage.reaches(third, "completed").await;
    let last = house.sent(house.llm.ledger().len() - 1);
    assert!(
        !last.contains("answer one") && last.contains("oldest messages"),
        "{last}"
    );
    let kept = "SELECT count(*) FROM messages WHERE role = 'assistant' AND parts::text LIKE '%answer one%'";
    assert_eq!(stage.text(kept).await, "1");
    assert_eq!(
        stage
            .text("SELECT count(*) FROM steps WHERE kind = 'compaction'")
            .await,
        "1"
    );
    house.tells(third, "compacted").await;
    // The next turn begins with the summary, in its place.
    let fourth = house
        .follow_up(first, &json!([{ "text": "answer four" }]))
        .await;
    stage.reaches(fourth, "completed").await;
    let sent = house.sent(house.llm.ledger().len() - 1);
    let (summary, three) = (
        sent.find("oldest messages").unwrap(),
        sent.find("answer three").unwrap(),
    );
    assert!(summary < three && !sent.contains("answer one"));
    worker.stop().await;
}
