//! What is in a worktree, as git sees it: ignored files are left out, links are not followed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ignore::{DirEntry, WalkBuilder};
use tokio_util::sync::CancellationToken;

use super::ignored::Ignored;
use super::outcome::Told;
use super::place::{Found, Place, is_git};
use crate::domain::limits;
use crate::domain::staged_name::is_staged_name;

/// When a search has to stop.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    cancel: CancellationToken,
    until: Instant,
}

impl Patience {
    pub(super) fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            until: Instant::now() + limits::tools::SEARCH_TIMEOUT,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.until
    }
}

/// Something that a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below the root of the place.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
}

/// All that a walk found, in no order.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) entries: Vec<Entry>,
    /// It is all there is.
    pub(super) complete: bool,
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Depth {
    Levels(usize),
    Whole,
}

/// Find what is below a directory, or the file itself. A directory that is named is looked into
/// also when it is ignored.
pub(super) fn walk(
    place: &Place,
    depth: Depth,
    patience: &Patience,
    wanted: impl Fn(&Path, Kind) -> bool,
) -> Told<Walked> {
    let top = match place.look()? {
        Found::Directory(real) => real,
        Found::File(..) => {
            let path = place.path().to_owned();
            let kind = Kind::File;
            return Ok(Walked {
                entries: vec![Entry { path, kind }],
                complete: true,
            });
        }
    };
    let mut walked = Walked {
        entries: Vec::new(),
        complete: true,
    };
    for found in builder(place, &top, depth).build() {
        if patience.is_over() || walked.entries.len() >= limits::tools::WALK_ENTRIES_MAX {
            walked.complete = false;
            break;
        }
        // What cannot be read, or is gone meanwhile, is as good as not there.
        let Ok(found) = found else {
            continue;
        };
        let Some(kind) = kind(&found).filter(|_| found.depth() > 0) else {
            continue;
        };
        let Ok(below) = found.path().strip_prefix(&top) else {
            continue;
        };
        if wanted(below, kind) {
            let path = place.path().join(below);
            walked.entries.push(Entry { path, kind });
        }
    }
    Ok(walked)
}

fn builder(place: &Place, top: &Path, depth: Depth) -> WalkBuilder {
    let ignored = Mutex::new(Ignored::below(place));
    let mut builder = WalkBuilder::new(top);
    builder
        // It opens files with rules by name, links and all; see `ignored`.
        .standard_filters(false)
        .follow_links(false)
        .max_depth(match depth {
            Depth::Levels(levels) => Some(levels),
            Depth::Whole => None,
        })
        .filter_entry(move |entry| {
            if entry.depth() == 0 {
                return true;
            }
            let name = Path::new(entry.file_name());
            let hidden = name.components().any(is_git)
                || is_staged_name(entry.file_name().as_encoded_bytes());
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            let mut ignored = ignored.lock().unwrap_or_else(PoisonError::into_inner);
            !hidden && !ignored.has(entry.path(), is_dir)
        });
    builder
}

/// `None`: a FIFO, a socket or a device, which no tool shows.
fn kind(entry: &DirEntry) -> Option<Kind> {
    let kind = entry.file_type()?;
    if kind.is_dir() {
        return Some(Kind::Directory);
    }
    if kind.is_symlink() {
        return Some(Kind::Link);
    }
    kind.is_file().then_some(Kind::File)
}
