//! The worker's own two repositories per project. `base.git` holds the history that attempts
//! start from and is what their git borrows objects from; `results.git` holds what attempts left
//! and is hidden from them. Both own their objects, so that no garbage collection, deleted branch
//! or even deletion of the project can take a change away before it is applied.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::project::ProjectCheck;
use super::{ProjectSpec, WorkspaceError, internal};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// Overrides what a person's own git configuration could say to libgit2.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tautocrlf = false\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n\thooksPath = /dev/null\n[gc]\n\tauto = 0\n[merge]\n\trenames = true\n\trenameLimit = 400\n[diff]\n\trenames = true\n";

/// Where a project's objects are kept.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    dir: PathBuf,
}

impl Objects {
    /// Make the two repositories unless they are there.
    pub(super) fn open(root: &Path, project: &ProjectSpec) -> Result<Self, WorkspaceError> {
        let hash = Sha256::digest(std::os::unix::ffi::OsStrExt::as_bytes(
            project.path.as_os_str(),
        ));
        let hash: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
        let slug: String = project
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        let objects = Self {
            dir: root.join("stores").join(format!("{slug}-{hash}")),
        };
        objects.init().map_err(|error| {
            internal(format!(
                "cannot make the object store {}: {error}",
                objects.dir.display()
            ))
        })?;
        Ok(objects)
    }

    fn init(&self) -> io::Result<()> {
        let alternates = self.results().join("objects").join("info");
        fs::create_dir_all(&alternates)?;
        write_once(
            &alternates.join("alternates"),
            &alternates_line(&self.base()),
        )?;
        init_bare(&self.base())?;
        init_bare(&self.results())
    }

    /// History of the project; agents may read it.
    pub(super) fn base(&self) -> PathBuf {
        self.dir.join("base.git")
    }

    /// What attempts left.
    pub(super) fn results(&self) -> PathBuf {
        self.dir.join("results.git")
    }

    /// Serialises what writes to the project or fills `base.git`, across processes too. Freed
    /// when dropped.
    pub(super) async fn lock(&self) -> Result<fs::File, WorkspaceError> {
        let path = self.dir.join("lock");
        crate::blocking::run(move || {
            let file = fs::File::create(path)?;
            file.lock()?;
            Ok::<_, io::Error>(file)
        })
        .await
        .map_err(|error| internal(error.to_string()))?
        .map_err(|error| internal(format!("cannot lock the project's object store: {error}")))
    }

    /// Have this commit of the project, with its history, in `base.git` and pin it there. Call
    /// with the lock held.
    pub(super) async fn ensure_base(
        &self,
        git: &Git,
        check: &ProjectCheck,
        commit: &str,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let base = self.base();
        let pin = format!("refs/dispatch/base/{commit}");
        let pins = read_pins(&base)?;
        if pins.iter().any(|(name, _)| *name == pin) {
            return Ok(());
        }
        copy_shallow(&check.common_dir, &base)?;
        if pins.is_empty() {
            self.first_fill(git, check, commit, cancel).await?;
        } else {
            let known = known_to(git, &check.git_dir, &pins, cancel).await?;
            let mut revisions = format!("{commit}\n");
            for oid in known {
                revisions.push_str(&format!("^{oid}\n"));
            }
            self.copy(git, check, &[], &revisions, cancel).await?;
        }
        let oid = parse(commit)?;
        let repo = open(&base)?;
        set_ref(&repo, &pin, oid).map_err(|error| internal(format!("cannot pin {commit}: {error}")))
    }

    /// Links the packs (which never change) and copies what is loose: no object is compressed or
    /// hashed again, whatever the size of the project. Anything that does not add up afterwards
    /// is copied whole.
    async fn first_fill(
        &self,
        git: &Git,
        check: &ProjectCheck,
        commit: &str,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let from = check.common_dir.join("objects").join("pack");
        let to = self.base().join("objects").join("pack");
        crate::blocking::run(move || link_packs(&from, &to))
            .await
            .map_err(|error| internal(error.to_string()))?
            .map_err(|error| internal(format!("cannot copy the project's packs: {error}")))?;
        let revisions = format!("{commit}\n");
        self.copy(git, check, &["--unpacked"], &revisions, cancel)
            .await?;
        let base = self.base();
        let walk = Call::new(&base).args(["rev-list", "--objects", "--quiet", commit]);
        if git.run(walk, cancel).await?.code == Some(0) {
            return Ok(());
        }
        self.copy(git, check, &[], &revisions, cancel).await
    }

    /// Moves objects from the project to `base.git`.
    async fn copy(
        &self,
        git: &Git,
        check: &ProjectCheck,
        options: &[&str],
        revisions: &str,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let spool = self
            .spool(git, &check.git_dir, options, revisions, cancel)
            .await?;
        if spool.empty()? {
            return Ok(());
        }
        let base = self.base();
        let call = Call::new(&base)
            .args(["index-pack", "--stdin"])
            .stdin_file(spool.file.clone());
        git.ok(call, cancel).await.map(|_| ())
    }

