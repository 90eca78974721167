//! Plays the part of a third-party agent from a script.

fn main() {}
