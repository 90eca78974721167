//! Programs of the person at the terminal: a pager for what is long, an editor for what is written.
//! Which ones is said by their environment alone; what they show or hold is never part of a command.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::out::Out;

/// The pager when none is named: ends by itself on one screen, keeps colours, leaves the text there.
const USUAL_PAGER: &str = "less -FRX";

/// Exit codes of a shell that did not find its program, or could not start it.
const NOT_STARTED: [i32; 2] = [126, 127];

/// Show a text through the pager of the person, or print it where there is none.
pub(crate) async fn page(out: &mut Out, text: String) -> io::Result<()> {
    page_unless(out, text, std::future::pending()).await
}

/// The same; the pager is ended when this comes first.
pub(crate) async fn page_unless(
    out: &mut Out,
    text: String,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let Some(line) = pager() else {
        return out.print(&text);
    };
    let mut command = shell(&line, &[]);
    command.stdin(Stdio::piped());
    // As git does, for those who only name it.
    for (name, usual) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            command.env(name, usual);
        }
    }
    // Ctrl-C at the terminal is for the pager: it stops a search there, and does not end us.
    let _kept = signal(SignalKind::interrupt())?;
    let mut child = command.spawn()?;
    let input = child.stdin.take();
    let write = async {
        if let Some(mut input) = input {
            // A pager that was left early reads no more; that is no fault.
            let _read = input.write_all(text.as_bytes()).await;
        }
    };
    let (ended, ()) = tokio::join!(end_of(&mut child, stop), write);
    match ended?.code() {
        Some(code) if NOT_STARTED.contains(&code) => out.print(&text),
        _ => Ok(()),
    }
}

/// Let the person write in their editor, beginning with this text; `None`: they left it with an error.
/// The editor is ended when `stop` comes first.
pub(crate) async fn edit(
    editor: &OsString,
    text: &str,
    stop: impl Future<Output = ()>,
) -> io::Result<Option<String>> {
    let mut file = tempfile::Builder::new()
        .prefix("dispatch-review-")
        .suffix(".md")
        .tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let mut command = shell(editor, &[file.path().as_os_str().to_owned()]);
    let _kept = signal(SignalKind::interrupt())?;
    let mut child = command.spawn()?;
    if !end_of(&mut child, stop).await?.success() {
        return Ok(None);
    }
    // By its name: editors put a new file in its place.
    let bytes = tokio::fs::read(file.path()).await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The editor of the person, when they named one.
pub(crate) fn editor() -> Option<OsString> {
    let named = ["VISUAL", "EDITOR"].map(std::env::var_os);
    named
        .into_iter()
        .flatten()
        .find(|editor| !editor.is_empty())
}

/// The line that starts the pager; `None`: there is none, or none is wanted.
fn pager() -> Option<OsString> {
    let named = ["DISPATCH_PAGER", "PAGER"].map(std::env::var_os);
    chosen(named, || in_path("less"))
}

fn chosen(named: [Option<OsString>; 2], has_less: impl Fn() -> bool) -> Option<OsString> {
    match named.into_iter().flatten().next() {
        Some(line) if line.is_empty() || line == "cat" => None,
        Some(line) => Some(line),
        None => has_less().then(|| USUAL_PAGER.into()),
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A line of the person's own, with these arguments after it.
fn shell(line: &OsString, arguments: &[OsString]) -> Command {
    let mut script = line.clone();
    if !arguments.is_empty() {
        script.push(" \"$@\"");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the pager and the editor of the person who typed the command"
    )]
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("dispatch");
    command.args(arguments);
    command
}

/// Wait for its end; ask it to end when `stop` comes first, so that it puts the terminal back.
async fn end_of(child: &mut Child, stop: impl Future<Output = ()>) -> io::Result<ExitStatus> {
    tokio::select! {
        ended = child.wait() => return ended,
        () = stop => {}
    }
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // Gone already: then there is nobody to ask.
        let _asked = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    child.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pager_is_the_one_of_dispatch_then_of_everything_then_less() {
        let some = |line: &str| Some(OsString::from(line));
        let (yes, no) = (|| true, || false);
        assert_eq!(chosen([some("a"), some("b")], no), some("a"));
        assert_eq!(chosen([None, some("b -x")], yes), some("b -x"));
        assert_eq!(chosen([None, None], yes), some(USUAL_PAGER));
        assert_eq!(chosen([None, None], no), None);
        for none in ["", "cat"] {
            assert_eq!(chosen([some(none), some("b")], yes), None);
            assert_eq!(chosen([None, some(none)], yes), None);
        }
    }
}
