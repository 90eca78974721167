//! The stages of the helper. All of it is done in programs of its own, never between fork and exec.
//!
//! `supervise` stays as the parent of everything of the attempt, ends all of it when the agent's
//! program ended or the worker died, and reports how the program ended. Its child confines itself
//! (`confine`) and becomes the agent's program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::exec::{CHECK, SUPERVISE, VARIABLE, WORD};
use super::plan::Plan;
use super::supervise::{self, Ends};
use super::uids::Users;
use super::{bwrap, kernel};
use crate::domain::attempt::MARK_VARIABLE;
use crate::domain::sandbox::Rung;
use crate::gateway::relay;
use crate::sys;

/// The helper failed before the agent's program began, as `env` and `nohup` say it.
const FAILED: u8 = 126;

/// The other stages.
const CONFINE: &str = "confine";
const RELAY: &str = "relay";
const DETACH: &str = "detach";
const END_USER: &str = "end-user";

/// Run the stage of these arguments.
pub(super) fn run(stage: &OsStr, rest: &[OsString]) -> ExitCode {
    let result = match stage.to_str() {
        Some(SUPERVISE) => read(rest).and_then(|(plan, program)| first(&plan, program)),
        Some(CONFINE) => read(rest).and_then(|(plan, program)| confine(&plan, program)),
        Some(DETACH) => detach(rest),
        Some(END_USER) => end_user(rest),
        Some(RELAY) => relay_on_stdin(rest),
        _ => Err("it is started by a worker, not by people".to_owned()),
    };
    result.unwrap_or_else(|message| {
        eprintln!("dispatch {WORD}: {message}");
        ExitCode::from(FAILED)
    })
}

/// The plan, and the program with its arguments.
fn read(args: &[OsString]) -> Result<(Plan, &[OsString]), String> {
    let [plan, program @ ..] = args else {
        return Err("there is no plan".to_owned());
    };
    let text = plan.to_str().ok_or("the plan is no text")?;
    let plan: Plan = serde_json::from_str(text)
        .map_err(|error| format!("the plan is not of this version of dispatch: {error}"))?;
    if plan.version != Plan::VERSION {
        let (theirs, ours) = (&plan.version, Plan::VERSION);
        return Err(format!(
            "the worker is version {theirs} and its program is {ours} by now: restart the worker"
        ));
    }
    if program.is_empty() {
        return Err("there is no program".to_owned());
    }
    Ok((plan, program))
}

fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "this program stands between the worker and an agent"
    )]
    Command::new(program)
}

/// The first stage: start the second one and stay until nothing is left.
fn first(plan: &Plan, program: &[OsString]) -> Result<ExitCode, String> {
    let text = serde_json::to_string(plan).map_err(|error| error.to_string())?;
    let (mut child, ends) = match (plan.rung, &plan.bwrap) {
        (Rung::Bubblewrap, Some(bubblewrap)) => {
            let mut child = command(&bubblewrap.path);
            child
                .args(bwrap::args(plan, bubblewrap.knows_size))
                .arg(bwrap::HELPER_INSIDE);
            (child, Ends::ByCode)
        }
        (Rung::Bubblewrap, None) => return Err("no bubblewrap is named".to_owned()),
        (Rung::LandlockUid | Rung::Landlock | Rung::None, _) => {
            (command(&plan.helper), Ends::Itself)
        }
    };
    child.args([WORD, CONFINE]).arg(text).args(program);
    if !supervise::leads_session() {
        // Whoever shares a session with a person's shell can type into its terminal.
        sys::leave_session(&mut child);
    }
    supervise::own_streams(plan.owner);
    close_inherited()?;
    sys::ignore_requests_to_stop();
    let last_resort = plan.owner.filter(|_| plan.rung == Rung::LandlockUid);
    let last_resort = last_resort.map(|(uid, gid)| {
        let mut last = command(&plan.helper);
        last.args([WORD, END_USER])
            .args([uid.to_string(), gid.to_string()]);
        last
    });
    supervise::until_nothing_is_left(child, plan.worker, ends, last_resort)
}

/// End all processes of an attempt's user in one step, which nobody can fork away from. That ends
/// what else the attempt runs, too: for when one by one has failed.
fn end_user(args: &[OsString]) -> Result<ExitCode, String> {
    let mut numbers = args.iter().filter_map(|arg| arg.to_str()?.parse().ok());
    let (Some(uid), Some(gid)) = (numbers.next(), numbers.next()) else {
        return Err("a user and a group are expected".to_owned());
    };
    if !Users::is_one(uid) {
        return Err(format!("{uid} is no user of attempts"));
    }
    kernel::become_owner((uid, gid))?;
    if Uid::current().as_raw() != uid || Uid::effective().as_raw() != uid {
        return Err(format!("cannot become user {uid}"));
    }
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(ExitCode::SUCCESS),
        Err(errno) => Err(format!("cannot end the processes of user {uid}: {errno}")),
    }
}

