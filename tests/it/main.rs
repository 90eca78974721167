//! All integration tests are modules of this one binary: one link instead of many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod apply;
mod confine;
mod diff;
mod harness;
mod snapshot;
mod workspace_lifecycle;
mod workspace_projects;
mod workspace_speed;
