//! The places of conversations: who has which. Every change is made under one lock of the root, so
//! that a place is taken from nobody who still has it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{AttemptDir, Place};

/// All places under a root. Several processes may share it.
#[derive(Clone, Debug)]
pub(super) struct Places {
    root: PathBuf,
}

impl Places {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Give the place to this attempt, unless another has it: its worker may have lost the lease
    /// and still be ending it.
    pub(super) fn take(&self, place: &Place, dir: &AttemptDir) -> io::Result<bool> {
        let _lock = self.lock()?;
        if place.0.exists() && self.is_stale(place) {
            bin(&self.root, |bin| fs::rename(&place.0, bin.join("gone")))?;
        }
        dir.note_place(place)?;
        place.give(dir)
    }

    /// Put an attempt's directory and its place into a bin, whose files can go at leisure.
    pub(super) fn put_away(&self, dir: &AttemptDir) -> io::Result<PathBuf> {
        let _lock = self.lock()?;
        let place = dir.place();
        bin(&self.root, |bin| {
            // The directory first: a place without its owner is known as stale, an attempt without
            // its tree would look as if its agent had deleted everything.
            fs::rename(&dir.0, bin.join("gone"))?;
            place.map_or(Ok(()), |place| fs::rename(&place.0, bin.join("place")))
        })
    }

    /// Bins with the places whose owner is gone: its process died while it put them away.
    pub(super) fn sweep(&self) -> io::Result<Vec<PathBuf>> {
        let _lock = self.lock()?;
        let mut bins = Vec::new();
        for entry in fs::read_dir(self.root.join("places"))?.flatten() {
            if self.is_stale(&Place(entry.path())) {
                bins.push(bin(&self.root, |bin| {
                    fs::rename(entry.path(), bin.join("gone"))
                })?);
            }
        }
        Ok(bins)
    }

    /// Of a place that is there. One that does not say whose it is would be nobody's for ever.
    fn is_stale(&self, place: &Place) -> bool {
        let owner = place.owner();
        owner.is_none_or(|owner| !self.root.join("worktrees").join(owner).exists())
    }

    fn lock(&self) -> io::Result<fs::File> {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("places.lock"))?;
        file.lock()?;
        Ok(file)
    }
}

/// A directory of its own in the trash, so that the same name may come twice.
fn bin(root: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let bin = tempfile::Builder::new()
        .prefix("worktree-")
        .tempdir_in(root.join("trash"))?
        .keep();
    fill(&bin).map(|()| bin)
}
