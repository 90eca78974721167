//! Every bound of the system, each with its reason. What is read from an agent, a repository, a
//! network peer or a person is bounded by one of these.

use std::time::Duration;

mod native;
pub mod tools;

pub use native::*;

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

/// Most bytes of events that one attempt may store; a task that talks more is flooding.
pub const ATTEMPT_EVENT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Events of a stopped attempt that wait for a database that is behind; an agent that is being
/// ended has little left to say.
pub const STOPPED_BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest text in one delta; longer ones are split so that no event row grows without bound.
pub const DELTA_BYTES_MAX: usize = 64 * 1024;

/// A stored delta is sealed at this size …
pub const EVENT_ROW_BYTES: usize = 16 * 1024;

/// … or at this age, whichever comes first.
pub const COALESCE_WINDOW: Duration = Duration::from_millis(60);

/// Text kept of one tool call's input or output in events and items; the whole text stays in the
/// agent's own log.
pub const TOOL_TEXT_BYTES_MAX: usize = 256 * 1024;

/// What a question is about, as its title says it; the whole of it is in the question's detail.
pub const QUESTION_SUBJECT_CHARS_MAX: usize = 1_000;

/// Last text of the agent that becomes `output_summary`.
pub const SUMMARY_CHARS_MAX: usize = 2_000;

/// Error text stored on an outcome.
pub const ERROR_TEXT_CHARS_MAX: usize = 4_000;

/// Prompt of a task. Longer material belongs into a file of the repository.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;

/// What somebody sends into a conversation at a time: more would push out of a model's context what it
/// is about. The database has the same bound.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

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

/// How long an attempt waits for the directory of its conversation, which the attempt before it
/// leaves within milliseconds unless a hook runs there; after that it works in one of its own.
pub const PLACE_WAIT: Duration = Duration::from_secs(2);

/// How often it looks.
pub const PLACE_LOOK: Duration = Duration::from_millis(20);

/// How long a git command may take before it is killed.
pub const GIT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a fetch or a push may take: the first fetch brings all of the history.
pub const GIT_NETWORK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Longest text of a preview or of one file for reviewers: what a browser and a terminal still show.
pub const PREVIEW_BYTES_MAX: usize = 1024 * 1024;

/// Largest file whose conflicts are shown with marks.
pub const CONFLICT_FILE_BYTES_MAX: usize = 256 * 1024;

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

/// Until a connection to the database is ready, the words of its beginning included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Until the database answers one statement. Nothing of ours takes a second; more is a lock that
/// somebody holds, or a server that cannot go on, and neither may hold up a command for ever.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// To tell the server that nobody waits for an answer any more.
pub const CANCEL_QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// A LISTEN connection that was silent for so long pings itself: a peer that vanished without a word
/// looks like one with nothing to say. Four pings a minute cost nothing.
pub const LISTEN_QUIET: Duration = Duration::from_secs(15);

/// How long it may take to hear its own ping, or to begin to listen at all.
pub const LISTEN_PATIENCE: Duration = Duration::from_secs(5);

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

/// What is looked at of it, so that a secret across the cut is known: some forms of one have seven
/// times its bytes.
pub const NOISE_LINE_BYTES_SEEN: usize = NOISE_LINE_BYTES_MAX + 8 * SECRET_BYTES_MAX;

/// Tool calls of one turn whose facts are remembered for later questions about them.
pub const TOOL_CALLS_MAX: usize = 10_000;

/// Files that one of them names, as far as they are looked at; more are a person's to judge.
pub const TOOL_CALL_FILES_MAX: usize = 256;

/// Bytes of their names: times the calls, a few hundred megabytes from an agent that means harm.
pub const TOOL_CALL_FILES_BYTES_MAX: usize = 32 * 1024;

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

/// Longest turn of a check: one word into one file. A model that thinks takes a minute for it.
pub const CHECK_TURN_MAX: Duration = Duration::from_secs(120);

/// A check cancels a turn at its first sign of work, or after so long without one: programs that print
/// their answer whole give none.
pub const CHECK_CANCEL_AFTER: Duration = Duration::from_secs(10);

