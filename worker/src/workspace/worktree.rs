//! Makes the directory an agent works in.
//!
//! Files are checked out byte for byte as they are in the tree: attributes (line ends, encodings,
//! keywords) apply in neither direction, so a file that nobody touched never looks changed,
//! whatever `.gitattributes` or a person's configuration say.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::git::{Call, Git};
use super::layout::{AttemptDir, Meta, Place};
use super::objects::{self, Objects};
use super::places::Places;
use super::project::{self, ProjectCheck};
use super::{
    HooksPolicy, ProjectSpec, Start, WorkspaceError, Worktree, WorktreeKey, WorktreeMode, copied,
    hooks, internal, snapshot,
};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::sandbox::Rung;
use crate::sandbox::{self, Means, Owner, Sandbox};

/// Identity for commits of the agent itself, which end as files in the result, not as commits.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\tautocrlf = false\n[user]\n\tname = dispatch agent\n\temail = agent@dispatch.invalid\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n[commit]\n\tgpgSign = false\n";

/// In the agent's own git too, bytes are stored as they are.
const ATTRIBUTES: &str = "* -text -filter -ident -working-tree-encoding\n";

/// What is needed to make one.
pub(super) struct Plan<'a> {
    pub(super) git: &'a Git,
    pub(super) hooks: HooksPolicy,
    pub(super) project: &'a ProjectSpec,
    pub(super) check: &'a ProjectCheck,
    pub(super) objects: &'a Objects,
    pub(super) dir: AttemptDir,
    pub(super) places: &'a Places,
    /// Where to work if it is free.
    pub(super) place: Option<Place>,
    pub(super) key: WorktreeKey,
    pub(super) mark: String,
    pub(super) means: &'a Means,
    /// Absent: hooks are not confined.
    pub(super) sandbox: Option<&'a Sandbox>,
    pub(super) cancel: &'a CancellationToken,
}

/// The commits of a start: the one that the change is against, and the one to check out.
pub(super) struct Commits {
    pub(super) base: String,
    pub(super) checkout: String,
}

/// Find the commits and have their objects.
pub(super) async fn prepare_commits(
    plan: &Plan<'_>,
    start: &Start,
) -> Result<Commits, WorkspaceError> {
    let base = match start {
        Start::Tip => plan.check.tip.clone(),
        Start::Named(name) => project::resolve(plan.git, &plan.check.git_dir, name, plan.cancel)
            .await?
            .ok_or_else(|| {
                WorkspaceError::new(
                    ErrorClass::Workspace,
                    format!(
                        "project {} has no commit {name:?}; push it there or name another",
                        plan.project.name
                    ),
                )
            })?,
        Start::Continue { base, .. } => {
            objects::parse(base)?;
            base.clone()
        }
    };
    let lock = plan.objects.lock().await?;
    plan.objects
        .ensure_base(plan.git, plan.check, &base, plan.cancel)
        .await?;
    drop(lock);
    let checkout = match start {
        Start::Tip | Start::Named(_) => base.clone(),
        Start::Continue { result, .. } => {
            plan.objects
                .ensure_result(plan.git, result, None, plan.cancel)
                .await?;
            result.clone()
        }
    };
    Ok(Commits { base, checkout })
}

/// Make it, complete, with `meta.json` as the last step.
pub(super) async fn create(plan: Plan<'_>, commits: Commits) -> Result<Worktree, WorkspaceError> {
    let mode = plan.project.mode;
    let lock = make_dirs(&plan.dir, plan.means)
        .map_err(|error| disk(&plan.dir.0, "make the worktree's directory", &error))?;
    // A linked checkout has to be named by its key.
    if let (WorktreeMode::Private, Some(place)) = (mode, &plan.place) {
        take(&plan, place)
            .await
            .map_err(|error| disk(&place.0, "take the conversation's place", &error))?;
    }
    let tree = plan.dir.tree(plan.key, mode);
    let index = match mode {
        WorktreeMode::Private => private(&plan, &tree, &commits).await?,
        WorktreeMode::Linked => linked(&plan, &tree, &commits).await?,
    };
    let copied = copied::copy(plan.project, plan.check, &tree).await?;
    let kept = plan.dir.index();
    fs::copy(&index, &kept).map_err(|error| disk(&plan.dir.0, "keep the index", &error))?;
    let mut dated = index;
    if let Some(owner) = plan.means.owner.clone() {
        for dir in [plan.dir.home(), plan.dir.tmp()] {
            sandbox::give(&dir, &owner)
                .map_err(|error| disk(&dir, "give it to the attempt's user", &error))?;
        }
        give_away(tree.clone(), kept.clone(), owner).await?;
        dated = kept;
    }
    let written = fs::metadata(&dated).map_err(|error| disk(&dated, "read the index", &error))?;
    let mut meta = Meta {
        task: plan.key.task,
        attempt: plan.key.attempt,
        token: plan.key.token,
        project: plan.project.name.clone(),
        linked: mode == WorktreeMode::Linked,
        base_commit: commits.base,
        start_commit: commits.checkout,
        index_seconds: written.mtime(),
        index_nanoseconds: written.mtime_nsec(),
        prepared: Vec::new(),
    };
    let setup = plan
        .project
        .setup
        .as_deref()
        .filter(|_| plan.hooks == HooksPolicy::Allowed);
    if let Some(line) = setup {
        set_up(&plan, &tree, line).await?;
    }
    if copied > 0 || setup.is_some() {
        meta.prepared = snapshot::prepared(plan.objects, &plan.dir, &tree, &meta).await?;
    }
    plan.dir
        .write_meta(&meta)
        .map_err(|error| disk(&plan.dir.0, "write the worktree's record", &error))?;
    Ok(Worktree::new(
        plan.key,
        &plan.dir,
        mode,
        meta,
        Arc::new(lock),
        plan.objects.base(),
        (mode == WorktreeMode::Linked).then(|| plan.check.common_dir.clone()),
    )
    .with_means(plan.means.clone()))
}

