//! All integration tests are modules of this one binary: one link instead of many.
#![allow(
    unreachable_pub,
    reason = "the harness is written as a library is, and this binary exports nothing"
)]

mod harness;

mod localpg;
mod tidy;
