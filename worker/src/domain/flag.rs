//! Warnings about a changed file that a reviewer must not overlook.

/// One warning. The order is that of danger: the worst is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// It holds a secret that the agent was given.
    Secret,
    /// CI runs it, or runs as it says.
    RunsInCi,
    /// A tool runs it by itself (git hooks, direnv).
    RunsAsHook,
    /// A build, an installation or a test run executes it.
    RunsInBuild,
    /// An editor runs it when the project is opened.
    RunsInEditor,
    /// Agents read it as instructions or settings.
    SteersAgents,
    /// Git takes settings from it: filters, submodules, what is ignored.
    SteersGit,
    /// It says who must review what.
    SteersReview,
    /// A symbolic link that leads out of the project.
    LinkOutside,
    /// A symbolic link.
    Symlink,
    /// A pointer to a commit of another repository.
    Submodule,
    /// It may be executed from now on.
    Executable,
    /// It became another kind of thing.
    TypeChanged,
    /// Its mode is another one.
    ModeChanged,
    /// Its diff shows bytes that are not UTF-8 as something else.
    NotUtf8,
}

impl Flag {
    /// Every flag, the worst first.
    pub const ALL: [Self; 15] = [
        Self::Secret,
        Self::RunsInCi,
        Self::RunsAsHook,
        Self::RunsInBuild,
        Self::RunsInEditor,
        Self::SteersAgents,
        Self::SteersGit,
        Self::SteersReview,
        Self::LinkOutside,
        Self::Symlink,
        Self::Submodule,
        Self::Executable,
        Self::TypeChanged,
        Self::ModeChanged,
        Self::NotUtf8,
    ];

    /// The name that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::RunsInCi => "runs_in_ci",
            Self::RunsAsHook => "runs_as_hook",
            Self::RunsInBuild => "runs_in_build",
            Self::RunsInEditor => "runs_in_editor",
            Self::SteersAgents => "steers_agents",
            Self::SteersGit => "steers_git",
            Self::SteersReview => "steers_review",
            Self::LinkOutside => "link_outside",
            Self::Symlink => "symlink",
            Self::Submodule => "submodule",
            Self::Executable => "executable",
            Self::TypeChanged => "type_changed",
            Self::ModeChanged => "mode_changed",
            Self::NotUtf8 => "not_utf8",
        }
    }

    /// The flag with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.as_str() == name)
    }

    /// What it says to a reviewer.
    pub fn words(self) -> &'static str {
        match self {
            Self::Secret => "HOLDS A SECRET",
            Self::RunsInCi => "runs in CI",
            Self::RunsAsHook => "runs as a hook",
            Self::RunsInBuild => "runs in the build",
            Self::RunsInEditor => "runs in the editor",
            Self::SteersAgents => "steers agents",
            Self::SteersGit => "steers git",
            Self::SteersReview => "says who reviews",
            Self::LinkOutside => "link out of the project",
            Self::Symlink => "symbolic link",
            Self::Submodule => "submodule",
            Self::Executable => "becomes executable",
            Self::TypeChanged => "becomes another kind of file",
            Self::ModeChanged => "mode changed",
            Self::NotUtf8 => "not UTF-8",
        }
    }
}

/// The words of a stored name; one that this version does not know is shown as it is.
pub fn words(name: &str) -> String {
    Flag::parse(name).map_or_else(|| name.replace('_', " "), |flag| flag.words().to_owned())
}

/// All flags of these files, each once, the worst first. Unknown ones come last.
pub fn union<'f>(files: impl IntoIterator<Item = &'f [String]>) -> Vec<String> {
    let mut all: Vec<&String> = files.into_iter().flatten().collect();
    let rank = |name: &str| Flag::parse(name).map_or(Flag::ALL.len(), |flag| flag as usize);
    all.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    all.dedup();
    all.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_worst_comes_first() {
        for flag in Flag::ALL {
            assert_eq!(Flag::parse(flag.as_str()), Some(flag));
        }
        assert!(Flag::ALL.is_sorted());
        let files = [
            vec!["symlink".to_owned(), "new_one".to_owned()],
            vec!["runs_in_ci".to_owned()],
            vec!["symlink".to_owned(), "secret".to_owned()],
        ];
        let all = union(files.iter().map(Vec::as_slice));
        assert_eq!(all, ["secret", "runs_in_ci", "symlink", "new_one"]);
        assert_eq!(words("runs_in_ci"), "runs in CI");
        assert_eq!(words("runs_code"), "runs code", "of an earlier version");
    }
}
