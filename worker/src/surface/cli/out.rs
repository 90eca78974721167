//! What the command line prints: to a terminal or a pipe, in colour or not.

use std::io::{self, IsTerminal, Write};

use unicode_width::UnicodeWidthStr;

/// Columns of a terminal that does not tell its size.
const COLUMNS_USUAL: usize = 80;

/// Where a command's answer goes: to standard output, or onto a sheet that is shown later.
pub(crate) struct Out {
    to: To,
    /// Whether a person reads along.
    pub(crate) terminal: bool,
    /// Whether colours may be used.
    pub(crate) paint: Paint,
    /// Columns of the terminal; none in a pipe, so that nothing is cut there.
    pub(crate) width: Option<usize>,
}

impl Out {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let width = terminal.then(|| {
            terminal_size::terminal_size().map_or(COLUMNS_USUAL, |(w, _)| usize::from(w.0))
        });
        Self {
            paint: Paint::on(&stdout),
            to: To::Stdout(stdout),
            terminal,
            width,
        }
    }

    /// An empty sheet that is written as this output would be, for a pager.
    pub(crate) fn sheet(&self) -> Self {
        Self {
            to: To::Sheet(String::new()),
            ..*self
        }
    }

    /// What is on the sheet.
    pub(crate) fn into_text(self) -> String {
        match self.to {
            To::Stdout(_) => String::new(),
            To::Sheet(text) => text,
        }
    }

    /// Print as it is. Everything that others wrote went through `safe_text` before.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        match &mut self.to {
            To::Stdout(stdout) => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            To::Sheet(sheet) => {
                sheet.push_str(text);
                Ok(())
            }
        }
    }

    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.print(&format!("{text}\n"))
    }
}

enum To {
    Stdout(io::Stdout),
    Sheet(String),
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// As is usual: at a terminal that has them. NO_COLOR wins over CLICOLOR_FORCE.
    pub(crate) fn on(stream: &impl IsTerminal) -> Self {
        let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let never = said("NO_COLOR").is_some();
        let always = said("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let able = stream.is_terminal() && said("TERM").is_none_or(|term| term != "dumb");
        Self(!never && (always || able))
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    /// The word of a state, in the colour of its meaning.
    pub(crate) fn state(self, word: &str) -> String {
        match word {
            "completed" | "applied" | "approved" | "ready" | "live" | "allowed" | "allow"
            | "ok" => self.green(word),
            "failed" | "conflict" | "conflicted" | "error" | "lost" | "rejected" | "denied"
            | "fail" => self.red(word),
            "running" | "loading" => self.cyan(word),
            "pending" | "permission" | "review" | "blocked" | "draining" | "drained"
            | "unavailable" | "expired" | "warn" => self.yellow(word),
            _ => word.to_owned(),
        }
    }
}

/// Columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text, cut to so many columns with a mark that it was cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        let mut with = kept.clone();
        with.push(c);
        if columns(&with) + 1 > width {
            break;
        }
        kept = with;
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_fits_and_says_that_it_was_cut() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(columns(&cut("日本語日本語", 7)), 7);
    }
}
