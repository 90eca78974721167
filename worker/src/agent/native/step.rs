//! One step: a request to the model, and the tools that its answer calls.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::gate::Slot;
use super::toolbox::{Toolbox, title};
use crate::agent::llm::{Llm, LlmEnd, LlmError, LlmEvent, LlmFault, LlmRequest};
use crate::agent::{AgentEvent, EventSink};
use crate::domain::limits;
use crate::domain::llm::{ToolCall, ToolResult};
use crate::domain::redact::Redactor;

/// What a step needs.
pub(crate) struct Stage<'a> {
    pub(crate) llm: Arc<dyn Llm>,
    pub(crate) toolbox: &'a Toolbox<'a>,
    pub(crate) events: EventSink,
    pub(crate) cancel: CancellationToken,
    pub(crate) secrets: Redactor,
    /// Start tools before the answer is complete.
    pub(crate) eager: bool,
}

/// How a request ended.
pub(crate) enum Asked {
    /// The answer is complete and its tools have run.
    Answered(Box<Answer>),
    /// Nothing of it was told; it may be made again.
    Nothing(LlmError, Billed),
    /// It broke off after something was told.
    Broken(Partial, LlmError),
    /// The attempt is being stopped.
    Stopped(Partial),
}

/// Whether a request that failed cost something that nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Billed {
    /// The provider did not begin to answer.
    No,
    /// It did.
    Unknown,
}

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) end: LlmEnd,
    /// In the order of its calls.
    pub(crate) results: Vec<ToolResult>,
    pub(crate) times: Times,
}

/// What is known of an answer that is not complete.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// Its words so far.
    pub(crate) text: String,
    /// Tools that may have done something.
    pub(crate) ran: Vec<String>,
    /// Whether the request reached the point where it costs something.
    pub(crate) told: bool,
    /// The answer itself was complete: only its tools were not.
    pub(crate) end: Option<Box<LlmEnd>>,
    pub(crate) times: Times,
}

/// When things happened, from the request on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) first_ms: Option<i64>,
    pub(crate) answered_ms: Option<i64>,
    pub(crate) tools_ms: i64,
}

/// Make a request, tell what comes, and run its tools. The slot is for the request alone.
pub(crate) async fn ask(
    stage: &Stage<'_>,
    request: LlmRequest,
    step_id: &str,
    slot: Slot,
) -> Asked {
    let requesting = tracing::info_span!("provider.request", provider = request.provider.name);
    let mut asking = Asking {
        stage,
        step_id,
        began: Instant::now(),
        tools_began: None,
        partial: Partial::default(),
        billed: Billed::No,
        sign: false,
        calls: Calls::default(),
    };
    let mut life = tokio::time::interval(limits::SIGN_OF_LIFE);
    let mut stream = stage.llm.stream(request);
    let mut running = FuturesUnordered::new();
    let end = loop {
        let event = tokio::select! {
            biased;
            () = stage.cancel.cancelled() => return Asked::Stopped(asking.partial()),
            Some((at, result)) = running.next() => {
                asking.calls.done(at, result);
                continue;
            }
            event = stream.next().instrument(requesting.clone()) => event,
            _ = life.tick(), if asking.is_alive(!running.is_empty()) => {
                stage.events.send(AgentEvent::Alive).await;
                continue;
            }
        };
        if matches!(event, Some(Ok(_))) {
            asking.billed = Billed::Unknown;
            asking.sign = true;
        }
        match event {
            Some(Ok(LlmEvent::End(end))) => break Ok(end),
            Some(Ok(LlmEvent::ToolCall(call))) => {
                asking.first();
                if stage.eager
                    && let Some(at) = asking.begin(&call)
                {
                    running.push(run(stage, at, call, step_id.to_owned()));
                }
            }
            Some(Ok(event)) => asking.tell(event).await,
            Some(Err(error)) => break Err(error),
            None => break Err(broke_off()),
        }
    };
    let end = match end {
        Ok(end) if end.message.calls().count() <= CALLS_MAX => end,
        failed => {
            // What has begun runs to its end: the next step must not meet it.
            while !running.is_empty() {
                tokio::select! {
                    biased;
                    () = stage.cancel.cancelled() => return Asked::Stopped(asking.partial()),
                    Some((at, result)) = running.next() => asking.calls.done(at, result),
                    _ = life.tick() => stage.events.send(AgentEvent::Alive).await,
                }
            }
            return asking.failed(failed.err().unwrap_or_else(too_many_calls));
        }
    };
    // The provider is free for others while the tools run.
    drop((stream, slot, requesting));
    asking.partial.times.answered_ms = Some(asking.elapsed());
    let calls: Vec<ToolCall> = end.message.calls().cloned().collect();
    asking.partial.end = Some(Box::new(end));
    for call in &calls {
        if let Some(at) = asking.begin(call) {
            running.push(run(stage, at, call.clone(), step_id.to_owned()));
        }
    }
    while !running.is_empty() {
        tokio::select! {
            biased;
            () = stage.cancel.cancelled() => return Asked::Stopped(asking.partial()),
            Some((at, result)) = running.next() => asking.calls.done(at, result),
            _ = life.tick() => stage.events.send(AgentEvent::Alive).await,
        }
    }
    asking.answered(&calls)
}

