//! How much space an attempt takes on the disk. Directories are walked by their descriptors, so that
//! none can be swapped for a link on the way; what nobody can look into counts as too much.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::Uid;

use super::DIRECTORY;
use crate::domain::limits;

/// What is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskUse {
    pub(super) bytes: u64,
    /// The longest file.
    pub(super) longest: u64,
    /// Its path below its directory.
    pub(super) longest_path: PathBuf,
    /// Why this is not all of it.
    pub(super) unseen: Option<String>,
}

/// Space below directories. A file that was deleted and is still open takes space that nobody sees.
/// An error is one of the machine, such as having no descriptors left.
pub(super) fn usage(dirs: &[PathBuf]) -> io::Result<DiskUse> {
    let mut look = Look::default();
    for dir in dirs {
        let name = CString::new(dir.as_os_str().as_bytes())?;
        look.path.clear();
        match look.below(AT_FDCWD, &name, 0) {
            Ok(()) => {}
            Err(Stop::Unseen(why)) => {
                look.used.unseen = Some(why);
                break;
            }
            Err(Stop::Failed(errno)) => return Err(errno.into()),
        }
    }
    Ok(look.used)
}

enum Stop {
    Unseen(String),
    Failed(Errno),
}

#[derive(Default)]
struct Look {
    used: DiskUse,
    entries: usize,
    /// Bytes of names that wait.
    waiting: usize,
    /// Names of the directories that we are in.
    path: Vec<CString>,
}

impl Look {
    fn below(&mut self, parent: impl AsFd, name: &CStr, depth: usize) -> Result<(), Stop> {
        if depth > limits::DISK_WATCH_DEPTH_MAX {
            return Err(Stop::Unseen(format!(
                "directories are nested deeper than {}",
                limits::DISK_WATCH_DEPTH_MAX
            )));
        }
        let (dir, shut) = match open_dir(parent, name) {
            Ok(opened) => opened,
            // Gone, or something else by now.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(Errno::EACCES | Errno::EPERM) => return Err(closed(&self.shown(None))),
            Err(errno) => return Err(Stop::Failed(errno)),
        };
        let looked = self.inside(&dir, depth);
        if let Some(mode) = shut {
            let _gone = fchmod(&dir, mode);
        }
        looked
    }

    fn inside(&mut self, dir: &OwnedFd, depth: usize) -> Result<(), Stop> {
        let failed = |error: io::Error| Stop::Failed(Errno::try_from(error).unwrap_or(Errno::EIO));
        let own = dir.try_clone().map_err(failed)?;
        let mut listing = Dir::from_fd(own).map_err(Stop::Failed)?;
        let mut below: Vec<CString> = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(Stop::Failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > limits::DISK_WATCH_ENTRIES_MAX {
                return Err(too_many());
            }
            let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(Errno::EACCES) => return Err(closed(&self.shown(Some(name)))),
                Err(errno) => return Err(Stop::Failed(errno)),
            };
            if self.count(name, &stat) {
                self.waiting += name.to_bytes_with_nul().len();
                if self.waiting > limits::DISK_WATCH_NAMES_BYTES_MAX {
                    return Err(too_many());
                }
                below.push(name.to_owned());
            }
        }
        // One descriptor a level while what is below is looked at.
        drop(listing);
        for name in below {
            self.waiting -= name.as_bytes_with_nul().len();
            self.path.push(name.clone());
            self.below(dir, &name, depth + 1)?;
            self.path.pop();
        }
        Ok(())
    }

    /// `true`: it is a directory.
    fn count(&mut self, name: &CStr, stat: &FileStat) -> bool {
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.used.bytes = self.used.bytes.saturating_add(blocks.saturating_mul(512));
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        match stat.st_mode & 0o170_000 {
            0o040_000 => true,
            0o100_000 if length > self.used.longest => {
                self.used.longest = length;
                self.used.longest_path = self.shown(Some(name));
                false
            }
            _ => false,
        }
    }

    /// Path below the directory that was asked for, for people.
    fn shown(&self, name: Option<&CStr>) -> PathBuf {
        let names = self.path.iter().map(CString::as_c_str).chain(name);
        names
            .map(|name| OsStr::from_bytes(name.to_bytes()))
            .collect()
    }
}

