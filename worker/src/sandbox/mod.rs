//! Confinement of agents: which rungs of the ladder this machine has, and what one attempt may do.
//!
//! The rules are the kernel's, never strings that are compared: namespaces by bubblewrap, Landlock,
//! a user of the attempt's own, a filter of system calls. They are applied by this program started
//! once more (`exec`), not by work between fork and exec. What is shown of the machine is a list;
//! everything else is not there.

#[cfg(target_os = "linux")]
mod bwrap;
mod children;
pub mod confinement;
pub mod descriptors;
mod disk;
pub mod exec;
#[cfg(target_os = "linux")]
mod filter;
mod give;
#[cfg(target_os = "linux")]
mod kernel;
mod plan;
mod probe;
pub(crate) mod process_set;
#[cfg(target_os = "linux")]
mod stages;
mod stat;
#[cfg(target_os = "linux")]
mod supervise;
mod uids;
pub mod visible;
pub(crate) mod watch;
mod way_out;

use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::domain::hosts::Policy;
use crate::domain::sandbox::{Demand, Network, ResourceLimits, Rung};

pub use confinement::{Confinement, Places};
pub use give::{give, passage};
pub use uids::Owner;

/// How a directory is opened that an agent may have put a link in the place of.
pub(crate) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The worker's request to a helper to end everything now.
pub const END: Signal = Signal::SIGUSR1;

/// What a helper dies of when something of the attempt outlives it. A program that this signal ends
/// is told by 128 and its number instead.
pub(crate) const SURVIVED: Signal = Signal::SIGUSR2;

/// What a worker has for confining its agents; found out once, at its start.
#[derive(Clone, Debug)]
pub struct Sandbox {
    helper: PathBuf,
    bwrap: Option<plan::Bubblewrap>,
    users: Option<uids::Users>,
    data_dir: PathBuf,
    /// Out of every agent's sight: the worker's own directories and files.
    hidden: Vec<PathBuf>,
    home: Option<PathBuf>,
    rungs: Vec<(Rung, Result<(), String>)>,
}

/// What is settled before a worktree is made: that belongs to the attempt's user, and a hook that
/// runs before and after the agent may do what the agent may.
#[derive(Clone, Debug)]
pub struct Means {
    /// The rung of the ladder.
    pub rung: Rung,
    /// The attempt's own user, where it has one.
    pub owner: Option<Owner>,
    /// What may be reached.
    pub network: Network,
    /// Hosts, when that is the gateway.
    pub hosts: Option<Policy>,
    /// What may be used up.
    pub limits: ResourceLimits,
}

impl Means {
    /// None at all.
    pub const NONE: Self = Self {
        rung: Rung::None,
        owner: None,
        network: Network::Full,
        hosts: None,
        limits: ResourceLimits::NONE,
    };

    /// This rung and user, and nothing else that holds it.
    pub fn of(rung: Rung, owner: Option<Owner>) -> Self {
        Self {
            rung,
            owner,
            ..Self::NONE
        }
    }
}

/// What the search needs.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// This program, or one that begins with `exec::run_if_asked`; absent: the running one.
    pub helper: Option<PathBuf>,
    /// Where worktrees and homes are.
    pub data_dir: PathBuf,
    /// What agents must not see even below something that is shown.
    pub hidden: Vec<PathBuf>,
    /// The only rung to try; absent: all.
    pub only: Option<Rung>,
}