/// How long the end of a checked turn may take: cancel, TERM, KILL and the sweep, each with its wait.
pub const CHECK_END_MAX: Duration = Duration::from_secs(40);

/// How long a worker tries an agent because somebody asks: a check has half a dozen turns, each with a
/// limit of minutes.
pub const AGENT_TRY_MAX: Duration = Duration::from_secs(900);

/// What lives longer than this without a parent in the attempt was let go of, and not just orphaned on
/// its way out.
pub const CHECK_DETACHED_AFTER: Duration = Duration::from_millis(200);

/// What a check tells of one thing: a sentence or two in a table.
pub const CHECK_FOUND_CHARS_MAX: usize = 400;

/// A request to a model that is longer is not kept as it was sent.
pub const CAPTURE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the making of a request that is to be kept may take.
pub const CAPTURE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long requests are kept as they were sent.
pub const CAPTURE_KEEP: Duration = Duration::from_secs(7 * 24 * 3_600);

/// All of them together, the newest ones stay.
pub const CAPTURE_TOTAL_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// How often the memory of an agent's processes is looked at.
pub const PROCESS_WATCH: Duration = Duration::from_secs(1);

/// Quiet time after which a terminal program counts as waiting for input.
pub const TERMINAL_QUIET: Duration = Duration::from_millis(300);
/// Output of one git command that is held in memory: a listing of a million entries fits.
pub const GIT_OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Deepest directory that a snapshot follows. Each level holds a file descriptor, and no
/// project is half as deep; a deeper one is refused, not cut.
pub const SNAPSHOT_DEPTH_MAX: usize = 200;

/// Most notices of one snapshot; the last one counts the rest.
pub const NOTICES_MAX: usize = 100;

/// Renames are looked for among at most this many added and deleted files, since each pair is
/// compared.
pub const RENAME_FILES_MAX: usize = 400;

/// A text file beyond this is shown by size and hash like a binary one: comparing it line by
/// line costs seconds and nobody reads it.
pub const DIFF_FILE_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// Most untracked files that a project may have copied into each worktree …
pub const COPIED_FILES_MAX: usize = 1_000;

/// … and their bytes in all; `copy_files` is for settings, not for data.
pub const COPIED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Output of a setup or teardown hook; only the end of its stderr is ever shown.
pub const HOOK_OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often a change is merged again because its target branch moved meanwhile.
pub const APPLY_TRIES_MAX: usize = 5;

/// Commits remembered as free of filters; forgetting one costs a listing of its tree.
pub const PLAIN_COMMITS_MAX: usize = 10_000;

/// Names of one directory that are held while what an agent left is removed.
pub const REMOVE_NAMES_MAX: usize = 10_000;

/// A worktree whose content cannot be recorded is looked at again after so long, unless the reason
/// is one that does not change.
pub const UNRECORDED_LOOK: Duration = Duration::from_secs(3_600);

/// A directory of the workspace that is neither locked nor complete is left alone for so long:
/// another process may be between making and locking it.
pub const DIRECTORY_SETTLED: Duration = Duration::from_secs(10);
/// Comment or reason of a review: people write it, and it is kept for ever.
pub const COMMENT_BYTES_MAX: usize = 64 * 1024;

/// How long an HTTP answer that is not a stream may take; a probe of an agent takes 30 s at most.
pub const HTTP_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Tasks that one call submits.
pub const BATCH_TASKS_MAX: usize = 200;

/// Bytes of an idempotency key: the rule of the column, said where keys are made.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;
/// Bytes of the key of a limit: the rule of admit_tasks(), said where limits are set.
pub const LIMIT_KEY_BYTES_MAX: usize = 200;

/// How long one call waits for the end of a task; less than an answer may take.
pub const WAIT_MAX: Duration = Duration::from_secs(50);

/// One try to send spans to a collector.
pub const TRACES_EXPORT_MAX: Duration = Duration::from_secs(10);

/// What waits for a collector when the process ends may hold it up so long.
pub const TRACES_FLUSH_MAX: Duration = Duration::from_secs(5);

