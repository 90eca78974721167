//! Every statement prepares on the migrated schema, and says the types that Postgres infers.

use dispatch_worker::store;

use crate::harness::db::TestDb;

#[tokio::test]
async fn every_statement_prepares_with_the_types_it_names() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    let mut seen = std::collections::BTreeSet::new();
    for statement in store::all_statements() {
        let prepared = sql
            .prepare(statement.sql)
            .await
            .unwrap_or_else(|error| panic!("{}: {:?}", statement.name, error.as_db_error()));
        assert_eq!(prepared.params(), statement.types(), "{}", statement.name);
        seen.insert(format!("{}.sql", statement.name));
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../worker/src/store/sql");
    for file in std::fs::read_dir(dir).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(seen.contains(&name), "{name} is in sql/ and nobody uses it");
    }
}

#[tokio::test]
async fn a_claim_planned_on_an_empty_queue_reads_no_more_than_it_takes_from_a_long_one() {
    let db = TestDb::new().await;
    let mut sql = db.client().await;
    let claim = "SELECT count(*) FROM claim_tasks('00000000-0000-0000-0000-000000000000', \
                ARRAY['a'], ARRAY[5], array_fill('1970-01-01'::timestamptz, ARRAY[10]), 5)";
    let few = "INSERT INTO projects (name, path) VALUES ('p', '/x'); \
               INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'b' FROM generate_series(1, 200)";
    sql.batch_execute(few).await.unwrap();
    sql.batch_execute("ANALYZE").await.unwrap();
    for _ in 0..8 {
        // Long enough for Postgres to keep a plan.
        sql.batch_execute(claim).await.unwrap();
    }
    let many = "INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'a' FROM generate_series(1, 20000)";
    sql.batch_execute(many).await.unwrap();
    let looking = sql.transaction().await.unwrap();
    let read = async || -> i64 {
        let query = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables \
                     WHERE relid IN ('ready_tasks'::regclass, 'tasks'::regclass)";
        looking.query_one(query, &[]).await.unwrap().get(0)
    };
    let before = read().await;
    let taken: i64 = looking.query_one(claim, &[]).await.unwrap().get(0);
    assert_eq!(taken, 5);
    let rows = read().await - before;
    assert!(rows < 50, "{rows} rows were read to claim 5");
}

#[tokio::test]
async fn the_moves_of_a_change_are_the_same_in_the_code_and_in_the_database() {
    use dispatch_worker::domain::change::ChangeState;
    let db = TestDb::new().await;
    let sql = db.client().await;
    for from in ChangeState::ALL {
        for to in ChangeState::ALL {
            let query = "SELECT EXISTS (SELECT 1 FROM change_moves WHERE from_state = $1 AND to_state = $2)";
            let legal: bool = sql
                .query_one(query, &[&from.as_str(), &to.as_str()])
                .await
                .unwrap()
                .get(0);
            assert_eq!(legal, from.may_become(to), "{from:?} to {to:?}");
        }
    }
}
