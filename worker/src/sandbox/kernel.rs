//! The rules that the kernel holds the agent to. Everything here fails closed: a rule that cannot
//! be set is an error, never a weaker sandbox.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::plan::Plan;
use super::{filter, visible};
use crate::domain::sandbox::Rung;

/// The oldest Landlock that also guards the length of files; with an older one, files outside of
/// the worktree could be emptied.
const LANDLOCK: ABI = ABI::V3;

/// Devices that every program expects. Nothing else of `/dev` is shown: what its owner may open
/// there includes other people's terminals, cameras and memory that programs share.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
];

/// Terminals: a user of the attempt's own opens those that it made, the worker's user also those in
/// which the operator types.
const TERMINALS: &str = "/dev/pts";

/// What went wrong, in words.
pub(super) type Fault = String;

fn fault(what: &str) -> impl Fn(nix::Error) -> Fault + '_ {
    move |errno| format!("cannot {what}: {errno}")
}

/// Limits on what a process may use.
pub(super) fn limit(plan: &Plan) -> Result<(), Fault> {
    let set = |resource, most: u64, what| setrlimit(resource, most, most).map_err(fault(what));
    set(Resource::RLIMIT_CORE, 0, "switch core files off")?;
    if let Some(files) = plan.open_files {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(fault("read limits"))?;
        setrlimit(Resource::RLIMIT_NOFILE, files.min(most), most)
            .map_err(fault("limit open files"))?;
    }
    if let Some(bytes) = plan.file_bytes_max {
        set(Resource::RLIMIT_FSIZE, bytes, "limit the size of files")?;
    }
    if let Some(seconds) = plan.cpu_s_max {
        set(Resource::RLIMIT_CPU, seconds, "limit processor time")?;
    }
    if let Some(pids) = plan.pids_max {
        set(Resource::RLIMIT_NPROC, pids, "limit processes")?;
    }
    Ok(())
}

/// Become the attempt's user, for good.
pub(super) fn become_owner(owner: (u32, u32)) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    setgroups(&[]).map_err(fault("leave the worker's groups"))?;
    setresgid(gid, gid, gid).map_err(fault("take the attempt's group"))?;
    setresuid(uid, uid, uid).map_err(fault("take the attempt's user"))
}

/// Rules for files, made while everything can still be opened.
pub(super) fn file_rules(plan: &Plan) -> Result<Option<RulesetCreated>, Fault> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot make Landlock rules: {error}");
    match plan.rung {
        Rung::None => return Ok(None),
        // A landlocked process cannot mount, which a sandbox inside the sandbox does.
        Rung::Bubblewrap if plan.nested => return Ok(None),
        Rung::Bubblewrap => return Ok(beside_namespaces(true).or_else(|| beside_namespaces(false))),
        Rung::LandlockUid | Rung::Landlock => {}
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LANDLOCK))
        .map_err(|error| failed(&error))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::IoctlDev)
        .map_err(|error| failed(&error))?
        .scope(Scope::from_all(ABI::V6))
        .map_err(|error| failed(&error))?
        .create()
        .map_err(|error| failed(&error))?;
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::from_read(LANDLOCK);
    let proc = [Path::new("/proc").to_path_buf()];
    let shown = visible::without(&plan.read, &plan.hidden);
    for path in shown
        .iter()
        .chain(&plan.lent)
        .chain(&proc)
        .chain([&plan.helper])
    {
        rules = rule(rules, path, read)?;
    }
    for path in plan.write.iter().chain([&plan.tmp]) {
        rules = rule(rules, path, all)?;
    }
    for path in DEVICES {
        rules = rule(rules, Path::new(path), all)?;
    }
    if plan.rung == Rung::LandlockUid {
        rules = rule(rules, Path::new(TERMINALS), all)?;
    } else if let Ok(own) = std::fs::read_link("/proc/self/fd/0")
        && own.starts_with(TERMINALS)
    {
        rules = rule(rules, &own, all)?;
    }
    if let Ok(target) = std::fs::canonicalize("/etc/resolv.conf") {
        rules = rule(rules, &target, read)?;
    }
    Ok(Some(rules))
}

/// Files are the mount namespace's; sockets without a name are not, nor is the memory of the process
/// that made the namespaces, which nobody outside of its Landlock domain may open. Kernels before
/// 6.12 know no scopes; a rule for files makes a domain of its own since 5.19, where moving files
/// between directories can be allowed again.
fn beside_namespaces(with_files: bool) -> Option<RulesetCreated> {
    let mut rules = Ruleset::default();
    if with_files {
        rules = rules
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer | AccessFs::MakeChar)
            .ok()?;
    }
    let rules = rules
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))
        .and_then(Ruleset::create)
        .ok()?;
    if !with_files {
        return Some(rules);
    }
    let root = PathFd::new("/").ok()?;
    rules.add_rule(PathBeneath::new(root, AccessFs::Refer)).ok()
}

/// Allow something below a path; one that is not there allows nothing.
fn rule(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, Fault> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(rules);
    };
    // What a directory may be given and a file may not.
    let access = match path.is_dir() {
        true => access,
        false => access & AccessFs::from_file(ABI::V5),
    };
    rules
        .add_rule(PathBeneath::new(fd, access))
        .map_err(|error| format!("cannot allow {}: {error}", path.display()))
}

/// Hold this process and all that come from it to the rules.
pub(super) fn enforce(plan: &Plan, rules: Option<RulesetCreated>) -> Result<(), Fault> {
    if plan.rung == Rung::None {
        return Ok(());
    }
    nix::sys::prctl::set_no_new_privs().map_err(fault("give up privileges for good"))?;
    if let Some(rules) = rules {
        let status = rules
            .restrict_self()
            .map_err(|error| format!("cannot apply Landlock rules: {error}"))?;
        refuse_partial(plan, &status)?;
    }
    let filters = filter::all(plan).map_err(|error| format!("cannot make the filter: {error}"))?;
    for filter in filters {
        seccompiler::apply_filter(&filter)
            .map_err(|error| format!("cannot apply the filter: {error}"))?;
    }
    Ok(())
}

/// Best effort is for what newer kernels add; the rules for files are not.
fn refuse_partial(plan: &Plan, status: &RestrictionStatus) -> Result<(), Fault> {
    let files = matches!(plan.rung, Rung::LandlockUid | Rung::Landlock);
    if files && status.ruleset == RulesetStatus::NotEnforced {
        return Err("this kernel has no Landlock".to_owned());
    }
    Ok(())
}
