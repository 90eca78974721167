//! Messages that people send into conversations: each reaches an agent or a task, whatever ends beside it.

use std::sync::Arc;

use dispatch_worker::domain::llm::Message;
use dispatch_worker::store::attempts::Held;
use dispatch_worker::store::claims::{self, PlainFinish};
use dispatch_worker::store::finish::{self, Disposition, Ender, Finished};
use dispatch_worker::store::listen::{Listener, Wakeup};
use dispatch_worker::store::messages::{self, NewStep};
use dispatch_worker::store::{Store, inbox};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::harness::db::connect;
use crate::harness::desk::{Desk, again, begin, claim, ending, send, task_for};

#[tokio::test]
async fn a_message_to_a_waiting_or_running_task_waits_and_the_attempt_gets_it_once() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let (first, state, of) = desk.send(task, "one").await;
    assert_eq!((state.as_str(), of), ("waiting", Some(task)));
    let claimed = desk.begin().await;
    desk.send(task, "two").await;
    let taken = inbox::take(&desk.store, &claimed.lease, 0, 1)
        .await
        .unwrap();
    assert_eq!(taken.unwrap().texts, ["one", "two"]);
    let delivered = format!(
        "SELECT task_id || ' ' || attempt || ' ' || message_seq FROM inbox WHERE id = {first}"
    );
    assert_eq!(desk.text(&delivered).await, format!("{task} 1 1"));
    let loaded = messages::load(&desk.store, &claimed.lease, task, messages::Carried::Yes).await;
    let loaded = loaded.unwrap().unwrap();
    assert_eq!(loaded.messages, [(1, Message::user("one\n\ntwo"))]);
    // The answer was lost: the same number gives the same texts, and the next one nothing.
    let repeated = inbox::take(&desk.store, &claimed.lease, 0, 1)
        .await
        .unwrap();
    assert_eq!(repeated.unwrap().texts, ["one", "two"]);
    let none = inbox::take(&desk.store, &claimed.lease, 1, 2)
        .await
        .unwrap();
    assert_eq!(none, Some(inbox::Taken::default()));
    desk.end(&claimed, Disposition::Completed).await;
    assert_eq!(desk.inbox(task).await, "delivered delivered");
    assert_eq!(desk.text("SELECT count(*) FROM tasks").await, "1");
}

#[tokio::test]
async fn what_nobody_took_becomes_one_follow_up_under_the_same_terms() {
    let desk = Desk::new().await;
    let insert = "INSERT INTO tasks (project, input, agent, model, mode_id, max_steps, max_tokens, max_cost, limit_key)
                  VALUES ('p', 'x', 'a', 'm', 'build', 7, 8, 0.5, 'k')";
    desk.sql.batch_execute(insert).await.unwrap();
    let claimed = desk.begin().await;
    desk.send(1, "one").await;
    let bob = "SELECT * FROM send_message(1, 'two', 'bob')";
    desk.sql.batch_execute(bob).await.unwrap();
    desk.end(&claimed, Disposition::Completed).await;
    assert_eq!(desk.inbox(1).await, "carried carried");
    let follow_up = "SELECT concat_ws('|', input, agent, model, mode_id, max_steps, max_tokens, max_cost, limit_key,
                                      conversation_id, submitted_by) FROM tasks WHERE id = 2";
    assert_eq!(
        desk.text(follow_up).await,
        "one\n\ntwo|a|m|build|7|8|0.5|k|1|ada, bob"
    );
    let stream =
        "SELECT string_agg(seq || ' ' || kind, ', ' ORDER BY seq) FROM task_events(1, 0, 100)";
    assert_eq!(
        desk.text(stream).await,
        "1 task_submitted, 2 message_carried, 3 task_completed"
    );
    let told = "SELECT payload FROM task_events(1, 1, 1)";
    assert_eq!(
        desk.text(told).await,
        "{\"task_id\": 2, \"message_ids\": [1, 2]}"
    );
    // It really runs.
    let next = desk.begin().await;
    assert_eq!(next.lease.task().0, 2);
}

