//! The paths that a model gives: below the worktree, or below the attempt's temporary directory.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::beneath;
use super::outcome::Told;
use crate::domain::limits;

/// The directories that the tools serve.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    worktree: Arc<Root>,
    tmp: Option<Arc<Root>>,
}

/// One of them, held open: it stays the same when it is renamed.
#[derive(Debug)]
struct Root {
    dir: File,
    /// Without links.
    path: PathBuf,
    /// What a model may call it.
    names: Vec<PathBuf>,
    which: Which,
    /// The worktree, whose `.git` is not for the tools whichever way it is reached.
    guarded: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Worktree,
    Tmp,
}

/// A path below one of them. Whether it stays there is known only when it is opened.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: Arc<Root>,
    /// Without `.` and `..`; empty: the root itself.
    path: PathBuf,
}

impl Roots {
    /// Open them. `tmp` absent, or gone: the attempt has none.
    pub(super) fn open(worktree: &Path, tmp: Option<&Path>) -> io::Result<Self> {
        let guarded = worktree.canonicalize()?;
        Ok(Self {
            worktree: Root::open(worktree, Which::Worktree, &guarded)?,
            tmp: tmp.and_then(|tmp| Root::open(tmp, Which::Tmp, &guarded).ok()),
        })
    }

    pub(super) fn worktree(&self) -> &Path {
        &self.worktree.path
    }

    pub(super) fn tmp(&self) -> Option<&Path> {
        self.tmp.as_ref().map(|root| root.path.as_path())
    }

    /// The place that a model means; absent or empty: the worktree.
    pub(super) fn place_or_top(&self, text: Option<&str>) -> Told<Place> {
        self.place(text.filter(|text| !text.is_empty()).unwrap_or("."))
    }

    /// The place that a model means.
    pub(super) fn place(&self, text: &str) -> Told<Place> {
        if text.is_empty() {
            return Err("the path is empty".to_owned());
        }
        if text.contains('\0') {
            return Err("a path cannot hold a NUL character".to_owned());
        }
        let path = Path::new(text);
        // No shell reads it, so that it would make a directory of this name.
        if path.starts_with("~") {
            return Err(outside(text));
        }
        let (root, below) = match path.is_absolute() {
            false => (&self.worktree, plain(path).ok_or_else(|| outside(text))?),
            true => self.absolute(path).ok_or_else(|| outside(text))?,
        };
        if root.which == Which::Worktree && below.components().any(is_git) {
            return Err(git(text));
        }
        Ok(Place {
            root: Arc::clone(root),
            path: below,
        })
    }

    fn absolute(&self, path: &Path) -> Option<(&Arc<Root>, PathBuf)> {
        let path = Path::new("/").join(plain(path.strip_prefix("/").ok()?)?);
        let roots = std::iter::once(&self.worktree).chain(&self.tmp);
        roots
            .flat_map(|root| root.names.iter().map(move |name| (root, name)))
            .find_map(|(root, name)| Some((root, path.strip_prefix(name).ok()?.to_owned())))
    }
}

impl Root {
    fn open(path: &Path, which: Which, guarded: &Path) -> io::Result<Arc<Self>> {
        let real = path.canonicalize()?;
        Ok(Arc::new(Self {
            dir: File::open(&real)?,
            names: vec![real.clone(), path.to_owned()],
            path: real,
            which,
            guarded: guarded.to_owned(),
        }))
    }
}

impl Place {
    /// For people and models.
    pub(super) fn shown(&self) -> String {
        let path = match self.root.which {
            Which::Worktree if self.path.as_os_str().is_empty() => Path::new(".").to_owned(),
            Which::Worktree => self.path.clone(),
            Which::Tmp => self.root.path.join(&self.path),
        };
        path.to_string_lossy().into_owned()
    }

    /// Below the root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The root itself, without links.
    pub(super) fn root_path(&self) -> &Path {
        &self.root.path
    }

    /// Another place below the same root, by a path that a walk found.
    pub(super) fn sibling(&self, path: &Path) -> Self {
        Self {
            root: Arc::clone(&self.root),
            path: path.to_owned(),
        }
    }

    /// Open it, whatever it is.
    pub(super) fn open(&self, flags: OFlag) -> io::Result<File> {
        self.open_at(&self.path, flags)
    }

    /// Open another path below the same root.
    pub(super) fn open_at(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        beneath::open(&self.root.dir, path, flags)
    }

