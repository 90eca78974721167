//! The command line of bubblewrap: a file system made of what is listed, and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::domain::limits;
use crate::domain::sandbox::Network;

/// Where the helper is found inside.
pub(super) const HELPER_INSIDE: &str = "/run/dispatch/exec";

/// Arguments up to the program, which follows.
pub(super) fn args(plan: &Plan, knows_size: bool) -> Vec<OsString> {
    let mut args = Args::default();
    args.flags(&["--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try"]);
    if plan.network != Network::Full {
        args.flags(&["--unshare-net"]);
    }
    args.flags(&["--die-with-parent"]);
    match plan.owner {
        // Only what becoming the attempt's user takes; that clears them.
        Some(_) => args.flags(&[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
        ]),
        None => args.flags(&["--unshare-user"]),
    }
    args.flags(&["--proc", "/proc", "--dev", "/dev"]);
    args.flags(&["--perms", "1777"]);
    if knows_size {
        args.flags(&["--size"]);
        args.push(limits::SHARED_MEMORY_BYTES_MAX.to_string());
    }
    args.flags(&["--tmpfs", "/dev/shm"]);
    args.flags(&["--perms", "755", "--tmpfs", "/run", "--perms", "755"]);
    args.flags(&["--tmpfs", "/var", "--symlink", "../run", "/var/run"]);
    for place in ["/tmp", "/var/tmp"] {
        args.flags(&["--bind"]);
        args.push(&plan.tmp);
        args.flags(&[place]);
    }
    for path in &plan.read {
        args.show(path);
    }
    for path in &plan.hidden {
        args.hide(path, &plan.read);
    }
    for path in &plan.lent {
        args.bind("--ro-bind-try", path);
    }
    if let Some(target) = resolver(&plan.read) {
        args.bind("--ro-bind", &target);
    }
    args.reach(Path::new(HELPER_INSIDE));
    args.flags(&["--ro-bind"]);
    args.push(&plan.helper);
    args.flags(&[HELPER_INSIDE]);
    for path in &plan.write {
        args.bind("--bind", path);
    }
    if let Some((socket, _)) = &plan.gateway {
        args.bind("--ro-bind", socket);
    }
    for place in ["/dev", "/run", "/var", "/"] {
        args.flags(&["--remount-ro", place]);
    }
    // The worktree is closed to everybody but the attempt's user, whom the next stage becomes before it
    // goes there.
    args.flags(&["--chdir", "/"]);
    args.flags(&["--"]);
    args.args
}

#[derive(Default)]
struct Args {
    args: Vec<OsString>,
    /// Directories above what is shown that were asked for: left to itself, bubblewrap makes them
    /// for root alone.
    above: BTreeSet<PathBuf>,
}

impl Args {
    fn push(&mut self, arg: impl Into<OsString>) {
        self.args.push(arg.into());
    }

    fn flags(&mut self, flags: &[&str]) {
        self.args.extend(flags.iter().map(OsString::from));
    }

    fn reach(&mut self, path: &Path) {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.pop();
        for dir in above.into_iter().rev() {
            if self.above.insert(dir.to_owned()) {
                self.flags(&["--perms", "755", "--dir"]);
                self.push(dir);
            }
        }
    }

    fn bind(&mut self, how: &str, path: &Path) {
        self.reach(path);
        self.push(how);
        self.push(path);
        self.push(path);
    }

    /// A link stays a link, so that what is behind it keeps one name; what is missing is left out.
    fn show(&mut self, path: &Path) {
        let Ok(facts) = fs::symlink_metadata(path) else {
            return;
        };
        match fs::read_link(path) {
            Ok(target) if facts.is_symlink() && path.parent() == Some(Path::new("/")) => {
                self.push("--symlink");
                self.push(target);
                self.push(path);
            }
            _ => self.bind("--ro-bind-try", path),
        }
    }

    /// Something empty over what must not be seen.
    fn hide(&mut self, path: &Path, read: &[PathBuf]) {
        if !read.iter().any(|shown| path.starts_with(shown)) {
            return;
        }
        match fs::symlink_metadata(path) {
            Ok(facts) if facts.is_dir() => {
                self.push("--tmpfs");
                self.push(path);
                self.push("--remount-ro");
                self.push(path);
            }
            Ok(_) => {
                self.push("--ro-bind");
                self.push("/dev/null");
                self.push(path);
            }
            Err(_) => {}
        }
    }
}

/// Where names are looked up, when that is a link to a place that is not shown.
fn resolver(read: &[PathBuf]) -> Option<PathBuf> {
    let target = fs::canonicalize("/etc/resolv.conf").ok()?;
    let shown = read.iter().any(|shown| target.starts_with(shown));
    (!shown).then_some(target)
}
