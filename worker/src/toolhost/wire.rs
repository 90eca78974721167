//! The lines between the worker and the tools: bare JSON-RPC, one object each.

use serde::Serialize;
use serde_json::{Value, json};

use super::outcome::Outcome;

/// What the worker asks.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// Run a tool.
    Call { id: u64, tool: String, input: Value },
    /// End a call.
    Cancel { id: u64 },
    /// A request that is none of ours, with the code and text of the answer.
    Refused { id: u64, code: i32, message: String },
}

const UNKNOWN_METHOD: i32 = -32_601;
const BAD_PARAMS: i32 = -32_602;

/// Read a line; an error says why it is ignored.
pub(super) fn read(line: &[u8]) -> Result<Asked, String> {
    let mut message: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let id = message.get("id").and_then(Value::as_u64);
    let method = message.get("method").and_then(Value::as_str);
    let method = method.ok_or("no method")?.to_owned();
    let params = message.get_mut("params").map(Value::take);
    let mut params = params.unwrap_or_default();
    match (method.as_str(), id) {
        ("call", Some(id)) => {
            let input = params.get_mut("input").map(Value::take);
            Ok(match params.get("tool").and_then(Value::as_str) {
                Some(tool) => Asked::Call {
                    id,
                    tool: tool.to_owned(),
                    input: input.unwrap_or_else(|| json!({})),
                },
                None => Asked::Refused {
                    id,
                    code: BAD_PARAMS,
                    message: "params.tool must be the name of a tool".to_owned(),
                },
            })
        }
        ("cancel", None) => match params.get("id").and_then(Value::as_u64) {
            Some(id) => Ok(Asked::Cancel { id }),
            None => Err("a cancel without the id of a call".to_owned()),
        },
        (_, Some(id)) => Ok(Asked::Refused {
            id,
            code: UNKNOWN_METHOD,
            message: format!("there is no method {method}"),
        }),
        (_, None) => Err(format!("{method} is neither a request nor a notification")),
    }
}

/// Where output of a command came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What the tools say, as a line.
pub(super) fn ready(shell: &str) -> Vec<u8> {
    line(&json!({ "method": "ready", "params": { "shell": shell } }))
}

pub(super) fn output(id: u64, stream: Stream, text: &str) -> Vec<u8> {
    line(&json!({ "method": "output", "params": { "id": id, "stream": stream, "text": text } }))
}

pub(super) fn result(id: u64, outcome: &Outcome) -> Vec<u8> {
    line(&json!({ "id": id, "result": outcome }))
}

pub(super) fn refusal(id: u64, code: i32, message: &str) -> Vec<u8> {
    line(&json!({ "id": id, "error": { "code": code, "message": message } }))
}

fn line(message: &Value) -> Vec<u8> {
    format!("{message}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_what_is_none() {
        let call = br#"{"id":7,"method":"call","params":{"tool":"read","input":{"path":"a"}}}"#;
        let expected = Asked::Call {
            id: 7,
            tool: "read".to_owned(),
            input: json!({ "path": "a" }),
        };
        assert_eq!(read(call).unwrap(), expected);
        let cancel = br#"{"method":"cancel","params":{"id":7}}"#;
        assert_eq!(read(cancel).unwrap(), Asked::Cancel { id: 7 });
        let code = |line: &[u8]| match read(line) {
            Ok(Asked::Refused { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(br#"{"id":1,"method":"dance"}"#), UNKNOWN_METHOD);
        assert_eq!(code(br#"{"id":1,"method":"call"}"#), BAD_PARAMS);
        assert_eq!(
            code(br#"{"id":1,"method":"call","params":{"tool":3}}"#),
            BAD_PARAMS
        );
        for ignored in [
            "",
            "7",
            "null",
            "[]",
            "{}",
            "{\"id\":1}",
            "{\"method\":\"x\"}",
        ] {
            assert!(read(ignored.as_bytes()).is_err(), "{ignored}");
        }
    }
}