/// The second stage: accept the rules and become the program.
fn confine(plan: &Plan, program: &[OsString]) -> Result<ExitCode, String> {
    let [name, args @ ..] = program else {
        return Err("there is no program".to_owned());
    };
    let rules = kernel::file_rules(plan)?;
    kernel::limit(plan)?;
    if let Some(owner) = plan.owner {
        kernel::become_owner(owner)?;
    }
    kernel::enforce(plan, rules)?;
    std::env::set_current_dir(&plan.cwd)
        .map_err(|error| format!("cannot work in {}: {error}", plan.cwd.display()))?;
    if let Some((socket, port)) = &plan.gateway {
        start_relay(plan, socket, *port, None)?;
        for (port, target) in &plan.services {
            start_relay(plan, socket, *port, Some(target))?;
        }
    }
    if name == CHECK {
        return check(args);
    }
    close_inherited()?;
    sys::heed_requests_to_stop();
    // The first stage blocked what it waits for.
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(|error| format!("cannot unblock signals: {error}"))?;
    let error = command(name)
        .args(args)
        .env_clear()
        .envs(variables())
        .exec();
    let name = Path::new(name).display();
    let hint = match (error.kind(), plan.owner) {
        // A mount namespace has directories of its own; Landlock leaves those of the machine.
        (std::io::ErrorKind::PermissionDenied, Some((user, _)))
            if plan.rung == Rung::LandlockUid =>
        {
            format!(
                "; it runs as user {user}, who must be able to enter every directory above it and above what interprets it: install it outside of a closed home, or use bubblewrap"
            )
        }
        _ => String::new(),
    };
    Err(format!("cannot start {name}: {error}{hint}"))
}

/// Leave nothing open for the program but its standard streams.
fn close_inherited() -> Result<(), String> {
    if sys::close_others_on_exec().is_ok() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| format!("cannot close inherited files: {error}");
    let open = std::fs::read_dir("/proc/self/fd").map_err(|error| failed(&error))?;
    let numbers: Vec<i32> = open
        .flatten()
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        match sys::close_on_exec(number) {
            // The one that listed them is closed by now.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(())
}

/// The environment of the agent. Its mark has its own name all the way.
fn variables() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| {
        if name == MARK_VARIABLE {
            return Some((name, value));
        }
        let meant = name.as_encoded_bytes().strip_prefix(VARIABLE.as_bytes())?;
        Some((OsStr::from_bytes(meant).to_owned(), value))
    })
}

/// Have the gateway, or a service that it leads to, answer at a port of the sandbox's own loopback.
fn start_relay(
    plan: &Plan,
    socket: &Path,
    port: u16,
    target: Option<&String>,
) -> Result<(), String> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))
        .map_err(|error| format!("cannot listen for the gateway: {error}"))?;
    let helper = match plan.rung {
        Rung::Bubblewrap => Path::new(bwrap::HELPER_INSIDE),
        Rung::LandlockUid | Rung::Landlock | Rung::None => &plan.helper,
    };
    // Not a child of the agent, which would be told of its end.
    let status = command(helper)
        .args([WORD, DETACH])
        .arg(helper)
        .arg(socket)
        .args(target)
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the gateway's relay ended with {status}")),
        Err(error) => Err(format!("cannot start the gateway's relay: {error}")),
    }
}

fn detach(args: &[OsString]) -> Result<ExitCode, String> {
    let [helper, more @ ..] = args else {
        return Err("a program is expected".to_owned());
    };
    command(helper)
        .args([WORD, RELAY])
        .args(more)
        .spawn()
        .map(|_left_to_run| ExitCode::SUCCESS)
        .map_err(|error| error.to_string())
}

fn relay_on_stdin(args: &[OsString]) -> Result<ExitCode, String> {
    let (socket, target) = match args {
        [socket] => (socket, None),
        [socket, target] => (socket, target.to_str()),
        _ => return Err("a socket is expected, and what to ask it for".to_owned()),
    };
    let listener = std::os::fd::AsFd::as_fd(&std::io::stdin())
        .try_clone_to_owned()
        .map(std::net::TcpListener::from)
        .map_err(|error| error.to_string())?;
    let socket = Path::new(socket);
    let broken = match target {
        None => relay::run(&listener, socket),
        Some(target) => relay::forward(&listener, socket, target),
    };
    Err(broken.to_string())
}

/// Prove from inside that a rung holds: the working directory can be written, what is named cannot.
fn check(forbidden: &[OsString]) -> Result<ExitCode, String> {
    let own = Path::new("dispatch-check");
    std::fs::write(own, "x")
        .and_then(|()| std::fs::remove_file(own))
        .map_err(|error| format!("the worktree cannot be written from inside: {error}"))?;
    for path in forbidden {
        let opened = std::fs::File::options().append(true).open(path);
        if opened.is_ok() || std::fs::read(path).is_ok() {
            let path = Path::new(path).display();
            return Err(format!("{path} can be opened from inside"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
