//! `dispatch bench agent`: a scripted agent that speaks the Agent Client Protocol over standard
//! input and output. It has no model: each prompt is answered with the same numbered deltas, so that
//! a reader can compare what arrived byte by byte. For `scripts/bench stream` only.

use std::io::{BufRead, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// How often the gate is looked for.
const GATE_LOOK: Duration = Duration::from_millis(20);

/// What the agent says to each prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// How many deltas.
    pub deltas: usize,
    /// Bytes of each: its number with leading zeros, and a line end.
    pub delta_bytes: usize,
    /// The turn ends only when this file is there, so that many attempts can be held at once.
    pub gate: Option<PathBuf>,
}

/// Answer until standard input ends.
pub fn serve(script: &Script, input: impl BufRead, output: impl Write) -> std::io::Result<()> {
    let mut output = BufWriter::new(output);
    for line in input.lines() {
        let message: Value = serde_json::from_str(&line?)?;
        let Some(id) = message.get("id") else {
            continue;
        };
        let answer = match message["method"].as_str() {
            Some("initialize") => json!({ "result": {
                "protocolVersion": 1, "authMethods": [], "agentCapabilities": {},
                "agentInfo": { "name": "dispatch-bench-agent", "version": env!("CARGO_PKG_VERSION") },
            }}),
            Some("session/new") => json!({ "result": { "sessionId": "bench" } }),
            Some("session/prompt") => {
                speak(script, &mut output)?;
                json!({ "result": { "stopReason": "end_turn" } })
            }
            _ => json!({ "error": { "code": -32601, "message": "Method not found" } }),
        };
        let mut answer = answer;
        answer["jsonrpc"] = json!("2.0");
        answer["id"] = id.clone();
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn speak(script: &Script, output: &mut impl Write) -> std::io::Result<()> {
    let digits = script.delta_bytes.saturating_sub(1);
    for number in 0..script.deltas {
        let chunk = json!({ "jsonrpc": "2.0", "method": "session/update", "params": {
            "sessionId": "bench",
            "update": {
                "sessionUpdate": "agent_message_chunk",
                "content": { "type": "text", "text": format!("{number:0digits$}\n") },
            },
        }});
        writeln!(output, "{chunk}")?;
    }
    output.flush()?;
    while script.gate.as_ref().is_some_and(|gate| !gate.exists()) {
        std::thread::sleep(GATE_LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_answered_with_the_deltas_of_the_script_and_an_end() {
        let script = Script {
            deltas: 3,
            delta_bytes: 4,
            gate: None,
        };
        let input = r#"{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{}}"#;
        let mut output = Vec::new();
        serve(&script, input.as_bytes(), &mut output).expect("answers");
        let lines: Vec<Value> = output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect();
        let said: String = lines
            .iter()
            .filter_map(|line| line["params"]["update"]["content"]["text"].as_str())
            .collect();
        assert_eq!(said, "000\n001\n002\n");
        assert_eq!(lines[3]["result"]["stopReason"], "end_turn");
        assert_eq!(lines[3]["id"], 1);
    }
}
