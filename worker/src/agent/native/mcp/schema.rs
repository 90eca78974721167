//! Schemas of MCP tools in the words that all providers take. Servers generate theirs from types,
//! with references, `null` and combinations of which each provider refuses others, and one that
//! refuses a schema refuses the request. What is lost here only tells the model less: the server
//! checks what it is called with.

use serde_json::{Map, Value, json};

use crate::domain::limits;

/// Deepest schema that is kept; below, anything goes.
const DEPTH_MAX: usize = 16;

/// Words that are kept as they are.
const KEPT: [&str; 5] = ["description", "minimum", "maximum", "minItems", "maxItems"];

/// The schema of a tool's input: an object, without references.
pub(super) fn plain(schema: &Map<String, Value>) -> Value {
    let whole = Value::Object(schema.clone());
    let mut reader = Reader {
        whole: &whole,
        left: limits::MCP_SCHEMA_PARTS_MAX,
        open: Vec::new(),
    };
    let mut made = reader.read(&whole, 0).words;
    // The top is an object and no choice: of one, all members may be given.
    if let Some(Value::Array(choices)) = made.remove("anyOf") {
        for choice in choices {
            let properties = choice.get("properties").cloned();
            merge(
                &mut made,
                properties.into_iter().map(|all| ("properties", all)),
            );
        }
    }
    made.remove("enum");
    made.insert("type".to_owned(), json!("object"));
    made.entry("properties").or_insert_with(|| json!({}));
    Value::Object(made)
}

struct Reader<'a> {
    whole: &'a Value,
    /// Parts that may still be read: references can make much of little.
    left: usize,
    /// References that are being followed.
    open: Vec<&'a str>,
}

/// A schema that was read.
#[derive(Debug, Default)]
struct Read {
    words: Map<String, Value>,
    nullable: bool,
}

impl Read {
    fn is_null(&self) -> bool {
        self.nullable && self.words.is_empty()
    }
}

impl<'a> Reader<'a> {
    fn read(&mut self, schema: &'a Value, depth: usize) -> Read {
        let mut read = Read::default();
        // `true` and `false` are schemas too.
        let Some(given) = schema.as_object() else {
            return read;
        };
        if depth >= DEPTH_MAX || self.left == 0 {
            return read;
        }
        self.left -= 1;
        if let Some(to) = given.get("$ref").and_then(Value::as_str) {
            read = self.follow(to, depth);
        }
        for part in list(given.get("allOf")) {
            let part = self.read(part, depth + 1);
            read.nullable |= part.nullable;
            let words = part.words.into_iter();
            words.for_each(|(word, value)| merge(&mut read.words, [(word.as_str(), value)]));
        }
        for word in KEPT {
            if let Some(value) = given.get(word) {
                read.words.insert(word.to_owned(), value.clone());
            }
        }
        read_type(given, &mut read);
        read_values(given, &mut read);
        self.choices(given, &mut read, depth);
        self.members(given, &mut read.words, depth);
        self.elements(given, &mut read.words, depth);
        read
    }

    /// What a reference leads to. One that leads back to itself, or out of the schema, is anything.
    fn follow(&mut self, to: &'a str, depth: usize) -> Read {
        let target = to.strip_prefix('#').and_then(|at| self.whole.pointer(at));
        match target.filter(|_| !self.open.contains(&to)) {
            Some(target) => {
                self.open.push(to);
                let read = self.read(target, depth + 1);
                self.open.pop();
                read
            }
            None => Read::default(),
        }
    }

    fn choices(&mut self, given: &'a Map<String, Value>, read: &mut Read, depth: usize) {
        let all = list(given.get("anyOf")).chain(list(given.get("oneOf")));
        let mut choices: Vec<Map<String, Value>> = Vec::new();
        for choice in all {
            let choice = self.read(choice, depth + 1);
            read.nullable |= choice.nullable;
            if !choice.is_null() && !choices.contains(&choice.words) {
                choices.push(choice.words);
            }
        }
        if choices.len() > 1 {
            read.words.insert("anyOf".to_owned(), json!(choices));
            return;
        }
        for (word, value) in choices.into_iter().flatten() {
            merge(&mut read.words, [(word.as_str(), value)]);
        }
    }

    fn members(
        &mut self,
        given: &'a Map<String, Value>,
        words: &mut Map<String, Value>,
        depth: usize,
    ) {
        let mut optional = Vec::new();
        if let Some(members) = given.get("properties").and_then(Value::as_object) {
            let mut properties = Map::new();
            for (name, member) in members {
                let member = self.read(member, depth + 1);
                // What may be null may be left out: there is no other word for it.
                if member.nullable || !is_name(name) {
                    optional.push(name.as_str());
                }
                if is_name(name) {
                    properties.insert(name.clone(), Value::Object(member.words));
                }
            }
            words.entry("type").or_insert_with(|| json!("object"));
            merge(words, [("properties", Value::Object(properties))]);
        }
        let required = list(given.get("required")).filter_map(Value::as_str);
        let required: Vec<&str> = required.filter(|name| !optional.contains(name)).collect();
        if !required.is_empty() {
            merge(words, [("required", json!(required))]);
        }
        match given.get("additionalProperties") {
            Some(Value::Bool(more)) => {
                words.insert("additionalProperties".to_owned(), json!(more));
            }
            Some(schema @ Value::Object(_)) => {
                let schema = self.read(schema, depth + 1).words;
                words.insert("additionalProperties".to_owned(), Value::Object(schema));
            }
            Some(_) | None => {}
        }
    }

