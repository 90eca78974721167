//! Plays the part of LLM providers from a script in the prompt:
//! `fake-llm [--port N] [--ledger FILE] [--key KEY]`.
//!
//! It prints `listening on http://127.0.0.1:PORT` and ends when its standard input does. It speaks
//! OpenAI Chat (`/v1/chat/completions`), OpenAI Responses (`/v1/responses`), Anthropic
//! (`/v1/messages`), Gemini (`/v1beta/models/M:streamGenerateContent`) and Ollama (`/api/chat`),
//! always as streams, and lists models for each. `GET /__ledger` is a JSON array of the requests
//! that ended, `GET /__open` the number of those that did not. With `--key`, a request that brings
//! another key is answered 401.
//!
//! The script is the last text of a user that has a line `SCRIPT [elements]`. Element k answers the
//! request that has k answers of the assistant after that text; without a script, or after its end,
//! the answer is the text "ok". An element that is an array is a list of attempts: its n-th request
//! gets the n-th, and the last holds on. Requests are counted by format, text of the script and k, so two
//! conversations with one provider want two scripts as soon as they count.
//!
//! Members of an element, in the order of their effect:
//!
//! fail: {status, times?: 1, retry_after?, headers?: {name: value}, body?} · wait_ms: n ·
//! stall: "headers"|"body"|"after_text"|"after_calls" (until the client goes) · drop: "before_headers"|"headers"|
//! "after_text"|"before_end" · garbage: true, or the body as text or numbers · think: text · text: text
//! (in pieces of 7 characters) · error_event: object, in the place of all that follows the text ·
//! gate: path (waits until it exists, for at most 60 s) · calls: [{name, input, id?: text or null,
//! raw?: text in the place of the input}] · finish: "stop"|"tool_calls"|"length"|"content_filter" ·
//! usage: {input, cached, cache_write, output, reasoning} or null; `input` and `output` are all
//! tokens there are · fragment: bytes of each piece of the body · close_delimited: true (no
//! framing: an end of the connection is an end of the body) · done: false (OpenAI Chat without
//! `[DONE]`) · times: requests that `stall`, `drop`, `garbage` and `error_event` hold for (drop: 1,
//! else all).

mod answer;
mod connection;
mod format;
mod ledger;
mod play;
mod script;

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;

/// What all connections share.
struct Stub {
    ledger: ledger::Ledger,
    counts: script::Counts,
    key: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let mut port = 0u16;
    let (mut file, mut key) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--port" => port = value.parse().context("--port wants a number")?,
            "--ledger" => file = Some(value),
            "--key" => key = Some(value),
            _ => anyhow::bail!("usage: fake-llm [--port N] [--ledger FILE] [--key KEY]"),
        }
    }
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on http://{}", listener.local_addr()?);
    let stub = Arc::new(Stub {
        ledger: ledger::Ledger::new(file.as_deref())?,
        counts: script::Counts::default(),
        key,
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let stub = Arc::clone(&stub);
            std::thread::spawn(move || connection::serve(&stub, stream));
        }
    });
    let mut rest = [0u8; 256];
    while std::io::stdin().read(&mut rest)? > 0 {}
    Ok(())
}
