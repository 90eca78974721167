//! Steps that are the same with a protocol and without.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fill;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Jsonl,
}

/// The steps in a text: everything from its first `[` on.
pub(crate) fn script(text: &str) -> anyhow::Result<Vec<Value>> {
    let from = text.find('[').context("no script in the prompt")?;
    let mut values = serde_json::Deserializer::from_str(&text[from..]).into_iter::<Vec<Value>>();
    values
        .next()
        .context("no script in the prompt")?
        .context("the script is no JSON array")
        .map(|steps| steps.iter().map(fill::filled).collect())
}

pub(crate) fn step(step: &Value, style: Style) -> anyhow::Result<()> {
    let (key, value) = step
        .as_object()
        .and_then(|members| members.iter().next())
        .context("a step is an object with one key")?;
    let text = value.as_str().unwrap_or_default();
    match (key.as_str(), style) {
        ("say", Style::Plain) => out(text),
        ("say", Style::Jsonl) => line(&json!({"type": "text", "text": text})),
        ("say_slowly", Style::Plain) => text.chars().for_each(|c| out(&c.to_string())),
        ("thought", Style::Plain) => out(text),
        ("thought", Style::Jsonl) => line(&json!({"type": "thought", "text": text})),
        ("tool", Style::Jsonl) => line(&json!({"type": "tool", "tool": value})),
        ("usage", Style::Jsonl) => {
            line(&json!({"type": "usage", "usage": value["line"], "cost": value["cost"]}));
        }
        ("usage", Style::Plain) => out(value["text"].as_str().unwrap_or_default()),
        ("error", Style::Jsonl) => line(&json!({"type": "error", "message": value["message"]})),
        ("error", Style::Plain) => {
            eprintln!("{}", value["message"].as_str().unwrap_or_default());
            std::process::exit(1);
        }
        ("end", Style::Jsonl) => line(&json!({"type": "end", "reason": text, "session": "s-1"})),
        ("end" | "tool" | "plan" | "ask", _) => {}
        _ => return common(key, value),
    }
    Ok(())
}

/// Steps that concern the process and its pipes.
pub(crate) fn common(key: &str, value: &Value) -> anyhow::Result<()> {
    let text = value.as_str().unwrap_or_default();
    let number = value.as_u64().unwrap_or_default();
    match key {
        "write" => {
            let path = value["path"].as_str().context("write needs a path")?;
            std::fs::write(path, value["text"].as_str().unwrap_or_default())?;
        }
        "raw" | "garbage" => out(&format!("{text}\n")),
        "bytes" => {
            let bytes = value.as_array().context("bytes are an array")?;
            let bytes = bytes.iter().map(|b| b.as_u64().unwrap_or_default() as u8);
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&bytes.collect::<Vec<u8>>())?;
            stdout.flush()?;
        }
        // The test says when to go on.
        "wait_for" => {
            while !std::path::Path::new(text).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "big_line" => {
            out(&"x".repeat(number as usize));
            out("\n");
        }
        "flood" => {
            let part = "y".repeat(value["bytes"].as_u64().unwrap_or(100) as usize);
            for _ in 0..value["count"].as_u64().unwrap_or(1_000) {
                out(&format!("{part}\n"));
            }
        }
        "env" => {
            let all: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
            std::fs::write(text, all.join("\n"))?;
        }
        "fds" => {
            let open = std::fs::read_dir("/proc/self/fd")?.flatten();
            let open: Vec<String> = open
                .filter_map(|fd| {
                    let to = std::fs::read_link(fd.path()).ok()?;
                    Some(format!(
                        "{} {}",
                        fd.file_name().to_string_lossy(),
                        to.display()
                    ))
                })
                .collect();
            std::fs::write(text, open.join("\n"))?;
        }
        "argv" => std::fs::write(text, std::env::args().collect::<Vec<_>>().join("\n"))?,
        "cwd" => std::fs::write(text, std::env::current_dir()?.display().to_string())?,
        "ignore_term" => ignore_term(),
        "fork" => fork(text)?,
        "rewrite" => rewrite_for_ever(text)?,
        "sh" => sh(text)?,
        "reach" => crate::reach::all(value)?,
        "hang" => hang(),
        "exit" => std::process::exit(number as i32),
        "signal" => {
            kill(Pid::this(), Signal::try_from(number as i32)?)?;
            hang();
        }
        "close_stdin" => drop(nix::unistd::close(0)),
        "close_stdout" => drop(nix::unistd::close(1)),
        "stderr" => eprintln!("{text}"),
        "stderr_file" => eprintln!("{}", std::fs::read_to_string(text)?),
        "memory_mb" => {
            let block = vec![1u8; number as usize * 1024 * 1024];
            std::hint::black_box(&block);
            hang();
        }
        other => bail!("the fake agent knows no step `{other}`"),
    }
    Ok(())
}