impl Sandbox {
    /// Find out what works here, by doing it.
    pub async fn find(settings: Settings) -> Result<Self, String> {
        let helper = match settings.helper {
            Some(helper) => helper,
            None => std::env::current_exe()
                .map_err(|error| format!("cannot find the running program: {error}"))?,
        };
        // Compared with other paths, so they must be whole; one that is nowhere hides nothing.
        let named = settings.hidden.iter().chain([&settings.data_dir]);
        let hidden = named.filter_map(|path| path.canonicalize().ok()).collect();
        let mut sandbox = Self {
            helper,
            bwrap: probe::bubblewrap().await,
            users: uids::Users::find(&settings.data_dir),
            data_dir: settings.data_dir.clone(),
            hidden,
            home: std::env::var_os("HOME").map(PathBuf::from),
            rungs: Vec::new(),
        };
        for rung in Rung::ALL {
            let works = match rung {
                Rung::None => Ok(()),
                _ if settings.only.is_some_and(|only| only != rung) => {
                    Err("switched off by DISPATCH_SANDBOX".to_owned())
                }
                _ => probe::rung(&sandbox, rung, &settings.data_dir).await,
            };
            sandbox.rungs.push((rung, works));
        }
        way_out::clear(&sandbox.data_dir);
        Ok(sandbox)
    }

    /// Log it. Everybody who wonders why an agent is not offered looks here.
    pub fn tell(&self) {
        let (best, missing) = (self.best(), self.missing().join("; "));
        match best {
            Rung::None => tracing::warn!(
                missing,
                "no sandbox works here: only agents with sandbox = \"none\" or \"optional\" are offered"
            ),
            Rung::Bubblewrap | Rung::LandlockUid | Rung::Landlock => {
                tracing::info!(sandbox = best.as_str(), missing, "agents are confined");
            }
        }
    }

    /// The program that confines, which is what confined tools of the worker's own run too.
    pub fn helper(&self) -> &Path {
        &self.helper
    }

    /// The best rung that works here.
    pub fn best(&self) -> Rung {
        self.working().next().unwrap_or(Rung::None)
    }

