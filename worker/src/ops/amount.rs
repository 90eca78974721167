//! Money as people write it: exact, a number or text.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// An amount of money, in the currency of the price table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub Decimal);

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A number of JSON may be written as 5e-7.
        let read = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text));
        read.map(|amount| Self(amount.normalize()))
            .map_err(|_| format!("an amount is written like 2 or 0.50, not {text:?}"))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(from)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount of money, as a number or as text.",
            "anyOf": [
                {"type": "number", "minimum": 0.000_000_001, "maximum": 1_000_000_000_000_000_u64},
                {"type": "string", "pattern": "^(?=.*[1-9])[0-9]{1,15}(\\.[0-9]{1,12})?$"}
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_numbers_and_as_text_and_stay_exact() {
        for written in ["0.1", "\"0.10\""] {
            let amount: Amount = serde_json::from_str(written).unwrap();
            assert_eq!(amount.to_string(), "0.1");
        }
        // As JSON writes small numbers.
        let small: Amount = serde_json::from_str("5e-7").unwrap();
        assert_eq!(small.to_string(), "0.0000005");
        for wrong in ["", "much", "1,50"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Amount>("[1]").is_err());
    }
}
