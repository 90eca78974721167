//! Whether an attempt uses more than its entry allows. The kernel holds single processes and files
//! to a part of it; what all of them use together is looked at here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tokio::time::Instant;

use super::process_set::{ProcessSet, Used};
use super::{AgentError, Exit};
use crate::blocking;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::sandbox::ResourceLimits;
use crate::sandbox::Confinement;

const MIB: u64 = 1024 * 1024;

/// Look every second; resolves only when a limit is passed, with its name.
pub(super) async fn over_limit(set: Arc<ProcessSet>, confinement: Confinement) -> AgentError {
    let allowed = confinement.limits();
    let mut ticks = tokio::time::interval(limits::PROCESS_WATCH);
    let mut disk_at = Instant::now();
    loop {
        ticks.tick().await;
        let looked = Arc::clone(&set);
        let used = blocking::run(move || looked.look()).await;
        let mut over = used.ok().and_then(|used| too_much(&allowed, used));
        if over.is_none() && Instant::now() >= disk_at {
            let began = Instant::now();
            let dirs = confinement.writable().to_vec();
            let disk = blocking::run(move || disk_use(&dirs)).await;
            over = disk.ok().and_then(|disk| too_big(&allowed, &disk));
            // A twentieth of the time at most, however much there is to look at.
            disk_at = Instant::now() + limits::DISK_WATCH.max(began.elapsed() * 20);
        }
        if let Some(message) = over {
            return AgentError::new(ErrorClass::Budget, message);
        }
    }
}

/// What the kernel ended the program for before anybody looked.
pub(super) fn ended_for(allowed: &ResourceLimits, exit: &Exit) -> Option<AgentError> {
    let signal = Signal::SIGXFSZ as i32;
    // Shells say by 128 and its number that a signal ended their last command.
    let too_long = exit.signal == Some(signal) || exit.code == Some(128 + signal);
    let max = allowed.file_mb.filter(|_| too_long)?;
    let message = format!("the agent wrote a file longer than file_mb = {max} allows");
    Some(AgentError::new(ErrorClass::Budget, message))
}

fn too_much(allowed: &ResourceLimits, used: Used) -> Option<String> {
    let memory_mb = used.memory_bytes / MIB;
    if let Some(max) = allowed.memory_mb.filter(|max| memory_mb > *max) {
        return Some(format!(
            "the agent's processes use {memory_mb} MiB of memory, more than memory_mb = {max} allows"
        ));
    }
    if let Some(max) = allowed.pids.filter(|max| used.threads >= *max) {
        return Some(format!(
            "the agent has {} processes and threads, as many as pids = {max} allows",
            used.threads
        ));
    }
    let cpu_s = used.cpu_ticks / ticks_per_second();
    if let Some(max) = allowed.cpu_s.filter(|max| cpu_s >= *max) {
        return Some(format!(
            "the agent used {cpu_s} s of processor time, as much as cpu_time = \"{max}s\" allows"
        ));
    }
    None
}

fn ticks_per_second() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks
        .and_then(|ticks| u64::try_from(ticks).ok())
        .unwrap_or(100)
        .max(1)
}

/// What is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DiskUse {
    bytes: u64,
    /// The longest file.
    longest: u64,
    longest_path: PathBuf,
}

fn too_big(allowed: &ResourceLimits, used: &DiskUse) -> Option<String> {
    let disk_mb = used.bytes / MIB;
    if let Some(max) = allowed.disk_mb.filter(|max| disk_mb > *max) {
        return Some(format!(
            "worktree, HOME and temporary files take {disk_mb} MiB of disk, more than disk_mb = {max} allows"
        ));
    }
    // The kernel stops a file there, which the program may pass over in silence.
    let longest_mb = used.longest / MIB;
    if let Some(max) = allowed.file_mb.filter(|max| longest_mb >= *max) {
        return Some(format!(
            "{} is {longest_mb} MiB long, as much as file_mb = {max} allows",
            used.longest_path.display()
        ));
    }
    None
}

