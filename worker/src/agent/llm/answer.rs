//! An answer as it comes: events for the loop, and at its end the whole of it.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use genai::chat::{ChatStreamEvent, ContentPart, StreamEnd};

use crate::config::native_spec::Api;
use crate::domain::limits::LLM_ANSWER_BYTES;
use crate::domain::llm::{Message, Part, Role, ToolCall};

use super::fault::Asked;
use super::frames::Tap;
use super::{LlmEnd, LlmError, LlmEvent, LlmFault};
use super::{messages, usage};

/// Events as the client library has them.
pub(super) type Events = BoxStream<'static, Result<ChatStreamEvent, genai::Error>>;

/// An answer on its way.
pub(super) struct Answer {
    api: Api,
    /// The model, as what is carried for it names it.
    model: String,
    asked: Asked,
    stream: Events,
    tap: Tap,
    so_far: SoFar,
}

/// What came of it.
#[derive(Default)]
struct SoFar {
    text: String,
    thinking: String,
    calls: Vec<ToolCall>,
    queue: VecDeque<LlmEvent>,
    is_over: bool,
}

impl Answer {
    /// The answer to a request that is about to be sent.
    pub(super) fn new(api: Api, model: String, asked: Asked, stream: Events, tap: Tap) -> Self {
        Self {
            api,
            model,
            asked,
            stream,
            tap,
            so_far: SoFar::default(),
        }
    }

