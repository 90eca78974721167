//! Which hosts an agent may reach: what its entry lists, read once and judged by the gateway.

mod address;
mod host;
mod policy;

pub use host::{Host, HostError};
pub use policy::{Denied, Grant, LocalService, Policy, RuleError};
