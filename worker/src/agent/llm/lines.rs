//! Lines of an answer, put together from the pieces that it comes in: each byte is looked at once.

/// Pieces that came, and how far they are read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Where the line begins that is not given out yet.
    start: usize,
    /// Up to here there is no end of that line.
    scanned: usize,
}

impl Lines {
    /// A piece came.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next complete line, without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let unseen = self.bytes.get(self.scanned..).unwrap_or_default();
        let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.bytes.len();
            return None;
        };
        let end = self.scanned + end;
        let line = self.bytes.get(self.start..end).map(<[u8]>::to_vec);
        self.start = end + 1;
        self.scanned = self.start;
        line
    }

    /// Bytes of the line that is not complete.
    pub(super) fn pending(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// That line, when nothing follows.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.start);
        *self = Self::default();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                all.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(all, [b"one".as_slice(), b"", b"two\r"], "{size}");
            assert_eq!(lines.pending(), 4);
            assert_eq!(lines.rest(), b"rest");
        }
    }

    #[test]
    fn a_long_line_in_small_pieces_is_looked_at_once() {
        let mut lines = Lines::default();
        for pieces in 1..=1_000 {
            lines.push(b"0123456789");
            assert_eq!(lines.next(), None);
            assert_eq!(lines.scanned, pieces * 10, "the next look begins here");
        }
        lines.push(b"\n");
        assert_eq!(lines.next().map(|line| line.len()), Some(10_000));
    }
}
