//! What a confined program cannot reach of the machine it runs on, beside files: terminals of other
//! people, memory that programs share, devices, and what outlives its processes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dispatch_worker::domain::sandbox::Rung;
use dispatch_worker::sandbox::{Confinement, Means, Places, Sandbox, exec};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::program::Program;
use crate::harness::sandbox::{find, open_dir, run_confined, working_rungs};
use crate::harness::worker::{FAKE, Stage};

/// An attempt's own directories, on a rung.
struct Cell {
    dir: TempDir,
    sandbox: Sandbox,
    rung: Rung,
}

impl Cell {
    async fn on(rung: Rung) -> Self {
        let dir = open_dir();
        let sandbox = find(dir.path(), Some(rung)).await;
        Self { dir, sandbox, rung }
    }

    fn places(&self) -> Places {
        let at = |name: &str| {
            let path = self.dir.path().canonicalize().unwrap().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        Places {
            tree: at("tree"),
            home: at("home"),
            tmp: at("tmp"),
            search_path: vec![PathBuf::from("/usr/bin"), PathBuf::from("/bin")],
            ..Places::default()
        }
    }

    fn means(&self) -> Means {
        Means::of(self.rung, self.sandbox.owner(self.rung).unwrap())
    }

    /// What a script wrote into the file `out` of its worktree.
    async fn out_of(&self, script: &str) -> String {
        let places = self.places();
        let out = places.tree.join("out");
        let owner = self.means();
        for dir in [&places.tree, &places.home, &places.tmp] {
            let confinement = Confinement::of_hook(&self.sandbox, &owner, &places).unwrap();
            confinement.give(dir).unwrap();
        }
        run_confined(&self.sandbox, owner, places, script).await;
        fs::read_to_string(out).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_shared_memory_and_devices_of_others_are_out_of_reach() {
    for rung in working_rungs().await {
        let cell = Cell::on(rung).await;
        let terminal = nix::pty::openpty(None, None).unwrap();
        let terminal = nix::unistd::ttyname(&terminal.slave).unwrap();
        let shared = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        shared.as_file().write_all(b"of the operator").unwrap();
        let script = format!(
            "exec 2>/dev/null; exec >out
             (exec 3<{terminal}) && echo reads the terminal
             (exec 3>{terminal}) && echo writes to the terminal
             cat {shared}
             for device in /dev/mem /dev/kmsg /dev/input/event0 /dev/video0; do
                 (exec 3<$device) && echo opens $device
             done
             echo ran; echo x >/dev/null && head -c 1 /dev/urandom | wc -c",
            terminal = terminal.display(),
            shared = shared.path().display(),
        );
        assert_eq!(cell.out_of(&script).await, "ran\n1\n", "{rung}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_uses_stays_whose_it_is() {
    let owner = || {
        let facts = fs::metadata("/dev/null").unwrap();
        (facts.uid(), facts.gid(), facts.mode())
    };
    let before = owner();
    for rung in working_rungs().await {
        let cell = Cell::on(rung).await;
        let out = cell
            .out_of("chmod 666 /dev/null 2>err && echo owns >>out; echo err >/dev/stderr && echo ran >>out")
            .await;
        assert_eq!((out.as_str(), owner()), ("ran\n", before), "{rung}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_typed_for_and_no_pair_of_sockets_becomes_a_way_out() {
    for rung in working_rungs().await {
        let cell = Cell::on(rung).await;
        // EPERM (1) is the filter's; a pipe that is no terminal would say ENOTTY (25).
        let script = "exec 2>&1 >out
             for request in 0x5412 0x541C; do
                 echo x | perl -e 'ioctl(STDIN, hex(shift), my $c = \"x\") or print $!+0, qq{\\n}' $request
             done
             for kind in 1 2 3 4 5; do
                 perl -e 'use Socket; socketpair(A, B, AF_UNIX, shift, 0) and print qq{pair\\n} or print $!+0, qq{\\n}' $kind
             done";
        let out = cell.out_of(script).await;
        let pairs = match rung {
            // Connected both ways and for good, or not at all.
            Rung::Landlock => "pair\n1\n1\n1\npair\n",
            _ => "pair\npair\npair\n94\npair\n",
        };
        assert_eq!(out, format!("1\n1\n{pairs}"), "{rung}");
    }
}

/// Segments and queues belong to no process, so that no end of one removes them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_that_no_process_holds() {
    for rung in working_rungs().await {
        let cell = Cell::on(rung).await;
        let size = 40_961 + u64::from(std::process::id());
        let script = format!(
            "ipcmk -M {size} >out 2>&1; ipcmk -Q >>out 2>&1; ipcmk -S 3 >>out 2>&1; echo ran >>out"
        );
        let out = cell.out_of(&script).await;
        assert!(out.ends_with("ran\n"), "{rung}: {out}");
        if rung != Rung::Bubblewrap {
            assert_eq!(out.matches("not permitted").count(), 3, "{rung}: {out}");
        }
        let left = fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let named = |line: &str| line.split_whitespace().nth(3) == Some(&size.to_string());
        assert!(!left.lines().any(named), "{rung}: {left}");
    }
}

/// A hook is started from the worker, and that from somebody's shell.
#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_of_whoever_started_the_worker_is_not_that_of_what_it_starts() {
    for rung in working_rungs().await {
        let cell = Cell::on(rung).await;
        let places = cell.places();
        let confinement = Confinement::of_hook(&cell.sandbox, &cell.means(), &places).unwrap();
        for dir in [&places.tree, &places.home, &places.tmp] {
            confinement.give(dir).unwrap();
        }
        let args = [
            "-c",
            "(exec 3</dev/tty) 2>/dev/null && echo typed >out; echo ran >>out",
        ];
        let args = args.map(std::ffi::OsString::from);
        let (helper, args) = confinement
            .command(Path::new("/bin/sh"), &args, &places.tree)
            .unwrap();
        let quoted = std::iter::once(helper.into_os_string())
            .chain(args)
            .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")));
        let command: Vec<String> = quoted.collect();
        // A shell in a terminal, as an operator has it; the second command keeps it from becoming
        // the first.
        let shell = format!("{}; exit", command.join(" "));
        let path = exec::variable("PATH");
        #[expect(clippy::disallowed_methods, reason = "what an operator does")]
        let run = tokio::process::Command::new("script")
            .args(["-qec", &shell, "/dev/null"])
            .env(path, "/usr/bin:/bin")
            .stdin(std::process::Stdio::null())
            .output();
        let run = run.await.unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        let out = fs::read_to_string(places.tree.join("out")).unwrap_or_default();
        assert_eq!(out, "ran\n", "{rung}: {said}");
    }
}

/// A home stays with its conversation, so that what one attempt leaves in it, the next one finds.
#[tokio::test(flavor = "multi_thread")]
async fn links_left_in_a_home_lead_the_worker_nowhere() {
    let stage = Stage::new().await;
    let operator = stage.data.path().join("operator");
    fs::create_dir_all(operator.join(".agent")).unwrap();
    fs::write(operator.join(".agent/auth.json"), "login").unwrap();
    let theirs = stage.data.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("auth.json"), "theirs").unwrap();
    let catalogue = format!(
        "[agents.acp]\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\n\
         home_files = [\".agent/auth.json\", \".other/auth.json\"]\n"
    );
    fs::create_dir_all(operator.join(".other")).unwrap();
    fs::write(operator.join(".other/auth.json"), "login").unwrap();
    let environment = [("HOME", operator.to_str().unwrap())];
    let mut worker = Program::worker_in(&stage, "w", &catalogue, &[], &environment).await;
    let theirs_text = theirs.to_str().unwrap();
    let plant = format!(
        "cat ~/.agent/auth.json >seen.txt; rm -r ~/.agent ~/.other/auth.json; \
         ln -s {theirs_text} ~/.agent; mkfifo ~/.other/auth.json"
    );
    let first = stage.submit("acp", &json!([{ "sh": plant }])).await;
    stage.reaches(first, "completed").await;
    let insert = "INSERT INTO tasks (project, input, agent, conversation_id) \
                  SELECT 'p', $1, 'acp', conversation_id FROM tasks WHERE id = $2 RETURNING id";
    let steps =
        json!([{ "sh": "cat ~/.agent/auth.json ~/.other/auth.json >again.txt" }]).to_string();
    let row = stage
        .sql
        .query_one(insert, &[&steps, &first])
        .await
        .unwrap();
    let second: i64 = row.get(0);
    stage.reaches(second, "completed").await;
    let again = format!(
        "SELECT f.patch FROM pending_changes AS c JOIN pending_change_files AS f ON f.change_id = c.id \
         WHERE c.task_id = {second} AND f.path = 'again.txt'"
    );
    assert!(stage.text(&again).await.contains("+loginlogin"));
    assert_eq!(
        fs::read_to_string(theirs.join("auth.json")).unwrap(),
        "theirs"
    );
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().await.success());
}
