//! Programs on plain pipes: text for people, or JSON lines read by the rules of the entry.

pub mod jsonl;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::jsonl::Stream;
use super::event::Started;
use super::last_words::LastWords;
use super::lines::{Line, Lines};
use super::options::Choice;
use super::process::{AgentProcess, Input, Manner};
use super::utf8::{self, Decoder};
use super::{Agent, AgentError, AgentEvent, EventSink, Permission, TurnOutcome, TurnRequest, cli};
use crate::config::agent_spec::{AgentSpec, Output, PromptVia};
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::redact::Redactor;

/// A program on pipes.
#[derive(Debug)]
pub struct PipeAgent {
    spec: Arc<AgentSpec>,
}

impl PipeAgent {
    /// The agent of this entry.
    pub fn new(spec: Arc<AgentSpec>) -> Self {
        Self { spec }
    }

    async fn turn(
        &self,
        turn: TurnRequest,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<TurnOutcome, AgentError> {
        let spec = &*self.spec;
        let input = if spec.cli.prompt_via == PromptVia::Stdin {
            Input::Pipe
        } else {
            Input::Empty
        };
        let launch = cli::launch(spec, &turn, input, "dumb").await?;
        let command = launch.shown(&turn.prompt);
        let mut process = launch.start()?;
        events
            .send(AgentEvent::Started(started(spec, &turn, command)))
            .await;
        let mut writing = JoinSet::new();
        if let Some(stdin) = process.stdin.take() {
            writing.spawn(write_prompt(stdin, turn.prompt.clone()));
        }
        let stdout = process.stdout.take().ok_or_else(|| {
            AgentError::new(ErrorClass::Internal, "the agent was started without pipes")
        })?;
        let goes_on = turn.resume.is_some() && cli::resume_failed(spec, &turn).is_none();
        let before = goes_on.then(|| turn.session_used.clone());
        let stream = Stream::new(&spec.cli.jsonl, &spec.usage, before, turn.secrets.clone());
        let mut reader = Reader::new(spec, stdout, stream, turn.secrets.clone(), events);
        let over_limit = process.over_limit();
        let exited = reader.exited.clone();
        let talk = tokio::select! {
            result = follow(&mut reader, &mut process, exited) => result,
            error = over_limit => Err(error),
            error = unread(&mut writing) => Err(error),
            () = cancel.cancelled() => Err(cancelled()),
        };
        reader.finish().await;
        let exit = process.end(Manner::Firm, reader.take_stdout()).await?;
        let usage = reader.stream.report();
        let native_session_id = reader.stream.session_id.clone();
        let failed = |error| {
            let (exit, usage) = (exit.clone(), usage.clone());
            let native_session_id = native_session_id.clone();
            AgentError {
                exit,
                usage,
                native_session_id,
                ..error
            }
        };
        talk.map_err(failed)?;
        if let Some(error) = reader.stream.failure() {
            return Err(failed(error));
        }
        let mut stop_reason = cli::judge(spec, &exit, &reader.last_text.text()).map_err(failed)?;
        match (&spec.cli.jsonl.end, reader.stream.ended.take()) {
            (Some(_), None) => {
                let message = format!("the agent ended ({stop_reason}) without finishing its turn");
                return Err(failed(AgentError::new(ErrorClass::Protocol, message)));
            }
            (Some(_), Some(reason)) if !reason.is_empty() => stop_reason = reason,
            _ => {}
        }
        Ok(TurnOutcome {
            stop_reason,
            native_session_id,
            usage,
            exit,
        })
    }
}

impl Agent for PipeAgent {
    fn path(&self) -> ExecutionPath {
        ExecutionPath::Pipe
    }

    fn run_turn<'a>(
        &'a self,
        turn: TurnRequest,
        events: EventSink,
        _permission: &'a dyn Permission,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<TurnOutcome, AgentError>> {
        Box::pin(self.turn(turn, events, cancel))
    }
}

/// Read until the program ended and its output too. The reading is never dropped in between: what
/// was read is published.
async fn follow(
    reader: &mut Reader<'_>,
    process: &mut AgentProcess,
    exited: CancellationToken,
) -> Result<(), AgentError> {
    let mut reading = std::pin::pin!(reader.read_all());
    tokio::select! {
        result = &mut reading => {
            result?;
            // Its output may end before it does.
            process.wait().await;
            Ok(())
        }
        () = process.wait() => {
            exited.cancel();
            reading.await
        }
    }
}

/// What is known about a program when it has been started.
pub(super) fn started(spec: &AgentSpec, turn: &TurnRequest, command: Vec<String>) -> Started {
    let wanted = |choice: Choice| choice.wanted(spec, turn).map(str::to_owned);
    let resume_failed = cli::resume_failed(spec, turn);
    Started {
        command,
        version: None,
        model: wanted(Choice::Model),
        mode_id: wanted(Choice::Mode),
        native_session_id: turn.resume.clone().filter(|_| resume_failed.is_none()),
        resume_failed,
    }
}

pub(super) fn cancelled() -> AgentError {
    AgentError::new(ErrorClass::Cancelled, "the attempt was cancelled")
}

