//! A worktree for tests, with something beside it that no tool may reach.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::outcome::Outcome;
use super::place::Roots;
use super::tools::Which;

pub(super) struct Tree {
    dir: TempDir,
}

impl Tree {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tree", "outside", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub(super) fn roots(&self) -> Roots {
        let tmp = self.dir.path().join("tmp");
        Roots::open(&self.path(""), Some(&tmp)).unwrap()
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("tree").join(path)
    }

    pub(super) fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(super) fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(super) fn put_outside(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join("outside").join(name), content).unwrap();
    }

    pub(super) fn outside(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("outside").join(name)).unwrap()
    }

    pub(super) fn call_with(&self, tool: &str, input: Value, cancel: CancellationToken) -> Outcome {
        match Which::named(tool).unwrap() {
            Which::Files(tool) => tool.run(&self.roots(), input, cancel),
            Which::Shell => panic!("the shell is tested as a program"),
        }
    }

    pub(super) fn call(&self, tool: &str, input: Value) -> Outcome {
        self.call_with(tool, input, CancellationToken::new())
    }

    #[track_caller]
    pub(super) fn done(&self, tool: &str, input: Value) -> String {
        let outcome = self.call(tool, input);
        assert!(!outcome.is_error, "{}", outcome.output);
        outcome.output
    }

    #[track_caller]
    pub(super) fn failed(&self, tool: &str, input: Value) -> String {
        let outcome = self.call(tool, input);
        assert!(outcome.is_error, "{}", outcome.output);
        outcome.output
    }
}
