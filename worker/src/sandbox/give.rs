//! Giving the attempt's own directories to its user.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, open, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::DIRECTORY;
use super::confinement::Confinement;
use super::uids::{Owner, Users};
use crate::domain::limits;

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

/// The same for a known user. Nobody else gets in.
pub fn give(dir: &Path, owner: &Owner) -> io::Result<()> {
    let to = To {
        uid: Uid::from_raw(owner.id),
        gid: Gid::from_raw(owner.id),
    };
    let root = open(dir, DIRECTORY, Mode::empty())?;
    fchmod(&root, Mode::S_IRWXU)?;
    to.directory(root, 0)
}

/// Make a directory that holds what attempts own, for nobody else to look into; as root, their users
/// pass through to it. One that is there already gets the same mode, whatever version made it.
pub fn passage(dir: &Path) -> io::Result<()> {
    let mode = match Uid::effective().is_root() {
        true => 0o711,
        false => 0o700,
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

struct To {
    uid: Uid,
    gid: Gid,
}

impl To {
    /// One descriptor a level is open at a time, so that a wide directory takes no more of them.
    fn directory(&self, fd: OwnedFd, depth: usize) -> io::Result<()> {
        if depth > limits::GIVE_DEPTH_MAX {
            return Err(io::Error::other("directories are nested too deep"));
        }
        let own = File::from(fd.try_clone()?);
        if self.may(&fstat(&own)?, true) {
            fchown(&own, Some(self.uid), Some(self.gid))?;
        }
        let mut below = Vec::new();
        for entry in Dir::from_fd(fd)?.iter() {
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
            if stat.st_mode & 0o170_000 == 0o040_000 {
                below.push(name.to_owned());
            } else if self.may(&stat, false) {
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(&own, name, Some(self.uid), Some(self.gid), flags)?;
            }
        }
        for name in below {
            let fd = openat(&own, name.as_c_str(), DIRECTORY, Mode::empty())?;
            self.directory(fd, depth + 1)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_is_given_away_is_the_tree_alone_never_what_it_links_to() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let users = Users::find(dir.path()).unwrap();
        let owner = users.take().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "x").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/c"), "x").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        // A second name of a file may be one of the system's.
        std::fs::hard_link(&outside, tree.join("a/name")).unwrap();
        give(&tree, &owner).unwrap();
        let uid = |path: &Path| std::fs::symlink_metadata(path).unwrap().uid();
        for given in ["", "a", "a/b", "a/b/c", "a/link"] {
            assert_eq!(uid(&tree.join(given)), owner.id, "{given}");
        }
        assert_eq!((uid(&outside), uid(&tree.join("a/name"))), (0, 0));
    }
}
