//! Keeps each request to a model as it is sent, where the agent's entry asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};

use crate::agent::conversation::{Captured, Conversation, Outcome};
use crate::agent::llm::{Llm, LlmError, LlmEvent, LlmRequest};

/// Asks as `llm` does, and keeps what it sends. What cannot be kept is said in the log, and asked all the
/// same.
pub(super) struct Capturing {
    llm: Arc<dyn Llm>,
    conversation: Arc<dyn Conversation>,
    /// Number of the next request of the attempt.
    next: AtomicU32,
}

impl Capturing {
    pub(super) fn new(llm: Arc<dyn Llm>, conversation: Arc<dyn Conversation>) -> Self {
        Self {
            llm,
            conversation,
            next: AtomicU32::new(0),
        }
    }
}

impl Llm for Capturing {
    fn stream(&self, request: LlmRequest) -> BoxStream<'static, Result<LlmEvent, LlmError>> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let (llm, conversation) = (Arc::clone(&self.llm), Arc::clone(&self.conversation));
        let ends = Arc::clone(&self.conversation);
        futures::stream::once(async move {
            match llm.written(request.clone()).await {
                Ok(body) => {
                    let model = request.provider.id_of(&request.model);
                    conversation.capture(Captured { n, model, body }).await;
                }
                Err(error) => tracing::warn!(n, error, "a request is not kept as it is sent"),
            }
            llm.stream(request)
        })
        .flatten()
        .then(move |event| {
            let ends = Arc::clone(&ends);
            async move {
                if let Some(outcome) = outcome(&event) {
                    ends.capture_ended(n, outcome).await;
                }
                event
            }
        })
        .boxed()
    }

    fn written(&self, request: LlmRequest) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.llm.written(request).boxed()
    }
}

/// What became of a request, when this is its last event.
fn outcome(event: &Result<LlmEvent, LlmError>) -> Option<Outcome> {
    match event {
        Ok(LlmEvent::End(_)) => Some(Outcome::default()),
        Ok(_) => None,
        Err(error) => Some(Outcome {
            status: error.status,
            error: Some(error.message.clone()),
        }),
    }
}
