//! What a native turn stores: in order, once, under its lease; and what is left of it when an attempt
//! goes back or is lost.

use std::time::Duration;

use dispatch_worker::domain::change::Snapshot;
use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::domain::llm::{Message, Part, Role, ToolCall, ToolResult};
use dispatch_worker::domain::usage::{Cost, TokenCounts, UsageReport, UsageSource};
use dispatch_worker::store::attempts::Held;
use dispatch_worker::store::carried::{self, AgainFrom, CarriedWork};
use dispatch_worker::store::claims::{Claimed, Lease};
use dispatch_worker::store::finish::{self, Disposition, Ender, Finished, UsageRow};
use dispatch_worker::store::listen::{Listener, Wakeup};
use dispatch_worker::store::messages::{self, Carried, Loaded, NewStep, NewSummary};
use dispatch_worker::store::pauses::{self, NewPause, PauseClass};
use dispatch_worker::store::steps::Figures;
use dispatch_worker::store::{Store, captures, inbox, resumes};
use rust_decimal::Decimal;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::db::TestDb;
use crate::harness::desk::{Desk, again, conversation_of, ending, left};

fn figures(tokens: i64, cost: i64, context: i64) -> Figures {
    Figures {
        model: "acme/large".to_owned(),
        finish: "stop".to_owned(),
        tokens: Some(TokenCounts {
            input: Some(tokens),
            ..TokenCounts::default()
        }),
        raw: Some(json!({"said": "a\0b"})),
        cost: Some(Cost {
            amount: Decimal::new(cost, 2),
            currency: "USD".to_owned(),
        }),
        context_tokens: Some(context),
        request_ms: Some(12),
        ..Figures::default()
    }
}

/// Say these things in one step.
async fn say(desk: &Desk, claimed: &Claimed, n: i32, first_seq: i64, texts: &[&str]) -> Held {
    let said: Vec<Message> = texts.iter().map(|text| Message::user(*text)).collect();
    let step = NewStep {
        conversation: conversation_of(claimed),
        n,
        first_seq,
        messages: &said,
        figures: Some(&figures(10, 1, 100 + i64::from(n))),
    };
    messages::keep_step(&desk.store, &claimed.lease, &step)
        .await
        .unwrap()
}

async fn compact(desk: &Desk, claimed: &Claimed, upto_seq: i64, seq: i64, text: &str) -> Held {
    let new = NewSummary {
        conversation: conversation_of(claimed),
        n: 3,
        upto_seq,
        seq,
        summary: &Message::user(text),
        figures: &figures(5, 1, 7),
    };
    messages::compact(&desk.store, &claimed.lease, &new)
        .await
        .unwrap()
}

async fn load(desk: &Desk, claimed: &Claimed, carried: Carried) -> Loaded {
    let conversation = conversation_of(claimed);
    let loaded = messages::load(&desk.store, &claimed.lease, conversation, carried).await;
    loaded.unwrap().unwrap()
}

/// What the model sees, with the numbers.
async fn seen(desk: &Desk, claimed: &Claimed, carried: Carried) -> String {
    let loaded = load(desk, claimed, carried).await;
    let texts = loaded
        .messages
        .iter()
        .map(|(seq, message)| format!("{seq}{}", message.text()));
    texts.collect::<Vec<_>>().join(" ")
}

