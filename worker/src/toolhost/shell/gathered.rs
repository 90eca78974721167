//! The output of a command: told as it comes, its beginning and end kept for the model.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::super::decode::Decoder;
use super::super::wire::{self, Stream};
use super::spill::Spill;
use crate::domain::limits;

const NOT_STREAMED: &str = "\n[the rest of the output is not shown while it runs]\n";

/// What came so far.
#[derive(Debug)]
pub(super) struct Gathered {
    id: u64,
    lines: mpsc::Sender<Vec<u8>>,
    /// Bytes that may still be told.
    streamed_left: usize,
    /// Whether it was told that the rest is not.
    told_rest: bool,
    stdout: Decoder,
    stderr: Decoder,
    kept: Kept,
    spill: Spill,
}

/// What a command said in all.
#[derive(Debug)]
pub(super) struct Output {
    /// For the model.
    pub(super) text: String,
    pub(super) truncated: bool,
    /// Where all of it is.
    pub(super) file: Option<PathBuf>,
}

impl Gathered {
    pub(super) fn new(id: u64, lines: mpsc::Sender<Vec<u8>>, spill: Spill) -> Self {
        Self {
            id,
            lines,
            streamed_left: limits::tools::STREAM_BYTES_MAX,
            told_rest: false,
            stdout: Decoder::default(),
            stderr: Decoder::default(),
            kept: Kept::default(),
            spill,
        }
    }

    /// Bytes of one stream; none: it ended.
    pub(super) async fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let decoder = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let text = match bytes.is_empty() {
            true => decoder.finish(),
            false => decoder.push(bytes),
        };
        if text.is_empty() {
            return;
        }
        self.kept.push(&text);
        // Before anything waits for the worker: what is kept is never less than what came.
        self.spill.push(&text).await;
        self.stream(stream, &text).await;
    }

    async fn stream(&mut self, stream: Stream, text: &str) {
        if self.told_rest {
            return;
        }
        let told = up_to(text, self.streamed_left);
        let mut rest = told;
        while !rest.is_empty() {
            let piece = up_to(rest, limits::tools::STREAM_PIECE_BYTES);
            self.say(stream, piece).await;
            rest = rest.get(piece.len()..).unwrap_or_default();
        }
        self.streamed_left -= told.len();
        if told.len() < text.len() {
            self.told_rest = true;
            self.say(stream, NOT_STREAMED).await;
        }
    }

    async fn say(&self, stream: Stream, text: &str) {
        // Without a writer nobody watches.
        let _ = self.lines.send(wire::output(self.id, stream, text)).await;
    }

    pub(super) async fn finish(mut self) -> Output {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.push(stream, &[]).await;
        }
        let left_out = self.kept.left_out();
        if left_out == 0 {
            return Output {
                text: self.kept.head + &self.kept.tail,
                truncated: false,
                file: None,
            };
        }
        let (file, whereabouts) = match self.spill.finish().await {
            Some(spilled) => {
                let path = spilled.path.display();
                let words = match spilled.complete {
                    true => format!("the whole output is in {path}"),
                    false => format!("the first {} bytes of it are in {path}", spilled.bytes),
                };
                let words = format!("{words}, for read, grep or the shell");
                (Some(spilled.path), words)
            }
            None => (None, "they were not kept".to_owned()),
        };
        Output {
            text: format!(
                "{}\n[… {left_out} bytes left out here; {whereabouts} …]\n{}",
                self.kept.head,
                self.kept.tail()
            ),
            truncated: true,
            file,
        }
    }
}

