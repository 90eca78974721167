//! `dispatch`: a task queue worker that dispatches work to coding agents.
//!
//! `run` is the file to read first: one attempt, top to bottom. ARCHITECTURE.md has the map, the
//! invariants and three walkthroughs.

pub mod agent;
pub mod bench;
pub mod blocking;
pub mod broker;
pub mod check;
pub mod config;
pub mod domain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gateway;
pub mod localpg;
pub mod ops;
pub mod queue;
pub mod roles;
pub mod run;
pub mod sandbox;
pub mod store;
pub mod surface;
#[expect(
    unsafe_code,
    reason = "what happens between fork and exec, and signals, has no safe call"
)]
mod sys;
pub mod telemetry;
pub mod toolhost;
pub mod workspace;