async fn resumed(desk: &Desk, lease: &Lease, conversation: i64) -> carried::Resumed {
    let resumed = carried::resume(&desk.store, lease, conversation).await;
    resumed.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_step_adds_is_read_back_as_it_was_and_stored_once() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    let said = [
        Message::user("fix it\0"),
        Message {
            role: Role::Assistant,
            parts: vec![
                Part::Thinking {
                    text: "hm".to_owned(),
                },
                Part::ToolCall(ToolCall {
                    id: "c1".to_owned(),
                    name: "read".to_owned(),
                    input: json!({"path": "a.txt"}),
                    signatures: vec!["s".to_owned()],
                }),
            ],
        },
        Message::results(vec![ToolResult {
            call_id: "c1".to_owned(),
            name: "read".to_owned(),
            output: "one".to_owned(),
            is_error: false,
        }]),
    ];
    let step = NewStep {
        conversation: task,
        n: 0,
        first_seq: 1,
        messages: &said,
        figures: Some(&figures(10, 25, 100)),
    };
    for _ in 0..2 {
        let kept = messages::keep_step(&desk.store, &claimed.lease, &step).await;
        assert_eq!(kept.unwrap(), Held::Yes, "a lost answer is asked for again");
    }
    let loaded = load(&desk, &claimed, Carried::Yes).await;
    assert_eq!(loaded.next_seq, 4);
    let [(1, first), (2, second), (3, third)] = loaded.messages.as_slice() else {
        panic!("{:?}", loaded.messages);
    };
    assert_eq!(first.text(), "fix it\u{fffd}");
    assert_eq!((second, third), (&said[1], &said[2]));
    assert_eq!(loaded.context, Some(100));
    let row = "SELECT concat_ws(' ', kind, n, model, finish, input_tokens, output_tokens, total_tokens, cost, currency,
                                ttft_ms, request_ms, retries) FROM steps";
    assert_eq!(
        desk.text(row).await,
        "model 0 acme/large stop 10 10 0.25 USD 12 0",
        "what is unknown is NULL"
    );
    // A number that leaves a gap, or is somebody else's, is a fault and stores nothing.
    for first_seq in [5, 3] {
        let odd = NewStep {
            n: 1,
            first_seq,
            ..step
        };
        let refused = messages::keep_step(&desk.store, &claimed.lease, &odd).await;
        assert!(refused.unwrap_err().message.contains("does not come next"));
    }
    assert_eq!(desk.text("SELECT count(*) FROM messages").await, "3");
    assert_eq!(desk.text("SELECT count(*) FROM steps").await, "1");
}

#[tokio::test]
async fn summaries_stand_where_what_they_replace_stood() {
    let desk = Desk::new().await;
    desk.task().await;
    let claimed = desk.begin().await;
    say(&desk, &claimed, 0, 1, &["a", "b", "c", "d", "e"]).await;
    for _ in 0..2 {
        assert_eq!(compact(&desk, &claimed, 3, 6, "S").await, Held::Yes);
    }
    assert_eq!(seen(&desk, &claimed, Carried::Yes).await, "6S 4d 5e");
    say(&desk, &claimed, 4, 7, &["f"]).await;
    assert_eq!(seen(&desk, &claimed, Carried::Yes).await, "6S 4d 5e 7f");
    // A second one, over the first and some of what came after it.
    compact(&desk, &claimed, 4, 8, "T").await;
    assert_eq!(seen(&desk, &claimed, Carried::Yes).await, "8T 5e 7f");
    // A third one over nothing but the second.
    compact(&desk, &claimed, 8, 9, "U").await;
    assert_eq!(seen(&desk, &claimed, Carried::Yes).await, "9U 5e 7f");
    let gaps = "SELECT count(*) || ' ' || max(seq) FROM messages";
    assert_eq!(desk.text(gaps).await, "9 9");
    let loaded = load(&desk, &claimed, Carried::Yes).await;
    assert_eq!(loaded.context, Some(104), "of a step, not of a summary");
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    say(&desk, &claimed, 0, 1, &["a"]).await;
    desk.crash(&claimed).await;
    assert_eq!(say(&desk, &claimed, 1, 2, &["b"]).await, Held::Lost);
    assert_eq!(compact(&desk, &claimed, 1, 2, "S").await, Held::Lost);
    let todos = messages::keep_todos(&desk.store, &claimed.lease, task, &json!(["x"])).await;
    assert_eq!(todos.unwrap(), Held::Lost);
    captures::keep(&desk.store, &claimed.lease, (0, "m"), "{}")
        .await
        .unwrap();
    assert_eq!(desk.text("SELECT count(*) FROM request_bodies").await, "0");
    for carried in [Carried::Yes, Carried::No] {
        let loaded = messages::load(&desk.store, &claimed.lease, task, carried).await;
        assert_eq!(loaded.unwrap(), None);
    }
    let resumed = carried::resume(&desk.store, &claimed.lease, task).await;
    assert_eq!(resumed.unwrap(), None);
    let rows = "SELECT (SELECT count(*) FROM messages) || ' ' || (SELECT count(*) FROM messages WHERE lost_at IS NOT NULL)
                    || ' ' || (SELECT count(*) FROM steps) || ' ' || (SELECT count(todos) FROM conversations)";
    assert_eq!(desk.text(rows).await, "1 0 1 0");
}

