//! The services of a worker beside claiming: each looks by itself, or when it is woken, until stopped.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Worker, WorkerError, passage};
use crate::queue::lookups::Answerer;
use crate::queue::maintainer::Poke;
use crate::queue::offers::Offers;
use crate::queue::tries::{Fresh, PROBES, Tries};
use crate::queue::{applier, cancels, gauges, janitor, maintainer, pauses, rescuer, sweeper};
use crate::telemetry::figures;

/// Pause before a service that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Start all of them.
    pub(super) fn start_services(
        &self,
        stop: &CancellationToken,
    ) -> Result<JoinSet<()>, WorkerError> {
        let context = self.context.clone();
        let (store, listener) = (context.store.clone(), context.listener.clone());
        let (worker, workspaces) = (context.worker, context.workspaces.clone());
        let scratch = self.settings.data_dir.join(PROBES);
        passage(&scratch)?;
        let mut services = JoinSet::new();
        let rescued = Poke::default();
        {
            let (store, listener) = (store.clone(), listener.clone());
            let (book, stop) = (self.book.clone(), stop.clone());
            serve(&mut services, "cancels", &stop.clone(), move || {
                let (store, listener) = (store.clone(), listener.clone());
                cancels::run(store, worker, listener, book.clone(), stop.clone())
            });
        }
        {
            let (store, listener) = (store.clone(), listener.clone());
            let (poke, stop) = (self.poke.clone(), stop.clone());
            serve(&mut services, "maintainer", &stop.clone(), move || {
                maintainer::run(store.clone(), listener.clone(), poke.clone(), stop.clone())
            });
        }
        {
            let (store, slots, stop) = (store.clone(), self.slots.clone(), stop.clone());
            let (marks, late) = (self.marks.clone(), self.late.clone());
            serve(&mut services, "sweeper", &stop.clone(), move || {
                let (marks, late) = (marks.clone(), late.clone());
                sweeper::run(store.clone(), slots.clone(), marks, late, stop.clone())
            });
        }
        {
            let (store, book, stop) = (store.clone(), self.book.clone(), stop.clone());
            let pokes = [rescued.clone(), self.poke.clone()];
            serve(&mut services, "rescuer", &stop.clone(), move || {
                rescuer::run(
                    store.clone(),
                    worker,
                    book.clone(),
                    pokes.clone(),
                    stop.clone(),
                )
            });
        }
        {
            let (store, workspaces, stop) = (store.clone(), workspaces.clone(), stop.clone());
            serve(&mut services, "applier", &stop.clone(), move || {
                let (store, workspaces) = (store.clone(), workspaces.clone());
                applier::run(store, workspaces, listener.clone(), stop.clone())
            });
        }
        {
            let (store, book, stop) = (store.clone(), self.book.clone(), stop.clone());
            serve(&mut services, "janitor", &stop.clone(), move || {
                let (store, workspaces) = (store.clone(), workspaces.clone());
                janitor::run(
                    store,
                    workspaces,
                    book.clone(),
                    rescued.clone(),
                    stop.clone(),
                )
            });
        }
        {
            let (store, gate, stop) = (store.clone(), context.gate.clone(), stop.clone());
            let listener = context.listener.clone();
            serve(&mut services, "pauses", &stop.clone(), move || {
                pauses::run(store.clone(), listener.clone(), gate.clone(), stop.clone())
            });
        }
        let fresh = Fresh::default();
        self.start_offers(&mut services, (scratch.clone(), fresh.clone()), stop);
        self.start_lookups(&mut services, (scratch, fresh), stop);
        let (slots, stop) = (self.slots.clone(), stop.clone());
        serve(&mut services, "gauges", &stop.clone(), move || {
            gauges::run(slots.clone(), store.clone(), stop.clone())
        });
        Ok(services)
    }

    /// Those about agents, which may take minutes, beside the others.
    fn start_lookups(
        &self,
        services: &mut JoinSet<()>,
        (scratch, fresh): (PathBuf, Fresh),
        stop: &CancellationToken,
    ) {
        let context = self.context.clone();
        let tries = Tries {
            context: context.clone(),
            scratch,
            fresh,
        };
        for (name, answerer) in [
            ("lookups", Answerer::Repositories(context)),
            ("probes", Answerer::Probes(tries.clone())),
            ("checks", Answerer::Checks(tries)),
        ] {
            let answerer_stop = stop.clone();
            serve(services, name, stop, move || {
                answerer.clone().run(answerer_stop.clone())
            });
        }
    }

    fn start_offers(
        &self,
        services: &mut JoinSet<()>,
        (scratch, fresh): (PathBuf, Fresh),
        stop: &CancellationToken,
    ) {
        let (context, slots) = (self.context.clone(), self.slots.clone());
        let (file, run_stop) = (self.settings.agents_file.clone(), stop.clone());
        serve(services, "offers", stop, move || {
            let offers = Offers {
                context: context.clone(),
                slots: slots.clone(),
                file: Some(file.clone()),
                scratch: scratch.clone(),
                current: BTreeMap::new(),
                held: false,
                paused: BTreeMap::new(),
                fresh: fresh.clone(),
            };
            offers.run(run_stop.clone())
        });
    }
}

/// Run a service until it is stopped. A panic costs the look it happened in, not the service.
fn serve<F>(
    services: &mut JoinSet<()>,
    name: &'static str,
    stop: &CancellationToken,
    service: impl Fn() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = stop.clone();
    figures::service_begins(name);
    services.spawn(async move {
        while AssertUnwindSafe(service()).catch_unwind().await.is_err() {
            tracing::error!(service = name, "a service panicked; it is started again");
            figures::service_panicked(name);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    });
}
