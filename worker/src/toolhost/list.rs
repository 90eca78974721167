//! `list`: the tree of names below a directory.

use std::fmt::Write as _;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::definitions::{Concurrency, Required, Tool, number, schema, text};
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::{Place, Roots};
use super::walk::{Depth, Entry, Kind, Patience, walk};
use crate::domain::limits;

const DEPTH: u64 = 2;

pub(super) fn definition() -> Tool {
    Tool {
        name: "list",
        description: "List a directory of the worktree as a tree of names, sorted; directories end \
            in \"/\", links show where they lead. Files that git ignores are left out, unless their \
            directory is the one you name. At most 1,000 entries. Use it to get to know a project; \
            use glob to find files by name.",
        kind: "search",
        concurrency: Concurrency::Shared,
        schema: schema([
            text(
                "path",
                Required::No,
                "Directory to list. Default: the worktree.",
            ),
            number(
                "depth",
                [1, limits::tools::LIST_DEPTH_MAX],
                "Levels to show, 1 to 5. Default: 2.",
            ),
        ]),
    }
}

pub(super) fn run(roots: &Roots, input: &mut Fields, cancel: CancellationToken) -> Told<Outcome> {
    let path = input.maybe_text("path", &["dir", "directory", "file_path"])?;
    let depth = input.maybe_number("depth", &["max_depth"])?;
    let depth = depth
        .unwrap_or(DEPTH)
        .clamp(1, limits::tools::LIST_DEPTH_MAX);
    let place = roots.place_or_top(path.as_deref())?;
    let outcome = tree(&place, depth as usize, &Patience::new(cancel))?;
    Ok(outcome.with("paths", vec![place.shown()]))
}

/// One level, for `read`.
pub(super) fn directory(place: &Place) -> Told<Outcome> {
    tree(place, 1, &Patience::new(CancellationToken::new()))
}

fn tree(place: &Place, depth: usize, patience: &Patience) -> Told<Outcome> {
    let mut walked = walk(place, Depth::Levels(depth), patience, |_, _| true)?;
    let total = walked.entries.len();
    let levels = |entry: &Entry| entry.path.components().count();
    // What is near the top says most: the deepest are left out first.
    walked
        .entries
        .sort_by(|a, b| (levels(a), &a.path).cmp(&(levels(b), &b.path)));
    walked.entries.truncate(limits::tools::LIST_ENTRIES_MAX);
    walked.entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut output = String::new();
    for entry in &walked.entries {
        let below = entry.path.strip_prefix(place.path()).unwrap_or(&entry.path);
        let indent = "  ".repeat(below.components().count().saturating_sub(1));
        let _ = writeln!(output, "{indent}{}", name(place, entry, below));
    }
    let left_out = total - walked.entries.len();
    let truncated = left_out > 0 || !walked.complete;
    if total == 0 {
        let _ = writeln!(
            output,
            "{} is empty, or git ignores all of it",
            place.shown()
        );
    }
    if truncated {
        let more = match walked.complete {
            true => format!("{left_out}"),
            false => format!("more than {left_out}"),
        };
        let _ = writeln!(
            output,
            "\n[{more} entries left out, the deepest first; list a directory of it, or use glob]"
        );
    }
    Ok(Outcome::done(output.trim_end()).with("truncated", truncated))
}

fn name(place: &Place, entry: &Entry, below: &Path) -> String {
    let name = below.file_name().unwrap_or(below.as_os_str());
    let name = name.to_string_lossy();
    match entry.kind {
        Kind::File => name.into_owned(),
        Kind::Directory => format!("{name}/"),
        Kind::Link => match std::fs::read_link(place.root_path().join(&entry.path)) {
            Ok(target) => format!("{name} -> {}", target.to_string_lossy()),
            Err(_) => format!("{name} -> ?"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;

    #[test]
    fn the_tree_is_sorted_and_without_what_git_ignores() {
        let tree = Tree::new();
        std::fs::create_dir(tree.path(".git")).unwrap();
        tree.put(".git/HEAD", "");
        tree.put(".gitignore", "target\n");
        tree.put("target/x", "");
        tree.put("src/b/c.rs", "");
        tree.put("src/a.rs", "");
        std::os::unix::fs::symlink("../outside", tree.path("z")).unwrap();
        let expected = ".gitignore\nsrc/\n  a.rs\n  b/\nz -> ../outside";
        assert_eq!(tree.done("list", json!({})), expected);
        let deep = tree.done("list", json!({ "path": "src", "depth": 5 }));
        assert_eq!(deep, "a.rs\nb/\n  c.rs");
        assert_eq!(tree.done("list", json!({ "path": "target" })), "x");
        let out = tree.failed("list", json!({ "path": "z" }));
        assert!(out.contains("outside the worktree"), "{out}");
        assert!(
            tree.failed("list", json!({ "path": ".git" }))
                .contains("belongs to git")
        );
    }

    #[test]
    fn a_large_tree_is_cut_from_below() {
        let tree = Tree::new();
        for n in 0..1_010 {
            tree.put(&format!("deep/{n:04}"), "");
        }
        tree.put("z", "");
        let listed = tree.call("list", json!({}));
        assert!(listed.output.contains("\nz\n"), "the top is whole");
        assert!(
            listed.output.contains("[12 entries left out"),
            "{}",
            &listed.output[9_000..]
        );
        assert_eq!(listed.detail["truncated"], true);
    }
}
