//! Bytes that come in pieces → text, also when a character is cut between two reads.

/// Longest beginning of a character that is not whole.
const CUT_MAX: usize = 3;

/// An incremental decoder; what is no UTF-8 becomes U+FFFD, NUL too: no database or terminal takes
/// it well.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// A character that is not complete.
    cut: Vec<u8>,
}

impl Decoder {
    /// The text as far as its characters are complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.cut);
        all.extend_from_slice(bytes);
        let whole = all.len() - cut_at_end(&all);
        self.cut = all.split_off(whole);
        clean(&all)
    }

    /// What is left, complete or not.
    pub(super) fn finish(&mut self) -> String {
        clean(&std::mem::take(&mut self.cut))
    }
}

/// Text of bytes that are all there.
pub(super) fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}")
}

/// How many bytes at the end begin a character that could still become whole.
fn cut_at_end(bytes: &[u8]) -> usize {
    let is_cut = |length: &usize| {
        let part = bytes.get(bytes.len().saturating_sub(*length)..);
        std::str::from_utf8(part.unwrap_or_default())
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    let longest = CUT_MAX.min(bytes.len());
    (1..=longest).find(is_cut).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same_text_as_one_read() {
        let bytes = b"a\xff\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xe2\x82 z\0\xc3".as_slice();
        let whole = clean(bytes);
        assert!(whole.contains('\u{1F600}') && !whole.contains('\0'));
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut text: String = bytes.chunks(size).map(|part| decoder.push(part)).collect();
            text.push_str(&decoder.finish());
            assert_eq!(text, whole, "parts of {size}");
        }
    }
}
