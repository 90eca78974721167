//! Postgres on this machine for a first run and for tests.
