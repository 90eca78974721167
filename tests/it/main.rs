//! All integration tests are modules of this one binary: one link instead of many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test's helper may fail the test where it stands"
)]

mod agent_contract;
mod agent_examples;
mod agent_live;
mod agent_transcripts;