/// Longest text of a span: names, some of which a model makes up.
pub const SPAN_TEXT_CHARS_MAX: usize = 256;

/// Streams open at a time in one server; each holds a socket and a little memory.
pub const HTTP_STREAMS_MAX: usize = 1_024;

/// Callers over HTTP that are counted apart; each takes some hundred bytes. Others share a count.
pub const HTTP_CALLERS_MAX: usize = 10_000;

/// Wrong tokens of one address in a minute: a person mistypes, a program tries.
pub const HTTP_REFUSALS_PER_MINUTE: u32 = 30;

/// Bearer tokens of one server: each request is compared with all of them.
pub const HTTP_TOKENS_MAX: usize = 1_000;

/// Name of an actor in the record.
pub const ACTOR_BYTES_MAX: usize = 200;

/// Longest single argument of a program (Linux: 128 KiB, MAX_ARG_STRLEN, with room for the rest).
pub const ARGUMENT_BYTES_MAX: usize = 120 * 1024;

/// Screens of a terminal program that paints over itself are told at most so often.
pub const TERMINAL_SCREEN_EVERY: Duration = Duration::from_secs(5);

/// Output still taken from a pipe after the drain's time: what a full pipe can hold.
pub const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// Most new or changed files of one change: each is an object, a row and something to review. A
/// sweep over a very large repository stays below it; an agent that unpacked a dependency into
/// the project does not.
pub const CHANGED_FILES_MAX: usize = 50_000;

/// A spool directory of the object store this old belongs to a worker that died: no git command
/// runs longer.
pub const SPOOL_AGE_MAX: Duration = Duration::from_secs(3_600);

/// Notices held until they are sorted and cut; a million pipes must not fill our memory.
pub const NOTICES_HELD_MAX: usize = 10_000;
/// How long a probe waits for an agent's list of commands, which comes after its session.
pub const COMMANDS_WAIT: Duration = Duration::from_millis(1_500);

/// Shared memory of a confined attempt: enough for a browser or a build, and it is memory.
pub const SHARED_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A script's interpreter may be a script; nobody has more than a few of them in a row.
pub const INTERPRETERS_MAX: usize = 4;

/// How long proving that a rung of the sandbox works may take on a busy machine.
pub const SANDBOX_PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the helper looks whether its worker still lives; normally a signal tells it at once.
pub const HELPER_LOOK: Duration = Duration::from_secs(1);

/// Processes and threads of an attempt at once, when its entry says nothing: a parallel build with a browser
/// beside it stays below, a fork bomb does not.
pub const ATTEMPT_PIDS: u64 = 4_096;

/// Memory of an attempt in MiB, when its entry says nothing: agents take up to one GiB, their
/// builds several.
pub const ATTEMPT_MEMORY_MB: u64 = 8_192;

/// Size of one file in MiB, when the entry says nothing.
pub const ATTEMPT_FILE_MB: u64 = 4_096;

/// Disk space of an attempt in MiB, when the entry says nothing.
pub const ATTEMPT_DISK_MB: u64 = 20_480;

/// Seconds of processor time that the kernel grants a process beyond `cpu_time`: it only ends what
/// the worker, which looks every second, does not.
pub const CPU_SLACK_S: u64 = 10;

/// When the helper stops trying to end processes one by one, if they have a user of their own.
pub const HELPER_PATIENCE: Duration = Duration::from_secs(3);

/// Looks in a row at an attempt's processes to stop them before they are killed: each finds fewer.
pub const FREEZE_LOOKS_MAX: usize = 100;

/// How long the helper gets to end what it is the parent of, before it is killed itself.
pub const HELPER_END: Duration = Duration::from_secs(11);

/// The disk space of an attempt is looked at this often, unless that takes long.
pub const DISK_WATCH: Duration = Duration::from_secs(5);

/// Entries of one look at an attempt's disk space; who has more takes too much. A million files are
/// refused by the snapshot.
pub const DISK_WATCH_ENTRIES_MAX: usize = 2_000_000;

/// Directories inside one another that such a look goes into, with a descriptor each: as deep as a
/// snapshot does.
pub const DISK_WATCH_DEPTH_MAX: usize = SNAPSHOT_DEPTH_MAX;

