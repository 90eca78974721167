//! Many files searched line by line, with bounds on what is said of them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use grep_matcher::{LineTerminator, Matcher};
use grep_regex::RegexMatcher;
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkFinish, SinkMatch,
};

use super::decode::clean;
use super::place::{Found, Place};
use super::text;
use super::walk::Patience;
use crate::domain::limits;

/// What is said of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Content,
    Files,
    Count,
}

/// What a search came to.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) output: String,
    /// Lines that match.
    pub(super) matches: usize,
    /// Files with such lines.
    pub(super) files: usize,
    /// Files that are no text.
    pub(super) binary: usize,
    /// Files that were not searched to their end: a line is longer than memory allows.
    pub(super) unsearched: usize,
    /// Why it is not all.
    pub(super) cut: Option<String>,
    chars: usize,
}

/// Search these files, paths below the place's root.
pub(super) fn search(
    place: &Place,
    files: &[PathBuf],
    matcher: &RegexMatcher,
    show: Show,
    context: usize,
    patience: &Patience,
) -> Searched {
    let context = if show == Show::Content { context } else { 0 };
    let mut searcher = SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .line_terminator(LineTerminator::crlf())
        .heap_limit(Some(limits::tools::SEARCH_LINE_BYTES_MAX))
        .before_context(context)
        .after_context(context)
        .build();
    let mut searched = Searched::default();
    for path in files {
        if patience.is_over() {
            searched.cut = Some("the time is over".to_owned());
            break;
        }
        one(
            place,
            path,
            matcher,
            show,
            patience,
            &mut searcher,
            &mut searched,
        );
        if searched.cut.is_some() {
            break;
        }
    }
    searched
}

fn one(
    place: &Place,
    path: &Path,
    matcher: &RegexMatcher,
    show: Show,
    patience: &Patience,
    searcher: &mut Searcher,
    searched: &mut Searched,
) {
    let place = place.sibling(path);
    // Gone or swapped since the walk, or unreadable: as good as not there.
    let Ok(Found::File(file, _)) = place.look() else {
        return;
    };
    let mut lines = Lines {
        matcher,
        show,
        shown: place.shown(),
        left: limits::tools::MATCHES_MAX.saturating_sub(searched.matches),
        output: String::new(),
        matches: 0,
        is_binary: false,
        too_many: false,
    };
    let reader = Impatient { file, patience };
    // A line that is too long for memory, or the end of patience: what was found until then counts.
    let failed = searcher.search_reader(matcher, reader, &mut lines).is_err();
    if lines.is_binary {
        searched.binary += 1;
        return;
    }
    match (failed, patience.is_over()) {
        (true, true) => searched.cut = Some("the time is over".to_owned()),
        (true, false) => searched.unsearched += 1,
        (false, _) => {}
    }
    if lines.matches > 0 {
        searched.add(lines);
    }
}

impl Searched {
    fn add(&mut self, lines: Lines<'_>) {
        self.matches += lines.matches;
        self.files += 1;
        let text = match lines.show {
            Show::Content => lines.output,
            Show::Files => format!("{}\n", lines.shown),
            Show::Count => format!("{}:{}\n", lines.shown, lines.matches),
        };
        for line in text.split_inclusive('\n') {
            self.chars += line.chars().count();
            if self.chars > limits::tools::ANSWER_CHARS_MAX {
                let most = limits::tools::ANSWER_CHARS_MAX;
                self.cut = Some(format!("more than {most} characters"));
                return;
            }
            self.output.push_str(line);
        }
        if lines.too_many {
            self.cut = Some(format!("more than {} matches", limits::tools::MATCHES_MAX));
        }
        if lines.show != Show::Content && self.files >= limits::tools::FILES_MAX {
            self.cut = Some(format!("{} files or more", limits::tools::FILES_MAX));
        }
    }
}

/// A file that ends when patience does, so that a huge one can be left.
struct Impatient<'a> {
    file: std::fs::File,
    patience: &'a Patience,
}

impl Read for Impatient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.patience.is_over() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => self.file.read(buffer),
        }
    }
}

/// The lines of one file; nothing of a binary one is said.
struct Lines<'a> {
    matcher: &'a RegexMatcher,
    show: Show,
    shown: String,
    /// Matches that may still be shown, of all files.
    left: usize,
    output: String,
    matches: usize,
    is_binary: bool,
    too_many: bool,
}

impl Lines<'_> {
    fn push(&mut self, mark: char, number: Option<u64>, line: &str) {
        let number = number.unwrap_or_default();
        self.output
            .push_str(&format!("{}{mark}{number}{mark}{line}\n", self.shown));
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.show == Show::Content {
            if self.matches == self.left {
                self.too_many = true;
                return Ok(false);
            }
            let at = self.matcher.find(found.bytes()).ok().flatten();
            let line = around(found.bytes(), at.map_or(0, |at| at.start()));
            self.push(':', found.line_number(), &line);
        }
        self.matches += 1;
        Ok(self.show != Show::Files)
    }

    fn context(&mut self, _: &Searcher, found: &SinkContext<'_>) -> io::Result<bool> {
        let line = text::line(found.bytes(), limits::tools::MATCH_LINE_CHARS_MAX);
        self.push('-', found.line_number(), &line);
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> io::Result<bool> {
        self.output.push_str("--\n");
        Ok(true)
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> io::Result<bool> {
        self.is_binary = true;
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, end: &SinkFinish) -> io::Result<()> {
        self.is_binary |= end.binary_byte_offset().is_some();
        Ok(())
    }
}

/// A line cut so that its match is seen.
fn around(bytes: &[u8], start: usize) -> String {
    let before = bytes.get(..start).unwrap_or_default();
    let most = limits::tools::MATCH_LINE_CHARS_MAX;
    if clean(before).chars().count() <= most / 2 {
        return text::line(bytes, most);
    }
    // Bytes of a cut character become a mark.
    let from = start.saturating_sub(most / 4);
    let rest = bytes.get(from..).unwrap_or_default();
    format!("…{}", text::line(rest, most))
}
