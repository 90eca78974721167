//! Starts the services of a worker in order and stops them in order. Two-stage stop: take no more
//! and let run; then, after the drain time or at the second signal, interrupt and give back.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::llm::GenaiLlm;
use crate::agent::native::{ProviderGate, RealTime};
use crate::broker::writer::{EventWriter, Trouble};
use crate::config::agents::Catalogue;
use crate::config::worker::WorkerSettings;
use crate::domain::ids::WorkerId;
use crate::run::RunContext;
use crate::run::leash::Stop;
use crate::sandbox::{self, Sandbox};
use crate::store::claims::LowWaterMarks;
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError, fleet};
use crate::telemetry::figures;
use crate::workspace::{HooksPolicy, WorkspaceError, Workspaces};

use super::alive::{self, AliveLock};
use super::finisher;
use super::lease::{Heartbeat, LeaseBook};
use super::maintainer::Poke;
use super::poller::Poller;
use super::slots::Slots;
use super::sweeper::Late;

mod services;

/// How long interrupted attempts may take to record what is there and give back.
const INTERRUPT_TIME: Duration = Duration::from_secs(90);

/// How long a claim under way may still take once attempts are interrupted.
const CLAIM_TIME: Duration = Duration::from_secs(5);

/// How long a self-ping may take before LISTEN counts as not working here.
const PING_TIME: Duration = Duration::from_secs(5);

/// Signals that stop a worker.
#[derive(Clone, Debug, Default)]
pub struct StopSignals {
    /// Take no more; let run for the drain time.
    pub soft: CancellationToken,
    /// Interrupt what runs.
    pub hard: CancellationToken,
}

/// A worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The data directory.
    #[error("{0}")]
    Workspace(#[from] WorkspaceError),
    /// Something of the machine.
    #[error("{0}")]
    Setup(String),
}

/// A running worker.
pub struct Worker {
    settings: WorkerSettings,
    context: Arc<RunContext>,
    slots: Slots,
    book: LeaseBook,
    attempts: TaskTracker,
    poke: Poke,
    marks: LowWaterMarks,
    late: Late,
    /// Held until the process ends.
    lock: AliveLock,
}

impl Worker {
    /// Connect, open the data directory, end what a killed worker left running, register.
    pub async fn start(
        settings: WorkerSettings,
        catalogue: Catalogue,
        listener: Listener,
    ) -> Result<(Self, crate::broker::writer::WriterTask), WorkerError> {
        let store = Store::connect(&settings.database_url, settings.connections)?;
        let work = settings.data_dir.join("work");
        let homes = settings.data_dir.join("homes");
        let alive = settings.data_dir.join("alive");
        for dir in [&work, &homes, &alive] {
            passage(dir)?;
        }
        let sandbox = Sandbox::find(sandbox::Settings {
            helper: settings.helper.clone(),
            data_dir: settings.data_dir.canonicalize().map_err(|error| {
                WorkerError::Setup(format!(
                    "cannot use {}: {error}",
                    settings.data_dir.display()
                ))
            })?,
            hidden: catalogue
                .key_files()
                .chain([settings.agents_file.clone()])
                .chain(settings.secret_files.iter().cloned())
                .collect(),
            only: settings.sandbox,
        })
        .await
        .map_err(WorkerError::Setup)?;
        sandbox.tell();
        let worker = WorkerId::fresh();
        let lock = crate::blocking::run(move || alive::begin(&alive, worker))
            .await
            .map_err(|error| WorkerError::Setup(error.to_string()))?
            .map_err(|error| {
                WorkerError::Setup(format!("cannot show that this worker lives: {error}"))
            })?;
        let hooks = if settings.allow_hooks {
            HooksPolicy::Allowed
        } else {
            HooksPolicy::Off
        };
        let workspaces = Workspaces::open(work, hooks)?
            .with_marks(&crate::run::marks_of(worker))
            .with_sandbox(sandbox.clone());
        let book = LeaseBook::default();
        let on_trouble = {
            let book = book.clone();
            Arc::new(move |token, trouble| match trouble {
                Trouble::Lost => book.revoke(token),
                Trouble::Refused(error) => book.refuse(token, error),
            })
        };
        let (writer, writer_task) = EventWriter::new(store.clone(), listener.clone(), on_trouble);
        let slots = i32::try_from(settings.slots).unwrap_or(i32::MAX);
        figures::begin();
        figures::begin_agents(&catalogue);
        fleet::register(&store, worker, &settings.name, slots, sandbox.best()).await?;
        let context = Arc::new(RunContext {
            store,
            listener,
            writer,
            workspaces,
            sandbox,
            homes,
            worker,
            worker_name: settings.name.clone(),
            own_secrets: crate::run::secrets::of_worker(&settings),
            gate: ProviderGate::default(),
            llm: Arc::new(GenaiLlm::new().map_err(|e| WorkerError::Setup(e.to_string()))?),
            clock: Arc::new(RealTime),
            agents: RwLock::new(Arc::new(catalogue)),
        });
        tracing::info!(worker.id = %worker, name = settings.name, slots = settings.slots, "worker started");
        let slots = Slots::new(settings.slots);
        let this = Self {
            settings,
            context,
            slots,
            book,
            attempts: TaskTracker::new(),
            poke: Poke::default(),
            marks: LowWaterMarks::default(),
            late: Late::default(),
            lock,
        };
        Ok((this, writer_task))
    }

