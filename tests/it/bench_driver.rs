//! The queue under its benchmark: batches of plain ends, and the driver that other queues are run
//! beside.

use std::time::Duration;

use dispatch_worker::bench::sandbox::{self, Way};
use dispatch_worker::bench::{self, Measure};
use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::domain::sandbox::Rung;
use dispatch_worker::store::claims::{self, Demand, Look, LowWaterMarks, PlainFinish};
use dispatch_worker::store::{Store, bench as statements};

use crate::harness::db::TestDb;
use crate::harness::worker::HELPER;

#[tokio::test]
async fn a_batch_of_plain_ends_completes_exactly_the_attempts_that_may_end() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let store = Store::connect(&db.url(), 1).unwrap();
    statements::prepare(&store).await.unwrap();
    statements::insert(&store, 6).await.unwrap();
    let demand = [Demand {
        agent: "noop".to_owned(),
        free: 6,
    }];
    let marks = LowWaterMarks::default();
    let claimed = claims::claim(&store, WorkerId::fresh(), &demand, 6, Look::All, &marks)
        .await
        .unwrap();
    assert_eq!(claimed.len(), 6);
    // Newest first: the batch comes in the order of the ends, not of the tokens.
    let batch: Vec<PlainFinish> = claimed
        .iter()
        .rev()
        .map(|c| PlainFinish {
            lease: c.lease.clone(),
            seq: 100 + c.lease.task().0,
        })
        .collect();
    let task = |n: usize| claimed[n].lease.task().0;
    sql.execute(
        "UPDATE leases SET cancel_requested_at = now() WHERE task_id = $1",
        &[&task(1)],
    )
    .await
    .unwrap();
    // Lost: another claim holds the second one, and the third has got the token of the fourth.
    sql.execute(
        "UPDATE leases SET token = nextval('lease_tokens') WHERE task_id = $1",
        &[&task(2)],
    )
    .await
    .unwrap();
    sql.execute(
        "UPDATE leases SET token = $2 WHERE task_id = $1",
        &[&task(3), &claimed[4].lease.token().0],
    )
    .await
    .unwrap();
    let mut done: Vec<i64> = claims::finish_plain(&store, &batch)
        .await
        .unwrap()
        .into_iter()
        .map(|id| id.0)
        .collect();
    done.sort_unstable();
    assert_eq!(done, [task(0), task(4), task(5)]);
    let rows = sql
        .query(
            "SELECT task_id, seq, state, token FROM outcomes ORDER BY task_id",
            &[],
        )
        .await
        .unwrap();
    let stored: Vec<(i64, i64, String, i64)> = rows
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3)))
        .collect();
    let wanted: Vec<(i64, i64, String, i64)> = [0, 4, 5]
        .map(|n| {
            let lease = &claimed[n].lease;
            (
                lease.task().0,
                100 + lease.task().0,
                "completed".to_owned(),
                lease.token().0,
            )
        })
        .into();
    assert_eq!(stored, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_drains_what_it_was_asked_for_also_after_one_that_was_killed() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let run = async |measure| bench::run(&db.url(), measure).await.unwrap();
    run(Measure::Setup).await;
    run(Measure::Enqueue(40)).await;
    // What a killed driver leaves: a worker with an armed bell, a lease, and tasks nobody ran.
    sql.batch_execute(
        "INSERT INTO workers (id, name, version, slots) VALUES (gen_random_uuid(), 'bench', '0', 1); \
         INSERT INTO bells SELECT id, now() + interval '1 hour' FROM workers; \
         WITH gone AS (DELETE FROM ready_tasks WHERE task_id = (SELECT min(task_id) FROM ready_tasks) \
                       RETURNING task_id, attempt, uncharged, agent) \
         INSERT INTO leases (task_id, token, worker_id, attempt, uncharged, agent) \
         SELECT g.task_id, 1, w.id, g.attempt, g.uncharged, g.agent FROM gone g, workers w",
    )
    .await
    .unwrap();
    run(Measure::Setup).await;
    run(Measure::Enqueue(300)).await;
    run(Measure::EnqueueSingly(100)).await;
    run(Measure::Drain(400)).await;
    run(Measure::Latency {
        count: 5,
        every: Duration::from_millis(5),
    })
    .await;
    let rows = sql
        .query(
            "SELECT state, count(*) FROM outcomes GROUP BY state ORDER BY state",
            &[],
        )
        .await
        .unwrap();
    let ended: Vec<(String, i64)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    // Latency warms up with one task of its own.
    assert_eq!(
        ended,
        [("cancelled".to_owned(), 40), ("completed".to_owned(), 406)]
    );
    let left: i64 = sql
        .query_one(
            "SELECT (SELECT count(*) FROM ready_tasks) + (SELECT count(*) FROM leases) \
                  + (SELECT count(*) FROM workers) + (SELECT count(*) FROM bells)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_sandbox_driver_starts_a_program_on_every_rung_that_works_and_says_what_is_missing() {
    let all = sandbox::measure(Some(HELPER.into()), 2).await.unwrap();
    let ways: Vec<Way> = all.iter().map(|(way, _)| *way).collect();
    assert_eq!(ways, Way::ALL);
    for (way, samples) in &all {
        match samples {
            Ok(samples) => {
                assert_eq!(samples.len(), 2, "{way:?}");
                for sample in samples {
                    assert!(sample.first_byte <= sample.exit && sample.exit <= sample.swept);
                }
            }
            Err(why) => assert!(!why.is_empty(), "{way:?}"),
        }
    }
    let works = |way: Way| all.iter().any(|(known, s)| *known == way && s.is_ok());
    assert!(works(Way::Bare) && works(Way::Rung(Rung::None)));
    let bubblewrap = Way::Rung(Rung::Bubblewrap);
    assert_eq!(works(bubblewrap), works(Way::Gateway));
    // The kernel has one of them for everybody.
    let landlock = [Rung::Landlock, Rung::LandlockUid];
    assert!(landlock.into_iter().any(|rung| works(Way::Rung(rung))));
}
