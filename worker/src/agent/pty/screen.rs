//! Bytes of a terminal → plain lines, as a person would have read them: colours gone, carriage
//! returns resolved, repaints not repeated.

use avt::observer::{Observation, Observer};
use avt::parser::Function;
use avt::{Line, Parser, ScreenKind, Terminal};

use crate::agent::utf8::Decoder;
use crate::domain::limits;

/// A terminal that tells each line once, as soon as the cursor has left it downwards.
pub(crate) struct Screen {
    terminal: Terminal,
    parser: Parser,
    decoder: Decoder,
    lines: Lines,
    told_screen: String,
}

/// Counts lines from the beginning, also those that scrolled away.
#[derive(Default)]
struct Lines {
    scrolled: usize,
    told: usize,
    /// Beginning of a line that goes on in the next row.
    wrapped: String,
    /// Lines with their ends, and pieces of ones that are too long to wait for theirs.
    ready: Vec<String>,
}

impl Lines {
    fn tell(&mut self, index: usize, line: &Line) {
        if index < self.told {
            return;
        }
        self.told = index + 1;
        self.wrapped.extend(line.chars());
        if !line.is_wrapped() {
            let whole = std::mem::take(&mut self.wrapped);
            self.ready.push(format!("{}\n", whole.trim_end()));
        } else if self.wrapped.len() > limits::DELTA_BYTES_MAX {
            // It may have no end at all; what is here of it is told now.
            self.ready.push(std::mem::take(&mut self.wrapped));
        }
    }
}

impl Observer for Lines {
    type Output = ();

    fn evicted(&mut self, _context: &mut Observation<'_>, line: &Line) {
        self.tell(self.scrolled, line);
        self.scrolled += 1;
    }

    fn end(&mut self, _context: &mut Observation<'_>) {}
}

impl Screen {
    /// A screen of this size; at least one cell.
    pub(crate) fn new(cols: u16, rows: u16) -> Option<Self> {
        let terminal = Terminal::new(usize::from(cols), usize::from(rows)).ok()?;
        Some(Self {
            terminal,
            parser: Parser::new(),
            decoder: Decoder::default(),
            lines: Lines::default(),
            told_screen: String::new(),
        })
    }

    /// Take in bytes; the text that is finished by them, and answers the program waits for.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (String, Vec<u8>) {
        let text = without_delete(self.decoder.push(bytes));
        self.write(&text);
        let answers = self.answers(&text);
        if self.terminal.active_screen_kind() == ScreenKind::Primary {
            let row = self.terminal.cursor().row;
            self.tell_rows(row);
        }
        (self.take(), answers)
    }

    /// The rest, when the program has ended.
    pub(crate) fn finish(&mut self) -> String {
        let rest = without_delete(self.decoder.finish());
        self.write(&rest);
        self.tell_rows(usize::MAX);
        let text = self.take();
        if self.lines.wrapped.trim().is_empty() {
            return text;
        }
        format!("{text}{}\n", self.lines.wrapped.trim_end())
    }

    /// What a program that paints over the whole screen shows now, when it changed.
    pub(crate) fn painted(&mut self) -> Option<String> {
        if self.terminal.active_screen_kind() == ScreenKind::Primary {
            return None;
        }
        let shown = self.terminal.screen().text().join("\n").trim().to_owned();
        if shown.is_empty() || shown == self.told_screen {
            return None;
        }
        self.told_screen.clone_from(&shown);
        Some(shown)
    }

    /// All that is visible, for reading figures from it.
    pub(crate) fn visible(&self) -> String {
        self.terminal.screen().text().join("\n")
    }

    fn write(&mut self, text: &str) {
        let (cols, _) = self.terminal.size();
        let parser = &mut self.parser;
        let functions = text.chars().filter_map(|c| parser.feed(c));
        let functions = functions.filter_map(|function| bounded(function, cols));
        self.terminal.execute_with(functions, &mut self.lines);
    }

