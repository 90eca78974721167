//! Bounds of the native agent and of the LLM providers that it asks, each with its reason.

use std::time::Duration;

/// Tools that a native agent runs at once when its entry says nothing: reading and searching, as
/// many as keep a disk busy.
pub const NATIVE_TOOLS_AT_ONCE: u32 = 4;

/// How full the model's window is, in hundredths, when a native agent's conversation is compacted:
/// what is left holds an answer and the results of its calls.
pub const NATIVE_COMPACT_AT_PERCENT: u32 = 80;

/// Messages that a compaction leaves as they are: what the model is just working on.
pub const NATIVE_COMPACT_KEEP: u32 = 10;

/// Until a provider without a key has taken a connection; it is on this machine or near it.
pub const PROVIDER_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Providers that are connected to at the same time in a probe.
pub const PROVIDERS_AT_ONCE: usize = 8;

/// Longest call of a tool of the native agent, as the worker waits for it: the tools end their own
/// calls before that, so that only a program that is stuck meets this.
pub const TOOL_CALL_TIMEOUT: Duration = Duration::from_secs(700);

/// Calls of tools that wait for the program that runs them; a model calls a handful at once.
pub const TOOL_CALLS_QUEUED_MAX: usize = 64;

/// What one tool may say to the model. The tools cut themselves far below; a command that speaks
/// in their place must not fill the conversation.
pub const TOOL_RESULT_BYTES_MAX: usize = 256 * 1024;

/// Results of the tools of one step together: what a model can take in at once.
pub const STEP_RESULTS_BYTES_MAX: usize = 1024 * 1024;

/// Longest line of the program that runs the tools: a result with each of its bytes escaped.
pub const TOOL_LINE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What one command may tell while it runs. The program cuts it there itself; a command that speaks in its
/// place must not fill the stream.
pub const TOOL_OUTPUT_BYTES_MAX: usize = 1024 * 1024 + 4 * 1024;

/// A conversation that is larger is compacted, whatever is known of the model's window.
pub const HISTORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest silence of a turn that works: a tool that runs, a wait for a slot, a model that says nothing that
/// is told. After this a sign of life is given.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Until the program that runs the tools is there.
pub const TOOLS_START_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of tools in one answer of a model; more is a model that has lost its way.
pub const TOOL_CALLS_OF_STEP_MAX: usize = 128;

/// Answers that break off one after the other before a turn gives up.
pub const BROKEN_ANSWERS_MAX: u32 = 3;

/// A project's instructions for agents that the model is told; the rest it can read.
pub const INSTRUCTIONS_BYTES_MAX: usize = 32 * 1024;

/// The answer that a compaction asks for.
pub const SUMMARY_TOKENS_MAX: u32 = 4_000;

/// A result of a tool, as the model that summarizes reads it.
pub const SUMMARIZED_RESULT_CHARS_MAX: usize = 400;

/// First pause of a provider that refuses its key or wants money: a person has to do something, and
/// may have done it.
pub const REFUSED_PROVIDER_PAUSE: Duration = Duration::from_secs(300);

/// Longest line of an MCP server: a page of documentation, not a repository.
pub const MCP_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pages of tools that an MCP server is asked for.
pub const MCP_PAGES_MAX: usize = 16;

/// Tools of one MCP server; each is sent with each request.
pub const MCP_TOOLS_MAX: usize = 64;

/// What an MCP tool may say of itself, since each request sends it.
pub const MCP_DESCRIPTION_BYTES_MAX: usize = 8 * 1024;

/// Schema of an MCP tool's input, for the same reason.
pub const MCP_SCHEMA_BYTES_MAX: usize = 32 * 1024;

/// Parts of such a schema that are read, each reference as often as it is used.
pub const MCP_SCHEMA_PARTS_MAX: usize = 1_000;

/// What an MCP server may ask of the worker in a turn: a sign of life every few seconds, for hours.
/// The answers wait in memory for a server that does not read them.
pub const MCP_REQUESTS_MAX: usize = 10_000;

/// Characters of why an MCP server is left out; its own words are part of it.
pub const MCP_FAULT_CHARS_MAX: usize = 500;

/// Longest call of an MCP server's tool, unless its entry says otherwise.
pub const MCP_CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for a connection to an LLM provider.
pub const LLM_CONNECT_MAX: Duration = Duration::from_secs(30);

/// Longest wait for an LLM provider's first byte: a model that thinks hard is slow, and this
/// must be over before the usual idle_timeout is.
pub const LLM_HEADERS_MAX: Duration = Duration::from_secs(540);

/// Longest silence of an LLM provider within an answer, for the same reason.
pub const LLM_SILENCE_MAX: Duration = Duration::from_secs(540);

/// Longest answer of an LLM provider, frames and all: the longest output of a model in single
/// tokens, each in a frame of its own, is a fifth of it.
pub const LLM_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Longest frame of an LLM provider: a whole answer in one, and a picture of it.
pub const LLM_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Calls of tools in one answer of an LLM provider; models that work make some ten at once.
pub const LLM_CALLS_MAX: usize = 256;

/// Arguments of all calls of one answer: as much as the largest file that a tool writes.
pub const LLM_ARGUMENTS_BYTES: usize = 16 * 1024 * 1024;

/// Characters of a tool's name in a call; providers take 64, or 128.
pub const LLM_CALL_NAME_CHARS: usize = 128;

/// Characters of a provider's id of a call; those of a longer one get one of ours.
pub const LLM_CALL_ID_CHARS: usize = 200;

/// Characters of the word with which a provider says why an answer ended.
pub const LLM_FINISH_CHARS: usize = 64;

/// Longest wait for an LLM provider's list of models.
pub const LLM_MODELS_WAIT: Duration = Duration::from_secs(10);

/// Models of a provider that are listed; the largest gateways have fewer.
pub const LLM_MODELS_MAX: usize = 500;

/// Bytes of a list of models that are read.
pub const LLM_MODELS_BYTES: usize = 8 * 1024 * 1024;

/// Characters of an LLM provider's error that are kept.
pub const LLM_ERROR_CHARS: usize = 2_000;

/// Longest wait that an LLM provider can ask for: a day, as its longest quotas are.
pub const LLM_RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);
