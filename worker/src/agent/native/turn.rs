//! The turn: requests and tools in turns, until the model has no more to do, a budget is used up,
//! the provider does not want, or somebody stops it. Every way out leaves a conversation that can go
//! on.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument;

use super::NativeTurn;
use super::budget::Ledger;
use super::choose::Chosen;
use super::compact;
use super::meter::Meter;
use super::patience;
use super::step::{self, Answer, Asked, Billed, Partial, Stage, Times};
use crate::agent::conversation::{Remembered, Step, StepFigures};
use crate::agent::llm::{LlmError, LlmFault, LlmRequest, LlmUsage};
use crate::agent::{AgentError, AgentEvent};
use crate::config::native_spec::NativeSpec;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::llm::{FinishReason, Message, Part, Role};
use crate::domain::reconcile::reconcile;
use crate::domain::usage::Price;

/// One turn while it runs.
pub(crate) struct Turn<'a> {
    pub(crate) stage: Stage<'a>,
    pub(crate) native: &'a NativeTurn,
    pub(crate) spec: &'a NativeSpec,
    pub(crate) chosen: Chosen,
    pub(crate) price: Option<Price>,
    pub(crate) system: String,
    pub(crate) history: Vec<Message>,
    pub(crate) ledger: Ledger,
    pub(crate) meter: Meter,
    /// Number of the next step.
    pub(crate) n: u32,
    /// Requests that failed since the last one that was answered.
    pub(crate) failed: u32,
    /// The same over one step, for its figures.
    pub(crate) retries: u32,
    broken: u32,
    /// Summaries so far.
    pub(crate) summaries: u32,
    /// The list of what is to be done, as it was before the turn.
    pub(crate) todos: Option<Value>,
    step_began: Instant,
}

/// What people want of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// They said something.
    Answer,
    /// They want the conversation to be compacted, and said nothing.
    Compact,
}

/// What one step came to.
enum Next {
    /// There is more to do.
    Go,
    /// The model has said all.
    Done,
}

impl<'a> Turn<'a> {
    /// A turn on top of what is remembered.
    pub(crate) fn new(
        stage: Stage<'a>,
        native: &'a NativeTurn,
        spec: &'a NativeSpec,
        chosen: Chosen,
        system: String,
        remembered: Remembered,
    ) -> Result<Self, AgentError> {
        let price = spec.price(&chosen.provider.name, &chosen.model).cloned();
        let ledger = Ledger::new(
            &spec.budgets,
            &remembered.budgets,
            price.clone(),
            remembered.spent,
        );
        if ledger.lacks_price() {
            let id = chosen.id();
            let message = format!(
                "a budget of money needs to know what {id} costs: add [prices.\"{id}\"] to agents.toml, or leave max_cost out"
            );
            return Err(AgentError::new(ErrorClass::InvalidOption, message));
        }
        let mut meter = Meter::new(chosen.id());
        meter.context = remembered.context;
        Ok(Self {
            stage,
            native,
            spec,
            price,
            system,
            history: reconcile(remembered.messages),
            ledger,
            meter,
            chosen,
            n: 0,
            failed: 0,
            retries: 0,
            broken: 0,
            summaries: 0,
            todos: remembered.todos,
            step_began: Instant::now(),
        })
    }

