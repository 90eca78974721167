//! Requests that fail, and providers that want to be left alone: waiting here, giving the slot back,
//! or giving up.

use std::time::Duration;

use super::gate::{Pause, Slot};
use super::turn::{Turn, aborted, stopped};
use crate::agent::conversation::ProviderPause;
use crate::agent::llm::{LlmError, LlmFault};
use crate::agent::{AgentError, AgentEvent};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::provider_retry::{self, HERE_MAX, Patience, PauseClass, Waits};
use crate::telemetry::figures;

/// The class of a failure that stays.
pub(crate) fn class_of(fault: LlmFault) -> ErrorClass {
    match fault {
        LlmFault::RateLimited | LlmFault::Overloaded => ErrorClass::RateLimited,
        LlmFault::Unreachable | LlmFault::Truncated | LlmFault::Garbage => ErrorClass::Protocol,
        LlmFault::Auth | LlmFault::Billing => ErrorClass::Auth,
        LlmFault::UnknownModel => ErrorClass::InvalidOption,
        LlmFault::Refused => ErrorClass::Refused,
        LlmFault::ContextTooLong | LlmFault::BadRequest => ErrorClass::AgentFailed,
    }
}

/// Wait until a request may be made: no pause of the provider, and a slot.
pub(crate) async fn admitted(turn: &Turn<'_>) -> Result<Slot, AgentError> {
    let gate = &turn.native.gate;
    let provider = &turn.chosen.provider;
    loop {
        let clock = &turn.native.clock;
        if let Some(pause) = gate.pause_of(&provider.name, clock.now()) {
            wait_out(turn, &pause).await?;
            continue;
        }
        if let Some(slot) = gate.try_slot(provider) {
            return Ok(slot);
        }
        let most = provider.max_concurrent.unwrap_or(0);
        let text = format!(
            "waiting for one of the {most} requests that this worker may make to {} at once",
            provider.name
        );
        turn.tell(AgentEvent::Notice { text }).await;
        let mut life = tokio::time::interval(limits::SIGN_OF_LIFE);
        let waiting = gate.slot(provider);
        tokio::pin!(waiting);
        let slot = loop {
            tokio::select! {
                biased;
                () = turn.stage.cancel.cancelled() => return Err(aborted()),
                slot = &mut waiting => break slot,
                _ = life.tick() => turn.tell(AgentEvent::Alive).await,
            }
        };
        if gate.pause_of(&provider.name, clock.now()).is_none() {
            return Ok(slot);
        }
    }
}

/// Somebody else heard that the provider wants to be left alone.
async fn wait_out(turn: &Turn<'_>, pause: &Pause) -> Result<(), AgentError> {
    let Some(left) = pause.left(turn.native.clock.now()) else {
        return Ok(());
    };
    let name = &turn.chosen.provider.name;
    let message = format!("provider {name} is paused: {}", pause.message);
    // Not all at once.
    let left = left.mul_f64(1.0 + 0.2 * turn.native.jitter());
    if left > HERE_MAX {
        // Somebody else's wait: it does not count among those of this task.
        return Err(AgentError {
            stop_reason: Some("provider-paused".to_owned()),
            ..go_on_after(left, message)
        });
    }
    turn.tell(AgentEvent::ProviderRetry {
        step_id: turn.step_id(),
        attempt: turn.failed,
        delay_ms: ms(left),
        message,
        code: None,
    })
    .await;
    let mut changes = turn.native.gate.changes();
    tokio::select! {
        biased;
        () = turn.stage.cancel.cancelled() => Err(aborted()),
        () = turn.native.clock.wait(left) => Ok(()),
        // It may be over, or longer.
        _ = changes.changed() => Ok(()),
    }
}

/// After a request that failed: return when it may be made again.
pub(crate) async fn wait(turn: &mut Turn<'_>, error: LlmError) -> Result<(), AgentError> {
    let class = class_of(error.fault);
    match (error.fault, error.status) {
        // The key itself, or the account: nobody fares better.
        (LlmFault::Auth, Some(401)) | (LlmFault::Billing, Some(402 | 429)) => {
            return Err(refused(turn, error).await);
        }
        // This worker has no key; another one may.
        (LlmFault::Auth, None) => {
            return Err(go_on_after(limits::REFUSED_PROVIDER_PAUSE, error.message));
        }
        // One model, one region, one prompt: this task's own.
        _ => {}
    }
    if !error.fault.is_passing() {
        return Err(stopped(class, "error", error.message));
    }
    turn.failed += 1;
    turn.retries += 1;
    let waits = Waits {
        failed: turn.failed,
        given_back: turn.native.given_back,
    };
    let patience = provider_retry::decide(waits, error.retry_after, turn.native.jitter());
    match patience {
        Patience::Here(delay) => {
            pause_if_limited(turn, &error, delay).await;
            turn.tell(AgentEvent::ProviderRetry {
                step_id: turn.step_id(),
                attempt: turn.failed - 1,
                delay_ms: ms(delay),
                message: error.message,
                code: error.status,
            })
            .await;
            tokio::select! {
                biased;
                () = turn.stage.cancel.cancelled() => Err(aborted()),
                () = turn.native.clock.wait(delay) => Ok(()),
            }
        }
        Patience::GiveBack(delay) => {
            // What this task waits of its own account is nobody else's.
            let others = error.retry_after.unwrap_or(delay.min(HERE_MAX));
            pause_if_limited(turn, &error, others).await;
            Err(go_on_after(delay, error.message))
        }
        Patience::GiveUp => {
            let message = format!(
                "{} (after {} tries over hours)",
                error.message, waits.failed
            );
            Err(stopped(class, "error", message))
        }
    }
}

/// The key is refused, or the account is empty: nobody's request will fare better until a person has
/// done something. The task is not to blame, and waits.
async fn refused(turn: &Turn<'_>, error: LlmError) -> AgentError {
    let class = match error.fault {
        LlmFault::Billing => PauseClass::Billing,
        _ => PauseClass::Auth,
    };
    let grown = limits::REFUSED_PROVIDER_PAUSE * (turn.native.given_back + 1).min(6);
    let wait = grown.max(error.retry_after.unwrap_or_default());
    let name = &turn.chosen.provider.name;
    let message = format!(
        "{}; when that is mended: dispatch providers resume {name}",
        error.message
    );
    pause(turn, class, wait, message.clone()).await;
    AgentError {
        class: ErrorClass::Auth,
        ..go_on_after(wait, message)
    }
}

/// A limit is one of the account, not of this task: everybody waits.
async fn pause_if_limited(turn: &Turn<'_>, error: &LlmError, wait: Duration) {
    if error.fault == LlmFault::RateLimited {
        pause(turn, PauseClass::RateLimited, wait, error.message.clone()).await;
    }
}

async fn pause(turn: &Turn<'_>, class: PauseClass, wait: Duration, message: String) {
    let provider = turn.chosen.provider.name.clone();
    figures::pauses(&provider, class, 1);
    let class = class.as_str();
    let pause = Pause {
        until: turn.native.clock.now() + wait,
        class: class.to_owned(),
        message: message.clone(),
    };
    turn.native.gate.pause(&provider, pause);
    let told = ProviderPause {
        provider,
        wait,
        class,
        message,
    };
    turn.native.conversation.pause_provider(told).await;
}

fn go_on_after(wait: Duration, message: String) -> AgentError {
    AgentError {
        go_on_after: Some(wait),
        ..stopped(ErrorClass::RateLimited, "provider-wait", message)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
