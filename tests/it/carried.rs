//! Work that waits to be gone on with: a task that ends before anybody does keeps it as its partial
//! change.

use dispatch_worker::domain::change::{FileChange, FileKind, FileOperation, Snapshot};
use dispatch_worker::domain::llm::Message;
use dispatch_worker::store::claims::Claimed;
use dispatch_worker::store::finish::{self, Disposition, Ender};
use dispatch_worker::store::messages::{self, NewStep};

use crate::harness::desk::{Desk, again, conversation_of, ending, left};

fn file(path: &[u8], patch: Option<&str>) -> FileChange {
    FileChange {
        path: path.to_vec(),
        old_path: Some(b"old \\ \xff".to_vec()),
        operation: FileOperation::Rename,
        kind: FileKind::Text,
        old_mode: Some(0o100_644),
        new_mode: None,
        old_blob: Some("a".repeat(40)),
        new_blob: None,
        added_lines: Some(3),
        removed_lines: Some(1),
        patch: patch.map(str::to_owned),
        patch_cut: patch.is_none(),
        flags: vec!["runs_in_ci".to_owned()],
    }
}

fn changed(result: &str) -> Snapshot {
    Snapshot {
        files: vec![
            file(b"a \"\xe9\\x", Some("+\u{1}\n-\\ é")),
            file(b"b", None),
        ],
        notices: vec!["a notice".to_owned()],
        ..left(result)
    }
}

async fn say(desk: &Desk, claimed: &Claimed, seq: i64, text: &str) {
    let step = NewStep {
        conversation: conversation_of(claimed),
        n: 0,
        first_seq: seq,
        messages: &[Message::user(text)],
        figures: None,
    };
    let kept = messages::keep_step(&desk.store, &claimed.lease, &step).await;
    kept.unwrap();
}

async fn finish_as(
    desk: &Desk,
    claimed: &Claimed,
    disposition: Disposition,
    left: Option<Snapshot>,
) {
    let finish = ending(claimed, disposition, left);
    let done = finish::finish(&desk.store, &claimed.lease, Ender::Owner, &finish).await;
    done.unwrap();
}

/// The only change of a task, all that is known of it and its files but its number and its time.
async fn change_of(desk: &Desk, task: i64) -> String {
    let all = format!(
        "SELECT string_agg((to_jsonb(c) - 'id' - 'created_at' - 'task_id' - 'token'
                || jsonb_build_object('pack', encode(p.pack, 'escape'), 'rows',
                       (SELECT jsonb_agg(to_jsonb(f) - 'change_id' ORDER BY f.n)
                          FROM pending_change_files f WHERE f.change_id = c.id)))::text, ' and ')
           FROM pending_changes c LEFT JOIN change_packs p ON p.change_id = c.id WHERE c.task_id = {task}"
    );
    desk.text(&all).await
}

async fn told(desk: &Desk, task: i64) -> String {
    let kinds =
        format!("SELECT string_agg(kind, ' ' ORDER BY seq) FROM task_events({task}, 0, 100)");
    desk.text(&kinds).await
}

async fn believed(desk: &Desk, task: i64) -> String {
    let live = format!(
        "SELECT string_agg(parts #>> '{{0,text}}', ' ' ORDER BY seq) FROM messages
          WHERE task_id = {task} AND lost_at IS NULL"
    );
    desk.text(&live).await
}

