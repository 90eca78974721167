//! Which system calls the agent may not make: those that reach beyond it whatever the rules for
//! files say.

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

use super::plan::Plan;
use crate::domain::sandbox::{Network, Rung};

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

/// What outlives the processes that made it where there is no namespace for it.
const SYSTEM_V: [libc::c_long; 4] = [
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
];

/// What changes how another process of the same user runs, by its id in the argument of this place;
/// 0 is the caller.
const OF_OTHERS: [(libc::c_long, u8); 6] = [
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
];

/// Requests to a terminal that type into it, or into the console, for whoever reads there.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// The part of a socket's type that is no flag.
const SOCKET_TYPE: u64 = 0xf;

/// Numbers from here on are x86-64's second set of the same calls (x32), which no rule names.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// What cannot be filtered by its arguments, because they are in memory that the program writes.
const UNFILTERED: [libc::c_long; 3] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The programs of this plan; each of them has to allow a call.
pub(super) fn all(plan: &Plan) -> Result<Vec<BpfProgram>, BackendError> {
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
    if matches!(plan.rung, Rung::LandlockUid | Rung::Landlock) {
        refused.extend(every(&SYSTEM_V));
    }
    if plan.rung == Rung::Landlock {
        refused.push((libc::SYS_socketpair, pairs_without_connection()?));
        refused.push((libc::SYS_prlimit64, vec![limits_of_others()?]));
        for (call, at) in OF_OTHERS {
            refused.push((call, vec![differs(at, SeccompCmpArgLen::Dword)?]));
        }
    }
    let typing = TYPING.map(|request| equals(1, request));
    refused.push((
        libc::SYS_ioctl,
        typing.into_iter().collect::<Result<_, _>>()?,
    ));
    let mut filters = vec![compile(refused, libc::EPERM)?];
    #[cfg(target_arch = "x86_64")]
    filters.push(no_second_numbers());
    if !unknown.is_empty() {
        filters.push(compile(unknown, libc::ENOSYS)?);
    }
    Ok(filters)
}

/// Which sockets are refused: `None`: none of them, no rule: all.
fn sockets(plan: &Plan) -> Result<Option<Vec<SeccompRule>>, BackendError> {
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

/// One of a pair of datagrams can be connected anew, to any name; `SOCK_RAW` gives datagrams too.
fn pairs_without_connection() -> Result<Vec<SeccompRule>, BackendError> {
    let connected = [libc::SOCK_STREAM as u64, libc::SOCK_SEQPACKET as u64];
    (0..=SOCKET_TYPE)
        .filter(|kind| !connected.contains(kind))
        .map(|kind| masked(1, SOCKET_TYPE, kind))
        .collect()
}

/// Every call by an x32 number is one that this kernel does not have.
#[cfg(target_arch = "x86_64")]
fn no_second_numbers() -> BpfProgram {
    let statement = |code: u32, k, jt| sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The number comes first in the kernel's `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
        statement(libc::BPF_RET | libc::BPF_K, refuse, 0),
    ]
}

/// Setting limits of another process, which as the worker's user could end the worker.
fn limits_of_others() -> Result<SeccompRule, BackendError> {
    let set = |at, size| SeccompCondition::new(at, size, SeccompCmpOp::Ne, 0);
    SeccompRule::new(vec![
        set(0, SeccompCmpArgLen::Dword)?,
        set(2, SeccompCmpArgLen::Qword)?,
    ])
}

/// The argument is not 0.
fn differs(at: u8, size: SeccompCmpArgLen) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(at, size, SeccompCmpOp::Ne, 0)?])
}

/// The low half of the argument, which is all that the kernel looks at, is this.
fn equals(at: u8, value: u64) -> Result<SeccompRule, BackendError> {
    let size = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(
        at,
        size,
        SeccompCmpOp::Eq,
        value,
    )?])
}

fn every(calls: &[libc::c_long]) -> impl Iterator<Item = (i64, Vec<SeccompRule>)> {
    calls.iter().map(|call| (*call, Vec::new()))
}

fn compile(rules: Vec<(i64, Vec<SeccompRule>)>, errno: i32) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        arch,
    )?
    .try_into()
}

fn masked(at: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(
        at,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?;
    SeccompRule::new(vec![condition])
}
