//! Arm the doorbell, claim up to the free slots, wait. NOTIFY hastens; looking guarantees.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::attempt::ExecutionPath;
use crate::run::finish;
use crate::run::leash::Leash;
use crate::run::{self, RunContext};
use crate::store::claims::{self, Claimed, Look, LowWaterMarks};
use crate::store::fleet;
use crate::store::listen::Wakeup;

use super::finisher::Over;
use super::lease::LeaseBook;
use super::maintainer::Poke;
use super::slots::Slots;
use super::sweeper::Late;

/// For how long the doorbell is armed at a time.
const ARMED_FOR: Duration = Duration::from_secs(30);

/// A trigger that read "not armed" may commit after our look: look again this soon after arming.
const RECHECKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// A look without being told: this often, backing off to the second figure while idle. Not where
/// LISTEN is down, for nothing else tells then.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_IDLE_MAX: Duration = Duration::from_secs(5);

/// With many slots, wait for a quarter of them or this long, so that claims come in batches.
const BATCH_WAIT: Duration = Duration::from_millis(2);

/// Pause after a claim failed.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Claims tasks and starts their attempts.
pub struct Poller {
    /// What attempts share.
    pub context: Arc<RunContext>,
    /// Free slots.
    pub slots: Slots,
    /// Running attempts.
    pub book: LeaseBook,
    /// Attempts, to be awaited at the end.
    pub attempts: TaskTracker,
    /// Plain ends.
    pub finisher: mpsc::Sender<Over>,
    /// To move parked tasks on when one ended.
    pub poke: Poke,
    /// Where claims got to; the sweeper looks behind them.
    pub marks: LowWaterMarks,
    /// Says that something may be behind the marks.
    pub late: Late,
    /// Agents of whose tasks the last claim left none ready.
    quiet: BTreeSet<String>,
    armed_until: Option<Instant>,
    rechecks: usize,
    look_every: Duration,
}

/// What the last claim showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It filled every slot it could: there may be more.
    Full,
    /// It got some, but not as many as it could have had.
    Some,
    /// Nothing was ready.
    Nothing,
}

impl Poller {
    /// A poller that has not looked yet.
    pub fn new(
        context: Arc<RunContext>,
        slots: Slots,
        book: LeaseBook,
        attempts: TaskTracker,
        finisher: mpsc::Sender<Over>,
        poke: Poke,
        (marks, late): (LowWaterMarks, Late),
    ) -> Self {
        Self {
            context,
            slots,
            book,
            attempts,
            finisher,
            poke,
            marks,
            late,
            quiet: BTreeSet::new(),
            armed_until: None,
            rechecks: RECHECKS.len(),
            look_every: LOOK,
        }
    }

