//! Whether an attempt uses more than its entry allows. The kernel holds single processes and files
//! to a part of it; what all of them use together is looked at here.

use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Confinement;
use super::disk::{self, DiskUse};
use super::process_set::{ProcessSet, Used};
use crate::blocking;
use crate::domain::limits;
use crate::domain::sandbox::ResourceLimits;

const MIB: u64 = 1024 * 1024;

/// Each look at a disk holds a descriptor for each level.
static DISK_LOOKS: Semaphore = Semaphore::const_new(limits::DISK_LOOKS_MAX);

/// Whose processes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Agent,
    Hook,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hook => "hook",
        }
    }
}

/// Look every second; resolves only when a limit is passed, with its name.
pub(crate) async fn over_limit(who: Who, set: Arc<ProcessSet>, confinement: Confinement) -> String {
    let allowed = confinement.limits();
    let mut ticks = tokio::time::interval(limits::PROCESS_WATCH);
    let mut disk_at = Instant::now();
    loop {
        ticks.tick().await;
        let looked = Arc::clone(&set);
        let used = blocking::run(move || looked.look()).await;
        let mut over = used.ok().and_then(|used| too_much(who, &allowed, used));
        if over.is_none() && Instant::now() >= disk_at {
            let (took, used) = disk_use(&confinement).await;
            over = used.and_then(|used| too_big(&allowed, &used));
            // A twentieth of the time at most, however much there is to look at.
            disk_at = Instant::now() + limits::DISK_WATCH.max(took * 20);
        }
        if let Some(message) = over {
            return message;
        }
    }
}

async fn disk_use(confinement: &Confinement) -> (std::time::Duration, Option<DiskUse>) {
    let _turn = DISK_LOOKS.acquire().await;
    let began = Instant::now();
    let dirs = confinement.writable().to_vec();
    let used = match blocking::run(move || disk::usage(&dirs)).await {
        Ok(Ok(used)) => Some(used),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the disk space of an attempt cannot be looked at");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the disk space of an attempt cannot be looked at");
            None
        }
    };
    (began.elapsed(), used)
}

/// What the kernel ended the program for before anybody looked, by its exit code and signal.
pub(crate) fn ended_for(
    who: Who,
    allowed: &ResourceLimits,
    code: Option<i32>,
    by_signal: Option<i32>,
) -> Option<String> {
    let signal = Signal::SIGXFSZ as i32;
    // Shells say by 128 and its number that a signal ended their last command.
    let too_long = by_signal == Some(signal) || code == Some(128 + signal);
    let max = allowed.file_mb.filter(|_| too_long)?;
    let who = who.name();
    Some(format!(
        "the {who} wrote a file longer than file_mb = {max} allows"
    ))
}

fn too_much(who: Who, allowed: &ResourceLimits, used: Used) -> Option<String> {
    let who = who.name();
    let memory_mb = used.memory_bytes / MIB;
    if let Some(max) = allowed.memory_mb.filter(|max| memory_mb > *max) {
        return Some(format!(
            "the {who}'s processes use {memory_mb} MiB of memory, more than memory_mb = {max} allows"
        ));
    }
    if let Some(max) = allowed.pids.filter(|max| used.threads >= *max) {
        return Some(format!(
            "the {who} has {} processes and threads, as many as pids = {max} allows",
            used.threads
        ));
    }
    let cpu_s = used.cpu_ticks / ticks_per_second();
    if let Some(max) = allowed.cpu_s.filter(|max| cpu_s >= *max) {
        return Some(format!(
            "the {who} used {cpu_s} s of processor time, as much as cpu_time = \"{max}s\" allows"
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

fn too_big(allowed: &ResourceLimits, used: &DiskUse) -> Option<String> {
    let disk_mb = used.bytes / MIB;
    if let Some(max) = allowed.disk_mb.filter(|max| disk_mb > *max) {
        return Some(format!(
            "worktree, HOME and temporary files take {disk_mb} MiB of disk, more than disk_mb = {max} allows"
        ));
    }
    if let (Some(why), Some(max)) = (&used.unseen, allowed.disk_mb) {
        return Some(format!(
            "nobody can tell whether worktree, HOME and temporary files take more than disk_mb = {max} allows: {why}"
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
        assert_eq!(too_much(Who::Agent, &allowed, used(100, 49, 9)), None);
        for (used, name) in [
            (used(101, 1, 1), "memory_mb = 100"),
            (used(1, 50, 1), "pids = 50"),
            (used(1, 1, 10), "cpu_time = \"10s\""),
        ] {
            let said = too_much(Who::Agent, &allowed, used).unwrap();
            assert!(said.contains(name), "{said}");
        }
        let disk = |bytes: u64, longest: u64| DiskUse {
            bytes: bytes * MIB,
            longest: longest * MIB,
            longest_path: "a.bin".into(),
            unseen: None,
        };
        assert_eq!(too_big(&allowed, &disk(20, 4)), None);
        assert!(
            too_big(&allowed, &disk(21, 4))
                .unwrap()
                .contains("disk_mb = 20")
        );
        let unseen = DiskUse {
            unseen: Some("x cannot be looked into".to_owned()),
            ..DiskUse::default()
        };
        let said = too_big(&allowed, &unseen).unwrap();
        assert!(
            said.contains("disk_mb = 20") && said.contains("x cannot"),
            "{said}"
        );
        assert_eq!(too_big(&ResourceLimits::default(), &unseen), None);
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
        for (code, signal) in [(None, Some(25)), (Some(153), None)] {
            let said = ended_for(Who::Agent, &allowed, code, signal).unwrap();
            assert!(said.contains("file_mb = 5"), "{said}");
            let unlimited = ResourceLimits::default();
            assert!(ended_for(Who::Agent, &unlimited, code, signal).is_none());
        }
        for (code, signal) in [(Some(0), None), (Some(25), None), (None, Some(9))] {
            let said = ended_for(Who::Agent, &allowed, code, signal);
            assert!(said.is_none(), "{said:?}");
        }
    }
}