    /// A pack as a file of ours. Given a file name, git would write it inside of the repository
    /// first, which is not ours and may be on another file system; so it goes through a stream.
    async fn spool(
        &self,
        git: &Git,
        from: &Path,
        options: &[&str],
        revisions: &str,
        cancel: &CancellationToken,
    ) -> Result<Spool, WorkspaceError> {
        let dir = tempfile::tempdir_in(&self.dir)
            .map_err(|error| internal(format!("cannot make a spool directory: {error}")))?;
        let file = dir.path().join("pack");
        let call = Call::new(from)
            .args(["pack-objects", "--revs", "--stdout", "--quiet"])
            .args(["--delta-base-offset"])
            .args(options.iter().copied())
            .stdin(revisions)
            .stdout_file(file.clone());
        git.ok(call, cancel).await?;
        Ok(Spool { _dir: dir, file })
    }

    /// Have a result commit in `results.git`, from its pack if need be.
    pub(super) async fn ensure_result(
        &self,
        git: &Git,
        result: &str,
        pack: Option<&[u8]>,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let results = self.results();
        if self.complete(git, result, cancel).await? {
            return Ok(());
        }
        let Some(pack) = pack else {
            return Err(WorkspaceError::new(
                ErrorClass::Workspace,
                format!(
                    "the objects of result {result} are on another host, and it was too large to keep in the database; run the worker there"
                ),
            ));
        };
        let call = Call::new(&results)
            .args(["index-pack", "--stdin", "--fix-thin"])
            .stdin(pack);
        git.ok(call, cancel).await?;
        if self.complete(git, result, cancel).await? {
            return Ok(());
        }
        Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!("the stored pack does not hold result {result}"),
        ))
    }

    async fn complete(
        &self,
        git: &Git,
        result: &str,
        cancel: &CancellationToken,
    ) -> Result<bool, WorkspaceError> {
        parse(result)?;
        let results = self.results();
        let call = Call::new(&results)
            .args(["rev-list", "--objects", "--quiet", "-1", "--no-walk"])
            .args([result]);
        Ok(git.run(call, cancel).await?.code == Some(0))
    }

    /// Fold what many small fetches and snapshots wrote into few packs; nothing is removed that a
    /// ref or a running attempt may need. Call with the lock held.
    pub(super) async fn repack(
        &self,
        git: &Git,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        for dir in [self.base(), self.results()] {
            let call = Call::new(&dir).args(["repack", "-d", "-l", "-q", "--geometric=2"]);
            git.ok(call, cancel).await?;
        }
        let spools = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in spools.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"))
        {
            let age = entry.metadata().and_then(|meta| meta.modified());
            let old = age.is_ok_and(|at| at.elapsed().unwrap_or_default() > limits::SPOOL_AGE_MAX);
            if old && let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "an old spool stays on disk");
            }
        }
        Ok(())
    }

    /// What `commit` adds to `base`, as a complete pack in a file.
    pub(super) async fn pack_file(
        &self,
        git: &Git,
        commit: &str,
        base: &str,
        cancel: &CancellationToken,
    ) -> Result<Spool, WorkspaceError> {
        let revisions = format!("{commit}\n^{base}\n");
        self.spool(git, &self.results(), &[], &revisions, cancel)
            .await
    }

    /// What `commit` adds to `base`, as a thin pack; `None`: more than `bytes_max`.
    pub(super) async fn pack(
        &self,
        git: &Git,
        commit: &str,
        base: &str,
        bytes_max: usize,
        cancel: &CancellationToken,
    ) -> Result<Option<Vec<u8>>, WorkspaceError> {
        let results = self.results();
        let call = Call::new(&results)
            .args(["pack-objects", "--revs", "--thin", "--stdout", "--quiet"])
            .args(["--delta-base-offset"])
            .stdin(format!("{commit}\n^{base}\n"))
            .stdout_max(bytes_max);
        let output = git.run(call, cancel).await?;
        if output.cut {
            return Ok(None);
        }
        if output.code != Some(0) {
            return Err(WorkspaceError::new(
                ErrorClass::DiffFailed,
                format!("cannot pack {commit}: {}", output.stderr),
            ));
        }
        Ok(Some(output.stdout))
    }
}

/// Make a bare repository of ours unless it is there.
pub(super) fn init_bare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("objects").join("info"))?;
    fs::create_dir_all(dir.join("objects").join("pack"))?;
    fs::create_dir_all(dir.join("refs"))?;
    write_once(&dir.join("config"), CONFIG.as_bytes())?;
    // Last: without it git does not take the directory for a repository.
    write_once(&dir.join("HEAD"), b"ref: refs/heads/none\n")
}