async fn set_up(plan: &Plan<'_>, tree: &Path, line: &str) -> Result<(), WorkspaceError> {
    let mode = plan.project.mode;
    let held = plan.sandbox.map(|sandbox| {
        let common = (mode == WorktreeMode::Linked).then(|| plan.check.common_dir.clone());
        let borrowed = common.into_iter().chain([plan.objects.base()]).collect();
        hooks::held(sandbox, plan.means, tree, &plan.dir, mode, borrowed)
    });
    let hook = hooks::Hook {
        name: "setup",
        line,
        project: plan.project,
        tree,
        dir: &plan.dir,
        key: plan.key,
        mark: plan.mark.clone(),
        held: held.transpose()?,
    };
    hooks::run(hook, plan.cancel).await
}

/// Let the attempt's user own the checkout. That changes when each file's status changed last, which
/// our index has to know, or everything would count as changed.
async fn give_away(tree: PathBuf, index: PathBuf, owner: Owner) -> Result<(), WorkspaceError> {
    let shown = tree.clone();
    let given = crate::blocking::run(move || {
        sandbox::give(&tree, &owner)?;
        let mut kept = git2::Index::open(&index).map_err(io::Error::other)?;
        let entries: Vec<git2::IndexEntry> = kept.iter().collect();
        for mut entry in entries {
            let path = tree.join(std::ffi::OsStr::from_bytes(&entry.path));
            let Ok(facts) = fs::symlink_metadata(path) else {
                continue;
            };
            let seconds = i32::try_from(facts.ctime()).unwrap_or(0);
            let nanoseconds = u32::try_from(facts.ctime_nsec()).unwrap_or(0);
            entry.ctime = git2::IndexTime::new(seconds, nanoseconds);
            kept.add(&entry).map_err(io::Error::other)?;
        }
        kept.write().map_err(io::Error::other)
    })
    .await
    .map_err(|error| internal(error.to_string()))?;
    given.map_err(|error| disk(&shown, "give the worktree to the attempt's user", &error))
}

/// A linked worktree shares its repository, which a sandbox keeps from being written.
pub(super) fn refuse_linked(project: &ProjectSpec, means: &Means) -> Result<(), WorkspaceError> {
    if project.mode == WorktreeMode::Linked && project.remote.is_some() {
        return Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!(
                "project {} asks for linked worktrees, and its repository is elsewhere: use private ones",
                project.name
            ),
        ));
    }
    let open = means.rung == Rung::None && !project.trusted;
    if project.mode == WorktreeMode::Linked && open {
        return Err(WorkspaceError::new(
            ErrorClass::Workspace,
            format!(
                "project {} asks for linked worktrees, which let an agent without a sandbox change the repository itself; confine the agent, use private worktrees or mark the project trusted",
                project.name
            ),
        ));
    }
    Ok(())
}

/// Take the place, waiting a moment for the attempt before: a follow-up that was waiting for its
/// end is claimed before its worktree is put away.
async fn take(plan: &Plan<'_>, place: &Place) -> io::Result<()> {
    let began = tokio::time::Instant::now();
    while !plan.places.take(place, &plan.dir)? {
        if began.elapsed() > limits::PLACE_WAIT || plan.cancel.is_cancelled() {
            break;
        }
        tokio::time::sleep(limits::PLACE_LOOK).await;
    }
    Ok(())
}

fn make_dirs(dir: &AttemptDir, means: &Means) -> io::Result<fs::File> {
    let mut builder = fs::DirBuilder::new();
    // A user of its own passes through to what is its own, and sees nothing of the rest.
    builder.mode(if means.owner.is_some() { 0o711 } else { 0o700 });
    // Fails when it exists: a half-made directory is never used again.
    builder.create(&dir.0)?;
    builder.create(dir.home())?;
    builder.create(dir.tmp())?;
    dir.claim()?
        .ok_or_else(|| io::Error::other("another process uses it"))
}

