//! The program at a terminal of its own, with a person who reads and types.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};

use super::worker::PATIENCE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");

/// A running command.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    /// Kept open, so that the terminal outlives the command and its mode can be asked for.
    slave: Option<Box<dyn SlavePty + Send>>,
    keyboard: Box<dyn Write + Send>,
    screen: Receiver<Vec<u8>>,
    end: Receiver<u32>,
    pid: i32,
    shown: String,
    /// How far the person has read.
    read: usize,
}

impl Terminal {
    /// Start a command, which finds no setting of whoever runs the tests.
    pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = PtySize {
            rows: 50,
            cols: 200,
            ..PtySize::default()
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(PROGRAM);
        command.args(args);
        command.env("TERM", "xterm");
        for name in [
            "DATABASE_LISTEN_URL",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "VISUAL",
            "EDITOR",
            "DISPATCH_PAGER",
            "PAGER",
            "LESS",
        ] {
            command.env_remove(name);
        }
        for (name, value) in environment {
            command.env(name, value);
        }
        let mut child = pair.slave.spawn_command(command).unwrap();
        let pid = i32::try_from(child.process_id().unwrap()).unwrap();
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(child.wait().unwrap().exit_code()));
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (shows, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if shows.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keyboard: pair.master.take_writer().unwrap(),
            master: pair.master,
            slave: Some(pair.slave),
            screen,
            end,
            pid,
            shown: String::new(),
            read: 0,
        }
    }

    /// Wait until this is shown, after what was read before.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(more) = self.screen.recv_timeout(left) else {
                panic!("{text:?} is not shown after this:\n{}", self.shown);
            };
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Press these keys.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Send the command a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Whether it shows what is typed, and takes lines.
    pub fn is_as_usual(&self) -> bool {
        let mode = self.master.get_termios().unwrap();
        let flags = format!("{:?}", mode.local_flags);
        flags.contains("ICANON") && flags.contains("ECHO")
    }

    /// Wait for its end: exit code and everything that was shown, with line breaks as in a pipe. The
    /// terminal is as it was.
    #[track_caller]
    pub fn ends(mut self) -> (u32, String) {
        let code = self.end.recv_timeout(PATIENCE);
        assert!(self.is_as_usual(), "{}", self.shown);
        // The last one that holds it; then reading ends.
        self.slave = None;
        while let Ok(more) = self.screen.recv_timeout(PATIENCE) {
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
        let shown = self.shown.replace("\r\n", "\n");
        (
            code.unwrap_or_else(|_| panic!("it goes on:\n{shown}")),
            shown,
        )
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended when its end was awaited; a test that failed leaves none behind.
        if self.slave.is_some() {
            let _gone = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}
