//! The input of an operation, gathered from the parts of an HTTP request by the input's schema.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use crate::ops::{OpEntry, OpError};

/// How a value of a query is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As it stands.
    Text,
    /// As JSON: a number or a boolean.
    Json,
    /// One entry of a list; it may be there again.
    List,
}

/// The fields that an operation takes.
#[derive(Clone, Debug)]
pub struct Fields(BTreeMap<String, Kind>);

impl Fields {
    /// The fields of an operation, from the schema of its input.
    pub fn of(entry: &OpEntry) -> Self {
        let schema = (entry.input_schema)(&mut SchemaGenerator::default());
        let properties = schema.get("properties").and_then(Value::as_object);
        let kinds = properties
            .into_iter()
            .flatten()
            .map(|(name, property)| (name.clone(), kind(&property["type"])));
        Self(kinds.collect())
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// One input from path, query and body. A field in two places must say the same.
    pub fn gather(
        &self,
        path: &[(String, String)],
        query: &[(String, String)],
        body: Map<String, Value>,
    ) -> Result<Value, OpError> {
        let mut input = body;
        if let Some(name) = input.keys().find(|name| !self.has(name)) {
            return Err(unknown(name));
        }
        for (name, text) in query {
            let value = match self.0.get(name) {
                None => return Err(unknown(name)),
                Some(Kind::Text) => Value::String(text.clone()),
                Some(Kind::Json) => {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
                }
                Some(Kind::List) => {
                    let list = input
                        .entry(name.as_str())
                        .or_insert_with(|| Value::Array(vec![]));
                    if let Value::Array(list) = list {
                        list.push(Value::String(text.clone()));
                    }
                    continue;
                }
            };
            if input.insert(name.clone(), value).is_some() {
                return Err(OpError::invalid(format!("{name} is given twice")));
            }
        }
        for (name, text) in path {
            let read = match self.0.get(name) {
                Some(Kind::Json) => serde_json::from_str(text).ok(),
                Some(Kind::Text | Kind::List) | None => None,
            };
            let value = read.unwrap_or_else(|| Value::String(text.clone()));
            let other = input.insert(name.clone(), value);
            if other.is_some_and(|other| plain(&other) != *text) {
                return Err(OpError::invalid(format!(
                    "{name} is {text:?} in the path and something else in the rest"
                )));
            }
        }
        Ok(Value::Object(input))
    }
}

fn kind(kind: &Value) -> Kind {
    let names = match kind {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if names.contains(&"array") {
        Kind::List
    } else if names
        .iter()
        .any(|n| matches!(*n, "integer" | "number" | "boolean"))
    {
        Kind::Json
    } else {
        Kind::Text
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn unknown(name: &str) -> OpError {
    OpError::invalid(format!("unknown field {name:?}")).code("unknown_field")
}
