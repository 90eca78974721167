//! The same script behind the Agent Client Protocol.

use std::io::{BufRead, StdinLock};

use anyhow::Context;
use serde_json::{Value, json};

use crate::play;

const SESSION: &str = "fake-session";

pub(crate) fn serve(setting: &Value) -> anyhow::Result<()> {
    if let Some(code) = setting["exit"].as_i64() {
        eprintln!("{}", setting["stderr"].as_str().unwrap_or("cannot start"));
        std::process::exit(code as i32);
    }
    if setting["no_read"] == json!(true) {
        play::hang();
    }
    let mut wire = Wire {
        input: std::io::stdin().lock(),
        next_id: 0,
    };
    while let Some(message) = wire.read()? {
        let id = message["id"].clone();
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "initialize" if setting["never_initialize"] == json!(true) => {}
            "initialize" => {
                let version = setting.get("version").cloned().unwrap_or(json!(1));
                wire.answer(&id, json!({
                    "protocolVersion": version,
                    "agentInfo": {"name": "fake-agent", "version": "1.2.3"},
                    "agentCapabilities": setting.get("capabilities").cloned().unwrap_or(json!({})),
                    "authMethods": [{"id": "fake-login", "name": "Log in"}],
                }));
            }
            "session/new" if setting["auth"] == json!(true) => {
                wire.error(
                    &id,
                    &json!({"code": -32000, "message": "Authentication required"}),
                );
            }
            "session/new" => {
                let mut answer = json!({"sessionId": SESSION});
                for (key, value) in setting["offers"].as_object().into_iter().flatten() {
                    answer[key] = value.clone();
                }
                wire.answer(&id, answer);
                wire.update(json!({"sessionUpdate": "available_commands_update",
                    "availableCommands": [{"name": "help", "description": "Help"}]}));
            }
            "session/load" | "session/resume" if params["sessionId"] != json!(SESSION) => {
                wire.error(&id, &json!({"code": -32603, "message": "no such session"}));
            }
            "session/load" => {
                wire.update(json!({"sessionUpdate": "agent_message_chunk",
                    "content": {"type": "text", "text": "old history"}}));
                wire.answer(&id, json!({}));
            }
            "session/resume" | "session/set_mode" | "session/set_model" => {
                wire.answer(&id, json!({}));
            }
            "session/prompt" => prompt(&mut wire, &id, setting, params)?,
            // Nothing runs between prompts.
            "session/cancel" => {}
            _ if id.is_null() => {}
            _ => wire.error(&id, &json!({"code": -32601, "message": "Method not found"})),
        }
    }
    Ok(())
}

fn prompt(wire: &mut Wire<'_>, id: &Value, setting: &Value, params: &Value) -> anyhow::Result<()> {
    let from_file = match setting["script_file"].as_str() {
        Some(path) => Some(serde_json::from_slice::<Value>(&std::fs::read(path)?)?),
        None => None,
    };
    let words = params["prompt"][0]["text"].as_str().unwrap_or_default();
    let by_words = setting["by_words"].as_object();
    let by_words = by_words.and_then(|all| all.iter().find(|(key, _)| words.contains(*key)));
    let by_words = by_words.map(|(_, script)| script);
    let script = match from_file.as_ref().or(by_words).or(setting.get("script")) {
        Some(script) => script.as_array().context("script is an array")?.clone(),
        None => play::script(words)?,
    };
    let mut result = json!({"stopReason": "end_turn"});
    for step in &script {
        let (key, value) = step
            .as_object()
            .and_then(|members| members.iter().next())
            .context("a step is an object with one key")?;
        let chunk =
            |kind: &str| json!({"sessionUpdate": kind, "content": {"type": "text", "text": value}});
        match key.as_str() {
            "say" => wire.update(chunk("agent_message_chunk")),
            "say_slowly" => {
                for c in value.as_str().unwrap_or_default().chars() {
                    wire.update(json!({"sessionUpdate": "agent_message_chunk",
                        "content": {"type": "text", "text": c.to_string()}}));
                }
            }
            "thought" => wire.update(chunk("agent_thought_chunk")),
            "tool" | "update" => {
                let mut update = value.clone();
                if update["sessionUpdate"].is_null() {
                    update["sessionUpdate"] = json!("tool_call");
                }
                wire.update(update);
            }
            "plan" => wire.update(json!({"sessionUpdate": "plan", "entries": value})),
            "usage" => usage(wire, value, &mut result),
            "ask" => match wire.ask(value)? {
                Asked::Allowed => {}
                Asked::Refused if value["obey"] == json!(true) => break,
                Asked::Refused => {}
                Asked::Cancelled => {
                    wire.answer(id, json!({"stopReason": "cancelled"}));
                    return Ok(());
                }
            },
            "request" => {
                let answer =
                    wire.request(value["method"].as_str().unwrap_or("x/y"), &value["params"])?;
                if let Some(path) = value["answer_to"].as_str() {
                    std::fs::write(path, answer.to_string())?;
                }
            }
            // Waits like a model that thinks, and obeys a cancel.
            "wait_for_cancel" => {
                while let Some(message) = wire.read()? {
                    if message["method"] == json!("session/cancel") {
                        std::fs::write(value.as_str().unwrap_or("cancelled.txt"), "")?;
                        wire.answer(id, json!({"stopReason": "cancelled"}));
                        return Ok(());
                    }
                }
            }
            "end" => result["stopReason"] = value.clone(),
            "error" => {
                wire.error(id, value);
                return Ok(());
            }
            "no_answer" => return Ok(()),
            _ => play::common(key, value)?,
        }
    }
    wire.answer(id, result);
    Ok(())
}

