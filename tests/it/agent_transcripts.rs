//! What real agents sent, replayed through the projections by the shipped entries.

use std::path::{Path, PathBuf};

use dispatch_worker::agent::AgentEvent;
use dispatch_worker::agent::acp::project::Projection;
use dispatch_worker::agent::pipe::jsonl::Stream;
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::domain::redact::Redactor;
use dispatch_worker::domain::usage::{SessionUsage, TokenCounts};
use rust_decimal::Decimal;
use serde_json::{Value, json};

fn lines(file: &str) -> Vec<Value> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/transcripts")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    assert!(head.starts_with("# "), "a transcript names its source");
    rest.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn entry(name: &str) -> AgentSpec {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agents.toml");
    Catalogue::load(&file).unwrap().agents[name].clone()
}

/// What of a turn must come out, whoever the agent was.
#[derive(Debug, Default)]
struct Told {
    text: String,
    edits: Vec<String>,
    finished: usize,
    unknown: Vec<String>,
}

fn told(events: impl IntoIterator<Item = AgentEvent>) -> Told {
    let mut told = Told::default();
    for event in events {
        match event {
            AgentEvent::Text { text } => told.text.push_str(&text),
            AgentEvent::ToolCall(call) => {
                if call.status.as_deref() == Some("completed") {
                    told.finished += 1;
                }
                told.edits.extend(call.paths);
            }
            AgentEvent::Unknown { method, .. } => told.unknown.push(method),
            _ => {}
        }
    }
    told.edits.sort();
    told.edits.dedup();
    told
}

