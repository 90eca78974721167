//! Confinement as a worker would choose it, for tests that drive an agent without a worker.

use std::path::Path;

use dispatch_worker::agent::confine;
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::domain::sandbox::Rung;
use dispatch_worker::sandbox::{Confinement, Places, Sandbox, Settings};
use tokio::sync::OnceCell;

use super::worker::HELPER;

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

/// The rungs that work on this machine for this user, the one without rules included.
pub async fn rungs() -> Vec<Rung> {
    let dir = tempfile::tempdir().unwrap();
    let mut works = Vec::new();
    for rung in Rung::ALL {
        if find(dir.path(), Some(rung)).await.best() == rung {
            works.push(rung);
        }
    }
    println!("rungs: {works:?}");
    works
}

/// What an entry asks for to be on this rung, when its worker is held to that.
pub fn demand(rung: Rung) -> &'static str {
    match rung {
        Rung::None => "none",
        _ => "required",
    }
}
