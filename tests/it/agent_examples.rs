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

/// The entries that come along and those that can be added, as tables.
fn entries() -> [toml::Table; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    ["agents.toml", "worker/src/config/more_agents.toml"]
        .map(|file| std::fs::read_to_string(root.join(file)).unwrap())
        .map(|text| text.parse().unwrap())
}

/// The sections of docs/agents.md that are about agents: heading and text.
fn sections() -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agents.md");
    let text = std::fs::read_to_string(file).unwrap();
    let agents = text.split("\n## Agents, one by one\n").nth(1).unwrap();
    let agents = agents.split("\n## ").next().unwrap();
    let sections = agents.split("\n### ").skip(1);
    sections
        .map(|section| {
            let (heading, text) = section.split_once('\n').unwrap();
            (heading.to_owned(), text.to_owned())
        })
        .collect()
}

#[test]
fn each_agent_has_a_section_that_says_how_it_is_installed_and_added() {
    let sections = sections();
    for table in entries() {
        for (name, entry) in table["agents"].as_table().unwrap() {
            if name.starts_with("example-") || name == "native" {
                continue;
            }
            let named = format!("`{name}`");
            let (heading, text) = sections
                .iter()
                .find(|(heading, _)| heading.contains(&named))
                .unwrap_or_else(|| panic!("docs/agents.md has no section for {name}"));
            assert!(
                text.contains("`dispatch agents add "),
                "{heading} does not say how {name} is added"
            );
            let install = entry.get("install").and_then(toml::Value::as_str);
            let mut commands = install.unwrap_or_default().split('`').skip(1).step_by(2);
            let Some(command) = commands.find(|c| c.starts_with("npm ") || c.starts_with("pip "))
            else {
                continue;
            };
            let package = command.rsplit(' ').next().unwrap();
            assert!(
                text.contains(command) || text.contains(&format!("`{package}`")),
                "{heading} does not say `{command}`"
            );
        }
    }
}

/// Put what a person writes into what is there.
fn merge(into: &mut toml::Table, change: toml::Table) {
    for (key, value) in change {
        let both = value.is_table() && into.get(&key).is_some_and(toml::Value::is_table);
        if !both {
            into.insert(key, value);
            continue;
        }
        if let (Some(there), toml::Value::Table(more)) = (into[&key].as_table_mut(), value) {
            merge(there, more);
        }
    }
}

#[test]
fn what_the_documentation_changes_in_an_entry_is_accepted() {
    let mut seen = 0;
    for (heading, text) in sections() {
        let blocks = text.split("```toml\n").skip(1);
        for block in blocks.filter(|block| block.starts_with("[agents.")) {
            let block = block.split("```").next().unwrap();
            let [mut catalogue, more] = entries();
            let change: toml::Table = block.parse().unwrap();
            for name in change["agents"].as_table().unwrap().keys() {
                let known =
                    catalogue["agents"].get(name).is_some() || more["agents"].get(name).is_some();
                assert!(known, "{heading}: {name} is nobody's entry");
            }
            merge(&mut catalogue, more);
            merge(&mut catalogue, change);
            if let Err(error) = Catalogue::parse(&catalogue.to_string()) {
                panic!("{heading}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
