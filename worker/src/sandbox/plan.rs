//! What a confined process may do, as it is handed to the helper that applies it. Holds paths and
//! numbers only, because every process of the machine can read arguments.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::descriptors;
use crate::domain::sandbox::{Network, Rung};

/// The program `bwrap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bubblewrap {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Whether it can bound a file system in memory (since 0.7).
    pub(super) knows_size: bool,
}

/// All that the helper needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// The version of the program that wrote it: one replaced while it runs must not misread it.
    pub(super) version: String,
    /// The process that must live for the attempt to go on.
    pub(super) worker: u32,
    /// How it is confined.
    pub(super) rung: Rung,
    /// This program, for its second stage.
    pub(super) helper: PathBuf,
    /// `bwrap`, for that rung.
    pub(super) bwrap: Option<Bubblewrap>,
    /// Working directory.
    pub(super) cwd: PathBuf,
    /// What it may read and run.
    pub(super) read: Vec<PathBuf>,
    /// What it may read also below something hidden.
    pub(super) lent: Vec<PathBuf>,
    /// What it may change too.
    pub(super) write: Vec<PathBuf>,
    /// Below one of `read` and nevertheless out of sight.
    pub(super) hidden: Vec<PathBuf>,
    /// Its temporary directory, which is its `/tmp` too where there is a mount namespace.
    pub(super) tmp: PathBuf,
    /// What it may reach.
    pub(super) network: Network,
    /// Socket of the gateway and the port at which it is reached inside.
    pub(super) gateway: Option<(PathBuf, u16)>,
    /// Ports that lead through the gateway to services of the machine, and what to ask it for.
    pub(super) services: Vec<(u16, String)>,
    /// User and group to become.
    pub(super) owner: Option<(u32, u32)>,
    /// Whether it may make sandboxes of its own.
    pub(super) nested: bool,
    /// Most bytes of a file that it writes.
    pub(super) file_bytes_max: Option<u64>,
    /// Most processes of its user, counted by the kernel.
    pub(super) pids_max: Option<u64>,
    /// Open files at which a process is told to close some, as it was for the worker; programs that
    /// can do with more ask for it.
    pub(super) open_files: Option<u64>,
    /// Most processor seconds of one of its processes.
    pub(super) cpu_s_max: Option<u64>,
}

impl Plan {
    /// The version of this program.
    pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// One of this process on this rung, which shows nothing and bounds nothing yet.
    pub(super) fn of(rung: Rung, helper: PathBuf) -> Self {
        Self {
            version: Self::VERSION.to_owned(),
            worker: std::process::id(),
            rung,
            helper,
            bwrap: None,
            cwd: PathBuf::new(),
            read: Vec::new(),
            lent: Vec::new(),
            write: Vec::new(),
            hidden: Vec::new(),
            tmp: PathBuf::new(),
            network: Network::Full,
            gateway: None,
            services: Vec::new(),
            owner: None,
            nested: false,
            file_bytes_max: None,
            pids_max: None,
            open_files: descriptors::before(),
            cpu_s_max: None,
        }
    }
}
