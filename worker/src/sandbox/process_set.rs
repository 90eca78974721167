//! All processes of one attempt, also those that left the leader's group or session: found by
//! ancestry, by session, by what was seen earlier and by the mark in their environment.
//!
//! Reads `/proc`; on systems without it only the leader's process group is known.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::children::Children;
use super::stat::{Stat, all_processes};
use super::{END, exec};
use crate::domain::attempt::MARK_VARIABLE;
use crate::domain::limits;

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
pub enum Survivors {
    /// Seen from here.
    #[error(
        "{count} processes of the attempt survived KILL, among them {first}; they hang in the kernel"
    )]
    Seen {
        /// How many.
        count: usize,
        /// One of them.
        first: i32,
    },
    /// The helper said so.
    #[error("processes of the attempt survived KILL, as its helper told before it gave up")]
    Told,
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
    /// Its pid may be anybody's by now.
    reaped: AtomicBool,
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
            reaped: AtomicBool::new(false),
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
        self.reaped.store(true, Ordering::Release);
        if let Some(leaders) = lock(&LEADERS).as_mut() {
            leaders.remove(&self.leader);
        }
    }

    /// Signal the leader's process group. A group that is gone is no error.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let _gone = killpg(Pid::from_raw(self.leader), signal);
    }

    /// Have the helper that leads it end all of it. One that was stopped goes on for that.
    pub(crate) fn ask_leader(&self) {
        if cfg!(not(target_os = "linux")) {
            return self.signal_group(Signal::SIGKILL);
        }
        if self.reaped.load(Ordering::Acquire) || !is_helper(self.leader) {
            return;
        }
        for signal in [END, Signal::SIGCONT] {
            let _gone = kill(Pid::from_raw(self.leader), signal);
        }
    }

    /// Remember who is below the leader now and return what they use. Reads only the set's own
    /// processes, so that it is cheap enough for every second.
    pub(crate) fn look(&self) -> Used {
        let mut todo = vec![self.leader];
        let mut seen = lock(&self.seen);
        todo.extend(seen.keys());
        let mut done = HashSet::new();
        let mut used = lock(&self.joined).look();
        let children = Children::look();
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
            todo.extend(children.of(pid));
        }
        used
    }

    /// End every member: TERM, up to `polite` to obey, KILL until none is left. Blocking.
    pub(crate) fn sweep(&self, polite: Duration) -> Result<(), Survivors> {
        self.look();
        let mut sweep = Sweep::begin();
        let mut met = HashSet::new();
        loop {
            let members = self.members();
            met.extend(members.iter().map(|member| member.pid));
            reap_orphans(&met);
            if members.is_empty() {
                return Ok(());
            }
            sweep.pass(&members, polite)?;
        }
    }

    /// The same without courtesy and without waiting for the last; for destructors. The helper ends
    /// what it is the parent of, and then itself.
    pub(crate) fn kill_now(&self) {
        self.look();
        self.ask_leader();
        // Twice: what the first look misses was forked during it, by a process that is now dead.
        for _ in 0..2 {
            for member in self.members() {
                if !is_helper(member.pid) {
                    member.signal(Signal::SIGKILL);
                }
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
    let mut sweep = Sweep::begin();
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
        if left.is_empty() {
            return Ok(ended.len());
        }
        ended.extend(left.iter().map(|process| process.pid));
        sweep.pass(&left, Duration::ZERO)?;
    }
}

/// Ends processes, again and again until none is left.
struct Sweep {
    began: Instant,
    asked: HashSet<i32>,
}

impl Sweep {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            asked: HashSet::new(),
        }
    }

    /// One more time. A helper is asked and gets its time: killed, it would leave those of whom
    /// only it knows whose they are.
    fn pass(&mut self, left: &[Stat], polite: Duration) -> Result<(), Survivors> {
        let spent = self.began.elapsed();
        let (mut helpers, mut others): (Vec<&Stat>, Vec<&Stat>) =
            left.iter().partition(|stat| is_helper(stat.pid));
        if spent > limits::HELPER_END {
            others.append(&mut helpers);
        }
        let patience = match helpers.is_empty() && spent <= limits::HELPER_END {
            true => polite,
            false => limits::HELPER_END,
        };
        if let Some(first) = others.first()
            && spent > patience + limits::SWEEP_TIMEOUT
        {
            return Err(Survivors::Seen {
                count: others.len(),
                first: first.pid,
            });
        }
        for helper in helpers {
            if self.asked.insert(helper.pid) {
                helper.signal(END);
                helper.signal(Signal::SIGCONT);
            }
        }
        for other in others {
            if spent >= polite {
                other.signal(Signal::SIGKILL);
            } else if self.asked.insert(other.pid) {
                other.signal(Signal::SIGTERM);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    }
}

/// Whether it says that it is one. Who lies gains no more than the time that a helper gets.
fn is_helper(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut args = line.split(|byte| *byte == 0).skip(1);
    args.next() == Some(exec::WORD.as_bytes()) && args.next() == Some(exec::SUPERVISE.as_bytes())
}

/// End every process with this mark. Blocking.
pub fn sweep_mark(mark: &str) -> Result<usize, Survivors> {
    sweep_marks(|found| belongs(found, mark))
}

/// The program of the attempt with this mark and what left its line, by pid and start, the oldest
/// first: all whose parent is none of the attempt, or what confines it. Blocking.
pub fn roots_of_mark(mark: &str) -> Vec<(i32, u64)> {
    let all = all_processes();
    let marked: Vec<&Stat> = all
        .iter()
        .filter(|stat| !stat.is_dead() && mark_of(stat.pid).is_some_and(|found| found == mark))
        .collect();
    let stages = stages_of(&marked);
    let members: HashSet<i32> = marked.iter().map(|stat| stat.pid).collect();
    let is_root = |stat: &&&Stat| {
        let below = members.contains(&stat.parent) && !stages.contains(&stat.parent);
        !stages.contains(&stat.pid) && !below
    };
    let mut roots: Vec<&&Stat> = marked.iter().filter(is_root).collect();
    roots.sort_by_key(|stat| (stat.start, stat.pid));
    roots.iter().map(|stat| (stat.pid, stat.start)).collect()
}

/// The helper that leads an attempt, and bubblewrap where that stands between it and the program. A
/// bubblewrap of the agent's own is below the program.
fn stages_of(marked: &[&Stat]) -> HashSet<i32> {
    let helpers = marked.iter().filter(|stat| is_helper(stat.pid));
    let mut stages: HashSet<i32> = helpers.map(|stat| stat.pid).collect();
    loop {
        let before = stages.len();
        let next = marked
            .iter()
            .filter(|stat| stages.contains(&stat.parent) && is_bubblewrap(stat.pid));
        let next: Vec<i32> = next.map(|stat| stat.pid).collect();
        stages.extend(next);
        if stages.len() == before {
            return stages;
        }
    }
}

fn is_bubblewrap(pid: i32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|program| program.ends_with("bwrap"))
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
    for pid in Children::look().of(me) {
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
