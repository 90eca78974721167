//! Parse arguments, start telemetry, run the role.

fn main() {}
