//! Files below a directory: the kernel refuses every path that leaves it, links included, also when
//! they are swapped meanwhile. Without a kernel that confines paths nothing is served.

pub(super) use kernel::{open, real_path};

#[cfg(target_os = "linux")]
mod kernel {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, AsRawFd};
    use std::path::{Path, PathBuf};

    use nix::errno::Errno;
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlink};
    use nix::sys::stat::Mode;

    /// The kernel gives up a path with `..` in a link when something is renamed meanwhile.
    const TRIES: usize = 8;

    /// Open what `path` names below `root`; empty: that itself. Never blocks on a FIFO.
    pub(in crate::toolhost) fn open(
        root: impl AsFd,
        path: &Path,
        flags: OFlag,
    ) -> io::Result<File> {
        let created = flags.contains(OFlag::O_CREAT);
        let always = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let how = OpenHow::new()
            .flags(flags | always)
            .mode(Mode::from_bits_truncate(if created { 0o666 } else { 0 }))
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let mut tries = 1;
        loop {
            match openat2(root.as_fd(), path, how) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::EAGAIN) if tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where an open file is, without links.
    pub(in crate::toolhost) fn real_path(file: &File) -> io::Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(readlink(link.as_str())?.into())
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};

    use nix::fcntl::OFlag;

    pub(in crate::toolhost) fn open(
        _root: impl AsFd,
        _path: &Path,
        _flags: OFlag,
    ) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::toolhost) fn real_path(_file: &File) -> io::Result<PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
