//! The way out of a sandbox whose network is the gateway.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Sandbox;
use super::give::passage;
use super::uids::Owner;
use crate::domain::hosts::{LocalService, Policy};
use crate::domain::limits;
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

/// Where they are.
fn sockets(data_dir: &Path) -> PathBuf {
    data_dir.join("gateways")
}

/// Remove sockets that killed workers left. One that nobody listens at is that, unless it was made
/// a moment ago.
pub(super) fn clear(data_dir: &Path) {
    let entries = std::fs::read_dir(sockets(data_dir)).into_iter().flatten();
    for entry in entries.flatten() {
        let made = entry.metadata().and_then(|facts| facts.modified());
        let age = made.map(|at| at.elapsed().unwrap_or_default());
        let settled = age.is_ok_and(|age| age > limits::DIRECTORY_SETTLED);
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        if settled && UnixStream::connect(entry.path()).is_err_and(refused) {
            let _another_did = std::fs::remove_file(entry.path());
        }
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
        let dir = sockets(&sandbox.data_dir);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    #[test]
    fn only_sockets_that_nobody_listens_at_any_more_are_cleared_away() {
        let data = tempfile::tempdir().unwrap();
        let dir = sockets(data.path());
        std::fs::create_dir(&dir).unwrap();
        let at = |name: &str| dir.join(name);
        let bind = |name: &str| UnixListener::bind(at(name)).unwrap();
        let _live = bind("live");
        drop((bind("stale"), bind("fresh")));
        let old = SystemTime::now() - limits::DIRECTORY_SETTLED * 2;
        let time = nix::sys::time::TimeVal::new(
            old.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs() as i64,
            0,
        );
        for name in ["live", "stale"] {
            nix::sys::stat::utimes(&at(name), &time, &time).unwrap();
        }
        clear(data.path());
        assert_eq!(
            ["live", "stale", "fresh"].map(|name| at(name).exists()),
            [true, false, true]
        );
    }
}