/// Space below directories. Follows no link; what cannot be read is not counted. A file that was
/// deleted and is still open takes space that nobody sees.
fn disk_use(dirs: &[PathBuf]) -> DiskUse {
    let mut used = DiskUse::default();
    let mut open: Vec<PathBuf> = dirs.to_vec();
    let mut entries = 0;
    while let Some(dir) = open.pop() {
        let Ok(listed) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > limits::DISK_WATCH_ENTRIES_MAX {
                return used;
            }
            let Ok(facts) = entry.metadata() else {
                continue;
            };
            used.bytes += facts.blocks() * 512;
            if facts.is_dir() {
                open.push(entry.path());
            } else if facts.is_file() && facts.len() > used.longest {
                used.longest = facts.len();
                used.longest_path = shown(&entry.path(), dirs);
            }
        }
    }
    used
}

/// The path below the directory, for people.
fn shown(path: &Path, dirs: &[PathBuf]) -> PathBuf {
    let below = dirs.iter().find_map(|dir| path.strip_prefix(dir).ok());
    below.unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_when_it_is_passed() {
        let allowed = ResourceLimits {
            memory_mb: Some(100),
            pids: Some(50),
            cpu_s: Some(10),
            file_mb: Some(5),
            disk_mb: Some(20),
        };
        let used = |memory_mb: u64, threads, cpu_s: u64| Used {
            memory_bytes: memory_mb * MIB,
            threads,
            cpu_ticks: cpu_s * ticks_per_second(),
        };
        assert_eq!(too_much(&allowed, used(100, 49, 9)), None);
        for (used, name) in [
            (used(101, 1, 1), "memory_mb = 100"),
            (used(1, 50, 1), "pids = 50"),
            (used(1, 1, 10), "cpu_time = \"10s\""),
        ] {
            let said = too_much(&allowed, used).unwrap();
            assert!(said.contains(name), "{said}");
        }
        let disk = |bytes: u64, longest: u64| DiskUse {
            bytes: bytes * MIB,
            longest: longest * MIB,
            longest_path: "a.bin".into(),
        };
        assert_eq!(too_big(&allowed, &disk(20, 4)), None);
        assert!(
            too_big(&allowed, &disk(21, 4))
                .unwrap()
                .contains("disk_mb = 20")
        );
        let said = too_big(&allowed, &disk(5, 5)).unwrap();
        assert!(
            said.contains("file_mb = 5") && said.contains("a.bin"),
            "{said}"
        );
    }

    #[test]
    fn an_end_by_the_kernel_for_a_long_file_names_its_limit_and_no_other_end_does() {
        let allowed = ResourceLimits {
            file_mb: Some(5),
            ..ResourceLimits::default()
        };
        let exit = |code, signal| Exit {
            code,
            signal,
            ..Exit::default()
        };
        for exit in [exit(None, Some(25)), exit(Some(153), None)] {
            let error = ended_for(&allowed, &exit).unwrap();
            assert_eq!(error.class, ErrorClass::Budget);
            assert!(error.message.contains("file_mb = 5"), "{error}");
            assert!(ended_for(&ResourceLimits::default(), &exit).is_none());
        }
        for exit in [
            exit(Some(0), None),
            exit(Some(25), None),
            exit(None, Some(9)),
        ] {
            assert!(ended_for(&allowed, &exit).is_none(), "{exit:?}");
        }
    }

    #[test]
    fn a_sparse_file_counts_by_its_length_as_a_file_and_by_its_blocks_as_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 32).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let used = disk_use(&[dir.path().to_owned()]);
        assert_eq!(used.longest, 1 << 32);
        assert!(used.bytes < MIB, "{}", used.bytes);
        assert_eq!(used.longest_path, Path::new("sparse"));
    }
}
