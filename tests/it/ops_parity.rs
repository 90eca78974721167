//! Every operation is on every surface, and each example means the same on all of them.

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use dispatch_worker::ops::{self, Method, OpEntry};
use dispatch_worker::surface::cli::prepare;
use dispatch_worker::surface::cli::tree::{self, Invocation};
use dispatch_worker::surface::fields::Fields;
use dispatch_worker::surface::{http, openapi};
use serde_json::Value;

/// The words as the command line reads them, up to what its operation is called with.
fn by_command_line(words: &[&str]) -> (String, Value) {
    let line = ["dispatch"].iter().chain(words).copied();
    let matches = tree::command()
        .try_get_matches_from(line)
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
    match tree::invocation(&matches) {
        Ok(Invocation::Op {
            entry,
            input,
            extras,
            ..
        }) => {
            let prepared = prepare::input(entry, input, &extras);
            let prepared = prepared.unwrap_or_else(|error| panic!("{words:?}: {error}"));
            (entry.spec.name.to_owned(), prepared)
        }
        Ok(_) => panic!("{words:?} is no operation"),
        Err(error) => panic!("{words:?}: {error}"),
    }
}

/// The example as a request, read as the server reads it.
fn by_http(entry: &OpEntry, input: &Value) -> Value {
    let mut rest = input.as_object().unwrap().clone();
    let mut path = Vec::new();
    for part in entry.spec.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            let value = rest.remove(name).expect("a field of the path");
            path.push((name.to_owned(), plain(&value)));
        }
    }
    let mut headers = HeaderMap::new();
    let mut query = String::new();
    let mut body = Vec::new();
    if matches!(entry.spec.method, Method::Post | Method::Patch) {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        body = serde_json::to_vec(&rest).unwrap();
    } else {
        query = pairs(&rest).join("&");
    }
    let uri: Uri = format!("/x?{query}").parse().unwrap();
    let gathered = http::input(&Fields::of(entry), &path, &uri, &headers, &body)
        .unwrap_or_else(|problem| panic!("{}: {}", entry.spec.name, problem.detail));
    (entry.normalize)(gathered).unwrap_or_else(|error| panic!("{}: {error}", entry.spec.name))
}

/// The example as a client sends it: method and address, and the body where there is one.
pub fn request_of(entry: &OpEntry, input: &Value) -> (String, Value) {
    let mut rest = input.as_object().unwrap().clone();
    let mut path = entry.spec.path.to_owned();
    for (name, value) in input.as_object().unwrap() {
        let place = format!("{{{name}}}");
        if path.contains(&place) {
            path = path.replace(&place, &plain(value));
            rest.remove(name);
        }
    }
    let method = format!("{:?}", entry.spec.method).to_uppercase();
    let head = format!("{method} {}{path}", http::PREFIX);
    match entry.spec.method {
        Method::Post | Method::Patch => (head, Value::Object(rest)),
        Method::Get | Method::Delete => (format!("{head}?{}", pairs(&rest).join("&")), Value::Null),
    }
}

/// Fields as a query has them: a list as one pair an entry.
fn pairs(fields: &serde_json::Map<String, Value>) -> Vec<String> {
    let pairs = fields.iter().flat_map(|(name, value)| {
        let values = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        let pair = move |one| format!("{name}={}", encoded(&plain(one)));
        values.iter().map(pair)
    });
    pairs.collect()
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn each_example_means_the_same_on_the_command_line_and_over_http() {
    for entry in ops::ALL {
        let (noun, verb) = entry.spec.noun_verb();
        let noun = if noun == "worker" { "workers" } else { noun };
        let examples = (entry.examples)();
        assert!(!examples.is_empty(), "{} has no example", entry.spec.name);
        for example in examples {
            let wanted = (entry.normalize)(example.input.clone()).unwrap();
            let words: Vec<&str> = [noun, verb].iter().chain(example.cli).copied().collect();
            let (name, input) = by_command_line(&words);
            assert_eq!(
                (name.as_str(), &input),
                (entry.spec.name, &wanted),
                "{words:?}"
            );
            assert_eq!(
                by_http(entry, &example.input),
                wanted,
                "{} over HTTP",
                entry.spec.name
            );
        }
    }
}

#[test]
fn every_operation_is_in_the_document_with_its_effect() {
    let document = openapi::document();
    for entry in ops::ALL {
        let method = format!("{:?}", entry.spec.method).to_lowercase();
        let operation = &document["paths"][format!("{}{}", http::PREFIX, entry.spec.path)][method];
        let effect = format!("{:?}", entry.spec.effect).to_lowercase();
        assert_eq!(operation["x-effect"], effect, "{}", entry.spec.name);
        assert_eq!(operation["x-idempotent"], entry.spec.idempotent);
        let conflict = operation["responses"].get("409").is_some();
        assert_eq!(conflict, effect != "read", "{}", entry.spec.name);
    }
}

#[test]
fn answers_that_name_a_digest_have_it_as_their_tag_in_the_document() {
    let paths = &openapi::document()["paths"];
    for (path, method) in [
        ("/changes/{id}", "get"),
        ("/changes/{id}/diff", "get"),
        ("/changes/{id}/approve", "post"),
    ] {
        let responses = &paths[format!("{}{path}", http::PREFIX)][method]["responses"];
        assert!(responses["200"]["headers"]["ETag"].is_object(), "{path}");
    }
    let list = &paths[format!("{}/changes", http::PREFIX)]["get"]["responses"]["200"];
    assert!(list.get("headers").is_none(), "{list}");
}

#[test]
fn a_read_is_a_get_and_nothing_else_is() {
    for entry in ops::ALL {
        let reads = entry.spec.effect == ops::Effect::Read;
        assert_eq!(
            reads,
            entry.spec.method == Method::Get,
            "{}",
            entry.spec.name
        );
    }
}

#[test]
fn short_forms_reach_the_same_operations() {
    let cases: [(&[&str], &[&str]); 10] = [
        (
            &["submit", "shop", "do it"],
            &["task", "submit", "shop", "do it"],
        ),
        (
            &["list", "--state", "failed"],
            &["tasks", "list", "-s", "failed"],
        ),
        (&["show", "#42"], &["task", "show", "42"]),
        (&["cancel", "42"], &["task", "cancel", "42"]),
        (
            &["changes", "--state", "pending"],
            &["change", "list", "--state", "pending"],
        ),
        (
            &["permissions", "deny", "3"],
            &["permission", "answer", "3", "deny"],
        ),
        (
            &["send", "42", "go on"],
            &["messages", "send", "#42", "go on"],
        ),
        (&["steps", "42"], &["tasks", "steps", "42"]),
        (&["messages", "42"], &["message", "list", "42"]),
        (
            &["usage", "--by", "agent"],
            &["usage", "show", "--by", "agent"],
        ),
    ];
    for (short, long) in cases {
        assert_eq!(by_command_line(short), by_command_line(long), "{short:?}");
    }
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let entry = ops::find("project.add").unwrap();
    let uri = Uri::from_static("/x?colour=red");
    let refused = http::input(&Fields::of(entry), &[], &uri, &HeaderMap::new(), b"");
    let problem = refused.unwrap_err();
    assert_eq!(
        (problem.code, problem.status.as_u16()),
        ("unknown_field", 422)
    );
    assert!(problem.detail.contains("colour"), "{}", problem.detail);
}
