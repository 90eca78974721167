//! Where a text stands in a file, whatever the file's line ends, and what replaces it.

use std::ops::Range;

/// A file's text, searched with LF for line ends.
#[derive(Debug)]
pub(super) struct Haystack<'a> {
    raw: &'a str,
    /// With each CRLF as LF.
    plain: String,
    /// Where in `plain` an LF was a CRLF.
    ends: Vec<usize>,
}

impl<'a> Haystack<'a> {
    pub(super) fn new(raw: &'a str) -> Self {
        let mut plain = String::with_capacity(raw.len());
        let mut ends = Vec::new();
        for (n, part) in raw.split("\r\n").enumerate() {
            if n > 0 {
                ends.push(plain.len());
                plain.push('\n');
            }
            plain.push_str(part);
        }
        Self { raw, plain, ends }
    }

    /// With LF for line ends.
    pub(super) fn plain(&self) -> &str {
        &self.plain
    }

    /// Where `old` stands, in bytes of the file. A text with a carriage return of its own is taken
    /// by its bytes first: somebody wants to change line ends.
    pub(super) fn find(&self, old: &str) -> Found {
        if old.contains('\r') {
            let exact: Vec<_> = ranges(self.raw, old).collect();
            if !exact.is_empty() {
                return Found {
                    places: exact,
                    by_bytes: true,
                };
            }
        }
        let old = old.replace("\r\n", "\n");
        let places = ranges(&self.plain, &old)
            .map(|at| self.raw_offset(at.start)..self.raw_offset(at.end))
            .collect();
        Found {
            places,
            by_bytes: false,
        }
    }

    fn raw_offset(&self, plain: usize) -> usize {
        plain + self.ends.partition_point(|end| *end < plain)
    }

    /// The file's text with `new` in these places, in the line ends that are there.
    pub(super) fn replaced(&self, found: &Found, new: &str) -> String {
        let plain = new.replace("\r\n", "\n");
        let mut text = String::with_capacity(self.raw.len() + new.len());
        let mut from = 0;
        for place in &found.places {
            text.push_str(self.raw.get(from..place.start).unwrap_or_default());
            let old = self.raw.get(place.clone()).unwrap_or_default();
            match (found.by_bytes, self.has_crlf_at(old)) {
                (true, _) => text.push_str(new),
                (false, true) => text.push_str(&plain.replace('\n', "\r\n")),
                (false, false) => text.push_str(&plain),
            }
            from = place.end;
        }
        text.push_str(self.raw.get(from..).unwrap_or_default());
        text
    }

    /// As the replaced lines had it; a part of one line says nothing, and the file decides.
    fn has_crlf_at(&self, old: &str) -> bool {
        match old.contains('\n') {
            true => old.contains("\r\n"),
            false => is_crlf(self.raw),
        }
    }
}

/// Places in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) places: Vec<Range<usize>>,
    by_bytes: bool,
}

/// Whether most lines of a text end with CRLF.
pub(super) fn is_crlf(text: &str) -> bool {
    let crlf = text.matches("\r\n").count();
    crlf * 2 > text.matches('\n').count()
}

/// The line that a byte is in, counted from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn ranges<'t>(text: &'t str, part: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    text.match_indices(part)
        .map(|(at, part)| at..at + part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(raw: &str, old: &str, new: &str) -> String {
        let haystack = Haystack::new(raw);
        haystack.replaced(&haystack.find(old), new)
    }

    #[test]
    fn line_ends_stay_as_they_are() {
        assert_eq!(
            replace("a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\nz\n"),
            "x\r\ny\r\nz\r\nc\r\n"
        );
        assert_eq!(replace("a\r\nb\r\n", "b", "x\ny"), "a\r\nx\r\ny\r\n");
        assert_eq!(replace("a\nb\n", "b", "x\r\ny"), "a\nx\ny\n");
        assert_eq!(replace("a\nb\r\nc\r\n", "\nb", "\nx"), "a\nx\r\nc\r\n");
        assert_eq!(replace("a\r\nb\nc\n", "a\nb", "x"), "x\nc\n");
        // Line ends themselves.
        assert_eq!(replace("a\r\nb\r\n", "\r\n", "\n"), "a\nb\n");
        assert_eq!(replace("a\r\n", "\n", "\n\n"), "a\r\n\r\n");
    }

    #[test]
    fn every_place_of_a_text_with_both_line_ends_is_right() {
        let raw = "é\r\nx\nx\r\nx";
        let haystack = Haystack::new(raw);
        let places = haystack.find("x").places;
        let lines: Vec<_> = places.iter().map(|at| line_at(raw, at.start)).collect();
        assert_eq!(lines, [2, 3, 4]);
        assert!(places.iter().all(|at| &raw[at.clone()] == "x"));
    }

    proptest::proptest! {
        #[test]
        fn in_a_file_of_one_kind_it_is_what_str_replace_does(
            file in "[ab\n]{0,30}", old in "[ab\n]{1,3}", new in "[abc\n]{0,3}",
        ) {
            let expected = file.replace(&old, &new);
            proptest::prop_assert_eq!(replace(&file, &old, &new), expected.as_str());
            let crlf = file.replace('\n', "\r\n");
            if is_crlf(&crlf) {
                let expected = expected.replace('\n', "\r\n");
                proptest::prop_assert_eq!(replace(&crlf, &old, &new), expected);
            }
        }
    }
}
