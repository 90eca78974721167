//! Confinement as a worker would choose it, for tests that drive an agent without a worker.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dispatch_worker::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use dispatch_worker::agent::{EventSink, TurnRequest, catalog, confine};
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::domain::sandbox::Rung;
use dispatch_worker::sandbox::{Confinement, Means, Places, Sandbox, Settings};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::repo::Ground;

use super::worker::{FAKE, HELPER};

/// What this machine has, with data in this directory.
pub async fn find(data_dir: &Path, only: Option<Rung>) -> Sandbox {
    Sandbox::find(Settings {
        helper: Some(HELPER.into()),
        data_dir: data_dir.canonicalize().unwrap(),
        hidden: Vec::new(),
        only,
    })
    .await
    .unwrap()
}

/// The same, found out once for all tests of this process.
pub async fn usual() -> &'static Sandbox {
    static USUAL: OnceCell<Sandbox> = OnceCell::const_new();
    USUAL
        .get_or_init(|| async {
            let dir = tempfile::tempdir().unwrap();
            find(dir.path(), None).await
        })
        .await
}

/// The confinement of an attempt of this agent in these directories, which are made its own.
pub async fn confinement(spec: &AgentSpec, tree: &Path, home: &Path, tmp: &Path) -> Confinement {
    let sandbox = usual().await;
    let places = Places {
        tree: tree.to_owned(),
        home: home.to_owned(),
        tmp: tmp.to_owned(),
        ..Places::default()
    };
    for dir in [tree, home, tmp] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let means = confine::means(sandbox, spec, spec.sandbox).unwrap();
    // An agent that is not there is the adapter's to report.
    let Ok(confinement) = confine::confine(sandbox, spec, means, places) else {
        return Confinement::none(HELPER.into());
    };
    confinement.give(tree).unwrap();
    confinement
}

/// The rungs that work on this machine, `none` left out.
pub async fn working_rungs() -> Vec<Rung> {
    static WORKING: OnceCell<Vec<Rung>> = OnceCell::const_new();
    let find = || async {
        let dir = open_dir();
        let mut working = Vec::new();
        for rung in Rung::ALL {
            if rung == Rung::LandlockUid && !is_open_to_all(Path::new(FAKE)) {
                println!("{rung} is left out: other users cannot reach the build's directory");
                continue;
            }
            if rung != Rung::None && find(dir.path(), Some(rung)).await.best() == rung {
                working.push(rung);
            }
        }
        assert!(
            !working.is_empty(),
            "no sandbox works here: install bubblewrap"
        );
        // Tests on the rungs that work would all pass without the one that broke.
        if !working.contains(&Rung::Bubblewrap) && bubblewrap_works() {
            let why = find(dir.path(), Some(Rung::Bubblewrap)).await.missing();
            panic!("bubblewrap works here, but not for a worker: {why:?}");
        }
        working
    };
    WORKING.get_or_init(find).await.clone()
}

/// Whether bubblewrap by itself makes a sandbox here.
fn bubblewrap_works() -> bool {
    #[expect(clippy::disallowed_methods, reason = "bubblewrap as a person tries it")]
    let mut bwrap = std::process::Command::new("bwrap");
    bwrap.args(["--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc"]);
    if !nix::unistd::Uid::effective().is_root() {
        bwrap.arg("--unshare-user");
    }
    let ended = bwrap.arg("true").status();
    ended.is_ok_and(|status| status.success())
}

/// Whether every user can pass through all directories above a file.
fn is_open_to_all(file: &Path) -> bool {
    file.ancestors().skip(1).all(|dir| {
        let facts = std::fs::metadata(dir);
        facts.is_ok_and(|facts| facts.permissions().mode() & 0o001 != 0)
    })
}

/// A directory that other users of the machine can pass through.
pub fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    dir
}

/// What a worker whose data is on this ground has.
pub async fn ground_sandbox(ground: &Ground, rung: Rung) -> Sandbox {
    find(ground.dir.path(), Some(rung)).await
}

/// The means of an attempt on this rung.
pub async fn means_of(ground: &Ground, rung: Rung) -> Means {
    if rung == Rung::None {
        return Means::NONE.clone();
    }
    let sandbox = ground_sandbox(ground, rung).await;
    Means::of(rung, sandbox.owner(rung).unwrap())
}

/// Run a script as an agent would be run.
pub async fn run_confined(sandbox: &Sandbox, means: Means, places: Places, script: &str) {
    let text = "[agents.shell]\npath = \"pipe\"\ncommand = [\"/bin/sh\", \"-c\", \"{prompt}\"]\n";
    let spec = Catalogue::parse(text).unwrap().agents["shell"].clone();
    let turn = |confinement| TurnRequest {
        worktree: places.tree.clone(),
        home: places.home.clone(),
        tmp: places.tmp.clone(),
        confinement,
        mark: format!("test-{}", uuid::Uuid::new_v4()),
        ..TurnRequest::bare(script.to_owned())
    };
    let confinement = confine::confine(sandbox, &spec, means, places.clone()).unwrap();
    let (sink, mut events) = EventSink::channel();
    let agent = catalog::build(&spec);
    let run = agent.run_turn(turn(confinement), sink, &Nobody, CancellationToken::new());
    // How it ended is its own affair; that it ran confined is not.
    let (ran, ()) = tokio::join!(run, async { while events.recv().await.is_some() {} });
    if let Err(error) = ran {
        assert!(!error.message.contains("__exec"), "{error}");
    }
}

/// Nobody is asked.
struct Nobody;

impl Permission for Nobody {
    fn ask(&self, _ask: PermissionAsk) -> BoxFuture<'_, PermissionAnswer> {
        Box::pin(async { PermissionAnswer::Cancelled })
    }
}

/// The rungs that work on this machine, `none` included.
pub async fn rungs() -> Vec<Rung> {
    let mut rungs = working_rungs().await;
    rungs.push(Rung::None);
    println!("rungs: {rungs:?}");
    rungs
}

/// What an entry asks for to be on this rung, when its worker is held to that.
pub fn demand(rung: Rung) -> &'static str {
    match rung {
        Rung::None => "none",
        _ => "required",
    }
}
