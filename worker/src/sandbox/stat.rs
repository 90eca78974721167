//! What `/proc` says about processes; nothing where there is none.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) pid: i32,
    state: u8,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) threads: u64,
    pub(super) cpu_ticks: u64,
    pub(super) start: u64,
    pub(super) resident_bytes: u64,
}

impl Stat {
    pub(super) fn of(pid: i32) -> Option<Self> {
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

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Signal it, unless the pid belongs to another process by now.
    pub(super) fn signal(&self, signal: Signal) {
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

/// All processes of the machine, as far as they can be seen.
pub(super) fn all_processes() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Stat::of)
        .collect()
}

/// Every user, real, effective or saved, that a process which is not dead has.
pub(super) fn users_of_processes() -> HashSet<u32> {
    let living = all_processes().into_iter().filter(|stat| !stat.is_dead());
    living
        .filter_map(|stat| std::fs::read_to_string(format!("/proc/{}/status", stat.pid)).ok())
        .flat_map(|text| users(&text))
        .collect()
}

fn users(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let numbers = line.unwrap_or_default().split_whitespace();
    numbers.filter_map(|id| id.parse().ok()).collect()
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

    #[test]
    fn the_users_of_a_process_are_all_that_it_has() {
        let status = "Name:\tUid:\nState:\tS\nUid:\t0\t60706\t0\t60707\nGid:\t1\t1\t1\t1\n";
        assert_eq!(users(status), [0, 60_706, 0, 60_707]);
        let own = nix::unistd::Uid::current().as_raw();
        assert!(users_of_processes().contains(&own));
    }
}
