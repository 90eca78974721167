//! Hooks of projects run what an agent wrote: they may no more than it may, and nothing of them stays.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::domain::sandbox::{Network, ResourceLimits, Rung};
use dispatch_worker::sandbox::Means;
use dispatch_worker::workspace::{
    HooksPolicy, ProjectSpec, Start, WorkspaceError, Workspaces, Worktree, WorktreeMode,
};
use tokio_util::sync::CancellationToken;

use crate::harness::repo::{Ground, key, write};
use crate::harness::sandbox::{ground_sandbox, means_of, rungs};
use crate::harness::worker::PATIENCE;
use crate::harness::{eventually, is_an_argument};

/// A project whose hooks are confined on this rung.
struct Held {
    ground: Ground,
    work: Workspaces,
    means: Means,
}

impl Held {
    async fn on(rung: Rung) -> Self {
        let ground = Ground::with(HooksPolicy::Allowed);
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(ground.dir.path(), open).unwrap();
        write(&ground.repo.join("a"), "1\n");
        ground.commit("base");
        let means = means_of(&ground, rung).await;
        let sandbox = ground_sandbox(&ground, rung).await;
        let mark = format!("test-{}-", uuid::Uuid::new_v4());
        let work = Workspaces::open(ground.dir.path().join("work"), HooksPolicy::Allowed);
        let work = work.unwrap().with_marks(&mark).with_sandbox(sandbox);
        Self {
            ground,
            work,
            means,
        }
    }

    fn project(&self, setup: impl Into<String>) -> ProjectSpec {
        ProjectSpec {
            setup: Some(setup.into()),
            ..self.ground.project()
        }
    }

    async fn create(&self, project: &ProjectSpec) -> Result<Worktree, WorkspaceError> {
        self.create_until(project, &CancellationToken::new()).await
    }

    async fn create_until(
        &self,
        project: &ProjectSpec,
        cancel: &CancellationToken,
    ) -> Result<Worktree, WorkspaceError> {
        let create = self
            .work
            .create(project, key(1), None, Start::Tip, &self.means, cancel);
        create.await
    }
}

