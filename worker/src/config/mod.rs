//! Settings from flags, environment and agents.toml, checked before the first task is claimed.

pub mod agent_check;
mod agent_entry;
pub mod agent_spec;
pub mod agents;
pub mod credentials;
pub mod database;
mod native_entry;
pub mod native_spec;
mod provider_key;
mod providers;
pub mod secret_file;
mod secret_look;
pub mod worker;