    /// Run it. The word for how it ended, when it ended well.
    pub(crate) async fn run(&mut self, words: Vec<Message>) -> Result<&'static str, AgentError> {
        if !words.is_empty() {
            self.add(words, None).await?;
        }
        loop {
            self.step_began = Instant::now();
            self.retries = 0;
            // Before what was sent is taken: a message that nobody can answer any more waits for others.
            self.afford()?;
            if self.listen().await? == Wish::Compact {
                compact::now(self, compact::Why::Asked).await?;
            }
            compact::if_needed(self).await?;
            self.afford()?;
            match self.step().await? {
                Next::Go => {}
                // What cannot be answered becomes a follow-up.
                Next::Done if self.afford().is_err() => return Ok("stop"),
                Next::Done => match self.listen().await? {
                    Wish::Nothing => return Ok("stop"),
                    Wish::Answer => {}
                    Wish::Compact => {
                        // The work is done: that it could not be summarized does not undo it.
                        if let Err(error) = compact::now(self, compact::Why::Asked).await {
                            let text = format!("the conversation was not compacted: {error}");
                            self.tell(AgentEvent::Notice { text }).await;
                        }
                        return Ok("stop");
                    }
                },
            }
        }
    }

    /// Whether the budgets allow another request.
    pub(crate) fn afford(&self) -> Result<(), AgentError> {
        self.ledger
            .check(self.context())
            .map_err(|exhausted| stopped(ErrorClass::Budget, exhausted.reason, exhausted.message))
    }

    /// Take what people sent meanwhile.
    async fn listen(&mut self) -> Result<Wish, AgentError> {
        let inbox = self.native.conversation.take_inbox(self.n).await?;
        let wish = match (inbox.compact, inbox.messages.is_empty()) {
            (true, true) => Wish::Compact,
            (_, false) => Wish::Answer,
            (false, true) => Wish::Nothing,
        };
        if !inbox.messages.is_empty() {
            let joined = inbox.messages.join("\n\n");
            self.history.push(Message::user(joined));
        }
        for text in inbox.messages {
            self.tell(AgentEvent::Steering { text }).await;
        }
        // With words beside it the wish is fulfilled at once, and the words stay among the last messages.
        if inbox.compact && wish == Wish::Answer {
            compact::now(self, compact::Why::Asked).await?;
        }
        Ok(wish)
    }

    /// Ask until there is an answer, and keep it.
    async fn step(&mut self) -> Result<Next, AgentError> {
        let mut refused_once = false;
        loop {
            let slot = patience::admitted(self).await?;
            let request = self.request();
            let step_id = self.step_id();
            let span = tracing::info_span!("step", step.id = step_id);
            let asking = step::ask(&self.stage, request, &step_id, slot);
            match asking.instrument(span).await {
                Asked::Answered(answer) => return self.answered(*answer).await,
                Asked::Stopped(partial) => return Err(self.aborted(partial).await),
                Asked::Broken(partial, error) => return self.broken(partial, error).await,
                Asked::Nothing(error, _)
                    if error.fault == LlmFault::ContextTooLong && !refused_once =>
                {
                    refused_once = true;
                    compact::now(self, compact::Why::Refused).await?;
                    self.afford()?;
                }
                Asked::Nothing(error, billed) => {
                    if billed == Billed::Unknown {
                        self.unanswered("error", None).await?;
                    }
                    patience::wait(self, error).await?;
                }
            }
        }
    }

    async fn answered(&mut self, answer: Answer) -> Result<Next, AgentError> {
        let Answer {
            end,
            results,
            times,
        } = answer;
        self.failed = 0;
        if !matches!(end.reason, FinishReason::Other(_)) {
            self.broken = 0;
        }
        let calls = !results.is_empty();
        // As the request was bounded.
        let before = self.context();
        let (left, own) = (
            self.ledger.output_left(before),
            self.chosen.model_spec.max_output_tokens,
        );
        let by_budget = left.is_some_and(|left| own.is_none_or(|own| left <= own));
        let finish = finish_word(&end.reason);
        let said = compact::size(&end.message);
        let figures = self.count(finish, end.usage.as_ref(), said, times);
        let mut added = vec![end.message];
        if calls {
            added.push(Message::results(results));
        }
        self.add(added, Some(figures)).await?;
        self.n += 1;
        if calls {
            return Ok(Next::Go);
        }
        match end.reason {
            FinishReason::Stop | FinishReason::ToolCalls => Ok(Next::Done),
            FinishReason::Other(word) => self.ended_oddly(&word).await,
            FinishReason::Length if by_budget => {
                Err(stopped(
                    ErrorClass::Budget,
                    "token-budget",
                    "the last answer was as long as the budget of tokens allowed: what was done is kept as a partial change; submit a follow-up, with a larger max_tokens if it needs more".to_owned(),
                ))
            }
            FinishReason::Length => Err(stopped(
                ErrorClass::AgentFailed,
                "length",
                format!(
                    "the answer of {} reached its limit of tokens: raise max_output_tokens of the model in agents.toml, or submit a task that goes on with the conversation",
                    self.chosen.id()
                ),
            )),
            FinishReason::ContentFilter => Err(stopped(
                ErrorClass::Refused,
                "content-filter",
                format!("{} held its answer back", self.chosen.id()),
            )),
        }
    }

    /// The model stopped for a reason that is none of the usual ones (a call that the provider could not
    /// read, …): not the end of the work.
    async fn ended_oddly(&mut self, word: &str) -> Result<Next, AgentError> {
        self.broken += 1;
        if self.broken < limits::BROKEN_ANSWERS_MAX {
            let told = note("the model stopped in the middle of something; go on", &[]);
            self.add(vec![Message::user(told)], None).await?;
            return Ok(Next::Go);
        }
        let id = self.chosen.id();
        let message = format!("{id} keeps ending its answers with `{word}`");
        Err(stopped(ErrorClass::AgentFailed, "error", message))
    }

    /// An answer that broke off: keep what there is, and let the model go on from there.
    async fn broken(&mut self, partial: Partial, error: LlmError) -> Result<Next, AgentError> {
        self.broken += 1;
        self.retries += 1;
        // Not in the provider's words: they are no words of the person that the model works for.
        self.keep_partial(partial, "error", "the provider's answer broke off")
            .await?;
        if self.broken < limits::BROKEN_ANSWERS_MAX && error.fault.is_passing() {
            patience::wait(self, error).await?;
            return Ok(Next::Go);
        }
        let class = patience::class_of(error.fault);
        let message = format!("the answer broke off: {}", error.message);
        Err(stopped(class, "error", message))
    }

    /// Somebody stops the attempt: keep what there is.
    async fn aborted(&mut self, partial: Partial) -> AgentError {
        let kept = self.keep_partial(partial, "aborted", "the turn was stopped");
        if let Err(error) = kept.await {
            return error;
        }
        aborted()
    }

    /// Store an answer that is not complete: its words, and a note of what tools may have done. No
    /// call without its result is stored.
    async fn keep_partial(
        &mut self,
        partial: Partial,
        finish: &str,
        why: &str,
    ) -> Result<(), AgentError> {
        // Also of an answer that had not begun: what the provider counts for it nobody says.
        let usage = partial.end.as_ref().and_then(|end| end.usage.clone());
        let said = partial.text.len();
        let figures = self.count(finish, usage.as_ref(), said, partial.times);
        let mut added = Vec::new();
        let told = !partial.text.is_empty() || !partial.ran.is_empty();
        if !partial.text.is_empty() {
            added.push(Message {
                role: Role::Assistant,
                parts: vec![Part::Text { text: partial.text }],
            });
        }
        if told {
            added.push(Message::user(note(why, &partial.ran)));
        }
        self.add(added, Some(figures)).await?;
        self.n += 1;
        Ok(())
    }

    /// Count a request that may have cost something and gave nothing: it stands among the steps.
    pub(crate) async fn unanswered(
        &mut self,
        finish: &str,
        usage: Option<&LlmUsage>,
    ) -> Result<(), AgentError> {
        let figures = self.count(finish, usage, 0, Times::default());
        self.add(Vec::new(), Some(figures)).await?;
        self.n += 1;
        Ok(())
    }

    /// Count a request, whose answer has so many bytes. Its figures.
    pub(crate) fn count(
        &mut self,
        finish: &str,
        usage: Option<&LlmUsage>,
        said: usize,
        times: Times,
    ) -> StepFigures {
        self.meter.count(usage);
        let answer = i64::try_from(said / compact::BYTES_OF_TOKEN).unwrap_or(i64::MAX);
        let guess = (self.estimate(), answer);
        let tokens = usage.map(|usage| &usage.tokens);
        StepFigures {
            estimate: self.ledger.count(tokens, guess),
            ..self.figures(finish, usage, times)
        }
    }

    /// Store messages, with the figures of the request that brought them, and tell those.
    pub(crate) async fn add(
        &mut self,
        messages: Vec<Message>,
        figures: Option<StepFigures>,
    ) -> Result<(), AgentError> {
        let step = Step {
            n: self.n,
            messages: messages.clone(),
            figures: figures.clone(),
        };
        self.native.conversation.keep(step).await?;
        self.history.extend(messages);
        if let Some(figures) = figures {
            let step_id = self.step_id();
            let figures = Box::new(figures);
            self.tell(AgentEvent::StepCompleted { step_id, figures })
                .await;
            self.tell(AgentEvent::Usage(self.meter.report())).await;
        }
        Ok(())
    }

    /// The figures of a request.
    fn figures(&self, finish: &str, usage: Option<&LlmUsage>, times: Times) -> StepFigures {
        let ms = |since: Instant| i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let total_ms = ms(self.step_began);
        let request_ms = times.answered_ms.unwrap_or(total_ms);
        let tokens = usage.map(|usage| usage.tokens);
        let price = self.price.as_ref();
        StepFigures {
            model: self.chosen.id(),
            finish: finish.to_owned(),
            tokens,
            raw: usage.map(|usage| usage.raw.clone()),
            cost: price.zip(tokens.as_ref()).and_then(|(p, t)| p.cost_of(t)),
            estimate: None,
            context_tokens: usage.map(LlmUsage::context),
            ttft_ms: times.first_ms,
            decode_ms: times.first_ms.map(|first| request_ms - first),
            request_ms,
            tools_ms: times.tools_ms,
            total_ms,
            retries: self.retries,
        }
    }

    /// The request of this step.
    fn request(&self) -> LlmRequest {
        let known = &self.chosen.model_spec;
        let own = known.max_output_tokens;
        let left = self.ledger.output_left(self.context());
        LlmRequest {
            provider: Arc::clone(&self.chosen.provider),
            model: self.chosen.model.clone(),
            system: self.system.clone(),
            messages: self.history.clone(),
            tools: self.stage.toolbox.definitions(),
            effort: self.chosen.effort,
            max_output_tokens: own.into_iter().chain(left).min(),
            temperature: known.temperature,
            cache_key: self.native.cache_key.clone(),
        }
    }

    /// Tokens that the next request sends at least, as far as known.
    pub(crate) fn context(&self) -> i64 {
        self.meter.context.unwrap_or(0)
    }

    /// Tokens of the conversation by its size, where nobody counted them.
    pub(crate) fn estimate(&self) -> i64 {
        let bytes: usize = self.history.iter().map(compact::size).sum();
        i64::try_from((bytes + self.system.len()) / compact::BYTES_OF_TOKEN).unwrap_or(i64::MAX)
    }

    /// Name of this step.
    pub(crate) fn step_id(&self) -> String {
        format!("{}#{}", self.native.turn_id, self.n)
    }

    pub(crate) async fn tell(&self, event: AgentEvent) {
        self.stage.events.send(event).await;
    }
}

/// The end of a turn that is being stopped from outside.
pub(crate) fn aborted() -> AgentError {
    stopped(
        ErrorClass::Cancelled,
        "aborted",
        "the attempt was cancelled".to_owned(),
    )
}

/// The end of a turn under a name.
pub(crate) fn stopped(class: ErrorClass, reason: &str, message: String) -> AgentError {
    AgentError {
        stop_reason: Some(reason.to_owned()),
        ..AgentError::new(class, message)
    }
}

fn finish_word(reason: &FinishReason) -> &str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::ToolCalls => "tool-calls",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content-filter",
        FinishReason::Other(word) => word,
    }
}

/// What the model must know of an answer that it does not see again.
fn note(why: &str, ran: &[String]) -> String {
    let mut note = format!("[Your answer ended here: {why}.");
    if !ran.is_empty() {
        note.push_str(" These tools had begun, and may have done all or a part of their work: ");
        note.push_str(&ran.join("; "));
        note.push('.');
    }
    note.push(']');
    note
}
