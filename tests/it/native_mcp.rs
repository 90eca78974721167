//! MCP servers of a native agent: their tools are the model's, and whatever a server does, it costs
//! its own tools and nothing else.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::agent::permission::PermissionAnswer;
use dispatch_worker::agent::{AgentError, AgentEvent};
use dispatch_worker::config::agent_spec::Verdict;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::llm::{Message, ToolResult};
use serde_json::{Value, json};

use crate::harness::native::{Answers, NativeBench, Ran, assert_no_dangling};
use crate::harness::{eventually, is_an_argument};

const FAKE: &str = env!("CARGO_BIN_EXE_fake-mcp");

/// Longest wait for a fact outside of a turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// The section of a scripted server, with more lines for it.
fn server(name: &str, words: &[&str], more: &str) -> String {
    let command: Vec<&str> = [FAKE].iter().chain(words).copied().collect();
    format!("[agents.native.native.mcp.{name}]\ncommand = {command:?}\n{more}\n")
}

/// A bench with one of them.
fn bench(words: &[&str], more: &str) -> NativeBench {
    NativeBench::with(&server("fake", words, more))
}

fn call(tool: &str, input: Value) -> Value {
    json!({ "calls": [{ "name": format!("mcp__fake__{tool}"), "input": input }] })
}

fn results(bench: &NativeBench) -> Vec<ToolResult> {
    let state = bench.memory.lock();
    assert_no_dangling(&state.messages);
    let all = state.messages.iter().flat_map(Message::tool_results);
    all.cloned().collect()
}

/// What the model was told of MCP tools in the first request.
fn offered(bench: &NativeBench) -> Vec<Value> {
    let body = bench.llm.bodies().remove(0);
    let tools = body["tools"].as_array().unwrap().iter();
    let functions = tools.map(|tool| tool["function"].clone());
    let is_mcp = |f: &Value| f["name"].as_str().unwrap().starts_with("mcp__");
    functions.filter(is_mcp).collect()
}

fn names(bench: &NativeBench) -> Vec<String> {
    let name = |f: Value| f["name"].as_str().unwrap().to_owned();
    offered(bench).into_iter().map(name).collect()
}

fn notices(ran: &Ran) -> Vec<String> {
    let notices = ran.events.iter().filter_map(|event| match event {
        AgentEvent::Notice { text } => Some(text.clone()),
        _ => None,
    });
    notices.filter(|text| text.contains("MCP")).collect()
}

