//! The shipped examples work through the shipped entries.

use std::path::Path;

use dispatch_worker::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use dispatch_worker::agent::{AgentEvent, EventSink, TurnRequest, catalog};
use dispatch_worker::config::agents::Catalogue;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::harness::sandbox;

struct Yes;

impl Permission for Yes {
    fn ask(&self, _ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        Box::pin(async { PermissionAnswer::Allow })
    }
}

async fn fix_the_bug(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agents.toml");
    let spec = Catalogue::load(&file).unwrap().agents[name].clone();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let worktree = root.join("worktree");
    std::fs::create_dir(&worktree).unwrap();
    std::fs::write(
        worktree.join("calc.py"),
        "def add(a, b):\n    return a - b\n",
    )
    .unwrap();
    let test = "import unittest, calc\nclass T(unittest.TestCase):\n    def test_add(self):\n        \
                self.assertEqual(calc.add(2, 3), 5)\n";
    std::fs::write(worktree.join("test_calc.py"), test).unwrap();
    let mut prompt = "Make the test pass.\nreplace calc.py: a - b => a + b\n".to_owned();
    if name == "example-acp" {
        prompt.push_str("run: python3 -m unittest -q\n");
    }
    prompt.push_str("say: The test passes.\n");
    let turn = TurnRequest {
        prompt,
        worktree: worktree.clone(),
        home: root.join("home"),
        tmp: root.join("tmp"),
        confinement: sandbox::confinement(&spec, &worktree, &root.join("home"), &root.join("tmp"))
            .await,
        secrets: Default::default(),
        mark: format!("test-{}", uuid::Uuid::new_v4()),
        model: None,
        mode_id: None,
        thinking_option_id: None,
        resume: None,
        session_worktree: None,
        session_used: Default::default(),
        native: None,
    };
    let agent = catalog::build(&spec);
    let (sink, mut events) = EventSink::channel();
    let turn = agent.run_turn(turn, sink, &Yes, CancellationToken::new());
    let read = async {
        let (mut text, mut tools, mut plans) = (String::new(), 0, 0);
        while let Some(event) = events.recv().await {
            match event {
                AgentEvent::Text { text: more } => text.push_str(&more),
                AgentEvent::ToolCall(_) => tools += 1,
                AgentEvent::Plan { .. } => plans += 1,
                _ => {}
            }
        }
        (text, tools, plans)
    };
    let (outcome, (text, tools, plans)) = tokio::join!(turn, read);
    let outcome = outcome.unwrap();
    assert!(
        std::fs::read_to_string(worktree.join("calc.py"))
            .unwrap()
            .contains("a + b")
    );
    assert!(text.contains("The test passes."), "{text}");
    match name {
        "example-acp" => {
            assert!(text.contains("ended with exit code 0"), "{text}");
            assert!(
                tools >= 4 && plans >= 3,
                "{tools} tool calls, {plans} plans"
            );
            assert!(outcome.usage.as_ref().unwrap().cost.is_some());
        }
        "example-tty" => assert!(outcome.usage.unwrap().tokens.input.unwrap() > 100),
        _ => assert_eq!(outcome.exit.code, Some(0)),
    }
}

#[tokio::test]
async fn the_acp_example_fixes_a_bug() {
    fix_the_bug("example-acp").await;
}

#[tokio::test]
async fn the_plain_example_fixes_a_bug() {
    fix_the_bug("example-cli").await;
}

#[tokio::test]
async fn the_terminal_example_fixes_a_bug() {
    fix_the_bug("example-tty").await;
}
