//! A conversation as a provider takes it: each call of a tool has its one result right behind it.
//! An attempt that died in the middle of a step leaves calls without results; providers refuse those,
//! and refuse results in another place too.

use std::collections::{HashMap, VecDeque};

use super::llm::{Message, Part, Role, ToolResult};

/// What the model reads in place of a result that never came.
pub const INTERRUPTED: &str =
    "interrupted: the tool did not complete, and may have done a part of its work";

/// Put a conversation in order. What is in order already comes back as it is.
pub fn reconcile(messages: Vec<Message>) -> Vec<Message> {
    let marked = messages.into_iter().map(|message| ((), message));
    let ordered = reconcile_marked(marked.collect());
    ordered.into_iter().map(|((), message)| message).collect()
}

/// The same for messages with marks, such as where they are stored. Results have the mark of the
/// answer that they belong to.
pub fn reconcile_marked<M: Copy>(messages: Vec<(M, Message)>) -> Vec<(M, Message)> {
    let mut results = Results::of(messages.iter().map(|(_, message)| message));
    let mut done = Vec::with_capacity(messages.len());
    for (mark, message) in messages {
        match message.role {
            // Behind its call, or it has none.
            Role::Tool => {}
            Role::User => done.extend(with_words(message).map(|message| (mark, message))),
            Role::Assistant => {
                let Some(message) = with_substance(message) else {
                    continue;
                };
                let answers = results.answers_to(&message);
                done.push((mark, message));
                if !answers.is_empty() {
                    done.push((mark, Message::results(answers)));
                }
            }
        }
    }
    done
}

/// All results, by their call; a name that was given twice has two.
struct Results(HashMap<String, VecDeque<ToolResult>>);

impl Results {
    fn of<'a>(messages: impl Iterator<Item = &'a Message>) -> Self {
        let mut all: HashMap<String, VecDeque<ToolResult>> = HashMap::new();
        for result in messages.flat_map(Message::tool_results) {
            all.entry(result.call_id.clone())
                .or_default()
                .push_back(result.clone());
        }
        Self(all)
    }

    fn answers_to(&mut self, message: &Message) -> Vec<ToolResult> {
        let mut answers = Vec::new();
        for call in message.calls() {
            let found = self.0.get_mut(&call.id).and_then(VecDeque::pop_front);
            answers.push(found.unwrap_or_else(|| ToolResult {
                call_id: call.id.clone(),
                name: call.name.clone(),
                output: INTERRUPTED.to_owned(),
                is_error: true,
            }));
        }
        answers
    }
}

/// The message without what has no place in it, if something is left.
fn with_words(mut message: Message) -> Option<Message> {
    message.parts.retain(|part| match part {
        Part::Text { text } => !text.is_empty(),
        Part::Thinking { .. } | Part::Carried { .. } => true,
        Part::ToolCall(_) | Part::ToolResult(_) => false,
    });
    (!message.parts.is_empty()).then_some(message)
}

