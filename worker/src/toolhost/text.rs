//! Text of files, as models see it.

use std::fs::File;
use std::io::Read;

use nix::sys::stat::{Mode, fstat};

use super::decode::clean;
use super::outcome::Told;
use super::place::{Place, too_large};
use crate::domain::limits;

/// Bytes at the beginning of a file that tell whether it is text, as git does it.
const LOOKED_AT: usize = 8_000;

/// The whole of a file that was looked at.
pub(super) fn bytes_of(place: &Place, file: File) -> Told<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may have grown since.
    let read = file
        .take(limits::tools::FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| place.explain(&error))?;
    match bytes.len() as u64 > limits::tools::FILE_BYTES_MAX {
        true => Err(too_large(&place.shown(), bytes.len() as u64)),
        false => Ok(bytes),
    }
}

/// A file as exact text with its rights, for tools that write it back.
pub(super) fn exact(place: &Place) -> Told<(String, Mode)> {
    let file = place.look_at_file()?;
    let stat = fstat(&file).map_err(|error| place.explain(&error.into()))?;
    let bytes = bytes_of(place, file)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        format!(
            "{} is not UTF-8 text (byte {} is not); edit it with the shell tool",
            place.shown(),
            error.utf8_error().valid_up_to()
        )
    })?;
    Ok((text, Mode::from_bits_truncate(stat.st_mode)))
}

pub(super) fn is_binary(bytes: &[u8]) -> bool {
    let beginning = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    beginning.contains(&0)
}

/// One line for the model: without its end, cut.
pub(super) fn line(bytes: &[u8], chars_max: usize) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    cut(&clean(bytes), chars_max)
}

/// The beginning of a text, with a mark when there is more.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => {
            let (kept, rest) = text.split_at(at);
            format!("{kept}… [{} more characters]", rest.chars().count())
        }
        None => text.to_owned(),
    }
}

/// Lines with their numbers.
pub(super) fn numbered<'a>(lines: impl Iterator<Item = &'a str>, first: usize) -> String {
    let numbered = lines.enumerate().map(|(n, line)| {
        let line = cut(
            line.trim_end_matches(['\r', '\n']),
            limits::tools::MATCH_LINE_CHARS_MAX,
        );
        format!("{:>6}\t{line}", first + n)
    });
    numbered.collect::<Vec<_>>().join("\n")
}

/// "1 line", "2 lines".
pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Lines that a change added and removed: those at both ends that are the same do not count.
pub(super) fn changed_lines(before: &str, after: &str) -> (usize, usize) {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = before.iter().zip(&after);
    let head = same.take_while(|(a, b)| a == b).count();
    let (before, after) = (&before[head..], &after[head..]);
    let same = before.iter().rev().zip(after.iter().rev());
    let tail = same.take_while(|(a, b)| a == b).count();
    (after.len() - tail, before.len() - tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_differ_count_as_changed() {
        assert_eq!(changed_lines("a\nb\nc\n", "a\nx\ny\nc\n"), (2, 1));
        assert_eq!(changed_lines("", "a\nb\n"), (2, 0));
        assert_eq!(changed_lines("a\na\n", "a\n"), (0, 1));
        assert_eq!(changed_lines("a\n", "a\n"), (0, 0));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("ééé", 2), "éé… [1 more characters]");
        assert_eq!(cut("ééé", 3), "ééé");
        assert_eq!(line(b"a\0\xff\r\n", 9), "a\u{FFFD}\u{FFFD}");
    }
}