fn was_reached(listener: &TcpListener) -> bool {
    match listener.accept() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_reaches_no_more_than_its_agent() {
    for rung in rungs().await {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null; exit 0");
        let networks = match rung {
            Rung::None => vec![Network::Full],
            Rung::Bubblewrap => vec![Network::Full, Network::Gateway, Network::None],
            Rung::LandlockUid | Rung::Landlock => vec![Network::Full, Network::None],
        };
        for network in networks {
            let mut held = Held::on(rung).await;
            held.means.network = network;
            let mut project = held.project(line.clone());
            project.teardown = Some(line.clone());
            let reached = network == Network::Full;
            let worktree = held.create(&project).await.unwrap();
            let at = format!("{rung} {network:?}");
            assert_eq!(was_reached(&listener), reached, "setup: {at}");
            held.work.discard(&project, worktree).await;
            assert_eq!(was_reached(&listener), reached, "teardown: {at}");
        }
    }
}

/// What its agent could reach is not known any more.
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_of_a_worktree_that_another_worker_left_reaches_nothing() {
    for rung in rungs().await {
        if rung == Rung::None {
            continue;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let witness = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'; touch $HOME/ran");
        let held = Held::on(rung).await;
        let mut project = held.ground.project();
        project.teardown = Some(format!("{witness}; sleep 1000 & exit 0"));
        drop(held.create(&project).await.unwrap());
        let adopted = held.work.adopt(&project, key(1)).await.unwrap();
        held.work.discard(&project, adopted).await;
        assert!(!was_reached(&listener), "{rung}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_takes_too_much_is_ended_by_the_name_of_the_limit() {
    let all = [
        (
            ResourceLimits {
                disk_mb: Some(8),
                ..ResourceLimits::NONE
            },
            "head -c 30000000 /dev/zero >big; sleep 1000",
            "disk_mb = 8",
        ),
        (
            ResourceLimits {
                memory_mb: Some(100),
                ..ResourceLimits::NONE
            },
            "{ head -c 300000000 /dev/zero; sleep 1000; } | tail",
            "memory_mb = 100",
        ),
        (
            ResourceLimits {
                file_mb: Some(3),
                ..ResourceLimits::NONE
            },
            "exec head -c 9000000 /dev/zero >grown",
            "file_mb = 3",
        ),
    ];
    for rung in rungs().await {
        let mut held = Held::on(rung).await;
        for (limits, line, named) in &all {
            held.means.limits = *limits;
            let error = held.create(&held.project(*line)).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Budget, "{rung}: {error}");
            assert!(error.message.contains(named), "{rung}: {error}");
            assert!(error.message.contains("setup hook"), "{rung}: {error}");
        }
    }
}

/// A number of seconds that nobody else sleeps.
fn long(n: u32) -> String {
    format!("{n}{}", std::process::id())
}

/// In a session of its own, without the mark: only its ancestors tell whose it is.
fn hidden(seconds: &str) -> String {
    format!("env -i setsid /bin/sleep {seconds} </dev/null >/dev/null 2>&1 &")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hook_survives_a_cancel() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let word = long(91);
        let project = held.project(format!("{} sleep 1000", hidden(&word)));
        let cancel = CancellationToken::new();
        let stop = async {
            let there = || async { is_an_argument(&word) };
            eventually("the hook has left something", PATIENCE, there).await;
            cancel.cancel();
        };
        let (made, ()) = tokio::join!(held.create_until(&project, &cancel), stop);
        assert_eq!(made.unwrap_err().class, ErrorClass::Cancelled, "{rung}");
        assert!(!is_an_argument(&word), "{rung}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hook_survives_its_flood_of_output() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let word = long(92);
        let flood = "head -c 90000000 /dev/zero; sleep 1000";
        let project = held.project(format!("{} sleep 1; {flood}", hidden(&word)));
        let error = held.create(&project).await.unwrap_err();
        assert!(error.message.contains("printed more"), "{rung}: {error}");
        assert!(!is_an_argument(&word), "{rung}");
    }
}

/// The dead whose signal has no name must not be taken for the last.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hook_survives_the_death_of_others_by_odd_signals() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let word = long(93);
        let odd = "setpriv --pdeathsig 40 sleep 1000 </dev/null >/dev/null 2>&1 &";
        let line = format!("{} {} sleep 1", hidden(&word), odd.repeat(20));
        let project = held.project(line);
        drop(held.create(&project).await.unwrap());
        assert!(!is_an_argument(&word), "{rung}");
    }
}

/// Each of them lives for less than a look at all of them takes.
#[tokio::test(flavor = "multi_thread")]
async fn who_forks_and_ends_again_and_again_does_not_outrun_its_end() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let word = format!("while(1){{exit if fork}} #{}", long(94));
        let runner = format!("env -i setsid perl -e '{word}' </dev/null >/dev/null 2>&1 &");
        let project = held.project(format!("{} sleep 1", runner.repeat(3)));
        drop(held.create(&project).await.unwrap());
        for _look in 0..50 {
            assert!(!is_an_argument(&word), "{rung}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_files_are_the_attempts_own() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let secret = held.ground.repo.join(".env");
        write(&secret, "KEY=1\n");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        write(&held.ground.repo.join("local/x.toml"), "x = 1\n");
        let mut project = held.project("cat .env >read && touch local/y");
        project.copy_files = vec![".env".to_owned(), "local/*.toml".to_owned()];
        let worktree = held.create(&project).await.unwrap();
        let of = |path: &str| fs::metadata(worktree.tree.join(path)).unwrap();
        let uid = of("").uid();
        for path in [".env", "local", "local/x.toml"] {
            assert_eq!(of(path).uid(), uid, "{rung}: {path}");
        }
        assert_eq!(of(".env").permissions().mode() & 0o777, 0o600, "{rung}");
        let read = fs::read_to_string(worktree.tree.join("read")).unwrap();
        assert_eq!(read, "KEY=1\n", "{rung}");
        // What was copied and made before the agent came is not its work.
        let snapshot = held.work.snapshot(&project, &worktree).await.unwrap();
        assert!(snapshot.files.is_empty(), "{rung}: {:?}", snapshot.files);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_works_in_the_hooks_of_linked_worktrees() {
    for rung in rungs().await {
        let held = Held::on(rung).await;
        let mut project = held.project("git log -1 --format=%s >log");
        project.mode = WorktreeMode::Linked;
        project.trusted = true;
        let worktree = held.create(&project).await.unwrap();
        let log = fs::read_to_string(worktree.tree.join("log")).unwrap();
        assert_eq!(log, "base\n", "{rung}");
    }
}
