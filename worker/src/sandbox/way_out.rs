//! The way out of a sandbox whose network is the gateway.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Sandbox;
use super::give::passage;
use super::uids::Owner;
use crate::domain::hosts::{LocalService, Policy};
use crate::gateway::{Gateway, Refusal};

/// The gateway of one attempt; closed when the last confinement that leads through it is gone.
pub(super) struct WayOut {
    /// Where the relay inside finds it.
    pub(super) socket: PathBuf,
    /// Services of the machine that it leads to, which clients ask for directly.
    pub(super) services: Vec<LocalService>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    _gateway: Gateway,
}

impl fmt::Debug for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WayOut").field(&self.socket).finish()
    }
}

impl WayOut {
    /// Open it to these hosts. Must be called inside the runtime.
    pub(super) fn open(
        sandbox: &Sandbox,
        hosts: &Policy,
        owner: Option<&Owner>,
    ) -> Result<Self, String> {
        let services = hosts.local_services();
        let dir = sandbox.data_dir.join("gateways");
        passage(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let socket = dir.join(name.get(..12).unwrap_or(&name));
        let refusals: Arc<Mutex<Vec<Refusal>>> = Arc::default();
        let told = Arc::clone(&refusals);
        let observer = Arc::new(move |refusal: Refusal| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(refusal);
        });
        let gateway =
            Gateway::listen(&socket, hosts.clone(), observer).map_err(|e| e.to_string())?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&socket, Some(owner.id), Some(owner.id))
                .map_err(|error| format!("cannot give the gateway's socket away: {error}"))?;
        }
        Ok(Self {
            socket,
            services,
            refusals,
            _gateway: gateway,
        })
    }

    /// What was refused until now, in words.
    pub(super) fn refusals(&self) -> Vec<String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.iter().map(Refusal::words).collect()
    }
}