fn usage(wire: &Wire<'_>, value: &Value, result: &mut Value) {
    for (key, member) in value["result"].as_object().into_iter().flatten() {
        result[key] = member.clone();
    }
    if let Some(update) = value.get("update") {
        let mut update = update.clone();
        update["sessionUpdate"] = json!("usage_update");
        wire.update(update);
    }
    if let Some(meta) = value.get("chunk") {
        wire.update(json!({"sessionUpdate": "agent_message_chunk",
            "content": {"type": "text", "text": ""}, "_meta": {"usage": meta}}));
    }
}

#[derive(PartialEq, Eq)]
enum Asked {
    Allowed,
    Refused,
    Cancelled,
}

struct Wire<'a> {
    input: StdinLock<'a>,
    next_id: u64,
}

impl Wire<'_> {
    fn read(&mut self) -> anyhow::Result<Option<Value>> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    fn answer(&self, id: &Value, result: Value) {
        play::line(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn error(&self, id: &Value, error: &Value) {
        play::line(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
    }

    fn update(&self, update: Value) {
        let params = json!({"sessionId": SESSION, "update": update});
        play::line(&json!({"jsonrpc": "2.0", "method": "session/update", "params": params}));
    }

    fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let id = format!("fake-{}", self.next_id);
        self.next_id += 1;
        let mut params = params.clone();
        if params.is_object() {
            params["sessionId"] = json!(SESSION);
        }
        play::line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        while let Some(message) = self.read()? {
            if message["id"] == json!(id) && message.get("method").is_none() {
                return Ok(message);
            }
        }
        anyhow::bail!("the client went away")
    }

    fn ask(&mut self, value: &Value) -> anyhow::Result<Asked> {
        let options = value.get("options").cloned().unwrap_or_else(|| {
            json!([
                {"optionId": "for-ever", "kind": "allow_always", "name": "Always"},
                {"optionId": "yes", "kind": "allow_once", "name": "Yes"},
                {"optionId": "no", "kind": "reject_once", "name": "No"},
            ])
        });
        let call = value.get("tool").cloned().unwrap_or_else(
            || json!({"toolCallId": "asked", "title": "Run a command", "kind": "execute"}),
        );
        let params = json!({"toolCall": call, "options": options});
        let answer = self.request("session/request_permission", &params)?;
        if let Some(path) = value["answer_to"].as_str() {
            std::fs::write(path, answer["result"]["outcome"].to_string())?;
        }
        let outcome = &answer["result"]["outcome"];
        if outcome["outcome"] == json!("cancelled") {
            return Ok(Asked::Cancelled);
        }
        let chosen = options.as_array().into_iter().flatten();
        let mut chosen = chosen.filter(|option| option["optionId"] == outcome["optionId"]);
        let kind = chosen.next().map(|option| &option["kind"]);
        let allowed = kind
            .and_then(Value::as_str)
            .is_some_and(|kind| kind.starts_with("allow"));
        Ok(match allowed {
            true => Asked::Allowed,
            false => Asked::Refused,
        })
    }
}