#[tokio::test]
async fn after_a_failed_or_cancelled_task_messages_are_held_for_the_next_one() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    desk.send(task, "one").await;
    desk.end(&claimed, Disposition::Failed).await;
    assert_eq!(desk.inbox(task).await, "held");
    let (_, state, of) = desk.send(task, "two").await;
    assert_eq!((state.as_str(), of), ("held", None));
    let requeue = format!("SELECT requeue_task({task})");
    desk.sql.batch_execute(&requeue).await.unwrap();
    let next = desk.begin().await;
    let taken = inbox::take(&desk.store, &next.lease, 0, 1).await.unwrap();
    assert_eq!(taken.unwrap().texts, ["one", "two"]);

    // One that had not begun, and one whose deadline passed.
    let waiting = desk.task().await;
    desk.send(waiting, "x").await;
    let cancel = format!("SELECT cancel_task({waiting})");
    desk.sql.batch_execute(&cancel).await.unwrap();
    assert_eq!(desk.inbox(waiting).await, "held");
    let late = desk.task().await;
    desk.send(late, "x").await;
    let pass = format!("INSERT INTO deadlines VALUES ({late}, now()); SELECT maintain(500)");
    desk.sql.batch_execute(&pass).await.unwrap();
    assert_eq!(desk.inbox(late).await, "held");
}

#[tokio::test]
async fn a_message_after_the_end_of_a_completed_task_is_a_follow_up_at_once_and_the_next_one_waits_for_it()
 {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    desk.end(&claimed, Disposition::Completed).await;
    let (_, state, follow_up) = desk.send(task, "go on").await;
    assert_eq!(state, "carried");
    let made = format!(
        "SELECT input || ' ' || submitted_by || ' ' || conversation_id FROM tasks WHERE id = {}",
        follow_up.unwrap()
    );
    assert_eq!(desk.text(&made).await, format!("go on ada {task}"));
    let (_, state, of) = desk.send(follow_up.unwrap(), "and this").await;
    assert_eq!((state.as_str(), of), ("waiting", follow_up));
}

#[tokio::test]
async fn a_task_that_goes_back_keeps_its_messages_waiting() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    desk.send(task, "one").await;
    desk.end(&claimed, again()).await;
    assert_eq!(desk.inbox(task).await, "waiting");
    let next = desk.begin().await;
    let taken = inbox::take(&desk.store, &next.lease, 0, 1).await.unwrap();
    assert_eq!(taken.unwrap().texts, ["one"]);
}

#[tokio::test]
async fn an_agent_that_ends_in_a_batch_carries_messages_too() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    desk.send(task, "one").await;
    let claimed = claim(&desk.store, &desk.sql, "a").await.unwrap();
    desk.send(task, "two").await;
    let plain = PlainFinish {
        seq: claimed.next_seq,
        lease: claimed.lease.clone(),
    };
    let done = claims::finish_plain(&desk.store, &[plain]).await.unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(desk.inbox(task).await, "carried carried");
    let stream = format!(
        "SELECT string_agg(seq || kind, ' ' ORDER BY seq) FROM task_events({task}, 0, 100)"
    );
    assert_eq!(
        desk.text(&stream).await,
        "1task_submitted 2message_carried 3task_completed"
    );
}

#[tokio::test]
async fn more_than_one_text_holds_goes_in_pieces_and_a_project_that_is_gone_ends_no_end() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    let long = "x".repeat(256 * 1024);
    for _ in 0..5 {
        desk.send(task, &long).await;
    }
    desk.end(&claimed, Disposition::Completed).await;
    assert_eq!(
        desk.inbox(task).await,
        "carried carried carried waiting waiting"
    );
    let next = desk.begin().await;
    // Only who takes the guard away can do this.
    desk.sql
        .batch_execute(
            "ALTER TABLE projects DISABLE TRIGGER projects_open_work;
             DELETE FROM projects WHERE name = 'p'",
        )
        .await
        .unwrap();
    desk.end(&next, Disposition::Completed).await;
    assert_eq!(desk.inbox(task).await, "carried carried carried held held");
}

#[tokio::test]
async fn a_message_is_taken_back_until_an_agent_has_it() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let (first, ..) = desk.send(task, "one").await;
    let (second, ..) = desk.send(task, "two").await;
    let cancel = async |id: i64| {
        desk.text(&format!("SELECT cancel_message({id}, 'ada')"))
            .await
    };
    assert_eq!(cancel(first).await, "cancelled");
    assert_eq!(cancel(first).await, "cancelled", "twice is harmless");
    let claimed = desk.begin().await;
    let taken = inbox::take(&desk.store, &claimed.lease, 0, 1)
        .await
        .unwrap();
    assert_eq!(taken.unwrap().texts, ["two"]);
    assert_eq!(cancel(second).await, "delivered");
    let acts = "SELECT count(*) FROM audit_log WHERE action = 'message.cancel'";
    assert_eq!(desk.text(acts).await, "1");
}

