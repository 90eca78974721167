//! Words and rules of the product, pure: no async, no I/O, no SQL, no wire types, no clock.

pub mod attempt;
pub mod attention;
pub mod batch_key;
pub mod change;
pub mod error_class;
pub mod event;
pub mod finding;
pub mod flag;
pub mod hosts;
pub mod ids;
pub mod limits;
pub mod llm;
pub mod lookup;
pub mod provider_retry;
pub mod reconcile;
pub mod redact;
pub mod remote;
pub mod retry;
pub mod safe_text;
pub mod sandbox;
pub mod scope;
pub mod staged_name;
pub mod task;
pub mod tool_names;
pub mod usage;
