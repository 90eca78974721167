//! The directory that holds the cluster: who owns it, its locks, password, socket and log.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, User, geteuid};

use super::{LocalPgError, PORT};

/// A unix socket's path may have 104 bytes on macOS, with its end.
const SOCKET_PATH_BYTES_MAX: usize = 99;

/// A first start makes the cluster; whoever comes second waits for it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(240);

/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// A log longer than this is set aside at the next start; one older one is kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

const LOG_NAME: &str = "postgres.log";

/// Where root keeps the data when its home is closed to others.
const ROOT_DATA_DIR: &str = "/var/lib/dispatch/pg";

/// Where the laptop's database lives when nobody says otherwise:
/// `$XDG_DATA_HOME/dispatch/pg`, and for root, whose home is closed to the user that must run
/// Postgres, a place under /var/lib.
pub fn default_data_dir() -> PathBuf {
    let own = data_home().join("dispatch").join("pg");
    match OsUser::for_dir(&own) {
        Ok(user) if user.differs() && first_closed(&own, &user).is_some() => {
            PathBuf::from(ROOT_DATA_DIR)
        }
        _ => own,
    }
}

fn data_home() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
}

/// Who runs the server.
#[derive(Clone, Debug)]
pub(super) struct OsUser {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    name: String,
}

impl OsUser {
    /// Ourselves; instead of root, the owner of the data, else `postgres`, else `nobody`.
    fn for_dir(dir: &Path) -> Result<Self, LocalPgError> {
        let me = geteuid();
        let of_user = |user: User| Self {
            uid: user.uid,
            gid: user.gid,
            name: user.name,
        };
        if !me.is_root() {
            let found = User::from_uid(me).ok().flatten();
            return Ok(found.map_or_else(
                || Self {
                    uid: me,
                    gid: nix::unistd::getegid(),
                    name: me.to_string(),
                },
                of_user,
            ));
        }
        let owner = fs::metadata(dir).ok().map(|meta| Uid::from_raw(meta.uid()));
        let owner = owner
            .filter(|uid| !uid.is_root())
            .and_then(|uid| User::from_uid(uid).ok().flatten());
        let by_name = |name| User::from_name(name).ok().flatten();
        owner
            .or_else(|| by_name("postgres"))
            .or_else(|| by_name("nobody"))
            .map(of_user)
            .ok_or(LocalPgError::NoUser)
    }

    /// Whether it is another user than the one this process runs as.
    pub(super) fn differs(&self) -> bool {
        self.uid != geteuid()
    }

    fn may_enter(&self, meta: &fs::Metadata) -> bool {
        let bit = if meta.uid() == self.uid.as_raw() {
            0o100
        } else if meta.gid() == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }
}

/// The outermost directory above `dir` that the user cannot enter.
fn first_closed(dir: &Path, user: &OsUser) -> Option<PathBuf> {
    let mut above: Vec<&Path> = dir.ancestors().skip(1).collect();
    above.reverse();
    let closed = above
        .into_iter()
        .find(|dir| fs::metadata(dir).is_ok_and(|meta| !user.may_enter(&meta)));
    closed.map(Path::to_owned)
}

/// The directory, owned by the user that runs the server and closed to all others.
#[derive(Clone, Debug)]
pub(super) struct Home {
    dir: PathBuf,
    user: OsUser,
}

impl Home {
    /// Make the directory if needed and check that the server will be able to live in it.
    pub(super) fn prepare(dir: &Path) -> Result<Self, LocalPgError> {
        let dir = std::path::absolute(dir).map_err(file_error("resolving", dir))?;
        let user = OsUser::for_dir(&dir)?;
        if let Some(above) = dir.parent() {
            fs::create_dir_all(above).map_err(file_error("making", above))?;
        }
        // A link on the way (such as /tmp on macOS) would make two names for one cluster.
        let dir = match dir.parent().map(fs::canonicalize) {
            Some(Ok(above)) => above.join(dir.file_name().unwrap_or_default()),
            _ => dir,
        };
        if let Some(closed) = first_closed(&dir, &user) {
            return Err(LocalPgError::Closed {
                user: user.name,
                closed,
            });
        }
        private_dir(&dir, &user)?;
        let owner = fs::metadata(&dir)
            .map_err(file_error("reading", &dir))?
            .uid();
        if owner != user.uid.as_raw() {
            return Err(LocalPgError::NotOurs { dir, owner });
        }
        Ok(Self { dir, user })
    }

