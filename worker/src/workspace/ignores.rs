//! Which untracked files stay out of a result: the ignore rules of the base commit. Not those in
//! the worktree, which the agent may have edited to hide something.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::{Index, Repository, Tree};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{WorkspaceError, diff_failed};

/// Files that agents write for themselves wherever they work, and nobody reviews.
const NOISE: &[&[u8]] = &[b".claude/settings.local.json"];

/// Which kind of entry a rule is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    File,
}

/// The rules, per directory that has an ignore file.
pub(super) struct Ignores(HashMap<Vec<u8>, Gitignore>);

impl Ignores {
    /// Read every `.gitignore` of the tree.
    pub(super) fn of(repo: &Repository, tree: &Tree<'_>) -> Result<Self, WorkspaceError> {
        let failed = |error: git2::Error| diff_failed(format!("cannot read ignore rules: {error}"));
        let mut index = Index::new().map_err(failed)?;
        index.read_tree(tree).map_err(failed)?;
        let mut rules = HashMap::new();
        for entry in index.iter() {
            let dir = match entry.path.strip_suffix(b".gitignore") {
                Some(b"") => Vec::new(),
                Some(dir) if dir.ends_with(b"/") => dir[..dir.len() - 1].to_vec(),
                _ => continue,
            };
            if entry.mode & 0o170_000 != 0o100_000 {
                continue;
            }
            let blob = repo.find_blob(entry.id).map_err(failed)?;
            rules.insert(dir, parse(blob.content()));
        }
        Ok(Self(rules))
    }

    /// Whether the rules name this path. Its parents are the caller's business: what is below an
    /// ignored directory is ignored.
    pub(super) fn name(&self, path: &[u8], entry: Entry) -> bool {
        if entry == Entry::File && NOISE.contains(&path) {
            return true;
        }
        if self.0.is_empty() {
            return false;
        }
        let mut end = path.len();
        while end > 0 {
            end = path[..end].iter().rposition(|b| *b == b'/').unwrap_or(0);
            let Some(rules) = self.0.get(&path[..end]) else {
                continue;
            };
            let rest = if end == 0 { path } else { &path[end + 1..] };
            match rules.matched(Path::new(OsStr::from_bytes(rest)), entry == Entry::Dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

fn parse(content: &[u8]) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    let text = String::from_utf8_lossy(content);
    for line in text.trim_start_matches('\u{feff}').lines() {
        // git, too, passes over lines that are no patterns.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> Ignores {
        Ignores(
            files
                .iter()
                .map(|(dir, text)| (dir.as_bytes().to_vec(), parse(text.as_bytes())))
                .collect(),
        )
    }

    #[test]
    fn deeper_rules_win_and_later_lines_win() {
        let rules = rules(&[("", "*.log\n/target/\n!keep.log\n"), ("sub", "!*.log\n")]);
        assert!(rules.name(b"a.log", Entry::File));
        assert!(rules.name(b"x/a.log", Entry::File));
        assert!(!rules.name(b"keep.log", Entry::File));
        assert!(!rules.name(b"sub/a.log", Entry::File));
        assert!(!rules.name(b"sub/deep/a.log", Entry::File));
        assert!(rules.name(b"target", Entry::Dir));
        assert!(!rules.name(b"target", Entry::File));
        assert!(!rules.name(b"x/target", Entry::Dir));
    }
}