/// Names of directories that wait for such a look to come to them, in bytes.
pub const DISK_WATCH_NAMES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Looks at disk space at once, of all attempts: so that hostile ones take few of the worker's
/// descriptors.
pub const DISK_LOOKS_MAX: usize = 2;

/// Shortest value that is looked for as a secret: shorter ones stand in other words by chance.
pub const SECRET_BYTES_MIN: usize = 8;

/// Longest one: a token with claims has 4 KiB; what is longer is a document, whose parts count.
pub const SECRET_BYTES_MAX: usize = 8 * 1024;

/// Most secrets looked for at once; each is some twenty forms to search for.
pub const SECRETS_MAX: usize = 512;

/// Bytes of all of them; the forms of so many take some forty megabytes to search for.
pub const SECRETS_BYTES_MAX: usize = 64 * 1024;

/// Credential file that is looked through for secrets; they hold a few tokens.
pub const SECRET_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most bytes of one change that are searched for secrets, at some hundred MB/s; the reviewer is told
/// when there is more.
pub const SECRET_SCAN_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Rules in one agent's `hosts`; each connection looks at all of them.
pub const GATEWAY_RULES_MAX: usize = 256;

/// A host or rule that is shown in an error: DNS has no longer names.
pub const GATEWAY_HOST_CHARS_SHOWN: usize = 253;

/// Head of one request or answer through the gateway: servers themselves take 8 to 32 KiB.
pub const GATEWAY_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of one; Apache takes as many.
pub const GATEWAY_HEADERS_MAX: usize = 100;

/// Until a request has come whole: the client is on this machine, and each that is slow holds a
/// place.
pub const GATEWAY_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one attempt at once; each has some 50 KiB of buffers. A package manager opens 50.
pub const GATEWAY_CONNECTIONS_MAX: usize = 256;

/// Names of one attempt that are resolved at once: each blocks one of the threads that git needs too.
pub const GATEWAY_LOOKUPS_MAX: usize = 8;

/// Until a name has addresses: a resolver asks its second server after five seconds.
pub const GATEWAY_LOOKUP_TIMEOUT: Duration = Duration::from_secs(12);

/// Until one address has answered.
pub const GATEWAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
pub const GATEWAY_ADDRESSES_MAX: usize = 4;

/// Longest silence of a connection, which is that of an agent: a model may think for minutes before
/// its first byte.
pub const GATEWAY_IDLE_TIMEOUT: Duration = AGENT_IDLE_TIMEOUT;

/// Different refusals of one attempt that are told; more of them say nothing new.
pub const GATEWAY_REFUSALS_TOLD_MAX: usize = 32;

/// Connections that the relay in a sandbox carries at once; each takes two of the threads that the
/// sandbox may have.
pub const RELAY_CONNECTIONS_MAX: usize = 128;

/// The gateway's answer to a request of the relay's own.
pub const RELAY_ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Entries of agents.toml that extend one another in a row; people do not follow half as many.
pub const EXTENDS_DEPTH_MAX: usize = 16;

/// Refusals of one attempt that are answered at once; an agent with more is trying doors …
pub const GATEWAY_REFUSALS_AT_ONCE: u64 = 1_000;

/// … and waits this long for each further answer, so that it cannot keep the worker busy.
pub const GATEWAY_REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Directories inside one another that are given to an attempt's user: a descriptor each, and no
/// project or HOME has as many.
pub const GIVE_DEPTH_MAX: usize = 256;

/// The port of the gateway's relay inside a sandbox; the network there is the attempt's alone.
pub const GATEWAY_PORT: u16 = 3_128;

/// The first port that everybody may listen at (`ip_unprivileged_port_start` of a new namespace).
pub const UNPRIVILEGED_PORT: u16 = 1_024;

/// Open files of a worker: 200 attempts with a full gateway each take half of it.
pub const OPEN_FILES_MAX: u64 = 262_144;

/// Fewer than these make it tell: one attempt with a full gateway takes an eighth.
pub const OPEN_FILES_WANTED: u64 = 4_096;
