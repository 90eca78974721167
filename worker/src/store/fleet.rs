//! Workers as rows: life signs, the doorbell, what each offers.

use serde_json::Value;
use std::time::Duration;

use crate::domain::ids::WorkerId;
use crate::domain::sandbox::Rung;

use super::{Store, StoreError};

crate::statements! {
    REGISTER_WORKER = "register_worker";
    HEARTBEAT = "heartbeat";
    CANCEL_REQUESTS = "cancel_requests";
    LEAVE = "leave";
    FORGET_DEAD_WORKERS = "forget_dead_workers";
    ARM_BELL = "arm_bell";
    PUBLISH_OFFERS = "publish_offers";
    SET_SETTING = "set_setting";
    DROP_SETTING = "drop_setting";
    NOTIFY = "notify";
    QUEUE_DEPTH = "queue_depth";
}

/// Say that a worker is there.
pub async fn register(
    store: &Store,
    worker: WorkerId,
    name: &str,
    slots: i32,
    sandbox: Rung,
) -> Result<(), StoreError> {
    let version = env!("CARGO_PKG_VERSION");
    store
        .query(
            &REGISTER_WORKER,
            &[&worker.0, &name, &version, &slots, &sandbox.as_str()],
        )
        .await?;
    Ok(())
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// The worker's row was still there.
    pub known: bool,
    /// Somebody wants it to take no tasks.
    pub held: bool,
    /// Tasks that somebody wants cancelled.
    pub cancelled: Vec<i64>,
    /// Tokens the worker no longer holds.
    pub lost: Vec<i64>,
}

/// Show life and learn what changed, in one round trip.
pub async fn heartbeat(
    store: &Store,
    worker: WorkerId,
    draining: bool,
    held: &[(i64, i64)],
) -> Result<Pulse, StoreError> {
    let tasks: Vec<i64> = held.iter().map(|h| h.0).collect();
    let tokens: Vec<i64> = held.iter().map(|h| h.1).collect();
    let row = store
        .query_one(&HEARTBEAT, &[&worker.0, &draining, &tasks, &tokens])
        .await?;
    Ok(Pulse {
        known: row.try_get("known")?,
        held: row.try_get("held")?,
        cancelled: row.try_get("cancelled")?,
        lost: row.try_get("lost")?,
    })
}

/// Tasks of the worker that somebody wants cancelled.
pub async fn cancel_requests(store: &Store, worker: WorkerId) -> Result<Vec<i64>, StoreError> {
    let rows = store.query(&CANCEL_REQUESTS, &[&worker.0]).await?;
    rows.iter().map(|row| Ok(row.try_get("task_id")?)).collect()
}

/// The worker stops in good order.
pub async fn leave(store: &Store, worker: WorkerId) -> Result<(), StoreError> {
    store.query(&LEAVE, &[&worker.0]).await?;
    Ok(())
}

/// Remove rows of workers that died long ago.
pub async fn forget_dead(store: &Store) -> Result<(), StoreError> {
    store.query(&FORGET_DEAD_WORKERS, &[]).await?;
    Ok(())
}

/// Ask to be notified of new tasks for a while; zero: no longer.
pub async fn arm_bell(store: &Store, worker: WorkerId, time: Duration) -> Result<(), StoreError> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    store.query(&ARM_BELL, &[&worker.0, &ms]).await?;
    Ok(())
}

/// Send a notification to everyone who listens on this database.
pub async fn notify(store: &Store, payload: &str) -> Result<(), StoreError> {
    store.query(&NOTIFY, &[&payload]).await?;
    Ok(())
}

/// Where the open tasks of the fleet are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueDepth {
    /// Waiting for a free slot.
    pub ready: i64,
    /// Waiting for their time.
    pub later: i64,
    /// Waiting for a limit or a conversation.
    pub parked: i64,
    /// Running.
    pub running: i64,
    /// Age of the oldest ready one, in seconds.
    pub oldest_ready_s: f64,
}

/// Count the open tasks.
pub async fn queue_depth(store: &Store) -> Result<QueueDepth, StoreError> {
    let row = store.query_one(&QUEUE_DEPTH, &[]).await?;
    Ok(QueueDepth {
        ready: row.try_get("ready")?,
        later: row.try_get("later")?,
        parked: row.try_get("parked")?,
        running: row.try_get("running")?,
        oldest_ready_s: row.try_get("oldest_s")?,
    })
}

/// What a worker says about one agent of its catalogue.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The agent.
    pub name: String,
    /// ready, loading, error or unavailable.
    pub status: &'static str,
    /// Why it is not ready.
    pub error: Option<String>,
    /// How it is driven.
    pub execution_path: &'static str,
    /// What it says its version is.
    pub version: Option<String>,
    /// Models, as the agent names them.
    pub models: Value,
    /// Modes, as the agent names them.
    pub modes: Value,
    /// Thinking options.
    pub thinking_options: Value,
    /// Commands.
    pub commands: Value,
    /// Capability flags.
    pub capabilities: Value,
    /// How many at a time.
    pub slots: i32,
    /// Agent to use when nobody offers this one.
    pub fallback: Option<String>,
}

/// Publish what this worker offers; it holds for `ttl`.
pub async fn publish(
    store: &Store,
    worker: WorkerId,
    offers: &[Offer],
    ttl: Duration,
) -> Result<(), StoreError> {
    let name: Vec<&str> = offers.iter().map(|o| o.name.as_str()).collect();
    let status: Vec<&str> = offers.iter().map(|o| o.status).collect();
    let error: Vec<Option<&str>> = offers.iter().map(|o| o.error.as_deref()).collect();
    let path: Vec<&str> = offers.iter().map(|o| o.execution_path).collect();
    let version: Vec<Option<&str>> = offers.iter().map(|o| o.version.as_deref()).collect();
    let models: Vec<&Value> = offers.iter().map(|o| &o.models).collect();
    let modes: Vec<&Value> = offers.iter().map(|o| &o.modes).collect();
    let thinking: Vec<&Value> = offers.iter().map(|o| &o.thinking_options).collect();
    let commands: Vec<&Value> = offers.iter().map(|o| &o.commands).collect();
    let capabilities: Vec<&Value> = offers.iter().map(|o| &o.capabilities).collect();
    let slots: Vec<i32> = offers.iter().map(|o| o.slots).collect();
    let fallback: Vec<Option<&str>> = offers.iter().map(|o| o.fallback.as_deref()).collect();
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    store
        .query(
            &PUBLISH_OFFERS,
            &[
                &worker.0,
                &name,
                &status,
                &error,
                &path,
                &version,
                &models,
                &modes,
                &thinking,
                &commands,
                &capabilities,
                &slots,
                &fallback,
                &ttl_ms,
            ],
        )
        .await?;
    Ok(())
}

/// Set or clear a fleet-wide setting.
pub async fn set_setting(store: &Store, name: &str, value: Option<&str>) -> Result<(), StoreError> {
    match value {
        Some(value) => store.query(&SET_SETTING, &[&name, &value]).await?,
        None => store.query(&DROP_SETTING, &[&name]).await?,
    };
    Ok(())
}