    /// Claim until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut wakeups = self.context.listener.subscribe();
        while !stop.is_cancelled() {
            let (demand, total) = self.slots.demand();
            if total == 0 {
                self.disarm().await;
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.slots.changed() => continue,
                }
            }
            let seen = match self.claim(&demand, total).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!(%error, "claiming failed");
                    self.armed_until = None;
                    pause(&stop, ERROR_PAUSE).await;
                    continue;
                }
            };
            match seen {
                Seen::Full => {
                    self.disarm().await;
                    self.gather(&stop).await;
                }
                Seen::Some | Seen::Nothing if self.arm().await => {}
                Seen::Some | Seen::Nothing => self.wait(&mut wakeups, &stop).await,
            }
        }
        self.disarm().await;
    }

    async fn claim(
        &mut self,
        demand: &[claims::Demand],
        total: u32,
    ) -> Result<Seen, crate::store::StoreError> {
        let all = self.late.take();
        let look = if all { Look::All } else { Look::New };
        let most = i32::try_from(total).unwrap_or(i32::MAX);
        let context = &self.context;
        let claimed = claims::claim(
            &context.store,
            context.worker,
            demand,
            most,
            look,
            &self.marks,
        )
        .await
        .inspect_err(|_| {
            if all {
                self.late.tell();
            }
        })?;
        let count = claimed.len();
        let deaf = !*context.listener.connected().borrow();
        self.look_every = if count > 0 || deaf {
            LOOK
        } else {
            (self.look_every * 2).min(LOOK_IDLE_MAX)
        };
        self.quiet = demand
            .iter()
            .filter(|d| {
                let got = claimed.iter().filter(|c| c.agent == d.agent).count();
                got < usize::try_from(d.free).unwrap_or(0)
            })
            .map(|d| d.agent.clone())
            .collect();
        for task in claimed {
            self.start(task);
        }
        Ok(match count {
            0 => Seen::Nothing,
            n if n >= usize::try_from(total).unwrap_or(usize::MAX) => Seen::Full,
            _ => Seen::Some,
        })
    }

    fn start(&self, claimed: Claimed) {
        let task = claimed.lease.task().0;
        let slot = self.slots.take(&claimed.agent);
        let token = claimed.lease.token().0;
        let leash = self.book.enter(task, token);
        let catalogue = self.context.catalogue();
        let path = catalogue.agents.get(&claimed.agent).map(|spec| spec.path);
        if path == Some(ExecutionPath::Noop) {
            let (context, finisher) = (self.context.clone(), self.finisher.clone());
            self.attempts.spawn(async move {
                run::plain::run_attempt(&context, &claimed).await;
                let _finisher_gone = finisher.send(Over { claimed, slot }).await;
            });
            return;
        }
        let (context, book, poke) = (self.context.clone(), self.book.clone(), self.poke.clone());
        self.attempts.spawn(async move {
            guarded(context, claimed, leash).await;
            book.leave(token);
            drop(slot);
            // Also a task without a limit may have let another one wait: it began a conversation.
            poke.now();
        });
    }

    /// Arm the doorbell if it is not armed for long enough. `true`: it was armed just now, so the
    /// caller looks once more before it waits.
    async fn arm(&mut self) -> bool {
        let soon = Instant::now() + ARMED_FOR / 3;
        if self.armed_until.is_some_and(|until| until > soon) {
            return false;
        }
        let context = &self.context;
        match fleet::arm_bell(&context.store, context.worker, ARMED_FOR).await {
            Ok(()) => {
                let fresh = self.armed_until.is_none();
                self.armed_until = Some(Instant::now() + ARMED_FOR);
                self.rechecks = if fresh { 0 } else { RECHECKS.len() };
                if fresh {
                    // Nobody told of due and parked tasks while the bell was not armed.
                    self.poke.now();
                }
                fresh
            }
            Err(error) => {
                tracing::warn!(%error, "the doorbell could not be armed");
                false
            }
        }
    }

    async fn disarm(&mut self) {
        if self.armed_until.take().is_some() {
            let context = &self.context;
            let done = fleet::arm_bell(&context.store, context.worker, Duration::ZERO).await;
            if let Err(error) = done {
                tracing::debug!(%error, "the doorbell could not be disarmed");
            }
        }
    }

    /// Between two full claims: let slots gather, so that batches stay large.
    async fn gather(&self, stop: &CancellationToken) {
        let deadline = tokio::time::sleep(BATCH_WAIT);
        tokio::pin!(deadline);
        loop {
            let (slots, used) = self.slots.usage();
            if slots.saturating_sub(used) >= (slots / 4).max(1) {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut deadline => return,
                () = self.slots.changed() => {}
            }
        }
    }

    /// Until there may be work: the bell, a changed offer, a recheck after arming, the sweeper, or time.
    async fn wait(&mut self, wakeups: &mut broadcast::Receiver<Wakeup>, stop: &CancellationToken) {
        let recheck = RECHECKS.get(self.rechecks).copied();
        self.rechecks += 1;
        let timer = tokio::time::sleep(recheck.unwrap_or(self.look_every));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut timer => return,
                () = self.late.told() => return,
                () = self.slots.changed() => {
                    // A freed slot means nothing to an agent that had slots to spare.
                    let (demand, _) = self.slots.demand();
                    if demand.iter().any(|d| !self.quiet.contains(&d.agent)) {
                        return;
                    }
                }
                heard = wakeups.recv() => match heard {
                    Ok(Wakeup::Ready) => return,
                    // A task that waited elsewhere keeps its old time, behind the marks.
                    Ok(Wakeup::Moved | Wakeup::Gap) | Err(RecvError::Lagged(_)) => {
                        self.late.tell();
                        return;
                    }
                    Ok(_) => {}
                    Err(RecvError::Closed) => {
                        timer.await;
                        return;
                    }
                }
            }
        }
    }
}

async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// A panic inside an attempt is the end of that attempt, not of the worker.
async fn guarded(context: Arc<RunContext>, claimed: Claimed, leash: Leash) {
    let task = run::run_attempt(context.clone(), claimed.clone(), leash);
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(task.id = claimed.lease.task().0, "an attempt panicked");
        let message = "dispatch itself failed while running the attempt; its log says where";
        finish::store_after_panic(&context, &claimed, message).await;
    }
}
