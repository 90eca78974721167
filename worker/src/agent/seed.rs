//! Files that the worker puts into directories which an agent, or a hook, had for its own before:
//! of what was left there nothing is followed, opened or waited for.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sandbox::DIRECTORY;

/// Write a file below `root`, with directories for it where there are none. A link or a pipe in the
/// way is replaced; the file appears whole, by renaming.
pub(super) fn put(root: &Path, path: &Path, content: &mut impl Read, mode: u32) -> io::Result<()> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            _ => return Err(io::Error::other("the path leaves the directory")),
        }
    }
    let name = parts
        .pop()
        .ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut dir = open(root, DIRECTORY, Mode::empty())?;
    for part in parts {
        dir = enter(&dir, Path::new(part))?;
    }
    let new = format!(".dispatch-{}", uuid::Uuid::new_v4().simple());
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(&dir, new.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut file = File::from(file);
    let written = io::copy(content, &mut file)
        .and_then(|_bytes| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| Ok(renameat(&dir, new.as_str(), &dir, name)?));
    if written.is_err() {
        let _not_there = unlinkat(&dir, new.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

fn enter(dir: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    match openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(below) => return Ok(below),
        Err(Errno::ENOENT) => {}
        // Something that is no directory. The kernel says it of a link in one way or the other.
        Err(Errno::ENOTDIR | Errno::ELOOP) => unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?,
        Err(errno) => return Err(errno.into()),
    }
    mkdirat(dir, name, Mode::S_IRWXU)?;
    Ok(openat(dir, name, DIRECTORY, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_an_agent_left_in_the_way_is_replaced_and_what_it_points_to_is_untouched() {
        let outside = tempfile::tempdir().unwrap();
        let theirs = outside.path().join("auth.json");
        fs::write(&theirs, "theirs").unwrap();
        let at = Path::new(".codex/auth.json");
        type Trap<'a> = &'a dyn Fn(&Path);
        let traps: [(&str, Trap<'_>); 5] = [
            ("nothing", &|_home| ()),
            ("a link", &|home| {
                fs::create_dir(home.join(".codex")).unwrap();
                symlink(&theirs, home.join(at)).unwrap();
            }),
            ("a linked parent", &|home| {
                symlink(outside.path(), home.join(".codex")).unwrap();
            }),
            ("a pipe", &|home| {
                fs::create_dir(home.join(".codex")).unwrap();
                mkfifo(&home.join(at), Mode::S_IRWXU).unwrap();
            }),
            ("a file as parent", &|home| {
                fs::write(home.join(".codex"), "x").unwrap();
            }),
        ];
        for (name, trap) in traps {
            let home = tempfile::tempdir().unwrap();
            trap(home.path());
            put(home.path(), at, &mut b"ours".as_slice(), 0o600).unwrap();
            let facts = fs::symlink_metadata(home.path().join(at)).unwrap();
            assert!(facts.is_file(), "{name}");
            assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
            assert_eq!(fs::read(home.path().join(at)).unwrap(), b"ours", "{name}");
            assert_eq!(fs::read(&theirs).unwrap(), b"theirs", "{name}");
            let beside = fs::read_dir(home.path().join(".codex")).unwrap();
            assert_eq!(beside.count(), 1, "{name}");
        }
    }

    #[test]
    fn a_path_that_leaves_the_directory_is_refused() {
        let home = tempfile::tempdir().unwrap();
        for path in ["../a", "/etc/a", "", "."] {
            let put = put(home.path(), Path::new(path), &mut b"x".as_slice(), 0o600);
            assert!(put.is_err(), "{path}");
        }
    }
}
