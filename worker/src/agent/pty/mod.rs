//! Programs in a pseudo-terminal: anything that insists on one. Standard output and error cannot
//! be told apart there; how the program ended decides, and `pipe` is better where it works.

pub(crate) mod screen;

use std::io::{Read, Write};
use std::sync::Arc;

use futures::future::BoxFuture;
use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::screen::Screen;
use super::last_words::LastWords;
use super::process::{AgentProcess, Input, Launch, Manner};
use super::{
    Agent, AgentError, AgentEvent, EventSink, Permission, TurnOutcome, TurnRequest, cli, pipe,
    regex_usage,
};
use crate::blocking;
use crate::config::agent_spec::{AgentSpec, PromptVia};
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::sandbox::process_set::ProcessSet;

/// Pieces of output read ahead; each is at most 16 KiB.
const PIECES_MAX: usize = 16;

/// A program in a terminal.
#[derive(Debug)]
pub struct PtyAgent {
    spec: Arc<AgentSpec>,
}

impl PtyAgent {
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
        let launch = cli::launch(spec, &turn, Input::Empty, "xterm-256color").await?;
        let command = launch.shown(&turn.prompt);
        let screen = Screen::new(spec.cli.cols, spec.cli.rows).ok_or_else(|| {
            AgentError::new(ErrorClass::Internal, "a terminal needs columns and rows")
        })?;
        let (mut process, terminal) = start(spec, &launch)?;
        events
            .send(AgentEvent::Started(pipe::started(spec, &turn, command)))
            .await;
        let mut talk = Talk {
            terminal,
            screen,
            events,
            to_type: (spec.cli.prompt_via == PromptVia::Type).then(|| turn.prompt.clone()),
            last_text: LastWords::new(turn.secrets.clone(), limits::ERROR_TEXT_CHARS_MAX),
            exited: CancellationToken::new(),
        };
        let over_limit = process.over_limit();
        let exited = talk.exited.clone();
        let result = tokio::select! {
            () = follow(&mut talk, &mut process, exited) => Ok(()),
            error = over_limit => Err(error),
            () = cancel.cancelled() => Err(pipe::cancelled()),
        };
        let visible = talk.screen.visible();
        let rest = talk.screen.finish();
        talk.say(rest).await;
        let exit = process.end(Manner::Firm, None).await?;
        let usage = regex_usage::report(
            &spec.usage,
            &format!("{}\n{visible}", talk.last_text.text()),
        );
        let failed = |error| {
            let (exit, usage) = (exit.clone(), usage.clone());
            AgentError {
                exit,
                usage,
                ..error
            }
        };
        result.map_err(failed)?;
        let stop_reason = cli::judge(spec, &exit, &talk.last_text.text()).map_err(failed)?;
        Ok(TurnOutcome {
            stop_reason,
            native_session_id: None,
            usage,
            exit,
        })
    }
}

impl Agent for PtyAgent {
    fn path(&self) -> ExecutionPath {
        ExecutionPath::Pty
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

/// The master's side of a terminal: blocking reads and writes have a thread each.
struct Terminal {
    output: mpsc::Receiver<Vec<u8>>,
    input: mpsc::Sender<Vec<u8>>,
    /// Closing the master hangs the terminal up.
    _master: Box<dyn MasterPty + Send>,
    _threads: JoinSet<()>,
}

/// Start the program in a terminal of its own, as the leader of its session.
fn start(spec: &AgentSpec, launch: &Launch) -> Result<(AgentProcess, Terminal), AgentError> {
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!(
            "cannot start {} in a terminal: {error}",
            launch.program.display()
        );
        AgentError::new(ErrorClass::SpawnFailed, message)
    };
    let size = PtySize {
        rows: spec.cli.rows,
        cols: spec.cli.cols,
        ..PtySize::default()
    };
    let pair = native_pty_system()
        .openpty(size)
        .map_err(|error| failed(&error))?;
    let (helper, args) = launch.confined()?;
    let mut command = CommandBuilder::new(helper);
    command.args(args);
    command.cwd(launch.helper_dir());
    command.env_clear();
    for (name, value) in launch.variables_of_helper() {
        command.env(name, value);
    }
    let (set, child) = ProcessSet::start(&launch.mark, || {
        let child = pair
            .slave
            .spawn_command(command)
            .map_err(std::io::Error::other)?;
        let child: Box<dyn portable_pty::Child> = child;
        let child = child
            .downcast::<std::process::Child>()
            .map_err(|_| std::io::Error::other("the terminal gave no process of the system"))?;
        Ok((child.id() as i32, *child))
    })
    .map_err(|error| failed(&error))?;
    let process = AgentProcess::in_terminal(set, child, launch);
    // Our copy of the other side would keep the terminal open for ever.
    drop(pair.slave);
    let reader = pair
        .master
        .try_clone_reader()
        .map_err(|error| failed(&error))?;
    let writer = pair.master.take_writer().map_err(|error| failed(&error))?;
    let (read, output) = mpsc::channel(PIECES_MAX);
    let (input, write) = mpsc::channel(PIECES_MAX);
    let mut threads = JoinSet::new();
    threads.spawn(async move { drop(blocking::run(move || read_all(reader, &read)).await) });
    threads.spawn(async move { drop(blocking::run(move || write_all(writer, write)).await) });
    Ok((
        process,
        Terminal {
            output,
            input,
            _master: pair.master,
            _threads: threads,
        },
    ))
}

/// Ends at the terminal's hang-up or when nobody listens any more.
fn read_all(mut reader: Box<dyn Read + Send>, pieces: &mpsc::Sender<Vec<u8>>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut bytes) {
        let piece = bytes.get(..count).unwrap_or_default().to_vec();
        if pieces.blocking_send(piece).is_err() {
            return;
        }
    }
}

