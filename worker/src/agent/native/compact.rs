//! Making a long conversation short: the model itself writes what stands for the oldest messages.
//! The cut is never between a call and its result, and the originals are kept.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use super::patience;
use super::step::Times;
use super::todo;
use super::turn::{Turn, aborted, stopped};
use crate::agent::conversation::Compaction;
use crate::agent::llm::{LlmEvent, LlmRequest, LlmUsage};
use crate::agent::{AgentError, AgentEvent};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::llm::{Message, Part, Role};

/// Bytes of text that a token has, about; for estimates only.
pub(crate) const BYTES_OF_TOKEN: usize = 4;

/// What is written to the model that summarizes.
const SUMMARIZE: &str = "You write summaries of unfinished work, for a colleague who takes it over and sees nothing else of it. \
Below is the beginning of a conversation between a person and a coding agent, with the agent's calls of tools. \
Write down, in at most 1,500 words: what the person wants, in their own words where these matter, and each later change of that; \
what was decided and why; what was done, file by file; commands that matter and what they showed; errors met and how they were solved; \
what is open, and what was about to be done. Name files, functions, commands and values exactly. No greeting, no advice, nothing that is not in there.";

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The model's window is nearly full.
    Window,
    /// A person.
    Asked,
    /// The provider found the conversation too long.
    Refused,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Asked => "asked",
            Self::Refused => "refused",
        }
    }
}

/// Compact when the model's window is nearly full.
pub(crate) async fn if_needed(turn: &mut Turn<'_>) -> Result<(), AgentError> {
    let percent = i64::from(turn.spec.compact_at_percent);
    let bytes: usize = turn.history.iter().map(size).sum();
    if bytes > limits::HISTORY_BYTES_MAX {
        return now(turn, Why::Window).await;
    }
    let Some(window) = turn.chosen.model_spec.context_window.map(i64::from) else {
        return Ok(());
    };
    if percent == 0 || turn.context().max(turn.estimate()) < window * percent / 100 {
        return Ok(());
    }
    now(turn, Why::Window).await
}

/// Compact now. What is too short stays as it is.
pub(crate) async fn now(turn: &mut Turn<'_>, why: Why) -> Result<(), AgentError> {
    // What was too long for the provider may be one of the last messages.
    let keep = match why {
        Why::Window | Why::Asked => turn.spec.compact_keep as usize,
        Why::Refused => (turn.spec.compact_keep as usize).min(2),
    };
    let Some(replaced) = cut(&turn.history, keep) else {
        return match why {
            Why::Window => Ok(()),
            Why::Asked => {
                let text = "asked to compact, but nothing is old enough to be summarized".to_owned();
                turn.tell(AgentEvent::Notice { text }).await;
                Ok(())
            }
            Why::Refused => Err(stopped(
                ErrorClass::AgentFailed,
                "error",
                "the conversation is too long for the model, and there is nothing in it that could be summarized: use a model with a larger window".to_owned(),
            )),
        };
    };
    let began = Instant::now();
    let (text, usage) = summary(turn, replaced).await?;
    let elapsed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    let times = Times {
        answered_ms: Some(elapsed),
        ..Times::default()
    };
    let figures = turn.count("compaction", usage.as_ref(), text.len(), times);
    let mut words = format!(
        "[What stands here replaces the {replaced} oldest messages of this conversation.]\n\n{text}"
    );
    if let Some(todos) = list_of(&turn.history).or_else(|| turn.todos.clone()) {
        words.push_str(&format!("\n\n[Your list of what is to be done: {todos}]"));
    }
    let summary = Message::user(words);
    let compaction = Compaction {
        replaced,
        summary: summary.clone(),
        why: why.as_str(),
        figures,
        n: turn.summaries,
    };
    turn.summaries += 1;
    turn.native.conversation.compact(compaction).await?;
    turn.history.splice(..replaced, [summary]);
    turn.meter.context = Some(turn.estimate());
    turn.tell(AgentEvent::Compacted {
        why: why.as_str().to_owned(),
        replaced,
    })
    .await;
    Ok(())
}

/// The list of what is to be done, as the model wrote it last.
fn list_of(history: &[Message]) -> Option<Value> {
    let mut calls = history.iter().rev().flat_map(Message::calls);
    let last = calls.find(|call| call.name == todo::NAME)?;
    last.input.get("todos").cloned()
}

/// How many of the oldest messages a summary may stand for, when so many are to stay. The first one
/// that stays is no result of a tool, whose call would be gone.
pub(crate) fn cut(history: &[Message], keep: usize) -> Option<usize> {
    let mut at = history.len().saturating_sub(keep);
    while history
        .get(at)
        .is_some_and(|message| message.role == Role::Tool)
    {
        at -= 1;
    }
    // One message is not worth a summary of its own: it may be one already.
    (at > 1).then_some(at)
}