    /// What attempts share; for tests and for `up`.
    pub fn context(&self) -> Arc<RunContext> {
        self.context.clone()
    }

    /// Run until stopped, then stop in order.
    pub async fn run(
        self,
        writer: crate::broker::writer::WriterTask,
        stop: StopSignals,
    ) -> Result<(), WorkerError> {
        let services_stop = CancellationToken::new();
        let mut writer_set = JoinSet::new();
        writer_set.spawn(writer.run());
        self.trust_sessions_if_proven().await;
        let (over, over_rx) = mpsc::channel(4_096);
        let mut finisher_set = JoinSet::new();
        finisher_set.spawn(finisher::run(
            self.context.clone(),
            self.book.clone(),
            over_rx,
            self.poke.clone(),
        ));
        let mut services = self.start_services(&services_stop)?;
        let poller = Poller::new(
            self.context.clone(),
            self.slots.clone(),
            self.book.clone(),
            self.attempts.clone(),
            over,
            self.poke.clone(),
            (self.marks.clone(), self.late.clone()),
        );
        let heartbeat = self.heartbeat(stop.soft.clone())?;
        let heartbeat_stop = CancellationToken::new();
        let mut heart = JoinSet::new();
        heart.spawn(heartbeat.run(heartbeat_stop.clone()));

        let mut polling = JoinSet::new();
        polling.spawn(poller.run(stop.soft.clone()));
        let broken = tokio::select! {
            () = stop.soft.cancelled() => None,
            _ = polling.join_next() => Some("claiming"),
            _ = heart.join_next() => Some("the heartbeat"),
            _ = finisher_set.join_next() => Some("storing plain ends"),
            _ = writer_set.join_next() => Some("storing events"),
        };
        let broken = broken.filter(|_| !stop.soft.is_cancelled());
        if let Some(part) = broken {
            // Without it attempts would be rescued elsewhere while they run here, or lose events.
            tracing::error!(part, "a part of the worker ended by itself: stopping");
            stop.soft.cancel();
            stop.hard.cancel();
        }
        end_polling(&mut polling, &stop.hard).await;
        self.drain(&stop.hard).await;
        // Heartbeats go on until the last end is stored: a draining worker is not a dead one.
        let storing = async { while finisher_set.join_next().await.is_some() {} };
        if tokio::time::timeout(INTERRUPT_TIME, storing).await.is_err() {
            tracing::error!("some ends could not be stored; their leases will expire");
        }
        services_stop.cancel();
        while services.join_next().await.is_some() {}
        // What somebody had it try.
        self.end_processes().await;
        heartbeat_stop.cancel();
        while heart.join_next().await.is_some() {}
        if let Err(error) = fleet::leave(&self.context.store, self.context.worker).await {
            tracing::warn!(%error, "the worker could not sign off; it will count as lost");
        }
        self.context.workspaces.close().await;
        alive::end(&self.settings.data_dir.join("alive"), self.context.worker);
        drop(self.lock);
        tracing::info!("worker stopped");
        drop(self.context);
        writer_set.shutdown().await;
        match broken {
            Some(part) => Err(WorkerError::Setup(format!(
                "{part} ended by itself; the log says why"
            ))),
            None => Ok(()),
        }
    }

