//! Statements of the benchmark driver.

use std::collections::BTreeMap;

use super::{Store, StoreError};

crate::statements! {
    BENCH_PREPARE = "bench_prepare";
    BENCH_INSERT = "bench_insert";
    BENCH_ENDED = "bench_ended";
    BENCH_STARTED = "bench_started";
    BENCH_CLOCK = "bench_clock";
}

/// The project and the agent of the benchmark.
pub async fn prepare(store: &Store) -> Result<(), StoreError> {
    store.query(&BENCH_PREPARE, &[]).await?;
    Ok(())
}

/// Insert this many tasks in one statement.
pub async fn insert(store: &Store, count: i64) -> Result<(), StoreError> {
    store.query(&BENCH_INSERT, &[&count]).await?;
    Ok(())
}

/// Insert one task; returns its id.
pub async fn insert_one(store: &Store) -> Result<i64, StoreError> {
    Ok(store
        .query_one(&BENCH_INSERT, &[&1_i64])
        .await?
        .try_get("id")?)
}

/// How many tasks have ended, ever.
pub async fn ended(store: &Store) -> Result<i64, StoreError> {
    Ok(store.query_one(&BENCH_ENDED, &[]).await?.try_get("ended")?)
}

/// When these tasks were claimed, in microseconds since the epoch, by task.
pub async fn started_us(store: &Store, ids: &[i64]) -> Result<BTreeMap<i64, i64>, StoreError> {
    let rows = store.query(&BENCH_STARTED, &[&ids]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("task_id")?, row.try_get("us")?)))
        .collect()
}

/// The database's clock, in microseconds since the epoch.
pub async fn clock_us(store: &Store) -> Result<i64, StoreError> {
    Ok(store.query_one(&BENCH_CLOCK, &[]).await?.try_get("us")?)
}
