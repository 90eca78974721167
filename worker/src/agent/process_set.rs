//! All processes of one attempt, also those that left the leader's group or session: found by
//! ancestry, by session, by what was seen earlier and by the mark in their environment.
//!
//! Reads `/proc`; on systems without it only the leader's process group is known.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::MARK_VARIABLE;
use crate::domain::limits;
use crate::sandbox::children;

/// Leaders that somebody waits for. The lock is held while one is started and while orphans are
/// reaped, so that no leader's exit is taken from the one who waits for it.
static LEADERS: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

/// Adopt orphans of agents, so that a daemon that an agent left behind stays findable. Once, at
/// the worker's start.
pub fn become_subreaper() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Processes that KILL did not end.
#[derive(Debug, thiserror::Error)]
#[error(
    "{count} processes of the attempt survived KILL, among them {first}; they hang in the kernel"
)]
pub struct Survivors {
    count: usize,
    first: i32,
}

/// What a set of processes uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Resident memory; what two of them share counts twice.
    pub(crate) memory_bytes: u64,
    /// Threads, as the kernel counts them against a limit of processes.
    pub(crate) threads: u64,
    /// Processor time, also that of members that ended and were waited for.
    pub(crate) cpu_ticks: u64,
}

/// One attempt's processes.
#[derive(Debug)]
pub(crate) struct ProcessSet {
    leader: i32,
    mark: String,
    /// Pids and start times seen below the leader: they stay members when their parent dies.
    seen: Mutex<HashMap<i32, u64>>,
    /// Sets that count as a part of this one.
    joined: Mutex<Joined>,
}

/// What was started for the members of a set and is ended on its own: what it uses is theirs.
#[derive(Debug, Default)]
struct Joined {
    /// Each with its processor time at the last look.
    sets: Vec<(Weak<ProcessSet>, u64)>,
    /// Processor time of those that are gone, as far as it was seen.
    ended_ticks: u64,
}

impl Joined {
    fn look(&mut self) -> Used {
        let mut used = Used::default();
        self.sets.retain_mut(|(set, ticks)| {
            let Some(set) = set.upgrade() else {
                self.ended_ticks += *ticks;
                return false;
            };
            let now = set.look();
            *ticks = now.cpu_ticks.max(*ticks);
            used.memory_bytes += now.memory_bytes;
            used.threads += now.threads;
            used.cpu_ticks += *ticks;
            true
        });
        used.cpu_ticks += self.ended_ticks;
        used
    }
}

impl ProcessSet {
    /// Start a leader and know its set. `start` forks; it must put the child into a session of
    /// its own and return its pid.
    pub(crate) fn start<T>(
        mark: &str,
        start: impl FnOnce() -> std::io::Result<(i32, T)>,
    ) -> std::io::Result<(Self, T)> {
        let mut leaders = lock(&LEADERS);
        let (leader, value) = start()?;
        leaders.get_or_insert_default().insert(leader);
        drop(leaders);
        let set = Self {
            leader,
            mark: mark.to_owned(),
            seen: Mutex::new(HashMap::new()),
            joined: Mutex::default(),
        };
        Ok((set, value))
    }

    /// Count what `other` uses as used by this set, for as long as it is there.
    pub(crate) fn join(&self, other: &Arc<Self>) {
        let joined = &mut lock(&self.joined).sets;
        joined.push((Arc::downgrade(other), 0));
    }

    /// The leader was waited for by its owner.
    pub(crate) fn leader_reaped(&self) {
        if let Some(leaders) = lock(&LEADERS).as_mut() {
            leaders.remove(&self.leader);
        }
    }

