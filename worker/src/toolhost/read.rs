//! `read`: a part of a text file, its lines numbered.

use std::fs::File;

use super::definitions::{Concurrency, Required, Tool, number, schema, text};
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::{Found, Place, Roots};
use super::text::{bytes_of, counted, is_binary, line};
use super::{list, place};
use crate::domain::limits;

pub(super) fn definition() -> Tool {
    Tool {
        name: "read",
        description: "Read a text file of the worktree. Lines come numbered, as \"   12\\tline\" \
            (the number and the tab are not part of the file). Gives up to 2000 lines and 50,000 \
            characters a call and says at which offset to go on; lines are cut at 2000 characters. \
            A directory gives its listing. Files over 16 MiB and binary files are not shown. Use it \
            instead of cat, head or tail; read a file before you edit it.",
        kind: "read",
        concurrency: Concurrency::Shared,
        schema: schema([
            text(
                "path",
                Required::Yes,
                "File to read, relative to the worktree or absolute below it.",
            ),
            number(
                "offset",
                [1, u64::MAX],
                "First line to give, counted from 1. Default: 1.",
            ),
            number("limit", [1, u64::MAX], "Most lines to give. Default: 2000."),
        ]),
    }
}

/// Which lines.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
}

pub(super) fn run(roots: &Roots, input: &mut Fields) -> Told<Outcome> {
    let path = input.text("path", &["file_path", "filePath", "file", "filename"])?;
    let offset = input.maybe_number("offset", &["start_line", "startLine"])?;
    let limit = input.maybe_number("limit", &[])?.filter(|limit| *limit > 0);
    let part = Part {
        first: usize::try_from(offset.unwrap_or(1).max(1)).unwrap_or(usize::MAX),
        count: usize::try_from(limit.unwrap_or(limits::tools::READ_LINES)).unwrap_or(usize::MAX),
    };
    let place = roots.place(&path)?;
    let shown = place.shown();
    let outcome = match place.look()? {
        Found::Directory(_) => list::directory(&place)?,
        Found::File(_, metadata) if metadata.len() > limits::tools::FILE_BYTES_MAX => {
            return Err(place::too_large(&shown, metadata.len()));
        }
        Found::File(file, _) => file_part(&place, file, part)?,
    };
    Ok(outcome.with("paths", vec![shown]))
}

fn file_part(place: &Place, file: File, part: Part) -> Told<Outcome> {
    let shown = place.shown();
    let bytes = bytes_of(place, file)?;
    if bytes.is_empty() {
        return Ok(Outcome::done(format!("{shown} is empty")));
    }
    if is_binary(&bytes) {
        let size = bytes.len();
        return Ok(Outcome::done(format!(
            "{shown} is a binary file of {size} bytes"
        )));
    }
    let total = bytes.split_inclusive(|byte| *byte == b'\n').count();
    if part.first > total {
        let lines = counted(total, "line");
        return Err(format!(
            "{shown} has only {lines}; there is no line {}",
            part.first
        ));
    }
    let mut output = String::new();
    let mut chars = 0;
    let mut last = part.first - 1;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    for bytes in lines.skip(part.first - 1).take(part.count) {
        let text = line(bytes, limits::tools::READ_LINE_CHARS_MAX);
        let numbered = format!("{:>6}\t{text}\n", last + 1);
        chars += numbered.chars().count();
        if chars > limits::tools::ANSWER_CHARS_MAX {
            break;
        }
        last += 1;
        output.push_str(&numbered);
    }
    let truncated = last < total;
    if truncated {
        output.push_str(&format!(
            "\n[lines {} to {last} of {total}; go on with offset {}]",
            part.first,
            last + 1
        ));
    }
    Ok(Outcome::done(output)
        .with("truncated", truncated)
        .with("lines", last + 1 - part.first))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;

    #[test]
    fn lines_come_numbered_and_the_rest_is_told() {
        let tree = Tree::new();
        tree.put("a.txt", "one\r\ntwo\nthree");
        assert_eq!(
            tree.done("read", json!({ "path": "a.txt" })),
            "     1\tone\n     2\ttwo\n     3\tthree\n"
        );
        assert_eq!(
            tree.done(
                "read",
                json!({ "file_path": "a.txt", "offset": 2, "limit": 1 })
            ),
            "     2\ttwo\n\n[lines 2 to 2 of 3; go on with offset 3]"
        );
        let beyond = tree.failed("read", json!({ "path": "a.txt", "offset": 4 }));
        assert_eq!(beyond, "a.txt has only 3 lines; there is no line 4");
        tree.put("empty", "");
        assert_eq!(
            tree.done("read", json!({ "path": "empty" })),
            "empty is empty"
        );
    }

    #[test]
    fn an_answer_is_bounded_in_lines_characters_and_width() {
        let tree = Tree::new();
        tree.put("many", "x\n".repeat(5_000));
        let many = tree.done("read", json!({ "path": "many" }));
        assert!(many.ends_with("[lines 1 to 2000 of 5000; go on with offset 2001]"));
        tree.put("wide", format!("{}\n", "é".repeat(3_000)).repeat(100));
        let wide = tree.done("read", json!({ "path": "wide" }));
        assert!(wide.chars().count() < 50_200, "{}", wide.chars().count());
        assert!(wide.contains("… [1000 more characters]"));
        assert!(
            wide.contains("go on with offset 25]"),
            "{}",
            &wide[wide.len() - 80..]
        );
    }

    #[test]
    fn what_is_no_text_is_named_and_not_shown() {
        let tree = Tree::new();
        tree.put("data", b"ab\0cd".as_slice());
        let data = tree.done("read", json!({ "path": "data" }));
        assert_eq!(data, "data is a binary file of 5 bytes");
        tree.put("latin1", b"caf\xe9\n".as_slice());
        assert!(
            tree.done("read", json!({ "path": "latin1" }))
                .contains("caf\u{FFFD}")
        );
        nix::unistd::mkfifo(&tree.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = tree.failed("read", json!({ "path": "pipe" }));
        assert_eq!(pipe, "pipe is not a regular file");
        let huge = std::fs::File::create(tree.path("huge")).unwrap();
        huge.set_len(17 << 20).unwrap();
        assert!(
            tree.failed("read", json!({ "path": "huge" }))
                .contains("16 MiB")
        );
        assert_eq!(
            tree.failed("read", json!({ "path": "no" })),
            "there is no no"
        );
        tree.put("sub/x", "");
        assert_eq!(tree.done("read", json!({ "path": "sub" })), "x");
    }
}
