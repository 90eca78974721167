//! Where things are under the workspace's root, and what is written beside a worktree, out of its
//! agent's reach.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{WorkspaceError, WorktreeKey, WorktreeMode};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// The directory of one attempt: `tree` or a linked checkout, `home`, `tmp`, and our notes.
#[derive(Clone, Debug)]
pub(super) struct AttemptDir(pub(super) PathBuf);

impl AttemptDir {
    /// The directory that this key has for ever; it is never used a second time.
    pub(super) fn new(root: &Path, key: WorktreeKey) -> Self {
        Self(root.join("worktrees").join(name(key)))
    }

    /// The agent's working directory. A linked checkout is named by its key, because git names
    /// its administrative directory after the last component.
    pub(super) fn tree(&self, key: WorktreeKey, mode: WorktreeMode) -> PathBuf {
        match mode {
            WorktreeMode::Private => match self.place() {
                Some(place) => place.tree(),
                None => self.0.join("tree"),
            },
            WorktreeMode::Linked => self.0.join(format!("dispatch-{}", name(key))),
        }
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Our copy of the index as the checkout wrote it.
    pub(super) fn index(&self) -> PathBuf {
        self.0.join("base.index")
    }

    fn meta(&self) -> PathBuf {
        self.0.join("meta.json")
    }

    /// Written last: without it the directory is half made and only fit for the trash.
    pub(super) fn write_meta(&self, meta: &Meta) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        serde_json::to_writer(&mut file, meta)?;
        file.as_file().sync_all()?;
        file.persist(self.meta())?;
        Ok(())
    }

    pub(super) fn read_meta(&self) -> io::Result<Meta> {
        Ok(serde_json::from_slice(&fs::read(self.meta())?)?)
    }

    /// Note which repository lists the linked checkout, before it does: it must be taken off the
    /// list even when its maker dies half way.
    pub(super) fn note_linked(&self, common_dir: &Path) -> io::Result<()> {
        fs::write(self.0.join("linked"), common_dir.as_os_str().as_bytes())
    }

    /// That repository, and the checkout as listed there.
    pub(super) fn linked(&self) -> Option<(PathBuf, PathBuf)> {
        let common_dir = fs::read(self.0.join("linked")).ok()?;
        let name = self.0.file_name()?.to_string_lossy().into_owned();
        let tree = self.tree(key_of(&name)?, WorktreeMode::Linked);
        Some((PathBuf::from(OsStr::from_bytes(&common_dir)), tree))
    }

    /// Note the place before it is taken: who owns it is written there.
    pub(super) fn note_place(&self, place: &Place) -> io::Result<()> {
        fs::write(self.0.join("place"), place.0.as_os_str().as_bytes())
    }

    /// The place that this attempt has.
    pub(super) fn place(&self) -> Option<Place> {
        let path = fs::read(self.0.join("place")).ok()?;
        let place = Place(PathBuf::from(OsStr::from_bytes(&path)));
        let mine = OsStr::new(&place.owner()?) == self.0.file_name()?;
        mine.then_some(place)
    }

    /// Note why what is in there cannot be recorded, so that it is not read again and again.
    pub(super) fn note_unrecorded(&self, error: &WorkspaceError) -> io::Result<()> {
        let text = format!("{}\n{}\n", error.class.as_str(), error.message);
        fs::write(self.unrecorded(), text)
    }

    /// Whether it may be tried (again): who left too much has left too much for ever.
    pub(super) fn may_be_recorded(&self) -> bool {
        let Ok(text) = fs::read_to_string(self.unrecorded()) else {
            return true;
        };
        let noted = fs::metadata(self.unrecorded()).and_then(|facts| facts.modified());
        let age = noted.map(|at| at.elapsed().unwrap_or_default());
        let due = age.is_ok_and(|age| age > limits::UNRECORDED_LOOK);
        due && text.lines().next() != Some(ErrorClass::Budget.as_str())
    }

    fn unrecorded(&self) -> PathBuf {
        self.0.join("unrecorded")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Whether its maker came as far as locking it.
    pub(super) fn has_lock(&self) -> bool {
        self.lock().exists()
    }

    /// Mark the directory as in use; `None`: somebody (perhaps another process) uses it.
    pub(super) fn claim(&self) -> io::Result<Option<fs::File>> {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.lock())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Where the attempts of one conversation work, one after the other: sessions of agents are found
/// from their directory only (opencode, fast-agent), and what was said in them names its files.
/// Who finds it taken works in a directory of its own.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new(root: &Path, conversation: i64) -> Self {
        Self(root.join("places").join(format!("c{conversation}")))
    }

    fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// Name of the directory of the attempt that has it; `None`: nobody can be told from it.
    pub(super) fn owner(&self) -> Option<String> {
        let name = fs::read_to_string(self.0.join("owner")).ok()?;
        key_of(&name).map(|_| name)
    }

    /// Give it to this attempt, in one step. `false`: somebody has it.
    pub(super) fn give(&self, dir: &AttemptDir) -> io::Result<bool> {
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        let owner = dir.0.file_name().unwrap_or_default();
        let made = tempfile::Builder::new()
            .prefix(".taking-")
            .tempdir_in(parent)?;
        let mut file = fs::File::create_new(made.path().join("owner"))?;
        file.write_all(owner.as_bytes())?;
        // A machine that loses its power may otherwise keep the name and not what is in it.
        file.sync_all()?;
        // It has its owner's name in it from the first moment, and is therefore never empty: a
        // rename onto one that is there fails.
        match fs::rename(made.path(), &self.0) {
            Ok(()) => {
                let _moved = made.keep();
                Ok(true)
            }
            Err(_) if self.0.exists() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What must be known about a worktree after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) task: i64,
    pub(super) attempt: i16,
    pub(super) token: i64,
    pub(super) project: String,
    pub(super) linked: bool,
    /// Commit that the change is reviewed against.
    pub(super) base_commit: String,
    /// Commit that was checked out.
    pub(super) start_commit: String,
    /// When the index was written: files whose status changed at that time or later are hashed.
    pub(super) index_seconds: i64,
    pub(super) index_nanoseconds: i64,
    /// What copying and the setup hook changed; not the agent's doing.
    pub(super) prepared: Vec<Prepared>,
}

/// A file that was not as in the start commit when the agent began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prepared {
    pub(super) path: Vec<u8>,
    /// Mode and blob; absent: it was gone.
    pub(super) entry: Option<(u32, String)>,
}

fn name(key: WorktreeKey) -> String {
    format!("t{}-a{}-{}", key.task, key.attempt, key.token)
}

/// The key that a directory's name carries.
pub(super) fn key_of(name: &str) -> Option<WorktreeKey> {
    let (task, rest) = name.strip_prefix('t')?.split_once("-a")?;
    let (attempt, token) = rest.split_once('-')?;
    Some(WorktreeKey {
        task: task.parse().ok()?,
        attempt: attempt.parse().ok()?,
        token: token.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_gives_back_its_key() {
        let key = WorktreeKey {
            task: 12,
            attempt: 3,
            token: 456,
        };
        assert_eq!(key_of(&name(key)), Some(key));
        assert_eq!(key_of("t12-a3"), None);
        assert_eq!(key_of("lost+found"), None);
    }
}