    /// A regular file of a size that fits, or a directory.
    pub(super) fn look(&self) -> Told<Found> {
        let open = self.open(OFlag::O_RDONLY);
        let file = open.map_err(|error| self.explain(&error))?;
        let metadata = file.metadata().map_err(|error| self.explain(&error))?;
        let real = self.unguarded(&file)?;
        if metadata.is_dir() {
            return Ok(Found::Directory(real));
        }
        match metadata.is_file() {
            true => Ok(Found::File(file, metadata)),
            false => Err(format!("{} is not a regular file", self.shown())),
        }
    }

    /// A regular file that is small enough for a tool that holds the whole of it.
    pub(super) fn look_at_file(&self) -> Told<File> {
        let shown = self.shown();
        match self.look()? {
            Found::Directory(_) => Err(format!("{shown} is a directory")),
            Found::File(_, metadata) if metadata.len() > limits::tools::FILE_BYTES_MAX => {
                Err(too_large(&shown, metadata.len()))
            }
            Found::File(file, _) => Ok(file),
        }
    }

    /// Where an open file really is, unless that is git's own directory.
    pub(super) fn unguarded(&self, file: &File) -> Told<PathBuf> {
        let real = beneath::real_path(file).map_err(|error| self.explain(&error))?;
        let inside = real.strip_prefix(&self.root.guarded);
        match inside.is_ok_and(|inside| inside.components().any(is_git)) {
            true => Err(git(&self.shown())),
            false => Ok(real),
        }
    }

    /// What the system's refusal means.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let shown = self.shown();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EXDEV) => format!(
                "{shown} is outside the worktree: a symbolic link leads there, or has an absolute \
                 target; use the shell tool to look there"
            ),
            Some(Errno::ENOENT) => format!("there is no {shown}"),
            Some(Errno::ENOTDIR) => {
                format!("a part of the path {shown} is a file, not a directory")
            }
            Some(Errno::ELOOP) => {
                format!("{shown} has a symbolic link in it that cannot be followed")
            }
            Some(Errno::ENXIO) => format!("{shown} is not a regular file"),
            Some(Errno::ENOSYS) => {
                format!("{shown}: this kernel cannot confine paths; use the shell tool instead")
            }
            Some(_) | None => format!("{shown}: {error}"),
        }
    }
}

/// What is at a place.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File(File, Metadata),
    /// A directory, with its path without links.
    Directory(PathBuf),
}

pub(super) fn too_large(shown: &str, bytes: u64) -> String {
    format!(
        "{shown} has {bytes} bytes; this tool takes files up to {} MiB. Use the shell tool \
         (head, sed -n, grep) for parts of it",
        limits::tools::FILE_BYTES_MAX >> 20
    )
}

fn outside(text: &str) -> String {
    format!("{text} is outside the worktree; use the shell tool to look there")
}

fn git(text: &str) -> String {
    format!("{text} belongs to git; use git commands in the shell tool instead")
}

/// Any spelling: some file systems do not tell them apart.
pub(super) fn is_git(part: Component<'_>) -> bool {
    part.as_os_str().eq_ignore_ascii_case(".git")
}

/// Without `.` and `..`; `None`: it leads out.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir if plain.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(roots: &Roots, text: &str) -> String {
        roots.place(text).map_or_else(|told| told, |p| p.shown())
    }

    #[test]
    fn only_paths_below_the_roots_are_places() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, tmp) = (dir.path().join("tree"), dir.path().join("tmp"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::create_dir(&tmp).unwrap();
        let roots = Roots::open(&tree, Some(&tmp)).unwrap();
        assert_eq!(shown(&roots, "./a//b/../c"), "a/c");
        assert_eq!(shown(&roots, "."), ".");
        assert_eq!(shown(&roots, &format!("{}/a/b", tree.display())), "a/b");
        let spill = roots.tmp().unwrap().join("x").display().to_string();
        assert_eq!(shown(&roots, &spill), spill);
        let detour = format!("{}/../tree/a", tree.display());
        assert_eq!(shown(&roots, &detour), "a");
        let beside = format!("{}-other/a", tree.display());
        for out in ["/etc/passwd", "../x", "a/../../x", "~/x", "/", &beside] {
            assert!(shown(&roots, out).contains("outside the worktree"), "{out}");
        }
        for git in [".git", ".GIT/config", "a/.git/HEAD", "./x/../.Git"] {
            assert!(shown(&roots, git).contains("belongs to git"), "{git}");
        }
        assert_eq!(shown(&roots, ".gitignore"), ".gitignore");
        assert!(shown(&roots, "").contains("empty"));
        assert!(shown(&roots, "a\0b").contains("NUL"));
        let gone = Roots::open(&tree, Some(&dir.path().join("gone"))).unwrap();
        assert!(gone.tmp().is_none());
    }
}
