//! `dispatch bench driver`: the queue under a benchmark, so that other queues can be run beside it
//! by the same script. Prints `RESULT key=value` lines. Uses the path that does nothing; everything
//! else is the product: trigger, claim, spawn, finish.

pub mod agent;
pub mod sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use tokio::task::JoinSet;

use crate::config::agents::Catalogue;
use crate::config::worker::WorkerSettings;
use crate::domain::sandbox::Rung;
use crate::queue::supervisor::{StopSignals, Worker, WorkerError};
use crate::store::listen::Listener;
use crate::store::{Store, StoreError, bench, migrate};

/// Slots of the drain: enough that claims come in large batches.
const DRAIN_SLOTS: u32 = 4_000;

/// Rows in one INSERT of `enqueue`.
const ENQUEUE_BATCH: i64 = 5_000;

/// Connections of `enqueue1`.
const ENQUEUE_CLIENTS: i64 = 8;

/// How often the drain looks whether the newest task has ended …
const LOOK: Duration = Duration::from_millis(2);

/// … and how often it counts although the newest one has not: a task that an earlier, killed
/// driver left in a lease ends late.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// The drain gives up when nothing ended for so long: longer than a lease of a killed driver.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Samples of `latency` may take this long to start, in all, before it gives up.
const LATENCY_GRACE: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Make the schema, the project and the agent.
    Setup,
    /// Insert this many tasks, 5,000 a statement.
    Enqueue(i64),
    /// Insert this many tasks one by one over eight connections.
    EnqueueSingly(i64),
    /// Run until this many tasks have ended.
    Drain(i64),
    /// Insert one task each so often and see when it starts.
    Latency {
        /// How many.
        count: i64,
        /// Time between them.
        every: Duration,
    },
}

/// Run one measurement against this database and print the results.
pub async fn run(database_url: &str, measure: Measure) -> Result<(), WorkerError> {
    match measure {
        Measure::Setup => setup(database_url).await,
        Measure::Enqueue(count) => enqueue(database_url, count).await,
        Measure::EnqueueSingly(count) => enqueue_singly(database_url, count).await,
        Measure::Drain(count) => drain(database_url, count).await,
        Measure::Latency { count, every } => latency(database_url, count, every).await,
    }
}

async fn setup(url: &str) -> Result<(), WorkerError> {
    migrate::migrate(url).await?;
    let store = Store::connect(url, 1)?;
    bench::prepare(&store).await?;
    result("schema_version", migrate::wanted_version());
    Ok(())
}

async fn enqueue(url: &str, count: i64) -> Result<(), WorkerError> {
    let store = Store::connect(url, 1)?;
    let began = Instant::now();
    let mut left = count;
    while left > 0 {
        let batch = left.min(ENQUEUE_BATCH);
        bench::insert(&store, batch).await?;
        left -= batch;
    }
    rate("enqueue", count, began.elapsed());
    Ok(())
}

async fn enqueue_singly(url: &str, count: i64) -> Result<(), WorkerError> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..ENQUEUE_CLIENTS {
        let store = Store::connect(url, 1)?;
        store.trust_sessions();
        let mine = count / ENQUEUE_CLIENTS + i64::from(client < count % ENQUEUE_CLIENTS);
        clients.spawn(async move {
            for _ in 0..mine {
                bench::insert(&store, 1).await?;
            }
            Ok::<(), StoreError>(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done.map_err(|error| WorkerError::Setup(error.to_string()))??;
    }
    rate("enqueue1", count, began.elapsed());
    Ok(())
}

/// Time runs from the start of the worker, which then connects, proves its session, probes and
/// offers its agent, until the database shows that `count` tasks have ended. The newest task is
/// looked up by its key, since counting all the time would be a good part of what is measured.
async fn drain(url: &str, count: i64) -> Result<(), WorkerError> {
    let store = Store::connect(url, 1)?;
    store.trust_sessions();
    let open = bench::open(&store).await?;
    let before = bench::ended(&store, open.first).await?;
    let cpu_before = cpu();
    let began = Instant::now();
    let bench = BenchWorker::start(url).await?;
    let mut counted = (0, Instant::now());
    while counted.0 < count {
        tokio::time::sleep(LOOK).await;
        if counted.1.elapsed() < COUNT_EVERY && !bench::has_ended(&store, open.last).await? {
            continue;
        }
        let ended = bench::ended(&store, open.first).await? - before;
        if ended > counted.0 {
            counted = (ended, Instant::now());
        } else if counted.1.elapsed() > DRAIN_PATIENCE {
            bench.stop().await?;
            return Err(WorkerError::Setup(format!(
                "{ended} tasks have ended and no more do; {count} were asked for. Insert them first: dispatch bench driver enqueue {count}"
            )));
        }
    }
    let took = began.elapsed();
    let cpu = cpu().saturating_sub(cpu_before);
    bench.stop().await?;
    rate("drain", count, took);
    let per_task = cpu.as_secs_f64() * 1e6 / count as f64;
    result("drain_worker_cpu_us_per_task", format!("{per_task:.2}"));
    result("drain_worker_rss_peak_kb", rss_peak_kb());
    Ok(())
}

/// Processor time of this process so far, the observer's included.
fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let spent = usage.user_time() + usage.system_time();
    let us = spent.tv_sec() * 1_000_000 + spent.tv_usec();
    Duration::from_micros(us.unsigned_abs())
}

/// Most resident memory that this process ever had; Linux tells it in KiB.
fn rss_peak_kb() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss())
}

