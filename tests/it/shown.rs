//! What was shown to whoever approved is what goes into the branch, or nothing does: whoever may store
//! changes could have stored another digest, or rows that lie.

use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::workspace::{Applied, ApplyRequest, Reached};
use serde_json::json;

use crate::harness::repo::{Ground, approve};
use crate::harness::worker::{Stage, write};

/// A lie about a change, and the file that it is about.
type Lie = (&'static str, fn(&mut ApplyRequest));

const LIES: &[Lie] = &[
    ("digest", |r| r.digest = "0".repeat(64)),
    ("nothing was shown", |r| r.files.clear()),
    ("b", |r| drop(r.files.remove(1))),
    ("c", |r| drop(r.files.pop())),
    ("a", |r| {
        let more = r.files[0].clone();
        r.files.push(more);
    }),
    ("a", |r| r.files.swap(0, 1)),
    ("a", |r| r.files[0].path = b"x".to_vec()),
    ("a", |r| r.files[0].path_text = "x".to_owned()),
    ("a", |r| r.files[0].old_path_text = Some("x".to_owned())),
    ("a", |r| r.files[0].operation = "mode".to_owned()),
    ("a", |r| r.files[0].kind = "symlink".to_owned()),
    ("a", |r| r.files[0].modes.1 = Some(0o100_755)),
    ("a", |r| r.files[0].blobs.1 = Some("0".repeat(40))),
    ("a", |r| r.files[0].lines = (Some(0), Some(0))),
    ("a", |r| {
        r.files[0].patch = Some("-1\n+harmless\n".to_owned())
    }),
    ("a", |r| r.files[0].patch = None),
    ("a", |r| r.files[0].patch_cut = true),
];

#[tokio::test]
async fn a_change_that_is_not_what_was_shown_and_approved_is_not_applied() {
    let ground = Ground::files(&[("a", "1\n"), ("b", "1\n")]);
    let before = ground.rev("main");
    let snapshot = ground.attempt(1, "echo 2 >a; echo 2 >b; echo new >c").await;
    for (n, (about, lie)) in LIES.iter().enumerate() {
        let mut request = approve(7, &snapshot);
        lie(&mut request);
        // Whether all of it or some of it was approved.
        for only in [None, Some(vec![b"a".to_vec()])] {
            request.only_paths = only;
            let refused = ground.work.apply(&ground.project(), request.clone()).await;
            let refused = refused.expect_err(&format!("lie {n}, about {about}"));
            assert_eq!(refused.error.class, ErrorClass::Workspace);
            // The branch is known not to have it, so that it can be rejected.
            assert_eq!(refused.reached, Reached::Looked);
            let said = refused.error.to_string();
            assert!(said.contains("change 7 is not what was approved"), "{said}");
            if about.len() == 1 {
                assert!(
                    said.contains(&format!(": {about} was shown")),
                    "{n}: {said}"
                );
            }
        }
    }
    assert_eq!(ground.rev("main"), before);
    let truth = ground
        .work
        .apply(&ground.project(), approve(7, &snapshot))
        .await;
    assert!(matches!(truth.unwrap(), Applied::Done { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_worker_login_adds_to_what_is_shown_stops_the_application() {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    let task = stage.submit("acp", &json!([write("b.txt", "b\n")])).await;
    stage.reaches(task, "completed").await;
    let login = stage.db.login("worker", &["dispatch_worker"]).await;
    let added = "INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind, patch)
                 SELECT id, 2, 'c.txt', 'c.txt', 'create', 'text', '+harmless' FROM pending_changes";
    login.client().await.batch_execute(added).await.unwrap();
    let tip = stage.ground.rev("main");
    stage
        .text("SELECT approve_change(id, digest) FROM pending_changes")
        .await;
    stage
        .holds(
            "it is noticed",
            "SELECT coalesce(apply_error, '') LIKE '%is not what was approved: c.txt was shown%' FROM pending_changes",
        )
        .await;
    assert_eq!(stage.ground.rev("main"), tip);
    stage
        .text("SELECT reject_change(id, 'who stored this?') FROM pending_changes")
        .await;
    assert_eq!(
        stage.text("SELECT state FROM pending_changes").await,
        "rejected"
    );
    worker.stop().await;
}
