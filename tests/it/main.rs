//! All integration tests are modules of this one binary: one link instead of many.
mod agent_contract;
