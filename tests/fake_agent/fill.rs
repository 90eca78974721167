//! What a script leaves open, filled in by the agent, so that a secret stands in no prompt:
//! `${env:NAME}`, the same as `base64:`, `url:` and `hex:`, `${environment}`, `${home:PATH}`,
//! `${reverse:TEXT}`.

use base64::Engine;
use serde_json::Value;

pub(crate) fn filled(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(values) => values.iter().map(filled).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), filled(value)))
            .collect(),
        other => other.clone(),
    }
}

fn fill(text: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (what, after) = after.split_once('}').unwrap_or((after, ""));
        done.push_str(before);
        done.push_str(&look_up(what));
        rest = after;
    }
    done + rest
}

fn look_up(what: &str) -> String {
    let (form, name) = what.split_once(':').unwrap_or((what, ""));
    let value = std::env::var(name).unwrap_or_default();
    match form {
        "environment" => {
            let all = std::env::vars().map(|(name, value)| format!("{name}={value}"));
            all.collect::<Vec<_>>().join("\n")
        }
        "home" => {
            let home = std::env::var("HOME").unwrap_or_default();
            std::fs::read_to_string(format!("{home}/{name}")).unwrap_or_default()
        }
        "reverse" => name.chars().rev().collect(),
        "base64" => base64::engine::general_purpose::STANDARD.encode(format!("key={value};")),
        "hex" => value.bytes().map(|byte| format!("{byte:02x}")).collect(),
        "url" => value
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect(),
        _ => value,
    }
}
