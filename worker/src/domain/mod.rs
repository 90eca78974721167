//! Words and rules of the product, pure: no async, no I/O, no SQL, no wire types, no clock.

pub mod attempt;
pub mod change;
pub mod error_class;
pub mod event;
pub mod ids;
pub mod limits;
pub mod retry;
pub mod sandbox;
pub mod task;
pub mod usage;
