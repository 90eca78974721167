//! What the doctor finds on this machine: what a worker here would have.

use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::localpg;
use crate::ops::doctor::{Examiner, Finding, Verdict};
use crate::sandbox::{self, Sandbox};
use crate::workspace;

use super::catalogue;

const AREA: &str = "machine";

/// Less room than this is a worry: worktrees, stores and homes grow.
const FREE_BYTES_MIN: u64 = 5 * 1024 * 1024 * 1024;

/// Looks at the machine with the catalogue that a worker here would read.
pub(super) struct Machine {
    pub(super) agents: PathBuf,
    /// Where a worker would keep its work, when somebody names it.
    pub(super) data: Option<PathBuf>,
}

impl Examiner for Machine {
    fn examine(&self) -> BoxFuture<'_, Vec<Finding>> {
        async move { vec![self.catalogue(), sandbox().await, git().await, self.disk()] }.boxed()
    }
}

impl Machine {
    fn catalogue(&self) -> Finding {
        let shown = self.agents.display();
        match catalogue::load(&self.agents) {
            Ok(catalogue) => {
                let (agents, providers) = (catalogue.agents.len(), catalogue.providers.len());
                let counted = format!("{agents} agents, {providers} providers");
                let found = match catalogue::is_absent(&self.agents) {
                    true => format!("none here; a worker would take the ready-made: {counted}"),
                    false => counted,
                };
                Finding::ok(AREA, "agents.toml", found)
            }
            Err(error) => Finding::ok(AREA, "agents.toml", error.message).but(
                Verdict::Fail,
                error.hint.unwrap_or_else(|| format!("Mend {shown}.")),
            ),
        }
    }

    fn disk(&self) -> Finding {
        let usual = localpg::default_data_dir();
        let usual = usual.parent().unwrap_or(Path::new("/"));
        let dir = self.data.as_deref().unwrap_or(usual);
        // It may not be there yet: then what is above it.
        let there = dir.ancestors().find(|path| path.exists());
        let looked = nix::sys::statvfs::statvfs(there.unwrap_or(Path::new("/")));
        let stat = match looked {
            Ok(stat) => stat,
            Err(error) => {
                return Finding::ok(AREA, "disk", format!("{}: {error}", dir.display()))
                    .but(Verdict::Warn, "Is the directory there, and readable?");
            }
        };
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let found = format!("{} GiB free below {}", free >> 30, dir.display());
        let found = Finding::ok(AREA, "disk", found);
        match free >= FREE_BYTES_MIN {
            true => found,
            false => found.but(
                Verdict::Warn,
                "Worktrees, stores and homes of agents grow: make room, or name another place with --data.",
            ),
        }
    }
}

async fn sandbox() -> Finding {
    let check = "sandbox";
    let failed = |why: String| {
        Finding::ok(AREA, check, why).but(Verdict::Fail, "Agents cannot be confined here.")
    };
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return failed(format!("no directory to try it in: {error}")),
    };
    let settings = sandbox::Settings {
        data_dir: scratch.path().to_owned(),
        ..sandbox::Settings::default()
    };
    match Sandbox::find(settings).await {
        Ok(found) if found.best() == crate::domain::sandbox::Rung::None => {
            let missing = found.missing().join("; ");
            let advice = "Install bubblewrap; until then only agents whose entry says so run here (SECURITY.md).";
            Finding::ok(AREA, check, format!("none works: {missing}")).but(Verdict::Warn, advice)
        }
        Ok(found) => Finding::ok(AREA, check, found.best().as_str()),
        Err(why) => failed(why),
    }
}

async fn git() -> Finding {
    match workspace::git_version().await {
        Ok(version) => Finding::ok(AREA, "git", version),
        Err(error) => Finding::ok(AREA, "git", error.message).but(
            Verdict::Fail,
            "A worker makes worktrees with it: install git.",
        ),
    }
}
