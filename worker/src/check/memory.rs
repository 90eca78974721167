//! The conversation of a checked native agent: in memory, and gone with the check.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::agent::AgentError;
use crate::agent::conversation::{
    Compaction, Conversation, Inbox, ProviderPause, Remembered, Step,
};
use crate::domain::llm::Message;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Vec<Message>>);

impl Memory {
    fn messages(&self) -> MutexGuard<'_, Vec<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation for Memory {
    fn load(&self) -> BoxFuture<'_, Result<Remembered, AgentError>> {
        let remembered = Remembered {
            messages: self.messages().clone(),
            ..Remembered::default()
        };
        async { Ok(remembered) }.boxed()
    }

    fn keep(&self, step: Step) -> BoxFuture<'_, Result<(), AgentError>> {
        self.messages().extend(step.messages);
        async { Ok(()) }.boxed()
    }

    fn take_inbox(&self, _n: u32) -> BoxFuture<'_, Result<Inbox, AgentError>> {
        async { Ok(Inbox::default()) }.boxed()
    }

    fn compact(&self, compaction: Compaction) -> BoxFuture<'_, Result<(), AgentError>> {
        let mut messages = self.messages();
        let replaced = compaction.replaced.min(messages.len());
        messages.splice(..replaced, [compaction.summary]);
        async { Ok(()) }.boxed()
    }

    fn keep_todos(&self, _todos: Value) -> BoxFuture<'_, Result<(), AgentError>> {
        async { Ok(()) }.boxed()
    }

    // No other worker is told: nothing of the fleet is known here.
    fn pause_provider(&self, _pause: ProviderPause) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
