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
async fn the_claim_never_scans_the_whole_table_even_with_a_generic_plan() {
    let db = TestDb::new().await;
    let sql = db.client().await;
    sql.batch_execute(
        "INSERT INTO projects (name, path) VALUES ('p', '/x'); \
         INSERT INTO tasks (project, input, agent) SELECT 'p', 'x', 'a' FROM generate_series(1, 20000); \
         ANALYZE; SET plan_cache_mode = force_generic_plan",
    )
    .await
    .unwrap();
    let claim = store::all_statements()
        .find(|s| s.name == "claim_tasks")
        .unwrap();
    sql.batch_execute(&format!("PREPARE claim AS {}", claim.sql))
        .await
        .unwrap();
    let marks = ["'1970-01-01'::timestamptz"; 10].join(",");
    let explain = format!(
        "EXPLAIN EXECUTE claim ('00000000-0000-0000-0000-000000000000', ARRAY['a'], ARRAY[5], ARRAY[{marks}], 5)"
    );
    let rows = sql.query(&explain, &[]).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan"), "{plan}");
    assert!(plan.contains("ready_tasks_pkey"), "{plan}");
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
