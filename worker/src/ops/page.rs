//! Lists come in pages: `{data, next_cursor}`.

use std::str::{FromStr, Split};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OpError;
use crate::domain::limits;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Give it as `cursor` to get the next page; absent: this was the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Everything there is.
    pub(crate) fn whole(data: Vec<T>) -> Self {
        Self {
            data,
            next_cursor: None,
        }
    }

    /// A page from `size + 1` rows: the surplus row only says that there is more.
    pub(crate) fn cut(mut data: Vec<T>, size: i64, cursor: impl Fn(&T) -> String) -> Self {
        let size = usize::try_from(size).unwrap_or(0);
        let more = data.len() > size;
        data.truncate(size);
        let next_cursor = if more { data.last().map(cursor) } else { None };
        Self { data, next_cursor }
    }
}

/// Rows of a page when none are named.
const PAGE_DEFAULT: i64 = 50;

/// The wanted number of rows, checked.
pub(crate) fn size(limit: Option<i64>) -> Result<i64, OpError> {
    let size = limit.unwrap_or(PAGE_DEFAULT);
    if (1..=limits::PAGE_MAX).contains(&size) {
        return Ok(size);
    }
    Err(OpError::invalid(format!(
        "limit is 1 to {}, not {size}",
        limits::PAGE_MAX
    )))
}

/// What a cursor that is the number of the last row looks like.
pub(crate) const NUMBER: &str = "^[0-9]{1,18}$";

/// A cursor that is the number of the last row.
pub(crate) fn number(cursor: Option<&str>) -> Result<Option<i64>, OpError> {
    cursor.map(figure).transpose()
}

/// A cursor that is the text of the last row, which has no more characters than this.
pub(crate) fn text(cursor: Option<&str>, most: usize) -> Result<Option<&str>, OpError> {
    let fits = cursor.is_none_or(|text| (1..=most).contains(&text.chars().count()));
    fits.then_some(cursor).ok_or_else(wrong_cursor)
}

/// A number, written with digits alone.
fn figure<T: FromStr>(part: &str) -> Result<T, OpError> {
    let parsed = match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse().ok(),
        false => None,
    };
    parsed.ok_or_else(wrong_cursor)
}

/// The parts of a cursor, read one after the other.
pub(crate) struct Parts<'a>(Split<'a, char>);

impl<'a> Parts<'a> {
    /// Of this cursor; between them stands this character.
    pub(crate) fn of(cursor: &'a str, between: char) -> Self {
        Self(cursor.split(between))
    }

    /// The next one, which is a number.
    pub(crate) fn figure<T: FromStr>(&mut self) -> Result<T, OpError> {
        figure(self.0.next().ok_or_else(wrong_cursor)?)
    }

    /// The next one, which is one of these words.
    pub(crate) fn word(&mut self, words: &[&str]) -> Result<String, OpError> {
        let part = self.0.next().filter(|part| words.contains(part));
        part.map(str::to_owned).ok_or_else(wrong_cursor)
    }

    /// What was read, when nothing is left.
    pub(crate) fn whole<T>(mut self, read: T) -> Result<T, OpError> {
        match self.0.next() {
            None => Ok(read),
            Some(_surplus) => Err(wrong_cursor()),
        }
    }
}

/// Somebody made a cursor up.
fn wrong_cursor() -> OpError {
    OpError::invalid("cursor is not one that a list gave out")
        .hint("Give the next_cursor of the page before, or none for the first page.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_a_list_gave_out() {
        assert_eq!(number(None).unwrap(), None);
        assert_eq!(number(Some("42")).unwrap(), Some(42));
        for made_up in ["", "-1", "+4", "x", "99999999999999999999"] {
            assert!(number(Some(made_up)).is_err(), "{made_up}");
        }
    }

    #[test]
    fn a_cursor_that_is_a_text_is_no_longer_than_one() {
        assert_eq!(text(None, 3).unwrap(), None);
        assert_eq!(text(Some("äöü"), 3).unwrap(), Some("äöü"));
        for made_up in ["", "abcd"] {
            assert!(text(Some(made_up), 3).is_err(), "{made_up}");
        }
    }

    #[test]
    fn a_cursor_of_parts_has_each_of_them_and_no_more() {
        let read = |cursor: &str| -> Result<(i16, i64, String), OpError> {
            let mut parts = Parts::of(cursor, '.');
            let read = (parts.figure()?, parts.figure()?, parts.word(&["model"])?);
            parts.whole(read)
        };
        assert_eq!(read("1.70000.model").unwrap(), (1, 70_000, "model".into()));
        for made_up in [
            "",
            "1",
            "1.2",
            "1.2.x",
            "1.2.model.3",
            "70000.1.model",
            "1.+2.model",
        ] {
            assert!(read(made_up).is_err(), "{made_up}");
        }
    }
}