#[tokio::test]
async fn an_attempt_goes_on_from_what_the_one_before_it_left() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    let nothing = resumed(&desk, &first.lease, task).await;
    assert_eq!(nothing, carried::Resumed::default());
    say(&desk, &first, 0, 1, &["a"]).await;
    let todos = messages::keep_todos(&desk.store, &first.lease, task, &json!(["x"])).await;
    assert_eq!(todos.unwrap(), Held::Yes);
    desk.carry_on(&first, left("r1")).await;

    let second = desk.begin().await;
    let from = resumed(&desk, &second.lease, task).await;
    let work = CarriedWork {
        base: "base".to_owned(),
        result: "r1".to_owned(),
        changed: false,
        pack: Some(b"pack".to_vec()),
    };
    assert_eq!(from.carried, Some(work));
    assert_eq!(from.ended.as_deref(), Some("protocol: it broke"));
    let loaded = load(&desk, &second, Carried::Yes).await;
    assert_eq!((loaded.messages.len(), loaded.next_seq), (1, 2));
    assert_eq!(loaded.todos, Some(json!(["x"])));
    assert_eq!(
        (loaded.used.steps, loaded.used.tokens, loaded.used.cost),
        (1, 10, Decimal::new(1, 2))
    );
    // Whatever it ends as, the row is gone with the task.
    desk.end(&second, Disposition::Failed).await;
    assert_eq!(desk.text("SELECT count(*) FROM carried_work").await, "0");
}

#[tokio::test]
async fn an_attempt_that_goes_back_to_its_base_leaves_no_work() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    desk.carry_on(&first, left("r1")).await;
    let second = desk.begin().await;
    desk.end(&second, again()).await;
    let third = desk.begin().await;
    assert_eq!(resumed(&desk, &third.lease, task).await.carried, None);
}

#[tokio::test]
async fn work_that_could_not_be_kept_is_no_place_to_go_on_from_once_something_was_said_after_it() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    say(&desk, &first, 0, 1, &["a"]).await;
    desk.carry_on(&first, left("r1")).await;
    let unkept = async |claimed: &Claimed| {
        let mut finish = ending(claimed, again(), None::<Snapshot>);
        if let Some(facts) = &mut finish.facts {
            facts.again_from = AgainFrom::Snapshot;
        }
        let done = finish::finish(&desk.store, &claimed.lease, Ender::Owner, &finish).await;
        assert_eq!(done.unwrap(), Finished::Stored(None));
    };
    // It said nothing, so that nothing of it can be missing.
    unkept(&desk.begin().await).await;
    let third = desk.begin().await;
    assert!(resumed(&desk, &third.lease, task).await.carried.is_some());
    say(&desk, &third, 0, 2, &["b"]).await;
    unkept(&third).await;
    let fourth = desk.begin().await;
    assert_eq!(resumed(&desk, &fourth.lease, task).await.carried, None);
}

#[tokio::test]
async fn what_a_lost_attempt_said_and_summed_up_is_not_true_any_more_and_what_people_sent_comes_again()
 {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    say(&desk, &first, 0, 1, &["a", "b", "c"]).await;
    desk.end(&first, Disposition::Completed).await;
    // A second task of the conversation: one attempt that goes back with its work, one that crashes.
    let (_, _, follow_up) = desk.send(task, "go on").await;
    let second = desk.begin().await;
    say(&desk, &second, 0, 4, &["d"]).await;
    desk.send(task, "sent first").await;
    let taken = inbox::take(&desk.store, &second.lease, 1, 5).await.unwrap();
    assert_eq!(taken.unwrap().texts.len(), 1);
    desk.carry_on(&second, left("r1")).await;
    let third = desk.begin().await;
    compact(&desk, &third, 2, 6, "S").await;
    assert_eq!(
        seen(&desk, &third, Carried::Yes).await,
        "6S 3c 4d 5sent first"
    );
    desk.send(task, "sent later").await;
    let taken = inbox::take(&desk.store, &third.lease, 4, 7).await.unwrap();
    assert_eq!(taken.unwrap().texts, ["sent later"]);
    desk.crash(&third).await;

    let fourth = desk.begin().await;
    assert_eq!(resumed(&desk, &fourth.lease, task).await.carried, None);
    assert_eq!(
        seen(&desk, &fourth, Carried::No).await,
        "1a 2b 3c",
        "what the task before it said stays, also where a lost summary stood for it"
    );
    assert_eq!(desk.inbox(task).await, "carried waiting waiting");
    let next = load(&desk, &fourth, Carried::Yes).await.next_seq;
    assert_eq!(next, 8, "numbers are never used again");
    let taken = inbox::take(&desk.store, &fourth.lease, 0, 8).await.unwrap();
    assert_eq!(taken.unwrap().texts, ["sent first", "sent later"]);
    assert_eq!(follow_up, Some(fourth.lease.task().0));
    let used = load(&desk, &fourth, Carried::Yes).await.used;
    assert_eq!((used.steps, used.tokens), (2, 15), "paid for all the same");
}