    fn heartbeat(&self, draining: CancellationToken) -> Result<Heartbeat, WorkerError> {
        Ok(Heartbeat {
            store: Store::connect(&self.settings.database_url, 1)?,
            worker: self.context.worker,
            name: self.settings.name.clone(),
            slots: self.settings.slots,
            sandbox: self.context.sandbox.best(),
            slots_open: self.slots.clone(),
            book: self.book.clone(),
            draining,
        })
    }

    /// Named prepared statements are safe only where a connection is a session. A LISTEN that
    /// hears our own ping over the same connection string proves it.
    async fn trust_sessions_if_proven(&self) {
        if self.settings.listen_url.is_some() {
            return;
        }
        let mut wakeups = self.context.listener.subscribe();
        let mut connected = self.context.listener.connected();
        let number = i64::from_be_bytes(
            self.context.worker.0.as_bytes()[8..]
                .try_into()
                .unwrap_or_default(),
        );
        let proven = tokio::time::timeout(PING_TIME, async {
            connected.wait_for(|up| *up).await.ok()?;
            fleet::notify(&self.context.store, &format!("ping {number}"))
                .await
                .ok()?;
            loop {
                if wakeups.recv().await.ok()? == Wakeup::Ping(number) {
                    return Some(());
                }
            }
        });
        match proven.await {
            Ok(Some(())) => self.context.store.trust_sessions(),
            Ok(None) | Err(_) => tracing::warn!(
                "LISTEN does not work on DATABASE_URL (a pooler in transaction mode?): set DATABASE_LISTEN_URL to a direct connection; polling until then"
            ),
        }
    }

    /// Others take the tasks over as soon as this worker signs off: no agent of it may be left.
    async fn end_processes(&self) {
        let prefix = crate::run::marks_of(self.context.worker);
        let swept = crate::blocking::run(move || {
            crate::agent::process::sweep_marks(|mark| mark.starts_with(&prefix))
        });
        match swept.await {
            Ok(Ok(_ended)) => {}
            Ok(Err(error)) => tracing::error!(%error, "processes of agents could not be ended"),
            Err(error) => tracing::error!(%error, "processes of agents could not be looked for"),
        }
    }

    async fn drain(&self, hard: &CancellationToken) {
        self.attempts.close();
        let running = self.book.len();
        if running > 0 {
            tracing::info!(
                running,
                "draining: no new tasks; waiting for the running ones"
            );
        }
        tokio::select! {
            () = self.attempts.wait() => return,
            () = hard.cancelled() => {}
            () = tokio::time::sleep(self.settings.drain) => {}
        }
        tracing::info!(
            running = self.book.len(),
            "interrupting: what is there is recorded, tasks go back"
        );
        self.book.pull_all(Stop::Interrupt);
        if tokio::time::timeout(INTERRUPT_TIME, self.attempts.wait())
            .await
            .is_err()
        {
            tracing::error!(
                running = self.book.len(),
                "some attempts did not end: ending their processes; their leases will expire"
            );
            self.end_processes().await;
        }
    }
}

/// A claim under way is awaited, for what it claims must be run; not for ever when we must go.
async fn end_polling(polling: &mut JoinSet<()>, hard: &CancellationToken) {
    let unanswered = async {
        hard.cancelled().await;
        tokio::time::sleep(CLAIM_TIME).await;
    };
    tokio::select! {
        () = async { while polling.join_next().await.is_some() {} } => return,
        () = unanswered => {}
    }
    polling.shutdown().await;
}

/// For what attempts own.
fn passage(dir: &Path) -> Result<(), WorkerError> {
    sandbox::passage(dir).map_err(|error| {
        WorkerError::Setup(format!(
            "cannot make {}: {error}. Choose another directory with --data",
            dir.display()
        ))
    })
}