#[tokio::test]
async fn a_task_that_is_ended_while_it_waits_keeps_its_partial_change() {
    let desk = Desk::new().await;
    // What it would look like had the attempt itself failed.
    let plain = desk.task().await;
    let failed = desk.begin().await;
    finish_as(&desk, &failed, Disposition::Failed, Some(changed("r1"))).await;
    let expected = change_of(&desk, plain).await;
    assert!(expected.contains("runs_in_ci"), "{expected}");

    for end in ["cancel", "deadline"] {
        let task = desk.task().await;
        let first = desk.begin().await;
        say(&desk, &first, 1, "done").await;
        finish_as(&desk, &first, again(), Some(changed("r1"))).await;
        assert_eq!(
            change_of(&desk, task).await,
            "",
            "nobody sees it while it may go on"
        );
        let act = match end {
            "cancel" => format!("SELECT cancel_task({task})"),
            _ => format!(
                "INSERT INTO deadlines (task_id, deadline) VALUES ({task}, now()); SELECT end_overdue(9)"
            ),
        };
        desk.sql.batch_execute(&act).await.unwrap();
        assert_eq!(change_of(&desk, task).await, expected, "{end}");
        let story = told(&desk, task).await;
        let last = match end {
            "cancel" => "change_ready task_cancelled",
            _ => "change_ready task_failed",
        };
        assert!(story.ends_with(last), "{story}");
        assert_eq!(believed(&desk, task).await, "done");
        let status = format!("SELECT change_state FROM task_status WHERE id = {task}");
        assert_eq!(desk.text(&status).await, "pending");
        assert_eq!(desk.text("SELECT count(*) FROM carried_work").await, "0");
    }
}

#[tokio::test]
async fn what_an_attempt_lost_does_not_take_the_work_of_the_one_before_it_along() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    say(&desk, &first, 1, "done").await;
    finish_as(&desk, &first, again(), Some(changed("r1"))).await;
    let second = desk.begin().await;
    say(&desk, &second, 2, "lost").await;
    // Its worker is gone, and it was the last one.
    let finish = finish::Finish {
        end_kind: "lease_lost",
        facts: None,
        ..ending(&second, Disposition::Failed, None)
    };
    let rescuer = Ender::Rescuer(std::time::Duration::from_secs(1));
    let done = finish::finish(&desk.store, &second.lease, rescuer, &finish).await;
    done.unwrap();
    let change = change_of(&desk, task).await;
    assert!(change.contains("\"attempt\": 1"), "{change}");
    assert_eq!(believed(&desk, task).await, "done");
    assert!(
        told(&desk, task)
            .await
            .ends_with("change_ready task_failed")
    );
}

#[tokio::test]
async fn the_change_of_an_earlier_attempt_does_not_stand_for_later_work() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let first = desk.begin().await;
    say(&desk, &first, 1, "done").await;
    finish_as(&desk, &first, again(), Some(changed("r1"))).await;
    // As a worker of the version before does it.
    let later = "UPDATE carried_work SET attempt = 2, result_commit = 'r2', pack = 'other'";
    desk.sql.batch_execute(later).await.unwrap();
    desk.text(&format!("SELECT cancel_task({task})")).await;
    assert_eq!(change_of(&desk, task).await, "");
    assert_eq!(believed(&desk, task).await, "");
}

#[tokio::test]
async fn newer_work_takes_the_place_of_what_waited() {
    let desk = Desk::new().await;
    for (end, expected) in [
        (Disposition::Completed, "r2"),
        (Disposition::Failed, "r2"),
        (Disposition::Cancelled, "r2"),
    ] {
        let task = desk.task().await;
        let first = desk.begin().await;
        finish_as(&desk, &first, again(), Some(changed("r1"))).await;
        let second = desk.begin().await;
        if end == Disposition::Cancelled {
            desk.text(&format!("SELECT cancel_task({task})")).await;
        }
        finish_as(&desk, &second, end, Some(changed("r2"))).await;
        let results = format!(
            "SELECT string_agg(result_commit, ' ') FROM pending_changes WHERE task_id = {task}"
        );
        assert_eq!(desk.text(&results).await, expected);
        assert_eq!(desk.text("SELECT count(*) FROM carried_work").await, "0");
    }
    // Another agent that found nothing to do completed it: what waited is of no use to anybody.
    let task = desk.task().await;
    finish_as(&desk, &desk.begin().await, again(), Some(changed("r1"))).await;
    let second = desk.begin().await;
    let mut finish = ending(&second, Disposition::Completed, None);
    if let Some(facts) = &mut finish.facts {
        facts.again_from = dispatch_worker::store::carried::AgainFrom::Base;
    }
    let done = finish::finish(&desk.store, &second.lease, Ender::Owner, &finish).await;
    done.unwrap();
    assert_eq!(change_of(&desk, task).await, "");
}
