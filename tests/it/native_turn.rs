//! The loop of the native agent: requests and tools in turns, and every way out of it.

use std::time::Duration;

use dispatch_worker::agent::AgentEvent;
use dispatch_worker::agent::permission::PermissionAnswer;
use dispatch_worker::config::agent_spec::Verdict;
use dispatch_worker::config::native_spec::Api;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::llm::{Message, Role};
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::native::{Answers, NativeBench, assert_no_dangling};

/// One call of a tool.
fn call(name: &str, input: Value) -> Value {
    json!({ "calls": [{ "name": name, "input": input }] })
}

fn shell(command: &str) -> Value {
    call("shell", json!({ "command": command }))
}

/// Longest wait for a fact outside of a turn.
const PATIENCE: Duration = Duration::from_secs(20);

const ALL: [Api; 5] = [
    Api::Openai,
    Api::OpenaiResponses,
    Api::Anthropic,
    Api::Gemini,
    Api::Ollama,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_edits_a_file_and_ends_with_the_models_words_in_every_wire_format() {
    for api in ALL {
        let bench = NativeBench::speaking(api, "");
        bench.write("a.txt", "one\n");
        let edit = json!({ "path": "a.txt", "old_string": "one", "new_string": "zwei é😀" });
        let answers = json!([
            { "text": "I look.", "calls": [{ "name": "read", "input": { "path": "a.txt" } }], "fragment": 37 },
            { "calls": [{ "name": "edit", "input": edit }], "fragment": 37 },
            { "text": "Done: né😀.", "fragment": 37 },
        ]);
        let ran = bench.run(answers).await;
        let outcome = ran
            .result
            .as_ref()
            .unwrap_or_else(|e| panic!("{api:?}: {e}"));
        assert_eq!(outcome.stop_reason, "stop", "{api:?}");
        assert_eq!(ran.text(), "I look.Done: né😀.", "{api:?}");
        assert_eq!(bench.read("a.txt"), "zwei é😀\n", "{api:?}");
        assert_eq!(ran.reason(), "stop", "{api:?}");
        assert_no_dangling(&bench.memory.lock().messages);
        // The figures are the provider's own, to the token.
        let ledger = bench.llm.ledger();
        let sum = |key: &str| -> i64 {
            let said = ledger.iter().map(|entry| &entry["usage"][key]);
            said.filter_map(Value::as_i64).sum()
        };
        let tokens = outcome.usage.as_ref().unwrap().tokens;
        let total = tokens.total().unwrap();
        assert_eq!(total, sum("input") + sum("output"), "{api:?}: {ledger:#?}");
        assert_eq!(tokens.cache_read.unwrap_or(0), sum("cached"), "{api:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_told_from_its_start_to_its_end_with_steps_and_their_figures() {
    let bench = NativeBench::new();
    let ran = bench
        .run(json!([
            { "think": "hm", "text": "a", "calls": [{ "name": "list", "input": {} }] },
            { "text": "b" },
        ]))
        .await;
    let kinds: Vec<Value> = ran
        .events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap()["kind"].clone())
        .collect();
    assert_eq!(kinds[..2], ["started", "turn_started"]);
    assert_eq!(kinds.last().unwrap(), "turn_done");
    let steps = ran.told("step_completed");
    let ids: Vec<_> = steps.iter().map(|step| step["step_id"].clone()).collect();
    assert_eq!(ids, ["7.1#0", "7.1#1"]);
    for step in &steps {
        let figures = &step["figures"];
        assert_eq!(figures["model"], "stub/m1");
        assert!(
            figures["ttft_ms"].is_i64() && figures["decode_ms"].is_i64(),
            "{figures}"
        );
        let sum = figures["ttft_ms"].as_i64().unwrap() + figures["decode_ms"].as_i64().unwrap();
        assert_eq!(figures["request_ms"].as_i64(), Some(sum));
        assert!(figures["cost"]["amount"].is_string(), "{figures}");
    }
    assert!(
        ran.told("tool_call")
            .iter()
            .all(|call| call["step_id"] == "7.1#0")
    );
    // The context is the last request's; what it cost is the sum.
    let done = &ran.told("turn_done")[0];
    let last = steps[1]["figures"]["context_tokens"].as_i64();
    assert_eq!(done["context"].as_i64(), last);
    assert!(ran.result.unwrap().usage.unwrap().tokens.total() > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_look_run_together_and_one_that_changes_something_runs_alone() {
    let bench = NativeBench::new();
    bench.write("a.txt", "hello\n");
    // Each waits for the other: one after the other they would never end.
    let meet = |mine: &str, other: &str| {
        format!(
            "touch {mine}; for i in $(seq 100); do test -e {other} && exit 0; sleep 0.05; done; exit 1"
        )
    };
    let alone = json!({ "calls": [
        { "name": "shell", "input": { "command": meet("m1", "m2"), "timeout_s": 1 } },
        { "name": "shell", "input": { "command": meet("m2", "m1"), "timeout_s": 1 } },
    ]});
    let ran = bench.run(json!([alone, { "text": "." }])).await;
    ran.result.as_ref().unwrap();
    let results: Vec<bool> = {
        let state = bench.memory.lock();
        let results = state.messages.iter().flat_map(Message::tool_results);
        results.map(|result| result.is_error).collect()
    };
    assert_eq!(results, [true, false], "the first never meets the second");
    // The same look twice is one look, and both calls have their result.
    let reads = json!({ "calls": [
        { "name": "read", "input": { "path": "a.txt" } },
        { "name": "read", "input": { "path": "a.txt" } },
        { "name": "grep", "input": { "pattern": "hello" } },
    ]});
    let bench = NativeBench::new();
    bench.write("a.txt", "hello\n");
    let ran = bench.run(json!([reads, { "text": "." }])).await;
    ran.result.as_ref().unwrap();
    let state = bench.memory.lock();
    let results: Vec<_> = state
        .messages
        .iter()
        .flat_map(Message::tool_results)
        .collect();
    assert_eq!(results.len(), 3);
    assert!(
        results.iter().all(|result| result.output.contains("hello")),
        "{results:?}"
    );
    let shown = ran.told("tool_call");
    let completed = shown
        .iter()
        .filter(|call| call["status"] == "completed")
        .count();
    assert_eq!(completed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_tool_runs_before_the_answer_is_complete() {
    let bench = NativeBench::new();
    // The second call shows that the first one is complete; the answer never is.
    let calls = json!([
        { "name": "shell", "input": { "command": "touch ran" } },
        { "name": "list", "input": {} },
    ]);
    let ran = eventually("the tool runs", PATIENCE, || async {
        bench.worktree().join("ran").exists()
    });
    let running = bench.start(json!([{ "calls": calls, "stall": "after_calls" }]));
    let (ran, _) = running.while_running(ran).await.cancel().await;
    assert_eq!(ran.reason(), "aborted");
    // What it did is noted, for the answer that called it is not kept.
    let messages = bench.memory.lock().messages.clone();
    assert_no_dangling(&messages);
    assert!(messages.last().unwrap().text().contains("shell touch ran"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_cannot_do_is_told_to_the_model_and_never_ends_the_turn() {
    let bench = NativeBench::new();
    let answers = json!([
        { "calls": [
            { "name": "no_such_tool", "input": {} },
            { "name": "read", "input": { "path": "nowhere.txt" } },
            { "name": "read", "input": {}, "raw": "{bad json" },
            { "name": "read", "input": { "path": "/etc/passwd" } },
            { "name": "shell", "input": { "command": "exit 7" } },
        ]},
        { "text": "I see." },
    ]);
    let ran = bench.run(answers).await;
    ran.result.as_ref().unwrap();
    let state = bench.memory.lock();
    let results: Vec<_> = state
        .messages
        .iter()
        .flat_map(Message::tool_results)
        .collect();
    assert_eq!(results.len(), 5);
    assert!(results.iter().all(|result| result.is_error), "{results:?}");
    assert!(
        results[0]
            .output
            .contains("there is no tool `no_such_tool`")
    );
    assert!(results[2].output.contains("no JSON"));
    assert!(results[3].output.contains("outside the worktree"));
    assert!(results[4].output.contains("exit code 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_the_entry_holds_for_tools() {
    let mut bench = NativeBench::new();
    bench.spec.permissions.default = Verdict::Allow;
    let execute = "execute".to_owned();
    bench.spec.permissions.kinds.insert(execute, Verdict::Ask);
    bench.permission = Answers::always(PermissionAnswer::Deny);
    let answers = json!([shell("touch pwned"), call("write", json!({ "path": "ok", "content": "x" })), { "text": "." }]);
    bench.run(answers).await.result.unwrap();
    assert!(!bench.worktree().join("pwned").exists());
    assert!(bench.worktree().join("ok").exists());
    let asked = bench.permission.asked.lock().unwrap();
    let titles: Vec<_> = asked.iter().map(|ask| ask.title.as_str()).collect();
    assert_eq!(titles, ["shell touch pwned"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_deletes_or_moves_is_judged_as_such_too() {
    let mut bench = NativeBench::new();
    bench.spec.permissions.default = Verdict::Allow;
    for kind in ["delete", "move"] {
        let kinds = &mut bench.spec.permissions.kinds;
        kinds.insert(kind.to_owned(), Verdict::Ask);
    }
    bench.permission = Answers::always(PermissionAnswer::Deny);
    let patch = |section: &str| {
        let text = format!("*** Begin Patch\n{section}\n*** End Patch");
        call("apply_patch", json!({ "patch": text }))
    };
    let answers = json!([
        call("write", json!({ "path": "old", "content": "x\n" })),
        patch("*** Delete File: old"),
        patch("*** Update File: old\n*** Move to: new\n-x\n+y"),
        patch("*** Add File: added\n+x"),
        { "text": "." },
    ]);
    bench.run(answers).await.result.unwrap();
    let is = |name: &str| bench.worktree().join(name).exists();
    assert!(is("old") && !is("new") && is("added"));
    let asked = bench.permission.asked.lock().unwrap();
    let kinds: Vec<_> = asked.iter().map(|ask| ask.kind.as_str()).collect();
    assert_eq!(kinds, ["delete", "move"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_plan_mode_nothing_can_be_changed() {
    let mut bench = NativeBench::new();
    bench.turn.mode_id = Some("plan".to_owned());
    let answers = json!([call("write", json!({ "path": "x", "content": "x" })), shell("touch y"), { "text": "A plan." }]);
    bench.run(answers).await.result.unwrap();
    assert_eq!(std::fs::read_dir(bench.worktree()).unwrap().count(), 0);
    let ledger = bench.llm.ledger();
    let offered = ledger[0]["body"]["tools"].as_array().unwrap();
    let names: Vec<_> = offered
        .iter()
        .map(|t| t["function"]["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"read") && !names.contains(&"write") && !names.contains(&"shell"),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_and_instructions_are_the_same_in_every_request_of_a_turn() {
    let mut bench = NativeBench::new();
    bench.instructions = Some("Use tabs.".to_owned());
    let answers = json!([shell("true"), shell("false"), { "text": "." }]);
    bench.run(answers).await.result.unwrap();
    let ledger = bench.llm.ledger();
    assert_eq!(ledger.len(), 3);
    let fixed = |n: usize| {
        (
            ledger[n]["body"]["tools"].to_string(),
            ledger[n]["body"]["messages"][0].to_string(),
        )
    };
    assert!(fixed(0) == fixed(1) && fixed(1) == fixed(2));
    assert!(fixed(0).1.contains("Use tabs.") && fixed(0).1.contains("Working directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_the_turn_under_its_name_and_before_it_is_exceeded() {
    let looping = || json!((0..50).map(|_| shell("echo >> log")).collect::<Vec<_>>());
    for (native, reason) in [
        ("max_steps = 3", "max-steps"),
        ("max_tokens = 500", "token-budget"),
        ("max_cost = \"0.001\"", "cost-budget"),
    ] {
        let bench = NativeBench::with(native);
        let ran = bench.run(looping()).await;
        let error = ran.error();
        assert_eq!(error.class, ErrorClass::Budget, "{error}");
        assert_eq!(error.stop_reason.as_deref(), Some(reason));
        assert_eq!(ran.reason(), reason);
        assert!(error.message.contains("partial change"), "{error}");
        let used = error.usage.as_ref().unwrap().tokens.total().unwrap();
        assert!(reason != "token-budget" || used <= 500, "{used}");
        // What was done is there, and the conversation can go on.
        assert!(bench.worktree().join("log").exists());
        assert_no_dangling(&bench.memory.lock().messages);
        assert!(bench.processes().is_empty());
    }
    // What earlier attempts used counts.
    let bench = NativeBench::with("max_steps = 3");
    bench.memory.lock().remembered.spent.steps = 3;
    assert_eq!(bench.run(looping()).await.reason(), "max-steps");
    assert!(bench.llm.ledger().is_empty(), "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_money_needs_a_price() {
    let mut bench = NativeBench::with("max_cost = \"1\"");
    bench.spec.native.prices = Default::default();
    let ran = bench.run(json!([{ "text": "." }])).await;
    assert_eq!(ran.error().class, ErrorClass::InvalidOption);
    assert!(
        ran.error().message.contains("[prices.\"stub/m1\"]"),
        "{}",
        ran.error()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_ends_within_a_second_of_the_stop_and_keeps_its_words() {
    for stall in ["headers", "body", "after_text"] {
        let bench = NativeBench::new();
        let running = bench.start(json!([{ "text": "partial words", "stall": stall }]));
        let running = match stall {
            "after_text" => {
                running
                    .until(
                        "the text",
                        |e| matches!(e, AgentEvent::Text { text } if text.contains("s")),
                    )
                    .await
            }
            _ => {
                running
                    .until("the turn", |e| matches!(e, AgentEvent::TurnStarted { .. }))
                    .await
            }
        };
        let open = eventually("the request is open", PATIENCE, || async {
            bench.llm.open() == 1
        });
        let running = running.while_running(open).await;
        let (ran, took) = running.cancel().await;
        assert!(took < Duration::from_secs(5), "{stall}: {took:?}");
        assert_eq!(ran.error().class, ErrorClass::Cancelled);
        assert_eq!(ran.reason(), "aborted");
        eventually("the request is gone", Duration::from_secs(1), || async {
            bench.llm.open() == 0
        })
        .await;
        let state = bench.memory.lock();
        assert_no_dangling(&state.messages);
        let said: String = state
            .messages
            .iter()
            .filter(|m| m.role == Role::Assistant)
            .map(Message::text)
            .collect();
        assert_eq!(said.is_empty(), stall != "after_text", "{said:?}");
        assert!("partial words".starts_with(&said));
        // What the provider counts for it nobody knows: no figure is better than a wrong one.
        assert_eq!(ran.error().usage.as_ref().unwrap().tokens.total(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_a_tool_notes_what_it_may_have_done_and_the_conversation_goes_on() {
    let bench = NativeBench::new();
    let answers = json!([
        { "text": "I start.", "calls": [
            { "name": "shell", "input": { "command": "echo began; touch began; sleep 600" } },
            { "name": "write", "input": { "path": "never", "content": "x" } },
        ]},
    ]);
    let running = bench
        .start(answers)
        .until(
            "the output",
            |event| matches!(event, AgentEvent::ToolOutput { text, .. } if text.contains("began")),
        )
        .await;
    let (ran, took) = running.cancel().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(ran.reason(), "aborted");
    assert!(bench.processes().is_empty(), "{:?}", bench.processes());
    {
        let state = bench.memory.lock();
        assert_no_dangling(&state.messages);
        let said: Vec<_> = state
            .messages
            .iter()
            .skip(1)
            .map(|m| (m.role, m.text()))
            .collect();
        assert_eq!(said[0], (Role::Assistant, "I start.".to_owned()));
        assert!(said[1].1.contains("shell echo began"), "{said:?}");
    }
    // The answer itself was complete: its figures are known.
    assert!(ran.error().usage.as_ref().unwrap().tokens.total().is_some());
    // The next message is answered.
    let ran = bench.run(json!([{ "text": "Going on." }])).await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.text(), "Going on.");
    let ledger = bench.llm.ledger();
    let last = ledger.last().unwrap()["body"]["messages"].to_string();
    assert!(
        last.contains("I start.") && last.contains("may have done"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_a_running_turn_behind_the_results_of_its_tools_and_stays() {
    let bench = NativeBench::new();
    let gate = bench.root().join("gate");
    let answers = json!([
        { "text": "first", "calls": [{ "name": "list", "input": {} }], "gate": gate },
        { "text": "second" },
    ]);
    let running = bench
        .start(answers)
        .until("the text", |event| matches!(event, AgentEvent::Text { .. }))
        .await;
    bench.memory.lock().inbox.push("Also do this.".to_owned());
    std::fs::write(&gate, "").unwrap();
    let ran = running.finish().await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.told("steering")[0]["text"], "Also do this.");
    let state = bench.memory.lock();
    let roles: Vec<_> = state.messages.iter().map(|m| m.role).collect();
    assert_eq!(
        roles,
        [
            Role::User,
            Role::Assistant,
            Role::Tool,
            Role::User,
            Role::Assistant
        ]
    );
    assert_eq!(state.messages[3].text(), "Also do this.");
    let ledger = bench.llm.ledger();
    let sent = ledger[1]["body"]["messages"].as_array().unwrap();
    assert_eq!(sent.last().unwrap()["content"], "Also do this.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_with_the_last_answer_is_answered_too() {
    let bench = NativeBench::new();
    let gate = bench.root().join("gate");
    let running = bench
        .start(json!([{ "text": "all done", "gate": gate }, { "text": "that too" }]))
        .until("the text", |event| matches!(event, AgentEvent::Text { .. }))
        .await;
    bench.memory.lock().inbox.push("One more.".to_owned());
    std::fs::write(&gate, "").unwrap();
    let ran = running.finish().await;
    assert_eq!(ran.text(), "all donethat too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_is_compacted_between_pairs_and_goes_on() {
    let bench = NativeBench::with("compact_keep = 4");
    bench.memory.lock().remembered.context = Some(90_000);
    for n in 0..5 {
        let state = &mut bench.memory.lock().messages;
        state.push(Message::user(format!("question {n}")));
        state.push(Message {
            role: Role::Assistant,
            ..Message::user(format!("answer {n}"))
        });
    }
    let ran = bench.run(json!([{ "text": "after" }])).await;
    ran.result.as_ref().unwrap();
    let state = bench.memory.lock();
    assert_eq!(state.compactions.len(), 1);
    assert_eq!(state.compactions[0].why, "window");
    assert!(state.messages[0].text().contains("oldest messages"));
    assert_eq!(ran.told("compacted")[0]["replaced"], 7);
    let ledger = bench.llm.ledger();
    assert_eq!(ledger.len(), 2, "the summary and the answer");
    let summary = ledger[0]["body"].to_string();
    assert!(
        summary.contains("question 0") && summary.contains("answer 2"),
        "{summary}"
    );
    assert!(
        ledger[0]["body"]
            .get("tools")
            .is_none_or(|tools| tools.as_array().is_none_or(Vec::is_empty))
    );
    let answer = ledger[1]["body"]["messages"].to_string();
    assert!(
        !answer.contains("question 0") && answer.contains("question 4"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_the_provider_finds_too_long_is_compacted_once() {
    let bench = NativeBench::new();
    for n in 0..12 {
        bench
            .memory
            .lock()
            .messages
            .push(Message::user(format!("old {n}")));
    }
    let too_long = json!({ "fail": { "status": 400, "times": 1, "body": { "error": { "code": "context_length_exceeded", "message": "too long" } } }, "text": "fits" });
    let ran = bench.run(json!([too_long])).await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.text(), "fits");
    assert_eq!(bench.memory.lock().compactions[0].why, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_what_is_to_be_done_is_kept_and_shown_as_the_plan() {
    let bench = NativeBench::new();
    let todos = json!([{ "content": "look", "status": "completed" }, { "content": "mend", "status": "in_progress" }]);
    let ran = bench
        .run(json!([call("todo_write", json!({ "todos": todos })), { "text": "." }]))
        .await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.told("plan")[0]["entries"], todos);
    assert_eq!(bench.memory.lock().todos.as_ref().unwrap(), &todos);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_ends_of_an_answer_have_their_class() {
    for (finish, class) in [
        ("length", ErrorClass::AgentFailed),
        ("content_filter", ErrorClass::Refused),
    ] {
        let bench = NativeBench::new();
        let ran = bench
            .run(json!([{ "text": "half", "finish": finish }]))
            .await;
        assert_eq!(ran.error().class, class);
        assert_eq!(ran.reason(), finish.replace('_', "-"));
        assert!(ran.error().usage.as_ref().unwrap().tokens.total().is_some());
    }
}