async fn summary(
    turn: &mut Turn<'_>,
    replaced: usize,
) -> Result<(String, Option<LlmUsage>), AgentError> {
    loop {
        let slot = patience::admitted(turn).await?;
        let mut stream = turn.stage.llm.stream(request(turn, replaced));
        let mut text = String::new();
        let mut life = tokio::time::interval(limits::SIGN_OF_LIFE);
        let mut begun = false;
        let failed = loop {
            let event = tokio::select! {
                biased;
                () = turn.stage.cancel.cancelled() => {
                    turn.unanswered("aborted", None).await?;
                    return Err(aborted());
                }
                event = stream.next() => event,
                _ = life.tick(), if begun => {
                    turn.tell(AgentEvent::Alive).await;
                    continue;
                }
            };
            begun |= matches!(event, Some(Ok(_)));
            match event {
                Some(Ok(LlmEvent::Text(more))) => text.push_str(&more),
                Some(Ok(LlmEvent::End(end))) if !text.trim().is_empty() => {
                    return Ok((text, end.usage));
                }
                Some(Ok(LlmEvent::End(end))) => {
                    turn.unanswered("error", end.usage.as_ref()).await?;
                    begun = false;
                    break super::step::broke_off();
                }
                Some(Ok(LlmEvent::Thinking(_) | LlmEvent::ToolCall(_) | LlmEvent::Alive)) => {}
                Some(Err(error)) => break error,
                None => break super::step::broke_off(),
            }
        };
        if begun {
            // It cost something that nobody said.
            turn.unanswered("error", None).await?;
        }
        drop((stream, slot));
        patience::wait(turn, failed).await?;
    }
}

fn request(turn: &Turn<'_>, replaced: usize) -> LlmRequest {
    let messages = turn.history.get(..replaced).unwrap_or_default();
    let window = turn.chosen.model_spec.context_window;
    // Half of the window, and of none that is known a small one.
    let most = window.unwrap_or(100_000) as usize * BYTES_OF_TOKEN / 2;
    LlmRequest {
        provider: Arc::clone(&turn.chosen.provider),
        model: turn.chosen.model.clone(),
        system: SUMMARIZE.to_owned(),
        messages: vec![Message::user(transcript(messages, most))],
        tools: Arc::from([]),
        effort: None,
        max_output_tokens: Some(limits::SUMMARY_TOKENS_MAX),
        temperature: turn.chosen.model_spec.temperature,
        cache_key: format!("{}-summary", turn.native.cache_key),
    }
}

/// The messages as text. Of one that is too long in all, the middle is left out: how it began and
/// where it stands matter most.
pub(crate) fn transcript(messages: &[Message], most: usize) -> String {
    let whole: Vec<String> = messages.iter().map(told).collect();
    let text = whole.join("\n\n");
    if text.len() <= most {
        return text;
    }
    let head = text.floor_char_boundary(most / 4);
    let tail = text.ceil_char_boundary(text.len() - most * 3 / 4);
    format!(
        "{}\n\n[… {} bytes left out …]\n\n{}",
        &text[..head],
        tail - head,
        &text[tail..]
    )
}

fn told(message: &Message) -> String {
    let who = message.role.as_str();
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.clone()),
        Part::ToolCall(call) => {
            let input = short(&call.input.to_string());
            Some(format!("[calls {} {input}]", call.name))
        }
        Part::ToolResult(result) => {
            let failed = if result.is_error { " failed" } else { "" };
            let output = short(&result.output);
            Some(format!("[{}{failed}: {output}]", result.name))
        }
        Part::Thinking { .. } | Part::Carried { .. } => None,
    });
    format!("{who}: {}", parts.collect::<Vec<_>>().join("\n"))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(limits::SUMMARIZED_RESULT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// About how many bytes of a request a message is.
pub(crate) fn size(message: &Message) -> usize {
    let parts = message.parts.iter().map(|part| match part {
        Part::Text { text } => text.len(),
        Part::Thinking { .. } => 0,
        Part::Carried { data, .. } => data.as_str().map_or(64, str::len),
        Part::ToolCall(call) => call.name.len() + call.input.to_string().len(),
        Part::ToolResult(result) => result.output.len(),
    });
    parts.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::llm::ToolResult;

    fn results() -> Message {
        Message::results(vec![ToolResult {
            call_id: "1".to_owned(),
            name: "read".to_owned(),
            output: "é".repeat(1_000),
            is_error: false,
        }])
    }

    #[test]
    fn a_cut_is_never_between_a_call_and_its_result() {
        let history = [
            Message::user("a"),
            Message::user("b"),
            Message::user("calls"),
            results(),
            Message::user("c"),
        ];
        assert_eq!(cut(&history, 2), Some(2), "the result pulls its call along");
        assert_eq!(cut(&history, 1), Some(4));
        assert_eq!(cut(&history, 9), None);
        assert_eq!(cut(&history[..2], 1), None, "one message stays what it is");
    }

    #[test]
    fn a_long_transcript_keeps_its_beginning_and_its_end() {
        let messages = vec![
            Message::user("the first"),
            results(),
            Message::user("x".repeat(5_000)),
            Message::user("the last"),
        ];
        let text = transcript(&messages, 1_000);
        assert!(
            text.starts_with("user: the first") && text.ends_with("the last"),
            "{text}"
        );
        assert!(text.len() < 1_100);
    }

    proptest! {
        #[test]
        fn any_transcript_can_be_cut_anywhere(words in prop::collection::vec("[aé😀]{0,30}", 0..20), most in 4usize..400) {
            let messages: Vec<_> = words.into_iter().map(Message::user).collect();
            transcript(&messages, most);
        }
    }
}
