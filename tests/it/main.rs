//! All integration tests are modules of this one binary: one link instead of many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "all of it is tests: a surprise must end them, and a story may be long"
)]
#![allow(
    unreachable_pub,
    reason = "the harness is written as a library is, and this binary exports nothing"
)]

mod harness;

mod agent_contract;
mod apply;
mod attempt;
mod confine;
mod diff;
mod docs_sql;
mod localpg;
mod queue;
mod snapshot;
mod statements;
mod tidy;
mod workspace_lifecycle;
mod workspace_projects;
mod workspace_speed;
    clippy::needless_pass_by_value,
    reason = "a test's helper may fail the test where it stands"
)]

mod agent_contract;
mod agent_examples;
mod agent_live;