/// A turn that calls a tool of a server and then one of its own, with the result of the first.
async fn after(bench: &NativeBench, tool: &str, input: Value) -> ToolResult {
    let list = json!({ "calls": [{ "name": "list", "input": {} }] });
    let ran = bench
        .run(json!([call(tool, input), list, { "text": "." }]))
        .await;
    ran.result.as_ref().unwrap();
    let mut results = results(bench);
    assert_eq!(results.len(), 2, "{tool}: {results:?}");
    assert!(!results[1].is_error, "{tool}: the turn goes on");
    assert!(bench.processes().is_empty(), "{:?}", bench.processes());
    results.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_of_a_server_is_offered_and_called_and_its_result_reaches_the_model() {
    let bench = bench(&["babble"], "");
    let answers = json!([
        call("echo", json!({ "text": "héllo 😀" })),
        call("structured", json!({})),
        call("image", json!({})),
        call("refuse", json!({})),
        call("noise", json!({})),
        { "text": "." },
    ]);
    let ran = bench.run(answers).await;
    ran.result.as_ref().unwrap();
    assert_eq!(notices(&ran), Vec::<String>::new());
    let echo = &offered(&bench)[0];
    assert_eq!(echo["name"], "mcp__fake__echo");
    assert_eq!(echo["description"], "The tool echo.");
    assert_eq!(echo["parameters"]["properties"]["text"]["type"], "string");
    let outputs: Vec<_> = results(&bench)
        .into_iter()
        .map(|result| (result.output, result.is_error))
        .collect();
    let expected = [
        ("héllo 😀", false),
        ("{\"answer\":42}", false),
        (
            "[an image, which cannot be shown]\na picture of a cat",
            false,
        ),
        ("no such page", true),
        ("after the noise", false),
    ];
    assert_eq!(outputs, expected.map(|(text, is)| (text.to_owned(), is)));
    let last = bench.llm.bodies().pop().unwrap()["messages"].to_string();
    assert!(last.contains("héllo 😀") && last.contains("no such page"));
    assert!(bench.processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tools_that_the_entry_names_are_offered_whatever_page_they_are_on() {
    let paged = bench(&["pages"], "tools = [\"grow\", \"echo\", \"none\"]");
    let ran = paged
        .run(json!([call("hang", json!({})), { "text": "." }]))
        .await;
    ran.result.as_ref().unwrap();
    assert_eq!(names(&paged), ["mcp__fake__echo", "mcp__fake__grow"]);
    let notices = notices(&ran);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("has no tool `none`"), "{notices:?}");
    let refused = &results(&paged)[0];
    assert!(
        refused.is_error
            && refused
                .output
                .contains("there is no tool `mcp__fake__hang`")
    );
    // What the entry disables is named as the model knows it.
    let disabled = NativeBench::with(&format!(
        "disabled_tools = [\"mcp__fake__echo\"]\n{}",
        server("fake", &[], "tools = [\"grow\", \"echo\"]")
    ));
    disabled.run(json!([{ "text": "." }])).await.result.unwrap();
    assert_eq!(names(&disabled), ["mcp__fake__grow"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_too_many_tools_and_pages_without_an_end_are_brought_within_bounds() {
    let odd = bench(&["odd"], "");
    odd.run(json!([call("a_b_2", json!({ "text": "x" })), { "text": "." }]))
        .await
        .result
        .unwrap();
    assert_eq!(
        names(&odd),
        [
            "mcp__fake__a_b",
            "mcp__fake__a_b_2",
            "mcp__fake__a_b_3",
            "mcp__fake___n_c_d_",
            "mcp__fake__"
        ]
    );
    assert!(
        !results(&odd)[0].is_error,
        "called by the server's own name"
    );
    for (words, count, what) in [("many", 64, Some("36 of its tools")), ("endless", 16, None)] {
        let bench = bench(&[words], "");
        let ran = bench.run(json!([{ "text": "." }])).await;
        ran.result.as_ref().unwrap();
        assert_eq!(names(&bench).len(), count, "{words}");
        let notices = notices(&ran).join("\n");
        assert!(notices.contains(what.unwrap_or("")), "{notices}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_told_in_the_words_that_every_provider_takes() {
    let bench = bench(&["types"], "");
    bench.run(json!([{ "text": "." }])).await.result.unwrap();
    let expected = json!({
        "type": "object", "required": ["text"],
        "properties": {
            "text": { "type": "string" },
            "at": {
                "type": "object", "required": ["line"],
                "properties": { "line": { "type": "integer" } },
            },
        },
    });
    assert_eq!(offered(&bench)[0]["parameters"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_left_out_and_said_to_be_and_the_turn_goes_on() {
    let missing = "[agents.native.native.mcp.missing]\ncommand = [\"no-such-server\"]\n";
    let all = [
        missing.to_owned(),
        server("dead", &["dead"], ""),
        server("mute", &["mute"], "timeout_s = 1"),
        server("flood", &["flood"], "timeout_s = 1"),
        server("line", &["line"], ""),
        server("asks", &["asks"], "timeout_s = 1"),
        "[agents.native.native.mcp.other]\ncommand = [\"true\"]\n".to_owned(),
        server("works", &[], "tools = [\"echo\"]"),
    ];
    let bench = NativeBench::with(&all.concat());
    let echo = json!({ "calls": [{ "name": "mcp__works__echo", "input": { "text": "x" } }] });
    let ran = bench.run(json!([echo, { "text": "." }])).await;
    ran.result.as_ref().unwrap();
    assert_eq!(names(&bench), ["mcp__works__echo"]);
    assert_eq!(results(&bench)[0].output, "x");
    let notices = notices(&ran);
    let expected = [
        ("asks", "within 1 s"),
        ("dead", "it said: the license of this server has expired"),
        ("flood", "within 1 s"),
        ("line", "8 MiB in one message"),
        ("missing", "`no-such-server` is not on the worker's PATH"),
        ("mute", "within 1 s"),
        ("other", "it ended"),
    ];
    assert_eq!(notices.len(), expected.len(), "{notices:#?}");
    for (notice, (name, why)) in notices.iter().zip(expected) {
        let begin = format!("the MCP server {name}: it is left out: ");
        assert!(
            notice.starts_with(&begin) && notice.contains(why),
            "{notice}"
        );
    }
    assert!(bench.processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_ends_at_its_timeout_and_the_turn_goes_on() {
    let bench = bench(&[], "timeout_s = 2");
    let result = after(&bench, "hang", json!({})).await;
    assert!(result.is_error);
    assert_eq!(
        result.output,
        "the MCP server fake: it did not answer within 2 s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_in_a_call_costs_its_own_tools_only() {
    for (tool, why) in [
        ("crash", "it ended"),
        ("huge", "8 MiB in one message"),
        ("line", "8 MiB in one message"),
        ("ask", "asked more than 10000 times"),
    ] {
        let bench = bench(&[], "");
        let result = after(&bench, tool, json!({})).await;
        assert!(result.is_error, "{tool}");
        assert!(result.output.contains(why), "{tool}: {}", result.output);
        // The next call says the same, at once.
        let bench = bench_again(bench).await;
        let results = results(&bench);
        assert!(results.iter().all(|result| !result.is_error));
    }
}

/// A new turn starts the servers anew.
async fn bench_again(bench: NativeBench) -> NativeBench {
    bench.memory.lock().messages.clear();
    let answers = json!([call("echo", json!({ "text": "again" })), { "text": "." }]);
    bench.run(answers).await.result.unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_server_that_is_gone_fails_at_once() {
    let bench = bench(&[], "");
    let answers = json!([call("crash", json!({})), call("echo", json!({})), { "text": "." }]);
    bench.run(answers).await.result.unwrap();
    let second = &results(&bench)[1];
    assert!(
        second.is_error && second.output.contains("it ended"),
        "{second:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_for_other_tools_holds_for_those_of_servers() {
    for (verdict, answer, asked, works) in [
        (Verdict::Ask, PermissionAnswer::Allow, 1, true),
        (Verdict::Ask, PermissionAnswer::Deny, 1, false),
        (Verdict::Deny, PermissionAnswer::Deny, 1, false),
        (Verdict::Allow, PermissionAnswer::Deny, 0, true),
    ] {
        let mut bench = bench(&[], "");
        bench.spec.permissions.default = Verdict::Allow;
        let kinds = &mut bench.spec.permissions.kinds;
        kinds.insert("other".to_owned(), verdict);
        bench.permission = Answers::always(answer);
        let result = after(&bench, "echo", json!({ "text": "x" })).await;
        assert_eq!(
            !result.is_error, works,
            "{verdict:?} {answer:?}: {result:?}"
        );
        let questions = bench.permission.asked.lock().unwrap();
        assert_eq!(questions.len(), asked, "{verdict:?}");
        let kinds: Vec<_> = questions.iter().map(|ask| ask.kind.as_str()).collect();
        assert!(kinds.iter().all(|kind| *kind == "other"), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_plan_mode_no_server_is_started() {
    let mut bench = bench(&["dead"], "");
    bench.turn.mode_id = Some("plan".to_owned());
    let ran = bench.run(json!([{ "text": "A plan." }])).await;
    ran.result.as_ref().unwrap();
    assert_eq!(names(&bench), Vec::<String>::new());
    assert_eq!(notices(&ran), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sees_no_key_of_a_provider_and_only_what_is_listed() {
    let mut bench = bench(&[], "env = { LISTED = \"yes\", TERM = \"own\" }");
    // A variable that every run of the tests has.
    for provider in Arc::make_mut(&mut bench.spec.native.providers).values_mut() {
        Arc::make_mut(provider).api_key_env = Some("CARGO_PKG_NAME".to_owned());
    }
    let output = after(&bench, "env", json!({})).await.output;
    let has = |line: &str| output.lines().any(|l| l == line);
    assert!(has("LISTED=yes") && has("TERM=own"), "{output}");
    assert!(!output.contains("CARGO_"), "{output}");
    let home = format!("HOME={}", bench.turn.home.display());
    assert!(has(&home), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_server_survives_the_end_of_the_turn_or_a_cancel() {
    let word = format!("left-{}", uuid::Uuid::new_v4());
    let leave = || call("leave", json!({ "argument": word }));
    let ended = bench(&[], "");
    ended
        .run(json!([leave(), { "text": "." }]))
        .await
        .result
        .unwrap();
    assert_eq!(results(&ended)[0].output, "left");
    assert!(ended.processes().is_empty() && !is_an_argument(&word));

    let cancelled = bench(&[], "");
    let running = cancelled
        .start(json!([leave(), call("hang", json!({})), { "text": "." }]))
        .until("the second call", |event| {
            let told = serde_json::to_value(event).unwrap();
            told["kind"] == "tool_call" && told.to_string().contains("mcp__fake__hang")
        })
        .await;
    assert!(is_an_argument(&word), "the first call left it");
    let (ran, took) = running.cancel().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(ran.error().class, ErrorClass::Cancelled);
    assert!(cancelled.processes().is_empty() && !is_an_argument(&word));
    assert_no_dangling(&cancelled.memory.lock().messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_does_not_wait_for_a_server_that_does_not_start() {
    let bench = bench(&["mute"], "");
    let running = bench
        .start(json!([{ "text": "." }]))
        .while_running(eventually("the server is there", PATIENCE, || async {
            bench.processes().iter().any(|process| {
                let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
                line.starts_with(FAKE.as_bytes())
            })
        }))
        .await;
    let (ran, took) = running.cancel().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(ran.error().class, ErrorClass::Cancelled);
    assert!(bench.processes().is_empty(), "{:?}", bench.processes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_server_counts_for_the_agents_limit() {
    let mut bench = bench(&[], "");
    bench.spec.limits.memory_mb = Some(120);
    let answers = json!([
        call("grow", json!({ "mb": 200 })),
        call("hang", json!({})),
        { "text": "." },
    ]);
    let ran = bench.run(answers).await;
    let error: &AgentError = ran.error();
    assert_eq!(error.class, ErrorClass::Budget, "{error}");
    assert!(error.message.contains("memory_mb = 120"), "{error}");
    assert!(bench.processes().is_empty());
}