#[tokio::test]
async fn empty_and_huge_messages_are_refused_with_a_way_out() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    for text in [String::new(), " \n ".to_owned(), "x".repeat(256 * 1024 + 1)] {
        let send = "SELECT * FROM send_message($1, $2)";
        let refused = desk.sql.query(send, &[&task, &text]).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code().code(), "23514");
        assert!(refused.hint().is_some());
    }
    let nobody = desk.sql.query("SELECT * FROM send_message(4711, 'x')", &[]);
    let refused = nobody.await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "P0002");
}

#[tokio::test]
async fn an_attempt_without_its_lease_takes_nothing() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    desk.send(task, "one").await;
    desk.crash(&claimed).await;
    let taken = inbox::take(&desk.store, &claimed.lease, 0, 1)
        .await
        .unwrap();
    assert_eq!(taken, None);
    assert_eq!(desk.inbox(task).await, "waiting");
}

#[tokio::test]
async fn whoever_waits_hears_of_a_message_and_of_the_wish_to_compact() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    let compact = format!("SELECT compact_conversation({task})");
    let refused = desk.sql.batch_execute(&compact).await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "55000");
    let said = NewStep {
        conversation: task,
        n: 0,
        first_seq: 1,
        messages: &[Message::user("x")],
        figures: None,
    };
    let kept = messages::keep_step(&desk.store, &claimed.lease, &said).await;
    assert_eq!(kept.unwrap(), Held::Yes);

    let listener = Listener::new();
    let mut heard = listener.subscribe();
    let stop = CancellationToken::new();
    let mut listening = JoinSet::new();
    let (url, running, ends) = (desk.db.url(), listener.clone(), stop.clone());
    listening.spawn(async move { running.run(&url, ends).await });
    listener
        .connected()
        .wait_for(|connected| *connected)
        .await
        .unwrap();
    desk.send(task, "one").await;
    while heard.recv().await.unwrap() != Wakeup::Inbox(task) {}
    assert_eq!(desk.text(&compact).await, "at the next step");
    while heard.recv().await.unwrap() != Wakeup::Inbox(task) {}
    let taken = inbox::take(&desk.store, &claimed.lease, 1, 2)
        .await
        .unwrap();
    assert!(taken.unwrap().compact);
    let taken = inbox::take(&desk.store, &claimed.lease, 1, 3)
        .await
        .unwrap();
    assert_eq!(taken.unwrap(), inbox::Taken::default(), "it is asked once");
    desk.end(&claimed, Disposition::Completed).await;
    assert_eq!(desk.text(&compact).await, "when the next turn begins");
    stop.cancel();
    listening.join_all().await;
}

