//! Answers of LLM providers.

use std::collections::HashSet;

use crate::agent::llm::rehearsal;
use crate::agent::llm::{LlmEnd, LlmError, LlmEvent};
use crate::config::native_spec::Api;
use crate::domain::llm::{Part, Role};

const ALL: [Api; 5] = [
    Api::Openai,
    Api::OpenaiResponses,
    Api::Anthropic,
    Api::Gemini,
    Api::Ollama,
];

/// The id of a call that the conversation has already.
const TAKEN: &str = "call_1";

const WORDS: &str = "w";

/// Lines as the frames of an answer, in the format that the first byte names. Whatever they are,
/// there is one end or one error and nothing after it; the end holds what was told before it; no
/// figure is negative; and no two calls of a conversation have one id.
pub fn llm_frames(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Some(api) = ALL.get(usize::from(*first) % ALL.len()).copied() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let frames: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let told = rehearsal::told(api, &[TAKEN], &frames, WORDS);
    let Some((last, before)) = told.split_last() else {
        unreachable!("an answer ends with an end or an error");
    };
    let mut words = 0;
    let mut calls = Vec::new();
    for event in before {
        match event {
            Ok(LlmEvent::Text(text)) => {
                assert_eq!(text, WORDS);
                words += 1;
            }
            Ok(LlmEvent::ToolCall(call)) => calls.push(call.clone()),
            Ok(LlmEvent::Thinking(_) | LlmEvent::Alive) => {}
            Ok(LlmEvent::End(_)) | Err(_) => unreachable!("something came after {event:?}"),
        }
    }
    assert!(words <= frames.len(), "more words than frames");
    // The shortest call is longer.
    assert!(calls.len() <= text.len(), "more calls than bytes");
    let mut ids = HashSet::from([TAKEN.to_owned()]);
    for call in &calls {
        assert!(!call.id.is_empty(), "a call without an id");
        assert!(ids.insert(call.id.clone()), "two calls are {}", call.id);
    }
    match last {
        Ok(LlmEvent::End(end)) => {
            judge(end);
            let held: Vec<_> = end.message.calls().cloned().collect();
            assert_eq!(held, calls, "the end has other calls");
            assert_eq!(end.message.text(), WORDS.repeat(words));
        }
        Ok(other) => unreachable!("{other:?} is no end"),
        Err(LlmError { message, .. }) => {
            // Three bytes and more for a character, and the words around it.
            assert!(!message.is_empty() && message.chars().count() <= 2_500);
        }
    }
}

fn judge(end: &LlmEnd) {
    assert_eq!(end.message.role, Role::Assistant);
    let results = end.message.parts.iter();
    assert!(
        !results
            .into_iter()
            .any(|part| matches!(part, Part::ToolResult(_)))
    );
    let Some(usage) = &end.usage else {
        return;
    };
    let tokens = &usage.tokens;
    let parts = [
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        tokens.reasoning,
    ];
    let mut sum: i64 = 0;
    for part in parts.into_iter().flatten() {
        // A figure of a provider, and those that one format adds to it.
        assert!((0..=1_i64 << 33).contains(&part), "{tokens:?}");
        sum += part;
    }
    assert_eq!(tokens.total(), Some(sum));
    assert_eq!(usage.context(), sum);
}
