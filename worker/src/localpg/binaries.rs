//! Finds an installation of Postgres.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LocalPgError;
use super::command::Program;

/// Oldest major version whose SQL the migrations use.
const MAJOR_MIN: u32 = 14;

/// `--version` of a program, on a machine that is busy.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the distributions keep one directory per major version.
const VERSIONED: [(&str, &str); 3] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// Where Homebrew keeps formulas, on ARM, Intel and Linux.
const HOMEBREW: [&str; 3] = [
    "/opt/homebrew/opt",
    "/usr/local/opt",
    "/home/linuxbrew/.linuxbrew/opt",
];

/// Single directories: `PATH` of most systems, and what others use.
const SINGLE: [&str; 4] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql",
];

/// One installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest usable installation; with `exactly`, one of that major version, because a
    /// cluster can only be run by the version that made it.
    pub async fn find(given: Option<&Path>, exactly: Option<u32>) -> Result<Self, LocalPgError> {
        let candidates = match given {
            Some(dir) => vec![dir.to_owned()],
            None => match std::env::var_os("PGBIN") {
                Some(dir) => vec![PathBuf::from(dir)],
                None => usual_places().await,
            },
        };
        let mut best: Option<Self> = None;
        for dir in candidates.iter().filter(|dir| is_installation(dir)) {
            let Some(major) = major_of(dir).await else {
                continue;
            };
            let fits = exactly.map_or(major >= MAJOR_MIN, |wanted| major == wanted);
            if fits && best.as_ref().is_none_or(|found| major > found.major) {
                best = Some(Self {
                    dir: dir.clone(),
                    major,
                });
            }
        }
        best.ok_or_else(|| LocalPgError::NoBinaries {
            wanted: exactly.map_or(format!("{MAJOR_MIN} or newer"), |major| {
                format!("{major} (the version that made the existing data)")
            }),
            looked: candidates
                .iter()
                .map(|dir| dir.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Path of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `psql`, when the installation has it.
    pub(super) fn psql(&self) -> Option<PathBuf> {
        let beside = self.program("psql");
        beside.is_file().then_some(beside)
    }

    /// Major version.
    pub fn major(&self) -> u32 {
        self.major
    }
}

fn is_installation(dir: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"]
        .iter()
        .all(|name| dir.join(name).is_file())
}

async fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(dir) = from_pg_config().await {
        places.push(dir);
    }
    for (parent, below) in VERSIONED {
        places.extend(children(parent).into_iter().map(|dir| dir.join(below)));
    }
    for parent in HOMEBREW {
        let formulas = children(parent).into_iter();
        places.extend(
            formulas
                .filter(|dir| named_postgres(dir))
                .map(|dir| dir.join("bin")),
        );
    }
    places.extend(SINGLE.iter().map(PathBuf::from));
    places
        .retain(|dir| is_installation(dir) || SINGLE.iter().any(|single| dir == Path::new(single)));
    places.sort();
    places.dedup();
    places
}

fn named_postgres(dir: &Path) -> bool {
    dir.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("postgresql"))
}

fn children(parent: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

async fn from_pg_config() -> Option<PathBuf> {
    let output = Program {
        path: Path::new("pg_config"),
        args: vec!["--bindir".as_ref()],
        user: None,
        cwd: Path::new("/"),
        pgdata: None,
        timeout: VERSION_TIMEOUT,
    };
    let output = output.run().await.ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

async fn major_of(dir: &Path) -> Option<u32> {
    let version = Program {
        path: &dir.join("postgres"),
        args: vec!["--version".as_ref()],
        user: None,
        cwd: Path::new("/"),
        pgdata: None,
        timeout: VERSION_TIMEOUT,
    };
    let output = version.run().await.ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15; also `18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once(") ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_and_betas_are_read() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres"), None);
    }

    #[tokio::test]
    async fn a_machine_without_postgres_is_told_how_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(empty.path()), None).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("14 or newer") && text.contains("install it:"),
            "{text}"
        );
    }
}