fn closed(path: &Path) -> Stop {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("one of them"),
        false => path,
    };
    Stop::Unseen(format!("{} cannot be looked into", path.display()))
}

fn too_many() -> Stop {
    Stop::Unseen(format!(
        "there are more than {} files, or too many directories",
        limits::DISK_WATCH_ENTRIES_MAX
    ))
}

/// Opens what was made unreadable, too, for as long as it is looked at; with the mode to give back.
fn open_dir(parent: impl AsFd, name: &CStr) -> nix::Result<(OwnedFd, Option<Mode>)> {
    let flags = FchmodatFlags::NoFollowSymlink;
    let opened = openat(&parent, name, DIRECTORY, Mode::empty());
    if opened.is_ok() && Uid::effective().is_root() {
        return opened.map(|dir| (dir, None));
    }
    match opened {
        Ok(dir) => {
            let mode = Mode::from_bits_truncate(fstat(&dir)?.st_mode);
            let shut = Some(mode).filter(|mode| !mode.contains(Mode::S_IXUSR));
            // What is another's and cannot be opened up, its entries tell.
            let opened_up = shut.is_some_and(|mode| fchmod(&dir, mode | Mode::S_IRWXU).is_ok());
            Ok((dir, shut.filter(|_| opened_up)))
        }
        Err(Errno::EACCES) => {
            let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_bits_truncate(stat.st_mode);
            fchmodat(&parent, name, mode | Mode::S_IRWXU, flags)?;
            openat(&parent, name, DIRECTORY, Mode::empty()).map(|dir| (dir, Some(mode)))
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;

    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn nest(root: &Path, levels: usize) {
        let name = "d".repeat(100);
        let mut dir = nix::fcntl::open(root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            nix::sys::stat::mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
            dir = openat(&dir, name.as_str(), DIRECTORY, Mode::empty()).unwrap();
        }
        let file = openat(&dir, "x", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR);
        std::io::Write::write_all(&mut fs::File::from(file.unwrap()), &[1; 100_000]).unwrap();
    }

    #[test]
    fn a_sparse_file_counts_by_its_length_as_a_file_and_by_its_blocks_as_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 32).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let used = usage(&[dir.path().to_owned()]).unwrap();
        assert_eq!(used.longest, 1 << 32);
        assert!(used.bytes < 1 << 20, "{}", used.bytes);
        assert_eq!(used.longest_path, Path::new("sparse"));
        assert_eq!(used.unseen, None);
    }

    #[test]
    fn what_lies_behind_a_path_that_is_too_long_is_counted_and_what_is_too_deep_counts_as_unseen() {
        let dir = tempfile::tempdir().unwrap();
        nest(dir.path(), 60);
        let used = usage(&[dir.path().to_owned()]).unwrap();
        assert!(used.bytes >= 100_000, "{}", used.bytes);
        assert_eq!((used.longest, used.unseen), (100_000, None));
        let deep = tempfile::tempdir().unwrap();
        nest(deep.path(), limits::DISK_WATCH_DEPTH_MAX + 1);
        let used = usage(&[deep.path().to_owned()]).unwrap();
        assert!(used.unseen.unwrap().contains("nested deeper"));
    }

    /// Root reads everything: for others this says more.
    #[test]
    fn what_its_owner_made_unreadable_is_counted_and_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o300, 0o000, 0o600] {
            let shut = dir.path().join(mode.to_string());
            fs::create_dir(&shut).unwrap();
            fs::write(shut.join("x"), vec![1; 100_000 + mode]).unwrap();
            let mode = u32::try_from(mode).unwrap();
            fs::set_permissions(&shut, fs::Permissions::from_mode(mode)).unwrap();
            let used = usage(&[dir.path().to_owned()]).unwrap();
            assert_eq!(used.longest, u64::from(100_000 + mode));
            assert_eq!(used.unseen, None);
            let now = fs::metadata(&shut).unwrap().permissions().mode() & 0o777;
            assert_eq!(now, mode);
            fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
            fs::remove_dir_all(&shut).unwrap();
        }
    }
}