/// A pack in a file that goes when this does.
pub(super) struct Spool {
    _dir: tempfile::TempDir,
    pub(super) file: PathBuf,
}

impl Spool {
    /// Whether the pack's header counts no objects; git does not take such a pack.
    fn empty(&self) -> Result<bool, WorkspaceError> {
        let mut header = [0; 12];
        fs::File::open(&self.file)
            .and_then(|mut file| io::Read::read_exact(&mut file, &mut header))
            .map_err(|error| internal(format!("cannot read a spooled pack: {error}")))?;
        Ok(header[8..] == [0; 4])
    }
}

/// The line of an alternates file; quoted, so that any path works.
pub(super) fn alternates_line(repository: &Path) -> Vec<u8> {
    let mut line = Vec::from(std::os::unix::ffi::OsStrExt::as_bytes(
        repository.join("objects").as_os_str(),
    ));
    line.push(b'\n');
    line
}

/// Open one of our own repositories; never a directory that an agent can write.
pub(super) fn open(dir: &Path) -> Result<Repository, WorkspaceError> {
    Repository::open_bare(dir)
        .map_err(|error| internal(format!("cannot open {}: {error}", dir.display())))
}

/// Point a ref somewhere. Only one writer has a name at a time (by the lock of the store, or of
/// the worktree), so a lock file that is already there was left by a crash.
pub(super) fn set_ref(repo: &Repository, name: &str, oid: Oid) -> Result<(), git2::Error> {
    let _ = fs::remove_file(repo.path().join(format!("{name}.lock")));
    repo.reference(name, oid, true, "dispatch").map(|_| ())
}

/// A commit or blob id from outside.
pub(super) fn parse(oid: &str) -> Result<Oid, WorkspaceError> {
    match Oid::from_str(oid) {
        Ok(parsed) if oid.len() == 40 => Ok(parsed),
        _ => Err(WorkspaceError::new(
            ErrorClass::Internal,
            format!("{oid:?} is not an object id"),
        )),
    }
}

fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The boundaries of a shallow history belong to its objects.
fn copy_shallow(from: &Path, to: &Path) -> Result<(), WorkspaceError> {
    let Ok(theirs) = fs::read_to_string(from.join("shallow")) else {
        return Ok(());
    };
    let ours = fs::read_to_string(to.join("shallow")).unwrap_or_default();
    let mut lines: Vec<&str> = ours.lines().chain(theirs.lines()).collect();
    lines.sort_unstable();
    lines.dedup();
    fs::write(to.join("shallow"), lines.join("\n") + "\n")
        .map_err(|error| internal(format!("cannot note the shallow boundary: {error}")))
}

fn read_pins(base: &Path) -> Result<Vec<(String, String)>, WorkspaceError> {
    let repo = open(base)?;
    let refs = repo
        .references_glob("refs/dispatch/base/*")
        .map_err(|error| internal(format!("cannot list pins: {error}")))?;
    Ok(refs
        .flatten()
        .filter_map(|pin| {
            let name = pin.name().ok()?.to_owned();
            let oid = name.rsplit('/').next()?.to_owned();
            Some((name, oid))
        })
        .collect())
}

/// Which of our pinned commits the project still has; it need not send what they hold.
async fn known_to(
    git: &Git,
    git_dir: &Path,
    pins: &[(String, String)],
    cancel: &CancellationToken,
) -> Result<Vec<String>, WorkspaceError> {
    let asked: String = pins.iter().map(|(_, oid)| format!("{oid}\n")).collect();
    let call = Call::new(git_dir)
        .args(["cat-file", "--batch-check=%(objectname) %(objecttype)"])
        .stdin(asked);
    let answer = git.line(call, cancel).await?;
    Ok(answer
        .lines()
        .filter_map(|line| line.strip_suffix(" commit").map(str::to_owned))
        .collect())
}

/// Give the target directory every pack of the other one, by hard link where possible. The index
/// goes last: git takes a pack for present when its index is.
fn link_packs(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".idx") {
            names.push(PathBuf::from(name));
        }
    }
    for idx in names {
        for extension in ["pack", "idx"] {
            let name = idx.with_extension(extension);
            match link_or_copy(&from.join(&name), &to.join(&name)) {
                // Repacked away meanwhile: the check of completeness decides.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            }
        }
    }
    Ok(())
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Ok(()) => Ok(()),
        // Another file system, or a file of somebody else.
        Err(_) => {
            let dir = to.parent().unwrap_or(Path::new("/"));
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            io::copy(&mut fs::File::open(from)?, &mut file)?;
            file.persist(to)?;
            Ok(())
        }
    }
}
