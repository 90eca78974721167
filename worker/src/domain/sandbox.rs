//! Words for how an attempt is confined.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits;

/// A rung of the confinement ladder, best first; recorded on every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rung {
    /// Own mount, process and (if asked for) network namespace, made by bubblewrap; as root also a
    /// user of the attempt's own.
    #[serde(rename = "bubblewrap")]
    Bubblewrap,
    /// Landlock rules and a user of the attempt's own; the worker must be root.
    #[serde(rename = "landlock+uid")]
    LandlockUid,
    /// Landlock rules; the agent has the worker's user.
    #[serde(rename = "landlock")]
    Landlock,
    /// No confinement: only for agents that are trusted like the worker itself.
    #[serde(rename = "none")]
    None,
}

impl Rung {
    /// Every rung, best first.
    pub const ALL: [Self; 4] = [
        Self::Bubblewrap,
        Self::LandlockUid,
        Self::Landlock,
        Self::None,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::LandlockUid => "landlock+uid",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }

    /// The rung of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == name)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an agent's entry or a project asks for; the weaker of both holds, because only a person
/// who runs the system writes either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Use none.
    None,
    /// Use one where the machine has it.
    Optional,
    /// Refuse to start it without.
    #[default]
    Required,
}

impl Demand {
    /// The demand of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

/// What an agent may reach over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Whatever the worker can.
    #[default]
    Full,
    /// The hosts that its entry lists, through the worker's gateway.
    Gateway,
    /// Nothing.
    None,
}

impl Network {
    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Gateway => "gateway",
            Self::None => "none",
        }
    }
}

/// What the processes of one attempt may use up together; beyond it the attempt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Resident memory, in MiB.
    pub memory_mb: Option<u64>,
    /// Processes at once.
    pub pids: Option<u64>,
    /// Processor time, in seconds.
    pub cpu_s: Option<u64>,
    /// Size of any one file that it writes, in MiB.
    pub file_mb: Option<u64>,
    /// Disk space of worktree, HOME and temporary files, in MiB.
    pub disk_mb: Option<u64>,
}

impl ResourceLimits {
    /// No limit at all.
    pub const NONE: Self = Self {
        memory_mb: None,
        pids: None,
        cpu_s: None,
        file_mb: None,
        disk_mb: None,
    };

    /// What holds when an entry says nothing.
    pub const USUAL: Self = Self {
        memory_mb: Some(limits::ATTEMPT_MEMORY_MB),
        pids: Some(limits::ATTEMPT_PIDS),
        cpu_s: None,
        file_mb: Some(limits::ATTEMPT_FILE_MB),
        disk_mb: Some(limits::ATTEMPT_DISK_MB),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_and_names_on_the_wire_are_the_same() {
        for rung in Rung::ALL {
            assert_eq!(Rung::parse(rung.as_str()), Some(rung));
            assert_eq!(serde_json::to_value(rung).unwrap(), rung.as_str());
        }
    }

    #[test]
    fn the_weaker_demand_of_two_is_the_smaller() {
        assert_eq!(Demand::Required.min(Demand::None), Demand::None);
        assert_eq!(Demand::Required.min(Demand::Optional), Demand::Optional);
    }
}
