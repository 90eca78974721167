//! The rules that the kernel holds the agent to. Everything here fails closed: a rule that cannot
//! be set is an error, never a weaker sandbox.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::plan::Plan;
use super::visible;
use crate::domain::sandbox::{Network, Rung};

/// The oldest Landlock that also guards the length of files; with an older one, files outside of
/// the worktree could be emptied.
const LANDLOCK: ABI = ABI::V3;

/// Devices that every program expects to write to.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// System calls that no agent needs and that reach beyond it.
const REFUSED: [libc::c_long; 19] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_quotactl,
];

/// What a sandbox inside the sandbox needs, and nobody else.
const NESTING: [libc::c_long; 12] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
];

/// The part of a socket's type that is no flag.
const SOCKET_TYPE: u64 = 0xf;

/// What cannot be filtered by its arguments, because they are in memory that the program writes.
const UNFILTERED: [libc::c_long; 3] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// What went wrong, in words.
pub(super) type Fault = String;

fn fault(what: &str) -> impl Fn(nix::Error) -> Fault + '_ {
    move |errno| format!("cannot {what}: {errno}")
}

/// Limits on what a process may use.
pub(super) fn limit(plan: &Plan) -> Result<(), Fault> {
    let set = |resource, most: u64, what| setrlimit(resource, most, most).map_err(fault(what));
    set(Resource::RLIMIT_CORE, 0, "switch core files off")?;
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
        Rung::Bubblewrap => {
            // Files are the mount namespace's; sockets without a name are not.
            let scoped = Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .scope(Scope::from_all(ABI::V6))
                .and_then(Ruleset::create);
            return Ok(scoped.ok());
        }
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
    let proc = [Path::new("/proc").to_path_buf(), "/dev".into()];
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
    if let Ok(target) = std::fs::canonicalize("/etc/resolv.conf") {
        rules = rule(rules, &target, read)?;
    }
    Ok(Some(rules))
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
    for filter in filters(plan).map_err(|error| format!("cannot make the filter: {error}"))? {
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

fn filters(plan: &Plan) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut refused: Vec<(i64, Vec<SeccompRule>)> = every(&REFUSED).collect();
    let mut unknown = Vec::new();
    if !plan.nested {
        refused.extend(every(&NESTING));
        let user = libc::CLONE_NEWUSER as u64;
        refused.push((libc::SYS_clone, vec![masked(0, user, user)?]));
        // Its flags are in memory, where no filter looks; libraries that find it missing use clone.
        unknown.extend(every(&[libc::SYS_clone3]));
    }
    if let Some(sockets) = sockets(plan)? {
        refused.extend(every(&UNFILTERED));
        refused.push((libc::SYS_socket, sockets));
    }
    if plan.rung == Rung::Landlock {
        // One of a pair of datagrams can be connected anew, to any name.
        let datagrams = masked(1, SOCKET_TYPE, libc::SOCK_DGRAM as u64)?;
        refused.push((libc::SYS_socketpair, vec![datagrams]));
        refused.push((libc::SYS_prlimit64, vec![limits_of_others()?]));
    }
    let mut filters = vec![compile(refused, libc::EPERM)?];
    if !unknown.is_empty() {
        filters.push(compile(unknown, libc::ENOSYS)?);
    }
    Ok(filters)
}

/// Which sockets are refused: `None`: none of them, no rule: all.
fn sockets(plan: &Plan) -> Result<Option<Vec<SeccompRule>>, seccompiler::BackendError> {
    let local = |op| {
        let family = libc::AF_UNIX as u64;
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, family)?;
        SeccompRule::new(vec![condition])
    };
    Ok(match (plan.rung, plan.network) {
        // Landlock cannot keep a program from a socket that has a path, and as the worker's user it
        // would be let in: by the session's bus, which starts programs, or by an agent of ssh.
        (Rung::Landlock, Network::Full) => Some(vec![local(SeccompCmpOp::Eq)?]),
        (Rung::Landlock, _) => Some(Vec::new()),
        // Without a network namespace, no network means no sockets of it.
        (Rung::LandlockUid, Network::Gateway | Network::None) => {
            Some(vec![local(SeccompCmpOp::Ne)?])
        }
        (Rung::LandlockUid, Network::Full) | (Rung::Bubblewrap | Rung::None, _) => None,
    })
}

/// Setting limits of another process, which as the worker's user could end the worker.
fn limits_of_others() -> Result<SeccompRule, seccompiler::BackendError> {
    let set = |at, size| SeccompCondition::new(at, size, SeccompCmpOp::Ne, 0);
    SeccompRule::new(vec![
        set(0, SeccompCmpArgLen::Dword)?,
        set(2, SeccompCmpArgLen::Qword)?,
    ])
}

fn every(calls: &[libc::c_long]) -> impl Iterator<Item = (i64, Vec<SeccompRule>)> {
    calls.iter().map(|call| (*call, Vec::new()))
}

fn compile(
    rules: Vec<(i64, Vec<SeccompRule>)>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        arch,
    )?
    .try_into()
}

fn masked(at: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(
        at,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?;
    SeccompRule::new(vec![condition])
}