async fn private(
    plan: &Plan<'_>,
    tree: &Path,
    commits: &Commits,
) -> Result<PathBuf, WorkspaceError> {
    let git_dir = tree.join(".git");
    own_git_dir(&git_dir, &plan.objects.base(), &commits.checkout)
        .map_err(|error| disk(&git_dir, "make the worktree's git directory", &error))?;
    if commits.checkout != commits.base {
        // Earlier results are hidden from agents: this one's objects are given to it.
        let pack = plan
            .objects
            .pack_file(plan.git, &commits.checkout, &commits.base, plan.cancel)
            .await?;
        let call = Call::new(&git_dir)
            .args(["index-pack", "--stdin"])
            .stdin_file(pack.file.clone());
        plan.git.ok(call, plan.cancel).await?;
    }
    let call = Call::new(&git_dir)
        .work_tree(tree)
        .args(["read-tree", "-u", "--reset"])
        .args([commits.checkout.as_str()]);
    plan.git.ok(call, plan.cancel).await?;
    Ok(git_dir.join("index"))
}

fn own_git_dir(git_dir: &Path, base: &Path, commit: &str) -> io::Result<()> {
    let info = git_dir.join("objects").join("info");
    fs::create_dir_all(&info)?;
    fs::create_dir_all(git_dir.join("objects").join("pack"))?;
    fs::create_dir_all(git_dir.join("refs").join("heads"))?;
    fs::create_dir_all(git_dir.join("info"))?;
    fs::write(info.join("alternates"), objects::alternates_line(base))?;
    fs::write(git_dir.join("info").join("attributes"), ATTRIBUTES)?;
    fs::write(git_dir.join("config"), CONFIG)?;
    if base.join("shallow").exists() {
        fs::copy(base.join("shallow"), git_dir.join("shallow"))?;
    }
    fs::write(git_dir.join("HEAD"), format!("{commit}\n"))
}

async fn linked(
    plan: &Plan<'_>,
    tree: &Path,
    commits: &Commits,
) -> Result<PathBuf, WorkspaceError> {
    if commits.checkout != commits.base {
        let pack = plan
            .objects
            .pack_file(plan.git, &commits.checkout, &commits.base, plan.cancel)
            .await?;
        let call = Call::new(&plan.check.common_dir)
            .args(["index-pack", "--stdin"])
            .stdin_file(pack.file.clone());
        plan.git.ok(call, plan.cancel).await?;
    }
    plan.dir
        .note_linked(&plan.check.common_dir)
        .map_err(|error| disk(&plan.dir.0, "note the linked worktree", &error))?;
    let lock = plan.objects.lock().await?;
    let call = Call::new(&plan.check.common_dir)
        .args(["worktree", "add", "--detach", "--no-checkout", "--lock"])
        .args(["--reason", "an attempt of dispatch works here", "--"])
        .args([tree.as_os_str(), commits.checkout.as_ref()]);
    plan.git.ok(call, plan.cancel).await?;
    drop(lock);
    let git_dir = linked_git_dir(&plan.check.common_dir, tree);
    // With configuration and attributes of our own: those of the project may name programs.
    let own = plan.dir.0.join("checkout.git");
    own_git_dir(&own, &plan.check.common_dir, &commits.checkout)
        .map_err(|error| disk(&own, "make a git directory for the checkout", &error))?;
    let index = git_dir.join("index");
    let call = Call::new(&own)
        .work_tree(tree)
        .index(&index)
        .args(["read-tree", "-u", "--reset"])
        .args([commits.checkout.as_str()]);
    plan.git.ok(call, plan.cancel).await?;
    fs::remove_dir_all(&own).map_err(|error| disk(&own, "remove", &error))?;
    Ok(index)
}

fn linked_git_dir(common_dir: &Path, tree: &Path) -> PathBuf {
    common_dir
        .join("worktrees")
        .join(tree.file_name().unwrap_or_default())
}

/// Take a linked worktree out of the project's list, by name: a prune would also forget
/// worktrees of other people whose disk is away.
pub(super) fn forget_linked(common_dir: &Path, tree: &Path) -> io::Result<()> {
    let admin = linked_git_dir(common_dir, tree);
    let names = fs::read(admin.join("gitdir"));
    let ours = std::os::unix::ffi::OsStrExt::as_bytes(tree.as_os_str());
    match names {
        Ok(named) if named.starts_with(ours) => fs::remove_dir_all(admin),
        Ok(_) => Ok(()),
        // Half made: only we use this kind of name.
        Err(_) if admin.is_dir() => fs::remove_dir_all(admin),
        Err(_) => Ok(()),
    }
}

/// An error of the disk, with what to do about it when it is full.
pub(super) fn disk(path: &Path, doing: &str, error: &io::Error) -> WorkspaceError {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there or move the data directory"
        }
        _ => "",
    };
    internal(format!(
        "cannot {doing} ({}): {error}{hint}",
        path.display()
    ))
}
