//! `grep`: lines that match a regular expression.

use std::path::PathBuf;

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::definitions::{Concurrency, Field, Required, Tool, number, schema, switch, text};
use super::fields::Fields;
use super::glob::Pattern;
use super::outcome::{Outcome, Told};
use super::place::{Place, Roots};
use super::search::{Searched, Show, search};
use super::text::counted;
use super::walk::{Depth, Kind, Patience, walk};
use crate::domain::limits;

pub(super) fn definition() -> Tool {
    Tool {
        name: "grep",
        description: "Search the files of the worktree for a regular expression (Rust syntax, line \
            by line: no look-around, no match across lines; escape literal ( [ { . with a \
            backslash). Gives \"path:line:text\", or \"path-line-text\" for lines around a match. \
            Binary files and files that git ignores are left out. At most 200 matches and 50,000 \
            characters; lines are cut at 500. Use it instead of grep or rg in the shell.",
        kind: "search",
        concurrency: Concurrency::Shared,
        schema: schema([
            text("pattern", Required::Yes, "Regular expression."),
            text(
                "path",
                Required::No,
                "Directory or file to search. Default: the worktree.",
            ),
            text(
                "glob",
                Required::No,
                "Only files that match this glob, such as \"*.rs\".",
            ),
            switch(
                "case_insensitive",
                "Whether upper and lower case are the same. Default: false.",
            ),
            number(
                "context",
                [0, limits::tools::MATCH_CONTEXT_MAX],
                "Lines to show before and after each match, up to 5. Default: 0.",
            ),
            mode(),
        ]),
    }
}

fn mode() -> Field {
    Field {
        name: "mode",
        required: Required::No,
        shape: json!({
            "type": "string",
            "enum": ["content", "files", "count"],
            "description": "\"content\": matching lines (default). \"files\": only the paths of \
                files with a match. \"count\": matching lines of each file.",
        }),
    }
}

pub(super) fn run(roots: &Roots, input: &mut Fields, cancel: CancellationToken) -> Told<Outcome> {
    let pattern = input.text("pattern", &["regex", "query"])?;
    let path = input.maybe_text("path", &["dir", "directory", "file_path", "filePath"])?;
    let glob = input.maybe_text("glob", &["include", "file_pattern"])?;
    let case = match input.switch("case_insensitive", &["ignore_case", "-i"])? {
        true => Case::Ignored,
        false => Case::Matters,
    };
    let context = input.maybe_number("context", &["-C"])?.unwrap_or(0);
    let show = show(input.maybe_text("mode", &["output_mode"])?.as_deref())?;
    let matcher = compile(&pattern, case)?;
    let glob = glob.filter(|glob| !glob.is_empty());
    let glob = glob.map(|glob| Pattern::new(roots, &glob)).transpose()?;
    let place = roots.place_or_top(path.as_deref())?;
    let patience = Patience::new(cancel);
    let walked = walk(&place, Depth::Whole, &patience, |below, kind| {
        let fits = glob.as_ref().is_none_or(|glob| glob.matches(&place, below));
        kind == Kind::File && fits
    })?;
    let mut files: Vec<PathBuf> = walked.entries.into_iter().map(|entry| entry.path).collect();
    files.sort();
    let context = context.min(limits::tools::MATCH_CONTEXT_MAX) as usize;
    let mut searched = search(&place, &files, &matcher, show, context, &patience);
    if !walked.complete && searched.cut.is_none() {
        searched.cut = Some("not all files were searched".to_owned());
    }
    Ok(told(&place, &pattern, &searched))
}

