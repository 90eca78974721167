//! An operation with its types erased, so that all of them fit into one list.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::{Example, Op, OpContext, OpError, Spec};

/// A text without NUL, as a pattern of JSON Schema.
const NO_NUL: &str = "^[^\\u0000]*$";

type Call = for<'a> fn(&'a OpContext, Value) -> BoxFuture<'a, Result<Value, OpError>>;

/// One operation of the list.
pub struct OpEntry {
    /// Its declaration.
    pub spec: Spec,
    /// Its calls.
    pub examples: fn() -> Vec<Example>,
    /// Add its arguments to a command.
    pub augment: fn(clap::Command) -> clap::Command,
    /// Its input from parsed arguments.
    pub from_matches: fn(&clap::ArgMatches) -> Result<Value, OpError>,
    /// Read an input by its type and write it again without what is absent.
    pub normalize: fn(Value) -> Result<Value, OpError>,
    /// Shape of the input.
    pub input_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Shape of the output.
    pub output_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Do it.
    pub call: Call,
}

impl OpEntry {
    /// The entry of an operation.
    pub const fn of<O: Op>() -> Self {
        Self {
            spec: O::SPEC,
            examples: O::examples,
            augment: O::augment_args,
            from_matches: from_matches::<O>,
            normalize: normalize::<O>,
            input_schema: |schemas| without_nul(schemas, O::json_schema),
            output_schema: |schemas| schemas.subschema_for::<O::Output>(),
            call: call::<O>,
        }
    }
}

fn from_matches<O: Op>(matches: &clap::ArgMatches) -> Result<Value, OpError> {
    let input = O::from_arg_matches(matches).map_err(|e| OpError::invalid(e.to_string()))?;
    written(&input)
}

fn normalize<O: Op>(input: Value) -> Result<Value, OpError> {
    written(&read::<O>(input)?)
}

fn call<O: Op>(context: &OpContext, input: Value) -> BoxFuture<'_, Result<Value, OpError>> {
    async move {
        let output = read::<O>(input)?.run(context).await?;
        serde_json::to_value(output).map_err(|e| OpError::internal(format!("output: {e}")))
    }
    .boxed()
}

fn read<O: Op>(input: Value) -> Result<O, OpError> {
    if let Some(field) = with_nul(&input) {
        let message = format!("{field} has a NUL character");
        return Err(OpError::invalid(message).hint("No text may have one: leave it out."));
    }
    let fields = input.as_object().into_iter().flat_map(Map::keys);
    let given: BTreeSet<String> = fields.cloned().collect();
    serde_json::from_value(input).map_err(|error| {
        let message = error.to_string();
        // One of the input itself, and not of something in it.
        let lacks = missing(&message).filter(|field| !given.contains(*field));
        let meaning = lacks.and_then(meaning_of::<O>);
        let error = OpError::invalid(&*message);
        let error = match message.starts_with("unknown field `") {
            true => error.code("unknown_field"),
            false => error,
        };
        match meaning {
            Some(meaning) => error.hint(meaning),
            None => error,
        }
    })
}

/// The field that an input of this error lacks.
fn missing(error: &str) -> Option<&str> {
    let (field, _rest) = error.strip_prefix("missing field `")?.split_once('`')?;
    Some(field)
}

/// What a field is, by the declaration of its operation.
fn meaning_of<O: Op>(field: &str) -> Option<String> {
    let schema = SchemaGenerator::default().into_root_schema_for::<O>();
    let about = schema.get("properties")?.get(field)?.get("description")?;
    Some(format!("{field}: {}", about.as_str()?))
}

/// The field of an input that has a NUL somewhere: Postgres has none in text, and paths neither.
fn with_nul(input: &Value) -> Option<&str> {
    fn has(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(entries) => entries.iter().any(has),
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| name.contains('\0') || has(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let mut fields = input.as_object()?.iter();
    fields.find_map(|(name, value)| has(value).then_some(name.as_str()))
}

/// The schema of an input where each text of which nothing else is said says that it has no NUL, also in
/// the types it refers to.
fn without_nul(schemas: &mut SchemaGenerator, of: fn(&mut SchemaGenerator) -> Schema) -> Schema {
    let mut schema = of(schemas);
    let mut open = Vec::new();
    schema.ensure_object();
    mark(schema.as_object_mut(), &mut open);
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        let fresh = seen.insert(name.clone());
        if let Some(parts) = schemas.definitions_mut().get_mut(&name)
            && fresh
        {
            mark(parts.as_object_mut(), &mut open);
        }
    }
    schema
}

/// Mark the texts of a schema, and add the names of what it refers to.
fn mark(parts: Option<&mut Map<String, Value>>, refers: &mut Vec<String>) {
    let Some(parts) = parts else { return };
    for (word, value) in parts.iter_mut() {
        match (word.as_str(), value) {
            ("$ref", Value::String(to)) => refers.extend(to.rsplit('/').next().map(str::to_owned)),
            ("items" | "additionalProperties", value) => mark(value.as_object_mut(), refers),
            ("properties", Value::Object(fields)) => fields
                .values_mut()
                .for_each(|field| mark(field.as_object_mut(), refers)),
            ("anyOf" | "oneOf" | "allOf", Value::Array(cases)) => cases
                .iter_mut()
                .for_each(|case| mark(case.as_object_mut(), refers)),
            _ => {}
        }
    }
    let is_text = match parts.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        _ => false,
    };
    let says_more = ["pattern", "format", "enum", "const"];
    if is_text && !says_more.iter().any(|word| parts.contains_key(*word)) {
        parts.insert("pattern".to_owned(), Value::from(NO_NUL));
    }
}

fn written<O: Op>(input: &O) -> Result<Value, OpError> {
    let mut value =
        serde_json::to_value(input).map_err(|e| OpError::internal(format!("input: {e}")))?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ops;

    #[test]
    fn no_text_of_an_input_has_a_nul_and_the_schema_says_so() {
        let inputs = [
            (
                "task.submit",
                json!({"project": "shop", "input": "x", "agent": "a\0"}),
                "agent",
            ),
            (
                "change.preview",
                json!({"id": 1, "files": ["a", "b\0"]}),
                "files",
            ),
            (
                "task.submit-many",
                json!({"tasks": [{"project": "\0", "input": "x"}]}),
                "tasks",
            ),
        ];
        for (name, input, field) in inputs {
            let entry = ops::find(name).unwrap();
            let error = (entry.normalize)(input).unwrap_err();
            assert_eq!(error.message, format!("{field} has a NUL character"));
        }
        let mut schemas = SchemaGenerator::default();
        let files = (ops::find("change.preview").unwrap().input_schema)(&mut schemas);
        let files = &files.get("properties").unwrap()["files"];
        assert_eq!(files["items"]["pattern"], NO_NUL);
        (ops::find("task.submit-many").unwrap().input_schema)(&mut schemas);
        let texts = schemas.definitions().values();
        let texts = texts.filter_map(|schema| schema["properties"]["agent"]["pattern"].as_str());
        assert_eq!(texts.collect::<Vec<_>>(), [NO_NUL]);
    }
}
