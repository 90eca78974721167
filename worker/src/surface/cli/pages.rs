//! Completions of shells, and manual pages: both from the tree of commands.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use serde_json::json;

use super::out::Out;
use super::{CliError, document, safe_text, tree};
use crate::ops::OpError;

/// What is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The completions of a shell.
    Completions(Shell),
    /// The manual pages, into a directory.
    Manual(PathBuf),
}

/// The commands.
pub(super) fn commands() -> [Command; 2] {
    [
        Command::new("completions")
            .about("Print the completions of a shell")
            .after_help(
                "Examples:\n  dispatch completions bash > ~/.local/share/bash-completion/completions/dispatch\n  \
                 dispatch completions zsh > ~/.zfunc/_dispatch\n  \
                 dispatch completions fish > ~/.config/fish/completions/dispatch.fish",
            )
            .arg(
                Arg::new("shell")
                    .required(true)
                    .value_name("SHELL")
                    .value_parser(value_parser!(Shell))
                    .help("Which one"),
            ),
        Command::new("man")
            .about("Write the manual pages into a directory")
            .after_help("Examples:\n  dispatch man ~/.local/share/man/man1 && man dispatch-submit")
            .arg(
                Arg::new("dir")
                    .required(true)
                    .value_name("DIR")
                    .value_parser(value_parser!(PathBuf))
                    .help("Where to; it is made when it is not there"),
            ),
    ]
}

/// What parsed arguments of `completions` or `man` ask for.
pub(super) fn asked(name: &str, matches: &ArgMatches) -> Result<Pages, OpError> {
    let missing = || OpError::invalid(format!("{name} wants an argument"));
    match name {
        "completions" => {
            let shell = matches.get_one::<Shell>("shell").copied();
            shell.map(Pages::Completions).ok_or_else(missing)
        }
        _ => {
            let dir = matches.get_one::<PathBuf>("dir").cloned();
            dir.map(Pages::Manual).ok_or_else(missing)
        }
    }
}

/// Print or write them.
pub(super) fn make(out: &mut Out, pages: &Pages, json: bool) -> Result<(), CliError> {
    match pages {
        Pages::Completions(shell) => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut tree::command(), "dispatch", &mut text);
            let script = String::from_utf8_lossy(&text);
            let told = json!({"shell": shell.to_string(), "script": script});
            match json {
                true => out.line(&document(&told))?,
                false => out.line(script.trim_end())?,
            }
        }
        Pages::Manual(dir) => {
            let shown = dir.display().to_string();
            let unfit = |e: io::Error| OpError::invalid(format!("cannot write into {shown}: {e}"));
            let count = manual(dir).map_err(unfit)?;
            match json {
                true => out.line(&document(&json!({"pages": count, "dir": shown})))?,
                false => out.line(&format!("{count} pages in {}", safe_text::line(&shown)))?,
            }
        }
    }
    Ok(())
}

/// One page for each command, such as `dispatch-changes-approve.1`.
fn manual(dir: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    let mut root = tree::command();
    root.build();
    let mut count = 0;
    let mut todo = vec![root];
    while let Some(command) = todo.pop() {
        todo.extend(command.get_subcommands().cloned());
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        std::fs::write(dir.join(page.get_filename()), text)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_gets_completions_that_know_the_operations() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut tree::command(), "dispatch", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["request-changes", "submit", "four-eyes"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("man1");
        let count = manual(&inner).unwrap();
        assert_eq!(
            std::fs::read_dir(&inner).unwrap().count(),
            count,
            "no two share a name"
        );
        let page = std::fs::read_to_string(inner.join("dispatch-changes-approve.1")).unwrap();
        assert!(page.contains("digest"), "{page}");
        assert!(inner.join("dispatch.1").exists());
    }
}