    fn elements(
        &mut self,
        given: &'a Map<String, Value>,
        words: &mut Map<String, Value>,
        depth: usize,
    ) {
        if let Some(items) = given.get("items") {
            let items = self.read(items, depth + 1).words;
            words.insert("items".to_owned(), Value::Object(items));
        }
        // Some providers refuse a list of nobody knows what.
        if words.get("type").is_some_and(|kind| kind == "array") {
            words.entry("items").or_insert_with(|| json!({}));
        }
    }
}

fn read_type(given: &Map<String, Value>, read: &mut Read) {
    let one = given.get("type").filter(|kind| kind.is_string());
    let many = one.into_iter().chain(list(given.get("type")));
    let mut kinds: Vec<&str> = many.filter_map(Value::as_str).collect();
    let all = kinds.len();
    kinds.retain(|kind| *kind != "null");
    read.nullable |= kinds.len() < all;
    let kind = match kinds.as_slice() {
        [] => return,
        [kind] => json!(kind),
        kinds => json!(kinds),
    };
    read.words.insert("type".to_owned(), kind);
}

/// The values that are allowed, where they are words or numbers.
fn read_values(given: &Map<String, Value>, read: &mut Read) {
    let only = given.get("const");
    let mut values: Vec<&Value> = list(given.get("enum")).chain(only).collect();
    let all = values.len();
    values.retain(|value| !value.is_null());
    read.nullable |= values.len() < all;
    let simple = |value: &&Value| value.is_string() || value.is_number();
    if !values.is_empty() && values.iter().all(simple) {
        read.words.insert("enum".to_owned(), json!(values));
    }
}

/// Add words to a schema. Members come together; of anything else the first word stands.
fn merge<'w>(words: &mut Map<String, Value>, more: impl IntoIterator<Item = (&'w str, Value)>) {
    for (word, value) in more {
        match (words.get_mut(word), value) {
            (Some(Value::Object(known)), Value::Object(new)) if word == "properties" => {
                for (name, member) in new {
                    known.entry(name).or_insert(member);
                }
            }
            (Some(Value::Array(known)), Value::Array(new)) if word == "required" => {
                let new: Vec<Value> = new.into_iter().filter(|n| !known.contains(n)).collect();
                known.extend(new);
            }
            (Some(_), _) => {}
            (None, value) => {
                words.insert(word.to_owned(), value);
            }
        }
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

/// A name of a member that all providers take.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(given: &Value, expected: &Value) {
        assert_eq!(plain(given.as_object().unwrap()), *expected);
    }

    #[test]
    fn a_plain_schema_stays_and_an_empty_one_is_an_object() {
        let given = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {
                "a": { "type": "string", "description": "A.", "enum": ["x", "y"] },
                "b": { "type": "array", "items": { "type": "integer", "minimum": 1 } },
            },
        });
        becomes(&given, &given);
        becomes(&json!({}), &json!({ "type": "object", "properties": {} }));
    }

    #[test]
    fn references_are_put_where_they_lead_and_one_that_returns_ends() {
        becomes(
            &json!({
                "$schema": "x", "$defs": {
                    "P": { "type": "object", "title": "P", "properties": {
                        "x": { "type": "number" }, "next": { "$ref": "#/$defs/P" },
                    }},
                },
                "type": "object",
                "properties": {
                    "p": { "$ref": "#/$defs/P", "description": "Mine." },
                    "q": { "allOf": [{ "$ref": "#/$defs/P" }], "default": null },
                    "r": { "$ref": "https://elsewhere/schema" },
                    "s": { "$ref": "#/$defs/none" },
                },
            }),
            &json!({
                "type": "object",
                "properties": {
                    "p": { "type": "object", "description": "Mine.", "properties": {
                        "x": { "type": "number" }, "next": {},
                    }},
                    "q": { "type": "object", "properties": { "x": { "type": "number" }, "next": {} } },
                    "r": {},
                    "s": {},
                },
            }),
        );
    }

    #[test]
    fn what_may_be_null_may_be_left_out() {
        becomes(
            &json!({
                "type": "object", "required": ["a", "b", "c", "d"],
                "properties": {
                    "a": { "anyOf": [{ "type": "string" }, { "type": "null" }], "default": null },
                    "b": { "type": ["integer", "null"] },
                    "c": { "enum": ["x", null] },
                    "d": { "oneOf": [{ "type": "string" }, { "const": 1 }] },
                },
            }),
            &json!({
                "type": "object", "required": ["d"],
                "properties": {
                    "a": { "type": "string" },
                    "b": { "type": "integer" },
                    "c": { "enum": ["x"] },
                    "d": { "anyOf": [{ "type": "string" }, { "enum": [1] }] },
                },
            }),
        );
    }

    #[test]
    fn a_choice_at_the_top_becomes_one_object() {
        becomes(
            &json!({ "anyOf": [
                { "properties": { "a": { "type": "string" } }, "required": ["a"] },
                { "properties": { "b": true }, "required": ["b"] },
            ]}),
            &json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": {} } }),
        );
    }

    #[test]
    fn names_that_providers_refuse_are_left_out() {
        becomes(
            &json!({ "properties": { "a b": {}, "ok": { "type": "array" } }, "required": ["a b", "ok"] }),
            &json!({
                "type": "object", "required": ["ok"],
                "properties": { "ok": { "type": "array", "items": {} } },
            }),
        );
    }

    #[test]
    fn a_small_schema_that_is_large_when_it_is_read_is_cut() {
        let mut defs = Map::new();
        for n in 0..30 {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            let both = json!({ "properties": { "a": next, "b": next } });
            defs.insert(format!("d{n}"), both);
        }
        let given = json!({ "$defs": defs, "$ref": "#/$defs/d0" });
        let size = plain(given.as_object().unwrap()).to_string().len();
        assert!(size < 200 * limits::MCP_SCHEMA_PARTS_MAX, "{size}");
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({ "properties": { "a": deep } });
        }
        plain(deep.as_object().unwrap());
    }
}
