//! `edit`: one exact text of a file replaced by another.

use super::definitions::{Concurrency, Required, Tool, schema, switch, text};
use super::fields::Fields;
use super::nearest::hint;
use super::outcome::{Outcome, Told};
use super::place::{Place, Roots};
use super::replace::{Found, Haystack, line_at};
use super::staged::{Rights, Staged, is_free};
use super::text::{changed_lines, counted, exact, numbered};

/// Line numbers of an ambiguous text that are told.
const LINES_TOLD: usize = 20;

/// Lines of a file shown around a change …
const AROUND: usize = 3;

/// … and in all.
const SHOWN_MAX: usize = 30;

pub(super) fn definition() -> Tool {
    Tool {
        name: "edit",
        description: "Replace an exact piece of text in a file. old_string must match the file \
            character for character, indentation included and without the line numbers that read \
            shows, and must occur once: give enough lines around the change, or set replace_all. \
            The file keeps its line ends. An empty old_string makes a new file of new_string. For \
            changes in several places or files use apply_patch. UTF-8 files up to 16 MiB.",
        kind: "edit",
        concurrency: Concurrency::Alone,
        schema: schema([
            text(
                "path",
                Required::Yes,
                "File to change, relative to the worktree or absolute below it.",
            ),
            text("old_string", Required::Yes, "The text that is there now."),
            text(
                "new_string",
                Required::Yes,
                "The text that takes its place; empty removes it.",
            ),
            switch(
                "replace_all",
                "Replace every occurrence, not exactly one. Default: false.",
            ),
        ]),
    }
}

/// How often the text may stand in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Often {
    Once,
    All,
}

pub(super) fn run(roots: &Roots, input: &mut Fields) -> Told<Outcome> {
    let path = input.text("path", &["file_path", "filePath", "file", "filename"])?;
    let old = input.text(
        "old_string",
        &["oldString", "old_str", "old_text", "oldText"],
    )?;
    let new = input.text(
        "new_string",
        &["newString", "new_str", "new_text", "newText"],
    )?;
    let often = match input.switch("replace_all", &["replaceAll"])? {
        true => Often::All,
        false => Often::Once,
    };
    let place = roots.place(&path)?;
    if old == new {
        return Err("old_string and new_string are the same: nothing would change".to_owned());
    }
    if old.is_empty() {
        return create(&place, &new);
    }
    let (text, _) = exact(&place)?;
    let haystack = Haystack::new(&text);
    let found = haystack.find(&old);
    check(&place, &text, &haystack, &found, &old, often)?;
    let after = haystack.replaced(&found, &new);
    if after == text {
        return Err("nothing would change: the texts differ only in their line ends".to_owned());
    }
    Staged::write(&place, after.as_bytes(), Rights::Kept)?.commit()?;
    Ok(told(&place, &text, &after, &found))
}

fn create(place: &Place, new: &str) -> Told<Outcome> {
    let shown = place.shown();
    if !is_free(place)? && !exact(place)?.0.is_empty() {
        return Err(format!(
            "old_string is empty, which makes a new file, but {shown} has content: give the text \
             to replace, or use write to replace all of it"
        ));
    }
    Staged::write(place, new.as_bytes(), Rights::Kept)?.commit()?;
    let lines = new.lines().count();
    Ok(
        Outcome::done(format!("created {shown}: {}", counted(lines, "line")))
            .with("paths", vec![shown])
            .with("added", lines)
            .with("removed", 0),
    )
}

fn check(
    place: &Place,
    text: &str,
    haystack: &Haystack<'_>,
    found: &Found,
    old: &str,
    often: Often,
) -> Told<()> {
    let shown = place.shown();
    let count = found.places.len();
    if count == 0 {
        let old = old.replace("\r\n", "\n");
        let hint = hint(haystack.plain(), &old);
        return Err(format!("old_string is not in {shown}. {hint}"));
    }
    if count == 1 || often == Often::All {
        return Ok(());
    }
    let lines = found.places.iter().take(LINES_TOLD);
    let lines: Vec<_> = lines
        .map(|at| line_at(text, at.start).to_string())
        .collect();
    let more = if count > LINES_TOLD { ", …" } else { "" };
    Err(format!(
        "old_string is {count} times in {shown}, at the lines {}{more}: add lines around it so that \
         it is there once, or set replace_all",
        lines.join(", ")
    ))
}

