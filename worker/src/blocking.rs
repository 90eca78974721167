//! The one way to run blocking work (git2, terminal reads) off the async threads.

/// Run `work` on a blocking thread, in the caller's span. A panic in it becomes an error.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingPanic> {
    let span = tracing::Span::current();
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the helper that others must use"
    )]
    let handle = tokio::task::spawn_blocking(move || span.in_scope(work));
    handle
        .await
        .map_err(|error| BlockingPanic(error.to_string()))
}

/// Blocking work panicked or was cancelled by the runtime's end.
#[derive(Debug, thiserror::Error)]
#[error("blocking work failed: {0}")]
pub struct BlockingPanic(String);
