//! Postgres on this machine, for a first run without any setting and for tests. Owns one
//! directory with the cluster, its password, its log and its private socket. Knows nothing about
//! tasks or the schema.
//!
//! Whoever uses the server holds a shared lock on `users.lock`; the last one that stops takes the
//! server down. A process that was killed leaves its lock to the kernel, so the next one that
//! starts simply joins and is responsible again.

mod binaries;
mod cluster;
mod command;
mod home;

use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

pub use binaries::Binaries;
pub use home::default_data_dir;

/// Role that owns the databases.
const ROLE: &str = "dispatch";

/// Only names the socket file: the directory is private, so the number never collides.
const PORT: u16 = 5432;

/// What a crash may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// fsync on: a committed task is never lost.
    Durable,
    /// Fast and unsafe; for tests, whose data nobody misses.
    Throwaway,
}

/// How to run the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that holds everything; made when missing.
    pub data_dir: PathBuf,
    /// Where `postgres` and `initdb` are; `None`: `$PGBIN`, then the usual places.
    pub bin_dir: Option<PathBuf>,
    /// What a crash may cost.
    pub durability: Durability,
    /// `max_connections` of the server.
    pub max_connections: u16,
}

impl Options {
    /// A durable server in this directory.
    pub fn durable(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bin_dir: None,
            durability: Durability::Durable,
            max_connections: 100,
        }
    }

    /// A server for tests in this directory.
    pub fn throwaway(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            durability: Durability::Throwaway,
            max_connections: 400,
            ..Self::durable(data_dir)
        }
    }
}

/// A running server. Dropping it leaves the server up: `stop` is what takes it down.
#[derive(Debug)]
pub struct LocalPostgres {
    home: home::Home,
    binaries: Option<Binaries>,
    socket_dir: PathBuf,
    password: String,
    joined: bool,
    /// Held while this process uses the server; absent for one that only looked.
    user_lock: Option<Flock<std::fs::File>>,
}

impl LocalPostgres {
    /// Start the server of this directory, or join it when it runs already. The directory and the
    /// cluster are made at the first start.
    pub async fn start(options: Options) -> Result<Self, LocalPgError> {
        let home = home::Home::prepare(&options.data_dir)?;
        let _starting = home.lock_starting().await?;
        let user_lock = Some(home.lock_as_user()?);
        if let Some(found) = Self::find(&home) {
            let binaries = Binaries::find(options.bin_dir.as_deref(), home.major()).await;
            return Ok(Self {
                binaries: binaries.ok(),
                joined: true,
                user_lock,
                ..found
            });
        }
        let binaries = Binaries::find(options.bin_dir.as_deref(), home.major()).await?;
        cluster::create(&home, &binaries, options.durability).await?;
        let socket_dir = home.socket_dir()?;
        cluster::configure(&home, &socket_dir, &options)?;
        cluster::start(&home, &binaries).await?;
        Ok(Self {
            password: home.password()?,
            binaries: Some(binaries),
            socket_dir,
            joined: false,
            user_lock,
            home,
        })
    }

    /// Join the server of this directory when it runs; never starts it. `join` and then `stop`
    /// takes down what a killed process left.
    pub async fn join(data_dir: &Path) -> Result<Option<Self>, LocalPgError> {
        let Some(home) = home::Home::existing(data_dir) else {
            return Ok(None);
        };
        let _starting = home.lock_starting().await?;
        let user_lock = Some(home.lock_as_user()?);
        let binaries = Binaries::find(None, home.major()).await.ok();
        Ok(Self::find(&home).map(|found| Self {
            binaries,
            user_lock,
            ..found
        }))
    }

    /// The server of this directory, when it runs. Looks only: it is not kept up for the caller.
    pub async fn running(data_dir: &Path) -> Option<Self> {
        let home = home::Home::existing(data_dir)?;
        let mut found = Self::find(&home)?;
        found.binaries = Binaries::find(None, home.major()).await.ok();
        Some(found)
    }

    /// Address of a database of the server of this directory, when it runs: what a command needs
    /// that was told of no database.
    pub fn running_url(data_dir: &Path, database: &str) -> Option<String> {
        let found = Self::find(&home::Home::existing(data_dir)?)?;
        Some(found.url(database))
    }