fn told(place: &Place, before: &str, after: &str, found: &Found) -> Outcome {
    let shown = place.shown();
    let first = found.places.first().map_or(0, |at| at.start);
    let (added, removed) = changed_lines(before, after);
    // The text before the first place is the same in both.
    let line = line_at(after, first);
    let from = line.saturating_sub(AROUND).max(1);
    // What follows the last place is the same too.
    let rest = found.places.last().map_or(0, |at| before.len() - at.end);
    let last = line_at(after, after.len() - rest) + AROUND;
    let count = (last + 1 - from).min(SHOWN_MAX);
    let lines = after.lines().skip(from - 1).take(count);
    let times = match found.places.len() {
        1 => String::new(),
        times => format!(" in {times} places"),
    };
    let snippet = numbered(lines, from);
    Outcome::done(format!("changed {shown}{times}:\n{snippet}"))
        .with("paths", vec![shown])
        .with("added", added)
        .with("removed", removed)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;

    #[test]
    fn one_text_is_replaced_and_its_surroundings_are_shown() {
        let tree = Tree::new();
        tree.put("a", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        let edit = json!({ "path": "a", "oldString": "5\n", "newString": "five\nfive\n" });
        let edited = tree.call("edit", edit);
        assert_eq!(tree.text("a"), "1\n2\n3\n4\nfive\nfive\n6\n7\n8\n9\n");
        let expected = "changed a:\n     2\t2\n     3\t3\n     4\t4\n     5\tfive\n     6\tfive\n     7\t6\n     8\t7\n     9\t8\n    10\t9";
        assert_eq!(edited.output, expected);
        assert_eq!(
            (&edited.detail["added"], &edited.detail["removed"]),
            (&json!(2), &json!(1))
        );
    }

    #[test]
    fn an_ambiguous_text_names_its_lines_unless_all_are_meant() {
        let tree = Tree::new();
        tree.put("a", "x\ny\nx\n");
        let edit = json!({ "path": "a", "old_string": "x", "new_string": "z" });
        let told = tree.failed("edit", edit);
        assert!(told.contains("2 times in a, at the lines 1, 3"), "{told}");
        let edit =
            json!({ "path": "a", "old_string": "x", "new_string": "z", "replace_all": true });
        let told = tree.done("edit", edit);
        assert!(told.starts_with("changed a in 2 places:"), "{told}");
        assert_eq!(tree.text("a"), "z\ny\nz\n");
    }

    #[test]
    fn a_crlf_file_keeps_its_line_ends() {
        let tree = Tree::new();
        tree.put("a", "one\r\ntwo\r\nthree\r\n");
        let edit = json!({ "path": "a", "old_string": "one\ntwo", "new_string": "1\n2\n2b" });
        tree.done("edit", edit);
        assert_eq!(tree.text("a"), "1\r\n2\r\n2b\r\nthree\r\n");
    }

    #[test]
    fn what_does_not_match_is_explained() {
        let tree = Tree::new();
        tree.put("a", "fn f() {\n\treturn;\n}\n");
        let edit = |old: &str, new: &str| {
            tree.failed(
                "edit",
                json!({ "path": "a", "old_string": old, "new_string": new }),
            )
        };
        let told = edit("fn f() {\n    return;", "x");
        assert!(
            told.contains("not in a. It would match at line 1 with other white"),
            "{told}"
        );
        assert!(edit("return;", "return;").contains("the same"));
        assert!(edit("", "x").contains("has content"));
        tree.put("b", b"caf\xe9".as_slice());
        let told = tree.failed(
            "edit",
            json!({ "path": "b", "old_string": "c", "new_string": "d" }),
        );
        assert!(told.contains("not UTF-8 text (byte 3 is not)"), "{told}");
        let none = tree.failed(
            "edit",
            json!({ "path": "n", "old_string": "c", "new_string": "d" }),
        );
        assert_eq!(none, "there is no n");
    }

    #[test]
    fn an_empty_old_string_makes_a_file() {
        let tree = Tree::new();
        let edit = json!({ "path": "d/new", "old_string": "", "new_string": "a\nb\n" });
        assert_eq!(tree.done("edit", edit), "created d/new: 2 lines");
        assert_eq!(tree.text("d/new"), "a\nb\n");
        tree.put("empty", "");
        let edit = json!({ "path": "empty", "old_string": "", "new_string": "a" });
        tree.done("edit", edit);
        assert_eq!(tree.text("empty"), "a");
    }

    #[test]
    fn links_that_leave_are_not_followed() {
        use std::os::unix::fs::symlink;
        let tree = Tree::new();
        tree.put_outside("secret", "x");
        symlink("../outside/secret", tree.path("out")).unwrap();
        symlink("../outside", tree.path("dir")).unwrap();
        for path in ["out", "dir/secret"] {
            let edit = json!({ "path": path, "old_string": "x", "new_string": "y" });
            let told = tree.failed("edit", edit);
            assert!(told.contains("outside the worktree"), "{told}");
        }
        assert_eq!(tree.outside("secret"), "x");
    }
}
