//! Takes what an agent left off the disk: however deep, whatever its modes, with a few descriptors.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::domain::limits;
use crate::sandbox::DIRECTORY;

/// Remove a directory of ours, or a file, with all that is in it. Follows no link; what is gone
/// already is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let root = match open(path, DIRECTORY, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return gone(fs::remove_file(path)),
        Err(Errno::EACCES) => {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            open(path, DIRECTORY, Mode::empty())?
        }
        Err(errno) => return Err(errno.into()),
    };
    fchmod(&root, Mode::S_IRWXU).or_else(missing)?;
    Flat { root, moved: 0 }.empty()?;
    gone(fs::remove_dir(path))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn missing(errno: Errno) -> nix::Result<()> {
    match errno {
        Errno::ENOENT => Ok(()),
        other => Err(other),
    }
}

/// Whether something was removed, or is a directory with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Directory,
}

/// What is deeper than one level comes up, so that nothing is ever deep.
struct Flat {
    root: OwnedFd,
    moved: u64,
}

impl Flat {
    fn empty(&mut self) -> io::Result<()> {
        loop {
            let names = names(&self.root)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                if unlink(&self.root, &name)? == Left::Directory {
                    self.unfold(&name)?;
                }
            }
        }
    }

    /// Empty a directory of the first level and remove it.
    fn unfold(&mut self, name: &CStr) -> io::Result<()> {
        let Some(dir) = open_up(&self.root, name)? else {
            return Ok(());
        };
        loop {
            let names = names(&dir)?;
            if names.is_empty() {
                break;
            }
            for below in names {
                if unlink(&dir, &below)? == Left::Directory {
                    self.bring_up(&dir, &below)?;
                }
            }
        }
        match unlinkat(&self.root, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn bring_up(&mut self, dir: &OwnedFd, name: &CStr) -> io::Result<()> {
        // To give a directory another parent is to write to it.
        let mode = fchmodat(dir, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink);
        mode.or_else(missing)?;
        loop {
            self.moved += 1;
            let to = format!("{}-{}", std::process::id(), self.moved);
            match renameat(dir, name, &self.root, to.as_str()) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                // Somebody else removes it too, or had this number before.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn unlink(dir: impl AsFd, name: &CStr) -> io::Result<Left> {
    match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(Left::Nothing),
        // Linux says the first of a directory, POSIX the second; a directory that cannot be written
        // is refused before that.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(&dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Left::Nothing),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Left::Directory),
        Err(errno) => Err(errno.into()),
    }
}

/// Open what its owner may have closed; `None`: it is gone.
fn open_up(parent: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = FchmodatFlags::NoFollowSymlink;
    fchmodat(parent, name, Mode::S_IRWXU, flags).or_else(missing)?;
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Some of the names in there; none: it is empty.
fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    // Opened anew, so that each listing begins at the beginning.
    let listing = openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut listing = Dir::from_fd(listing)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
        if names.len() >= limits::REMOVE_NAMES_MAX {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn what_is_nested_deeper_than_there_are_descriptors_goes_whatever_its_modes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let shut = bin.join("shut");
        fs::create_dir_all(shut.join("a/b")).unwrap();
        fs::write(shut.join("a/b/c"), "x").unwrap();
        symlink(&outside, shut.join("a/link")).unwrap();
        for path in ["a/b/c", "a/b", "a", ""] {
            let nothing = fs::Permissions::from_mode(0o0);
            fs::set_permissions(shut.join(path), nothing).unwrap();
        }
        let mut deep = open(&bin, DIRECTORY, Mode::empty()).unwrap();
        for level in 0..5_000 {
            mkdirat(&deep, "d", Mode::S_IRWXU).unwrap();
            let next = openat(&deep, "d", DIRECTORY, Mode::empty()).unwrap();
            if level % 1_000 == 0 {
                mkdirat(&next, "beside", Mode::S_IRWXU).unwrap();
                fchmod(&deep, Mode::empty()).unwrap();
            }
            deep = next;
        }
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // What many machines give.
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(1_024), hard).unwrap();
        let removed = remove(&bin);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        removed.unwrap();
        assert!(!bin.exists());
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "x");
        remove(&bin).unwrap();
        remove(&outside.join("kept")).unwrap();
        assert!(!outside.join("kept").exists());
    }
}
