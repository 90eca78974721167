//! Values that people write: ids, durations, times. Strings become types here and nowhere else.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::ids::{ChangeId, MessageId, PermissionId, TaskId, TokenId};

/// A text in which something stands, as a pattern of JSON Schema.
pub(crate) const SOMETHING: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";

/// Highest id that is taken for one: 18 digits, which a bigint holds.
const ID_MAX: i64 = 999_999_999_999_999_999;

/// An id as text, as a pattern of JSON Schema.
pub(crate) const ID: &str = "^#?[1-9][0-9]{0,17}$";

/// Names of which there is one at least: nobody means all of them by none.
pub(crate) fn some_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    match names.is_empty() {
        true => Err(de::Error::custom(
            "an empty list names none: leave it out for all of them",
        )),
        false => Ok(names),
    }
}

/// A setting where null is said and not left out: it is taken away, as the empty value takes it.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(from).map(|value| Some(value.unwrap_or_default()))
}

macro_rules! reference {
    ($(#[$doc:meta])* $name:ident, $id:ident, $thing:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $id);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                number(text).map(|n| Self($id(n))).ok_or_else(|| {
                    format!(concat!("the id of a ", $thing, " is a number such as 42 or #42, not {:?}"), text)
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(NumberOrText)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!("Id of a ", $thing, ", as a number or as text."),
                    "anyOf": [
                        {"type": "integer", "minimum": 1, "maximum": ID_MAX},
                        {"type": "string", "pattern": ID}
                    ]
                })
            }
        }
    };
}

reference!(
    /// A task, as people name it.
    TaskRef,
    TaskId,
    "task"
);
reference!(
    /// A change, as people name it.
    ChangeRef,
    ChangeId,
    "change"
);
reference!(
    /// A permission request, as people name it.
    PermissionRef,
    PermissionId,
    "permission request"
);
reference!(
    /// A message, as people name it.
    MessageRef,
    MessageId,
    "message"
);
reference!(
    /// A token, as people name it.
    TokenRef,
    TokenId,
    "token"
);

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|n| (1..=ID_MAX).contains(n))
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or text")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// A length of time as people write it: `90s`, `30m`, `1h30m`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Longest length of time that is taken seriously: ten years.
const SPAN_MAX_S: f64 = 10.0 * 366.0 * 86_400.0;

impl Span {
    /// The length in seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("a length of time is written like 90s, 30m, 1h30m or 2d, not {text:?}");
        let mut rest = text.trim();
        let mut seconds = 0.0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (figure, tail) = rest.split_at(digits);
            let unit = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, after) = tail.split_at(unit);
            if figure.starts_with('.') || figure.ends_with('.') {
                return Err(wrong());
            }
            let factor = match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                _ => return Err(wrong()),
            };
            seconds += figure.parse::<f64>().map_err(|_| wrong())? * factor;
            rest = after.trim_start();
        }
        if !(0.001..=SPAN_MAX_S).contains(&seconds) {
            return Err(format!(
                "a length of time is 1ms to ten years, not {text:?}"
            ));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seconds = self.0.as_secs();
        for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if seconds >= length {
                write!(f, "{}{unit}", seconds / length)?;
                seconds %= length;
            }
        }
        let millis = self.0.subsec_millis();
        if seconds > 0 || (self.0.as_secs() == 0 && millis == 0) {
            write!(f, "{seconds}s")?;
        }
        if millis > 0 {
            write!(f, "{millis}ms")?;
        }
        Ok(())
    }
}

/// A timestamp as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(pub DateTime<Utc>);

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("a time is written like 2026-05-04T09:30:00Z, not {text:?}");
        text.parse().map(Self).map_err(wrong)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        DateTime::<Utc>::schema_name()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        DateTime::<Utc>::json_schema(schemas)
    }
}

/// A moment as people write it: a timestamp, or a length of time from now (`+10m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This moment.
    At(DateTime<Utc>),
    /// So long after the database's now.
    In(Span),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(span) = text.strip_prefix('+') {
            return span.parse().map(Self::In);
        }
        DateTime::parse_from_rfc3339(text)
            .map(|at| Self::At(at.to_utc()))
            .map_err(|_| {
                format!("a time is written like 2026-05-04T09:30:00Z or +10m, not {text:?}")
            })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => f.write_str(&at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            Self::In(span) => write!(f, "+{span}"),
        }
    }
}

macro_rules! text_value {
    ($name:ident, $about:literal, $example:literal, $pattern:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "description": $about, "examples": [$example], "pattern": $pattern,
                })
            }
        }
    };
}

text_value!(
    Span,
    "A length of time: 90s, 30m, 1h30m, 2d.",
    "30m",
    r"^([0-9]+(\.[0-9]+)?(ms|s|min|m|h|d|w) ?)+$"
);
text_value!(
    Moment,
    "A timestamp (RFC 3339), or a length of time from now (+10m).",
    "+10m",
    r"^(\+([0-9]+(\.[0-9]+)?(ms|s|min|m|h|d|w) ?)+|2[01][0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-2][0-9]:[0-5][0-9]))$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_with_or_without_a_hash() {
        let ids = ["42", "#42"].map(|t| t.parse::<TaskRef>().map(|r| r.0.0));
        assert_eq!(ids, [Ok(42), Ok(42)]);
        for wrong in ["", "#", "4x", "-1", "0", "042", "+4", "1000000000000000000"] {
            assert!(wrong.parse::<TaskRef>().is_err(), "{wrong}");
        }
        let read: TaskRef = serde_json::from_str("42").unwrap();
        assert_eq!(read.0.0, 42);
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_the_form_of_one() {
        let read: Timestamp = serde_json::from_str(r#""2026-05-04T09:30:00+02:00""#).unwrap();
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(written, r#""2026-05-04T07:30:00Z""#);
        let told = "bogus".parse::<Timestamp>().unwrap_err();
        assert!(
            told.contains("like 2026-05-04T09:30:00Z, not \"bogus\""),
            "{told}"
        );
        let told = serde_json::from_str::<Timestamp>("\"2026\"").unwrap_err();
        assert!(told.to_string().contains("09:30:00Z"), "{told}");
    }

    #[test]
    fn lengths_of_time_are_read_and_written_alike() {
        let cases = [
            ("90s", 90.0, "1m30s"),
            ("1h30m", 5_400.0, "1h30m"),
            ("2d", 172_800.0, "2d"),
            ("250ms", 0.25, "250ms"),
            ("1.5h", 5_400.0, "1h30m"),
        ];
        for (text, seconds, written) in cases {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                (span.seconds(), span.to_string().as_str()),
                (seconds, written)
            );
        }
        for wrong in [
            "",
            "30",
            "m",
            "-5m",
            "5 parsecs",
            "1e9d",
            "1.s",
            ".5h",
            "0s",
            "9999999d",
        ] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_timestamps_or_lengths_from_now() {
        assert_eq!("+10m".parse::<Moment>().unwrap().to_string(), "+10m");
        let at: Moment = "2026-05-04T09:30:00+02:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-05-04T07:30:00Z");
        assert!("tomorrow".parse::<Moment>().is_err());
    }
}
