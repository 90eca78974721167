//! `glob`: files by their names.

use std::path::Path;
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use tokio_util::sync::CancellationToken;

use super::definitions::{Concurrency, Required, Tool, schema, text};
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::{Place, Roots};
use super::walk::{Depth, Kind, Patience, walk};
use crate::domain::limits;

pub(super) fn definition() -> Tool {
    Tool {
        name: "glob",
        description: "Find files of the worktree by name, the newest first. \"*\" does not cross \
            \"/\", \"**/\" does; a pattern without \"/\" is looked for in every directory. Files \
            that git ignores are left out. At most 500 files. Examples: \"*.rs\", \
            \"src/**/*.{ts,tsx}\". Use grep to find files by what is in them.",
        kind: "search",
        concurrency: Concurrency::Shared,
        schema: schema([
            text("pattern", Required::Yes, "Glob, relative to the path."),
            text(
                "path",
                Required::No,
                "Directory to look in. Default: the worktree.",
            ),
        ]),
    }
}

/// A glob as a model means it.
#[derive(Debug)]
pub(super) struct Pattern(GlobMatcher);

impl Pattern {
    pub(super) fn new(roots: &Roots, text: &str) -> Told<Self> {
        let top = roots.worktree().to_string_lossy();
        let below = text.strip_prefix(top.as_ref()).unwrap_or(text);
        let below = below.trim_start_matches("./").trim_start_matches('/');
        let pattern = match below.contains('/') {
            true => below.to_owned(),
            false => format!("**/{below}"),
        };
        let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("the glob {text:?} is not valid: {error}"))?;
        Ok(Self(glob.compile_matcher()))
    }

    /// Relative to the directory that is searched, or to the worktree: models mix them up.
    pub(super) fn matches(&self, place: &Place, below: &Path) -> bool {
        self.0.is_match(below) || self.0.is_match(place.path().join(below))
    }
}

pub(super) fn run(roots: &Roots, input: &mut Fields, cancel: CancellationToken) -> Told<Outcome> {
    let pattern = input.text("pattern", &["glob", "glob_pattern"])?;
    let path = input.maybe_text("path", &["dir", "directory"])?;
    let glob = Pattern::new(roots, &pattern)?;
    let place = roots.place_or_top(path.as_deref())?;
    let patience = Patience::new(cancel);
    let walked = walk(&place, Depth::Whole, &patience, |below, kind| {
        kind != Kind::Directory && glob.matches(&place, below)
    })?;
    let total = walked.entries.len();
    let mut found: Vec<_> = walked
        .entries
        .into_iter()
        .map(|entry| (changed(&place, &entry.path), entry.path))
        .collect();
    found.sort_by(|(a_time, a), (b_time, b)| b_time.cmp(a_time).then_with(|| a.cmp(b)));
    found.truncate(limits::tools::FILES_MAX);
    let names = found.iter().map(|(_, path)| place.sibling(path).shown());
    let mut output = names.collect::<Vec<_>>().join("\n");
    let truncated = total > found.len() || !walked.complete;
    if total == 0 {
        output = format!("no file matches {pattern} in {}", place.shown());
    }
    if truncated {
        let of = match walked.complete {
            true => format!("{total} files"),
            false => format!("at least {total} files, not all were looked at"),
        };
        output.push_str(&format!(
            "\n\n[{} of {of}; use a narrower pattern or path]",
            found.len()
        ));
    }
    Ok(Outcome::done(output)
        .with("paths", vec![place.shown()])
        .with("matches", total)
        .with("truncated", truncated))
}

fn changed(place: &Place, path: &Path) -> SystemTime {
    let metadata = place.root_path().join(path).symlink_metadata();
    let changed = metadata.and_then(|metadata| metadata.modified());
    // Gone meanwhile.
    changed.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;
    use std::time::{Duration, SystemTime};

    #[test]
    fn files_match_as_models_expect_and_the_newest_come_first() {
        let tree = Tree::new();
        std::fs::create_dir(tree.path(".git")).unwrap();
        tree.put(".gitignore", "target/\n");
        for (age, path) in ["a.rs", "src/b.rs", "src/c/d.rs", "target/e.rs", "src/f.txt"]
            .into_iter()
            .enumerate()
        {
            tree.put(path, "");
            let time = SystemTime::now() - Duration::from_secs(100 - age as u64);
            let file = std::fs::File::open(tree.path(path)).unwrap();
            file.set_modified(time).unwrap();
        }
        let glob = |pattern: &str, path: &str| {
            tree.done("glob", json!({ "pattern": pattern, "path": path }))
        };
        assert_eq!(glob("*.rs", ""), "src/c/d.rs\nsrc/b.rs\na.rs");
        assert_eq!(glob("src/*.rs", ""), "src/b.rs");
        assert_eq!(glob("**/d.rs", ""), "src/c/d.rs");
        assert_eq!(
            glob("src/**/*.{rs,txt}", ""),
            "src/f.txt\nsrc/c/d.rs\nsrc/b.rs"
        );
        assert_eq!(glob("src/*.rs", "src"), "src/b.rs");
        assert_eq!(glob("c/*", "src"), "src/c/d.rs");
        let absolute = format!("{}/src/*.rs", tree.path("").display());
        assert_eq!(glob(&absolute.replace("//", "/"), ""), "src/b.rs");
        assert_eq!(glob("*.go", ""), "no file matches *.go in .");
        let invalid = tree.failed("glob", json!({ "pattern": "[" }));
        assert!(invalid.contains("not valid"), "{invalid}");
    }

    #[test]
    fn what_a_killed_write_left_is_not_found() {
        let tree = Tree::new();
        let left = crate::domain::staged_name::staged_name(uuid::Uuid::from_u128(1));
        tree.put(&left, "");
        tree.put(".dispatch-notes", "");
        assert_eq!(
            tree.done("glob", json!({ "pattern": "*" })),
            ".dispatch-notes"
        );
    }

    #[test]
    fn a_wide_pattern_is_cut_and_says_so() {
        let tree = Tree::new();
        for n in 0..505 {
            tree.put(&format!("{n}"), "");
        }
        let found = tree.call("glob", json!({ "pattern": "*" }));
        assert!(
            found
                .output
                .ends_with("[500 of 505 files; use a narrower pattern or path]")
        );
        assert_eq!(found.detail["truncated"], true);
    }
}
