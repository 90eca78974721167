//! Doors: the command line and HTTP, both derived from the list of operations.

pub mod auth;
pub mod cli;
pub mod connect;
pub mod fields;
mod health;
pub mod http;
pub mod mcp;
pub mod openapi;
pub mod problem;
pub mod sse;
pub mod traffic;

pub use crate::domain::safe_text;
