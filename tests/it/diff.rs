//! Rows show what a change is, and say when they do not show everything.

use std::fs;
use std::os::unix::fs::symlink;

use dispatch_worker::domain::change::{FileKind, FileOperation};
use dispatch_worker::domain::limits;

use crate::harness::repo::{Ground, rows, write};

#[tokio::test]
async fn a_large_patch_is_cut_and_says_so_while_the_tree_is_whole() {
    let ground = Ground::files(&[("a", "1\n")]);
    let worktree = ground.worktree(1).await;
    let line = "x".repeat(99) + "\n";
    for name in ["one", "two", "three", "four"] {
        write(&worktree.tree.join(name), line.repeat(20_000));
    }
    write(&worktree.tree.join("zlast"), "small\n");
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(snapshot.files.len(), 5);
    let shown: usize = snapshot
        .files
        .iter()
        .filter_map(|file| file.patch.as_ref())
        .inspect(|patch| assert!(patch.len() <= limits::PATCH_FILE_BYTES_MAX))
        .map(String::len)
        .sum();
    assert!(shown <= limits::PATCH_TOTAL_BYTES_MAX);
    assert!(snapshot.files[0].patch_cut);
    assert_eq!(snapshot.files[0].added_lines, Some(20_000));
    let whole = fs::read(worktree.tree.join("one")).unwrap();
    let results = git2::Repository::open_bare(ground.results()).unwrap();
    let row = snapshot
        .files
        .iter()
        .find(|row| row.path == b"one")
        .unwrap();
    let oid = git2::Oid::from_str(row.new_blob.as_deref().unwrap()).unwrap();
    assert_eq!(results.find_blob(oid).unwrap().content(), whole);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_that_moved_is_one_row_per_path() {
    let ground = Ground::files(&[("b", "a line to be found again\nanother\n")]);
    let worktree = ground.worktree(1).await;
    fs::rename(worktree.tree.join("b"), worktree.tree.join("c")).unwrap();
    symlink("c", worktree.tree.join("b")).unwrap();
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(rows(&snapshot), ["edit b", "create c"]);
    assert_eq!(snapshot.files[0].kind, FileKind::Symlink);
    assert_eq!(
        snapshot.files[0].flags,
        ["symlink", "type_changed", "mode_changed"]
    );
}

#[tokio::test]
async fn text_that_postgres_or_utf8_cannot_hold_is_shown_and_kept_exactly() {
    let ground = Ground::files(&[("latin", "caf\n")]);
    let worktree = ground.worktree(1).await;
    write(&worktree.tree.join("latin"), b"caf\xe9\n");
    let mut late_nul = b"text\n".repeat(4000);
    late_nul.extend_from_slice(b"nul \0 here\n");
    write(&worktree.tree.join("late-nul"), &late_nul);
    let snapshot = ground.snapshot(&worktree).await;
    let latin = snapshot
        .files
        .iter()
        .find(|row| row.path == b"latin")
        .unwrap();
    assert_eq!(latin.operation, FileOperation::Edit);
    assert_eq!(latin.flags, ["not_utf8"]);
    assert!(latin.patch.as_deref().unwrap().contains("+caf\u{fffd}\n"));
    for row in &snapshot.files {
        assert!(!row.patch.as_deref().unwrap_or_default().contains('\0'));
    }
}

#[tokio::test]
async fn file_names_and_contents_do_not_read_as_patch_headers() {
    let ground = Ground::files(&[("a", "1\n")]);
    let worktree = ground.worktree(1).await;
    write(
        &worktree.tree.join("-- a b"),
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n",
    );
    let snapshot = ground.snapshot(&worktree).await;
    assert_eq!(rows(&snapshot), ["create -- a b"]);
    assert_eq!(snapshot.files[0].added_lines, Some(3));
}
