//! The end of a text that comes in pieces, for reasons and summaries.

use crate::agent::utf8::Decoder;
use crate::domain::redact::{RedactedText, Redactor};

/// What was said last. Secrets are taken out before the beginning is cut off: of one that lies across
/// the cut, the rest would be known to nobody.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    coming: RedactedText,
    decoder: Decoder,
    kept: String,
    bytes_max: usize,
    is_cut: bool,
}

impl LastWords {
    /// At most so many bytes of it are kept.
    pub(crate) fn new(secrets: Redactor, bytes_max: usize) -> Self {
        Self {
            coming: RedactedText::new(secrets),
            bytes_max,
            ..Self::default()
        }
    }

    /// More of it.
    pub(crate) fn push(&mut self, text: &str) {
        self.kept.push_str(&self.coming.push(text));
        let over = self.kept.len().saturating_sub(self.bytes_max);
        let over = self.kept.ceil_char_boundary(over);
        self.is_cut |= over > 0;
        self.kept.drain(..over);
    }

    /// The same as it was read.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        let text = self.decoder.push(bytes);
        self.push(&text);
    }

    /// The end of what was said so far. It begins with a whole word, if there is one soon: half of one
    /// says nothing, save of a secret that nobody knows yet.
    pub(crate) fn text(&self) -> String {
        let soon = self.kept.floor_char_boundary(self.bytes_max / 4);
        let from = match self.is_cut {
            true => self.kept[..soon].find(char::is_whitespace).unwrap_or(0),
            false => 0,
        };
        format!("{}{}", &self.kept[from..], self.coming.held())
    }

    /// Nothing was said.
    pub(crate) fn clear(&mut self) {
        let _said = self.coming.finish();
        self.kept.clear();
        self.is_cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::redact::Secret;

    const VALUE: &str = "k-3f9a7c51e0d2b846";

    #[test]
    fn a_secret_across_the_cut_leaves_nothing_behind() {
        for after in 0..40 {
            let secrets = Redactor::new(Secret::new("KEY", VALUE));
            let mut words = LastWords::new(secrets, 24);
            for piece in format!("begin {VALUE}{}", "z".repeat(after))
                .as_bytes()
                .chunks(5)
            {
                words.push_bytes(piece);
            }
            let text = words.text();
            let left = (4..VALUE.len()).any(|n| text.contains(&VALUE[n..]));
            assert!(!left, "{after}: {text}");
            assert!(text.len() <= 24 + 16, "{text}");
        }
    }

    #[test]
    fn the_end_begins_with_a_whole_word_and_what_is_short_is_whole() {
        let mut words = LastWords::new(Redactor::default(), 16);
        words.push("one two");
        assert_eq!(words.text(), "one two");
        words.push(" three four five");
        assert_eq!(words.text(), " three four five");
        words.push(" six");
        assert_eq!(words.text(), " four five six");
        words.clear();
        words.push("é");
        assert_eq!(words.text(), "é");
    }
}
