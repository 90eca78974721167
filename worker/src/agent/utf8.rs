//! Bytes that come in pieces → text, also when a character is cut between two reads.

use serde_json::Value;

/// An incremental decoder; what is no UTF-8 becomes U+FFFD, NUL too (Postgres refuses it).
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    carry: Vec<u8>,
}

impl Decoder {
    /// The text of these bytes as far as its characters are complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.carry.extend(bytes);
        let incomplete = match std::str::from_utf8(&self.carry) {
            // Only a cut character at the very end may still become whole.
            Err(error) if error.error_len().is_none() => self.carry.len() - error.valid_up_to(),
            _ => incomplete_tail(&self.carry),
        };
        let rest = self.carry.split_off(self.carry.len() - incomplete);
        let text = clean(&String::from_utf8_lossy(&self.carry));
        self.carry = rest;
        text
    }

    /// What is left, complete or not.
    pub(crate) fn finish(&mut self) -> String {
        clean(&String::from_utf8_lossy(&std::mem::take(&mut self.carry)))
    }
}

/// NUL becomes U+FFFD.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

/// A JSON value whose strings hold no NUL either: Postgres would refuse the whole result for it.
pub(crate) fn json(line: &[u8]) -> serde_json::Result<Value> {
    let value = serde_json::from_slice(line)?;
    // JSON can only spell it; most lines are spared the walk.
    let spells_nul = line.windows(6).any(|part| part == br"\u0000");
    Ok(if spells_nul {
        without_nul(value)
    } else {
        value
    })
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(values) => values.into_iter().map(without_nul).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (clean(&key), without_nul(value)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// Bytes at the end that begin a character and do not end it, after an earlier fault.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let tail = bytes
        .get(bytes.len().saturating_sub(3)..)
        .unwrap_or_default();
    (1..=tail.len())
        .find(|length| {
            let part = tail.get(tail.len() - length..).unwrap_or_default();
            std::str::from_utf8(part)
                .is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_nul_however_deep() {
        let value = json(br#"{"a\u0000":["\u0000",{"b":"x\u0000y"},1],"c":"\\u0000"}"#).unwrap();
        let expected = serde_json::json!({
            "a\u{FFFD}": ["\u{FFFD}", {"b": "x\u{FFFD}y"}, 1], "c": "\\u0000",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn every_cut_gives_the_same_text_as_one_read() {
        let bytes = b"a\xff\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xe2\x82 z\0\xc3".as_slice();
        let whole = String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}");
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut text: String = bytes.chunks(size).map(|part| decoder.push(part)).collect();
            text.push_str(&decoder.finish());
            assert_eq!(text, whole, "parts of {size}");
        }
    }
}
