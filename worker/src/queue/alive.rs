//! Tells a worker that was killed from one that lives on the same machine: each holds a lock on a
//! file of its own, and the kernel lets go of it when the process dies.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::agent::process;
use crate::domain::ids::WorkerId;
use crate::run;

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

/// The worker stops in good order.
pub fn end(dir: &Path, worker: WorkerId) {
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
        std::fs::remove_file(&path)?;
        drop(lock);
    }
    Ok(())
}
