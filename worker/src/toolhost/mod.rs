//! The tools of the native agent, run inside its sandbox as a program of their own.
