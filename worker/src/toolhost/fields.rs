//! The input of a call, read field by field: an error names the field and says what is right.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::outcome::Told;

/// The members of an input. What nobody asks for is ignored: models add members of their own.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of(input: Value) -> Told<Self> {
        match input {
            Value::Object(members) => Ok(Self(members)),
            other => Err(format!(
                "the input must be a JSON object with the tool's fields, not {}",
                kind(&other)
            )),
        }
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str, aliases: &[&str]) -> Told<String> {
        self.maybe_text(name, aliases)?
            .ok_or_else(|| format!("the field `{name}` is missing: it must be a string"))
    }

    pub(super) fn maybe_text(&mut self, name: &str, aliases: &[&str]) -> Told<Option<String>> {
        self.take(name, aliases, "a string")
    }

    pub(super) fn maybe_number(&mut self, name: &str, aliases: &[&str]) -> Told<Option<u64>> {
        self.take(name, aliases, "a whole number that is not negative")
    }

    /// A switch, off when it is not there.
    pub(super) fn switch(&mut self, name: &str, aliases: &[&str]) -> Told<bool> {
        let value = self.take(name, aliases, "true or false")?;
        Ok(value.unwrap_or_default())
    }

    /// `null` counts as absent: many models spell it so.
    fn take<T: DeserializeOwned>(
        &mut self,
        name: &str,
        aliases: &[&str],
        right: &str,
    ) -> Told<Option<T>> {
        let names = std::iter::once(&name).chain(aliases);
        let found = names
            .filter_map(|name| self.0.remove(*name))
            .find(|value| !value.is_null());
        let Some(value) = found else {
            return Ok(None);
        };
        let wrong = format!("the field `{name}` must be {right}, not {}", kind(&value));
        serde_json::from_value(value).map(Some).map_err(|_| wrong)
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(input: Value) -> Fields {
        Fields::of(input).unwrap()
    }

    #[test]
    fn a_wrong_type_names_the_field_and_what_is_right() {
        let error = fields(json!({ "path": 3 })).text("path", &[]).unwrap_err();
        assert_eq!(error, "the field `path` must be a string, not 3");
        let error = fields(json!({ "limit": "5" })).maybe_number("limit", &[]);
        let expected =
            "the field `limit` must be a whole number that is not negative, not a string";
        assert_eq!(error.unwrap_err(), expected);
        assert!(
            fields(json!({ "limit": -5 }))
                .maybe_number("limit", &[])
                .is_err()
        );
        assert!(fields(json!({ "all": "yes" })).switch("all", &[]).is_err());
        let missing = fields(json!({})).text("path", &["file_path"]).unwrap_err();
        assert_eq!(missing, "the field `path` is missing: it must be a string");
        assert!(Fields::of(json!("path")).is_err());
    }

    #[test]
    fn other_names_junk_and_null_are_forgiven() {
        let mut input = fields(json!({ "filePath": "a", "limit": null, "junk": [1] }));
        assert_eq!(input.text("path", &["file_path", "filePath"]).unwrap(), "a");
        assert_eq!(input.maybe_number("limit", &[]).unwrap(), None);
        assert!(!input.switch("all", &[]).unwrap());
    }
}
