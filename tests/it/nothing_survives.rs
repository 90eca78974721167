//! Of an agent that does everything to survive, nothing does: not its end, not a cancel, not the
//! sudden death of its worker; and what it goes on writing is not torn into the change.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dispatch_worker::domain::sandbox::Rung;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::repo::git;
use crate::harness::sandbox::{demand, rungs};
use crate::harness::worker::{FAKE, PATIENCE, Stage, TestWorker, gates};

/// Each way of standing apart from the agent: in its group, in its own, in another session, an
/// orphan, without its pipes, without its environment, and without all of it.
const FORKS: [&str; 7] = [
    "group",
    "own_group",
    "setsid",
    "daemon",
    "closed",
    "wiped",
    "vanished",
];

/// The agent and what it forked.
const TREE: usize = FORKS.len() + 1;

const PATHS: [&str; 3] = ["acp", "cli", "tty"];

/// A program whose name nothing else has, by which its processes are found whatever they hide.
struct Hostile {
    dir: TempDir,
    program: PathBuf,
}

impl Hostile {
    fn new() -> Self {
        let dir = gates();
        // For the attempts' users.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let program = dir.path().join("hostile");
        std::fs::copy(FAKE, &program).unwrap();
        Self { dir, program }
    }

    /// Entries on every path for this rung.
    fn agents(&self, rung: Rung) -> String {
        let sandbox = demand(rung);
        let program = self.program.display();
        let entry = |name: &str, more: &str| {
            format!(
                "[agents.{name}]\nlabel = \"hostile\"\nslots = 40\nkill_grace = \"100ms\"\n\
                 sandbox = \"{sandbox}\"\nreadable = [\"{}\"]\n{more}\n",
                self.dir.path().display()
            )
        };
        [
            entry(
                "acp",
                &format!("path = \"acp\"\ncommand = [\"{program}\", \"acp\"]"),
            ),
            entry(
                "cli",
                &format!(
                    "path = \"pipe\"\ncommand = [\"{program}\", \"cli\"]\ncli.prompt_via = \"stdin\""
                ),
            ),
            entry(
                "tty",
                &format!("path = \"pty\"\ncommand = [\"{program}\", \"tty\", \"{{prompt}}\"]"),
            ),
        ]
        .concat()
    }

    /// What it does: everything, then the rest.
    fn script(rest: &[Value]) -> Value {
        let mut steps = vec![json!({ "ignore_term": true })];
        steps.extend(FORKS.map(|how| json!({ "fork": how })));
        steps.push(json!({ "say": "forked\n" }));
        steps.extend_from_slice(rest);
        json!(steps)
    }

    /// The living processes that run it or were told to, such as the helper, with their arguments.
    fn alive(&self) -> Vec<(i32, Vec<String>)> {
        let name = self.program.to_str().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let all = entries.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line);
            Some((pid, line.split('\0').map(str::to_owned).collect()))
        });
        all.filter(|(_, args): &(_, Vec<String>)| args.iter().any(|arg| arg == name))
            .collect()
    }

    /// How many of them are the agent's.
    fn trees(&self) -> usize {
        let name = self.program.to_str().unwrap();
        let alive = self.alive();
        alive.iter().filter(|(_, args)| args[0] == name).count()
    }

    async fn all_there(&self, trees: usize) {
        eventually("every process is there", PATIENCE, || async {
            self.trees() >= trees * TREE
        })
        .await;
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // A test that failed must not leave on the machine what it found there.
        while let Some((pid, _)) = self.alive().first() {
            let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            std::thread::yield_now();
        }
    }
}

async fn worker_on(stage: &Stage, rung: Rung, agents: &str) -> TestWorker {
    stage
        .worker_with(agents, |settings| settings.sandbox = Some(rung))
        .await
}

async fn all_spoke(stage: &Stage, tasks: usize) {
    let spoke =
        format!("SELECT count(DISTINCT task_id) >= {tasks} FROM events WHERE kind = 'text'");
    stage.holds("all of them have forked", &spoke).await;
}

/// Nothing waits here: what lives when the end is recorded lived too long.
async fn ended_with_nothing_left(stage: &Stage, hostile: &Hostile, tasks: usize) {
    let ended = format!("SELECT count(*) = {tasks} FROM outcomes");
    stage.holds("all have ended", &ended).await;
    assert_eq!(hostile.alive(), []);
}

/// A hundred and more on the machine that has three rungs: on each, the three paths, nine ends and
/// nine cancels at once, and again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hostile_agent_survives_its_end_or_a_cancel() {
    let mut trees = 0;
    for rung in rungs().await {
        let hostile = Hostile::new();
        let stage = Stage::new().await;
        let worker = worker_on(&stage, rung, &hostile.agents(rung)).await;
        for round in 1..=2 {
            let gate = hostile.dir.path().join(format!("go{round}"));
            let ending = Hostile::script(&[json!({ "wait_for": gate })]);
            let endless = Hostile::script(&[json!({ "hang": true })]);
            let mut cancelled = Vec::new();
            for path in PATHS {
                for _ in 0..3 {
                    stage.submit(path, &ending).await;
                    cancelled.push(stage.submit(path, &endless).await);
                }
            }
            let all = cancelled.len() * 2;
            all_spoke(&stage, all * round).await;
            hostile.all_there(all).await;
            std::fs::write(&gate, "").unwrap();
            for task in cancelled {
                stage.text(&format!("SELECT cancel_task({task})")).await;
            }
            ended_with_nothing_left(&stage, &hostile, all * round).await;
            trees += all;
        }
        let ends = "SELECT string_agg(n, ', ' ORDER BY n) FROM (SELECT end_kind || ' on ' || sandbox \
                    || ': ' || count(*) AS n FROM attempts GROUP BY end_kind, sandbox) AS ends";
        let expected = format!("cancelled on {rung}: 18, succeeded on {rung}: 18");
        assert_eq!(stage.text(ends).await, expected);
        worker.stop().await;
    }
    println!("{trees} trees");
}

