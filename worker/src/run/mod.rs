//! One attempt, top to bottom.
