//! The built-in agent: a loop of requests to a model and calls of tools.

pub mod llm;