    /// Its events.
    pub(super) fn events(self) -> BoxStream<'static, Result<LlmEvent, LlmError>> {
        let each = async |mut answer: Self| {
            let event = answer.next().await?;
            Some((event, answer))
        };
        futures::stream::unfold(self, each).boxed()
    }

    async fn next(&mut self) -> Option<Result<LlmEvent, LlmError>> {
        loop {
            if let Some(event) = self.so_far.queue.pop_front() {
                return Some(Ok(event));
            }
            if self.so_far.is_over {
                return None;
            }
            if let Err(error) = self.read().await {
                self.so_far.is_over = true;
                // A call that nobody was told of is not made for an answer that failed.
                self.so_far.queue.clear();
                return Some(Err(error));
            }
        }
    }

    /// Read on, until there is something to tell or it is over.
    async fn read(&mut self) -> Result<(), LlmError> {
        // The library does sums with what a provider says, and nothing that it says ends a worker.
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind().await;
        let Ok(next) = next else {
            return Err(self.asked.garbage("its figures are beyond all bounds"));
        };
        let said = self.tap.read().error.take();
        if let Some(said) = said {
            return Err(self.asked.of_event(&said));
        }
        if self.tap.read().calls.is_too_much() {
            return Err(self.asked.garbage("its calls of tools do not end"));
        }
        self.take_calls();
        match next {
            Some(Ok(event)) => self.event(event),
            Some(Err(error)) => Err(self.failure(error)),
            // Some servers say why they end and not that they do.
            None if self.tap.read().is_whole => self.end(StreamEnd::default()),
            None => Err(self.broken()),
        }
    }

    fn event(&mut self, event: ChatStreamEvent) -> Result<(), LlmError> {
        let event = match event {
            // It is told before anything is sent.
            ChatStreamEvent::Start => return Ok(()),
            ChatStreamEvent::Chunk(chunk) if chunk.content.is_empty() => LlmEvent::Alive,
            ChatStreamEvent::Chunk(chunk) => {
                self.so_far.text.push_str(&chunk.content);
                LlmEvent::Text(chunk.content)
            }
            ChatStreamEvent::ReasoningChunk(chunk) => {
                self.so_far.thinking.push_str(&chunk.content);
                LlmEvent::Thinking(chunk.content)
            }
            ChatStreamEvent::ThoughtSignatureChunk(_)
            | ChatStreamEvent::ToolCallChunk(_)
            | ChatStreamEvent::Heartbeat => LlmEvent::Alive,
            ChatStreamEvent::End(end) => return self.end(end),
        };
        if self.tap.read().bytes > LLM_ANSWER_BYTES {
            return Err(self.asked.garbage("it does not end"));
        }
        self.so_far.queue.push_back(event);
        Ok(())
    }

    fn take_calls(&mut self) {
        let mut frames = self.tap.read();
        while let Some(call) = frames.calls.next() {
            self.so_far.calls.push(call.clone());
            self.so_far.queue.push_back(LlmEvent::ToolCall(call));
        }
    }

    fn failure(&self, error: genai::Error) -> LlmError {
        let blocked = self.tap.read().blocked.take();
        if let Some(reason) = blocked {
            let words = format!("refuses to answer: {reason}");
            return self.asked.error(LlmFault::Refused, &words);
        }
        self.asked.of_library(error)
    }

    /// The stream ended and the answer did not.
    fn broken(&self) -> LlmError {
        let frames = self.tap.read();
        if let Some(reason) = &frames.blocked {
            let words = format!("refuses to answer: {reason}");
            return self.asked.error(LlmFault::Refused, &words);
        }
        if frames.is_garbage() {
            return self.asked.garbage("there is no frame in it");
        }
        self.asked.truncated("")
    }

    fn end(&mut self, end: StreamEnd) -> Result<(), LlmError> {
        // Of two formats the library ends the stream itself when the connection does.
        if !self.tap.read().is_whole {
            return Err(self.broken());
        }
        self.so_far.is_over = true;
        let message = self.message(end);
        let frames = self.tap.read();
        self.so_far.queue.push_back(LlmEvent::End(LlmEnd {
            reason: frames.reason(!self.so_far.calls.is_empty()),
            message,
            usage: usage::of(self.api, &frames.usage),
            model: frames.model.clone(),
        }));
        Ok(())
    }

    fn message(&self, end: StreamEnd) -> Message {
        let mut parts: Vec<Part> = Vec::new();
        let so_far = &self.so_far;
        let carry = |part: ContentPart| messages::carried(&self.model, part);
        let frames = self.tap.read();
        match self.api {
            Api::Anthropic | Api::OpenaiResponses => {
                let content = end.captured_content.map(|content| content.into_parts());
                parts.extend(content.into_iter().flatten().filter_map(carry));
            }
            Api::Gemini => {
                let signatures = frames.signatures.iter().cloned();
                parts.extend(
                    signatures
                        .map(ContentPart::ThoughtSignature)
                        .filter_map(carry),
                );
            }
            // Those that want it do so until the answer is complete; others refuse it.
            Api::Openai if frames.wants_reasoning && !so_far.calls.is_empty() => {
                parts.extend(carry(ContentPart::ReasoningContent(
                    so_far.thinking.clone(),
                )));
            }
            Api::Openai | Api::Ollama => {}
        }
        if !so_far.thinking.is_empty() {
            let text = so_far.thinking.clone();
            parts.push(Part::Thinking { text });
        }
        if !so_far.text.is_empty() {
            let text = so_far.text.clone();
            parts.push(Part::Text { text });
        }
        for call in &so_far.calls {
            let signatures = call.signatures.iter().cloned();
            parts.extend(
                signatures
                    .map(ContentPart::ThoughtSignature)
                    .filter_map(carry),
            );
            parts.push(Part::ToolCall(call.clone()));
        }
        Message {
            role: Role::Assistant,
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::limits::LLM_CALLS_MAX;

    #[tokio::test]
    async fn an_answer_with_too_many_calls_is_none() {
        let tap = Tap::new(Api::Gemini, HashSet::new());
        let part = r#"{"functionCall":{"name":"read","args":{}}}"#;
        let parts = vec![part; LLM_CALLS_MAX + 1].join(",");
        let frame = format!("{{\"candidates\":[{{\"content\":{{\"parts\":[{parts}]}}}}]}}");
        tap.read().frame(&frame);
        let asked = Asked {
            provider: "p".to_owned(),
            secrets: Vec::new(),
        };
        let stream = futures::stream::iter([Ok(ChatStreamEvent::Heartbeat)]).boxed();
        let answer = Answer::new(Api::Gemini, "p/m".to_owned(), asked, stream, tap);
        let events: Vec<_> = answer.events().collect().await;
        assert_eq!(events.len(), 1);
        let error = events.into_iter().next().unwrap().unwrap_err();
        assert_eq!(error.fault, LlmFault::Garbage);
    }
}
