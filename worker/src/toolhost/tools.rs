//! Which tool a call means, and how those that work on files are run.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::definitions::definitions;
use super::fields::Fields;
use super::outcome::{Outcome, Told};
use super::place::Roots;
use super::{apply_patch, edit, glob, grep, list, read, write};

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Files(FileTool),
    Shell,
}

/// A tool that works on files by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileTool {
    Read,
    List,
    Glob,
    Grep,
    Edit,
    Write,
    ApplyPatch,
}

impl Which {
    pub(super) fn named(name: &str) -> Told<Self> {
        Ok(match name {
            "read" => Self::Files(FileTool::Read),
            "list" => Self::Files(FileTool::List),
            "glob" => Self::Files(FileTool::Glob),
            "grep" => Self::Files(FileTool::Grep),
            "edit" => Self::Files(FileTool::Edit),
            "write" => Self::Files(FileTool::Write),
            "apply_patch" => Self::Files(FileTool::ApplyPatch),
            "shell" => Self::Shell,
            _ => {
                let names: Vec<&str> = definitions().iter().map(|tool| tool.name).collect();
                return Err(format!(
                    "there is no tool {name:?}; there are {}",
                    names.join(", ")
                ));
            }
        })
    }
}

impl FileTool {
    /// Run it; blocks.
    pub(super) fn run(self, roots: &Roots, input: Value, cancel: CancellationToken) -> Outcome {
        self.try_run(roots, input, cancel).into()
    }

    fn try_run(self, roots: &Roots, input: Value, cancel: CancellationToken) -> Told<Outcome> {
        let input = &mut Fields::of(input)?;
        match self {
            Self::Read => read::run(roots, input),
            Self::List => list::run(roots, input, cancel),
            Self::Glob => glob::run(roots, input, cancel),
            Self::Grep => grep::run(roots, input, cancel),
            Self::Edit => edit::run(roots, input),
            Self::Write => write::run(roots, input),
            Self::ApplyPatch => apply_patch::run(roots, input),
        }
    }

    /// What is done cannot be undone by a cancel: the answer waits for it, to be true.
    pub(super) fn changes(self) -> bool {
        match self {
            Self::Read | Self::List | Self::Glob | Self::Grep => false,
            Self::Edit | Self::Write | Self::ApplyPatch => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_that_is_told_of_can_be_called() {
        for tool in definitions() {
            assert!(Which::named(tool.name).is_ok(), "{}", tool.name);
        }
        let told = Which::named("bash").unwrap_err();
        assert!(
            told.starts_with("there is no tool \"bash\"; there are read, list"),
            "{told}"
        );
    }
}
