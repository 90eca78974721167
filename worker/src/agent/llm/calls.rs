//! Calls of tools, put together from the fragments that they are streamed in.

use std::collections::{HashSet, VecDeque};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::limits::{
    LLM_ARGUMENTS_BYTES, LLM_CALL_ID_CHARS, LLM_CALL_NAME_CHARS, LLM_CALLS_MAX,
};
use crate::domain::llm::ToolCall;

/// What our own ids of calls begin with.
const OWN: &str = "call_";

/// A call that is not complete.
#[derive(Debug)]
struct Draft {
    /// The provider's number of it.
    at: u64,
    id: String,
    name: String,
    arguments: String,
}

/// A fragment of a call.
#[derive(Debug, Default)]
pub(super) struct Fragment<'a> {
    /// The provider's number of the call; some servers leave it out.
    pub(super) at: Option<u64>,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: &'a str,
}

/// The calls of an answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Vec<Draft>,
    ready: VecDeque<ToolCall>,
    /// Ids of this conversation; a second call with one of them gets another.
    taken: HashSet<String>,
    /// Calls that began.
    count: usize,
    /// Bytes of their arguments.
    bytes: usize,
}

impl Calls {
    /// Calls of an answer to a conversation that has these ids.
    pub(super) fn after(taken: HashSet<String>) -> Self {
        Self {
            taken,
            ..Self::default()
        }
    }

    /// A fragment came.
    pub(super) fn fragment(&mut self, fragment: &Fragment<'_>) {
        let fragment = &Fragment {
            // One more, so that it is seen to be too long.
            id: head(fragment.id, LLM_CALL_ID_CHARS + 1),
            name: head(fragment.name, LLM_CALL_NAME_CHARS),
            ..*fragment
        };
        self.bytes = self.bytes.saturating_add(fragment.arguments.len());
        if self.is_too_much() {
            return;
        }
        let last = self.open.last();
        let at = fragment.at.or(last.map(|draft| draft.at)).unwrap_or(0);
        // Some servers number all calls of an answer alike.
        let is_new = |draft: &Draft| {
            !fragment.id.is_empty() && !draft.id.is_empty() && draft.id != fragment.id
        };
        let known = self.open.iter().rposition(|draft| draft.at == at);
        let known = known.filter(|index| !self.open.get(*index).is_some_and(is_new));
        let Some(draft) = known.and_then(|index| self.open.get_mut(index)) else {
            self.finish_complete();
            self.count += 1;
            self.open.push(Draft {
                at,
                id: fragment.id.to_owned(),
                name: fragment.name.to_owned(),
                arguments: fragment.arguments.to_owned(),
            });
            return;
        };
        if draft.id.is_empty() {
            fragment.id.clone_into(&mut draft.id);
        }
        if draft.name.is_empty() {
            fragment.name.clone_into(&mut draft.name);
        }
        draft.arguments.push_str(fragment.arguments);
    }

    /// All of a call's arguments, which stand for its fragments.
    pub(super) fn replace(&mut self, at: u64, arguments: &str) {
        let draft = self.open.iter_mut().find(|draft| draft.at == at);
        if let Some(draft) = draft.filter(|_| !arguments.is_empty()) {
            let before = self.bytes.saturating_sub(draft.arguments.len());
            self.bytes = before.saturating_add(arguments.len());
            arguments.clone_into(&mut draft.arguments);
        }
    }

    /// Whether a call with this number is being put together.
    pub(super) fn has(&self, at: u64) -> bool {
        self.open.iter().any(|draft| draft.at == at)
    }

    /// The call with this number is complete.
    pub(super) fn finish(&mut self, at: u64) {
        if let Some(index) = self.open.iter().position(|draft| draft.at == at) {
            let draft = self.open.remove(index);
            self.complete(&draft);
        }
    }

    /// All calls are complete.
    pub(super) fn finish_all(&mut self) {
        for draft in std::mem::take(&mut self.open) {
            self.complete(&draft);
        }
    }

    /// A call that came whole.
    pub(super) fn whole(&mut self, id: &str, name: &str, input: Value, signatures: Vec<String>) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(input.to_string().len());
        if !self.is_too_much() {
            self.push(id, name, input, signatures);
        }
    }

    /// More than any model means: what came after is not kept, and the answer is none.
    pub(super) fn is_too_much(&self) -> bool {
        self.count > LLM_CALLS_MAX || self.bytes > LLM_ARGUMENTS_BYTES
    }

    fn push(&mut self, id: &str, name: &str, input: Value, signatures: Vec<String>) {
        let id = self.unique(id);
        let input = match input {
            Value::Null => Value::Object(Map::new()),
            input => input,
        };
        self.ready.push_back(ToolCall {
            id,
            name: head(name, LLM_CALL_NAME_CHARS).to_owned(),
            input,
            signatures,
        });
    }

    /// The next complete call.
    pub(super) fn next(&mut self) -> Option<ToolCall> {
        self.ready.pop_front()
    }

    /// Another call begins, so those whose arguments are whole are complete.
    fn finish_complete(&mut self) {
        let is_whole = |draft: &Draft| {
            let arguments = draft.arguments.trim();
            serde_json::from_str::<Map<String, Value>>(arguments).is_ok()
        };
        // In their order: none overtakes one that is not whole.
        while self.open.first().is_some_and(is_whole) {
            let draft = self.open.remove(0);
            self.complete(&draft);
        }
    }

    fn complete(&mut self, draft: &Draft) {
        let input = input_of(&draft.arguments);
        self.push(&draft.id, &draft.name, input, Vec::new());
    }

    fn unique(&mut self, id: &str) -> String {
        let fits = !id.is_empty() && id.chars().count() <= LLM_CALL_ID_CHARS;
        if fits && self.taken.insert(id.to_owned()) {
            return id.to_owned();
        }
        let own = format!("{OWN}{}", Uuid::new_v4().simple());
        self.taken.insert(own.clone());
        own
    }
}

