//! Doors: CLI and HTTP, derived from the operations.