#[tokio::test]
async fn submitters_send_into_conversations_they_began_and_take_back_what_is_their_own() {
    let desk = Desk::new().await;
    let theirs = desk.task().await;
    desk.send(theirs, "the secret of the owner").await;
    let login = desk.db.login("ada", &["dispatch_submitter"]).await;
    let ada = login.client().await;
    let denied = async |sql: &Client, statement: &str| {
        let error = sql.simple_query(statement).await.expect_err(statement);
        assert_eq!(
            error.as_db_error().unwrap().code().code(),
            "42501",
            "{statement}"
        );
    };
    for statement in [
        "SELECT * FROM send_message(1, 'x')",
        "SELECT * FROM send_message_once(1, 'x', 'k')",
        "SELECT cancel_message(1)",
        "SELECT compact_conversation(1)",
        "SELECT resume_provider('x')",
        "SELECT settle_messages(1)",
        "SELECT * FROM take_messages(1, 1, 0, 1)",
        "SELECT lose_work(1, 1)",
        "SELECT * FROM provider_pauses",
        "INSERT INTO inbox (conversation_id, text, sent_by, state) VALUES (1, 'x', 'bob', 'waiting')",
        "UPDATE inbox SET text = 'y'",
        "SELECT * FROM carried_work",
    ] {
        denied(&ada, statement).await;
    }
    let own = "INSERT INTO tasks (project, input, agent, max_steps, max_tokens, max_cost)
               VALUES ('p', 'x', 'a', 1, 1, 1) RETURNING id";
    let own: i64 = ada.query_one(own, &[]).await.unwrap().get(0);
    let sent = "SELECT * FROM send_message($1, 'mine', 'somebody else')";
    let sent: i64 = ada.query_one(sent, &[&own]).await.unwrap().get(0);
    let seen = "SELECT string_agg(text || ' ' || sent_by, ',') FROM inbox";
    let seen: String = ada.query_one(seen, &[]).await.unwrap().get(0);
    assert_eq!(seen, format!("mine {}", login.name));
    let cancelled = ada.query_one("SELECT cancel_message($1)", &[&sent]).await;
    assert_eq!(cancelled.unwrap().get::<_, String>(0), "cancelled");
    let steps = ada.query("SELECT 1 FROM steps UNION ALL SELECT 1 FROM messages", &[]);
    assert!(steps.await.unwrap().is_empty());

    // A reviewer sends anywhere, under their own name; a worker nowhere, and forges nothing.
    let login = desk.db.login("bob", &["dispatch_reviewer"]).await;
    let bob = login.client().await;
    bob.batch_execute("SELECT * FROM send_message(1, 'x', 'eve')")
        .await
        .unwrap();
    let by = desk.text("SELECT sent_by FROM inbox ORDER BY id DESC LIMIT 1");
    assert_eq!(by.await, login.name);
    for replayed in [false, true] {
        let once = "SELECT replayed FROM send_message_once(1, 'y', 'k', 'eve')";
        let told = bob.query_one(once, &[]).await.unwrap();
        assert_eq!(told.get::<_, bool>(0), replayed);
    }
    let by = desk
        .text("SELECT sent_by || ' ' || count(*) OVER () FROM inbox WHERE idempotency_key = 'k'");
    assert_eq!(by.await, format!("{} 1", login.name));
    denied(&bob, "SELECT cancel_message(1)").await;
    let worker = desk.db.login("worker", &["dispatch_worker"]).await;
    let worker = worker.client().await;
    for statement in [
        "SELECT * FROM send_message(1, 'x')",
        "SELECT * FROM send_message_once(1, 'x', 'k')",
        "SELECT cancel_message(1)",
        "SELECT compact_conversation(1)",
        "SELECT resume_provider('x')",
        "INSERT INTO inbox (conversation_id, text, sent_by, state) VALUES (1, 'x', 'bob', 'waiting')",
        "UPDATE inbox SET text = 'y'",
        "UPDATE inbox SET state = 'cancelled'",
        "DELETE FROM inbox",
        "UPDATE messages SET parts = '[]'",
        "DELETE FROM messages",
        "UPDATE steps SET cost = 0",
    ] {
        denied(&worker, statement).await;
    }
    // Only an end of this very transaction is settled: none that readers know is numbered anew.
    let end = format!(
        "DELETE FROM ready_tasks WHERE task_id = {own}; \
                       INSERT INTO outcomes (task_id, seq, attempt, state) VALUES ({own}, 2, 1, 'completed'); \
                       INSERT INTO inbox (conversation_id, text, sent_by, state) VALUES ({own}, 'x', 'ada', 'held')"
    );
    desk.sql.batch_execute(&end).await.unwrap();
    let settle = format!("SELECT settle_messages({own})");
    worker.batch_execute(&settle).await.unwrap();
    assert_eq!(desk.inbox(own).await, "cancelled held");
}

#[tokio::test]
async fn whoever_told_the_agent_something_is_no_second_pair_of_eyes() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let claimed = desk.begin().await;
    desk.send(task, "leave the door open").await;
    let change = "UPDATE projects SET four_eyes = true;
                  INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree, result_commit,
                      result_ref, digest, files, added_lines, removed_lines, created_at)
                  VALUES (1, 1, 1, 'p', 'b', 't', 'c', 'r', 'd', 1, 1, 0, now() + interval '1 minute');
                  INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind)
                  VALUES (1, 1, 'f', 'f', 'edit', 'text')";
    desk.sql.batch_execute(change).await.unwrap();
    let approve = "SELECT approve_change(1, 'd', actor => 'ada (http)')";
    inbox::take(&desk.store, &claimed.lease, 0, 1)
        .await
        .unwrap();
    let refused = desk.sql.query(approve, &[]).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "42501");
    assert!(refused.message().contains("sent message 1"), "{refused:?}");
    let other = "SELECT approve_change(1, 'd', actor => 'bob')";
    desk.sql.batch_execute(other).await.unwrap();
}

