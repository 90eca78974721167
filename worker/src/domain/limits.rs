//! Every bound of the system, each with its reason. What is read from an agent, a repository, a
//! network peer or a person is bounded by one of these.

use std::time::Duration;

/// Longest line of a JSON protocol. Codex ends a 2 MB answer with one line of 2 MB and qwen
/// announces its commands in 563 kB; beyond this it is an attack or a fault.
pub const PROTOCOL_LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of protocol lines waiting to be written to an agent. Lines are read one at a time and
/// only when the last one was handled, so that an agent that floods fills its own pipe and not
/// our memory; one that asks much and reads nothing ends here.
pub const PROTOCOL_BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Tail of an agent's stderr that is kept: enough for a stack trace, small enough for a row.
pub const STDERR_TAIL_BYTES_MAX: usize = 16 * 1024;

/// Events between an adapter and the run; a full channel stops the adapter's reading.
pub const AGENT_EVENTS_MAX: usize = 256;

/// Longest text in one delta; longer ones are split so that no event row grows without bound.
pub const DELTA_BYTES_MAX: usize = 64 * 1024;

/// A stored delta is sealed at this size …
pub const EVENT_ROW_BYTES: usize = 16 * 1024;

/// … or at this age, whichever comes first.
pub const COALESCE_WINDOW: Duration = Duration::from_millis(60);

/// Text kept of one tool call's input or output in events and items; the whole text stays in the
/// agent's own log.
pub const TOOL_TEXT_BYTES_MAX: usize = 256 * 1024;

/// Last text of the agent that becomes `output_summary`.
pub const SUMMARY_CHARS_MAX: usize = 2_000;

/// Error text stored on an outcome.
pub const ERROR_TEXT_CHARS_MAX: usize = 4_000;

/// Prompt of a task. Longer material belongs into a file of the repository.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;

/// One file's patch in a view; a reviewer reads no more, and the tree is kept whole anyway.
pub const PATCH_FILE_BYTES_MAX: usize = 1024 * 1024;

/// All patches of one change in views.
pub const PATCH_TOTAL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Changed lines shown for one change.
pub const PATCH_LINES_MAX: usize = 40_000;

/// Largest single file that a snapshot takes; beyond it the file is reported, not hashed.
pub const SNAPSHOT_FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Most bytes of new content in one snapshot.
pub const SNAPSHOT_TOTAL_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Most entries a snapshot walks before it gives up with a clear message.
pub const SNAPSHOT_ENTRIES_MAX: usize = 1_000_000;

/// Objects of a change kept in Postgres, so that it survives the host that made it.
pub const CHANGE_PACK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest path in a tree (PATH_MAX).
pub const PATH_BYTES_MAX: usize = 4_096;

/// How long a git command may take before it is killed.
pub const GIT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long setup and teardown hooks may take.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// After the main process ended, how long its pipes may stay open before we close them: a
/// grandchild that holds stdout must not hold the slot.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Most open permission requests of one attempt; an agent that asks more is flooding.
pub const PERMISSIONS_OPEN_MAX: usize = 64;

/// Live readers get deltas through a channel this long; a slow one is dropped to catching up.
pub const SUBSCRIBER_LAG_MAX: usize = 1_024;

/// Rows in one page of a stream or list.
pub const PAGE_MAX: i64 = 200;

/// Body of an HTTP request: a prompt plus its frame.
pub const HTTP_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Lease time to live; a worker not seen for so long has lost its tasks.
pub const LEASE_TTL: Duration = Duration::from_secs(20);

/// How often a worker shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A worker that could not renew for so long, by its own monotonic clock, stops its agents
/// before others may start the same tasks (0.6 of the lease).
pub const SELF_STOP: Duration = Duration::from_secs(12);

/// Until an agent began its turn: a cold start of a big one takes 30 s on a busy machine.
pub const AGENT_START_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest silence of an agent: retries against a provider are silent for minutes.
pub const AGENT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Longest attempt, unless the task says otherwise.
pub const AGENT_TOTAL_TIMEOUT: Duration = Duration::from_secs(7_200);

/// Time between the steps of ending an agent (end of input, TERM, KILL).
pub const KILL_GRACE: Duration = Duration::from_secs(2);

/// How long an agent may take to answer a protocol cancel before its input is closed; the
/// slowest that answers at all took 2.3 s.
pub const CANCEL_ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);

/// How long the sweep of a process set may take; what survives KILL for so long hangs in the
/// kernel and is reported.
pub const SWEEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an agent may leave its standard input unread.
pub const PROTOCOL_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a person has to answer a question of an agent.
pub const PERMISSION_ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// Lines of a protocol that are not JSON and still become notices; the others are counted.
pub const NOISE_LINES_MAX: usize = 20;

/// Text kept of one such line.
pub const NOISE_LINE_BYTES_MAX: usize = 2 * 1024;

/// Tool calls of one turn whose facts are remembered for later questions about them.
pub const TOOL_CALLS_MAX: usize = 10_000;

/// Usage reports kept as they came; more are counted but not kept.
pub const USAGE_RAW_MAX: usize = 200;

/// Terminals an agent may have open at once.
pub const TERMINALS_OPEN_MAX: usize = 16;

/// Output kept of one terminal of an agent, whatever limit it asks for.
pub const TERMINAL_OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// File an agent may read or write through the protocol.
pub const AGENT_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long a probe of an agent may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the memory of an agent's processes is looked at.
pub const PROCESS_WATCH: Duration = Duration::from_secs(1);

/// Quiet time after which a terminal program counts as waiting for input.
pub const TERMINAL_QUIET: Duration = Duration::from_millis(300);

/// Longest single argument of a program (Linux: 128 KiB, MAX_ARG_STRLEN, with room for the rest).
pub const ARGUMENT_BYTES_MAX: usize = 120 * 1024;

/// Screens of a terminal program that paints over itself are told at most so often.
pub const TERMINAL_SCREEN_EVERY: Duration = Duration::from_secs(5);

/// Output still taken from a pipe after the drain's time: what a full pipe can hold.
pub const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// How long a probe waits for an agent's list of commands, which comes after its session.
pub const COMMANDS_WAIT: Duration = Duration::from_millis(1_500);
