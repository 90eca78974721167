//! Bodies of messages: exactly as many bytes as the head says, and not one of the next message.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line with the size of a chunk. Extensions are dropped; nobody uses them.
const SIZE_LINE_BYTES_MAX: u64 = 256;

/// Longest trailer that is read over. Trailers are dropped.
const TRAILER_BYTES_MAX: u64 = 16 * 1024;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Nothing,
    /// After so many bytes.
    Length(u64),
    /// It says so itself.
    Chunked,
    /// With the connection (answers only).
    UntilEnd,
}

impl Framing {
    /// The header that says so.
    pub(super) fn write_to(self, head: &mut Vec<u8>) {
        match self {
            Self::Nothing | Self::UntilEnd => {}
            Self::Length(length) => head.extend(format!("Content-Length: {length}\r\n").bytes()),
            Self::Chunked => head.extend(b"Transfer-Encoding: chunked\r\n"),
        }
    }

    /// Carry one body, no byte more.
    pub(super) async fn carry<R, W>(self, reader: &mut R, writer: &mut W) -> io::Result<()>
    where
        R: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self {
            Self::Nothing => {}
            Self::Length(length) => exactly(length, reader, writer).await?,
            Self::Chunked => chunks(reader, writer).await?,
            Self::UntilEnd => {
                tokio::io::copy_buf(reader, writer).await?;
            }
        }
        writer.flush().await
    }
}

async fn exactly<R, W>(length: u64, reader: &mut R, writer: &mut W) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let carried = tokio::io::copy_buf(&mut reader.take(length), writer).await?;
    if carried < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn chunks<R, W>(reader: &mut R, writer: &mut W) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let line = line(reader, SIZE_LINE_BYTES_MAX).await?;
        let size = chunk_size(&line).ok_or_else(|| bad("a chunk without a size"))?;
        writer.write_all(format!("{size:x}\r\n").as_bytes()).await?;
        if size == 0 {
            break;
        }
        exactly(size, reader, writer).await?;
        let mut end = [0; 2];
        reader.read_exact(&mut end).await?;
        if end != *b"\r\n" {
            return Err(bad("a chunk longer than its size"));
        }
        writer.write_all(b"\r\n").await?;
        // Events come in chunks, and wait for nobody.
        writer.flush().await?;
    }
    let mut left = TRAILER_BYTES_MAX;
    loop {
        let line = line(reader, left).await?;
        left -= line.len() as u64;
        if line == b"\r\n" {
            return writer.write_all(b"\r\n").await;
        }
    }
}

/// A line with its end, which is CRLF.
async fn line<R: AsyncBufRead + Unpin>(reader: &mut R, max: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(max).read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\r\n") {
        return Ok(line);
    }
    Err(bad("a line of a chunked body without its end"))
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn carried(framing: Framing, text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), io::ErrorKind> {
        let (mut rest, mut out) = (text, Vec::new());
        let result = framing.carry(&mut rest, &mut out).await;
        result
            .map(|()| (out, rest.to_vec()))
            .map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_body_ends_where_its_head_says() {
        let next = b"GET /".to_vec();
        let found = carried(Framing::Length(3), b"abcGET /").await;
        assert_eq!(found, Ok((b"abc".to_vec(), next.clone())));
        let body = b"2;x=y\r\nab\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /";
        let sent = b"2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n".to_vec();
        assert_eq!(carried(Framing::Chunked, body).await, Ok((sent, next)));
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_announced_is_an_error() {
        let short = carried(Framing::Length(9), b"abc").await;
        assert_eq!(short, Err(io::ErrorKind::UnexpectedEof));
        for body in [
            b"3\r\nabcd\r\n0\r\n\r\n".as_slice(),
            b"3\nabc\n0\n\n",
            b"x\r\n",
            b"\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b"ffffffffffffffff1\r\n",
            b"0\r\nno end",
        ] {
            let found = carried(Framing::Chunked, body).await;
            assert_eq!(found, Err(io::ErrorKind::InvalidData), "{body:?}");
        }
        let long = [b"0\r\n".to_vec(), b"A: b\r\n".repeat(10_000)].concat();
        assert_eq!(
            carried(Framing::Chunked, &long).await,
            Err(io::ErrorKind::InvalidData)
        );
    }
}
