//! Providers that fail: what is tried again, where the wait is spent, and who else hears of it.

use std::time::Duration;

use dispatch_worker::agent::AgentEvent;
use dispatch_worker::agent::native::gate::Pause;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::llm::{Message, Role};
use serde_json::{Value, json};

use crate::harness::native::{NativeBench, assert_no_dangling};

fn failing(status: u16, times: u32) -> Value {
    json!({ "fail": { "status": status, "times": times }, "text": "at last" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_before_anything_was_told_is_made_again_with_growing_waits() {
    for fault in [
        failing(500, 3),
        failing(529, 3),
        failing(408, 3),
        json!({ "drop": "before_headers", "times": 3, "text": "at last" }),
        json!({ "drop": "headers", "times": 3, "text": "at last" }),
    ] {
        let bench = NativeBench::new();
        let ran = bench.run(json!([fault])).await;
        ran.result
            .as_ref()
            .unwrap_or_else(|error| panic!("{fault}: {error}"));
        assert_eq!(ran.text(), "at last");
        let slept: Vec<u64> = bench.clock.slept().iter().map(Duration::as_secs).collect();
        assert_eq!(slept.len(), 3, "{fault}: {slept:?}");
        assert!(
            (4..=6).contains(&slept[0]) && (24..=36).contains(&slept[2]),
            "{slept:?}"
        );
        let told = ran.told("provider_retry");
        let attempts: Vec<_> = told.iter().map(|retry| retry["attempt"].clone()).collect();
        assert_eq!(attempts, [0, 1, 2]);
        assert_eq!(ran.told("step_completed")[0]["figures"]["retries"], 3);
        // What failed without an answer cost nothing: the sum is known.
        assert!(ran.result.unwrap().usage.unwrap().tokens.total().is_some());
        // It is no fault of the provider's account: nobody else waits.
        assert!(bench.memory.lock().pauses.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_asks_to_wait_is_taken_at_its_word_and_everybody_waits() {
    let bench = NativeBench::new();
    let limited =
        json!({ "fail": { "status": 429, "times": 1, "retry_after": "17" }, "text": "at last" });
    let ran = bench.run(json!([limited])).await;
    ran.result.as_ref().unwrap();
    assert_eq!(bench.clock.slept(), [Duration::from_secs(17)]);
    assert_eq!(ran.told("provider_retry")[0]["code"], 429);
    let pauses = bench.memory.lock().pauses.clone();
    assert_eq!(pauses.len(), 1);
    let pause = &pauses[0];
    assert_eq!(
        (pause.provider.as_str(), pause.class),
        ("stub", "rate_limited")
    );
    assert_eq!(pause.wait, Duration::from_secs(17));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_wait_gives_the_slot_back_and_the_next_attempt_goes_on() {
    let mut bench = NativeBench::new();
    let limited = json!({ "fail": { "status": 429, "times": 1, "retry_after": "90" }, "text": "after the wait" });
    let answers = json!([
        { "text": "working", "calls": [{ "name": "list", "input": {} }] },
        limited,
    ]);
    let ran = bench.run(answers).await;
    let error = ran.error();
    assert_eq!(error.go_on_after, Some(Duration::from_secs(90)));
    assert_eq!(error.class, ErrorClass::RateLimited);
    assert_eq!(ran.reason(), "provider-wait");
    assert!(bench.clock.slept().is_empty());
    assert_no_dangling(&bench.memory.lock().messages);
    // Goes on where it was: nothing is said twice.
    bench.memory.lock().remembered.resumed = Some("its provider asked to wait".to_owned());
    bench.gate = Default::default();
    bench.given_back = 1;
    bench.memory.lock().remembered.begun = true;
    let prompt = bench.memory.lock().messages[0].text();
    let ran = bench.start_prompt(&prompt).finish().await;
    ran.result.as_ref().unwrap();
    assert_eq!(ran.text(), "after the wait");
    let state = bench.memory.lock();
    let roles: Vec<_> = state.messages.iter().map(|m| m.role).collect();
    assert_eq!(
        roles,
        [Role::User, Role::Assistant, Role::Tool, Role::Assistant]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_gives_the_slot_back_after_its_minute() {
    let bench = NativeBench::new();
    let ran = bench.run(json!([failing(503, 99)])).await;
    let wait = ran.error().go_on_after.unwrap();
    assert!((240..=360).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(bench.clock.slept().len(), 4);
    assert_eq!(bench.llm.ledger().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_pauses_the_provider_and_the_task_waits_for_a_person() {
    for (status, class) in [(401, "auth"), (402, "billing")] {
        let bench = NativeBench::new();
        let ran = bench.run(json!([failing(status, 99)])).await;
        let error = ran.error();
        assert_eq!(error.class, ErrorClass::Auth, "{error}");
        assert!(error.go_on_after.is_some(), "the task is not to blame");
        assert!(
            error.message.contains("dispatch providers resume stub"),
            "{error}"
        );
        assert_eq!(bench.llm.ledger().len(), 1, "{status}: it is asked once");
        assert_eq!(bench.memory.lock().pauses[0].class, class);
        // The next turn of this worker does not even ask.
        let ran = bench.run(json!([{ "text": "." }])).await;
        assert!(ran.error().go_on_after.is_some());
        assert_eq!(bench.llm.ledger().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_may_not_do_fails_the_task_and_keeps_nobody_else_waiting() {
    let bench = NativeBench::new();
    let ran = bench.run(json!([failing(403, 99)])).await;
    let error = ran.error();
    assert_eq!(error.class, ErrorClass::Auth, "{error}");
    assert!(error.go_on_after.is_none(), "it would not get better");
    assert_eq!(bench.llm.ledger().len(), 1, "it is asked once");
    assert!(bench.memory.lock().pauses.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_pause_of_somebody_else_is_waited_out() {
    let bench = NativeBench::new();
    let pause = Pause {
        until: tokio::time::Instant::now() + Duration::from_secs(40),
        class: "rate_limited".to_owned(),
        message: "429".to_owned(),
    };
    bench.gate.pause("stub", pause);
    let ran = bench.run(json!([{ "text": "now" }])).await;
    ran.result.as_ref().unwrap();
    let slept = bench.clock.slept();
    assert!(
        slept.len() == 1 && slept[0] > Duration::from_secs(30),
        "{slept:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_get_better_is_not_tried_again() {
    for (status, class) in [
        (404, ErrorClass::InvalidOption),
        (400, ErrorClass::AgentFailed),
        (422, ErrorClass::AgentFailed),
    ] {
        let bench = NativeBench::new();
        let ran = bench.run(json!([failing(status, 99)])).await;
        assert_eq!(ran.error().class, class, "{status}: {}", ran.error());
        assert_eq!(ran.error().go_on_after, None);
        assert_eq!(bench.llm.ledger().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_kept_and_gone_on_from_never_asked_for_twice() {
    let bench = NativeBench::new();
    let answers = json!([
        { "text": "half an answer", "calls": [{ "name": "shell", "input": { "command": "touch never" } }], "drop": "after_text", "times": 1 },
        { "text": "the other half" },
    ]);
    let ran = bench.run(answers).await;
    ran.result.as_ref().unwrap();
    assert!(ran.text().ends_with("the other half"), "{}", ran.text());
    let state = bench.memory.lock();
    assert_no_dangling(&state.messages);
    let first = &state.messages[1];
    assert_eq!(first.role, Role::Assistant);
    assert!("half an answer".starts_with(&first.text()) && !first.text().is_empty());
    assert!(state.messages[2].text().contains("Your answer ended here"));
    let guesses: Vec<bool> = state
        .steps
        .iter()
        .filter_map(|step| step.figures.as_ref())
        .map(|figures| figures.estimate.is_some_and(|guess| guess.tokens > 0))
        .collect();
    assert_eq!(guesses, [true, false], "budgets count what nobody says");
    // A part of it nobody counted.
    assert_eq!(ran.result.unwrap().usage.unwrap().tokens.total(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_keep_breaking_off_end_the_turn() {
    let bench = NativeBench::new();
    let broken = json!({ "text": "half", "drop": "after_text", "times": 9 });
    let ran = bench.run(json!([broken, broken, broken, broken])).await;
    assert_eq!(ran.error().class, ErrorClass::Protocol, "{}", ran.error());
    assert_eq!(ran.reason(), "error");
    assert_eq!(bench.llm.ledger().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_an_answer_is_tried_again_and_never_taken_for_one() {
    let bench = NativeBench::new();
    let ran = bench.run(json!([{ "garbage": true }])).await;
    assert!(ran.error().go_on_after.is_some(), "{}", ran.error());
    assert_eq!(ran.text(), "");
    let said = bench
        .memory
        .lock()
        .messages
        .iter()
        .filter(|m| m.role == Role::Assistant)
        .count();
    assert_eq!(said, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_the_wait_for_a_provider() {
    let mut bench = NativeBench::new();
    // A real clock: the wait would take five seconds.
    let real = std::sync::Arc::new(dispatch_worker::agent::native::RealTime);
    bench.real_clock(real);
    let running = bench
        .start(json!([failing(500, 9)]))
        .until("the wait", |event| {
            matches!(event, AgentEvent::ProviderRetry { .. })
        })
        .await;
    let (ran, took) = running.cancel().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(ran.reason(), "aborted");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_are_bounded_and_who_waits_says_so() {
    let mut bench = NativeBench::new();
    let provider = std::sync::Arc::make_mut(
        std::sync::Arc::make_mut(&mut bench.spec.native.providers)
            .get_mut("stub")
            .unwrap(),
    );
    provider.max_concurrent = Some(1);
    let taken = bench.gate.try_slot(provider).unwrap();
    let running = bench
        .start(json!([{ "text": "now" }]))
        .until(
            "the notice",
            |event| matches!(event, AgentEvent::Notice { text } if text.contains("waiting")),
        )
        .await;
    assert!(bench.llm.ledger().is_empty());
    drop(taken);
    assert_eq!(running.finish().await.text(), "now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_with_a_call_that_never_ended_is_mended_before_it_is_sent() {
    let bench = NativeBench::new();
    let call = json!({ "role": "assistant", "parts": [{ "type": "tool_call", "id": "c1", "name": "shell", "input": {} }] });
    {
        let messages = &mut bench.memory.lock().messages;
        messages.push(Message::user("before"));
        messages.push(serde_json::from_value(call).unwrap());
        messages.push(Message::user("in between"));
    }
    let ran = bench.run(json!([{ "text": "fine" }])).await;
    ran.result.as_ref().unwrap();
    let ledger = bench.llm.ledger();
    let sent = ledger[0]["body"]["messages"].as_array().unwrap();
    let roles: Vec<_> = sent.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(
        roles,
        ["system", "user", "assistant", "tool", "user", "user"]
    );
}
