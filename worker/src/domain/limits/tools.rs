//! Bounds of the native agent's tools, each with its reason.

use std::time::Duration;

/// File that a tool reads, writes or edits as text: larger ones are data, and each call holds the
/// whole of it.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Characters of one answer of a tool that reads: some twelve thousand tokens of a model's window.
pub const ANSWER_CHARS_MAX: usize = 50_000;

/// Lines that `read` gives when no number is asked for.
pub const READ_LINES: u64 = 2_000;

/// Characters of one line that `read` shows; longer ones are minified or data.
pub const READ_LINE_CHARS_MAX: usize = 2_000;

/// Entries of one `list`.
pub const LIST_ENTRIES_MAX: usize = 1_000;

/// Levels that `list` goes down when asked to.
pub const LIST_DEPTH_MAX: u64 = 5;

/// Files of one `glob`, and of a `grep` that names files only.
pub const FILES_MAX: usize = 500;

/// Matches of one `grep`; more of them are a pattern that is too wide.
pub const MATCHES_MAX: usize = 200;

/// Characters of one line that `grep` shows.
pub const MATCH_LINE_CHARS_MAX: usize = 500;

/// Lines around a match.
pub const MATCH_CONTEXT_MAX: u64 = 5;

/// Names that a search holds at once, at some hundred bytes each.
pub const WALK_ENTRIES_MAX: usize = 200_000;

/// How long a search of a worktree may take.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// File with rules of what is ignored; a longer one is no one's work, and is as good as not there.
pub const IGNORE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Longest line that a search holds in memory; a file with a longer one is left out.
pub const SEARCH_LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a regular expression or its automaton may take.
pub const REGEX_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Files of one patch, which are held together until all fit …
pub const PATCH_FILES_MAX: usize = 200;

/// … and their bytes.
pub const PATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a command of the `shell` tool runs when it does not say, in seconds: a test suite of a
/// small project …
pub const SHELL_TIMEOUT_S: u64 = 120;

/// … and at most.
pub const SHELL_TIMEOUT_S_MAX: u64 = 600;

/// After a command's end, how long its pipes may stay open: what it left in the background may hold
/// them for ever.
pub const SHELL_DRAIN: Duration = Duration::from_millis(250);

/// How often it is looked whether a command's processes are gone.
pub const SHELL_LOOK: Duration = Duration::from_millis(20);

/// Characters of a command's output that the model gets: its beginning …
pub const SHELL_HEAD_CHARS: usize = 20_000;

/// … and its end, where errors are.
pub const SHELL_TAIL_CHARS: usize = 30_000;

/// Output of one command that is kept in a file, for a model that wants what was left out.
pub const SHELL_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Such files of one directory.
pub const SHELL_FILES_MAX: usize = 10_000;

/// Output of one command that people see while it runs …
pub const STREAM_BYTES_MAX: usize = 1024 * 1024;

/// … and a piece of it.
pub const STREAM_PIECE_BYTES: usize = 16 * 1024;

/// Calls of tools at once; the worker asks for a few.
pub const CALLS_AT_ONCE: usize = 64;

/// Lines that wait to be written to the worker; a worker that does not read stops the commands.
pub const LINES_MAX: usize = 16;

/// How long the calls of a turn get to end when the worker is gone.
pub const CALLS_END: Duration = Duration::from_secs(5);
