//! The one normalized vocabulary in which adapters tell what an agent does.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

pub use crate::domain::attempt::Started;

use super::conversation::StepFigures;
use crate::domain::limits;
use crate::domain::usage::{TokenCounts, UsageReport};

/// Something an agent did. Adapters make these from the wire in a pure function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The agent really runs: program resolved, process up, session made, options applied.
    Started(Started),
    /// A fragment of the answer.
    Text {
        /// UTF-8 text, at most `DELTA_BYTES_MAX` bytes.
        text: String,
    },
    /// A fragment of reasoning.
    Thought {
        /// UTF-8 text, at most `DELTA_BYTES_MAX` bytes.
        text: String,
    },
    /// A tool call began or changed; fields that are absent are unchanged. Merge by `id`.
    ToolCall(ToolCall),
    /// The agent's plan, always the complete list.
    Plan {
        /// Its entries in order.
        entries: Vec<PlanEntry>,
    },
    /// Commands the agent offers.
    Commands {
        /// As announced.
        commands: Value,
    },
    /// The agent's mode changed.
    Mode {
        /// The agent's id of the mode.
        mode_id: String,
    },
    /// Usage known so far in this turn; replaces earlier reports of the turn.
    Usage(UsageReport),
    /// Something a person may want to know (a retry, a dialog, a line that is not protocol).
    Notice {
        /// In words.
        text: String,
    },
    /// Nothing to tell, but it works: no silence.
    Alive,
    /// A native turn began.
    TurnStarted {
        /// Name of the turn; its steps are `turn#n`.
        turn_id: String,
        /// `provider/model`.
        model: String,
        /// How hard it thinks, when that was chosen.
        #[serde(skip_serializing_if = "Option::is_none")]
        effort: Option<String>,
    },
    /// A native turn asked its model and ran the tools that it called.
    StepCompleted {
        /// Name of the step.
        step_id: String,
        /// What it took and used.
        figures: Box<StepFigures>,
    },
    /// A tool of the native agent writes.
    ToolOutput {
        /// Id of the call.
        id: String,
        /// stdout or stderr.
        stream: String,
        /// UTF-8 text.
        text: String,
    },
    /// A request to a provider failed and is made again.
    ProviderRetry {
        /// Name of the step.
        step_id: String,
        /// How many requests failed before, from 0.
        attempt: u32,
        /// The wait before the next one.
        delay_ms: u64,
        /// In the provider's words.
        message: String,
        /// HTTP status, when there was one.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
    },
    /// What a person sent reached the running turn.
    Steering {
        /// Their words.
        text: String,
    },
    /// A summary stands for the beginning of the conversation.
    Compacted {
        /// Who wanted it: window, asked or refused.
        why: String,
        /// How many messages it stands for.
        replaced: usize,
    },
    /// A native turn is over, however; what it left is stored after this.
    TurnDone {
        /// Why: stop, length, content-filter, max-steps, token-budget, cost-budget, provider-wait,
        /// error or aborted.
        reason: String,
        /// All of it, tools and waits included.
        duration_ms: i64,
        /// Tokens of its requests; absent: unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens: Option<TokenCounts>,
        /// Tokens of the last request and its answer. Never a sum.
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<i64>,
    },
    /// A message of the wire that this version does not know; kept, counted, never fatal.
    Unknown {
        /// Its method or kind.
        method: String,
        /// As it came, cut at `TOOL_TEXT_BYTES_MAX`.
        raw: Value,
    },
}

/// A tool call, in the field's kinds (read, edit, delete, move, search, execute, think, fetch,
/// switch_mode, other) and states (pending, in_progress, completed, failed).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The agent's id of the call, unique in the turn.
    pub id: String,
    /// Name of the step that it belongs to, where the agent has steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What kind of tool.
    #[serde(rename = "tool", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Its input, cut at `TOOL_TEXT_BYTES_MAX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Its output, cut likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Files it touches, relative to the worktree where they are inside.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub paths: Vec<String>,
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// What is to be done.
    pub content: String,
    /// pending, in_progress or completed.
    pub status: String,
    /// high, medium or low, when the agent says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// Where an adapter sends its events. Waits when the run is behind, which stops the reading of
/// the agent's pipe: that is the back-pressure.
#[derive(Clone, Debug)]
pub struct EventSink(mpsc::Sender<AgentEvent>);

impl EventSink {
    /// A sink and the end the run reads.
    pub fn channel() -> (Self, mpsc::Receiver<AgentEvent>) {
        let (sender, receiver) = mpsc::channel(limits::AGENT_EVENTS_MAX);
        (Self(sender), receiver)
    }

    /// Send one event; long texts are split at character boundaries. A reader that is gone is not
    /// an error: the run has ended and will cancel the adapter.
    pub async fn send(&self, event: AgentEvent) {
        match event {
            AgentEvent::Text { text } if text.len() > limits::DELTA_BYTES_MAX => {
                for part in split(&text) {
                    self.push(AgentEvent::Text {
                        text: part.to_owned(),
                    })
                    .await;
                }
            }
            AgentEvent::Thought { text } if text.len() > limits::DELTA_BYTES_MAX => {
                for part in split(&text) {
                    self.push(AgentEvent::Thought {
                        text: part.to_owned(),
                    })
                    .await;
                }
            }
            AgentEvent::ToolOutput { id, stream, text } if text.len() > limits::DELTA_BYTES_MAX => {
                for part in split(&text) {
                    self.push(AgentEvent::ToolOutput {
                        id: id.clone(),
                        stream: stream.clone(),
                        text: part.to_owned(),
                    })
                    .await;
                }
            }
            other => self.push(other).await,
        }
    }

    async fn push(&self, event: AgentEvent) {
        let _reader_gone = self.0.send(event).await;
    }
}

/// Cut a text into parts of at most `DELTA_BYTES_MAX` bytes at character boundaries.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, tail) = rest.split_at(rest.floor_char_boundary(limits::DELTA_BYTES_MAX));
        rest = tail;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_text_is_split_and_nothing_is_lost() {
        let text = "é".repeat(limits::DELTA_BYTES_MAX);
        let (sink, mut events) = EventSink::channel();
        sink.send(AgentEvent::Text { text: text.clone() }).await;
        drop(sink);
        let mut joined = String::new();
        while let Some(AgentEvent::Text { text }) = events.recv().await {
            assert!(text.len() <= limits::DELTA_BYTES_MAX);
            joined.push_str(&text);
        }
        assert_eq!(joined, text);
    }
}
