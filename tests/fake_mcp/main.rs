//! Plays the part of an MCP server: `fake-mcp [WORD…]`, newline-delimited JSON-RPC on its standard
//! input and output. Its words are what it does wrong, or does beside:
//!
//! mute (answers nothing) · dead (says why and ends) · babble (lines that are no JSON, before every
//! answer) · flood (never stops saying them) · line (one that has no end, in the place of its first
//! answer) · pages (one tool on each page) · endless (pages without end) · many (100 tools) · odd
//! (names that no provider takes) · types (schemas as generators write them) · asks (never stops
//! asking, and reads no answer).
//!
//! Tools: echo {text} · structured · image · refuse · hang · crash · huge (20 MB) · line (without an
//! end) · noise (lines that are no JSON, then the answer) · env · leave (starts a process in a session
//! of its own, with `argument` alone as its last one) · grow {mb} (holds so much memory, and answers) ·
//! ask (asks without an end, and reads no answer).

use std::io::{self, BufRead, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let server = Server { words };
    if server.does("dead") {
        eprintln!("the license of this server has expired");
        std::process::exit(3);
    }
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(request) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        if !request["id"].is_null() && !server.does("mute") {
            server.serve(&request, &mut out)?;
        }
    }
    Ok(())
}

struct Server {
    words: Vec<String>,
}

impl Server {
    fn does(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    fn serve(&self, request: &Value, out: &mut impl Write) -> io::Result<()> {
        if self.does("line") {
            endless_line(out)?;
        }
        if self.does("babble") {
            babble(out)?;
        }
        while self.does("flood") {
            babble(out)?;
        }
        while self.does("asks") {
            ask(out)?;
        }
        let params = &request["params"];
        let result = match request["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "fake-mcp", "version": "1" },
            }),
            "tools/list" => self.tools(params),
            "tools/call" => call(params, out)?,
            _ => json!({}),
        };
        say(
            out,
            &json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        )
    }

    fn tools(&self, params: &Value) -> Value {
        let names: &[&str] = &[
            "echo",
            "structured",
            "image",
            "refuse",
            "hang",
            "crash",
            "huge",
            "line",
            "noise",
            "env",
            "leave",
            "grow",
            "ask",
        ];
        let mut tools: Vec<Value> = names.iter().map(|name| tool(name)).collect();
        if self.does("odd") {
            tools = ["a b", "a/b", "a.b", "ünïcödé", ""].map(tool).to_vec();
        }
        if self.does("many") {
            tools = (0..100).map(|n| tool(&format!("t{n}"))).collect();
        }
        if self.does("types") {
            tools = vec![typed()];
        }
        let page = params["cursor"].as_str().and_then(|at| at.parse().ok());
        let page: usize = page.unwrap_or(0);
        if self.does("endless") {
            let name = format!("t{page}");
            return json!({ "tools": [tool(&name)], "nextCursor": (page + 1).to_string() });
        }
        if self.does("pages") && page + 1 < tools.len() {
            return json!({ "tools": [tools[page]], "nextCursor": (page + 1).to_string() });
        }
        match self.does("pages") {
            true => json!({ "tools": [tools[page]] }),
            false => json!({ "tools": tools }),
        }
    }
}

fn tool(name: &str) -> Value {
    json!({
        "name": name, "description": format!("The tool {name}."),
        "inputSchema": { "type": "object", "properties": { "text": { "type": "string" } } },
    })
}

/// As a generator writes the schema of a type with an optional member.
fn typed() -> Value {
    json!({ "name": "echo", "inputSchema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": { "Where": { "type": "object", "title": "Where", "required": ["line"],
            "properties": { "line": { "type": "integer" } } } },
        "type": "object", "required": ["text", "at"],
        "properties": {
            "text": { "type": "string" },
            "at": { "anyOf": [{ "$ref": "#/$defs/Where" }, { "type": "null" }], "default": null },
        },
    }})
}

fn call(params: &Value, out: &mut impl Write) -> io::Result<Value> {
    let given = &params["arguments"];
    let text = |text: String| json!({ "content": [{ "type": "text", "text": text }] });
    Ok(match params["name"].as_str().unwrap_or_default() {
        "structured" => json!({ "content": [], "structuredContent": { "answer": 42 } }),
        "image" => json!({ "content": [
            { "type": "image", "data": "AAAA", "mimeType": "image/png" },
            { "type": "text", "text": "a picture of a cat" },
        ]}),
        "refuse" => {
            json!({ "isError": true, "content": [{ "type": "text", "text": "no such page" }] })
        }
        "hang" => loop {
            std::thread::park();
        },
        "crash" => std::process::exit(9),
        "huge" => text("x".repeat(20_000_000)),
        "line" => endless_line(out)?,
        "ask" => loop {
            ask(out)?;
        },
        "noise" => {
            babble(out)?;
            text("after the noise".to_owned())
        }
        "env" => {
            let mut all: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
            all.sort();
            text(all.join("\n"))
        }
        "leave" => {
            leave(given["argument"].as_str().unwrap_or_default())?;
            text("left".to_owned())
        }
        "grow" => {
            let mb = usize::try_from(given["mb"].as_u64().unwrap_or(0)).unwrap_or(0);
            let held = vec![1_u8; mb << 20];
            // Never read, and so never given back.
            std::mem::forget(held);
            text("grown".to_owned())
        }
        _ => text(given["text"].as_str().unwrap_or("nothing").to_owned()),
    })
}

/// A process in a session of its own, which has nothing of ours but the mark.
#[expect(
    clippy::disallowed_methods,
    reason = "a server that misbehaves starts what it likes"
)]
fn leave(argument: &str) -> io::Result<()> {
    let mut command = Command::new("setsid");
    command.args(["-f", "sh", "-c", "while :; do sleep 1; done", argument]);
    let null = Stdio::null;
    command.stdin(null()).stdout(null()).stderr(null());
    command.status().map(drop)
}

fn endless_line(out: &mut impl Write) -> io::Result<Value> {
    loop {
        out.write_all(&[b'x'; 64 * 1024])?;
    }
}

fn babble(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"[info] warming up\n{\"jsonrpc\":\n\n\xff\xfe\n{}\n[]\nnull\n")
}

fn ask(out: &mut impl Write) -> io::Result<()> {
    static ASKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let id = ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    say(
        out,
        &json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }),
    )
}

fn say(out: &mut impl Write, message: &Value) -> io::Result<()> {
    writeln!(out, "{message}")?;
    out.flush()
}