fn show(mode: Option<&str>) -> Told<Show> {
    match mode {
        None | Some("content") => Ok(Show::Content),
        Some("files" | "files_with_matches") => Ok(Show::Files),
        Some("count") => Ok(Show::Count),
        Some(other) => Err(format!(
            "the field `mode` must be \"content\", \"files\" or \"count\", not {other:?}"
        )),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Matters,
    Ignored,
}

fn compile(pattern: &str, case: Case) -> Told<RegexMatcher> {
    let compiled = RegexMatcherBuilder::new()
        .case_insensitive(case == Case::Ignored)
        // Each line begins and ends, whichever kind of end it has.
        .multi_line(true)
        .crlf(true)
        .size_limit(limits::tools::REGEX_BYTES_MAX)
        .dfa_size_limit(limits::tools::REGEX_BYTES_MAX)
        .build(pattern);
    compiled.map_err(|error| {
        format!(
            "the pattern is not a valid regular expression (Rust syntax): {error}\nEscape literal \
             characters such as ( [ {{ . * + ? | with a backslash; there is no look-around and no \
             match across lines"
        )
    })
}

fn told(place: &Place, pattern: &str, searched: &Searched) -> Outcome {
    let mut output = searched.output.trim_end().to_owned();
    if searched.matches == 0 && searched.cut.is_none() {
        output = format!("nothing matches {pattern} in {}", place.shown());
        if searched.binary > 0 {
            output.push_str(" (binary files are not searched)");
        }
    }
    if searched.unsearched > 0 {
        let files = counted(searched.unsearched, "file");
        let most = limits::tools::SEARCH_LINE_BYTES_MAX >> 20;
        output.push_str(&format!(
            "\n\n[{files} not searched to the end: a line has more than {most} MiB]"
        ));
    }
    if let Some(cut) = &searched.cut {
        output.push_str(&format!(
            "\n\n[cut: {cut}; use a narrower pattern, path or glob, or mode \"files\"]"
        ));
    }
    Outcome::done(output)
        .with("paths", vec![place.shown()])
        .with("matches", searched.matches)
        .with("files", searched.files)
        .with("truncated", searched.cut.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use serde_json::json;

    #[test]
    fn matches_come_with_path_and_line_in_order() {
        let tree = Tree::new();
        std::fs::create_dir(tree.path(".git")).unwrap();
        tree.put(".git/x", "needle");
        tree.put(".gitignore", "target\n");
        tree.put("target/x", "needle");
        tree.put("src/a.rs", "one\nneedle 1\r\ntwo\nthree\nfour\nneedle 2\n");
        tree.put("b.txt", "Needle\n");
        tree.put("data", b"needle\0needle\n".as_slice());
        let grep = |input| tree.done("grep", input);
        let both = "src/a.rs:2:needle 1\nsrc/a.rs:6:needle 2";
        assert_eq!(grep(json!({ "pattern": "needle" })), both);
        assert_eq!(
            grep(json!({ "pattern": "NEEDLE$", "case_insensitive": true })),
            "b.txt:1:Needle"
        );
        assert_eq!(
            grep(json!({ "pattern": "1$", "context": 1 })),
            "src/a.rs-1-one\nsrc/a.rs:2:needle 1\nsrc/a.rs-3-two"
        );
        let apart = grep(json!({ "pattern": "needle", "context": 1, "path": "src/a.rs" }));
        assert!(apart.contains("-3-two\n--\nsrc/a.rs-5-four"), "{apart}");
        assert_eq!(
            grep(json!({ "pattern": "(?i)needle", "mode": "files" })),
            "b.txt\nsrc/a.rs"
        );
        assert_eq!(
            grep(json!({ "pattern": "needle", "mode": "count" })),
            "src/a.rs:2"
        );
        assert_eq!(
            grep(json!({ "pattern": "eedle", "glob": "*.txt" })),
            "b.txt:1:Needle"
        );
        assert_eq!(
            grep(json!({ "pattern": "needle", "path": "target" })),
            "target/x:1:needle"
        );
        let none = grep(json!({ "pattern": "zzz" }));
        assert!(none.starts_with("nothing matches zzz in ."), "{none}");
    }

    #[test]
    fn answers_are_bounded_and_say_so() {
        let tree = Tree::new();
        tree.put("a", "x\n".repeat(300));
        let many = tree.call("grep", json!({ "pattern": "x" }));
        assert_eq!(
            many.output
                .lines()
                .filter(|line| line.starts_with("a:"))
                .count(),
            200
        );
        assert!(
            many.output.contains("[cut: more than 200 matches;"),
            "{}",
            many.output
        );
        assert_eq!(many.detail["truncated"], true);
        let wide = format!("{}needle{}\n", "é".repeat(5_000), "b".repeat(5_000));
        tree.put("wide", wide);
        let wide = tree.done("grep", json!({ "pattern": "needle" }));
        assert!(
            wide.contains("needle") && wide.chars().count() < 600,
            "{wide}"
        );
        tree.put("long", format!("{}\n", "yyyy ".repeat(100)).repeat(190));
        let long = tree.done("grep", json!({ "pattern": "y" }));
        assert!(long.contains("[cut: more than 50000 characters;"));
        assert!(long.chars().count() < 51_000);
    }

    #[test]
    fn an_invalid_pattern_is_explained() {
        let tree = Tree::new();
        for pattern in ["foo(", "(?=x)", "a\\nb"] {
            let told = tree.failed("grep", json!({ "pattern": pattern }));
            assert!(told.contains("valid regular expression"), "{told}");
            assert!(told.contains("backslash"), "{told}");
        }
        let told = tree.failed("grep", json!({ "pattern": "x", "mode": "all" }));
        assert!(told.contains("`mode` must be"), "{told}");
    }

    #[test]
    fn links_that_leave_are_not_searched_and_line_ends_without_end_are() {
        let tree = Tree::new();
        tree.put_outside("secret", "needle");
        std::os::unix::fs::symlink("../outside", tree.path("dir")).unwrap();
        std::os::unix::fs::symlink("../outside/secret", tree.path("file")).unwrap();
        tree.put("a", "needle");
        assert_eq!(
            tree.done("grep", json!({ "pattern": "needle" })),
            "a:1:needle"
        );
        for path in ["dir", "file", "dir/secret"] {
            let told = tree.failed("grep", json!({ "pattern": "needle", "path": path }));
            assert!(told.contains("outside the worktree"), "{told}");
        }
    }

    #[test]
    fn a_file_whose_lines_do_not_fit_into_memory_is_told_of() {
        let tree = Tree::new();
        tree.put("a", format!("needle\n{}", "x".repeat(9 << 20)));
        tree.put("b", "needle\n");
        let told = tree.done("grep", json!({ "pattern": "needle" }));
        assert!(told.contains("a:1:needle\nb:1:needle"), "{told}");
        assert!(told.ends_with("[1 file not searched to the end: a line has more than 4 MiB]"));
    }

    #[test]
    fn a_cancelled_search_stops() {
        let tree = Tree::new();
        tree.put("a", "needle\n");
        let cancel = tokio_util::sync::CancellationToken::new();
        cancel.cancel();
        let outcome = tree.call_with("grep", json!({ "pattern": "needle" }), cancel);
        assert!(outcome.output.contains("[cut: "), "{}", outcome.output);
        assert!(!outcome.output.contains("a:1:"));
    }
}
