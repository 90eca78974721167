//! Live fan-out of a task's stream in this process; the durable history is the store's.
