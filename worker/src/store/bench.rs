//! Statements of the benchmark driver.

use std::collections::BTreeMap;

use super::{Store, StoreError};

crate::statements! {
    BENCH_PREPARE = "bench_prepare", slow;
    BENCH_INSERT = "bench_insert", slow;
    BENCH_CLEAR = "bench_clear", slow;
    BENCH_OPEN = "bench_open", slow;
    BENCH_ENDED = "bench_ended", slow;
    BENCH_HAS_ENDED = "bench_has_ended", slow;
    BENCH_STARTED = "bench_started", slow;
    BENCH_CLOCK = "bench_clock";
}

/// The project and the agent of the benchmark; what a killed driver left open is cancelled.
pub async fn prepare(store: &Store) -> Result<(), StoreError> {
    store.query(&BENCH_PREPARE, &[]).await?;
    store.query(&BENCH_CLEAR, &[]).await?;
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

/// The open tasks of the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Id of the oldest; above every id when there are none.
    pub first: i64,
    /// Id of the newest; 0 when there are none.
    pub last: i64,
}

/// Which tasks of the benchmark are ready or running.
pub async fn open(store: &Store) -> Result<Open, StoreError> {
    let row = store.query_one(&BENCH_OPEN, &[]).await?;
    Ok(Open {
        first: row.try_get("first")?,
        last: row.try_get("last")?,
    })
}

/// How many tasks from this one on have ended.
pub async fn ended(store: &Store, first: i64) -> Result<i64, StoreError> {
    Ok(store
        .query_one(&BENCH_ENDED, &[&first])
        .await?
        .try_get("ended")?)
}

/// Whether this task has ended: one look into an index.
pub async fn has_ended(store: &Store, task: i64) -> Result<bool, StoreError> {
    Ok(store
        .query_one(&BENCH_HAS_ENDED, &[&task])
        .await?
        .try_get("ended")?)
}

/// When the ends of these tasks were being stored, in microseconds since the epoch, by task.
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
