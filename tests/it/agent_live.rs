//! Real agents, by hand: `DISPATCH_LIVE_AGENTS=agents.toml cargo test agent_live -- --ignored
//! --nocapture`. Prints one line per agent and prompt; the prompts come from `DISPATCH_LIVE_PROMPTS`
//! (a file with one `name<TAB>prompt` per line; a name that begins with `cancel` is cancelled after
//! its first tool call or text). Asserts only what holds for every agent: nothing is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use dispatch_worker::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use dispatch_worker::agent::{AgentEvent, EventSink, TurnRequest, catalog, process};
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::config::agents::Catalogue;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::sandbox;

struct AllowAll;

impl Permission for AllowAll {
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        println!("    asked: {} {:?}", ask.kind, ask.title);
        Box::pin(async { PermissionAnswer::Allow })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real agents; see the head of this file"]
async fn real_agents_play_their_scenarios() {
    process::become_subreaper().unwrap();
    let file = std::env::var("DISPATCH_LIVE_AGENTS").unwrap();
    let prompts = std::fs::read_to_string(std::env::var("DISPATCH_LIVE_PROMPTS").unwrap()).unwrap();
    let only = std::env::var("DISPATCH_LIVE_ONLY").unwrap_or_default();
    for (name, spec) in Catalogue::load(Path::new(&file)).unwrap().agents {
        if !only.is_empty() && !only.split(',').any(|wanted| wanted == name) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let found = catalog::probe(&spec, sandbox::usual().await, dir.path()).await;
        println!(
            "{name} probe: {:?} {:?} modes {:?} models {:?} thinking {:?} {:?} ({:.1?})",
            found.status,
            found.version,
            found.modes,
            found.models,
            found.thinking_options,
            found.error,
            began.elapsed()
        );
        for (scenario, prompt) in prompts.lines().filter_map(|line| line.split_once('\t')) {
            play(&name, &spec, scenario, prompt).await;
        }
    }
}

async fn play(name: &str, spec: &AgentSpec, scenario: &str, prompt: &str) {
    let dir = tempfile::tempdir_in(std::env::var("DISPATCH_LIVE_DIR").unwrap()).unwrap();
    let root = dir.path().canonicalize().unwrap();
    let worktree = root.join("worktree");
    std::fs::create_dir(&worktree).unwrap();
    git2::Repository::init(&worktree).unwrap();
    let mark = format!("live-{}", uuid::Uuid::new_v4());
    let turn = TurnRequest {
        prompt: prompt.replace("{worktree}", &worktree.display().to_string()),
        worktree: worktree.clone(),
        home: root.join("home"),
        tmp: root.join("tmp"),
        confinement: sandbox::confinement(spec, &worktree, &root.join("home"), &root.join("tmp"))
            .await,
        secrets: Default::default(),
        mark: mark.clone(),
        model: None,
        mode_id: None,
        thinking_option_id: None,
        resume: None,
        session_worktree: None,
        session_used: Default::default(),
        native: None,
    };
    let agent = catalog::build(spec);
    let (sink, mut events) = EventSink::channel();
    let cancel = CancellationToken::new();
    let began = Instant::now();
    let turn = agent.run_turn(turn, sink, &AllowAll, cancel.clone());
    let read = async {
        let (mut text, mut tools, mut count, mut notices) = (0, 0, 0, Vec::new());
        let mut first = None;
        while let Some(event) = events.recv().await {
            count += 1;
            match &event {
                AgentEvent::Text { text: more } => text += more.len(),
                AgentEvent::ToolCall(_) => tools += 1,
                AgentEvent::Notice { text } => notices.push(text.chars().take(200).collect()),
                AgentEvent::Unknown { method, .. } => notices.push(format!("unknown {method}")),
                _ => continue,
            }
            first.get_or_insert_with(|| began.elapsed());
            if scenario.starts_with("cancel") {
                cancel.cancel();
            }
        }
        (text, tools, count, notices, first)
    };
    let both = async { tokio::join!(turn, read) };
    let Ok((result, (text, tools, count, notices, first))) =
        timeout(Duration::from_secs(180), both).await
    else {
        println!("{name} {scenario}: NOT OVER after 180 s");
        return;
    };
    let took = began.elapsed();
    let files: Vec<String> = std::fs::read_dir(&worktree)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|file| file != ".git")
        .collect();
    let (end, usage) = match &result {
        Ok(outcome) => (
            format!("ok {}", outcome.stop_reason),
            outcome.usage.as_ref(),
        ),
        Err(error) => (
            format!("{}: {:.400}", error.class, error.message),
            error.usage.as_ref(),
        ),
    };
    let usage = usage.map(|usage| (usage.tokens, usage.cost.as_ref().map(|c| c.amount)));
    println!(
        "{name} {scenario}: {end} | {took:.1?} first {first:.1?} | {count} events, {text} bytes, \
         {tools} tools | files {files:?} | {usage:?} | {notices:?}"
    );
    let left = dispatch_worker::blocking::run(move || process::sweep_mark(&mark))
        .await
        .unwrap();
    assert_eq!(left.unwrap(), 0, "{name} {scenario} left processes");
}
