//! `write`: a whole file.

use super::definitions::{Concurrency, Required, Tool, schema, text};
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::Roots;
use super::staged::{Rights, Staged, is_free};
use super::text::{changed_lines, counted, exact};

pub(super) fn definition() -> Tool {
    Tool {
        name: "write",
        description: "Write a whole text file, replacing what is there; directories above it are \
            made. The content must be complete, never an excerpt. To change a part of a file use \
            edit or apply_patch. At most 16 MiB.",
        kind: "edit",
        concurrency: Concurrency::Alone,
        schema: schema([
            text(
                "path",
                Required::Yes,
                "File to write, relative to the worktree or absolute below it.",
            ),
            text("content", Required::Yes, "The whole new content."),
        ]),
    }
}

pub(super) fn run(roots: &Roots, input: &mut Fields) -> Told<Outcome> {
    let path = input.text("path", &["file_path", "filePath", "file", "filename"])?;
    let content = input.text("content", &["contents", "text", "file_text"])?;
    let place = roots.place(&path)?;
    let what = match is_free(&place)? {
        true => "created",
        false => "overwritten",
    };
    // Only counted: what is no text, or too large, has no lines.
    let before = exact(&place).map(|(text, _)| text).unwrap_or_default();
    Staged::write(&place, content.as_bytes(), Rights::Kept)?.commit()?;
    let (added, removed) = changed_lines(&before, &content);
    let lines = counted(content.lines().count(), "line");
    let told = format!("{what} {}: {lines}, {} bytes", place.shown(), content.len());
    Ok(Outcome::done(told)
        .with("paths", vec![place.shown()])
        .with("added", added)
        .with("removed", removed))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_made_with_its_directories_and_overwritten_with_its_mode_kept() {
        let tree = Tree::new();
        let made = tree.call("write", json!({ "path": "a/b/c.sh", "content": "1\n2\n" }));
        assert_eq!(made.output, "created a/b/c.sh: 2 lines, 4 bytes");
        assert_eq!(made.detail["added"], 2);
        let mode = std::fs::Permissions::from_mode(0o750);
        std::fs::set_permissions(tree.path("a/b/c.sh"), mode).unwrap();
        let again = tree.done("write", json!({ "filePath": "a/b/c.sh", "content": "1" }));
        assert_eq!(again, "overwritten a/b/c.sh: 1 line, 1 bytes");
        assert_eq!(tree.text("a/b/c.sh"), "1");
        let mode = tree
            .path("a/b/c.sh")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(tree.names("a/b"), ["c.sh"]);
    }

    #[test]
    fn links_are_written_through_when_they_stay_and_refused_when_they_leave() {
        use std::os::unix::fs::symlink;
        let tree = Tree::new();
        tree.put("real", "old");
        symlink("real", tree.path("link")).unwrap();
        tree.done("write", json!({ "path": "link", "content": "new" }));
        assert_eq!(tree.text("real"), "new");
        assert!(tree.path("link").is_symlink());
        tree.put_outside("secret", "kept");
        symlink("../outside/secret", tree.path("out")).unwrap();
        symlink("../outside", tree.path("outdir")).unwrap();
        symlink("nothing", tree.path("dangling")).unwrap();
        for path in ["out", "outdir/secret", "outdir/new", "outdir/a/b"] {
            let told = tree.failed("write", json!({ "path": path, "content": "x" }));
            assert!(told.contains("outside the worktree"), "{path}: {told}");
        }
        let told = tree.failed("write", json!({ "path": "dangling", "content": "x" }));
        assert!(told.contains("leads to nothing"), "{told}");
        assert_eq!(tree.outside("secret"), "kept");
        assert!(!tree.path("nothing").exists());
    }

    #[test]
    fn what_is_gits_or_no_file_is_left_alone() {
        use std::os::unix::fs::symlink;
        let tree = Tree::new();
        tree.put(".git/config", "kept");
        symlink(".git", tree.path("g")).unwrap();
        symlink(".git/config", tree.path("c")).unwrap();
        for path in [".git/config", ".GIT/hooks/x", "g/config", "g/new/x", "c"] {
            let told = tree.failed("write", json!({ "path": path, "content": "x" }));
            assert!(told.contains("belongs to git"), "{path}: {told}");
        }
        assert!(
            tree.failed("read", json!({ "path": "c" }))
                .contains("belongs to git")
        );
        assert_eq!(tree.text(".git/config"), "kept");
        assert_eq!(tree.names(".git"), ["config"]);
        tree.put("dir/x", "");
        nix::unistd::mkfifo(&tree.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in ["dir", "pipe", "."] {
            let told = tree.failed("write", json!({ "path": path, "content": "x" }));
            assert!(told.contains("not a regular file"), "{path}: {told}");
        }
        assert!(
            tree.failed("write", json!({ "path": "x" }))
                .contains("`content` is missing")
        );
    }
}
