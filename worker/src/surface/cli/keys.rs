//! The keyboard of a person: one key at a time, or a line, and the signals that end the talk. The
//! terminal's mode is another one only while a key is waited for, and is put back however that ends.

use std::future::Future;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr, tcsetattr,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use super::out::Out;
use crate::blocking;
use crate::ops::OpError;

/// Bytes of one line, as terminals hand them over at most.
const LINE_BYTES_MAX: usize = 4096;

/// Bytes of one key; the longest that a terminal sends are shorter.
const KEY_BYTES_MAX: usize = 16;

/// How long each further byte of a key may take, in milliseconds: terminals send all at once.
const REST_OF_KEY_MS: u8 = 20;

/// Why a person is asked no further.
pub(crate) enum Stop {
    /// They closed the input, or the terminal is gone.
    EndOfInput,
    /// Ctrl-C, SIGTERM or SIGHUP.
    Signal,
    /// Something failed.
    Failed(CliError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A printable character.
    Char(char),
    /// The arrow to the left.
    Left,
    /// The arrow to the right.
    Right,
    /// Any other: Enter, Tab, Escape …
    Other,
}

/// Whether keys that were pressed before the question count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// They do.
    Counts,
    /// They are forgotten: what follows cannot be taken back.
    Forgotten,
}

/// Standard input, when it is a terminal.
pub(crate) struct Keyboard {
    /// Whether single keys can be read; else the first character of a line counts.
    single: bool,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    resumed: Signal,
}

impl Keyboard {
    /// From now on the signals end the talk, not the process.
    pub(crate) fn open() -> io::Result<Self> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Ok(Self {
            single: !dumb && tcgetattr(io::stdin()).is_ok(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            resumed: signal(SignalKind::from_raw(nix::libc::SIGCONT))?,
        })
    }

    /// Ask for a key, and show which it was. The question is seen when its answer can be given: what
    /// is pressed after that is not lost.
    pub(crate) async fn key(
        &mut self,
        out: &mut Out,
        question: &str,
        ahead: Ahead,
    ) -> Result<Key, Stop> {
        if ahead == Ahead::Forgotten {
            tcflush(io::stdin(), FlushArg::TCIFLUSH)?;
        }
        if !self.single {
            out.print(question)?;
            let line = self.line().await?;
            let first = line.trim().chars().next();
            return Ok(first.map_or(Key::Other, Key::Char));
        }
        let single = SingleKeys::on()?;
        out.print(question)?;
        let bytes = self.input(read_key, Some(&single)).await;
        drop(single);
        let key = match bytes?.as_slice() {
            // Ctrl-D.
            [] | [4] => return Err(Stop::EndOfInput),
            b"\x1b[C" | b"\x1bOC" => Key::Right,
            b"\x1b[D" | b"\x1bOD" => Key::Left,
            [byte] if (b' '..=b'~').contains(byte) => Key::Char(char::from(*byte)),
            _ => Key::Other,
        };
        let shown = match key {
            Key::Char(key) => key.to_string(),
            Key::Left | Key::Right | Key::Other => String::new(),
        };
        out.line(&shown)?;
        Ok(key)
    }

    /// The next line, edited as terminals do it.
    pub(crate) async fn line(&mut self) -> Result<String, Stop> {
        let bytes = self.input(read_line, None).await?;
        // A line that was not ended is none: nothing is said by the end of the input.
        match bytes.strip_suffix(b"\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).trim_end().to_owned()),
            None => Err(Stop::EndOfInput),
        }
    }

