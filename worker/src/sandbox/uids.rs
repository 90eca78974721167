//! Users for attempts when the worker is root: each attempt has one of its own, so that the
//! kernel keeps attempts apart and counts their processes apart.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Uid, User};

use super::stat;

/// Users that systemd's list keeps free (systemd.io/UIDS-GIDS), so that they are nobody's.
const FIRST: u32 = 60_706;
const LAST: u32 = 61_183;

/// Where machines keep what lives until the next start, for all workers of the machine; else the
/// worker's own directory, as in a container with a read-only system.
const SHARED: &str = "/run/dispatch-users";

/// The users to give out.
#[derive(Clone, Debug)]
pub(super) struct Users {
    locks: PathBuf,
}

/// A user that belongs to one attempt for as long as this lives. Its group has the same number.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The user, and the group.
    pub id: u32,
    _lock: Arc<File>,
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Users {
    /// Ready to give out users; `None`: only root can, or none of them exists in this container.
    pub(super) fn find(data_dir: &Path) -> Option<Self> {
        if !Uid::effective().is_root() || !maps(LAST) {
            return None;
        }
        let places = [PathBuf::from(SHARED), data_dir.join("users")];
        let locks = places
            .into_iter()
            .find(|dir| fs::create_dir_all(dir).is_ok())?;
        // Whoever opens a lock can hold it.
        fs::set_permissions(&locks, fs::Permissions::from_mode(0o700)).ok()?;
        Some(Self { locks })
    }

    /// A user that nobody has and nobody is, on this machine: what an attempt left would be the next
    /// one's.
    pub(super) fn take(&self) -> io::Result<Owner> {
        let alive = stat::users_of_processes();
        for id in FIRST..=LAST {
            if alive.contains(&id) {
                tracing::debug!(id, "a process still has this user of attempts");
                continue;
            }
            if matches!(User::from_uid(Uid::from_raw(id)), Ok(Some(_))) {
                continue;
            }
            let lock = File::create(self.locks.join(id.to_string()))?;
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Owner {
                        id,
                        _lock: Arc::new(lock),
                    });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("all users for attempts are taken"))
    }

    /// Whether a user is one of those that attempts get.
    pub(super) fn is_one(id: u32) -> bool {
        (FIRST..=LAST).contains(&id)
    }
}

/// Whether this user exists here: a container may know only a part of them.
fn maps(id: u32) -> bool {
    let Ok(text) = fs::read_to_string("/proc/self/uid_map") else {
        return true;
    };
    text.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _outside, count) = (numbers.next(), numbers.next(), numbers.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        (first..first + count).contains(&u64::from(id))
    })
}