/// An answer of reasoning alone is none: providers refuse it.
fn with_substance(mut message: Message) -> Option<Message> {
    message.parts.retain(|part| match part {
        Part::Text { text } => !text.is_empty(),
        Part::Thinking { .. } | Part::Carried { .. } | Part::ToolCall(_) => true,
        Part::ToolResult(_) => false,
    });
    let says = |part: &Part| matches!(part, Part::Text { .. } | Part::ToolCall(_));
    message.parts.iter().any(says).then_some(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::llm::ToolCall;

    fn call(id: &str) -> Part {
        Part::ToolCall(ToolCall {
            id: id.to_owned(),
            name: "shell".to_owned(),
            input: json!({}),
            signatures: Vec::new(),
        })
    }

    fn result(id: &str, output: &str) -> ToolResult {
        ToolResult {
            call_id: id.to_owned(),
            name: "shell".to_owned(),
            output: output.to_owned(),
            is_error: false,
        }
    }

    fn assistant(parts: Vec<Part>) -> Message {
        Message {
            role: Role::Assistant,
            parts,
        }
    }

    #[test]
    fn a_missing_result_stands_behind_its_call_and_not_at_the_end() {
        let broken = vec![
            Message::user("a"),
            assistant(vec![call("1"), call("2")]),
            Message::results(vec![result("2", "two")]),
            Message::user("b"),
        ];
        let mended = reconcile(broken);
        let answers: Vec<_> = mended[2].tool_results().collect();
        assert_eq!(answers[0].output, INTERRUPTED);
        assert!(answers[0].is_error);
        assert_eq!(answers[1].output, "two");
        assert_eq!(mended[3], Message::user("b"));
    }

    #[test]
    fn a_result_that_came_late_moves_to_its_call_and_one_of_nobody_goes() {
        let broken = vec![
            assistant(vec![call("1")]),
            Message::user("steer"),
            Message::results(vec![result("1", "one"), result("9", "nobody's")]),
        ];
        let mended = reconcile(broken);
        let expected = vec![
            assistant(vec![call("1")]),
            Message::results(vec![result("1", "one")]),
            Message::user("steer"),
        ];
        assert_eq!(mended, expected);
    }

    fn parts() -> impl Strategy<Value = Part> {
        let id = prop::sample::select(vec!["1", "2", "3", "4"]);
        prop_oneof![
            "[ab]{0,2}".prop_map(|text| Part::Text { text }),
            Just(Part::Thinking {
                text: "hm".to_owned()
            }),
            id.clone().prop_map(call),
            (id, "[xy]{1,2}").prop_map(|(id, out)| Part::ToolResult(result(id, &out))),
        ]
    }

    fn messages() -> impl Strategy<Value = Vec<Message>> {
        let role = prop::sample::select(vec![Role::User, Role::Assistant, Role::Tool]);
        let message = (role, prop::collection::vec(parts(), 0..5))
            .prop_map(|(role, parts)| Message { role, parts });
        prop::collection::vec(message, 0..10)
    }

    fn words(messages: &[Message]) -> Vec<(Role, String)> {
        let spoken = messages.iter().filter(|m| m.role != Role::Tool);
        spoken
            .map(|m| (m.role, m.text()))
            .filter(|(_, text)| !text.is_empty())
            .collect()
    }

    proptest! {
        #[test]
        fn every_call_has_its_result_right_behind_it_and_no_word_is_lost(given in messages()) {
            let mended = reconcile(given.clone());
            for (at, message) in mended.iter().enumerate() {
                let calls: Vec<_> = message.calls().map(|call| call.id.clone()).collect();
                let next = mended.get(at + 1).filter(|next| next.role == Role::Tool);
                let answers: Vec<_> = next
                    .map(|next| next.tool_results().map(|r| r.call_id.clone()).collect())
                    .unwrap_or_default();
                match message.role {
                    Role::Assistant => prop_assert_eq!(calls, answers),
                    Role::User => prop_assert!(answers.is_empty() && calls.is_empty()),
                    Role::Tool => prop_assert!(at > 0 && mended[at - 1].role == Role::Assistant),
                }
            }
            prop_assert_eq!(words(&mended), words(&given));
        }

        #[test]
        fn marks_grow_and_results_have_that_of_their_answer(given in messages()) {
            let marked: Vec<_> = given.into_iter().enumerate().collect();
            let mended = reconcile_marked(marked.clone());
            for pair in mended.windows(2) {
                prop_assert!(pair[0].0 < pair[1].0 || pair[1].1.role == Role::Tool);
            }
            for (mark, message) in &mended {
                if message.role != Role::Tool {
                    prop_assert_eq!(marked[*mark].1.role, message.role);
                }
            }
        }

        #[test]
        fn what_is_in_order_stays_as_it_is(given in messages()) {
            let once = reconcile(given);
            let twice = reconcile(once.clone());
            prop_assert_eq!(once, twice);
        }
    }
}