/// The beginning of a text.
pub(super) fn head(text: &str, chars: usize) -> &str {
    let end = text.char_indices().nth(chars).map(|(at, _)| at);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Whether an id of a call is one that we gave.
pub(super) fn is_own_id(id: &str) -> bool {
    let rest = id.strip_prefix(OWN);
    rest.is_some_and(|rest| rest.len() == 32 && Uuid::try_parse(rest).is_ok())
}

/// The input in a call's arguments: JSON, or the text itself when it is none.
fn input_of(arguments: &str) -> Value {
    match arguments.trim() {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(arguments.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fragment<'a>(
        at: Option<u64>,
        id: &'a str,
        name: &'a str,
        arguments: &'a str,
    ) -> Fragment<'a> {
        Fragment {
            at,
            id,
            name,
            arguments,
        }
    }

    fn all(calls: &mut Calls) -> Vec<(String, Value)> {
        std::iter::from_fn(|| calls.next())
            .map(|call| (call.name, call.input))
            .collect()
    }

    #[test]
    fn a_call_is_complete_when_the_next_begins() {
        let mut calls = Calls::default();
        calls.fragment(&fragment(Some(0), "a", "read", ""));
        calls.fragment(&fragment(Some(0), "", "", "{\"p\":"));
        calls.fragment(&fragment(Some(0), "", "", "1}"));
        assert_eq!(all(&mut calls), []);
        calls.fragment(&fragment(Some(1), "b", "write", ""));
        assert_eq!(all(&mut calls), [("read".to_owned(), json!({"p": 1}))]);
        calls.finish_all();
        assert_eq!(all(&mut calls), [("write".to_owned(), json!({}))]);
    }

    #[test]
    fn calls_without_numbers_or_with_one_for_all_are_told_apart_by_their_ids() {
        for at in [None, Some(0)] {
            let mut calls = Calls::default();
            calls.fragment(&fragment(at, "a", "read", "{\"p\":1"));
            calls.fragment(&fragment(at, "", "", "}"));
            calls.fragment(&fragment(at, "b", "read", "{\"p\":2}"));
            calls.finish_all();
            let inputs: Vec<Value> = all(&mut calls)
                .into_iter()
                .map(|(_, input)| input)
                .collect();
            assert_eq!(inputs, [json!({"p": 1}), json!({"p": 2})]);
        }
    }

    #[test]
    fn calls_whose_fragments_are_mixed_are_not_torn() {
        let mut calls = Calls::default();
        calls.fragment(&fragment(Some(0), "a", "read", "{\"p\":"));
        calls.fragment(&fragment(Some(1), "b", "write", "{\"q\":"));
        calls.fragment(&fragment(Some(0), "", "", "1}"));
        calls.fragment(&fragment(Some(1), "", "", "2}"));
        calls.finish_all();
        let wanted = [
            ("read".to_owned(), json!({"p": 1})),
            ("write".to_owned(), json!({"q": 2})),
        ];
        assert_eq!(all(&mut calls), wanted);
    }

    #[test]
    fn names_and_ids_are_bounded() {
        let long = "é".repeat(1_000);
        let mut calls = Calls::default();
        calls.whole(&long, &long, json!({}), Vec::new());
        calls.fragment(&fragment(Some(0), &long, &long, "{"));
        calls.fragment(&fragment(Some(0), &long, "", "}"));
        calls.finish_all();
        let all: Vec<ToolCall> = std::iter::from_fn(|| calls.next()).collect();
        assert_eq!(all.len(), 2);
        for call in all {
            assert_eq!(call.name.chars().count(), LLM_CALL_NAME_CHARS);
            assert!(is_own_id(&call.id), "{}", call.id);
        }
    }

    #[test]
    fn calls_without_end_are_too_much_and_not_kept() {
        let piece = "x".repeat(1024 * 1024);
        let mut calls = Calls::default();
        for _ in 0..40 {
            calls.fragment(&fragment(Some(0), "a", "read", &piece));
        }
        assert!(calls.is_too_much());
        let kept = calls.open.first().map_or(0, |draft| draft.arguments.len());
        assert_eq!(kept, LLM_ARGUMENTS_BYTES);
        let mut calls = Calls::default();
        for _ in 0..LLM_CALLS_MAX {
            calls.whole("", "read", json!({}), Vec::new());
        }
        assert!(!calls.is_too_much());
        calls.whole("", "read", json!({}), Vec::new());
        assert!(calls.is_too_much());
        assert_eq!(calls.ready.len(), LLM_CALLS_MAX);
        let mut calls = Calls::default();
        for at in 0..=LLM_CALLS_MAX as u64 {
            calls.fragment(&fragment(Some(at), "", "read", "{}"));
        }
        assert!(calls.is_too_much());
    }

    #[test]
    fn an_id_that_is_missing_or_taken_is_replaced() {
        let mut calls = Calls::after(HashSet::from(["old".to_owned()]));
        for id in ["", "", "old", "x", "x"] {
            calls.whole(id, "read", json!({}), Vec::new());
        }
        let ids: Vec<String> = std::iter::from_fn(|| calls.next())
            .map(|call| call.id)
            .collect();
        let distinct: HashSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), 5, "{ids:?}");
        assert_eq!(ids[3], "x");
        assert!(ids.iter().all(|id| id == "x" || is_own_id(id)), "{ids:?}");
    }
}