    fn tell_rows(&mut self, before_row: usize) {
        let rows: Vec<Line> = self
            .terminal
            .primary_screen()
            .visible_lines()
            .take(before_row)
            .cloned()
            .collect();
        // At the end the empty rows below the last line are padding, not output.
        let used = rows
            .iter()
            .rposition(|line| !line.text().trim().is_empty())
            .map_or(0, |at| at + 1);
        let count = if before_row == usize::MAX {
            used
        } else {
            rows.len()
        };
        for (row, line) in rows.iter().take(count).enumerate() {
            self.lines.tell(self.lines.scrolled + row, line);
        }
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.lines.ready).concat()
    }

    /// Text that waits for the end of its line.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.lines.wrapped.len()
    }

    /// Answers to the queries that programs wait for at their start: what kind of terminal, where
    /// the cursor is, which background.
    fn answers(&self, text: &str) -> Vec<u8> {
        let mut answers = Vec::new();
        for _ in text.matches("\x1b[c").chain(text.matches("\x1b[0c")) {
            answers.extend(b"\x1b[?62;22c");
        }
        for _ in text.matches("\x1b[5n") {
            answers.extend(b"\x1b[0n");
        }
        for _ in text.matches("\x1b[6n") {
            let cursor = self.terminal.cursor();
            answers.extend(format!("\x1b[{};{}R", cursor.row + 1, cursor.col + 1).bytes());
        }
        for _ in text.matches("\x1b]11;?") {
            answers.extend(b"\x1b]11;rgb:0000/0000/0000\x1b\\");
        }
        answers
    }
}

/// What a few bytes ask for, as far as it fits a screen: more would make megabytes of text out of a
/// line of output.
fn bounded(function: Function, cols: usize) -> Option<Function> {
    match function {
        // Programs repeat a character to draw a rule, and that is no longer than a row.
        Function::Rep(count) => Some(Function::Rep(
            count.min(u16::try_from(cols).unwrap_or(u16::MAX)),
        )),
        // A whole screen of E, for adjusting picture tubes.
        Function::Decaln => None,
        other => Some(other),
    }
}

/// DEL shows as nothing on a terminal; the model takes it for a character.
fn without_delete(text: String) -> String {
    if text.contains('\x7f') {
        return text.replace('\x7f', "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parts: &[&[u8]]) -> Vec<String> {
        let mut screen = Screen::new(20, 5).unwrap();
        let mut told: Vec<String> = parts.iter().map(|part| screen.feed(part).0).collect();
        told.push(screen.finish());
        told
    }

    #[test]
    fn a_line_is_told_at_once_and_only_once() {
        assert_eq!(
            told(&[b"one\r\n", b"tw", b"o\r\nthree"]),
            ["one\n", "", "two\n", "three\n"]
        );
    }

    #[test]
    fn progress_bars_colours_and_cut_characters_resolve() {
        let parts: &[&[u8]] = &[
            b"10%\r20%\r\x1b[32mdone\x1b[0m\r\n",
            b"caf\xc3",
            b"\xa9\r\n",
        ];
        assert_eq!(told(parts), ["done\n", "", "caf\u{e9}\n", ""]);
    }

    #[test]
    fn nothing_is_lost_or_repeated_when_much_scrolls_by() {
        let text: String = (0..200)
            .map(|n| format!("line {n} {}\r\n", "x".repeat(n % 40)))
            .collect();
        let expected = text.replace("\r\n", "\n");
        let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
        for size in [1, 7, 100, 10_000] {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let all = told(&parts).concat();
            assert_eq!(all.lines().collect::<Vec<_>>(), expected, "parts of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_told_in_pieces_and_not_held() {
        let mut screen = Screen::new(20, 5).unwrap();
        let part = "x".repeat(10_000);
        let mut told = String::new();
        for _ in 0..50 {
            told.push_str(&screen.feed(part.as_bytes()).0);
            assert!(screen.held_bytes() <= limits::DELTA_BYTES_MAX);
        }
        assert!(told.len() > 400_000 && !told.contains('\n'));
        told.push_str(&screen.finish());
        assert_eq!(told, format!("{}\n", "x".repeat(500_000)));
    }

    #[test]
    fn a_few_bytes_do_not_become_much_text() {
        let told = told(&[b"-\x1b[65535b\r\n", b"\x1b#8\x1b[9S"]).concat();
        assert!(
            told.starts_with("---") && told.len() < 200,
            "{} bytes",
            told.len()
        );
    }

    #[test]
    fn delete_shows_as_nothing() {
        assert_eq!(told(&[b"a\x7fb\r\n\x7f"]), ["ab\n", ""]);
    }

    #[test]
    fn a_painted_screen_is_no_transcript_and_queries_are_answered() {
        let mut screen = Screen::new(20, 5).unwrap();
        let (text, answers) = screen.feed(b"\x1b[?1049h\x1b[H\x1b[chello\x1b[6n");
        assert_eq!(text, "");
        assert_eq!(answers, b"\x1b[?62;22c\x1b[1;6R");
        assert_eq!(screen.painted().as_deref(), Some("hello"));
        assert_eq!(screen.painted(), None);
    }
}
