//! A worktree for checks of tools, with something beside it that no tool may touch.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

/// What no tool may show.
pub(super) const SECRET: &str = "what-is-beside-the-worktree";

pub(super) struct Stage(TempDir);

impl Stage {
    /// With these texts in `a.txt` and `d/b.txt`.
    pub(super) fn new(a: &[u8], b: &[u8]) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let tree = dir.path().join("tree");
        for made in ["tree/d", "tree/.git", "outside"] {
            fs::create_dir_all(dir.path().join(made))?;
        }
        fs::write(tree.join("a.txt"), a)?;
        fs::write(tree.join("d/b.txt"), b)?;
        fs::write(tree.join(".git/config"), "[core]\n")?;
        fs::write(dir.path().join("outside/x"), SECRET)?;
        symlink("a.txt", tree.join("in"))?;
        symlink("../outside", tree.join("out"))?;
        symlink("../outside/x", tree.join("x"))?;
        Ok(Self(dir))
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    /// Every file and link, by its path.
    pub(super) fn files(&self) -> io::Result<Files> {
        let mut files = Files::default();
        let mut open = vec![self.0.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let path = entry.path();
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    open.push(path);
                    continue;
                }
                let content = match kind.is_symlink() {
                    true => fs::read_link(&path)?.into_os_string().into_encoded_bytes(),
                    false => fs::read(&path)?,
                };
                let shown = path.strip_prefix(self.0.path()).unwrap_or(&path);
                files.0.insert(shown.to_owned(), content);
            }
        }
        Ok(files)
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Files(BTreeMap<PathBuf, Vec<u8>>);

impl Files {
    /// Those that no tool may change.
    fn untouchable(&self) -> Vec<(&Path, &[u8])> {
        let all = self.0.iter().map(|(p, c)| (p.as_path(), c.as_slice()));
        let safe = |path: &Path| path.starts_with("tree") && !path.starts_with("tree/.git");
        all.filter(|(path, _)| !safe(path)).collect()
    }

    /// What holds after every call, whatever came of it.
    pub(super) fn are_in_order_after(&self, before: &Self) {
        assert_eq!(self.untouchable(), before.untouchable(), "outside changed");
        for path in self.0.keys() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let left = name.starts_with(".dispatch-") && !before.0.contains_key(path);
            // A name of the input's own may begin so too, and is shorter.
            assert!(!left || name.len() != 46, "{path:?} was left behind");
        }
    }
}
