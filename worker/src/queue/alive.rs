//! Tells a worker that was killed from one that lives on the same machine: each holds a lock on a
//! file of its own, and the kernel lets go of it when the process dies.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::agent::process;
use crate::domain::ids::WorkerId;
use crate::run;

use super::tries::{PROBES, tries_of};

/// Held for as long as the process lives.
pub struct AliveLock(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// Take this worker's lock in `dir`, after ending what killed workers of the same directory left
/// running.
pub fn begin(dir: &Path, worker: WorkerId) -> std::io::Result<AliveLock> {
    end_leftovers(dir)?;
    let path = dir.join(format!("{worker}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    Ok(AliveLock(lock))
}

/// Where it tried agents when somebody asked.
fn forget_tries(dir: &Path, worker: &str) {
    let tries = dir.with_file_name(PROBES).join(tries_of(worker));
    match std::fs::remove_dir_all(&tries) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, dir = %tries.display(), "a directory of tries cannot be removed");
        }
    }
}

/// The worker stops in good order.
pub fn end(dir: &Path, worker: WorkerId) {
    forget_tries(dir, &worker.to_string());
    // A file that stays is swept by the next start.
    let _stays = std::fs::remove_file(dir.join(format!("{worker}.lock")));
}

fn end_leftovers(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(dead) = path.file_stem().and_then(|s| s.to_str()).map(str::to_owned) else {
            continue;
        };
        let Ok(file) = OpenOptions::new().write(true).open(&path) else {
            continue;
        };
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        let prefix = format!("{}{dead}-", run::MARK_PREFIX);
        match process::sweep_marks(|mark| mark.starts_with(&prefix)) {
            Ok(0) => {}
            Ok(ended) => {
                tracing::warn!(
                    ended,
                    worker.id = dead,
                    "ended processes that a killed worker had left"
                );
            }
            Err(error) => {
                tracing::warn!(%error, worker.id = dead, "processes of a killed worker could not be ended");
                continue;
            }
        }
        forget_tries(dir, &dead);
        std::fs::remove_file(&path)?;
        drop(lock);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_worker_tried_agents_in_goes_with_its_lock_and_that_of_a_living_one_stays() {
        let data = tempfile::tempdir().unwrap();
        let alive = data.path().join("alive");
        std::fs::create_dir(&alive).unwrap();
        let living = WorkerId::fresh();
        let lock = begin(&alive, living).unwrap();
        std::fs::write(alive.join("killed.lock"), "").unwrap();
        let tries = |worker: &str| data.path().join(PROBES).join(tries_of(worker));
        let tries = [tries("killed"), tries(&living.to_string())];
        for dir in &tries {
            std::fs::create_dir_all(dir.join("home")).unwrap();
        }
        let _other = begin(&alive, WorkerId::fresh()).unwrap();
        assert_eq!(tries.each_ref().map(|dir| dir.exists()), [false, true]);
        end(&alive, living);
        drop(lock);
        assert!(!tries[1].exists());
    }
}
