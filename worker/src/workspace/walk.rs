//! The capped walk over what an agent left. Follows no link, opens no device, enters no
//! repository: git itself never looks at this directory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use git2::{ObjectType, Odb, Oid};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstatat};

use super::ignores::{Entry, Ignores};
use super::{WorkspaceError, diff_failed};
use crate::domain::change::show_path;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::staged_name::is_staged_name;
use crate::sandbox::DIRECTORY;

/// Files up to this are hashed in memory first, so that an unchanged one is not written.
const IN_MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub(super) const MODE_LINK: u32 = 0o120_000;
pub(super) const MODE_GITLINK: u32 = 0o160_000;
const MODE_FILE: u32 = 0o100_644;
const MODE_PROGRAM: u32 = 0o100_755;

/// Mode and object of a file; absent: there is none.
pub(super) type Slot = Option<(u32, Oid)>;

/// A file of the start tree, with its status at checkout.
pub(super) struct Known {
    pub(super) mode: u32,
    pub(super) oid: Oid,
    pub(super) stat: Stat,
}

/// What the index remembers of a file's status, in the index's own (truncated) form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) ctime: (i32, u32),
    pub(super) mtime: (i32, u32),
    pub(super) ino: u32,
    pub(super) size: u32,
}

/// Whether new content is kept or only named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Written to the object database.
    Objects,
    /// Hashed; for files that are not the agent's.
    Nothing,
}

/// What to compare with.
pub(super) struct Start {
    pub(super) files: HashMap<Vec<u8>, Known>,
    /// Files whose status changed at or after this moment are always hashed.
    pub(super) index_time: (i64, i64),
    pub(super) ignores: Ignores,
}

/// What is different from the start tree.
#[derive(Default)]
pub(super) struct Found {
    pub(super) changes: BTreeMap<Vec<u8>, Slot>,
    pub(super) notices: Vec<String>,
    /// Notices beyond those.
    pub(super) unnoticed: usize,
}

/// Compare the directory with the start tree.
pub(super) fn walk(
    tree: &Path,
    start: &Start,
    odb: &Odb<'_>,
    keep: Keep,
) -> Result<Found, WorkspaceError> {
    let root = open(tree, DIRECTORY, Mode::empty()).map_err(|errno| {
        diff_failed(format!(
            "cannot read the worktree {}: {errno}",
            tree.display()
        ))
    })?;
    let mut walk = Walk {
        start,
        odb,
        keep,
        dirs: parents(start),
        seen: HashSet::new(),
        found: Found::default(),
        entries: 0,
        bytes: 0,
    };
    walk.dir(root, &[], Covered::No, 0)?;
    for path in start.files.keys() {
        if !walk.seen.contains(path.as_slice()) {
            walk.found.changes.insert(path.clone(), None);
        }
    }
    Ok(walk.found)
}

/// Whether git takes a directory with these entries for one of its own: a whole one, or one that
/// refers to another for what is common to its worktrees. Case is one on some systems.
fn is_git_dir(names: &[OsString]) -> bool {
    let has = |part: &str| names.iter().any(|name| name.eq_ignore_ascii_case(part));
    has("HEAD") && (has("commondir") || has("objects") && has("refs"))
}

/// Whether untracked files of a directory are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    Yes,
    No,
}

struct Walk<'a> {
    start: &'a Start,
    odb: &'a Odb<'a>,
    keep: Keep,
    /// Directories that hold files of the start tree.
    dirs: HashSet<&'a [u8]>,
    seen: HashSet<&'a [u8]>,
    found: Found,
    entries: usize,
    bytes: u64,
}

fn parents(start: &Start) -> HashSet<&[u8]> {
    let mut dirs = HashSet::new();
    for path in start.files.keys() {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|b| *b == b'/') {
            if !dirs.insert(&path[..slash]) {
                break;
            }
            end = slash;
        }
    }
    dirs
}