/// Write the prompt and close. A program that needs no prompt may close its input early.
async fn write_prompt(mut stdin: ChildStdin, prompt: String) -> Result<(), AgentError> {
    let write = async {
        stdin.write_all(prompt.as_bytes()).await?;
        stdin.shutdown().await
    };
    match timeout(limits::PROTOCOL_WRITE_TIMEOUT, write).await {
        Ok(_written_or_closed) => Ok(()),
        Err(_) => Err(AgentError::new(
            ErrorClass::Protocol,
            format!(
                "the agent did not read its prompt for {} s",
                limits::PROTOCOL_WRITE_TIMEOUT.as_secs()
            ),
        )),
    }
}

/// Resolves only when the prompt could not be written.
async fn unread(writing: &mut JoinSet<Result<(), AgentError>>) -> AgentError {
    match writing.join_next().await {
        Some(Ok(Err(error))) => error,
        _ => std::future::pending().await,
    }
}

/// Reads the program's output and publishes what it says.
struct Reader<'a> {
    output: Output,
    lines: Option<Lines<ChildStdout>>,
    stream: Stream<'a>,
    /// The program ended: what it left behind may hold the output open, so the rest is bounded.
    exited: CancellationToken,
    deadline: Option<Instant>,
    late_bytes: usize,
    decoder: Decoder,
    events: EventSink,
    noise: usize,
    last_text: LastWords,
    secrets: Redactor,
}

impl<'a> Reader<'a> {
    fn new(
        spec: &'a AgentSpec,
        stdout: ChildStdout,
        stream: Stream<'a>,
        secrets: Redactor,
        events: EventSink,
    ) -> Self {
        Self {
            output: spec.cli.output,
            lines: Some(Lines::new(stdout, limits::PROTOCOL_LINE_BYTES_MAX)),
            stream,
            exited: CancellationToken::new(),
            deadline: None,
            late_bytes: 0,
            decoder: Decoder::default(),
            events,
            noise: 0,
            last_text: LastWords::new(secrets.clone(), limits::ERROR_TEXT_CHARS_MAX),
            secrets,
        }
    }

    /// Read to the end of the output. May be dropped and called again.
    async fn read_all(&mut self) -> Result<(), AgentError> {
        match self.output {
            Output::Text => self.read_text().await,
            Output::Jsonl => self.read_lines().await,
        }
    }

    async fn read_text(&mut self) -> Result<(), AgentError> {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let Some(lines) = &mut self.lines else {
                return Ok(());
            };
            let read = lines.raw().read(&mut bytes);
            match before_deadline(&self.exited, &mut self.deadline, read).await {
                None | Some(Ok(0)) => return Ok(()),
                Some(Ok(count)) => {
                    if self.is_flooded(count) {
                        return Ok(());
                    }
                    let text = self.decoder.push(bytes.get(..count).unwrap_or_default());
                    self.say(text).await;
                }
                Some(Err(error)) => return Err(unreadable(&error)),
            }
        }
    }

    async fn read_lines(&mut self) -> Result<(), AgentError> {
        loop {
            let Some(lines) = &mut self.lines else {
                return Ok(());
            };
            let next = lines.next();
            let line = match before_deadline(&self.exited, &mut self.deadline, next).await {
                Some(Ok(Line::Full(line))) => line,
                None | Some(Ok(Line::End)) => return Ok(()),
                Some(Ok(Line::TooLong)) => {
                    let mb = limits::PROTOCOL_LINE_BYTES_MAX >> 20;
                    let message = format!("the agent wrote a line longer than {mb} MiB");
                    return Err(AgentError::new(ErrorClass::Protocol, message));
                }
                Some(Err(error)) => return Err(unreadable(&error)),
            };
            if self.is_flooded(line.len()) {
                return Ok(());
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match utf8::json(&line) {
                Ok(value @ Value::Object(_)) => {
                    for event in self.stream.line(&value) {
                        self.events.send(event).await;
                    }
                }
                _ => self.noise(&line).await,
            }
        }
    }

    /// Whether something else than what waited in the pipe keeps coming after the deadline.
    fn is_flooded(&mut self, count: usize) -> bool {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() > deadline)
        {
            self.late_bytes += count;
        }
        self.late_bytes > limits::DRAIN_BYTES_MAX
    }

    async fn noise(&mut self, line: &[u8]) {
        let seen = line.get(..limits::NOISE_LINE_BYTES_SEEN).unwrap_or(line);
        let text = utf8::clean(&String::from_utf8_lossy(seen));
        let text = self.secrets.head(&text, limits::NOISE_LINE_BYTES_MAX);
        self.last_text.push(&text);
        self.noise += 1;
        if self.noise <= limits::NOISE_LINES_MAX {
            let text = format!("the agent wrote a line that is not JSON: {text}");
            self.events.send(AgentEvent::Notice { text }).await;
        }
    }

    async fn finish(&mut self) {
        let rest = self.decoder.finish();
        self.say(rest).await;
    }

    async fn say(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        self.last_text.push(&text);
        self.events.send(AgentEvent::Text { text }).await;
    }

    fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.lines.take().map(Lines::into_inner)
    }
}

/// The value of a read; `None` when the program ended and nothing came for the time of a drain.
async fn before_deadline<T>(
    exited: &CancellationToken,
    deadline: &mut Option<Instant>,
    read: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        value = read => Some(value),
        () = async {
            exited.cancelled().await;
            let until = *deadline.get_or_insert_with(|| Instant::now() + limits::DRAIN_TIMEOUT);
            sleep_until(until).await;
        } => None,
    }
}

fn unreadable(error: &std::io::Error) -> AgentError {
    AgentError::new(
        ErrorClass::Protocol,
        format!("cannot read the agent's output: {error}"),
    )
}
