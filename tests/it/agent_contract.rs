//! The contract of `Agent`, as one list of cases run against every execution path, and what is
//! special about one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dispatch_worker::agent::event::Started;
use dispatch_worker::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use dispatch_worker::agent::{
    AgentError, AgentEvent, EventSink, TurnOutcome, TurnRequest, catalog, process,
};
use dispatch_worker::config::agent_spec::{AgentSpec, ErrorRule, Resume, UsageSemantics};
use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::config::native_spec::Api;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::usage::TokenCounts;
use dispatch_worker::sandbox::Confinement;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::llm::{FakeLlm, script};
use crate::harness::native::native_turn;
use crate::harness::sandbox;
use crate::harness::worker::HELPER;

const FAKE: &str = env!("CARGO_BIN_EXE_fake-agent");

/// Every ending must be over in this time, whatever the agent does: two graces, a cancel that is
/// not answered, a drain, and a busy machine.
const END_IN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Acp,
    Text,
    Jsonl,
    Pty,
    /// The scripted agent is a command of its shell; what the command writes is what is heard.
    Native,
}

use Kind::{Acp, Jsonl, Native, Pty, Text};

const ALL: &[Kind] = &[Acp, Text, Jsonl, Pty, Native];

/// Those whose process is the agent: how a command ends is the model's to judge.
const PROGRAMS: &[Kind] = &[Acp, Text, Jsonl, Pty];

type Case = fn(Kind) -> BoxFuture<'static, Result<()>>;

/// Name of the promise, where it has a meaning, the case.
const CASES: &[(&str, &[Kind], Case)] = &[
    ("text streams in order and the turn ends", ALL, |k| {
        Box::pin(text_streams(k))
    }),
    ("the first text comes before the end", ALL, |k| {
        Box::pin(first_text_comes_early(k))
    }),
    ("it works in the worktree", ALL, |k| {
        Box::pin(works_in_worktree(k))
    }),
    ("its environment is a list", ALL, |k| {
        Box::pin(environment_is_a_list(k))
    }),
    ("it inherits no open files", ALL, |k| {
        Box::pin(no_open_files(k))
    }),
    ("a cancel leaves no process", ALL, |k| {
        Box::pin(cancel_leaves_nothing(k))
    }),
    ("a drop leaves no process", ALL, |k| {
        Box::pin(drop_leaves_nothing(k))
    }),
    ("an end leaves no process", ALL, |k| {
        Box::pin(end_leaves_nothing(k))
    }),
    ("an exit code decides", PROGRAMS, |k| {
        Box::pin(exit_code_decides(k))
    }),
    ("a signal decides", PROGRAMS, |k| {
        Box::pin(signal_decides(k))
    }),
    // Text is never garbage where text is expected.
    (
        "lines that are not protocol are tolerated",
        &[Acp, Jsonl],
        |k| Box::pin(garbage(k)),
    ),
    ("a line of 20 MB is no problem", PROGRAMS, |k| {
        Box::pin(big_line(k))
    }),
    // Text has no lines that are held in memory.
    ("an endless line is a protocol error", &[Acp, Jsonl], |k| {
        Box::pin(endless_line(k))
    }),
    ("a flood arrives complete", PROGRAMS, |k| Box::pin(flood(k))),
    ("a missing program is named", PROGRAMS, |k| {
        Box::pin(missing_program(k))
    }),
    (
        "an option that is not offered fails before the prompt",
        ALL,
        |k| Box::pin(bad_option(k)),
    ),
    ("an error text is a failure", PROGRAMS, |k| {
        Box::pin(error_text(k))
    }),
    (
        "refused keys and full providers have their class",
        PROGRAMS,
        |k| Box::pin(error_classes(k)),
    ),
    // What a program prints for people holds figures only where a pattern says so: the pty case.
    ("usage is that of the turn", &[Acp, Jsonl, Pty], |k| {
        Box::pin(usage(k))
    }),
    // ACP sends the prompt in a message, so that there is nothing to quote.
    ("a prompt is one argument", &[Text, Jsonl, Pty], |k| {
        Box::pin(prompt_is_data(k))
    }),
    ("memory beyond the bound ends the attempt", ALL, |k| {
        Box::pin(memory_bound(k))
    }),
];

