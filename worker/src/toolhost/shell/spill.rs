//! A file with all that a command said, for a model that wants what was left out.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use crate::domain::limits;

/// What is held before there is a file: as much as the model gets anyway.
const HELD_BYTES_MAX: usize = limits::tools::SHELL_HEAD_CHARS + limits::tools::SHELL_TAIL_CHARS;

/// Output on its way to a file; short output makes none.
#[derive(Debug)]
pub(super) struct Spill {
    /// `None`: there is no place for it, or writing failed.
    dir: Option<PathBuf>,
    held: String,
    file: Option<(File, PathBuf)>,
    bytes: u64,
    complete: bool,
}

/// The file when all is written.
#[derive(Debug)]
pub(super) struct Spilled {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// It holds all of the output.
    pub(super) complete: bool,
}

impl Spill {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            held: String::new(),
            file: None,
            bytes: 0,
            complete: true,
        }
    }

    pub(super) async fn push(&mut self, text: &str) {
        if self.dir.is_none() || !self.complete {
            return;
        }
        if self.file.is_none() && self.held.len() + text.len() <= HELD_BYTES_MAX {
            self.held.push_str(text);
            return;
        }
        // Not until it is written: a cancel may come in between, or the disk be full. The command
        // goes on, and what is there of the file is told.
        self.complete = false;
        self.complete = self.write(text).await.unwrap_or(false);
    }

    /// Whether all of it fitted.
    async fn write(&mut self, text: &str) -> io::Result<bool> {
        if self.file.is_none() {
            let dir = self.dir.as_deref().ok_or(io::ErrorKind::NotFound)?;
            self.file = Some(create(dir).await?);
        }
        let Some((file, _)) = &mut self.file else {
            return Ok(false);
        };
        let mut fitted = true;
        let held = std::mem::take(&mut self.held);
        for part in [held.as_str(), text] {
            let room = limits::tools::SHELL_FILE_BYTES_MAX.saturating_sub(self.bytes);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let bytes = part.as_bytes();
            let fits = bytes.get(..room).unwrap_or(bytes);
            file.write_all(fits).await?;
            self.bytes += fits.len() as u64;
            fitted &= fits.len() == bytes.len();
        }
        Ok(fitted)
    }

    /// `None`: there is no file.
    pub(super) async fn finish(mut self) -> Option<Spilled> {
        if self.file.is_none() && self.complete && self.write("").await.is_err() {
            return None;
        }
        let (mut file, path) = self.file?;
        let flushed = file.flush().await.is_ok();
        Some(Spilled {
            path,
            bytes: self.bytes,
            complete: self.complete && flushed,
        })
    }
}

/// The next free name; conversations keep their directory from turn to turn.
async fn create(dir: &Path) -> io::Result<(File, PathBuf)> {
    tokio::fs::create_dir_all(dir).await?;
    for n in 1..=limits::tools::SHELL_FILES_MAX {
        let path = dir.join(format!("{n}.txt"));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .await;
        match opened {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_output_is_kept_up_to_a_bound_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("1.txt"), "of an earlier turn").unwrap();
        let mut spill = Spill::new(Some(dir.path().to_owned()));
        spill.push("begin").await;
        assert!(spill.file.is_none());
        let part = "x".repeat(1 << 20);
        for _ in 0..65 {
            spill.push(&part).await;
        }
        let spilled = spill.finish().await.unwrap();
        assert_eq!(spilled.path, dir.path().join("2.txt"));
        assert!(!spilled.complete);
        let content = std::fs::read_to_string(&spilled.path).unwrap();
        assert_eq!(content.len() as u64, limits::tools::SHELL_FILE_BYTES_MAX);
        assert_eq!(spilled.bytes, limits::tools::SHELL_FILE_BYTES_MAX);
        assert!(content.starts_with("beginx"));
        assert!(Spill::new(None).finish().await.is_none());
    }
}
