//! Signals that stop a process, in two stages.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::ops::OpError;
use crate::queue::supervisor::StopSignals;

/// Stop signals fed by SIGTERM and SIGINT for as long as it lives.
pub(super) struct StopOnSignal {
    /// First signal: soft. Second: hard.
    pub(super) signals: StopSignals,
    _waiting: JoinSet<()>,
}

/// Listen for the signals from now on.
pub(super) fn stop_on_signal() -> Result<StopOnSignal, OpError> {
    let signals = StopSignals::default();
    let cannot = |e: std::io::Error| OpError::internal(format!("signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let stages = signals.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        for (stage, text) in [
            (stages.soft, "stopping; once more to interrupt what runs"),
            (stages.hard, "interrupting"),
        ] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("{text}");
            stage.cancel();
        }
    });
    Ok(StopOnSignal {
        signals,
        _waiting: waiting,
    })
}
