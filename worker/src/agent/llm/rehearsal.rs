//! An answer without a provider, for checks that throw any frames at its reader.

use std::collections::HashSet;

use futures::{FutureExt as _, StreamExt as _};
use genai::chat::{ChatStreamEvent, StreamChunk};

use crate::config::native_spec::Api;

use super::answer::Answer;
use super::fault::Asked;
use super::frames::Tap;
use super::{LlmError, LlmEvent};

/// What is told of an answer of these frames, each with this text as its words, to a conversation
/// that has these ids of calls.
pub(crate) fn told(
    api: Api,
    taken: &[&str],
    frames: &[String],
    words: &str,
) -> Vec<Result<LlmEvent, LlmError>> {
    let taken: HashSet<String> = taken.iter().map(|id| (*id).to_owned()).collect();
    let tap = Tap::new(api, taken);
    let asked = Asked {
        provider: "p".to_owned(),
        secrets: Vec::new(),
    };
    let shown = tap.clone();
    let words = words.to_owned();
    let events = futures::stream::iter(frames.to_vec()).map(move |frame| {
        shown.read().frame(&frame);
        let content = words.clone();
        Ok(ChatStreamEvent::Chunk(StreamChunk { content }))
    });
    let answer = Answer::new(api, "p/m".to_owned(), asked, events.boxed(), tap);
    // Nothing in it waits.
    let all = answer.events().collect().now_or_never();
    all.unwrap_or_default()
}