fn replay_acp(file: &str) -> Told {
    let mut projection = Projection::new(Path::new("/w"), Redactor::default());
    let updates = lines(file)
        .into_iter()
        .filter(|line| line["method"] == "session/update");
    told(
        updates
            .flat_map(|line| projection.update(&line["params"]["update"]))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn acp_agents_are_understood_without_a_rest() {
    for file in [
        "acp/claude-edit.jsonl",
        "acp/codex-edit.jsonl",
        "acp/opencode-edit.jsonl",
    ] {
        let told = replay_acp(file);
        assert_eq!(told.unknown, Vec::<String>::new(), "{file}");
        assert_eq!(told.edits, ["hello.txt"], "{file}");
        assert!(
            told.finished >= 1 && told.text.len() > 20,
            "{file}: {told:?}"
        );
    }
}

/// What real agents ask when they edit a file of the worktree, where `edit = "allow"` shall hold.
#[test]
fn an_ordinary_edit_of_a_real_agent_is_one_in_the_worktree() {
    let tree = tempfile::tempdir().unwrap();
    let tree = tree.path().canonicalize().unwrap();
    let here = |value: &Value| -> Value {
        let text = value.to_string();
        serde_json::from_str(&text.replace("/w/", &format!("{}/", tree.display()))).unwrap()
    };
    let edit = |call: Value| {
        let (ask, _) =
            Projection::new(&tree, Redactor::default()).ask(&here(&json!({ "toolCall": call })));
        assert_eq!(ask.kind, "edit");
        assert!(!ask.outside, "{}: {}", ask.title, ask.detail);
    };
    let opencode = lines("acp/opencode-edit.jsonl");
    let asked: Vec<_> = opencode
        .iter()
        .filter(|line| line["method"] == "session/request_permission")
        .collect();
    assert_eq!(asked.len(), 1);
    edit(asked[0]["params"]["toolCall"].clone());
    // codex-acp 2.6.0.
    edit(
        json!({"toolCallId": "c", "title": "Edit files", "kind": "edit", "status": "pending",
        "locations": [{"path": "/w/hello.txt"}]}),
    );
    // fast-agent 0.10.46.
    edit(
        json!({"toolCallId": "pending", "title": "write_text_file", "kind": "edit",
        "status": "pending", "rawInput": {"path": "/w/hello.txt", "content_length": 39}}),
    );
    // The calls of Claude and codex, asked about by their id alone.
    for (file, id) in [
        ("acp/claude-edit.jsonl", "toolu_48f501a09b0b44a299bc"),
        ("acp/codex-edit.jsonl", "call_3aee15710f0b495489e6d037"),
    ] {
        let mut projection = Projection::new(&tree, Redactor::default());
        for line in lines(file) {
            if line["method"] == "session/update" {
                projection.update(&here(&line["params"]["update"]));
            }
        }
        let (ask, _) = projection.ask(&json!({"toolCall": {"toolCallId": id}}));
        assert_eq!((ask.kind.as_str(), ask.outside), ("edit", false), "{file}");
    }
}

#[test]
fn claude_in_print_mode_is_understood() {
    let spec = entry("claude-print");
    let mut stream = Stream::new(&spec.cli.jsonl, &spec.usage, None, Redactor::default());
    let events: Vec<_> = lines("pipe/claude-print-edit.jsonl")
        .iter()
        .flat_map(|line| stream.line(line))
        .collect();
    let told = told(events);
    assert!(told.text.len() > 20 && told.finished == 1, "{told:?}");
    assert_eq!(told.edits, ["/w/hello.txt"]);
    assert!(stream.session_id.is_some() && stream.failure().is_none());
    assert_eq!(stream.ended.as_deref(), Some("success"));
    let report = stream.report().unwrap();
    // The mock counts 400 + 800 cached + 100 written + 42 per request; there were two.
    let truth = TokenCounts {
        input: Some(800),
        output: Some(84),
        cache_read: Some(1_600),
        cache_write: Some(200),
        reasoning: None,
    };
    assert_eq!(report.tokens, truth);
    assert!(report.cost.is_some());
}

#[test]
fn codex_exec_is_understood() {
    let spec = entry("codex-exec");
    let mut stream = Stream::new(&spec.cli.jsonl, &spec.usage, None, Redactor::default());
    let events: Vec<_> = lines("pipe/codex-exec-edit.jsonl")
        .iter()
        .flat_map(|line| stream.line(line))
        .collect();
    let told = told(events);
    assert!(told.text.len() > 20 && told.finished == 1, "{told:?}");
    assert_eq!(told.edits, ["/w/hello.txt"]);
    assert!(stream.session_id.is_some() && stream.failure().is_none());
    assert!(stream.ended.is_some());
    // Two requests of 1200 (800 cached) and 42 (7 reasoning).
    let truth = TokenCounts {
        input: Some(800),
        output: Some(70),
        cache_read: Some(1_600),
        cache_write: Some(0),
        reasoning: Some(14),
    };
    assert_eq!(stream.report().unwrap().tokens, truth);
}

#[test]
fn opencode_run_is_understood() {
    let spec = entry("opencode-run");
    let mut stream = Stream::new(&spec.cli.jsonl, &spec.usage, None, Redactor::default());
    let events: Vec<_> = lines("pipe/opencode-run-edit.jsonl")
        .iter()
        .flat_map(|line| stream.line(line))
        .collect();
    let told = told(events);
    assert_eq!(
        told.text,
        "I will do this in the working tree now. \nAll done. The mock model finished the task. \n"
    );
    assert_eq!(
        (told.finished, told.edits),
        (1, vec!["hello.txt".to_owned()])
    );
    assert!(stream.session_id.is_some() && stream.failure().is_none());
    // Two requests, the second with one more of the first's answer in its prompt.
    let truth = TokenCounts {
        input: Some(1_200),
        output: Some(91),
        cache_read: Some(900),
        cache_write: Some(0),
        reasoning: Some(10),
    };
    let report = stream.report().unwrap();
    assert_eq!(report.tokens, truth);
    assert_eq!(report.cost.unwrap().amount.to_string(), "0.005385");
}

#[test]
fn opencode_run_that_refused_itself_has_failed() {
    let spec = entry("opencode-run");
    let mut stream = Stream::new(&spec.cli.jsonl, &spec.usage, None, Redactor::default());
    for line in lines("pipe/opencode-run-denied.jsonl") {
        stream.line(&line);
    }
    let failure = stream.failure().unwrap();
    assert!(
        failure.message.contains("rejected permission"),
        "{failure:?}"
    );
}

/// Both were seen to tell the totals of the session after `resume`.
#[test]
fn a_resumed_session_counts_only_its_new_turn() {
    for (name, file) in [
        ("codex-exec", "pipe/codex-exec-edit.jsonl"),
        ("claude-print", "pipe/claude-print-edit.jsonl"),
    ] {
        let spec = entry(name);
        let report = |before| {
            let mut stream = Stream::new(&spec.cli.jsonl, &spec.usage, before, Redactor::default());
            for line in lines(file) {
                stream.line(&line);
            }
            stream.report().unwrap()
        };
        let whole = report(None);
        let half = |n: Option<i64>| n.map(|n| n / 2);
        let before = SessionUsage {
            tokens: TokenCounts {
                input: half(whole.tokens.input),
                output: half(whole.tokens.output),
                cache_read: half(whole.tokens.cache_read),
                cache_write: half(whole.tokens.cache_write),
                reasoning: half(whole.tokens.reasoning),
            },
            cost: whole.cost.as_ref().map(|cost| cost.amount / Decimal::TWO),
        };
        let unknown = report(Some(SessionUsage::default()));
        assert_eq!(unknown.cost, None, "a total less something unknown");
        match name {
            "codex-exec" => assert_eq!(unknown.tokens, TokenCounts::default()),
            _ => assert_eq!(unknown.tokens, whole.tokens),
        }
        let turn = report(Some(before.clone()));
        match name {
            "codex-exec" => assert_eq!(turn.tokens, before.tokens),
            _ => {
                assert_eq!(turn.tokens, whole.tokens, "its tokens are the turn's");
                assert_eq!(turn.cost.unwrap().amount, before.cost.unwrap().normalize());
            }
        }
    }
}
