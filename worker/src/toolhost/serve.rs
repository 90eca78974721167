//! The loop: lines from the worker, calls beside one another, one writer of answers.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::outcome::Outcome;
use super::place::Roots;
use super::shell::{self, Shell};
use super::tools::{FileTool, Which};
use super::wire::{self, Asked};
use crate::blocking;
use crate::domain::limits;

/// Threads for tools that block; the rest waits.
const BLOCKING_THREADS: usize = 16;

/// Serve the worktree that is the current directory, until standard input ends.
pub(super) fn run() -> io::Result<()> {
    let tmp = std::env::var_os("TMPDIR").map(PathBuf::from);
    let roots = Roots::open(&std::env::current_dir()?, tmp.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let served = runtime.block_on(serve(
        roots,
        BufReader::new(tokio::io::stdin()),
        tokio::io::stdout(),
    ));
    // A search that hangs in a file system holds nobody up.
    runtime.shutdown_background();
    served
}

async fn serve(
    roots: Roots,
    mut input: impl AsyncBufRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let (lines, waiting) = mpsc::channel(limits::tools::LINES_MAX);
    let mut writer = JoinSet::new();
    writer.spawn(write(waiting, output));
    let mut calls = Calls::new(roots, lines);
    calls.say(wire::ready(calls.host.shell.program())).await;
    let mut line = Line::default();
    let ended = loop {
        tokio::select! {
            read = line.read(&mut input) => match read {
                Ok(Some(line)) => calls.take(&line).await,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            Some(ended) = calls.running.join_next_with_id() => calls.ended(ended).await,
            // Nobody reads what is said.
            Some(written) = writer.join_next() => break written.unwrap_or(Ok(())),
        }
    };
    calls.end().await;
    // Whoever closed the input may still read the last answers.
    let _ = timeout(limits::tools::CALLS_END, writer.join_next()).await;
    ended
}

/// The one writer. Ends when nobody can say anything any more.
async fn write(
    mut lines: mpsc::Receiver<Vec<u8>>,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        output.write_all(&line).await?;
        output.flush().await?;
    }
    Ok(())
}

/// A line as far as it was read: reading may be interrupted.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Line {
    /// The next line that is not too long; `None`: the input ended.
    async fn read(
        &mut self,
        input: &mut (impl AsyncBufRead + Unpin),
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            let bytes = input.fill_buf().await?;
            if bytes.is_empty() {
                // What has no end was cut off.
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            self.too_long |= self.bytes.len() + part.len() > limits::PROTOCOL_LINE_BYTES_MAX;
            match self.too_long {
                true => self.bytes = Vec::new(),
                false => self.bytes.extend_from_slice(part),
            }
            let used = part.len() + usize::from(end.is_some());
            input.consume(used);
            if end.is_some() {
                if !std::mem::take(&mut self.too_long) {
                    return Ok(Some(std::mem::take(&mut self.bytes)));
                }
                eprintln!("a line that is too long is ignored");
            }
        }
    }
}

/// What all calls share.
struct Host {
    roots: Roots,
    shell: Shell,
}

/// The calls of the turn.
struct Calls {
    host: Arc<Host>,
    lines: mpsc::Sender<Vec<u8>>,
    running: JoinSet<()>,
    cancels: HashMap<u64, CancellationToken>,
    /// Which call a task is.
    ids: HashMap<Id, u64>,
}

impl Calls {
    fn new(roots: Roots, lines: mpsc::Sender<Vec<u8>>) -> Self {
        let shell = Shell::find(roots.tmp());
        Self {
            host: Arc::new(Host { roots, shell }),
            lines,
            running: JoinSet::new(),
            cancels: HashMap::new(),
            ids: HashMap::new(),
        }
    }

    async fn say(&self, line: Vec<u8>) {
        // Without a writer the loop ends by itself.
        let _ = self.lines.send(line).await;
    }

    async fn take(&mut self, line: &[u8]) {
        match wire::read(line) {
            Ok(Asked::Call { id, tool, input }) => self.start(id, &tool, input).await,
            Ok(Asked::Cancel { id }) => {
                // One that ended meanwhile has been answered.
                if let Some(cancel) = self.cancels.get(&id) {
                    cancel.cancel();
                }
            }
            Ok(Asked::Refused { id, code, message }) => {
                self.say(wire::refusal(id, code, &message)).await;
            }
            Err(why) => eprintln!("a line is ignored: {why}"),
        }
    }

    async fn start(&mut self, id: u64, tool: &str, input: Value) {
        if self.cancels.contains_key(&id) {
            eprintln!("a call is ignored: {id} is running already");
            return;
        }
        let which = match Which::named(tool) {
            Ok(which) if self.cancels.len() < limits::tools::CALLS_AT_ONCE => which,
            Ok(_) => {
                let told =
                    Outcome::failed("too many calls at once; try again when some have ended");
                return self.say(wire::result(id, &told)).await;
            }
            Err(told) => return self.say(wire::result(id, &Outcome::failed(told))).await,
        };
        let cancel = CancellationToken::new();
        self.cancels.insert(id, cancel.clone());
        let call = call(
            Arc::clone(&self.host),
            id,
            which,
            input,
            cancel,
            self.lines.clone(),
        );
        let task = self.running.spawn(call);
        self.ids.insert(task.id(), id);
    }

    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (task, failed) = match &ended {
            Ok((task, ())) => (*task, false),
            Err(error) => (error.id(), true),
        };
        let Some(id) = self.ids.remove(&task) else {
            return;
        };
        self.cancels.remove(&id);
        if failed {
            let told = Outcome::failed("the tool failed by a fault of its own");
            self.say(wire::result(id, &told)).await;
        }
    }

    /// End all that runs.
    async fn end(mut self) {
        self.cancels.values().for_each(CancellationToken::cancel);
        let all = async { while self.running.join_next().await.is_some() {} };
        // What does not end in time is dropped, and its processes are killed.
        let _ = timeout(limits::tools::CALLS_END, all).await;
    }
}

/// One call, to its answer.
async fn call(
    host: Arc<Host>,
    id: u64,
    which: Which,
    input: Value,
    cancel: CancellationToken,
    lines: mpsc::Sender<Vec<u8>>,
) {
    let begun = Instant::now();
    let outcome = match which {
        Which::Shell => shell::run(&host.shell, &host.roots, input, id, &cancel, &lines).await,
        Which::Files(tool) => files(&host, tool, input, &cancel).await,
    };
    let took = begun.elapsed().as_millis();
    let outcome = outcome.with("duration_ms", u64::try_from(took).unwrap_or(u64::MAX));
    // Without a writer nobody waits for it.
    let _ = lines.send(wire::result(id, &outcome)).await;
}

async fn files(
    host: &Arc<Host>,
    tool: FileTool,
    input: Value,
    cancel: &CancellationToken,
) -> Outcome {
    let (shared, stop) = (Arc::clone(host), cancel.clone());
    let work = blocking::run(move || match stop.is_cancelled() {
        true => Outcome::done(""),
        false => tool.run(&shared.roots, input, stop),
    });
    let stopped = async {
        cancel.cancelled().await;
        if tool.changes() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped => Outcome::done("").cancelled(),
        done = work => {
            let outcome = done.unwrap_or_else(|panicked| Outcome::failed(panicked.to_string()));
            match cancel.is_cancelled() {
                true => outcome.cancelled(),
                false => outcome,
            }
        }
    }
}