async fn contract(kind: Kind) {
    process::become_subreaper().unwrap();
    let mut failed = Vec::new();
    for (name, kinds, case) in CASES {
        if !kinds.contains(&kind) {
            continue;
        }
        let began = Instant::now();
        match timeout(Duration::from_secs(90), case(kind)).await {
            Ok(Ok(())) => println!("ok   {kind:?}: {name} ({:?})", began.elapsed()),
            Ok(Err(error)) => failed.push(format!("{name}: {error:#}")),
            Err(_) => failed.push(format!("{name}: did not end")),
        }
    }
    assert!(
        failed.is_empty(),
        "{kind:?} breaks the contract:\n{}",
        failed.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_of_acp() {
    contract(Acp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_of_text_on_pipes() {
    contract(Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_of_json_on_pipes() {
    contract(Jsonl).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_of_terminals() {
    contract(Pty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_of_the_native_agent() {
    contract(Native).await;
}

// The cases.

async fn text_streams(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let ran = bench
        .run(json!([{"say": "one\n"}, {"say": "two é€😀\n"}, {"end": "end_turn"}]))
        .await;
    let outcome = ran.result?;
    ensure!(ran.text == "one\ntwo é€😀\n", "text: {:?}", ran.text);
    ensure!(!outcome.stop_reason.is_empty());
    ensure!(
        matches!(ran.events.first(), Some(AgentEvent::Started(_))),
        "Started comes first"
    );
    let expected = if kind == Native { None } else { Some(0) };
    ensure!(
        kind == Acp || outcome.exit.code == expected,
        "exit: {:?}",
        outcome.exit
    );
    Ok(())
}

async fn first_text_comes_early(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let running = bench.start(json!([{"say": "early\n"}, {"hang": true}]));
    let running = running.until_text("early\n").await?;
    let ran = running.cancel().await?;
    ensure!(
        class(&ran) == Some(ErrorClass::Cancelled),
        "{:?}",
        ran.result
    );
    Ok(())
}

async fn works_in_worktree(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let ran = bench
        .run(json!([{"cwd": "cwd.txt"}, {"end": "end_turn"}]))
        .await;
    ran.result?;
    ensure!(bench.read("cwd.txt")? == bench.worktree().display().to_string());
    Ok(())
}

async fn environment_is_a_list(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind).with(|spec| {
        spec.env.insert("FAKE_LITERAL".to_owned(), "x".to_owned());
        // Cargo sets it for tests: it stands for a name that an entry allows.
        spec.env_allow.push("CARGO_MANIFEST_DIR".to_owned());
    });
    bench
        .run(json!([{"env": "env.txt"}, {"end": "end_turn"}]))
        .await
        .result?;
    let text = bench.read("env.txt")?;
    let env: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let allowed = [
        "PATH",
        "TMPDIR",
        "LANG",
        "TERM",
        "SHELL",
        "NO_BROWSER",
        "GIT_TERMINAL_PROMPT",
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
        "USER",
        "LOGNAME",
        "TZ",
        "DISPATCH_ATTEMPT",
        "FAKE_LITERAL",
        "CARGO_MANIFEST_DIR",
        // Of the native agent's shell: nobody reads pages or edits messages there.
        "PAGER",
        "GIT_PAGER",
        "GIT_EDITOR",
        "PWD",
        "SHLVL",
        "OLDPWD",
        "_",
    ];
    let others: Vec<_> = env.keys().filter(|name| !allowed.contains(name)).collect();
    ensure!(others.is_empty(), "not allowed: {others:?}");
    ensure!(
        std::env::var_os("CARGO_PKG_NAME").is_some(),
        "the canary is set in our environment"
    );
    ensure!(env["DISPATCH_ATTEMPT"] == bench.turn.mark && env["FAKE_LITERAL"] == "x");
    ensure!(
        env.contains_key("CARGO_MANIFEST_DIR"),
        "an allowed name is copied"
    );
    ensure!(env["HOME"] == bench.turn.home.display().to_string());
    Ok(())
}

async fn no_open_files(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    bench
        .run(json!([{"fds": "fds.txt"}, {"end": "end_turn"}]))
        .await
        .result?;
    let text = bench.read("fds.txt")?;
    let more: Vec<_> = text
        .lines()
        .filter(|line| !["0 ", "1 ", "2 "].iter().any(|std| line.starts_with(std)))
        // The directory it reads to find out.
        .filter(|line| !line.contains("/proc/"))
        .collect();
    ensure!(more.is_empty(), "{more:?}");
    Ok(())
}

/// An agent that does everything to survive.
fn survivor() -> Value {
    json!([
        {"ignore_term": true}, {"fork": "group"}, {"fork": "own_group"}, {"fork": "setsid"},
        {"fork": "daemon"}, {"fork": "wiped"}, {"say": "forked\n"}, {"hang": true},
    ])
}

async fn cancel_leaves_nothing(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let running = bench.start(survivor()).until_text("forked\n").await?;
    let running = running
        .until("all are there", || bench.processes().len() >= 6)
        .await?;
    let began = Instant::now();
    let ran = running.cancel().await?;
    ensure!(
        class(&ran) == Some(ErrorClass::Cancelled),
        "{:?}",
        ran.result
    );
    ensure!(began.elapsed() < END_IN, "took {:?}", began.elapsed());
    ensure!(
        bench.processes().is_empty(),
        "left: {:?}",
        bench.processes()
    );
    Ok(())
}

async fn drop_leaves_nothing(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let running = bench.start(survivor()).until_text("forked\n").await?;
    let running = running
        .until("all are there", || bench.processes().len() >= 6)
        .await?;
    drop(running);
    eventually("the processes end", || bench.processes().is_empty()).await
}

async fn end_leaves_nothing(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let script =
        json!([{"fork": "setsid"}, {"fork": "daemon"}, {"say": "done\n"}, {"end": "end_turn"}]);
    let began = Instant::now();
    let ran = bench.run(script).await;
    ran.result?;
    ensure!(ran.text == "done\n", "text: {:?}", ran.text);
    ensure!(
        began.elapsed() < END_IN,
        "a grandchild held the output for {:?}",
        began.elapsed()
    );
    ensure!(
        bench.processes().is_empty(),
        "left: {:?}",
        bench.processes()
    );
    Ok(())
}

async fn exit_code_decides(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let ran = bench
        .run(json!([{"say": "half\n"}, {"stderr": "the reason"}, {"exit": 3}]))
        .await;
    let error = ran.result.err().context("it must fail")?;
    let expected = if kind == Acp {
        ErrorClass::Protocol
    } else {
        ErrorClass::AgentFailed
    };
    ensure!(
        error.class == expected && error.exit.code == Some(3),
        "{error:?}"
    );
    ensure!(error.message.contains("exit code 3"), "{error}");
    ensure!(error.message.contains("the reason"), "{error}");
    ensure!(ran.text.starts_with("half\n"), "{:?}", ran.text);
    Ok(())
}

async fn signal_decides(kind: Kind) -> Result<()> {
    let ran = Bench::new(kind).run(json!([{"signal": 9}])).await;
    let error = ran.result.err().context("it must fail")?;
    ensure!(
        error.exit.signal == Some(9) && error.message.contains("signal 9"),
        "{error:?}"
    );
    Ok(())
}

async fn garbage(kind: Kind) -> Result<()> {
    let script = json!([
        {"garbage": "Loading…"}, {"garbage": "{\"half\":"}, {"raw": "\u{feff}"}, {"raw": "[1]"},
        {"raw": "[".repeat(100_000)}, {"raw": "nul \u{0}"}, {"say": "fine"}, {"end": "end_turn"},
    ]);
    let ran = Bench::new(kind).run(script).await;
    ran.result?;
    ensure!(ran.text == "fine", "{:?}", ran.text);
    let notices = ran
        .events
        .iter()
        .filter(|e| matches!(e, AgentEvent::Notice { .. }))
        .count();
    ensure!(notices >= 5, "{notices} notices");
    Ok(())
}

async fn big_line(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let script = json!([{"big_line": 20_000_000}, {"say": "after\n"}, {"end": "end_turn"}]);
    let ran = bench.run(script).await;
    ran.result?;
    ensure!(ran.text.ends_with("after\n"), "{:?}", tail(&ran.text));
    let longest = ran.events.iter().map(|event| match event {
        AgentEvent::Text { text } | AgentEvent::Notice { text } => text.len(),
        _ => 0,
    });
    ensure!(
        longest.max().unwrap_or(0) <= 64 * 1024,
        "an event is too large"
    );
    ensure!(
        !matches!(kind, Text | Pty) || ran.text.len() >= 20_000_000,
        "{}",
        ran.text.len()
    );
    Ok(())
}

async fn endless_line(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let ran = bench
        .run(json!([{"big_line": 70 * 1024 * 1024}, {"hang": true}]))
        .await;
    ensure!(
        class(&ran) == Some(ErrorClass::Protocol),
        "{:?}",
        ran.result
    );
    ensure!(bench.processes().is_empty());
    Ok(())
}

async fn flood(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let count = 20_000;
    let script: Vec<Value> = match kind {
        Text | Pty | Native => vec![json!({"flood": {"count": count, "bytes": 100}})],
        Acp | Jsonl => (0..count)
            .map(|_| json!({"say": "y"}))
            .chain([json!({"end": "end_turn"})])
            .collect(),
    };
    let ran = bench.run_file(script).await?;
    ran.result?;
    let heard = ran.text.bytes().filter(|byte| *byte == b'y').count();
    let expected = if matches!(kind, Text | Pty) {
        count * 100
    } else {
        count
    };
    ensure!(heard == expected, "{heard} of {expected}");
    Ok(())
}

async fn missing_program(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind).with(|spec| {
        spec.command[0] = "no-such-agent-anywhere".to_owned();
        spec.install = Some("npm install -g no-such-agent".to_owned());
    });
    let error = bench
        .run(json!([]))
        .await
        .result
        .err()
        .context("it must fail")?;
    ensure!(error.class == ErrorClass::AgentUnavailable, "{error:?}");
    ensure!(
        error.message.contains("npm install -g no-such-agent"),
        "{error}"
    );
    Ok(())
}

async fn bad_option(kind: Kind) -> Result<()> {
    let mut bench = Bench::new(kind);
    if kind == Acp {
        let modes =
            json!({"currentModeId": "ask", "availableModes": [{"id": "ask"}, {"id": "code"}]});
        bench.set(json!({"offers": { "modes": modes }}));
    } else {
        bench.spec.modes = vec!["ask".to_owned(), "code".to_owned()];
    }
    bench.turn.mode_id = Some("yolo".to_owned());
    let ran = bench
        .run(json!([{"write": {"path": "x", "text": "x"}}, {"end": "end_turn"}]))
        .await;
    let error = ran.result.err().context("it must fail")?;
    ensure!(error.class == ErrorClass::InvalidOption, "{error:?}");
    ensure!(error.message.contains("ask, code"), "{error}");
    ensure!(!bench.worktree().join("x").exists(), "the prompt was run");
    Ok(())
}

async fn error_text(kind: Kind) -> Result<()> {
    let script = json!([{"say": "trying\n"}, {"error": {"code": -32603, "message": "kaput"}}]);
    let error = Bench::new(kind)
        .run(script)
        .await
        .result
        .err()
        .context("it must fail")?;
    ensure!(
        error.class == ErrorClass::AgentFailed && error.message.contains("kaput"),
        "{error:?}"
    );
    Ok(())
}

async fn error_classes(kind: Kind) -> Result<()> {
    for (text, class) in [
        ("API Error: 401 invalid api key", ErrorClass::Auth),
        (
            "429 Too Many Requests, retry after 7 s",
            ErrorClass::RateLimited,
        ),
    ] {
        let script = json!([{"error": {"code": -32603, "message": text}}]);
        let error = Bench::new(kind)
            .run(script)
            .await
            .result
            .err()
            .context("it must fail")?;
        ensure!(error.class == class, "{error:?}");
        if class == ErrorClass::RateLimited {
            ensure!(
                error.retry_after == Some(Duration::from_secs(7)),
                "{error:?}"
            );
        }
    }
    Ok(())
}

async fn usage(kind: Kind) -> Result<()> {
    let figures = json!({"inputTokens": 2100, "cachedReadTokens": 900, "outputTokens": 101});
    let script = match kind {
        Acp => json!([{"usage": {"result": {"usage": figures}}}, {"end": "end_turn"}]),
        Jsonl => json!([
            {"usage": {"line": {"inputTokens": 1000, "cachedReadTokens": 400, "outputTokens": 50}, "cost": 0.25}},
            {"usage": {"line": {"inputTokens": 1100, "cachedReadTokens": 500, "outputTokens": 51}, "cost": 0.5}},
            {"end": "end_turn"},
        ]),
        Pty | Text | Native => {
            json!([{"say": "hello\n"}, {"usage": {"text": "in=2,100 cached=900 out=101\n"}}])
        }
    };
    let report = Bench::new(kind)
        .run(script)
        .await
        .result?
        .usage
        .context("usage is reported")?;
    let tokens = report.tokens;
    let found = (tokens.input, tokens.cache_read, tokens.output);
    ensure!(found == (Some(1_200), Some(900), Some(101)), "{report:?}");
    ensure!(!report.raw.is_empty(), "the raw report is kept");
    if kind == Jsonl {
        ensure!(report.cost.context("cost")?.amount.to_string() == "0.75");
    }
    let none = json!([{"say": "hello\n"}, {"end": "end_turn"}]);
    ensure!(
        Bench::new(kind).run(none).await.result?.usage.is_none(),
        "unknown is not zero"
    );
    Ok(())
}

async fn prompt_is_data(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind);
    let head = "--help $(touch pwned) `touch pwned`; 'q' \"d\" \\ {model}\n";
    let script = json!([{"argv": "argv.txt"}, {"end": "end_turn"}]);
    let prompt = format!("{head}{script}");
    let ran = bench.run_prompt(&prompt).await;
    ran.result?;
    ensure!(
        bench.read("argv.txt")?.ends_with(&prompt),
        "{}",
        bench.read("argv.txt")?
    );
    ensure!(!bench.worktree().join("pwned").exists());
    Ok(())
}

async fn memory_bound(kind: Kind) -> Result<()> {
    let bench = Bench::new(kind).with(|spec| spec.limits.memory_mb = Some(60));
    let ran = bench.run(json!([{"memory_mb": 120}])).await;
    ensure!(class(&ran) == Some(ErrorClass::Budget), "{:?}", ran.result);
    ensure!(bench.processes().is_empty());
    Ok(())
}

// What is special about ACP.

#[tokio::test]
async fn permissions_are_answered_by_kind_and_only_once() {
    for (answer, option) in [
        (PermissionAnswer::Allow, json!("yes")),
        (PermissionAnswer::Deny, json!("no")),
        (PermissionAnswer::Cancelled, Value::Null),
    ] {
        let mut bench = Bench::new(Acp);
        bench.permission = Answers::with(answer);
        let ran = bench
            .run(json!([{"ask": {"answer_to": "answer.txt"}}]))
            .await;
        let told: Value = serde_json::from_str(&bench.read("answer.txt").unwrap()).unwrap();
        assert_eq!(told["optionId"], option, "{answer:?}");
        let asked = bench.permission.asked.lock().unwrap();
        assert_eq!(
            (asked[0].kind.as_str(), asked[0].title.as_str()),
            ("execute", "Run a command")
        );
        // Nothing after a no, or cancelled without a cancel of ours: the agent gave up.
        assert_eq!(ran.result.is_ok(), answer == PermissionAnswer::Allow);
    }
    let mut bench = Bench::new(Acp);
    bench.permission = Answers::with(PermissionAnswer::Deny);
    let script = json!([{"ask": {"answer_to": "answer.txt"}}, {"say": "Done without it."}]);
    bench.run(script).await.result.unwrap();
}

#[tokio::test]
async fn a_cancel_answers_open_permissions_first() {
    let mut bench = Bench::new(Acp);
    bench.permission = Answers::never();
    let script = json!([{"say": "x"}, {"ask": {"answer_to": "answer.txt"}}, {"hang": true}]);
    let running = bench.start(script).until_text("x").await.unwrap();
    let asked = || !bench.permission.asked.lock().unwrap().is_empty();
    let running = running.until("it asks", asked).await.unwrap();
    let began = Instant::now();
    let ran = running.cancel().await.unwrap();
    assert_eq!(class(&ran), Some(ErrorClass::Cancelled));
    assert!(bench.read("answer.txt").unwrap().contains("cancelled"));
    assert!(began.elapsed() < END_IN, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_cancel_reaches_the_agent() {
    let bench = Bench::new(Acp);
    let script = json!([{"say": "x"}, {"wait_for_cancel": "cancelled.txt"}]);
    let running = bench.start(script).until_text("x").await.unwrap();
    let began = Instant::now();
    let ran = running.cancel().await.unwrap();
    assert_eq!(class(&ran), Some(ErrorClass::Cancelled));
    assert!(bench.read("cancelled.txt").is_ok(), "it was asked to stop");
    assert!(began.elapsed() < END_IN, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn unknown_requests_get_an_error_and_never_hang_the_turn() {
    let bench = Bench::new(Acp);
    let script = json!([
        {"request": {"method": "craft/drainMidTurnQueue", "params": {}, "answer_to": "a.txt"}},
        {"request": {"method": "fs/write_text_file", "params": {"path": "/x", "content": ""}, "answer_to": "b.txt"}},
        {"request": {"method": "elicitation/create", "params": {}, "answer_to": "c.txt"}},
        {"update": {"sessionUpdate": "hologram", "x": 1}},
        {"end": "end_turn"},
    ]);
    let ran = bench.run(script).await;
    ran.result.unwrap();
    assert!(bench.read("a.txt").unwrap().contains("-32601"));
    assert!(bench.read("b.txt").unwrap().contains("-32601"));
    assert!(bench.read("c.txt").unwrap().contains("decline"));
    assert!(
        ran.events
            .iter()
            .any(|e| matches!(e, AgentEvent::Unknown { method, .. } if method == "hologram"))
    );
}

#[tokio::test]
async fn files_and_terminals_stay_inside_when_they_are_offered() {
    let bench = Bench::new(Acp).with(|spec| {
        spec.acp.offer_fs = true;
        spec.acp.offer_terminal = true;
    });
    let secret = bench.dir.path().join("secret.txt");
    std::fs::write(&secret, "canary").unwrap();
    std::os::unix::fs::symlink(bench.dir.path(), bench.worktree().join("out")).unwrap();
    let mut steps = Vec::new();
    let hostile = [
        json!({"path": secret}),
        json!({"path": "../secret.txt"}),
        json!({"path": bench.worktree().join("../secret.txt")}),
        json!({"path": bench.worktree().join("out/secret.txt")}),
        json!({"path": bench.worktree().join(".git/config")}),
        json!({"path": "/proc/self/environ"}),
    ];
    for (n, params) in hostile.iter().enumerate() {
        let mut write = params.clone();
        write["content"] = json!("owned");
        steps.push(json!({"request": {"method": "fs/read_text_file", "params": params, "answer_to": format!("r{n}.txt")}}));
        steps.push(json!({"request": {"method": "fs/write_text_file", "params": write, "answer_to": format!("w{n}.txt")}}));
    }
    let good = bench.worktree().join("sub/good.txt");
    steps.push(json!({"request": {"method": "fs/write_text_file", "params": {"path": good, "content": "1\n2\n3\n"}}}));
    steps.push(json!({"request": {"method": "fs/read_text_file", "params": {"path": good, "line": 2, "limit": 1}, "answer_to": "part.txt"}}));
    steps.push(json!({"request": {"method": "terminal/create", "params": {"command": "sh", "args": ["-c", "pwd; echo err >&2; sleep 0.1; exit 4"]}}}));
    steps.push(json!({"request": {"method": "terminal/wait_for_exit", "params": {"terminalId": "t1"}, "answer_to": "exit.txt"}}));
    steps.push(json!({"request": {"method": "terminal/output", "params": {"terminalId": "t1"}, "answer_to": "output.txt"}}));
    // Left open: it must not outlive the attempt.
    steps.push(json!({"request": {"method": "terminal/create", "params": {"command": "sleep", "args": ["1000"]}}}));
    steps.push(json!({"request": {"method": "terminal/create", "params": {"command": "pwd", "cwd": "/"}, "answer_to": "cwd.txt"}}));
    steps.push(json!({"end": "end_turn"}));
    bench.run(json!(steps)).await.result.unwrap();
    for n in 0..hostile.len() {
        assert!(
            bench.read(&format!("r{n}.txt")).unwrap().contains("error"),
            "read {n}"
        );
        assert!(
            bench.read(&format!("w{n}.txt")).unwrap().contains("error"),
            "write {n}"
        );
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "canary");
    assert!(bench.read("part.txt").unwrap().contains("\"2\\n\""));
    assert!(bench.read("exit.txt").unwrap().contains("\"exitCode\":4"));
    let output = bench.read("output.txt").unwrap();
    assert!(output.contains(&bench.worktree().display().to_string()) && output.contains("err"));
    assert!(bench.read("cwd.txt").unwrap().contains("error"));
    assert!(bench.processes().is_empty(), "{:?}", bench.processes());
}

#[tokio::test]
async fn stop_reasons_decide() {
    for (reason, class) in [
        ("max_tokens", ErrorClass::AgentFailed),
        ("max_turn_requests", ErrorClass::AgentFailed),
        ("refusal", ErrorClass::Refused),
        ("cancelled", ErrorClass::Refused),
        ("whatever", ErrorClass::Protocol),
    ] {
        let error = Bench::new(Acp)
            .run(json!([{"end": reason}]))
            .await
            .result
            .unwrap_err();
        assert_eq!(error.class, class, "{reason}");
        assert_eq!(error.native_session_id.as_deref(), Some("fake-session"));
    }
    // codex-acp 2.6.0 ends a failed turn with end_turn and an error text as the answer.
    let status = json!({"sessionUpdate": "session_info_update",
        "_meta": {"codex": {"threadStatus": {"type": "systemError"}}}});
    let script = json!([{"say": "stream error: 400"}, {"update": status}, {"end": "end_turn"}]);
    let error = Bench::new(Acp).run(script).await.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::AgentFailed);
    assert!(error.message.contains("stream error: 400"), "{error}");
}

#[tokio::test]
async fn a_failed_request_that_ends_as_a_refusal_keeps_its_class_and_its_words() {
    // fast-agent 0.10.46 knows one stop reason for errors and refusals.
    let failed = |what: &str| {
        format!(
            "I hit an internal error while calling the model: generic request failed for model \
             'm' {what}. See fast-agent-error for additional details."
        )
    };
    for (said, class) in [
        (
            failed("(status=500): mock upstream failure"),
            ErrorClass::AgentFailed,
        ),
        (
            failed("(status=429): Rate limit reached"),
            ErrorClass::RateLimited,
        ),
        (failed("(status=401): Incorrect API key"), ErrorClass::Auth),
        // A model that refuses may speak of anything.
        (
            "I will not help to get around a rate limit (429).".to_owned(),
            ErrorClass::Refused,
        ),
    ] {
        let script = json!([{"say": said.clone()}, {"end": "refusal"}]);
        let error = Bench::new(Acp).run(script).await.result.unwrap_err();
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(&said), "{error}");
    }
}

#[tokio::test]
async fn what_the_entry_knows_for_an_error_fails_a_turn_that_ended_well() {
    let rule = ErrorRule {
        pattern: r"Error: key refused\.\s*\z".to_owned(),
        class: ErrorClass::Auth,
    };
    for kind in [Acp, Text, Pty] {
        let bench = || Bench::new(kind).with(|spec| spec.errors = vec![rule.clone()]);
        let script = json!([{"say": "I begin. Error: key refused.\n"}, {"end": "end_turn"}]);
        let error = bench().run(script).await.result.unwrap_err();
        assert_eq!(error.class, ErrorClass::Auth, "{kind:?}");
        assert!(error.message.ends_with(": Error: key refused."), "{error}");
        let script = json!([{"say": "Error: key refused. No more.\n"}, {"end": "end_turn"}]);
        bench().run(script).await.result.unwrap();
    }
    let script = json!([{"say": "I begin.\n"}, {"stderr": "Error: key refused."}, {"exit": 3}]);
    let bench = Bench::new(Text).with(|spec| spec.errors = vec![rule.clone()]);
    let error = bench.run(script).await.result.unwrap_err();
    assert_eq!((error.class, error.exit.code), (ErrorClass::Auth, Some(3)));
}

#[tokio::test]
async fn a_turn_in_a_session_that_tells_its_totals_used_what_it_added() {
    let told = json!({"inputTokens": 4200, "cachedReadTokens": 1800, "outputTokens": 202});
    let turn = async |session: &str| {
        let mut bench = Bench::new(Acp).with(|spec| {
            spec.usage.semantics = UsageSemantics::SessionCumulative;
        });
        bench.set(json!({"capabilities": {"loadSession": true}}));
        bench.turn.resume = Some(session.to_owned());
        bench.turn.session_used.tokens = TokenCounts {
            input: Some(1_200),
            cache_read: Some(900),
            output: Some(101),
            ..TokenCounts::default()
        };
        let script = json!([{"usage": {"result": {"usage": told}}}, {"end": "end_turn"}]);
        let tokens = bench
            .run(script)
            .await
            .result
            .unwrap()
            .usage
            .unwrap()
            .tokens;
        (tokens.input, tokens.cache_read, tokens.output)
    };
    let added = (Some(1_200), Some(900), Some(101));
    assert_eq!(turn("fake-session").await, added);
    let all = (Some(2_400), Some(1_800), Some(202));
    assert_eq!(turn("gone").await, all, "a new session begins at zero");
}

#[tokio::test]
async fn a_session_is_continued_and_its_history_is_not_news() {
    let capabilities = [
        json!({"loadSession": true}),
        json!({"sessionCapabilities": {"resume": {}}}),
    ];
    for capabilities in capabilities {
        let mut bench = Bench::new(Acp);
        bench.set(json!({ "capabilities": capabilities }));
        bench.turn.resume = Some("fake-session".to_owned());
        let ran = bench
            .run(json!([{"say": "new"}, {"end": "end_turn"}]))
            .await;
        assert_eq!(ran.text, "new");
        assert_eq!(ran.started().resume_failed, None);
        assert_eq!(
            ran.result.unwrap().native_session_id.as_deref(),
            Some("fake-session")
        );
    }
    // One that is gone is begun anew, and that is said.
    let mut bench = Bench::new(Acp);
    bench.set(json!({"capabilities": {"loadSession": true}}));
    bench.turn.resume = Some("gone".to_owned());
    let ran = bench.run(json!([{"end": "end_turn"}])).await;
    assert!(
        ran.started()
            .resume_failed
            .as_deref()
            .unwrap()
            .contains("no such session")
    );
    ran.result.unwrap();
    // An agent whose sessions belong to a directory is not asked to go on in another.
    for (resume, in_place, continues) in [
        (Resume::Never, true, false),
        (Resume::InPlace, false, false),
        (Resume::InPlace, true, true),
        (Resume::Always, false, true),
    ] {
        let mut bench = Bench::new(Acp).with(|spec| spec.acp.resume = resume);
        bench.set(json!({"capabilities": {"loadSession": true}}));
        bench.turn.resume = Some("fake-session".to_owned());
        bench.turn.session_worktree = Some(if in_place {
            bench.turn.worktree.clone()
        } else {
            "/gone".into()
        });
        let ran = bench.run(json!([{"end": "end_turn"}])).await;
        let why = ran.started().resume_failed.clone();
        assert_eq!(why.is_none(), continues, "{resume:?} {in_place}: {why:?}");
        assert!(why.is_none_or(|why| why.contains("acp.resume")));
        ran.result.unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_never_answers_can_be_cancelled() {
    for setting in [json!({"never_initialize": true}), json!({"no_read": true})] {
        let mut bench = Bench::new(Acp);
        bench.set(setting);
        let running = bench.start(json!([]));
        let there = || !bench.processes().is_empty();
        let running = running.until("it starts", there).await.unwrap();
        let ran = running.cancel().await.unwrap();
        assert_eq!(class(&ran), Some(ErrorClass::Cancelled));
        assert!(bench.processes().is_empty());
    }
}

#[tokio::test]
async fn another_protocol_version_and_a_missing_login_are_told() {
    let mut bench = Bench::new(Acp);
    bench.set(json!({"version": 2}));
    let error = bench.run(json!([])).await.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol);
    assert!(error.message.contains("version 2"), "{error}");
    bench.set(json!({"auth": true}));
    let error = bench.run(json!([])).await.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::Auth);
    assert!(error.message.contains("fake-login"), "{error}");
    bench.set(json!({"exit": 2, "stderr": "bad config"}));
    let error = bench.run(json!([])).await.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol);
    assert!(
        error.message.contains("exit code 2") && error.message.contains("bad config"),
        "{error}"
    );
}

#[tokio::test]
async fn a_probe_tells_missing_broken_and_logged_out_apart() {
    let probe = |bench: &Bench| {
        let (spec, dir) = (bench.spec.clone(), bench.dir.path().to_owned());
        async move { catalog::probe(&spec, sandbox::usual().await, &dir).await }
    };
    let mut bench = Bench::new(Acp).with(|spec| spec.version_args = vec!["--version".to_owned()]);
    bench.set(
        json!({"offers": {"modes": {"currentModeId": "ask", "availableModes": [{"id": "ask"}]}}}),
    );
    let found = probe(&bench).await;
    assert_eq!((found.status.as_str(), found.error), ("ready", None));
    assert_eq!(found.version.as_deref(), Some("1.2.3"));
    assert_eq!(found.modes, ["ask"]);
    assert_eq!(found.commands[0]["name"], json!("help"));
    bench.set(json!({"auth": true}));
    let found = probe(&bench).await;
    assert_eq!(
        (found.status.as_str(), found.error_class),
        ("error", Some(ErrorClass::Auth))
    );
    bench.spec.command[0] = "no-such-agent".to_owned();
    assert_eq!(probe(&bench).await.status.as_str(), "unavailable");
    let text = Bench::new(Text).with(|spec| spec.version_args = vec!["--version".to_owned()]);
    assert_eq!(
        probe(&text).await.version.as_deref(),
        Some("fake-agent 1.2.3")
    );
}

#[tokio::test]
async fn a_probe_is_made_in_a_repository_as_an_attempt_is() {
    let entry = "path = \"pipe\"\ncommand = [\"git\", \"{prompt}\"]\n\
                 version_args = [\"rev-parse\", \"--git-dir\"]\n";
    let bench = Bench::from_toml(Text, entry);
    let found = catalog::probe(&bench.spec, sandbox::usual().await, bench.dir.path()).await;
    assert_eq!(
        (found.version.as_deref(), found.error),
        (Some(".git"), None)
    );
}

// What is special about the others.

#[tokio::test]
async fn a_prompt_can_come_by_standard_input_and_by_file() {
    let bench = Bench::from_toml(
        Text,
        &format!("path = \"pipe\"\ncommand = [{FAKE:?}, \"cli\"]\ncli.prompt_via = \"stdin\"\n"),
    );
    assert_eq!(
        bench.run(json!([{"say": "by stdin"}])).await.text,
        "by stdin"
    );
    let command = "[\"/bin/sh\", \"-c\", \"cat \\\"$1\\\"\", \"sh\", \"{prompt_file}\"]";
    let bench = Bench::from_toml(Text, &format!("path = \"pipe\"\ncommand = {command}\n"));
    let long = "x".repeat(1024 * 1024);
    assert_eq!(bench.run_prompt(&long).await.text.len(), long.len());
}

#[tokio::test]
async fn a_prompt_is_typed_when_the_program_is_quiet() {
    let read = "stty -echo; printf 'ready\\n'; read line; printf 'got %s\\n' \"$line\"";
    let command = format!("[\"/bin/sh\", \"-c\", {read:?}]");
    let toml = format!("path = \"pty\"\ncommand = {command}\ncli.prompt_via = \"type\"\n");
    let ran = Bench::from_toml(Pty, &toml)
        .run_prompt("hello\nthere")
        .await;
    assert_eq!(ran.text, "ready\ngot hello there\n");
}

#[tokio::test]
async fn json_lines_that_tell_a_failure_win_over_exit_zero() {
    let bench = Bench::new(Jsonl);
    let ran = bench
        .run(json!([{"error": {"message": "is_error"}}, {"end": "x"}]))
        .await;
    assert_eq!(class(&ran), Some(ErrorClass::AgentFailed));
    let ran = bench.run(json!([{"say": "and gone"}])).await;
    let error = ran.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol, "{error}");
    assert!(error.message.contains("without finishing"), "{error}");
}

#[tokio::test]
async fn leftovers_of_a_killed_worker_are_found_by_their_mark() {
    let bench = Bench::new(Text);
    let running = bench
        .start(json!([{"say": "x"}, {"hang": true}]))
        .until_text("x")
        .await
        .unwrap();
    let mark = bench.turn.mark.clone();
    let ended = dispatch_worker::blocking::run(move || process::sweep_mark(&mark))
        .await
        .unwrap();
    assert!(ended.unwrap() >= 1, "the helper at least");
    let ran = running.finish().await;
    assert_eq!(ran.result.unwrap_err().exit.signal, Some(9));
}

// The bench.

/// An agent, a place for it, and somebody who answers its questions.
struct Bench {
    kind: Kind,
    spec: AgentSpec,
    dir: tempfile::TempDir,
    turn: TurnRequest,
    permission: Answers,
    /// Held: the native agent asks it.
    llm: Option<FakeLlm>,
}

/// What came of a turn.
struct Ran {
    result: Result<TurnOutcome, AgentError>,
    events: Vec<AgentEvent>,
    text: String,
}

impl Ran {
    fn started(&self) -> &Started {
        match &self
            .events
            .iter()
            .find(|event| matches!(event, AgentEvent::Started(_)))
        {
            Some(AgentEvent::Started(started)) => started,
            _ => panic!("it did not start: {:?}", self.result),
        }
    }
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let jsonl = r#"
            cli.output = "jsonl"
            cli.jsonl.text = [{ when = { "/type" = "text" }, at = "/text" }]
            cli.jsonl.thought = [{ when = { "/type" = "thought" }, at = "/text" }]
            cli.jsonl.session = [{ when = { "/type" = "end" }, at = "/session" }]
            cli.jsonl.error = [{ when = { "/type" = "error" }, at = "/message" }]
            cli.jsonl.end = { when = { "/type" = "end" }, reason = "/reason" }
            [agents.fake.usage]
            format = "jsonl"
            mode = "sum"
            select = { "/type" = "usage" }
            at = "/usage"
            input = "/inputTokens"
            cached_read = "/cachedReadTokens"
            output = "/outputTokens"
            input_includes_cached = true
            cost = "/cost"
            cost_is = "per_report"
        "#;
        let acp = r#"
            [agents.fake.usage]
            format = "acp"
            input = "/inputTokens"
            cached_read = "/cachedReadTokens"
            output = "/outputTokens"
            input_includes_cached = true
        "#;
        let pty = r#"
            [agents.fake.usage]
            format = "regex"
            pattern = 'in=(?<input>[\d,]+) cached=(?<cached>\d+) out=(?<output>\d+)'
            input_includes_cached = true
        "#;
        let (path, mode, more) = match kind {
            Acp => ("acp", "\"acp\", \"{}\"", acp),
            Text => ("pipe", "\"cli\", \"{prompt}\"", ""),
            Jsonl => ("pipe", "\"jsonl\", \"{prompt}\"", jsonl),
            Pty => ("pty", "\"tty\", \"{prompt}\"", pty),
            Native => return Self::native(),
        };
        Self::from_toml(
            kind,
            &format!("path = {path:?}\ncommand = [{FAKE:?}, {mode}]\n{more}"),
        )
    }

    /// The native agent on a scripted provider.
    fn native() -> Self {
        let llm = FakeLlm::start();
        let base_url = llm.base_url(Api::Openai);
        let program = Path::new(FAKE).parent().unwrap();
        let entry = format!(
            "path = \"native\"\npermissions = {{ default = \"allow\" }}\nreadable = [{program:?}]\n"
        );
        let provider = format!(
            "[providers.stub]\napi = \"openai\"\nbase_url = {base_url:?}\ndefault_model = \"m1\"\n"
        );
        let mut bench = Self::from_toml(Native, &format!("{entry}{provider}"));
        bench.turn.native = Some(native_turn(Arc::default()));
        bench.llm = Some(llm);
        bench
    }

    fn from_toml(kind: Kind, entry: &str) -> Self {
        let text = format!("[agents.fake]\nkill_grace = \"500ms\"\n{entry}");
        let spec = Catalogue::parse(&text).unwrap().agents["fake"].clone();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("worktree")).unwrap();
        let turn = TurnRequest {
            prompt: String::new(),
            worktree: root.join("worktree"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            // Chosen when the entry is final.
            confinement: Confinement::none(HELPER.into()),
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
        let permission = Answers::with(PermissionAnswer::Allow);
        Self {
            kind,
            spec,
            dir,
            turn,
            permission,
            llm: None,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut AgentSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// How the fake ACP agent behaves before the prompt.
    fn set(&mut self, setting: Value) {
        assert_eq!(self.kind, Acp);
        self.spec.command[2] = setting.to_string();
    }

    fn worktree(&self) -> &Path {
        &self.turn.worktree
    }

    fn read(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(self.worktree().join(file)).with_context(|| file.to_owned())
    }

    async fn run(&self, script: Value) -> Ran {
        self.start(script).finish().await
    }

    async fn run_prompt(&self, prompt: &str) -> Ran {
        self.start_prompt(prompt).finish().await
    }

    /// For scripts that are longer than an argument may be.
    async fn run_file(mut self, script: Vec<Value>) -> Result<Ran> {
        let script = json!(script).to_string();
        if self.kind == Jsonl {
            self.spec.command.truncate(2);
            self.spec.cli.prompt_via = dispatch_worker::config::agent_spec::PromptVia::Stdin;
        }
        Ok(self.start_prompt(&script).finish().await)
    }

    fn start(&self, script: Value) -> Running<'_> {
        if self.kind == Native {
            return self.start_prompt(&as_command(&script));
        }
        self.start_prompt(&script.to_string())
    }

    fn start_prompt(&self, prompt: &str) -> Running<'_> {
        let turn = TurnRequest {
            prompt: prompt.to_owned(),
            ..self.turn.clone()
        };
        let spec = self.spec.clone();
        let agent = catalog::build(&spec);
        let (sink, events) = EventSink::channel();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let permission = &self.permission;
        let turn = Box::pin(async move {
            let (tree, home, tmp) = (&turn.worktree, &turn.home, &turn.tmp);
            let confinement = sandbox::confinement(&spec, tree, home, tmp).await;
            let turn = TurnRequest {
                confinement,
                ..turn
            };
            agent.run_turn(turn, sink, permission, token).await
        });
        Running {
            turn,
            receiver: events,
            cancel,
            events: Vec::new(),
            text: String::new(),
        }
    }

    /// Living processes in the worktree, the agent's own included; also those without a mark.
    fn processes(&self) -> Vec<(PathBuf, String)> {
        let worktree = self.worktree();
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == worktree))
            .map(|path| {
                let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
                (path, String::from_utf8_lossy(&command).replace('\0', " "))
            })
            .collect()
    }
}

/// A turn of the native agent whose shell runs the scripted agent with this script.
fn as_command(steps: &Value) -> String {
    let quoted = steps.to_string().replace('\'', "'\\''");
    let command = format!("exec {FAKE} cli '{quoted}'");
    let call = json!({ "name": "shell", "input": { "command": command } });
    script(&json!([{ "calls": [call] }, { "finish": "stop" }]))
}

/// A turn in progress. Dropping it drops the adapter's future.
struct Running<'a> {
    turn: BoxFuture<'a, Result<TurnOutcome, AgentError>>,
    receiver: tokio::sync::mpsc::Receiver<AgentEvent>,
    cancel: CancellationToken,
    events: Vec<AgentEvent>,
    text: String,
}

impl Running<'_> {
    fn take(&mut self, event: AgentEvent) {
        if let AgentEvent::Text { text } | AgentEvent::ToolOutput { text, .. } = &event {
            self.text.push_str(text);
        }
        self.events.push(event);
    }

    async fn until_text(mut self, wanted: &str) -> Result<Self> {
        let wait = async {
            while !self.text.contains(wanted) {
                tokio::select! {
                    result = &mut self.turn => anyhow::bail!("it ended early: {result:?}"),
                    Some(event) = self.receiver.recv() => self.take(event),
                }
            }
            Ok(())
        };
        timeout(END_IN, wait)
            .await
            .context("the text did not come")??;
        Ok(self)
    }

    /// Let it run until something outside holds.
    async fn until(mut self, what: &str, holds: impl Fn() -> bool) -> Result<Self> {
        tokio::select! {
            result = &mut self.turn => anyhow::bail!("it ended early: {result:?}"),
            held = eventually(what, holds) => held?,
        }
        Ok(self)
    }

    async fn cancel(self) -> Result<Ran> {
        self.cancel.cancel();
        timeout(END_IN, self.finish())
            .await
            .context("the cancel did not end it")
    }

    async fn finish(mut self) -> Ran {
        let result = loop {
            tokio::select! {
                result = &mut self.turn => break result,
                Some(event) = self.receiver.recv() => self.take(event),
            }
        };
        while let Ok(event) = self.receiver.try_recv() {
            self.take(event);
        }
        Ran {
            result,
            events: self.events,
            text: self.text,
        }
    }
}

/// Somebody who answers every question in the same way, or never.
struct Answers {
    answer: Option<PermissionAnswer>,
    asked: Mutex<Vec<PermissionAsk>>,
}

impl Answers {
    fn with(answer: PermissionAnswer) -> Self {
        Self {
            answer: Some(answer),
            asked: Mutex::default(),
        }
    }

    fn never() -> Self {
        Self {
            answer: None,
            asked: Mutex::default(),
        }
    }
}

impl Permission for Answers {
    fn ask(&self, ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        self.asked.lock().unwrap().push(ask);
        match self.answer {
            Some(answer) => Box::pin(async move { answer }),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn class(ran: &Ran) -> Option<ErrorClass> {
    ran.result.as_ref().err().map(|error| error.class)
}

fn tail(text: &str) -> &str {
    &text[text.floor_char_boundary(text.len().saturating_sub(100))..]
}

/// Poll until it holds; bounded.
async fn eventually(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    crate::harness::eventually(what, END_IN, || std::future::ready(holds())).await;
    Ok(())
}
