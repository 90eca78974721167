//! Plays the part of a third-party agent from a script: `fake-agent acp|cli|jsonl|tty [SCRIPT]`.
//!
//! The script is a JSON array of steps, given as the second argument, in the prompt (from its
//! first `[` on), or on standard input for the modes without a protocol. Each step is an object
//! with one key:
//!
//! say, thought: text · say_slowly: text, a character at a time · tool: the members of an ACP tool call · plan: entries · write: {path, text}
//! · ask: {tool, options?, answer_to?: file that gets the answer, obey?: a refusal ends the turn} · request: method (the answer
//! goes to stdout.txt of the worktree) · raw: a line as it is · garbage: text · bytes: numbers, as
//! they are · wait_for: a file that the test makes when the agent may go on · big_line: bytes ·
//! flood: {count, bytes} · usage: {result?|update?|chunk?|line?} · env: file for its environment ·
//! fds: file for its open descriptors · argv: file · ignore_term · fork: "group"|"setsid"|"daemon"
//! |"wiped" (grandchildren that hold stdout)|"closed"|"vanished" (and that do not) · rewrite: path
//! (by a daemon, for ever) · sh: script of the shell · reach: {to: addresses, write: file}, see `reach.rs` · hang · exit: code · signal: number · close_stdin ·
//! close_stdout · stderr: text · stderr_file: path · memory_mb · end: stop reason · error: {code, message, data?}
//!
//! Texts may leave something open that the agent fills in, see `fill.rs`.
//!
//! Before the handshake (second argument, an object): never_initialize, version: n, auth (session/new
//! says -32000), no_read, offers: the members of the answer to session/new, exit: code,
//! script: steps, by_words: steps by what the prompt has in it, script_file: a file with them, capabilities: the agent's.

#![allow(clippy::needless_pass_by_value, reason = "reads better with json!")]

mod acp;
mod fill;
mod play;
mod reach;

use std::io::{Read, Write};

use anyhow::Context;
use serde_json::Value;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mode = args
        .next()
        .context("usage: fake-agent acp|cli|jsonl|tty [SCRIPT]")?;
    if mode == "--version" {
        println!("fake-agent 1.2.3");
        return Ok(());
    }
    if mode == "leaf" {
        return play::leaf();
    }
    if mode == "bomb" {
        return play::bomb();
    }
    let setting = args.next().unwrap_or_default();
    if mode == "rewriter" {
        return play::rewriter(&setting);
    }
    if mode == "acp" {
        let setting = if setting.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&setting)?
        };
        return acp::serve(&setting);
    }
    let text = if setting.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        setting
    };
    let style = match mode.as_str() {
        "jsonl" => play::Style::Jsonl,
        _ => play::Style::Plain,
    };
    for step in play::script(&text)? {
        play::step(&step, style)?;
        std::io::stdout().flush().ok();
    }
    Ok(())
}
