//! What waits for a person: on the task, on its conversation, and as a list.

use dispatch_worker::domain::attention::AttentionFilter;
use dispatch_worker::domain::ids::TaskId;
use dispatch_worker::domain::task::TaskState;
use dispatch_worker::store::finish::Disposition;
use dispatch_worker::store::tasks::{self, TaskFilter};
use dispatch_worker::store::{Store, history};

use crate::harness::desk::Desk;

const OFFERED: &str =
    "INSERT INTO agent_offers (worker_id, name, status, execution_path, expires_at)
    VALUES (gen_random_uuid(), 'a', 'ready', 'acp', now() + interval '1 hour')";

async fn of(store: &Store, task: i64) -> Option<String> {
    let found = tasks::get(store, TaskId(task)).await.unwrap();
    found.unwrap().attention
}

async fn listed(store: &Store, filter: TaskFilter) -> Vec<(i64, String)> {
    let most = if filter.most == 0 { 200 } else { filter.most };
    let found = tasks::list(store, &TaskFilter { most, ..filter }).await;
    let found = found.unwrap().into_iter();
    found
        .map(|task| (task.id, task.attention.unwrap()))
        .collect()
}

fn any() -> TaskFilter {
    TaskFilter {
        attention: Some(AttentionFilter::Any),
        ..TaskFilter::default()
    }
}

#[tokio::test]
async fn a_task_says_what_it_wants_of_a_person_from_its_wait_to_its_decision() {
    let desk = Desk::new().await;
    let task = desk.task().await;
    let attention = async || of(&desk.store, task).await;
    assert_eq!(attention().await.as_deref(), Some("blocked"));
    desk.sql.batch_execute(OFFERED).await.unwrap();
    assert_eq!(attention().await, None, "a free slot comes by itself");
    let claimed = desk.begin().await;
    assert_eq!(attention().await, None);
    let ask = format!(
        "INSERT INTO permission_requests (task_id, attempt, token, agent, kind, title)
         VALUES ({task}, 1, {}, 'a', 'execute', 'run it')",
        claimed.lease.token().0
    );
    desk.sql.batch_execute(&ask).await.unwrap();
    assert_eq!(attention().await.as_deref(), Some("permission"));
    desk.end(&claimed, Disposition::Failed).await;
    assert_eq!(attention().await.as_deref(), Some("failed"));
    let left = format!(
        "INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree,
             result_commit, result_ref, digest, files, added_lines, removed_lines)
         VALUES ({task}, 1, 1, 'p', 'b', 't', 'c', 'refs/dispatch/1/1', 'd', 1, 1, 0)"
    );
    desk.sql.batch_execute(&left).await.unwrap();
    assert_eq!(attention().await.as_deref(), Some("review"));
    for (state, wants) in [
        ("approved", None),
        ("conflicted", Some("conflict")),
        ("rejected", None),
    ] {
        let set = "UPDATE pending_changes SET state = $1, decided_by = 'ada', decided_at = now()";
        desk.sql.execute(set, &[&state]).await.unwrap();
        assert_eq!(attention().await.as_deref(), wants, "{state}");
    }
}

#[tokio::test]
async fn a_failure_waits_until_its_conversation_goes_on() {
    let desk = Desk::new().await;
    desk.sql.batch_execute(OFFERED).await.unwrap();
    let failed = desk.task().await;
    desk.end(&desk.begin().await, Disposition::Failed).await;
    assert_eq!(of(&desk.store, failed).await.as_deref(), Some("failed"));
    let conversation = async || history::conversation(&desk.store, failed).await.unwrap();
    let shown = conversation().await.unwrap();
    assert_eq!(shown.attention.as_deref(), Some("failed"));
    let next =
        "INSERT INTO tasks (project, input, agent, conversation_id) VALUES ('p', 'x', 'a', $1)";
    desk.sql.execute(next, &[&failed]).await.unwrap();
    assert_eq!(of(&desk.store, failed).await, None);
    assert_eq!(conversation().await.unwrap().attention, None);
    let of_nobody = "DELETE FROM agent_offers; SELECT maintain(500)";
    desk.sql.batch_execute(of_nobody).await.unwrap();
    let shown = conversation().await.unwrap();
    assert_eq!(
        shown.attention.as_deref(),
        Some("blocked"),
        "of its last task"
    );
}

#[tokio::test]
async fn what_waits_for_a_person_is_a_list_by_kind_project_state_and_page() {
    let desk = Desk::new().await;
    let well = desk.task().await;
    desk.end(&desk.begin().await, Disposition::Completed).await;
    let failed = desk.task().await;
    desk.end(&desk.begin().await, Disposition::Failed).await;
    let blocked = desk.task().await;
    let both = [
        (blocked, "blocked".to_owned()),
        (failed, "failed".to_owned()),
    ];
    assert_eq!(listed(&desk.store, any()).await, both, "not {well}");
    let only = |attention| TaskFilter {
        attention: Some(attention),
        ..TaskFilter::default()
    };
    let kinds = [
        (AttentionFilter::Failed, &both[1..]),
        (AttentionFilter::Blocked, &both[..1]),
        (AttentionFilter::Review, &[]),
    ];
    for (kind, wanted) in kinds {
        assert_eq!(listed(&desk.store, only(kind)).await, wanted, "{kind:?}");
    }
    let narrower = [
        (TaskFilter { most: 1, ..any() }, &both[..1]),
        (
            TaskFilter {
                before: Some(blocked),
                ..any()
            },
            &both[1..],
        ),
        (
            TaskFilter {
                state: Some(TaskState::Pending),
                ..any()
            },
            &both[..1],
        ),
        (
            TaskFilter {
                project: Some("p".to_owned()),
                ..any()
            },
            &both[..],
        ),
        (
            TaskFilter {
                project: Some("q".to_owned()),
                ..any()
            },
            &[],
        ),
        (
            TaskFilter {
                agent: Some("b".to_owned()),
                ..any()
            },
            &[],
        ),
    ];
    for (filter, wanted) in narrower {
        let what = format!("{filter:?}");
        assert_eq!(listed(&desk.store, filter).await, wanted, "{what}");
    }
}