/// The beginning of a text that fits, in whole characters.
fn up_to(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The beginning and the end of a text of any length.
#[derive(Debug, Default)]
struct Kept {
    head: String,
    head_chars: usize,
    /// At least the last characters; cut now and then.
    tail: String,
    bytes: u64,
}

/// A tail is cut when it has so many bytes: seldom, and with all that belongs to it.
const TAIL_BYTES: usize = 8 * limits::tools::SHELL_TAIL_CHARS;

impl Kept {
    fn push(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        let room = limits::tools::SHELL_HEAD_CHARS - self.head_chars;
        let (head, rest) = match text.char_indices().nth(room) {
            Some((at, _)) => text.split_at(at),
            None => (text, ""),
        };
        self.head_chars += head.chars().count();
        self.head.push_str(head);
        self.tail.push_str(rest);
        if self.tail.len() > TAIL_BYTES {
            let from = self.tail.len() - self.tail().len();
            self.tail.drain(..from);
        }
    }

    fn tail(&self) -> &str {
        let last = limits::tools::SHELL_TAIL_CHARS.saturating_sub(1);
        let from = self.tail.char_indices().rev().nth(last);
        self.tail
            .get(from.map_or(0, |(at, _)| at)..)
            .unwrap_or_default()
    }

    fn left_out(&self) -> u64 {
        self.bytes - (self.head.len() + self.tail().len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept_whatever_comes_between() {
        let mut kept = Kept::default();
        let mut all = String::new();
        for n in 0..20_000 {
            let text = format!("é{n}\n");
            kept.push(&text);
            all.push_str(&text);
            assert!(kept.tail.len() <= TAIL_BYTES + 16);
        }
        let chars: Vec<char> = all.chars().collect();
        let head: String = chars[..limits::tools::SHELL_HEAD_CHARS].iter().collect();
        let tail: String = chars[chars.len() - limits::tools::SHELL_TAIL_CHARS..]
            .iter()
            .collect();
        assert_eq!(kept.head, head);
        assert_eq!(kept.tail(), tail);
        assert_eq!(
            kept.left_out(),
            (all.len() - head.len() - tail.len()) as u64
        );
    }

    #[test]
    fn a_text_that_fits_is_whole() {
        let mut kept = Kept::default();
        let text = "é".repeat(limits::tools::SHELL_HEAD_CHARS + limits::tools::SHELL_TAIL_CHARS);
        kept.push(&text);
        assert_eq!(kept.left_out(), 0);
        kept.push("x");
        assert_eq!(kept.left_out(), 2);
    }

    #[tokio::test]
    async fn a_piece_that_ends_at_the_bound_does_not_hide_that_more_came() {
        let (lines, mut said) = mpsc::channel(1_000);
        let mut gathered = Gathered::new(1, lines, Spill::new(None));
        let most = "x".repeat(limits::tools::STREAM_BYTES_MAX);
        for text in [most.as_str(), "y", "z"] {
            gathered.push(Stream::Stdout, text.as_bytes()).await;
        }
        drop(gathered);
        let mut all = Vec::new();
        while let Some(line) = said.recv().await {
            all.push(String::from_utf8(line).unwrap());
        }
        let told = |line: &&String| line.contains("is not shown while it runs");
        assert_eq!(all.iter().filter(told).count(), 1);
        assert!(all.last().is_some_and(|line| told(&line)));
    }

    #[tokio::test]
    async fn what_is_streamed_is_bounded_and_says_so_once() {
        let (lines, mut said) = mpsc::channel(1_000);
        let mut gathered = Gathered::new(1, lines, Spill::new(None));
        for _ in 0..100 {
            gathered.push(Stream::Stdout, &[b'x'; 16_000]).await;
        }
        let output = gathered.finish().await;
        assert!(
            output
                .text
                .contains("bytes left out here; they were not kept")
        );
        let mut bytes = 0;
        let mut last = String::new();
        while let Some(line) = said.recv().await {
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            last = line["params"]["text"].as_str().unwrap().to_owned();
            assert!(last.len() <= limits::tools::STREAM_PIECE_BYTES);
            bytes += last.len();
        }
        assert_eq!(bytes, limits::tools::STREAM_BYTES_MAX + NOT_STREAMED.len());
        assert_eq!(last, NOT_STREAMED);
    }
}