impl Walk<'_> {
    fn dir(
        &mut self,
        fd: OwnedFd,
        prefix: &[u8],
        covered: Covered,
        depth: usize,
    ) -> Result<(), WorkspaceError> {
        if depth > limits::SNAPSHOT_DEPTH_MAX {
            return Err(too_large(&format!(
                "directories are nested deeper than {}",
                limits::SNAPSHOT_DEPTH_MAX
            )));
        }
        let (fd, names) = self.names(fd, prefix)?;
        let mut covered = covered;
        if !prefix.is_empty() && covered == Covered::No {
            if names.iter().any(|name| name == ".git") {
                self.notice(format!(
                    "{} holds a repository of its own: its files are included as ordinary files, its history is not",
                    show_path(prefix)
                ));
            }
            if is_git_dir(&names) {
                covered = Covered::Yes;
                self.notice(format!(
                    "{} is a git directory: its new files are left out, because git obeys the configuration in it",
                    show_path(prefix)
                ));
            }
        }
        for name in names {
            if name.as_bytes() == b".git" {
                continue;
            }
            let mut path = prefix.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            self.entry(fd.as_fd(), &name, &path, covered, depth)?;
        }
        Ok(())
    }

    fn names(
        &mut self,
        fd: OwnedFd,
        prefix: &[u8],
    ) -> Result<(Dir, Vec<OsString>), WorkspaceError> {
        let failed =
            |errno: Errno| diff_failed(format!("cannot list {}: {errno}", show_path(prefix)));
        let mut dir = Dir::from_fd(fd).map_err(failed)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > limits::SNAPSHOT_ENTRIES_MAX {
                return Err(too_large(&format!(
                    "there are more than {} files",
                    limits::SNAPSHOT_ENTRIES_MAX
                )));
            }
            names.push(OsString::from_vec(name.to_vec()));
        }
        Ok((dir, names))
    }

    fn entry(
        &mut self,
        parent: impl AsFd,
        name: &OsStr,
        path: &[u8],
        covered: Covered,
        depth: usize,
    ) -> Result<(), WorkspaceError> {
        let stat = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(unreadable(path, errno)),
        };
        let known = self.start.files.get_key_value(path);
        match stat.st_mode & 0o170_000 {
            0o040_000 => {
                if let Some((path, known)) = known
                    && known.mode == MODE_GITLINK
                {
                    self.seen.insert(path);
                    return self.submodule(&parent, name, path);
                }
                let tracked_below = self.dirs.contains(path);
                let covered =
                    if covered == Covered::Yes || self.start.ignores.name(path, Entry::Dir) {
                        Covered::Yes
                    } else {
                        Covered::No
                    };
                if covered == Covered::Yes && !tracked_below {
                    return Ok(());
                }
                let fd = open_dir(&parent, name).map_err(|errno| unreadable(path, errno))?;
                self.dir(fd, path, covered, depth + 1)
            }
            0o100_000 | 0o120_000 => {
                if let Some((path, known)) = known {
                    self.seen.insert(path);
                    return self.tracked(&parent, name, path, known, &stat);
                }
                if covered == Covered::Yes || self.start.ignores.name(path, Entry::File) {
                    return Ok(());
                }
                if is_staged_name(name.as_bytes()) {
                    self.notice(format!(
                        "{} is what a write that was killed left behind: it was left out",
                        show_path(path)
                    ));
                    return Ok(());
                }
                match self.hash(&parent, name, path, &stat, None)? {
                    Some(slot) => self.changed(path, slot),
                    None => Ok(()),
                }
            }
            _ => {
                if covered == Covered::No {
                    self.notice(format!(
                        "{} is a pipe, socket or device and was left out",
                        show_path(path)
                    ));
                }
                Ok(())
            }
        }
    }

    fn tracked(
        &mut self,
        parent: impl AsFd,
        name: &OsStr,
        path: &[u8],
        known: &Known,
        stat: &FileStat,
    ) -> Result<(), WorkspaceError> {
        let racy = (stat.st_ctime, stat.st_ctime_nsec) >= self.start.index_time;
        if !racy && mode_of(stat) == known.mode && shorten(stat) == known.stat {
            return Ok(());
        }
        let slot = self.hash(parent, name, path, stat, Some(known.oid))?;
        if let Some(slot) = slot
            && slot != (known.mode, known.oid)
        {
            return self.changed(path, slot);
        }
        Ok(())
    }

    fn changed(&mut self, path: &[u8], slot: (u32, Oid)) -> Result<(), WorkspaceError> {
        if self.found.changes.len() >= limits::CHANGED_FILES_MAX {
            return Err(too_large(&format!(
                "more than {} files are new or changed",
                limits::CHANGED_FILES_MAX
            )));
        }
        self.found.changes.insert(path.to_vec(), Some(slot));
        Ok(())
    }

    fn submodule(
        &mut self,
        parent: impl AsFd,
        name: &OsStr,
        path: &[u8],
    ) -> Result<(), WorkspaceError> {
        let fd = open_dir(parent, name).map_err(|errno| unreadable(path, errno))?;
        let (_, names) = self.names(fd, path)?;
        if !names.is_empty() {
            self.notice(format!(
                "{} is a submodule: it stays as it was, the files in it are left out",
                show_path(path)
            ));
        }
        Ok(())
    }

    /// Mode and blob of a file or link; `None`: too large to take, reported.
    fn hash(
        &mut self,
        parent: impl AsFd,
        name: &OsStr,
        path: &[u8],
        stat: &FileStat,
        known: Option<Oid>,
    ) -> Result<Slot, WorkspaceError> {
        let failed =
            |error: git2::Error| diff_failed(format!("cannot store {}: {error}", show_path(path)));
        if mode_of(stat) == MODE_LINK {
            let target = readlinkat(parent, name).map_err(|errno| unreadable(path, errno))?;
            let oid = self.keep(target.as_bytes(), known).map_err(failed)?;
            return Ok(Some((MODE_LINK, oid)));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > limits::SNAPSHOT_FILE_BYTES_MAX {
            self.notice(format!(
                "{} has {size} bytes, more than {}: it was left out{}",
                show_path(path),
                limits::SNAPSHOT_FILE_BYTES_MAX,
                if known.is_some() {
                    ", the former content stays"
                } else {
                    ""
                }
            ));
            return Ok(None);
        }
        self.bytes += size;
        if self.bytes > limits::SNAPSHOT_TOTAL_BYTES_MAX {
            return Err(too_large(&format!(
                "new content is more than {} bytes",
                limits::SNAPSHOT_TOTAL_BYTES_MAX
            )));
        }
        let mut file = open_file(parent, name).map_err(|errno| unreadable(path, errno))?;
        let oid = if size > IN_MEMORY_BYTES_MAX && self.keep == Keep::Objects {
            self.stream(&mut file, size).map_err(|error| {
                diff_failed(format!("cannot store {}: {error}", show_path(path)))
            })?
        } else {
            let mut bytes = Vec::new();
            file.take(limits::SNAPSHOT_FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(|error| {
                    diff_failed(format!("cannot read {}: {error}", show_path(path)))
                })?;
            self.keep(&bytes, known).map_err(failed)?
        };
        Ok(Some((mode_of(stat), oid)))
    }

    fn keep(&self, bytes: &[u8], known: Option<Oid>) -> Result<Oid, git2::Error> {
        let oid = Oid::hash_object(ObjectType::Blob, bytes)?;
        if Some(oid) == known || self.keep == Keep::Nothing {
            return Ok(oid);
        }
        self.odb.write(ObjectType::Blob, bytes)
    }

    fn stream(&self, file: &mut File, size: u64) -> Result<Oid, Box<dyn std::error::Error>> {
        let mut writer = self.odb.writer(usize::try_from(size)?, ObjectType::Blob)?;
        let mut buffer = vec![0; 256 * 1024];
        let mut left = size;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left)?);
            let n = file.read(&mut buffer[..want])?;
            if n == 0 {
                return Err("it became shorter while being read".into());
            }
            writer.write_all(&buffer[..n])?;
            left -= u64::try_from(n)?;
        }
        Ok(writer.finalize()?)
    }

    fn notice(&mut self, text: String) {
        if self.found.notices.len() < limits::NOTICES_HELD_MAX {
            self.found.notices.push(text);
        } else {
            self.found.unnoticed += 1;
        }
    }
}

