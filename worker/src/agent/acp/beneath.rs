//! Files below a directory: the kernel refuses every path that leaves it, links included. Without
//! a kernel that confines paths nothing is served.

pub(super) use kernel::{read, write};

#[cfg(target_os = "linux")]
mod kernel {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::path::Path;

    use std::os::unix::fs::{MetadataExt, fchown};

    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    use nix::sys::stat::Mode;
    use nix::unistd::Uid;

    use crate::domain::limits;

    pub(in crate::agent::acp) fn read(root: &Path, path: &Path) -> io::Result<Vec<u8>> {
        // Not blocking: the agent may have put a FIFO there.
        let file = open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut content = Vec::new();
        file.take(limits::AGENT_FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)?;
        if content.len() as u64 > limits::AGENT_FILE_BYTES_MAX {
            return Err(io::Error::other(
                "the file is too large to be read through the protocol",
            ));
        }
        Ok(content)
    }

    pub(in crate::agent::acp) fn write(root: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
        if content.len() as u64 > limits::AGENT_FILE_BYTES_MAX {
            return Err(io::Error::other("the text is too large to be written"));
        }
        let mut made = std::path::PathBuf::new();
        for part in path.parent().into_iter().flat_map(Path::components) {
            made.push(part);
            make_dir(root, &made)?;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
        let mut file = open(root, path, flags)?;
        file.write_all(content)?;
        give(root, &file)
    }

    /// What root made belongs to whom the worktree belongs to, or its agent could not go on with it.
    fn give(root: &Path, made: &File) -> io::Result<()> {
        let (owner, own) = (std::fs::metadata(root)?, made.metadata()?);
        let one_name = own.is_dir() || own.nlink() == 1;
        if Uid::effective().is_root() && own.uid() == 0 && owner.uid() != 0 && one_name {
            fchown(made, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    fn make_dir(root: &Path, dir: &Path) -> io::Result<()> {
        if open(root, dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY).is_ok() {
            return Ok(());
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = open(root, parent.unwrap_or(Path::new(".")), OFlag::O_RDONLY)?;
        let name = dir
            .file_name()
            .ok_or_else(|| io::Error::other("not a directory name"))?;
        nix::sys::stat::mkdirat(&parent, name, Mode::from_bits_truncate(0o777))?;
        give(
            root,
            &open(root, dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?,
        )
    }

    fn open(root: &Path, path: &Path, flags: OFlag) -> io::Result<File> {
        let root = File::open(root)?;
        let created = flags.contains(OFlag::O_CREAT);
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(if created { 0o666 } else { 0 }))
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&root, path, how)?.into())
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::io;
    use std::path::Path;

    pub(in crate::agent::acp) fn read(_root: &Path, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::agent::acp) fn write(
        _root: &Path,
        _path: &Path,
        _content: &[u8],
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
