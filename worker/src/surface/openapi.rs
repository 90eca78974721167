//! The OpenAPI document, derived from the list of operations.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::http::{FIELDS_OF_HEADERS, PREFIX};
use crate::ops::values::ID;
use crate::ops::{self, Effect, Method, OpEntry};

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| "/components/schemas".clone_into(settings.definitions_path.to_mut()));
    let mut schemas = settings.into_generator();
    let problem = problem_schema();
    let mut paths = Map::new();
    for entry in ops::ALL {
        let path = format!("{PREFIX}{}", entry.spec.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[method(entry.spec.method)] = operation(entry, &mut schemas);
    }
    paths.insert(
        format!("{PREFIX}/tasks/{{id}}/events"),
        json!({"get": stream_operation()}),
    );
    let mut components = schemas.take_definitions(true);
    components.insert("Problem".to_owned(), problem);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dispatch",
            "description": "Hand work to coding agents, watch it, review it, apply it.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"Limited": limited_response(), "Conflict": conflict_response()},
            "headers": {"Digest": {
                "schema": {"type": "string"},
                "description": "Digest of the change that is there, in quotes: give it as If-Match with a decision.",
            }},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Patch => "patch",
        Method::Delete => "delete",
    }
}

fn operation(entry: &OpEntry, schemas: &mut SchemaGenerator) -> Value {
    let spec = entry.spec;
    let (noun, _) = spec.noun_verb();
    let input = Value::from((entry.input_schema)(schemas));
    let output = Value::from((entry.output_schema)(schemas));
    let in_path = |name: &str| spec.path.contains(&format!("{{{name}}}"));
    let with_body = matches!(spec.method, Method::Post | Method::Patch);
    let mut parameters = Vec::new();
    for (name, schema) in input["properties"].as_object().into_iter().flatten() {
        if in_path(name) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "schema": schema,
            }));
        } else if !with_body {
            let needed = input["required"]
                .as_array()
                .is_some_and(|r| r.contains(&json!(name)));
            parameters.push(json!({
                "name": name, "in": "query", "required": needed, "schema": schema,
            }));
        }
    }
    for (header, field) in FIELDS_OF_HEADERS {
        if let Some(schema) = input["properties"].get(field).filter(|_| with_body) {
            let mut schema = schema.clone();
            schema["type"] = json!("string");
            parameters.push(json!({
                "name": header, "in": "header", "required": false, "schema": schema,
                "description": format!("In the place of `{field}` in the body."),
            }));
        }
    }
    let made = spec.makes();
    let tagged = has_digest(&output, schemas);
    let answered = |about: &str| {
        let mut answer =
            json!({"description": about, "content": {"application/json": {"schema": output}}});
        if tagged {
            answer["headers"] = json!({"ETag": {"$ref": "#/components/headers/Digest"}});
        }
        answer
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), answered("Done."));
    if made {
        responses.insert("201".to_owned(), answered("Made."));
    }
    if spec.effect != Effect::Read {
        responses.insert(
            "409".to_owned(),
            json!({"$ref": "#/components/responses/Conflict"}),
        );
    }
    responses.insert("429".to_owned(), limited());
    responses.insert("default".to_owned(), problem_response());
    let mut operation = json!({
        "operationId": spec.word(),
        "tags": [noun],
        "summary": spec.summary,
        "parameters": parameters,
        "responses": responses,
        "x-effect": spec.effect.as_str(),
        "x-idempotent": spec.idempotent,
        "x-scope": spec.scope.as_str(),
    });
    if with_body {
        operation["requestBody"] = body(entry, input, in_path);
    }
    operation
}

/// Whether an answer names the digest of a change, which is its tag then.
fn has_digest(output: &Value, schemas: &SchemaGenerator) -> bool {
    let name = output["$ref"].as_str().and_then(|at| at.rsplit('/').next());
    let schema = name.and_then(|name| schemas.definitions().get(name));
    schema.is_some_and(|schema| schema["properties"].get("digest").is_some())
}

fn body(entry: &OpEntry, mut input: Value, in_path: impl Fn(&str) -> bool) -> Value {
    if let Some(properties) = input["properties"].as_object_mut() {
        properties.retain(|name, _| !in_path(name));
    }
    if let Some(required) = input["required"].as_array_mut() {
        let elsewhere =
            |name: &str| in_path(name) || FIELDS_OF_HEADERS.iter().any(|(_, field)| *field == name);
        required.retain(|name| !name.as_str().is_some_and(elsewhere));
    }
    let required = input["required"].as_array().is_some_and(|r| !r.is_empty());
    let mut examples = Map::new();
    for (n, example) in (entry.examples)().into_iter().enumerate() {
        let mut value = example.input;
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| !in_path(name));
        }
        let named = json!({"summary": example.about, "value": value});
        examples.insert(format!("example{}", n + 1), named);
    }
    json!({
        "required": required,
        "content": {"application/json": {"schema": input, "examples": examples}},
    })
}

fn stream_operation() -> Value {
    json!({
        "operationId": "task_stream",
        "tags": ["task"],
        "summary": "Follow a task as server-sent events: history, then what comes, to its end",
        "parameters": [
            {"name": "id", "in": "path", "required": true, "schema": {"type": "string", "pattern": ID}},
            {"name": "since_seq", "in": "query", "required": false, "schema": {"type": "integer", "minimum": 0, "maximum": i64::MAX}},
            {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer", "minimum": 0, "maximum": i64::MAX}},
        ],
        "responses": {
            "200": {
                "description": "Each event's data is a TaskEvent; its id is its seq.",
                "content": {"text/event-stream": {"schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"id": {"type": "string"}, "data": {"type": "string"}},
                }}},
            },
            "204": {"description": "Everything was told: do not come back."},
            "429": limited(),
            "default": problem_response(),
        },
    })
}

fn limited() -> Value {
    json!({"$ref": "#/components/responses/Limited"})
}

fn limited_response() -> Value {
    let mut response = problem_response();
    response["description"] = json!(
        "Too many requests of this caller (rate_limited), or too many of them open (too_many_open)."
    );
    response["headers"] = json!({
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."},
    });
    response
}

fn conflict_response() -> Value {
    let mut response = problem_response();
    response["description"] = json!(
        "Not in a state for it (wrong_state), another version than the one that was seen (stale, with its \
         digest and ETag), or a key that stands for something else (idempotency_conflict)."
    );
    response["headers"] = json!({"ETag": {"$ref": "#/components/headers/Digest"}});
    response
}

fn problem_response() -> Value {
    json!({
        "description": "Why not.",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable word for programs."},
            "detail": {"type": "string"},
            "hint": {"type": ["string", "null"], "description": "How to mend it."},
            "digest": {"type": "string", "description": "With the code stale: the digest of what is there now."},
        },
    })
}