    /// Do this, unless a signal comes first.
    pub(crate) async fn unless_stopped<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = work => Ok(done),
            _ = self.interrupt.recv() => Err(Stop::Signal),
            _ = self.terminate.recv() => Err(Stop::Signal),
            _ = self.hangup.recv() => Err(Stop::Signal),
        }
    }

    /// When a program that has the terminal meanwhile must end. Ctrl-C is its own.
    pub(crate) async fn end_of_loan(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Take the terminal back: a Ctrl-C that was meant for the program is none for us.
    pub(crate) fn take_back(&mut self) -> io::Result<()> {
        self.interrupt = signal(SignalKind::interrupt())?;
        Ok(())
    }

    async fn input(
        &mut self,
        read: fn() -> nix::Result<Vec<u8>>,
        mode: Option<&SingleKeys>,
    ) -> Result<Vec<u8>, Stop> {
        // Closed with this call, however it ends: then the thread reads no more.
        let (watched, wake) = io::pipe()?;
        let reading = blocking::run(move || match wait_for_input(&watched)? {
            true => read().map(Some),
            false => Ok(None),
        });
        tokio::pin!(reading);
        loop {
            tokio::select! {
                read = &mut reading => {
                    let read = read.map_err(|e| Stop::Failed(OpError::internal(e.to_string()).into()))?;
                    // The terminal is gone.
                    return read.unwrap_or_default().ok_or(Stop::EndOfInput);
                }
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => break,
                // Back from Ctrl-Z: the shell had the terminal as it likes it.
                _ = self.resumed.recv() => if let Some(mode) = mode {
                    mode.again()?;
                },
            }
        }
        drop(wake);
        let _nothing = reading.await;
        Err(Stop::Signal)
    }
}

/// Wait until there is something to read; `false`: nobody waits for it any more.
fn wait_for_input(watched: &PipeReader) -> nix::Result<bool> {
    let stdin = io::stdin();
    loop {
        let mut both =
            [stdin.as_fd(), watched.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            waited => waited?,
        };
        // Its other end says nothing: what there is, is its end.
        if both[1].any() != Some(false) {
            return Ok(false);
        }
        if both[0].any() != Some(false) {
            return Ok(true);
        }
    }
}

/// One key: a byte, or the sequence that begins with it. No byte of the next key is taken.
fn read_key() -> nix::Result<Vec<u8>> {
    let mut key = read(1)?;
    while key.len() < KEY_BYTES_MAX && goes_on(&key) {
        let stdin = io::stdin();
        let mut rest = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if poll(&mut rest, PollTimeout::from(REST_OF_KEY_MS))? == 0 {
            break;
        }
        let more = read(1)?;
        if more.is_empty() {
            break;
        }
        key.extend(more);
    }
    Ok(key)
}

/// Whether a key that begins so has more bytes.
fn goes_on(key: &[u8]) -> bool {
    match key {
        [0x1b] | [0x1b, b'[' | b'O'] => true,
        // Parameters, up to the letter that ends it.
        [0x1b, b'[', .., last] => !(0x40..=0x7e).contains(last),
        // A character of UTF-8 says how long it is.
        [first, ..] if *first >= 0xc0 => {
            let length = usize::try_from(first.leading_ones()).unwrap_or(0);
            key.len() < length
        }
        _ => false,
    }
}

fn read_line() -> nix::Result<Vec<u8>> {
    read(LINE_BYTES_MAX)
}

fn read(most: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    loop {
        match nix::unistd::read(io::stdin(), &mut bytes) {
            Err(Errno::EINTR) => continue,
            read => bytes.truncate(read?),
        }
        return Ok(bytes);
    }
}

/// A terminal that hands over each key at once and shows none, until this is dropped. Ctrl-C and
/// Ctrl-Z stay signals, and what is printed looks as always.
struct SingleKeys {
    usual: Termios,
    single: Termios,
}

impl SingleKeys {
    fn on() -> nix::Result<Self> {
        let usual = tcgetattr(io::stdin())?;
        let mut single = usual.clone();
        single
            .local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO);
        single.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        single.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &single)?;
        Ok(Self { usual, single })
    }

    fn again(&self) -> nix::Result<()> {
        tcsetattr(io::stdin(), SetArg::TCSANOW, &self.single)
    }
}

impl Drop for SingleKeys {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _back = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.usual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_with_its_last_byte() {
        for (key, rest) in [
            (&b"\x1b[C"[..], &b"A"[..]),
            (b"\x1bOC", b"A"),
            (b"\x1b[1;5C", b"A"),
            (b"\x1bz", b"Ay"),
            ("é".as_bytes(), b"A"),
            ("日".as_bytes(), b"A"),
            (b"a", b"A"),
        ] {
            let typed = [key, rest].concat();
            let length = (1..=typed.len()).find(|n| !goes_on(&typed[..*n]));
            assert_eq!(length, Some(key.len()), "{typed:?}");
        }
    }
}
