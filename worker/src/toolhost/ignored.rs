//! What a worktree's `.gitignore` files leave out. They are read here, because a repository can make
//! one a link to a device, a FIFO or a file without an end, and whoever opens it by its name hangs.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use nix::fcntl::OFlag;

use super::place::Place;
use crate::domain::limits;

/// The rules for the directory that a walk is in, and for those above it up to the root.
#[derive(Debug)]
pub(super) struct Ignored {
    place: Place,
    levels: Vec<Level>,
}

/// A directory.
#[derive(Debug)]
struct Level {
    /// Below the root.
    dir: PathBuf,
    rules: Option<Gitignore>,
    /// Rules above a repository are not its own.
    is_repository: bool,
}

impl Ignored {
    /// The rules below this place's root.
    pub(super) fn below(place: &Place) -> Self {
        Self {
            place: place.clone(),
            levels: Vec::new(),
        }
    }

    /// Whether the rules leave out what is at this absolute path. A directory that is left out is
    /// not walked, so that nothing is asked of what is in it.
    pub(super) fn has(&mut self, path: &Path, is_dir: bool) -> bool {
        let below = path.strip_prefix(self.place.root_path()).ok();
        let Some(dir) = below.and_then(Path::parent).map(Path::to_owned) else {
            return false;
        };
        self.enter(&dir);
        // The nearest file that says something holds, and in it the last line.
        for level in self.levels.iter().rev() {
            let rules = level.rules.as_ref();
            match rules.map_or(Match::None, |rules| rules.matched(path, is_dir)) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None if level.is_repository => return false,
                Match::None => {}
            }
        }
        false
    }

    /// A walk goes down and up again: only what is above the place that it is at is held.
    fn enter(&mut self, dir: &Path) {
        while self
            .levels
            .pop_if(|level| !dir.starts_with(&level.dir))
            .is_some()
        {}
        let mut above: Vec<&Path> = dir.ancestors().collect();
        above.reverse();
        for dir in above.into_iter().skip(self.levels.len()) {
            let full = self.place.root_path().join(dir);
            self.levels.push(Level {
                dir: dir.to_owned(),
                rules: self.rules(dir, &full),
                is_repository: full.join(".git").symlink_metadata().is_ok(),
            });
        }
    }

    /// What git reads too: a regular file, never what a link leads to.
    fn rules(&self, dir: &Path, full: &Path) -> Option<Gitignore> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        let file = self.place.open_at(&dir.join(".gitignore"), flags).ok()?;
        let most = limits::tools::IGNORE_FILE_BYTES_MAX;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > most {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let mut builder = GitignoreBuilder::new(full);
        for line in text.trim_start_matches('\u{feff}').lines() {
            // A line that is no pattern leaves nothing out.
            let _unreadable = builder.add_line(None, line);
        }
        builder.build().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use serde_json::json;

    use super::super::testing::Tree;
    use super::*;

    fn files(tree: &Tree, path: &str) -> Vec<String> {
        let found = tree.done("glob", json!({"pattern": "**/*.rs", "path": path}));
        let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    #[test]
    fn rules_that_are_no_small_regular_file_are_none_and_hold_nothing_up() {
        let tree = Tree::new();
        for dir in ["zero", "stdin", "fifo", "huge", "elsewhere", "directory"] {
            tree.put(&format!("{dir}/a.rs"), "");
        }
        symlink("/dev/zero", tree.path("zero/.gitignore")).unwrap();
        symlink("/proc/self/fd/0", tree.path("stdin/.gitignore")).unwrap();
        mkfifo(&tree.path("fifo/.gitignore"), Mode::S_IRWXU).unwrap();
        let huge = "*.rs\n".repeat(300_000);
        assert!(huge.len() as u64 > limits::tools::IGNORE_FILE_BYTES_MAX);
        tree.put("huge/.gitignore", huge);
        tree.put("rules", "*.rs\n");
        symlink("../rules", tree.path("elsewhere/.gitignore")).unwrap();
        std::fs::create_dir(tree.path("directory/.gitignore")).unwrap();
        assert_eq!(
            files(&tree, ""),
            [
                "directory/a.rs",
                "elsewhere/a.rs",
                "fifo/a.rs",
                "huge/a.rs",
                "stdin/a.rs",
                "zero/a.rs"
            ]
        );
    }

    #[test]
    fn nearer_rules_and_later_lines_hold_as_git_has_it() {
        let tree = Tree::new();
        std::fs::create_dir(tree.path(".git")).unwrap();
        tree.put(
            ".gitignore",
            "\u{feff}a.rs\n/top.rs\nout/\n[\n!keep.rs\nlast.rs\n!last.rs\nsub/deep/x.rs\n",
        );
        tree.put("sub/.gitignore", "!a.rs\nkeep.rs\n/b.rs\n");
        for path in [
            "a.rs",
            "keep.rs",
            "last.rs",
            "top.rs",
            "out/in.rs",
            "sub/a.rs",
            "sub/b.rs",
            "sub/deep/a.rs",
            "sub/deep/b.rs",
            "sub/deep/x.rs",
            "sub/keep.rs",
            "sub/out",
            "sub/top.rs",
            "sister/a.rs",
            "sister/b.rs",
        ] {
            tree.put(path, "");
        }
        let below = ["sub/a.rs", "sub/deep/a.rs", "sub/deep/b.rs", "sub/top.rs"];
        let all = [&["keep.rs", "last.rs", "sister/b.rs"], below.as_slice()].concat();
        assert_eq!(files(&tree, ""), all);
        assert_eq!(files(&tree, "sub"), below, "rules above it hold too");
        assert_eq!(files(&tree, "out"), ["out/in.rs"], "it is named");
    }

    #[test]
    fn rules_above_a_repository_are_not_its_own() {
        let tree = Tree::new();
        tree.put(".gitignore", "*.rs\n");
        tree.put("a.rs", "");
        tree.put("nested/b.rs", "");
        std::fs::create_dir(tree.path("nested/.git")).unwrap();
        assert_eq!(files(&tree, ""), ["nested/b.rs"]);
    }
}
