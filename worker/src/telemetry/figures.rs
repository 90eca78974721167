//! The counters of a worker, by what they count. Prometheus sees an increase only in a series that was
//! there before: each one whose labels are known begins at 0, before anything is counted.

use metrics::counter;

use crate::config::agents::Catalogue;
use crate::domain::error_class::ErrorClass;
use crate::domain::provider_retry::PauseClass;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its task is done.
    Completed,
    /// Its task failed.
    Failed,
    /// Somebody wanted its task cancelled.
    Cancelled,
    /// Its task went back.
    Again,
}

impl End {
    const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Cancelled, Self::Again];

    /// The value of the label, which the log has too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Again => "again",
        }
    }
}

/// What became of a change that a worker took up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEnd {
    /// It is on its branch.
    Applied,
    /// It does not merge.
    Conflicted,
    /// It could not be tried.
    Failed,
    /// It is out of its branch again.
    Undone,
    /// Later work stands on it.
    UndoRefused,
    /// Undoing could not be tried.
    UndoFailed,
}

impl ChangeEnd {
    const ALL: [Self; 6] = [
        Self::Applied,
        Self::Conflicted,
        Self::Failed,
        Self::Undone,
        Self::UndoRefused,
        Self::UndoFailed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Conflicted => "conflicted",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::UndoRefused => "undo_refused",
            Self::UndoFailed => "undo_failed",
        }
    }
}

/// What became of a connection out of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It went through.
    Allowed,
    /// Its host is not on the list.
    Refused,
    /// Its host could not be reached.
    Failed,
}

impl Passage {
    const ALL: [Self; 3] = [Self::Allowed, Self::Refused, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Begin what does not depend on the catalogue. Parts of the worker begin their own
/// ([`service_begins`]).
pub fn begin() {
    for class in ErrorClass::ALL {
        retries(class.as_str(), 0);
    }
    for end in ChangeEnd::ALL {
        changes(end, 0);
    }
    for passage in Passage::ALL {
        passages(passage, 0);
    }
    gateway_bytes(0, 0);
    leases_lost(0);
    leases_rescued(0);
    lookups(0);
    events_stored(0);
    unknown_messages(0);
    // Histograms: that they are there.
    let _there = metrics::histogram!("dispatch_claim_latency_seconds");
    let _there = metrics::histogram!("dispatch_event_lag_seconds");
}

/// Begin what agents and providers of a catalogue are counted by; what has begun goes on.
pub fn begin_agents(catalogue: &Catalogue) {
    for agent in catalogue.agents.keys() {
        for end in End::ALL {
            attempts(agent, end, 0);
        }
        tokens(agent, 0);
        // Agents report dollars unless their entry says otherwise; prices may be in something else.
        cost(agent, "USD", 0);
        for price in catalogue.prices.values() {
            cost(agent, &price.currency, 0);
        }
    }
    for provider in catalogue.providers.keys() {
        for class in PauseClass::ALL {
            pauses(provider, class, 0);
        }
    }
}

/// Attempts ended.
pub fn attempts(agent: &str, end: End, more: u64) {
    counter!("dispatch_attempts_total", "agent" => agent.to_owned(), "end" => end.as_str())
        .increment(more);
}

/// Attempts failed, and their tasks went back for another one.
pub fn retries(class: &'static str, more: u64) {
    counter!("dispatch_retries_total", "class" => class).increment(more);
}

/// Tokens were used.
pub fn tokens(agent: &str, more: u64) {
    counter!("dispatch_tokens_total", "agent" => agent.to_owned()).increment(more);
}

/// Money was spent, in millionths: counters are whole numbers.
pub fn cost(agent: &str, currency: &str, more_micros: u64) {
    // Agents say it too: what is no code of a currency would be a series of its own.
    let code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
    let currency = if code { currency } else { "unknown" };
    let labels = [
        ("agent", agent.to_owned()),
        ("currency", currency.to_owned()),
    ];
    counter!("dispatch_cost_micros_total", &labels).increment(more_micros);
}

/// A provider is left alone for a while.
pub fn pauses(provider: &str, class: PauseClass, more: u64) {
    let provider = provider.to_owned();
    counter!("dispatch_provider_pauses_total", "provider" => provider, "class" => class.as_str())
        .increment(more);
}

/// Changes were taken up.
pub fn changes(end: ChangeEnd, more: u64) {
    counter!("dispatch_changes_total", "outcome" => end.as_str()).increment(more);
}

/// Connections out of a sandbox were asked for.
pub fn passages(passage: Passage, more: u64) {
    counter!("dispatch_gateway_connections_total", "outcome" => passage.as_str()).increment(more);
}

/// Bytes went through such connections.
pub fn gateway_bytes(sent: u64, received: u64) {
    for (direction, more) in [("sent", sent), ("received", received)] {
        counter!("dispatch_gateway_bytes_total", "direction" => direction).increment(more);
    }
}

/// Leases of this worker were lost to others.
pub fn leases_lost(more: u64) {
    counter!("dispatch_leases_lost_total").increment(more);
}

/// Leases of others were ended by this worker.
pub fn leases_rescued(more: u64) {
    counter!("dispatch_leases_rescued_total").increment(more);
}

/// Questions to workers were answered.
pub fn lookups(more: u64) {
    counter!("dispatch_lookups_total").increment(more);
}

/// Events were stored.
pub fn events_stored(more: u64) {
    counter!("dispatch_events_stored_total").increment(more);
}

/// Agents said what nobody knows.
pub fn unknown_messages(more: u64) {
    counter!("dispatch_agent_unknown_messages_total").increment(more);
}

/// Spans did not reach the collector.
pub fn spans_lost(more: u64) {
    counter!("dispatch_spans_lost_total").increment(more);
}

/// A part of the worker starts.
pub fn service_begins(name: &'static str) {
    counter!("dispatch_service_panics_total", "service" => name).increment(0);
}

/// A part of the worker broke and is started again.
pub fn service_panicked(name: &'static str) {
    counter!("dispatch_service_panics_total", "service" => name).increment(1);
}
