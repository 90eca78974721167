//! Settings from flags, environment and agents.toml, checked before the first task is claimed.

pub mod agent_check;
pub mod agent_spec;
pub mod agents;
pub mod credentials;
pub mod native_spec;
mod secret_look;
pub mod worker;