/// A process that was forked by a step: does nothing until it is ended, whatever TERM says.
pub(crate) fn leaf() -> anyhow::Result<()> {
    ignore_term();
    hang();
}

fn ignore_term() {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        set.add(signal);
    }
    // Blocked and never taken is as good as ignored, and needs no handler.
    let _unblocked_is_worse = set.thread_block();
}

pub(crate) fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}

/// Another generation of the file as often as it goes, each of one character, either written in
/// place or put in place whole; until it is ended, whatever TERM says.
pub(crate) fn rewriter(path: &str) -> anyhow::Result<()> {
    ignore_term();
    for generation in (b'a'..=b'z').cycle() {
        let text = vec![generation; REWRITTEN_BYTES];
        if generation % 2 == 0 {
            std::fs::write(path, text)?;
        } else {
            let whole = format!("{path}.new");
            std::fs::write(&whole, text)?;
            std::fs::rename(whole, path)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// As many processes as the kernel gives, each as eager, until all are ended.
#[expect(
    clippy::disallowed_methods,
    reason = "an agent that misbehaves starts what it likes"
)]
pub(crate) fn bomb() -> anyhow::Result<()> {
    let this = std::env::current_exe()?;
    loop {
        let mut command = Command::new(&this);
        let _refused = command.arg("bomb").stderr(Stdio::null()).spawn();
    }
}

const REWRITTEN_BYTES: usize = 64 * 1024;

/// Leave a rewriter behind and go on when it has begun.
#[expect(
    clippy::disallowed_methods,
    reason = "an agent that misbehaves starts what it likes"
)]
fn rewrite_for_ever(path: &str) -> anyhow::Result<()> {
    let before = std::fs::read(path)?;
    Command::new("setsid")
        .arg("-f")
        .arg(std::env::current_exe()?)
        .args(["rewriter", path])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    while std::fs::read(path)? == before {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Run a script of the shell; how it ends is its own affair.
#[expect(
    clippy::disallowed_methods,
    reason = "an agent that misbehaves starts what it likes"
)]
fn sh(script: &str) -> anyhow::Result<()> {
    let null = Stdio::null;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(null()).stdout(null());
    command.status()?;
    Ok(())
}

/// Start a grandchild that holds our standard output, unless it is named otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "an agent that misbehaves starts what it likes"
)]
fn fork(how: &str) -> anyhow::Result<()> {
    let this = std::env::current_exe()?;
    let leaf = |through: &[&str]| {
        let mut command = match through {
            [] => Command::new(&this),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(&this);
                command
            }
        };
        command
            .arg("leaf")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let mut command = match how {
        "group" => leaf(&[]),
        "own_group" => {
            let mut command = leaf(&[]);
            command.process_group(0);
            command
        }
        "setsid" => leaf(&["setsid"]),
        // Forked twice: its parent is gone at once.
        "daemon" => leaf(&["setsid", "-f"]),
        "wiped" => leaf(&["env", "-i", "setsid"]),
        // Nothing of these leads back to us: no pipe, parent or session, then no environment.
        "closed" => leaf(&["setsid", "-f"]),
        "vanished" => leaf(&["env", "-i", "setsid", "-f"]),
        other => bail!("fork knows no `{other}`"),
    };
    if ["closed", "vanished"].contains(&how) {
        command.stdout(Stdio::null());
    }
    let mut child = command.spawn()?;
    if ["daemon", "closed", "vanished"].contains(&how) {
        child.wait()?;
    }
    Ok(())
}

pub(crate) fn line(value: &Value) {
    out(&format!("{value}\n"));
}

/// A reader that is gone is the test's affair, not ours.
fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _gone = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
