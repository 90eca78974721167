//! Whether a rung works on this machine, found out by confining a program and looking from inside.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::Uid;
use tokio::process::Command;
use tokio::time::timeout;

use super::confinement::{Confinement, Places};
use super::plan::Bubblewrap;
use super::{Sandbox, exec, give, visible};
use crate::domain::limits;
use crate::domain::sandbox::{ResourceLimits, Rung};

/// A program on the worker's PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| visible::is_program(path))
}

/// `bwrap`, when it is on the PATH.
pub(super) async fn bubblewrap() -> Option<Bubblewrap> {
    let path = program("bwrap")?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it is asked for its options and runs nothing"
    )]
    let mut command = Command::new(&path);
    command.arg("--help").env_clear().kill_on_drop(true);
    command.stdin(Stdio::null());
    let said = timeout(limits::SANDBOX_PROBE_TIMEOUT, command.output()).await;
    let said = said.ok().and_then(Result::ok);
    let knows_size = said.is_some_and(|said| {
        let both = [said.stdout, said.stderr].concat();
        String::from_utf8_lossy(&both).contains("--size")
    });
    Some(Bubblewrap { path, knows_size })
}

/// Try it. The error says what is missing.
pub(super) async fn rung(sandbox: &Sandbox, rung: Rung, data_dir: &Path) -> Result<(), String> {
    if cfg!(not(target_os = "linux")) {
        return Err("it is Linux's".to_owned());
    }
    let root = Uid::effective().is_root();
    match rung {
        Rung::Bubblewrap if sandbox.bwrap.is_none() => {
            return Err("bwrap is not on the PATH; install the package bubblewrap".to_owned());
        }
        Rung::Bubblewrap | Rung::LandlockUid if root && sandbox.users.is_none() => {
            return Err("the users 60706-61183 do not exist in this container".to_owned());
        }
        Rung::LandlockUid if !root => return Err("only root can change users".to_owned()),
        Rung::Landlock if root => {
            return Err("as root, the agent would be root: see landlock+uid".to_owned());
        }
        Rung::Bubblewrap | Rung::LandlockUid | Rung::Landlock | Rung::None => {}
    }
    let failed = |error: io::Error| format!("cannot be tried: {error}");
    let scratch = tempfile::Builder::new()
        .prefix("sandbox-")
        .tempdir_in(data_dir)
        .map_err(failed)?;
    let secret = scratch.path().join("secret");
    fs::write(&secret, "x").map_err(failed)?;
    let inside = scratch.path().join("tree");
    let tmp = scratch.path().join("tmp");
    for dir in [&inside, &tmp] {
        fs::create_dir(dir).map_err(failed)?;
    }
    let owner = sandbox.owner(rung)?;
    if let Some(owner) = &owner {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).map_err(failed)?;
        for dir in [&inside, &tmp] {
            give(dir, owner).map_err(failed)?;
        }
    }
    let places = Places {
        tree: inside.clone(),
        home: inside.clone(),
        tmp,
        ..Places::default()
    };
    let confinement = Confinement::of(sandbox, rung, owner, &places, ResourceLimits::default());
    let (helper, args) =
        confinement.command(Path::new(exec::CHECK), &[secret.into_os_string()], &inside)?;
    run(&helper, &args).await
}

async fn run(helper: &Path, args: &[std::ffi::OsString]) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the helper confines nothing but itself here"
    )]
    let mut command = Command::new(helper);
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(limits::SANDBOX_PROBE_TIMEOUT, command.output()).await;
    match output {
        Err(_) => Err("it did not answer in time".to_owned()),
        Ok(Err(error)) => Err(format!("the helper cannot be started: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.trim().replace('\n', "; "))
        }
    }
}
