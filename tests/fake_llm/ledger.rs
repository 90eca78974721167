//! What was asked: for the tests to read.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The requests so far.
pub(crate) struct Ledger {
    ended: Mutex<Vec<Value>>,
    file: Option<Mutex<File>>,
    asked: AtomicU64,
    open: AtomicUsize,
}

impl Ledger {
    pub(crate) fn new(path: Option<&str>) -> std::io::Result<Self> {
        let open = |path: &str| File::options().create(true).append(true).open(path);
        Ok(Self {
            ended: Mutex::default(),
            file: path.map(open).transpose()?.map(Mutex::new),
            asked: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        })
    }

    /// A request begins; its number, from 1.
    pub(crate) fn begin(&self) -> u64 {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// It ended. What is written is there before the request stops being open.
    pub(crate) fn end(&self, entry: Value) {
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(e) = writeln!(file, "{entry}") {
                eprintln!("fake-llm: cannot write the ledger: {e}");
            }
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push(entry);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// All that ended, in the order of their end.
    pub(crate) fn all(&self) -> Value {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        Value::Array(ended.clone())
    }

    /// Those that did not end yet.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}