/// From before the INSERT is sent to the moment the transaction begins that stores the attempt's
/// end. The attempt does nothing, so that this is its start plus the way to the end's statement:
/// an upper bound of the time to start. Both stamps are the database's clock; the round trip that
/// reads the first one counts too.
async fn latency(url: &str, count: i64, every: Duration) -> Result<(), WorkerError> {
    let store = Store::connect(url, 2)?;
    store.trust_sessions();
    let bench = BenchWorker::start(url).await?;
    bench::insert(&store, 1).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut inserted = BTreeMap::new();
    for _ in 0..count {
        tokio::time::sleep(every).await;
        let stamp = bench::clock_us(&store).await?;
        inserted.insert(bench::insert_one(&store).await?, stamp);
    }
    let patience = Instant::now() + LATENCY_GRACE;
    let mut started = BTreeMap::new();
    while started.len() < inserted.len() && Instant::now() < patience {
        let ids: Vec<i64> = inserted.keys().copied().collect();
        started = bench::started_us(&store, &ids).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.stop().await?;
    let mut times: Vec<i64> = inserted
        .iter()
        .filter_map(|(task, stamp)| started.get(task).map(|at| at - stamp))
        .collect();
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or(-1) as f64
            / 1_000.0
    };
    result("latency_samples", times.len());
    result("latency_p50_ms", format!("{:.3}", at(0.50)));
    result("latency_p99_ms", format!("{:.3}", at(0.99)));
    Ok(())
}

/// A whole worker with the catalogue of the benchmark.
struct BenchWorker {
    stop: StopSignals,
    tasks: JoinSet<Result<(), WorkerError>>,
    data: tempfile::TempDir,
}

impl BenchWorker {
    async fn start(url: &str) -> Result<Self, WorkerError> {
        let data = tempfile::tempdir().map_err(|error| WorkerError::Setup(error.to_string()))?;
        let catalogue = Catalogue::parse(&format!(
            "[agents.noop]\nlabel = \"benchmark\"\npath = \"noop\"\nslots = {DRAIN_SLOTS}\n"
        ))
        .map_err(|error| WorkerError::Setup(error.to_string()))?;
        let settings = WorkerSettings {
            database_url: url.to_owned(),
            listen_url: None,
            data_dir: data.path().to_owned(),
            agents_file: PathBuf::new(),
            secret_files: Vec::new(),
            slots: DRAIN_SLOTS,
            name: "bench".to_owned(),
            drain: Duration::from_secs(10),
            allow_hooks: false,
            sandbox: Some(Rung::None),
            helper: None,
            connections: 6,
        };
        let listener = Listener::new();
        let stop = StopSignals::default();
        let mut tasks = JoinSet::new();
        let (worker, writer) = Worker::start(settings, catalogue, listener.clone()).await?;
        let (listen_url, listen_stop) = (url.to_owned(), stop.hard.clone());
        tasks.spawn(async move {
            listener.run(&listen_url, listen_stop).await;
            Ok(())
        });
        let signals = stop.clone();
        tasks.spawn(async move { worker.run(writer, signals).await });
        Ok(Self { stop, tasks, data })
    }

    async fn stop(mut self) -> Result<(), WorkerError> {
        self.stop.soft.cancel();
        self.stop.hard.cancel();
        while let Some(done) = self.tasks.join_next().await {
            done.map_err(|error| WorkerError::Setup(error.to_string()))??;
        }
        drop(self.data);
        Ok(())
    }
}

fn rate(what: &str, count: i64, took: Duration) {
    result(&format!("{what}_count"), count);
    result(
        &format!("{what}_seconds"),
        format!("{:.4}", took.as_secs_f64()),
    );
    result(
        &format!("{what}_per_second"),
        format!("{:.0}", count as f64 / took.as_secs_f64()),
    );
}

#[expect(
    clippy::print_stdout,
    reason = "the results are the output of the command"
)]
fn result(key: &str, value: impl std::fmt::Display) {
    println!("RESULT {key}={value}");
}
