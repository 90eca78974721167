//! All integration tests are modules of this one binary: one link instead of many.

mod apply;
mod confine;
mod diff;
mod harness;
mod snapshot;
mod workspace_lifecycle;
mod workspace_projects;
mod workspace_speed;
