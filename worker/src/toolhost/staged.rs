//! Files that are written whole or not at all: beside their place first, then renamed to it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::outcome::Told;
use super::place::{Place, too_large};
use crate::domain::limits;
use crate::domain::staged_name::staged_name;

/// A file that is written but not in its place yet; dropped, it is gone. Who is killed leaves it,
/// under a name that neither the tools nor a change show. It is not staged below the temporary
/// directory: that is another mount inside most sandboxes, from which nothing can be renamed.
#[derive(Debug)]
pub(super) struct Staged {
    place: Place,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Under this name beside its own.
    Beside {
        dir: File,
        staged: OsString,
        name: OsString,
    },
    /// The place is a link, which stays one: this is what it leads to.
    Through { file: File, content: Vec<u8> },
    /// It is in its place.
    Done,
}

/// The rights of a file that is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights {
    /// Those of the file whose place it takes; a new one's, when there is none.
    Kept,
    /// Those of a file elsewhere.
    Of(Mode),
}

impl Staged {
    /// Write the content, making the directories above.
    pub(super) fn write(place: &Place, content: &[u8], rights: Rights) -> Told<Self> {
        if content.len() as u64 > limits::tools::FILE_BYTES_MAX {
            return Err(too_large(&place.shown(), content.len() as u64));
        }
        let failed = |error: io::Error| place.explain(&error);
        let (dir, name) = parent(place, Parents::Made)?;
        let there = kind(&dir, &name).map_err(failed)?;
        let mode = match (there, rights) {
            (There::Link, _) => return Self::through(place, content),
            (There::Other, _) => return Err(not_a_file(place)),
            (There::File(_) | There::Nothing, Rights::Of(mode)) => Some(mode),
            (There::File(mode), Rights::Kept) => Some(mode),
            (There::Nothing, Rights::Kept) => None,
        };
        let staged = OsString::from(staged_name(uuid::Uuid::new_v4()));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let opened = super::beneath::open(&dir, Path::new(&staged), flags);
        let mut file = opened.map_err(failed)?;
        let how = How::Beside { dir, staged, name };
        let place = place.clone();
        // From here on a failure removes it.
        let made = Self { place, how };
        let written = file.write_all(content).and_then(|()| match mode {
            Some(mode) => fchmod(&file, mode).map_err(io::Error::from),
            None => Ok(()),
        });
        match written {
            Ok(()) => Ok(made),
            Err(error) => Err(made.place.explain(&error)),
        }
    }

    fn through(place: &Place, content: &[u8]) -> Told<Self> {
        let opened = place.open(OFlag::O_WRONLY);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{} is a symbolic link that leads to nothing; name the file itself",
                place.shown()
            ),
            _ => place.explain(&error),
        })?;
        place.unguarded(&file)?;
        let metadata = file.metadata();
        match metadata.map_err(|error| place.explain(&error))?.is_file() {
            true => Ok(Self {
                place: place.clone(),
                how: How::Through {
                    file,
                    content: content.to_vec(),
                },
            }),
            false => Err(not_a_file(place)),
        }
    }

    /// Put it into its place.
    pub(super) fn commit(mut self) -> Told<()> {
        let done = match &mut self.how {
            How::Beside { dir, staged, name } => {
                renameat(&*dir, staged.as_os_str(), &*dir, name.as_os_str()).map_err(Into::into)
            }
            How::Through { file, content } => {
                file.set_len(0).and_then(|()| file.write_all(content))
            }
            How::Done => Ok(()),
        };
        done.map_err(|error| self.place.explain(&error))?;
        self.how = How::Done;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let How::Beside { dir, staged, .. } = &self.how {
            // Somebody who removed it before was faster.
            let _ = unlinkat(dir, staged.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Remove a file, or a link and not what it leads to.
pub(super) fn remove(place: &Place) -> Told<()> {
    removable(place)?;
    let (dir, name) = parent(place, Parents::There)?;
    unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir)
        .map_err(|error| place.explain(&error.into()))
}

/// Whether it can be removed.
pub(super) fn removable(place: &Place) -> Told<()> {
    let (dir, name) = parent(place, Parents::There)?;
    match kind(&dir, &name).map_err(|error| place.explain(&error))? {
        There::File(_) | There::Link => Ok(()),
        There::Nothing => Err(place.explain(&Errno::ENOENT.into())),
        There::Other => Err(not_a_file(place)),
    }
}

/// Whether anything has this name.
pub(super) fn is_free(place: &Place) -> Told<bool> {
    match place.open(OFlag::O_RDONLY | OFlag::O_NOFOLLOW) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Ok(false),
        Err(error) => Err(place.explain(&error)),
    }
}

#[derive(Clone, Copy)]
enum Parents {
    Made,
    There,
}

enum There {
    Nothing,
    /// With its rights.
    File(Mode),
    Link,
    Other,
}

/// The directory that a place is in, and its name there.
fn parent(place: &Place, parents: Parents) -> Told<(File, OsString)> {
    let failed = |error: io::Error| place.explain(&error);
    let name = place.path().file_name().ok_or_else(|| not_a_file(place))?;
    let above = place.path().parent().unwrap_or(Path::new(""));
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut missing = PathBuf::new();
    let mut found = None;
    for ancestor in above.ancestors() {
        match place.open_at(ancestor, flags) {
            Ok(dir) => {
                let rest = above.strip_prefix(ancestor).unwrap_or(Path::new(""));
                missing.push(rest);
                found = Some(dir);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match parents {
                Parents::Made => {}
                Parents::There => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        }
    }
    let mut dir = found.ok_or_else(|| failed(Errno::ENOENT.into()))?;
    place.unguarded(&dir)?;
    for part in &missing {
        match mkdirat(&dir, part, Mode::from_bits_truncate(0o777)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let made = super::beneath::open(&dir, Path::new(part), flags | OFlag::O_NOFOLLOW);
        dir = made.map_err(failed)?;
    }
    Ok((dir, name.to_owned()))
}

fn kind(dir: &File, name: &OsString) -> io::Result<There> {
    let stat = match fstatat(dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return Ok(There::Nothing),
        Err(error) => return Err(error.into()),
    };
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    Ok(match kind {
        SFlag::S_IFREG => There::File(Mode::from_bits_truncate(stat.st_mode)),
        SFlag::S_IFLNK => There::Link,
        _ => There::Other,
    })
}

fn not_a_file(place: &Place) -> String {
    format!("{} is not a regular file", place.shown())
}
