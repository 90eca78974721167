//! Giving the attempt's own directories to its user.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::confinement::Confinement;
use super::uids::{Owner, Users};

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Confinement {
    /// Let the attempt's user own a directory and what is in it; nothing when it has no user of its
    /// own. Nobody else may be at work in there. Follows no link.
    pub fn give(&self, dir: &Path) -> io::Result<()> {
        match self.owner() {
            Some(owner) => give(dir, owner),
            None => Ok(()),
        }
    }
}

/// The same for a known user.
pub fn give(dir: &Path, owner: &Owner) -> io::Result<()> {
    let to = To {
        uid: Uid::from_raw(owner.id),
        gid: Gid::from_raw(owner.id),
    };
    let root = open(dir, DIRECTORY, Mode::empty())?;
    let mut todo = vec![root];
    while let Some(fd) = todo.pop() {
        to.directory(fd, &mut todo)?;
    }
    Ok(())
}

struct To {
    uid: Uid,
    gid: Gid,
}

impl To {
    fn directory(&self, fd: OwnedFd, todo: &mut Vec<OwnedFd>) -> io::Result<()> {
        let own = File::from(fd.try_clone()?);
        let mut dir = Dir::from_fd(fd)?;
        if self.may(&fstat(&own)?, true) {
            fchown(&own, Some(self.uid), Some(self.gid))?;
        }
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match fstatat(&own, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let is_dir = stat.st_mode & 0o170_000 == 0o040_000;
            if is_dir {
                todo.push(openat(&own, name, DIRECTORY, Mode::empty())?);
            } else if self.may(&stat, false) {
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(&own, name, Some(self.uid), Some(self.gid), flags)?;
            }
        }
        Ok(())
    }

    /// Ours or an earlier attempt's. A second name of a file may be one of the system's: an agent
    /// could have made it, and would get the file.
    fn may(&self, stat: &FileStat, is_dir: bool) -> bool {
        let attempts = Users::is_one(stat.st_uid) && stat.st_uid != self.uid.as_raw();
        let ours = Uid::from_raw(stat.st_uid) == Uid::effective();
        attempts || (ours && (is_dir || stat.st_nlink == 1))
    }
}
