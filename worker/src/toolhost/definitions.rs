//! The tools as models see them: names, descriptions, schemas.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{apply_patch, edit, glob, grep, list, read, shell, write};

/// A tool of the native agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// How a call names it.
    pub name: &'static str,
    /// What a model reads about it.
    pub description: &'static str,
    /// What people see it as: `read`, `edit`, `search` or `execute`.
    pub kind: &'static str,
    /// Whether calls of it may run beside others.
    pub concurrency: Concurrency,
    /// JSON Schema of its input, an object without references.
    pub schema: Value,
}

/// How calls of a tool stand to others of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// It only reads: beside others that only read.
    Shared,
    /// By itself.
    Alone,
}

/// All tools, in the order in which models are told of them. Always the same bytes, so that a
/// provider's prompt cache holds.
pub fn definitions() -> &'static [Tool] {
    static ALL: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        vec![
            read::definition(),
            list::definition(),
            glob::definition(),
            grep::definition(),
            edit::definition(),
            write::definition(),
            apply_patch::definition(),
            shell::definition(),
        ]
    });
    &ALL
}

/// A field of an input.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: Required,
    pub(super) shape: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Required {
    Yes,
    No,
}

/// A text.
pub(super) fn text(name: &'static str, required: Required, description: &str) -> Field {
    let shape = json!({ "type": "string", "description": description });
    Field {
        name,
        required,
        shape,
    }
}

/// A number that nobody must give.
pub(super) fn number(name: &'static str, bounds: [u64; 2], description: &str) -> Field {
    let [least, most] = bounds;
    let mut shape = json!({ "type": "integer", "minimum": least, "description": description });
    if most < u64::MAX {
        shape["maximum"] = most.into();
    }
    Field {
        name,
        required: Required::No,
        shape,
    }
}

/// A switch that nobody must give.
pub(super) fn switch(name: &'static str, description: &str) -> Field {
    let shape = json!({ "type": "boolean", "description": description });
    Field {
        name,
        required: Required::No,
        shape,
    }
}

/// The schema of an input.
pub(super) fn schema(fields: impl IntoIterator<Item = Field>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        if field.required == Required::Yes {
            required.push(field.name);
        }
        properties.insert(field.name.to_owned(), field.shape);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_one_that_all_providers_take() {
        for tool in definitions() {
            let text = tool.schema.to_string();
            for refused in ["$ref", "anyOf", "oneOf", "null"] {
                assert!(!text.contains(refused), "{}: {refused}", tool.name);
            }
            assert_eq!(tool.schema["type"], "object");
            assert_eq!(tool.schema["additionalProperties"], false);
            let properties = tool.schema["properties"].as_object().unwrap();
            for (name, property) in properties {
                assert!(property["type"].is_string(), "{}.{name}", tool.name);
                assert!(property["description"].is_string(), "{}.{name}", tool.name);
            }
            let required = tool.schema["required"].as_array().unwrap();
            let is_there = |name: &Value| properties.contains_key(name.as_str().unwrap());
            assert!(required.iter().all(is_there), "{}", tool.name);
            assert!(["read", "edit", "search", "execute"].contains(&tool.kind));
        }
    }

    #[test]
    fn the_names_that_agents_toml_may_disable_are_those_of_the_tools() {
        let own = definitions().iter().map(|tool| tool.name);
        let all: Vec<&str> = own.chain(["todo_write"]).collect();
        assert_eq!(all, crate::domain::tool_names::BUILT_IN);
    }

    #[test]
    fn tools_that_only_read_may_run_together() {
        let shared: Vec<&str> = definitions()
            .iter()
            .filter(|tool| tool.concurrency == Concurrency::Shared)
            .map(|tool| tool.name)
            .collect();
        assert_eq!(shared, ["read", "list", "glob", "grep"]);
    }
}
