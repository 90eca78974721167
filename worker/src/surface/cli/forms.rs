//! How single values are shown to people.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::super::safe_text;
use crate::domain::flag;

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Text,
    /// Prose: its white space as single spaces.
    Prose,
    /// Prose that somebody acts on: it is never cut.
    Whole,
    /// The word of a state, coloured.
    State,
    /// A timestamp, as how long ago.
    Ago,
    /// A number, with its thousands apart.
    Count,
    /// A number with a hash.
    Id,
    /// A list, joined by commas.
    List,
    /// Warnings, in words.
    Flags,
    /// How many entries a list has.
    Len,
}

/// A value as one line of harmless text; empty when there is none.
pub(crate) fn show(value: &Value, form: Form, now: DateTime<Utc>) -> String {
    match (value, form) {
        (Value::Null, _) => String::new(),
        (Value::String(text), Form::Ago) => DateTime::parse_from_rfc3339(text)
            .map(|at| ago(at.to_utc(), now))
            .unwrap_or_else(|_| safe_text::line(text)),
        (Value::String(text), Form::Prose | Form::Whole) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            safe_text::line(&words.join(" "))
        }
        (Value::Number(number), Form::Count) => number
            .as_i64()
            .map_or_else(|| number.to_string(), thousands),
        (Value::Number(number), Form::Id) => format!("#{number}"),
        (Value::Array(entries), Form::Len) => match entries.len() {
            0 => String::new(),
            some => some.to_string(),
        },
        (Value::Array(entries), Form::Flags) => {
            let flags = entries.iter().filter_map(Value::as_str);
            let words: Vec<String> = flags.map(|f| safe_text::line(&flag::words(f))).collect();
            words.join(", ")
        }
        (Value::Array(entries), _) => {
            // Things with a name (an agent's commands) by their names: the rest is pages long.
            let named = |entry| Value::get(entry, "name").filter(|name| name.is_string());
            let shown: Vec<String> = entries
                .iter()
                .map(|entry| show(named(entry).unwrap_or(entry), Form::Text, now))
                .collect();
            shown.join(", ")
        }
        (Value::Bool(true), _) => "yes".to_owned(),
        (Value::Bool(false), _) => "no".to_owned(),
        (Value::String(text), _) => safe_text::line(text),
        (Value::Number(number), _) => number.to_string(),
        (Value::Object(_), _) => safe_text::line(&value.to_string()),
    }
}

/// `3m ago`, `in 2h`; a date when it is long ago.
pub(crate) fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds();
    let (ahead, distance) = (seconds < 0, seconds.unsigned_abs());
    let text = match distance {
        0..=2 => return "now".to_owned(),
        3..=89 => format!("{distance}s"),
        90..=5_399 => format!("{}m", (distance + 30) / 60),
        5_400..=129_599 => format!("{}h", (distance + 1_800) / 3_600),
        129_600..=2_591_999 => format!("{}d", (distance + 43_200) / 86_400),
        _ => return at.format("%Y-%m-%d").to_string(),
    };
    if ahead {
        format!("in {text}")
    } else {
        format!("{text} ago")
    }
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: &str, noun: &str) -> String {
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `0:42`, `12:05`, `1:02:03`.
pub(crate) fn clock(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if h > 0 {
        format!("{h}:{m:02}:{s:02}")
    } else {
        format!("{m}:{s:02}")
    }
}

/// `12_345` as `12,345`.
pub(crate) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    if number < 0 {
        format!("-{shown}")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_with_a_name_are_listed_by_it() {
        let commands = serde_json::json!([
            {"name": "plan", "description": "Turn plan mode on."}, {"name": "review"}, "x",
        ]);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(show(&commands, Form::Text, now), "plan, review, x");
    }

    #[test]
    fn times_are_told_by_distance() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |s| ago(now - chrono::Duration::seconds(s), now);
        assert_eq!(
            [at(1), at(30), at(180), at(7_200), at(-600), at(9_999_999)],
            ["now", "30s ago", "3m ago", "2h ago", "in 10m", "2026-09-21"]
        );
        assert_eq!(clock(3_723), "1:02:03");
        assert_eq!(thousands(-1_234_567), "-1,234,567");
    }
}