/// Calls of one answer that are looked at at all; what is beyond is no answer.
const CALLS_MAX: usize = 4 * limits::TOOL_CALLS_OF_STEP_MAX;

fn too_many_calls() -> LlmError {
    LlmError {
        fault: LlmFault::Garbage,
        message: format!("the answer calls more than {CALLS_MAX} tools"),
        ..broke_off()
    }
}

async fn run(stage: &Stage<'_>, at: usize, call: ToolCall, step: String) -> (usize, ToolResult) {
    let span = tracing::info_span!("tool", name = call.name);
    (at, stage.toolbox.run(call, step).instrument(span).await)
}

/// A stream without an end is no answer.
pub(crate) fn broke_off() -> LlmError {
    LlmError {
        fault: LlmFault::Truncated,
        status: None,
        retry_after: None,
        message: "the provider's answer broke off".to_owned(),
    }
}

/// A request under way.
struct Asking<'a> {
    stage: &'a Stage<'a>,
    step_id: &'a str,
    began: Instant,
    tools_began: Option<Instant>,
    partial: Partial,
    billed: Billed,
    /// Something came since the last sign of life.
    sign: bool,
    calls: Calls,
}

impl Asking<'_> {
    fn elapsed(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether there is life to give a sign of: tools that run, or a provider that sends something.
    fn is_alive(&mut self, tools: bool) -> bool {
        tools || std::mem::take(&mut self.sign)
    }

    /// Something came that costs, and that people saw.
    fn first(&mut self) {
        let now = self.elapsed();
        self.partial.told = true;
        self.partial.times.first_ms.get_or_insert(now);
    }

    async fn tell(&mut self, event: LlmEvent) {
        let event = match event {
            LlmEvent::Text(text) => {
                self.first();
                self.partial.text.push_str(&text);
                AgentEvent::Text { text }
            }
            LlmEvent::Thinking(text) => {
                self.first();
                AgentEvent::Thought { text }
            }
            LlmEvent::Alive | LlmEvent::ToolCall(_) | LlmEvent::End(_) => return,
        };
        self.stage.events.send(event).await;
    }

    /// Begin a call that has not begun; its place, when it is to be run.
    fn begin(&mut self, call: &ToolCall) -> Option<usize> {
        let twin = self.stage.toolbox.only_looks(call);
        let at = self.calls.begin(call, twin)?;
        self.tools_began.get_or_insert_with(Instant::now);
        if !twin {
            let what = title(call, &self.stage.secrets);
            self.partial.ran.push(what);
        }
        Some(at)
    }

    fn failed(self, error: LlmError) -> Asked {
        tracing::debug!(step = self.step_id, %error, "a request to a provider failed");
        match self.partial.told {
            true => Asked::Broken(self.partial(), error),
            false => Asked::Nothing(error, self.billed),
        }
    }

    fn partial(mut self) -> Partial {
        self.stop_watch();
        self.partial
    }

    fn stop_watch(&mut self) {
        let ran = self.tools_began.map(|began| began.elapsed().as_millis());
        self.partial.times.tools_ms = ran.map_or(0, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
    }

    fn answered(mut self, calls: &[ToolCall]) -> Asked {
        self.stop_watch();
        let times = self.partial.times;
        match self.partial.end.take() {
            Some(end) => Asked::Answered(Box::new(Answer {
                end: *end,
                results: self.calls.results(calls),
                times,
            })),
            None => Asked::Broken(self.partial, broke_off()),
        }
    }
}

/// The calls of one answer and what came of them.
#[derive(Default)]
struct Calls {
    begun: Vec<Begun>,
}

struct Begun {
    call: ToolCall,
    /// It changes nothing.
    looks: bool,
    /// The place of the same call before, of a tool that only looks: it runs once.
    same_as: Option<usize>,
    result: Option<ToolResult>,
}

impl Calls {
    /// A place for this call; nothing when it has one, needs none, or there are too many.
    fn begin(&mut self, call: &ToolCall, twin: bool) -> Option<usize> {
        if self.begun.iter().any(|begun| begun.call.id == call.id) {
            return None;
        }
        let same = |begun: &Begun| begun.call.name == call.name && begun.call.input == call.input;
        // What is looked at again after a change is another thing.
        let changed = self.begun.iter().rposition(|begun| !begun.looks);
        let since = changed.map_or(0, |at| at + 1);
        let same_as = match twin {
            true => self
                .begun
                .iter()
                .skip(since)
                .position(same)
                .map(|at| at + since),
            false => None,
        };
        let at = self.begun.len();
        self.begun.push(Begun {
            call: call.clone(),
            looks: twin,
            same_as,
            result: None,
        });
        (same_as.is_none() && at < limits::TOOL_CALLS_OF_STEP_MAX).then_some(at)
    }

    fn done(&mut self, at: usize, result: ToolResult) {
        if let Some(begun) = self.begun.get_mut(at) {
            begun.result = Some(result);
        }
    }

    /// One for each call, in their order; together no more than a model can take in.
    fn results(&self, calls: &[ToolCall]) -> Vec<ToolResult> {
        let mut room = limits::STEP_RESULTS_BYTES_MAX;
        let mut fit = |mut result: ToolResult| {
            if result.output.len() > room {
                let end = result.output.floor_char_boundary(room);
                result.output.truncate(end);
                result
                    .output
                    .push_str("\n[cut: the results of one answer are too long together]");
            }
            room = room.saturating_sub(result.output.len());
            result
        };
        calls.iter().map(|call| fit(self.result_of(call))).collect()
    }

    fn result_of(&self, call: &ToolCall) -> ToolResult {
        let begun = self.begun.iter().find(|begun| begun.call.id == call.id);
        let source = match begun.and_then(|begun| begun.same_as) {
            Some(at) => self.begun.get(at),
            None => begun,
        };
        let result = source.and_then(|begun| begun.result.clone());
        let too_many = || ToolResult {
            call_id: call.id.clone(),
            name: call.name.clone(),
            output: format!(
                "not run: an answer may call {} tools at most",
                limits::TOOL_CALLS_OF_STEP_MAX
            ),
            is_error: true,
        };
        ToolResult {
            call_id: call.id.clone(),
            ..result.unwrap_or_else(too_many)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(id: &str, path: &str) -> ToolCall {
        ToolCall {
            id: id.to_owned(),
            name: "read".to_owned(),
            input: json!({ "path": path }),
            signatures: Vec::new(),
        }
    }

    fn result(id: &str, output: &str) -> ToolResult {
        ToolResult {
            call_id: id.to_owned(),
            name: "read".to_owned(),
            output: output.to_owned(),
            is_error: false,
        }
    }

    #[test]
    fn the_same_look_runs_once_and_answers_both_calls() {
        let mut calls = Calls::default();
        let wanted = [call("1", "a"), call("2", "a"), call("3", "b")];
        let run: Vec<_> = wanted.iter().map(|c| calls.begin(c, true)).collect();
        assert_eq!(run, [Some(0), None, Some(2)]);
        assert_eq!(calls.begin(&wanted[0], true), None, "it has begun");
        calls.done(2, result("3", "of b"));
        calls.done(0, result("1", "of a"));
        let results = calls.results(&wanted);
        assert_eq!(
            results,
            [
                result("1", "of a"),
                result("2", "of a"),
                result("3", "of b")
            ]
        );
    }

    #[test]
    fn a_look_after_a_change_is_a_look_of_its_own() {
        let mut calls = Calls::default();
        assert_eq!(calls.begin(&call("1", "a"), true), Some(0));
        assert_eq!(calls.begin(&call("2", "x"), false), Some(1));
        assert_eq!(calls.begin(&call("3", "a"), true), Some(2));
        assert_eq!(calls.begin(&call("4", "a"), true), None);
    }

    #[test]
    fn the_results_of_an_answer_are_bounded_together() {
        let mut calls = Calls::default();
        let wanted: Vec<_> = (0..5)
            .map(|n| call(&n.to_string(), &n.to_string()))
            .collect();
        for (at, one) in wanted.iter().enumerate() {
            calls.begin(one, false);
            calls.done(at, result(&one.id, &"é".repeat(200_000)));
        }
        let results = calls.results(&wanted);
        let total: usize = results.iter().map(|result| result.output.len()).sum();
        assert!(total <= limits::STEP_RESULTS_BYTES_MAX + 1_000, "{total}");
        assert!(results.iter().all(|result| !result.output.is_empty()));
    }

    #[test]
    fn what_changes_something_runs_as_often_as_it_is_called() {
        let mut calls = Calls::default();
        assert_eq!(calls.begin(&call("1", "a"), false), Some(0));
        assert_eq!(calls.begin(&call("2", "a"), false), Some(1));
    }

    #[test]
    fn a_flood_of_calls_is_cut_and_each_has_a_result() {
        let mut calls = Calls::default();
        let many: Vec<_> = (0..=limits::TOOL_CALLS_OF_STEP_MAX)
            .map(|n| call(&n.to_string(), &n.to_string()))
            .collect();
        let run = many.iter().filter_map(|c| calls.begin(c, false)).count();
        assert_eq!(run, limits::TOOL_CALLS_OF_STEP_MAX);
        let last = calls.results(&many).pop().unwrap();
        assert!(last.is_error && last.output.contains("not run"));
    }
}
