//! One task through the whole house, by the doors that SQL has.

use serde_json::json;

use crate::harness::program::{Program, make_due};
use crate::harness::repo::git;
use crate::harness::worker::{PATIENCE, Stage, agents, write};
use crate::harness::{eventually, is_an_argument};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_by_sql_runs_becomes_a_change_and_is_applied_when_approved() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let script = json!([
        { "say": "I will " }, { "say": "edit a file." },
        write("a.txt", "one\n2\nthree\n"),
        write("new.txt", "fresh\n"),
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;

    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds.first().map(String::as_str), Some("task_submitted"));
    assert_eq!(kinds[1], "attempt_started");
    assert!(kinds.contains(&"agent_started".to_owned()), "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 2..], ["change_ready", "task_completed"]);
    assert_eq!(
        stage.status(task, "output_summary").await.as_deref(),
        Some("I will edit a file.")
    );
    assert_eq!(
        stage.status(task, "execution_path").await.as_deref(),
        Some("acp")
    );

    let files = stage
        .text("SELECT string_agg(operation || ' ' || path, ', ' ORDER BY path) FROM pending_change_files")
        .await;
    assert_eq!(files, "edit a.txt, create new.txt");
    let before = git(&stage.ground.repo, &["status", "--porcelain"]);
    let digest = stage.text("SELECT digest FROM pending_changes").await;
    stage
        .sql
        .query(
            "SELECT approve_change((SELECT id FROM pending_changes), $1)",
            &[&digest],
        )
        .await
        .unwrap();
    stage
        .holds(
            "the change is applied",
            "SELECT state = 'applied' FROM pending_changes",
        )
        .await;
    assert_eq!(
        git(&stage.ground.repo, &["show", "main:a.txt"]),
        "one\n2\nthree"
    );
    assert_eq!(git(&stage.ground.repo, &["show", "main:new.txt"]), "fresh");
    // Nobody's checkout was touched: what changed is the branch under it.
    assert_eq!(
        std::fs::read_to_string(stage.ground.repo.join("a.txt")).unwrap(),
        "one\ntwo\nthree\n"
    );
    assert_eq!(before, "");
    let last = stage.stream(task).await.pop().unwrap();
    assert_eq!(last.0, "change_applied");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_leaves_the_same_kind_of_change() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let script = json!([{ "say": "hello" }, write("new.txt", "fresh\n")]);
    for agent in ["acp", "cli", "tty"] {
        let task = stage.submit(agent, &script).await;
        stage.reaches(task, "completed").await;
        let change = stage
            .text(&format!(
                "SELECT c.state || ' ' || f.operation || ' ' || f.path FROM pending_changes c \
                 JOIN pending_change_files f ON f.change_id = c.id WHERE c.task_id = {task}"
            ))
            .await;
        assert_eq!(change, "pending create new.txt", "{agent}");
        let said: String = stage
            .stream(task)
            .await
            .iter()
            .filter(|(kind, _)| kind == "text")
            .map(|(_, payload)| payload["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(said.trim(), "hello", "{agent}");
    }
    let left = std::fs::read_dir(stage.data.path().join("work/worktrees"))
        .unwrap()
        .count();
    worker.stop().await;
    assert_eq!(left, 0, "worktrees are gone once their change is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_for_good_keeps_what_it_wrote_as_a_partial_change() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let script = json!([write("half.txt", "half\n"), { "stderr": "out of ideas" }, { "exit": 7 }]);
    let task = stage.submit("cli", &script).await;
    stage.reaches(task, "failed").await;
    assert_eq!(
        stage.status(task, "error_class").await.as_deref(),
        Some("agent_failed")
    );
    let facts = stage
        .text("SELECT partial || ' ' || state FROM pending_changes")
        .await;
    assert_eq!(facts, "true pending");
    let exit = stage
        .text("SELECT exit_code || ' ' || stderr_tail FROM attempts")
        .await;
    assert_eq!(exit.trim(), "7 out of ideas");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_continues_on_top_of_the_result_and_takes_the_place_of_the_first_change() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let first = stage
        .submit("acp", &json!([write("a.txt", "one\n2\nthree\n")]))
        .await;
    stage.reaches(first, "completed").await;
    let more = json!([write("b.txt", "second\n")]).to_string();
    let second: i64 = stage
        .sql
        .query_one(
            "SELECT request_changes((SELECT id FROM pending_changes), $1)",
            &[&more],
        )
        .await
        .unwrap()
        .get(0);
    stage.reaches(second, "completed").await;
    let states = stage
        .text("SELECT string_agg(state || ':' || files, ' ' ORDER BY id) FROM pending_changes")
        .await;
    assert_eq!(
        states, "superseded:1 pending:2",
        "the second holds the work of both"
    );
    let conversation = stage.status(second, "conversation_id").await;
    assert_eq!(conversation, Some(first.to_string()));
    // What the first turn said of its files holds in the second.
    let places = stage
        .text("SELECT count(DISTINCT worktree)::text FROM attempts")
        .await;
    assert_eq!(places, "1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_a_person_and_the_answer_reaches_the_agent() {
    let stage = Stage::new().await;
    let asking = format!(
        "{}\n[agents.acp.permissions]\ndefault = \"ask\"\n",
        agents()
    );
    let worker = stage.worker_with(&asking, |_| {}).await;
    let script = json!([
        { "ask": { "tool": { "toolCallId": "t1", "title": "Run make", "kind": "execute" },
                   "answer_to": "answer.txt" } },
    ]);
    let task = stage.submit("acp", &script).await;
    stage
        .holds(
            "there is a question",
            "SELECT true FROM permission_requests WHERE status = 'pending'",
        )
        .await;
    stage
        .holds(
            "it shows",
            "SELECT phase = 'awaiting_permission' FROM task_status",
        )
        .await;
    stage
        .sql
        .query(
            "SELECT answer_permission(id, 'allow', 'anna') FROM permission_requests",
            &[],
        )
        .await
        .unwrap();
    stage.reaches(task, "completed").await;
    let answer = stage
        .text("SELECT patch FROM pending_change_files WHERE path = 'answer.txt'")
        .await;
    assert!(answer.contains(r#""optionId":"yes""#), "{answer}");
    let kinds: Vec<String> = stage
        .stream(task)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert!(
        kinds.contains(&"permission_requested".to_owned()),
        "{kinds:?}"
    );
    assert!(
        kinds.contains(&"permission_resolved".to_owned()),
        "{kinds:?}"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_edit_is_one_that_a_review_shows() {
    let stage = Stage::new().await;
    let allowing = format!(
        "{}\n[agents.acp.permissions]\ndefault = \"deny\"\nkinds = {{ edit = \"allow\" }}\n",
        agents()
    );
    let worker = stage.worker_with(&allowing, |_| {}).await;
    let ask = |id: &str, path: &str, answer_to: &str| {
        let tool = json!({"toolCallId": id, "title": "Write", "kind": "edit",
            "locations": [{"path": path}]});
        json!({ "ask": { "tool": tool, "answer_to": answer_to } })
    };
    let script = json!([
        ask("t1", "src/a.rs", "inside.txt"),
        ask("t2", "/etc/hosts", "outside.txt"),
        { "ask": { "tool": { "toolCallId": "t3", "title": "Write", "kind": "edit" },
                   "answer_to": "nowhere.txt" } },
        { "say": "Done." },
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let answers = [
        ("inside.txt", "yes"),
        ("outside.txt", "no"),
        ("nowhere.txt", "no"),
    ];
    for (file, option) in answers {
        let query = format!("SELECT patch FROM pending_change_files WHERE path = '{file}'");
        let answer = stage.text(&query).await;
        let wanted = format!("\"optionId\":\"{option}\"");
        assert!(answer.contains(&wanted), "{file}: {answer}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_and_the_deadline_decides() {
    let stage = Stage::new().await;
    let asking = format!(
        "{}\n[agents.acp.permissions]\ndefault = \"ask\"\nask_timeout = \"50ms\"\n",
        agents()
    );
    let worker = stage.worker_with(&asking, |_| {}).await;
    let script = json!([
        { "ask": { "tool": { "toolCallId": "t1", "title": "Run make", "kind": "execute" },
                   "answer_to": "answer.txt" } },
        { "say": "Done without make." },
    ]);
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let status = stage
        .text("SELECT status || ' ' || decided_by FROM permission_requests")
        .await;
    assert_eq!(status, "expired deadline");
    let answer = stage
        .text("SELECT patch FROM pending_change_files WHERE path = 'answer.txt'")
        .await;
    assert!(answer.contains(r#""optionId":"no""#), "{answer}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_left_the_catalogue_after_the_claim_costs_the_task_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let others = agents().replace("[agents.acp]", "[agents.renamed]");
    // A first task shows that the agent is offered; its slots stay open until the offers follow.
    let first = stage.submit("acp", &json!([{ "say": "hello" }])).await;
    stage.reaches(first, "completed").await;
    worker.reload(&others);
    let insert = "INSERT INTO tasks (project, input, agent, max_attempts) \
                  VALUES ('p', $1, 'acp', 1) RETURNING id";
    let script = json!([{ "say": "hello" }]).to_string();
    let row = stage.sql.query_one(insert, &[&script]).await.unwrap();
    let task: i64 = row.get(0);
    let waits = "SELECT uncharged = 1 AND reason LIKE '%is not in the agents.toml of worker test any more' \
                 FROM later_tasks";
    stage.holds("it goes back", waits).await;
    worker.reload(&agents());
    make_due(&stage).await;
    stage.reaches(task, "completed").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_leaves_the_file_is_not_offered_any_more() {
    let stage = Stage::new().await;
    let worker = Program::worker(&stage, "reloads", &agents(), &[]).await;
    let offered = "SELECT count(*) = 4 FROM agent_offers WHERE status = 'ready'";
    stage.holds("all are offered", offered).await;
    let others = agents().replace("[agents.acp]", "[agents.renamed]");
    std::fs::write(stage.data.path().join("reloads.toml"), others).unwrap();
    let renamed =
        "SELECT string_agg(name, ' ' ORDER BY name) = 'cli noop renamed tty' FROM agent_offers";
    stage.holds("the new name is", renamed).await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hook_left_in_the_background_ends_with_it() {
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(&agents(), |settings| settings.allow_hooks = true)
        .await;
    let hooks = |setup: Option<String>, teardown: Option<String>| {
        let sql = "UPDATE projects SET setup = $1, teardown = $2";
        let stage = &stage;
        async move { stage.sql.execute(sql, &[&setup, &teardown]).await.unwrap() }
    };
    // A number of seconds that nobody else sleeps; the hook itself ends a moment later.
    let own = std::process::id();
    let leaves = |n: u32| format!("setsid sleep {n}{own} </dev/null >/dev/null 2>&1 & sleep 2");
    let came_and_went = async |n: u32| {
        let word = format!("{n}{own}");
        for there in [true, false] {
            eventually(&format!("{word} is there: {there}"), PATIENCE, || async {
                is_an_argument(&word) == there
            })
            .await;
        }
    };
    hooks(Some(format!("{}; exit 1", leaves(81))), None).await;
    let task = stage.submit("acp", &json!([{ "say": "never" }])).await;
    came_and_went(81).await;
    let failed = format!(
        "SELECT EXISTS (SELECT 1 FROM attempts WHERE task_id = {task} AND end_kind = 'failed')"
    );
    stage.holds("the preparation failed", &failed).await;
    hooks(None, Some(leaves(82))).await;
    let task = stage.submit("acp", &json!([{ "say": "done" }])).await;
    came_and_went(82).await;
    stage.reaches(task, "completed").await;
    worker.stop().await;
}
