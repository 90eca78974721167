//! All integration tests are modules of this one binary: one link instead of many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "all of it is tests: a surprise must end them, and a story may be long"
)]
#![allow(
    unreachable_pub,
    reason = "the harness is written as a library is, and this binary exports nothing"
)]

mod harness;

mod agent_check;
mod agent_contract;
mod agent_examples;
mod agent_live;
mod agent_transcripts;
mod agent_tries;
mod apply;
mod attempt;
mod attention;
mod audit;
mod bad_input;
mod batch;
mod bench_driver;
mod carried;
mod cli_reference;
mod command_line;
mod confine;
mod conversations;
mod crash;
mod database_faults;
mod deadlines;
mod diff;
mod docs_sql;
mod doctor;
mod doors;
mod fleet;
mod fleet_rules;
mod four_eyes;
mod gateway;
mod hooks;
mod hostile_logins;
mod http;
mod idle;
mod inbox;
mod keys;
mod limits;
mod localpg;
mod lookups;
mod mcp;
mod native;
mod native_llm;
mod native_mcp;
mod native_probe;
mod native_providers;
mod native_store;
mod native_turn;
mod nothing_survives;
mod ops_parity;
mod pager;
mod patch_attacks;
mod patience;
mod pooler;
mod project_init;
mod queue;
mod races;
mod refusals;
mod remote;
mod resource_limits;
mod review_http;
mod review_terminal;
mod reviewers;
mod rights;
mod safe_text;
mod sandbox;
mod sandbox_reach;
mod sandbox_view;
mod secrets;
mod shown;
mod snapshot;
mod statements;
mod stream;
mod tidy;
#[cfg(target_os = "linux")]
mod tokens;
mod toolhost;
mod traces;
mod wait;
mod what_stays;
mod workspace_lifecycle;
mod workspace_projects;
mod workspace_speed;