#[tokio::test]
async fn budgets_are_checked_and_told() {
    let desk = Desk::new().await;
    for wrong in [
        "max_steps) VALUES ('p', 'x', 'a', 0",
        "max_tokens) VALUES ('p', 'x', 'a', -1",
        "max_cost) VALUES ('p', 'x', 'a', 0",
        "max_cost) VALUES ('p', 'x', 'a', 'NaN'",
    ] {
        let insert = format!("INSERT INTO tasks (project, input, agent, {wrong})");
        let refused = desk.sql.batch_execute(&insert).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), "23514", "{wrong}");
        assert!(refused.hint().is_some());
    }
    let insert = "INSERT INTO tasks (project, input, agent, max_steps, max_tokens, max_cost)
                  VALUES ('p', 'x', 'a', 3, 4, 0.333333333333333333333333333333333333)";
    desk.sql.batch_execute(insert).await.unwrap();
    let claimed = desk.begin().await;
    let budgets = load(&desk, &claimed, Carried::Yes).await.budgets;
    assert_eq!((budgets.max_steps, budgets.max_tokens), (Some(3), Some(4)));
    assert_eq!(budgets.max_cost, Some(Decimal::new(333_333_333_333, 12)));
}

#[tokio::test]
async fn what_budgets_took_a_request_for_counts_in_the_next_attempt_and_in_no_bill() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    let unknown = Figures {
        model: "acme/large".to_owned(),
        finish: "error".to_owned(),
        estimate: Some((7, Decimal::new(3, 2))),
        ..Figures::default()
    };
    for (n, figures) in [(0, figures(10, 1, 100)), (1, unknown)] {
        let step = NewStep {
            conversation: task,
            n,
            first_seq: 1,
            messages: &[],
            figures: Some(&figures),
        };
        let kept = messages::keep_step(&desk.store, &first.lease, &step).await;
        assert_eq!(kept.unwrap(), Held::Yes);
    }
    desk.carry_on(&first, left("r1")).await;
    let second = desk.begin().await;
    let used = load(&desk, &second, Carried::Yes).await.used;
    let cost = Decimal::new(4, 2);
    assert_eq!((used.steps, used.tokens, used.cost), (2, 17, cost));
    let billed = "SELECT sum(total_tokens) || ' ' || sum(cost) FROM steps";
    assert_eq!(desk.text(billed).await, "10 0.01");
}

#[tokio::test]
async fn figures_that_the_worker_counted_are_told_as_metered() {
    let desk = Desk::new().await;
    desk.task().await;
    let claimed = desk.begin().await;
    let mut finish = ending(&claimed, Disposition::Completed, None);
    if let Some(facts) = &mut finish.facts {
        facts.usage = Some(UsageRow {
            report: Some(UsageReport {
                source: UsageSource::Metered,
                ..UsageReport::default()
            }),
            price: None,
            cost: None,
            model: None,
        });
    }
    let done = finish::finish(&desk.store, &claimed.lease, Ender::Owner, &finish).await;
    assert_eq!(done.unwrap(), Finished::Stored(None));
    assert_eq!(
        desk.text("SELECT source FROM usage_reports").await,
        "metered"
    );
    let older: UsageReport = serde_json::from_value(json!({
        "tokens": {}, "cost": null, "context": null, "model": null, "raw": [],
    }))
    .unwrap();
    assert_eq!(older.source, UsageSource::Reported);
}