    fn find(home: &home::Home) -> Option<Self> {
        let socket_dir = home.recorded_socket_dir()?;
        let password = home.password().ok()?;
        let socket = home::socket_file(&socket_dir);
        // A local connect is taken by the kernel at once or refused.
        std::os::unix::net::UnixStream::connect(socket).ok()?;
        Some(Self {
            home: home.clone(),
            binaries: None,
            socket_dir,
            password,
            joined: true,
            user_lock: None,
        })
    }

    /// Address of one of its databases, for tokio-postgres and for libpq. Holds the password: not
    /// for logs or arguments.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgresql://{ROLE}:{}@{}:{PORT}/{}",
            self.password,
            percent_encoded(&self.socket_dir.to_string_lossy()),
            percent_encoded(database),
        )
    }

    /// The same for `psql` as environment variables, which other users cannot read.
    pub fn psql_env(&self, database: &str) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", self.socket_dir.to_string_lossy().into_owned()),
            ("PGPORT", PORT.to_string()),
            ("PGUSER", ROLE.to_owned()),
            ("PGPASSWORD", self.password.clone()),
            ("PGDATABASE", database.to_owned()),
        ]
    }

    /// `psql` of the same installation; some bundles have none.
    pub fn psql_path(&self) -> Option<PathBuf> {
        self.binaries.as_ref().and_then(Binaries::psql)
    }

    /// The directory that holds everything.
    pub fn data_dir(&self) -> &Path {
        self.home.dir()
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.home.log_file()
    }

    /// Whether it ran before this process asked for it.
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// Take the server down, unless another process uses it or this one only looked.
    pub async fn stop(mut self) -> Result<Stopped, LocalPgError> {
        let Some(lock) = self.user_lock.take() else {
            return Ok(Stopped::StillUsed);
        };
        let _starting = self.home.lock_starting().await?;
        if !home::is_last_user(lock) {
            return Ok(Stopped::StillUsed);
        }
        let binaries = match self.binaries.take() {
            Some(binaries) => binaries,
            None => Binaries::find(None, self.home.major()).await?,
        };
        cluster::stop(&self.home, &binaries).await?;
        Ok(Stopped::Down)
    }
}

/// What `stop` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The server is down.
    Down,
    /// Others use it; it stays up.
    StillUsed,
}

/// Bytes that are not unreserved in a URL become %XX.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The server could not be started, joined or stopped. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalPgError {
    /// No usable installation.
    #[error(
        "no Postgres {wanted} found on this machine (looked in {looked}); {}, or set DATABASE_URL to a database of yours, or PGBIN to the directory that holds initdb and postgres",
        install_line()
    )]
    NoBinaries {
        /// Version that would do.
        wanted: String,
        /// Places searched.
        looked: String,
    },
    /// Postgres never runs as root, and nobody else is there.
    #[error(
        "Postgres does not run as root, and neither user \"postgres\" nor \"nobody\" exists: add one (useradd --system postgres), or start dispatch as a normal user"
    )]
    NoUser,
    /// A directory above the data is closed to the user that runs Postgres.
    #[error(
        "user {user} runs Postgres and cannot enter {}: choose another directory for the data (--data DIR), or open it (chmod o+x)",
        closed.display()
    )]
    Closed {
        /// Who.
        user: String,
        /// Where.
        closed: PathBuf,
    },
    /// The data belongs to somebody else.
    #[error(
        "{} belongs to user id {owner}, not to you: start dispatch as that user, or choose another directory (--data DIR)",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Another process holds the start lock for too long.
    #[error("another dispatch is starting or stopping Postgres in {} for over {seconds} s; see {}", dir.display(), log.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// How long we waited.
        seconds: u64,
        /// The server's log.
        log: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program of Postgres failed.
    #[error("{program} failed ({how}): {output}")]
    Program {
        /// Which.
        program: String,
        /// Exit status or time limit.
        how: String,
        /// The end of what it printed, or of the server's log.
        output: String,
    },
}

fn install_line() -> &'static str {
    if cfg!(target_os = "macos") {
        "install it: brew install postgresql@17"
    } else {
        "install it: sudo apt-get install postgresql (Debian, Ubuntu) or sudo dnf install postgresql-server (Fedora)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_odd_directories() {
        let encoded = percent_encoded("/home/a b/ä'%/sock");
        assert_eq!(encoded, "%2Fhome%2Fa%20b%2F%C3%A4%27%25%2Fsock");
    }
}
