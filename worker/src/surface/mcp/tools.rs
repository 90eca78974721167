//! One tool for each operation.

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::domain::scope::Scope;
use crate::ops::{self, Effect, OpEntry, Spec};

/// Which tools a client gets, by what they do to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups(u8);

impl Groups {
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// Those that are named, with commas between: read, write, destructive.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut groups = Self(0);
        for name in text.split(',').map(str::trim) {
            let known = Effect::ALL.iter().position(|one| one.as_str() == name);
            let Some(at) = known else {
                return Err(format!("{name:?} is none of read, write and destructive"));
            };
            groups.0 |= 1 << at;
        }
        Ok(groups)
    }

    /// What both have.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether operations with this effect are in it.
    pub fn has(self, effect: Effect) -> bool {
        let at = Effect::ALL.iter().position(|one| *one == effect);
        at.is_some_and(|at| self.0 & (1 << at) != 0)
    }
}

/// The tools of these groups for a caller with these scopes, those that change nothing first.
pub fn list(groups: Groups, scopes: &[Scope]) -> Vec<Tool> {
    let of = |effect: Effect| {
        let tools = TOOLS.iter().filter(move |(spec, _)| spec.effect == effect);
        tools.filter(|(spec, _)| spec.scope.is_in(scopes))
    };
    let wanted = Effect::ALL.into_iter().filter(|effect| groups.has(*effect));
    wanted.flat_map(of).map(|(_, tool)| tool.clone()).collect()
}

/// The operation of a tool.
pub fn find(name: &str) -> Option<&'static OpEntry> {
    ops::ALL.iter().find(|entry| entry.spec.word() == name)
}

static TOOLS: LazyLock<Vec<(Spec, Tool)>> = LazyLock::new(|| {
    let tool = |entry: &'static OpEntry| (entry.spec, tool(entry));
    ops::ALL.iter().map(tool).collect()
});

fn tool(entry: &OpEntry) -> Tool {
    let spec = entry.spec;
    let examples = (entry.examples)();
    let example = examples
        .first()
        .map(|example| format!("\n\nExample ({}): {}", example.about, example.input));
    let description = format!("{}.{}", spec.summary, example.unwrap_or_default());
    let annotations = ToolAnnotations::with_title(spec.summary)
        .read_only(spec.effect == Effect::Read)
        .destructive(spec.effect == Effect::Destructive)
        .idempotent(spec.idempotent)
        .open_world(false);
    Tool::new(spec.word(), description, schema(entry.input_schema))
        .with_raw_output_schema(schema(entry.output_schema))
        .with_annotations(annotations)
}

/// A schema without references: some clients hand it to models that know none.
fn schema(of: fn(&mut schemars::SchemaGenerator) -> schemars::Schema) -> Arc<JsonObject> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
    });
    let mut schema = Value::from(of(&mut settings.into_generator()));
    plain(&mut schema);
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

/// Leave out what validators of clients stumble over: names of number formats, which are Rust's.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let of_number = |format: &Value| {
                let format = format.as_str().unwrap_or_default();
                format.starts_with("int") || format.starts_with("uint") || format == "double"
            };
            if members.get("format").is_some_and(of_number) {
                members.remove("format");
            }
            members.values_mut().for_each(plain);
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_and_narrowed() {
        let read = Groups::parse("read").unwrap();
        assert!(read.has(Effect::Read) && !read.has(Effect::Write));
        let both = Groups::parse("read, write").unwrap();
        assert!(both.has(Effect::Write) && !both.has(Effect::Destructive));
        assert_eq!(both.and(read), read);
        assert_eq!(Groups::parse("read,write,destructive"), Ok(Groups::ALL));
        for wrong in ["", "read,", "delete"] {
            let told = Groups::parse(wrong).unwrap_err();
            assert!(told.contains("none of read, write"), "{told}");
        }
    }

    #[test]
    fn each_operation_is_a_tool_that_any_client_takes() {
        let all = list(Groups::ALL, &[Scope::Admin]);
        assert_eq!(all.len(), ops::ALL.len());
        for tool in &all {
            let name = tool.name.as_ref();
            let told = tool.annotations.as_ref().unwrap();
            let spec = find(name).unwrap().spec;
            assert_eq!(told.idempotent_hint, Some(spec.idempotent), "{name}");
            assert!(name.len() <= 64 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            let output = tool.output_schema.as_ref().unwrap();
            for schema in [&tool.input_schema, output] {
                assert_eq!(schema.get("type"), Some(&Value::from("object")), "{name}");
                let text = serde_json::to_string(schema).unwrap();
                assert!(!text.contains("$ref"), "{name}: {text}");
            }
        }
    }

    #[test]
    fn those_that_change_nothing_come_first_and_say_so() {
        let all = list(Groups::ALL, &[Scope::Admin]);
        let hints: Vec<(bool, bool)> = all
            .iter()
            .map(|tool| {
                let told = tool.annotations.as_ref().unwrap();
                (told.read_only_hint.unwrap(), told.destructive_hint.unwrap())
            })
            .collect();
        let mut sorted = hints.clone();
        sorted.sort_by_key(|(read, destructive)| (!read, *destructive));
        assert_eq!(hints, sorted);
        let reads = list(Groups::parse("read").unwrap(), &[Scope::Admin]);
        assert!(reads.iter().all(|tool| {
            let told = tool.annotations.as_ref().unwrap();
            told.read_only_hint == Some(true)
        }));
        assert!(list(Groups::ALL, &[]).is_empty());
        let submitters = list(Groups::ALL, &[Scope::Submit]);
        assert!(submitters.iter().any(|tool| tool.name == "task_submit"));
        assert!(submitters.iter().all(|tool| tool.name != "change_approve"));
    }
}