/// No other worker comes to find them: what ends them is what each was started under.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_hundred_hostile_agents_survives_the_kill_of_their_workers() {
    let rungs = rungs().await;
    for (n, rung) in rungs.into_iter().cycle().take(5).enumerate() {
        let hostile = Hostile::new();
        let stage = Stage::new().await;
        let agents = hostile.agents(rung);
        let flags = ["--sandbox", rung.as_str()];
        let mut worker = Program::worker(&stage, &format!("w{n}"), &agents, &flags).await;
        let script = Hostile::script(&[json!({ "hang": true })]);
        for task in 0..20 {
            stage.submit(PATHS[task % PATHS.len()], &script).await;
        }
        all_spoke(&stage, 20).await;
        hostile.all_there(20).await;
        let killed = Instant::now();
        worker.signal(Signal::SIGKILL);
        worker.ended().await;
        eventually("nothing of it is left", PATIENCE, || async {
            hostile.alive().is_empty()
        })
        .await;
        println!("{rung}: {:?}", killed.elapsed());
        let soon = Duration::from_secs(10);
        assert!(killed.elapsed() < soon, "{rung}: {:?}", killed.elapsed());
    }
}

/// What a change says of itself, from every part of it that is recorded; see `workspace::diff`.
async fn digest_of(stage: &Stage, change: i64) -> String {
    use sha2::Digest;
    let part = |hash: &mut sha2::Sha256, bytes: Option<&[u8]>| {
        hash.update([u8::from(bytes.is_some())]);
        let Some(bytes) = bytes else { return };
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let query = "SELECT base_commit, result_tree FROM pending_changes WHERE id = $1";
    let whole = stage.sql.query_one(query, &[&change]).await.unwrap();
    let mut hash = sha2::Sha256::new();
    part(&mut hash, Some(b"dispatch change 1"));
    part(&mut hash, Some(whole.get::<_, &str>(0).as_bytes()));
    part(&mut hash, Some(whole.get::<_, &str>(1).as_bytes()));
    let query = "SELECT path_bytes, old_path_bytes, operation, old_mode, new_mode, old_blob, new_blob \
                 FROM pending_change_files WHERE change_id = $1 ORDER BY n";
    for row in stage.sql.query(query, &[&change]).await.unwrap() {
        for path in [0, 1] {
            part(&mut hash, row.get(path));
        }
        part(&mut hash, Some(row.get::<_, &str>(2).as_bytes()));
        for mode in [3, 4] {
            let mode = row.get::<_, Option<i32>>(mode).map(i32::to_be_bytes);
            part(&mut hash, mode.as_ref().map(|bytes| &bytes[..]));
        }
        for blob in [5, 6] {
            let blob: Option<&str> = row.get(blob);
            part(&mut hash, blob.map(str::as_bytes));
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn results(data: &Path) -> PathBuf {
    let mut stores = std::fs::read_dir(data.join("work/stores"))
        .unwrap()
        .flatten();
    stores.next().unwrap().path().join("results.git")
}

/// Whatever the daemon wrote last, all that is recorded of it is one and the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_daemon_rewrites_every_millisecond_is_one_moment_in_all_of_a_hundred_changes()
{
    let hostile = Hostile::new();
    let stage = Stage::new().await;
    let rung = rungs().await[0];
    let agents = hostile.agents(rung);
    let worker = stage
        .worker_with(&agents, |settings| {
            settings.sandbox = Some(rung);
            settings.slots = 10;
        })
        .await;
    let script = json!([{ "rewrite": "a.txt" }, { "say": "forked\n" }]);
    for task in 0..100 {
        stage.submit(PATHS[task % PATHS.len()], &script).await;
    }
    ended_with_nothing_left(&stage, &hostile, 100).await;
    let ends = "SELECT string_agg(DISTINCT end_kind, ' ') FROM attempts";
    assert_eq!(stage.text(ends).await, "succeeded");
    let query = "SELECT c.id, c.result_tree, c.digest, f.patch, f.new_blob, f.patch_cut \
                 FROM pending_changes AS c JOIN pending_change_files AS f ON f.change_id = c.id \
                 WHERE f.path = 'a.txt'";
    let changes = stage.sql.query(query, &[]).await.unwrap();
    assert_eq!(changes.len(), 100);
    let results = results(stage.data.path());
    let mut generations = std::collections::HashSet::new();
    for row in changes {
        let (change, tree, digest): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
        let (patch, blob, cut): (String, String, bool) = (row.get(3), row.get(4), row.get(5));
        assert_eq!(digest, digest_of(&stage, change).await);
        let in_tree = git(&results, &["rev-parse", &format!("{tree}:a.txt")]);
        assert_eq!(in_tree, blob);
        let text = git(&results, &["cat-file", "blob", &blob]);
        let mut letters: Vec<char> = text.chars().collect();
        letters.dedup();
        // None: it was ended between emptying the file and writing it.
        assert!(letters.len() <= 1, "of several moments: {letters:?}");
        generations.extend(letters);
        assert!(!cut);
        let added: Vec<&str> = patch
            .lines()
            .skip_while(|line| !line.starts_with("@@"))
            .filter_map(|line| line.strip_prefix('+'))
            .collect();
        assert_eq!(added.concat(), text, "change {change}");
    }
    assert!(
        generations.len() > 1,
        "the file was rewritten: {generations:?}"
    );
    worker.stop().await;
}