fn mode_of(stat: &FileStat) -> u32 {
    if stat.st_mode & 0o170_000 == 0o120_000 {
        MODE_LINK
    } else if stat.st_mode & 0o100 != 0 {
        MODE_PROGRAM
    } else {
        MODE_FILE
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the index keeps the low 32 bits of each; both sides are cut alike"
)]
fn shorten(stat: &FileStat) -> Stat {
    Stat {
        ctime: (stat.st_ctime as i32, stat.st_ctime_nsec as u32),
        mtime: (stat.st_mtime as i32, stat.st_mtime_nsec as u32),
        ino: stat.st_ino as u32,
        size: stat.st_size as u32,
    }
}

fn open_dir(parent: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    open_in(parent, name, DIRECTORY, Mode::S_IRWXU)
}

fn open_file(parent: impl AsFd, name: &OsStr) -> nix::Result<File> {
    // Not blocking: a pipe that took the file's place must not hang us.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    open_in(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
}

/// Opens what the agent made unreadable, too: hiding a file behind its mode must not work.
fn open_in(parent: impl AsFd, name: &OsStr, flags: OFlag, own: Mode) -> nix::Result<OwnedFd> {
    match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(&parent, name, own, FchmodatFlags::NoFollowSymlink)?;
            openat(&parent, name, flags, Mode::empty())
        }
        other => other,
    }
}

fn unreadable(path: &[u8], errno: Errno) -> WorkspaceError {
    diff_failed(format!("cannot read {}: {errno}", show_path(path)))
}

/// The agent left more than is taken; asking again does not help.
fn too_large(what: &str) -> WorkspaceError {
    WorkspaceError::new(
        ErrorClass::Budget,
        format!("what the agent left is too large for a change: {what}"),
    )
}
