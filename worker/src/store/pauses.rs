//! Providers that nobody asks for a while, because they said so or cannot answer.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::finish::clean;
use super::{Store, StoreError};
use crate::domain::ids::WorkerId;
pub use crate::domain::provider_retry::PauseClass;

crate::statements! {
    PAUSE = "pause_provider";
    /// The pauses that are not over.
    LIST = "provider_pauses";
}

crate::record! {
    /// A provider that nobody asks now.
    pub struct PauseView {
        /// Its name in agents.toml.
        pub provider: String,
        /// Why: rate_limited, auth, billing or overloaded.
        pub class: String,
        /// What the provider said.
        pub message: String,
        /// When it is asked again.
        pub until: DateTime<Utc>,
        /// How long that is, by the database's clock.
        pub remaining_ms: i64,
        /// When the pause began.
        pub paused_at: DateTime<Utc>,
        /// The worker that found out.
        pub worker_id: Option<String>,
    }
}

/// What makes a pause.
#[derive(Clone, Debug)]
pub struct NewPause<'a> {
    /// The provider.
    pub provider: &'a str,
    /// How long from now.
    pub wait: Duration,
    /// Why.
    pub class: PauseClass,
    /// What the provider said.
    pub message: &'a str,
}

/// Let nobody ask a provider for a while. A shorter pause of another cause ends no longer one.
pub async fn pause(
    store: &Store,
    worker: WorkerId,
    pause: &NewPause<'_>,
) -> Result<(), StoreError> {
    let wait_ms = i64::try_from(pause.wait.as_millis()).unwrap_or(i64::MAX);
    let params: super::Params<'_> = &[
        &pause.provider,
        &wait_ms.min(WAIT_MS_MAX),
        &pause.class.as_str(),
        &clean(pause.message),
        &worker.0,
    ];
    store.query(&PAUSE, params).await?;
    Ok(())
}

/// Ten years: a longer wait is a fault of whoever asks for it, and must fit a timestamp.
const WAIT_MS_MAX: i64 = 10 * 366 * 86_400_000;

/// The pauses that are not over, by name.
pub async fn list(store: &Store) -> Result<Vec<PauseView>, StoreError> {
    let rows = store.query(&LIST, &[]).await?;
    rows.iter().map(PauseView::read).collect()
}
