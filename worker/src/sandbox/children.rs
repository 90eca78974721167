//! Who is whose child, as `/proc` says; nobody where there is none.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use super::stat;

/// Kernels that are built without `CONFIG_PROC_CHILDREN`, and gVisor, do not list children.
static LISTED: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/thread-self/children").exists());

/// One look at who is whose child; each question is answered anew where the kernel lists children.
#[derive(Debug)]
pub(super) enum Children {
    Listed,
    /// By parent, as everybody said at the moment of the look.
    Told(HashMap<i32, Vec<i32>>),
}

impl Children {
    /// Look now.
    pub(super) fn look() -> Self {
        match *LISTED {
            true => Self::Listed,
            false => Self::ask_everybody(),
        }
    }

    fn ask_everybody() -> Self {
        let mut told: HashMap<i32, Vec<i32>> = HashMap::new();
        for process in stat::all_processes() {
            told.entry(process.parent).or_default().push(process.pid);
        }
        Self::Told(told)
    }

    /// Children of all threads of a process.
    pub(super) fn of(&self, pid: i32) -> Vec<i32> {
        match self {
            Self::Listed => listed(pid),
            Self::Told(told) => told.get(&pid).cloned().unwrap_or_default(),
        }
    }
}

fn listed(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lists_no_children_still_tells_who_they_are() {
        if !*LISTED {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "a child to look for")]
        let mut shell = std::process::Command::new("/bin/sh");
        let mut shell = shell
            .args(["-c", "sleep 1000 & a=$!; sleep 1000 & read x; kill $a $!"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = shell.id() as i32;
        let (mut listed, mut told) = (Vec::new(), Vec::new());
        while told.len() < 2 {
            told = Children::ask_everybody().of(pid);
            listed = Children::Listed.of(pid);
        }
        listed.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, listed);
        let me = std::process::id() as i32;
        assert!(Children::ask_everybody().of(me).contains(&pid));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