/// What must hold when nothing is under way.
async fn nothing_is_forgotten(sql: &Client) {
    let forgotten = "SELECT string_agg(i.id || ' ' || i.state, ', ') FROM inbox i
         WHERE i.state = 'waiting'
           AND NOT EXISTS (SELECT 1 FROM tasks t
                            WHERE coalesce(t.conversation_id, t.id) = i.conversation_id
                              AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.task_id = t.id))";
    let forgotten = sql.query_one(forgotten, &[]).await.unwrap();
    assert_eq!(forgotten.get::<_, Option<String>>(0), None);
    let untold = "SELECT count(*) FROM inbox i JOIN tasks t ON t.id = i.task_id
                   WHERE i.state = 'carried' AND position(i.text in t.input) = 0";
    let untold = sql.query_one(untold, &[]).await.unwrap();
    assert_eq!(untold.get::<_, i64>(0), 0);
    let gaps = "SELECT count(*) FROM tasks t
                 WHERE (SELECT count(*) <> max(e.seq) FROM task_events(t.id, 0, 1000) e)";
    assert_eq!(sql.query_one(gaps, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// One end of a task, while messages are sent to it.
async fn end_under_fire(url: &str, store: &Store, agent: &str, round: usize) {
    let sql = connect(url).await;
    let task = task_for(&sql, agent).await;
    let mut fire = JoinSet::new();
    for n in 0..2 {
        let sender = connect(url).await;
        fire.spawn(async move {
            for m in 0..3 {
                send(&sender, task, &format!("message {n} {m} of {task}.")).await;
            }
        });
    }
    match round % 5 {
        0 => {
            // It is cancelled while it waits, or a moment later.
            let cancel = format!("SELECT cancel_task({task})");
            sql.batch_execute(&cancel).await.unwrap();
        }
        1 | 2 => {
            // It ends in a batch, claimed while somebody sends to it as it waits.
            let mut looks = 0;
            let claimed = loop {
                match claim(store, &sql, agent).await {
                    Some(claimed) => break claimed,
                    None => looks += 1,
                }
                assert!(looks < 10_000, "task {task} cannot be claimed");
            };
            let plain = PlainFinish {
                seq: claimed.next_seq,
                lease: claimed.lease,
            };
            claims::finish_plain(store, &[plain]).await.unwrap();
        }
        kind => {
            let mut looks = 0;
            let claimed = loop {
                match claim(store, &sql, agent).await {
                    Some(claimed) => break claimed,
                    None => looks += 1,
                }
                assert!(looks < 10_000, "task {task} cannot be claimed");
            };
            begin(store, &claimed).await;
            let disposition = match kind {
                3 => Disposition::Completed,
                _ => Disposition::Failed,
            };
            let finish = ending(&claimed, disposition, None);
            let done = finish::finish(store, &claimed.lease, Ender::Owner, &finish).await;
            assert_eq!(done.unwrap(), Finished::Stored(None));
        }
    }
    fire.join_all().await;
    // Follow-ups are of no interest here, and must not be claimed as the next round's task.
    let rest = "SELECT cancel_task(t.id) FROM tasks t WHERE t.agent = $1 AND t.conversation_id IS NOT NULL";
    nothing_is_forgotten(&sql).await;
    sql.query(rest, &[&agent]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_is_left_waiting_by_whatever_ends_in_the_same_moment() {
    let desk = Arc::new(Desk::new().await);
    let url = desk.db.url();
    let mut lanes = JoinSet::new();
    for lane in 0..4 {
        let (desk, url) = (Arc::clone(&desk), url.clone());
        lanes.spawn(async move {
            for round in 0..25 {
                end_under_fire(&url, &desk.store, &format!("agent{lane}"), round).await;
            }
        });
    }
    while let Some(done) = lanes.join_next().await {
        done.unwrap();
    }
    nothing_is_forgotten(&desk.sql).await;
    assert_eq!(desk.text("SELECT count(*) FROM inbox").await, "600");
    let ways =
        desk.text("SELECT count(DISTINCT state) FROM inbox WHERE state IN ('carried', 'held')");
    assert_eq!(ways.await, "2", "both ways were gone");
}