    /// The same for one who only looks.
    pub(super) fn existing(dir: &Path) -> Option<Self> {
        let dir = fs::canonicalize(dir).ok()?;
        let user = OsUser::for_dir(&dir).ok()?;
        if !dir.join("data").is_dir() {
            return None;
        }
        Some(Self { dir, user })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn user(&self) -> &OsUser {
        &self.user
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn log_name(&self) -> &'static str {
        LOG_NAME
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.dir.join(LOG_NAME)
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    /// Major version of the cluster; `None`: there is none yet.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.cluster().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Held while somebody makes, starts, joins or stops the server.
    pub(super) async fn lock_starting(&self) -> Result<Flock<File>, LocalPgError> {
        let begun = Instant::now();
        let mut file = self.lock_file("start.lock")?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((back, _)) if begun.elapsed() < LOCK_TIMEOUT => file = back,
                Err(_) => {
                    return Err(LocalPgError::Busy {
                        dir: self.dir.clone(),
                        seconds: LOCK_TIMEOUT.as_secs(),
                        log: self.log_file(),
                    });
                }
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Held for as long as this process uses the server.
    pub(super) fn lock_as_user(&self) -> Result<Flock<File>, LocalPgError> {
        let file = self.lock_file("users.lock")?;
        Flock::lock(file, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| file_error("locking", &self.dir.join("users.lock"))(error.into()))
    }

    fn lock_file(&self, name: &str) -> Result<File, LocalPgError> {
        let path = self.dir.join(name);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            if self.user.differs() {
                fchown(
                    &file,
                    Some(self.user.uid.as_raw()),
                    Some(self.user.gid.as_raw()),
                )?;
            }
            Ok(file)
        };
        open().map_err(file_error("opening", &path))
    }

    fn password_file(&self) -> PathBuf {
        self.dir.join("password")
    }

    pub(super) fn password(&self) -> Result<String, LocalPgError> {
        let path = self.password_file();
        let text = fs::read_to_string(&path).map_err(file_error("reading", &path))?;
        Ok(text.trim().to_owned())
    }

    /// A fresh password for a fresh cluster.
    pub(super) fn write_password(&self) -> Result<PathBuf, LocalPgError> {
        let path = self.password_file();
        let secret = format!(
            "{}{}\n",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        self.write_private(&path, &secret)?;
        Ok(path)
    }

    /// Replace a file as a whole, readable by the server's user only.
    pub(super) fn write_private(&self, path: &Path, text: &str) -> Result<(), LocalPgError> {
        let beside = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.as_bytes())?;
            if self.user.differs() {
                chown(
                    &beside,
                    Some(self.user.uid.as_raw()),
                    Some(self.user.gid.as_raw()),
                )?;
            }
            fs::rename(&beside, path)
        };
        write().map_err(file_error("writing", path))
    }

    /// The directory of the socket: inside when the path is short enough, else one under /tmp
    /// whose path is recorded.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, LocalPgError> {
        let inside = self.dir.join("socket");
        let chosen = if socket_file(&inside).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            private_dir(&inside, &self.user)?;
            inside
        } else {
            match self.recorded_socket_dir() {
                Some(still_there) => still_there,
                None => self.short_socket_dir()?,
            }
        };
        self.write_private(&self.socket_record(), &format!("{}\n", chosen.display()))?;
        Ok(chosen)
    }

    fn short_socket_dir(&self) -> Result<PathBuf, LocalPgError> {
        let parent = Path::new("/tmp");
        let made = tempfile::Builder::new()
            .prefix("dispatch-pg-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent);
        let dir = made
            .map_err(file_error("making a directory in", parent))?
            .keep();
        if self.user.differs() {
            let owned = chown(
                &dir,
                Some(self.user.uid.as_raw()),
                Some(self.user.gid.as_raw()),
            );
            owned.map_err(file_error("giving away", &dir))?;
        }
        Ok(dir)
    }

    fn socket_record(&self) -> PathBuf {
        self.dir.join("socket_dir")
    }

    /// What the last start recorded, if it is still a directory of the server's user alone:
    /// somebody else's in its place would learn the password's proof.
    pub(super) fn recorded_socket_dir(&self) -> Option<PathBuf> {
        let dir = PathBuf::from(
            fs::read_to_string(self.socket_record())
                .ok()?
                .trim_end_matches('\n'),
        );
        let meta = fs::symlink_metadata(&dir).ok()?;
        let ours =
            meta.is_dir() && meta.uid() == self.user.uid.as_raw() && meta.mode() & 0o077 == 0;
        ours.then_some(dir)
    }

    /// Remove a pid file whose number now belongs to another program. Postgres itself clears the
    /// file of a dead process, and refuses to start while a process with that number lives.
    pub(super) fn clear_stale_pid_file(&self) -> Result<(), LocalPgError> {
        let path = self.pid_file();
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let Some(pid) = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse::<u32>().ok())
        else {
            return fs::remove_file(&path).map_err(file_error("removing", &path));
        };
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        match name {
            Ok(name) if !name.starts_with("postgres") && !name.starts_with("postmaster") => {
                fs::remove_file(&path).map_err(file_error("removing", &path))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rotate_log(&self) -> Result<(), LocalPgError> {
        let path = self.log_file();
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > LOG_BYTES_MAX => {
                fs::rename(&path, path.with_extension("log.1"))
                    .map_err(file_error("renaming", &path))
            }
            _ => Ok(()),
        }
    }
}

/// Whether no other process holds the lock; gives it up either way.
pub(super) fn is_last_user(lock: Flock<File>) -> bool {
    match lock.unlock() {
        Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(),
        Err(_) => false,
    }
}

pub(super) fn socket_file(dir: &Path) -> PathBuf {
    dir.join(format!(".s.PGSQL.{PORT}"))
}

fn private_dir(dir: &Path, user: &OsUser) -> Result<(), LocalPgError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) if user.differs() => {
            let owned = chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            owned.map_err(file_error("giving away", dir))
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // An empty directory that root made for us is taken over.
            let meta = fs::metadata(dir).map_err(file_error("reading", dir))?;
            let empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
            if empty && meta.uid() == geteuid().as_raw() && user.differs() {
                let owned = chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
                owned.map_err(file_error("giving away", dir))?;
            }
            if meta.mode() & 0o077 != 0
                && (empty || dir.join("data").exists() || dir.ends_with("socket"))
            {
                let closed = fs::set_permissions(dir, Permissions::from_mode(0o700));
                closed.map_err(file_error("closing", dir))?;
            }
            Ok(())
        }
        Err(error) => Err(file_error("making", dir)(error)),
    }
}

pub(super) fn file_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LocalPgError {
    let path = path.to_owned();
    move |source| LocalPgError::File {
        doing,
        path,
        source,
    }
}