#[tokio::test]
async fn a_pause_of_another_cause_ends_no_longer_one_and_the_fleet_hears_of_each() {
    let desk = Desk::new().await;
    let worker = WorkerId::fresh();
    let listener = Listener::new();
    let mut heard = listener.subscribe();
    let stop = CancellationToken::new();
    let mut listening = JoinSet::new();
    let (url, running, ends) = (desk.db.url(), listener.clone(), stop.clone());
    listening.spawn(async move { running.run(&url, ends).await });
    let mut connected = listener.connected();
    connected.wait_for(|connected| *connected).await.unwrap();

    let pause = async |seconds: u64, class| {
        let pause = NewPause {
            provider: "acme",
            wait: Duration::from_secs(seconds),
            class,
            message: "no\0",
        };
        pauses::pause(&desk.store, worker, &pause).await.unwrap();
    };
    let left = async || {
        let all = pauses::list(&desk.store).await.unwrap();
        let shown = all
            .iter()
            .map(|p| (p.class.clone(), (p.remaining_ms + 9_999) / 10_000));
        shown.collect::<Vec<_>>()
    };
    let is = |class: &str, tens: i64| vec![(class.to_owned(), tens)];
    pause(600, PauseClass::Billing).await;
    while heard.recv().await.unwrap() != Wakeup::Providers {}
    assert_eq!(left().await, is("billing", 60));
    pause(60, PauseClass::RateLimited).await;
    assert_eq!(left().await, is("billing", 60));
    pause(300, PauseClass::Billing).await;
    assert_eq!(left().await, is("billing", 60), "none is cut short");
    pause(900, PauseClass::RateLimited).await;
    assert_eq!(left().await, is("rate_limited", 90));

    assert!(resumes::resume(&desk.store, "acme", "ada").await.unwrap());
    assert!(!resumes::resume(&desk.store, "acme", "ada").await.unwrap());
    assert_eq!(left().await, []);
    while heard.recv().await.unwrap() != Wakeup::Providers {}
    pause(0, PauseClass::Overloaded).await;
    assert_eq!(left().await, [], "it is over by the database's clock");
    stop.cancel();
    listening.join_all().await;
    for class in PauseClass::ALL {
        assert_eq!(PauseClass::parse(class.as_str()), Some(class));
    }
}

#[tokio::test]
async fn a_task_that_nobody_can_take_says_why() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let reason = format!("SELECT waiting_reason FROM task_status WHERE id = {task}");
    assert_eq!(desk.text(&reason).await, "no live worker offers agent a");
    let offer = "INSERT INTO agent_offers (worker_id, name, status, error, execution_path, expires_at)
                 VALUES (gen_random_uuid(), 'a', 'error', 'no key: set ACME_KEY', 'native', now() + interval '1 minute')";
    desk.sql.batch_execute(offer).await.unwrap();
    assert_eq!(
        desk.text(&reason).await,
        "no live worker offers agent a: no key: set ACME_KEY"
    );
    desk.sql
        .batch_execute("UPDATE agent_offers SET error = repeat('x', 1000)")
        .await
        .unwrap();
    assert_eq!(desk.text(&reason).await.len(), 300);
    desk.sql
        .batch_execute("UPDATE agent_offers SET expires_at = now() - interval '1 second'")
        .await
        .unwrap();
    assert_eq!(desk.text(&reason).await, "no live worker offers agent a");
}

#[tokio::test]
async fn requests_that_are_too_old_or_too_many_are_forgotten_and_equal_bodies_are_kept_once() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    // Four of task 1, of which the first is old and has the body of the last; ten bytes each.
    sql.batch_execute(
        "INSERT INTO request_bodies (hash, bytes, body, used_at)
         SELECT sha256(b::bytea), 10, b, now() - interval '1 hour' FROM unnest(ARRAY['a', 'b', 'c', 'd']) b;
         INSERT INTO requests (task_id, attempt, n, model, hash, at)
         SELECT 1, 1, x.n, 'm', sha256(x.body::bytea), now() - x.age
           FROM (VALUES (0, 'a', interval '8 days'), (1, 'b', interval '3 hours'), (2, 'c', interval '2 hours'),
                        (3, 'a', interval '1 hour')) x (n, body, age)",
    )
    .await
    .unwrap();
    let store = Store::connect(&db.url(), 1).unwrap();
    let left = async || -> (String, String) {
        let query = "SELECT (SELECT string_agg(n::text, ' ' ORDER BY n) FROM requests),
                            (SELECT string_agg(body, ' ' ORDER BY body) FROM request_bodies)";
        let row = sql.query_one(query, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let week = Duration::from_secs(7 * 24 * 3_600);
    captures::prune(&store, week, 1_000).await.unwrap();
    assert_eq!(left().await, ("1 2 3".to_owned(), "a b c".to_owned()));
    captures::prune(&store, week, 20).await.unwrap();
    assert_eq!(left().await, ("2 3".to_owned(), "a c".to_owned()));
    // One that was used just now may be about to get its request.
    sql.batch_execute("UPDATE request_bodies SET used_at = now()")
        .await
        .unwrap();
    captures::prune(&store, Duration::ZERO, 20).await.unwrap();
    let bodies = "SELECT count(*) FROM request_bodies";
    let bodies: i64 = sql.query_one(bodies, &[]).await.unwrap().get(0);
    assert_eq!(bodies, 2);
}
