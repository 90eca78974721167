//! Who is confined, how that is told, and who may ask for less.

use dispatch_worker::domain::sandbox::Rung;
use serde_json::json;

use crate::harness::sandbox;
use crate::harness::worker::{FAKE, Stage, agents, write};

async fn held(stage: &Stage, task: i64) -> String {
    stage.reaches(task, "completed").await;
    let query = format!("SELECT sandbox || ' ' || network FROM attempts WHERE task_id = {task}");
    stage.text(&query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_says_how_it_was_held_and_a_project_may_ask_for_less() {
    let best = sandbox::working_rungs().await[0];
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(&agents(), |settings| settings.sandbox = Some(best))
        .await;
    let script = json!([write("b.txt", "b\n")]);
    let confined = stage.submit("acp", &script).await;
    assert_eq!(held(&stage, confined).await, format!("{best} full"));
    let told = "SELECT sandbox FROM workers";
    assert_eq!(stage.text(told).await, best.as_str());
    let lower = "UPDATE projects SET sandbox = 'none'";
    stage.sql.batch_execute(lower).await.unwrap();
    let trusted = stage.submit("acp", &script).await;
    assert_eq!(held(&stage, trusted).await, "none full");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_must_be_confined_is_not_offered_where_nothing_can() {
    let stage = Stage::new().await;
    let both = format!(
        "{}\n[agents.easy]\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\nsandbox = \"optional\"\n",
        agents()
    );
    let worker = stage
        .worker_with(&both, |settings| settings.sandbox = Some(Rung::None))
        .await;
    let script = json!([write("b.txt", "b\n")]);
    let strict = stage.submit("acp", &script).await;
    let easy = stage.submit("easy", &script).await;
    assert_eq!(held(&stage, easy).await, "none full");
    assert_eq!(
        stage.status(strict, "state").await.as_deref(),
        Some("pending")
    );
    let why = "SELECT error FROM agent_offers WHERE name = 'acp'";
    let why = stage.text(why).await;
    for words in ["cannot be confined", "bubblewrap", "sandbox = \"none\""] {
        assert!(why.contains(words), "{why}");
    }
    worker.stop().await;
}