    /// Signal the leader's process group. A group that is gone is no error.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let _gone = killpg(Pid::from_raw(self.leader), signal);
    }

    /// Signal the leader alone.
    pub(crate) fn signal_leader(&self, signal: Signal) {
        let _gone = kill(Pid::from_raw(self.leader), signal);
    }

    /// Remember who is below the leader now and return what they use. Reads only the set's own
    /// processes, so that it is cheap enough for every second.
    pub(crate) fn look(&self) -> Used {
        let mut todo = vec![self.leader];
        let mut seen = lock(&self.seen);
        todo.extend(seen.keys());
        let mut done = HashSet::new();
        let mut used = lock(&self.joined).look();
        while let Some(pid) = todo.pop() {
            if !done.insert(pid) {
                continue;
            }
            let Some(stat) = Stat::of(pid) else {
                seen.remove(&pid);
                continue;
            };
            if seen.get(&pid).is_some_and(|start| *start != stat.start) {
                seen.remove(&pid);
                continue;
            }
            seen.insert(pid, stat.start);
            used.memory_bytes += stat.resident_bytes;
            used.threads += stat.threads;
            used.cpu_ticks += stat.cpu_ticks;
            todo.extend(children::of(pid));
        }
        used
    }

    /// End every member: TERM, up to `polite` to obey, KILL until none is left. Blocking.
    pub(crate) fn sweep(&self, polite: Duration) -> Result<(), Survivors> {
        self.look();
        let began = Instant::now();
        let mut termed = HashSet::new();
        let mut met = HashSet::new();
        loop {
            let members = self.members();
            met.extend(members.iter().map(|member| member.pid));
            reap_orphans(&met);
            let Some(first) = members.first() else {
                return Ok(());
            };
            let spent = began.elapsed();
            if spent > polite + limits::SWEEP_TIMEOUT {
                return Err(Survivors {
                    count: members.len(),
                    first: first.pid,
                });
            }
            for member in &members {
                if spent >= polite {
                    member.signal(Signal::SIGKILL);
                } else if termed.insert(member.pid) {
                    member.signal(Signal::SIGTERM);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The same without courtesy and without waiting for the last; for destructors.
    pub(crate) fn kill_now(&self) {
        self.look();
        self.signal_group(Signal::SIGKILL);
        // Twice: what the first look misses was forked during it, by a process that is now dead.
        for _ in 0..2 {
            for member in self.members() {
                member.signal(Signal::SIGKILL);
            }
        }
        reap_orphans(&HashSet::new());
    }

    /// Living members, the leader included.
    fn members(&self) -> Vec<Stat> {
        let all = all_processes();
        let untouchable = own_line(&all);
        let seen = lock(&self.seen).clone();
        let mut ids: HashSet<i32> = all
            .iter()
            .filter(|stat| !untouchable.contains(&stat.pid))
            .filter(|stat| {
                stat.session == self.leader
                    || stat.group == self.leader
                    || seen.get(&stat.pid) == Some(&stat.start)
                    || mark_of(stat.pid).is_some_and(|mark| belongs(&mark, &self.mark))
            })
            .map(|stat| stat.pid)
            .collect();
        loop {
            let before = ids.len();
            let below = all.iter().filter(|stat| ids.contains(&stat.parent));
            let more: Vec<i32> = below.map(|stat| stat.pid).collect();
            ids.extend(more.into_iter().filter(|pid| !untouchable.contains(pid)));
            if ids.len() == before {
                break;
            }
        }
        let members: Vec<Stat> = all
            .into_iter()
            .filter(|stat| ids.contains(&stat.pid) && !stat.is_dead())
            .collect();
        lock(&self.seen).extend(members.iter().map(|stat| (stat.pid, stat.start)));
        members
    }
}

impl Drop for ProcessSet {
    fn drop(&mut self) {
        self.leader_reaped();
    }
}

/// End every process whose mark `is_leftover`, such as those of a worker that was killed. Blocking;
/// returns how many there were.
pub fn sweep_marks(is_leftover: impl Fn(&str) -> bool) -> Result<usize, Survivors> {
    let began = Instant::now();
    let mut ended = HashSet::new();
    loop {
        let all = all_processes();
        let untouchable = own_line(&all);
        let left: Vec<Stat> = all
            .into_iter()
            .filter(|stat| !stat.is_dead() && !untouchable.contains(&stat.pid))
            .filter(|stat| mark_of(stat.pid).is_some_and(|mark| is_leftover(&mark)))
            .collect();
        reap_orphans(&ended);
        let Some(first) = left.first() else {
            return Ok(ended.len());
        };
        if began.elapsed() > limits::SWEEP_TIMEOUT {
            return Err(Survivors {
                count: left.len(),
                first: first.pid,
            });
        }
        for process in &left {
            ended.insert(process.pid);
            process.signal(Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// End every process with this mark. Blocking.
pub fn sweep_mark(mark: &str) -> Result<usize, Survivors> {
    sweep_marks(|found| belongs(found, mark))
}

/// Terminals that an attempt opened carry its mark with a suffix after a slash.
fn belongs(found: &str, mark: &str) -> bool {
    found
        .strip_prefix(mark)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Collect dead orphans that became our children: of agents, which alone run in sessions of their
/// own, and those that were `ended`, such as what a hook left. So children of git and of libraries,
/// which others wait for, are never taken.
fn reap_orphans(ended: &HashSet<i32>) {
    let me = std::process::id() as i32;
    let Some(own_session) = Stat::of(me).map(|stat| stat.session) else {
        return;
    };
    let leaders = lock(&LEADERS);
    for pid in children::of(me) {
        let waited_for = leaders
            .as_ref()
            .is_some_and(|leaders| leaders.contains(&pid));
        if waited_for {
            continue;
        }
        let ours = |stat: &Stat| stat.session != own_session || ended.contains(&pid);
        if Stat::of(pid).is_some_and(|stat| stat.is_dead() && ours(&stat)) {
            let _not_ours = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// We and our ancestors: never members, also when the worker itself runs inside an attempt.
fn own_line(all: &[Stat]) -> HashSet<i32> {
    let parents: HashMap<i32, i32> = all.iter().map(|stat| (stat.pid, stat.parent)).collect();
    let mut line = HashSet::new();
    let mut pid = std::process::id() as i32;
    while pid > 0 && line.insert(pid) {
        pid = parents.get(&pid).copied().unwrap_or(0);
    }
    line
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
struct Stat {
    pid: i32,
    state: u8,
    parent: i32,
    group: i32,
    session: i32,
    threads: u64,
    cpu_ticks: u64,
    start: u64,
    resident_bytes: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// The name in parentheses may hold anything, so the fields count from the last one.
    fn parse(text: &str) -> Option<Self> {
        let pid = text.split_whitespace().next()?.parse().ok()?;
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| rest.get(at)?.parse::<i64>().ok();
        Some(Self {
            pid,
            state: rest.first()?.bytes().next()?,
            parent: number(1)? as i32,
            group: number(2)? as i32,
            session: number(3)? as i32,
            // Its own in user and kernel, and that of children it waited for.
            cpu_ticks: [11, 12, 13, 14]
                .into_iter()
                .filter_map(number)
                .map(|ticks| ticks.max(0) as u64)
                .sum(),
            threads: number(17)?.max(0) as u64,
            start: number(19)? as u64,
            resident_bytes: number(21)?.max(0) as u64 * page_bytes(),
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Signal it, unless the pid belongs to another process by now.
    fn signal(&self, signal: Signal) {
        if Self::of(self.pid).is_some_and(|now| now.start == self.start) {
            let _gone = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

fn page_bytes() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .map_or(4096, |bytes| bytes as u64)
}

fn all_processes() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Stat::of)
        .collect()
}

/// The attempt's mark in a process's environment, if we may read it and it has one.
fn mark_of(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable
            .strip_prefix(MARK_VARIABLE.as_bytes())?
            .strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held leaves a set of numbers, which is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let mut fields = vec!["S", "7", "8", "9"];
        fields.extend(vec!["0"; 15]);
        fields.extend(["4242", "0", "2"]);
        let stat = Stat::parse(&format!("12 (a ) b (c)) {}", fields.join(" "))).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent), (12, b'S', 7));
        assert_eq!((stat.group, stat.session, stat.start), (8, 9, 4242));
        assert_eq!(stat.resident_bytes, 2 * page_bytes());
    }
}
