//! Who runs what when; knows nothing about protocols. Each service here is a `run_once` that tests
//! call, and a ticker that the supervisor owns.

pub mod alive;
pub mod applier;
pub mod cancels;
pub mod finisher;
pub mod gauges;
pub mod janitor;
pub mod lease;
pub mod lookups;
pub mod maintainer;
pub mod offers;
pub mod pauses;
pub mod poller;
pub mod rescuer;
pub mod slots;
pub mod supervisor;
pub mod sweeper;
pub mod tries;
