//! Small pure helpers on text that goes into rows.

use serde_json::Value;

/// Postgres text and jsonb cannot hold NUL; it becomes the replacement character.
pub fn storable_text(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// The same for every string inside a value.
pub fn storable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable_text(text)),
        Value::Array(values) => values.into_iter().map(storable).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(k, v)| (storable_text(k), storable(v)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// The last `most` characters.
pub fn tail_chars(text: &str, most: usize) -> &str {
    let cut = most
        .checked_sub(1)
        .and_then(|back| text.char_indices().rev().nth(back));
    cut.map_or(text, |(at, _)| &text[at..])
}

/// The first `most` characters, with a mark where something is left out.
pub fn head_chars(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tail_is_cut_at_a_character() {
        assert_eq!(tail_chars("aéb", 2), "éb");
        assert_eq!(tail_chars("aéb", 9), "aéb");
    }

    #[test]
    fn the_head_says_that_it_is_cut() {
        assert_eq!(head_chars("aéb", 2), "aé…");
        assert_eq!(head_chars("aé", 2), "aé");
    }

    #[test]
    fn nul_never_reaches_the_database() {
        let value = storable(json!({"a\0": ["\0", 1]}));
        assert_eq!(value, json!({"a\u{fffd}": ["\u{fffd}", 1]}));
    }
}