/// Ends when the attempt drops its side or the terminal is gone.
fn write_all(mut writer: Box<dyn Write + Send>, mut pieces: mpsc::Receiver<Vec<u8>>) {
    while let Some(piece) = pieces.blocking_recv() {
        if writer
            .write_all(&piece)
            .and_then(|()| writer.flush())
            .is_err()
        {
            return;
        }
    }
}

/// What goes on between the terminal and the run.
struct Talk {
    terminal: Terminal,
    screen: Screen,
    events: EventSink,
    to_type: Option<String>,
    last_text: LastWords,
    exited: CancellationToken,
}

/// Read until the program ended and its output too; the reading is never dropped in between.
async fn follow(talk: &mut Talk, process: &mut AgentProcess, exited: CancellationToken) {
    let mut reading = std::pin::pin!(talk.read_all());
    tokio::select! {
        () = &mut reading => process.wait().await,
        () = process.wait() => {
            exited.cancel();
            reading.await;
        }
    }
}

impl Talk {
    async fn read_all(&mut self) {
        let exited = self.exited.clone();
        let mut deadline = None;
        let mut next_screen = Instant::now() + limits::TERMINAL_SCREEN_EVERY;
        let mut quiet_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                piece = self.terminal.output.recv() => {
                    let Some(piece) = piece else { return };
                    quiet_since = Instant::now();
                    self.take_in(&piece).await;
                }
                // What it left behind may hold the terminal open.
                () = async {
                    exited.cancelled().await;
                    let until = deadline.get_or_insert_with(|| Instant::now() + limits::DRAIN_TIMEOUT);
                    sleep_until(*until).await;
                } => return,
                () = sleep_until(quiet_since + limits::TERMINAL_QUIET), if self.to_type.is_some() => {
                    self.type_prompt().await;
                }
                () = sleep_until(next_screen) => {
                    next_screen = Instant::now() + limits::TERMINAL_SCREEN_EVERY;
                    if let Some(text) = self.screen.painted() {
                        self.events.send(AgentEvent::Notice { text }).await;
                    }
                }
            }
        }
    }

    async fn take_in(&mut self, piece: &[u8]) {
        let (text, answers) = self.screen.feed(piece);
        if !answers.is_empty() {
            // A program that does not read its terminal gets no answers; it may live without.
            let _full = self.terminal.input.try_send(answers);
        }
        self.say(text).await;
    }

    /// Type the prompt and, after a pause, the return key: together they would count as pasted.
    async fn type_prompt(&mut self) {
        let Some(prompt) = self.to_type.take() else {
            return;
        };
        // A line end in the middle would send the first half.
        let prompt = prompt.replace(['\r', '\n'], " ");
        let _gone = self.terminal.input.send(prompt.into_bytes()).await;
        sleep(limits::TERMINAL_QUIET).await;
        let _gone = self.terminal.input.send(b"\r".to_vec()).await;
    }

    async fn say(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        self.last_text.push(&text);
        self.events.send(AgentEvent::Text { text }).await;
    }
}
