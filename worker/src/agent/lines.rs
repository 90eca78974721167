//! Lines of an agent's output, each bounded. Reads only when asked: the pipe is the back-pressure.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines of at most `max` bytes. `next` may be dropped and called again without loss.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max: usize,
}

/// Read at a time. Each running agent has such a buffer, and a worker may run hundreds.
const READ_BYTES: usize = 16 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its end (LF or CRLF).
    Full(Vec<u8>),
    /// A line is longer than allowed; nothing more can be read.
    TooLong,
    /// The output ended.
    End,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of this reader.
    pub fn new(reader: R, max: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_BYTES, reader),
            line: Vec::new(),
            max,
        }
    }

    /// The next line. The last one needs no line end.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                if self.line.is_empty() {
                    return Ok(Line::End);
                }
                return Ok(Line::Full(self.take()));
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, used) = match end {
                Some(at) => (bytes.get(..at).unwrap_or_default(), at + 1),
                None => (bytes, bytes.len()),
            };
            if self.line.len() + part.len() > self.max {
                return Ok(Line::TooLong);
            }
            self.line.extend_from_slice(part);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Line::Full(self.take()));
            }
        }
    }

    /// The reader with what it has buffered, for text that is not read by lines.
    pub fn raw(&mut self) -> &mut BufReader<R> {
        &mut self.reader
    }

    /// The reader underneath, for draining.
    pub fn into_inner(self) -> R {
        self.reader.into_inner()
    }

    fn take(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, max);
        let mut found = Vec::new();
        loop {
            let line = lines.next().await.unwrap();
            let last = !matches!(line, Line::Full(_));
            found.push(line);
            if last {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn both_line_ends_and_a_last_line_without_one() {
        let full = |text: &str| Line::Full(text.into());
        let found = all(b"a\r\n\nb", 8).await;
        assert_eq!(found, [full("a"), full(""), full("b"), Line::End]);
    }

    #[tokio::test]
    async fn a_line_beyond_the_bound_is_told_and_not_kept() {
        assert_eq!(all(b"12345678\n", 8).await.len(), 2);
        assert_eq!(all(b"123456789\n", 8).await, [Line::TooLong]);
    }
}