    /// Why better rungs than the best do not work, for people.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.rungs.iter().filter_map(|(rung, works)| {
            let why = works.as_ref().err()?;
            Some(format!("{rung}: {why}"))
        });
        missing.collect()
    }

    /// Whether this rung works here; the error says what is missing.
    pub fn works(&self, rung: Rung) -> Result<(), String> {
        let found = self.rungs.iter().find(|(known, _)| *known == rung);
        found.map_or_else(
            || Err("was not tried".to_owned()),
            |(_, works)| works.clone(),
        )
    }

    fn working(&self) -> impl Iterator<Item = Rung> + '_ {
        let working = self.rungs.iter().filter(|(_, works)| works.is_ok());
        working.map(|(rung, _)| *rung)
    }

    /// The rung for an agent; `nested`: for one that makes sandboxes of its own inside. The error
    /// says what to do.
    pub fn choose(&self, demand: Demand, network: Network, nested: bool) -> Result<Rung, String> {
        if demand == Demand::None {
            return match network {
                Network::Full => Ok(Rung::None),
                Network::Gateway | Network::None => Err(format!(
                    "network = \"{}\" needs a sandbox: set sandbox = \"required\", or network = \"full\"",
                    network.as_str()
                )),
            };
        }
        let enough = |rung: &Rung| match network {
            // Whoever is held by Landlock cannot mount, which making a sandbox needs: such an agent
            // would run and find every command of its own refused.
            Network::Full => !nested || matches!(rung, Rung::Bubblewrap | Rung::None),
            // Only a network namespace keeps an agent to one way out.
            Network::Gateway => *rung == Rung::Bubblewrap,
            Network::None => match nested {
                true => *rung == Rung::Bubblewrap,
                false => *rung != Rung::None,
            },
        };
        let best = self.working().find(enough);
        match best {
            Some(Rung::None) | None if demand == Demand::Required || network != Network::Full => {
                Err(self.refusal(network, nested))
            }
            Some(rung) => Ok(rung),
            None => Ok(Rung::None),
        }
    }

    /// The rung, and a user where the attempt gets one of its own; limits are the usual ones.
    /// `nested` as for `choose`.
    pub fn means(&self, demand: Demand, network: Network, nested: bool) -> Result<Means, String> {
        let rung = self.choose(demand, network, nested)?;
        let owner = self.owner(rung)?;
        Ok(Means {
            network,
            limits: ResourceLimits::USUAL,
            ..Means::of(rung, owner)
        })
    }

    fn refusal(&self, network: Network, nested: bool) -> String {
        let landlock = |rung| matches!(rung, Rung::LandlockUid | Rung::Landlock);
        if nested && network != Network::Gateway && self.working().any(landlock) {
            return format!(
                "it makes a sandbox of its own, which only bubblewrap can hold ({}); install bubblewrap, or set nested_sandbox = false and a mode in which it makes none, such as Codex's full access: the worker's sandbox holds it all the same",
                self.missing().join("; ")
            );
        }
        let what = match network {
            Network::Full => "no sandbox works on this machine".to_owned(),
            Network::Gateway | Network::None => format!(
                "no sandbox of this machine can hold network = \"{}\"",
                network.as_str()
            ),
        };
        format!(
            "{what} ({}); install bubblewrap, see SECURITY.md for what it needs, or trust the agent with sandbox = \"none\"",
            self.missing().join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rungs: &[Rung]) -> Sandbox {
        let works = |rung| match rungs.contains(&rung) {
            true => Ok(()),
            false => Err("is not there".to_owned()),
        };
        Sandbox {
            helper: PathBuf::new(),
            bwrap: None,
            users: None,
            data_dir: PathBuf::new(),
            hidden: Vec::new(),
            home: None,
            rungs: Rung::ALL.map(|rung| (rung, works(rung))).to_vec(),
        }
    }

    #[test]
    fn the_best_rung_that_holds_what_is_asked_is_taken_and_never_a_weaker_one_silently() {
        let all = with(&Rung::ALL);
        let landlock = with(&[Rung::Landlock, Rung::None]);
        let nothing = with(&[Rung::None]);
        let required = Demand::Required;
        let chosen =
            |sandbox: &Sandbox, demand, network| sandbox.choose(demand, network, false).ok();
        for network in [Network::Full, Network::Gateway, Network::None] {
            assert_eq!(chosen(&all, required, network), Some(Rung::Bubblewrap));
            assert_eq!(chosen(&nothing, required, network), None);
        }
        assert_eq!(
            chosen(&landlock, required, Network::Full),
            Some(Rung::Landlock)
        );
        assert_eq!(
            chosen(&landlock, required, Network::None),
            Some(Rung::Landlock)
        );
        assert_eq!(chosen(&landlock, required, Network::Gateway), None);
        assert_eq!(
            chosen(&nothing, Demand::Optional, Network::Full),
            Some(Rung::None)
        );
        assert_eq!(chosen(&nothing, Demand::Optional, Network::None), None);
        assert_eq!(chosen(&all, Demand::None, Network::Full), Some(Rung::None));
        assert_eq!(chosen(&all, Demand::None, Network::Gateway), None);
    }

    #[test]
    fn a_refusal_says_what_is_missing_and_what_to_do() {
        let error = with(&[Rung::None]).choose(Demand::Required, Network::Full, false);
        let error = error.unwrap_err();
        for word in ["bubblewrap: is not there", "install", "sandbox = \"none\""] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn an_agent_with_a_sandbox_of_its_own_is_never_put_where_that_cannot_work() {
        let landlock = with(&[Rung::LandlockUid, Rung::Landlock, Rung::None]);
        for network in [Network::Full, Network::None] {
            let all = with(&Rung::ALL).choose(Demand::Required, network, true);
            assert_eq!(all, Ok(Rung::Bubblewrap));
            let error = landlock.choose(Demand::Required, network, true);
            let error = error.unwrap_err();
            for word in ["bubblewrap: is not there", "nested_sandbox = false"] {
                assert!(error.contains(word), "{error}");
            }
        }
        let trusted = landlock.choose(Demand::Optional, Network::Full, true);
        assert_eq!(trusted, Ok(Rung::None));
    }
}
