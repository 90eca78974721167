//! The tools of the native agent as the program that the worker starts: its protocol, its commands
//! and their ends, and what it does with input that is none.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::harness::eventually;

/// For an answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Resident memory of the program, whatever a command prints.
const MEMORY_KB_MAX: u64 = 96 * 1024;

/// A running program with the worktree that it serves.
struct Tools {
    dir: TempDir,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
    /// Output that came while something else was waited for.
    streamed: Vec<Value>,
}

impl Tools {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tree", "tmp", "outside"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the program itself, started without a worker"
        )]
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dispatch-under-test"));
        let mut child = command
            .arg(dispatch_worker::toolhost::WORD)
            .current_dir(dir.path().join("tree"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir.path())
            .env("TMPDIR", dir.path().join("tmp"))
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut tools = Self {
            dir,
            stdin: child.stdin.take(),
            lines: stdout.lines(),
            child,
            next: 0,
            streamed: Vec::new(),
        };
        let ready = tools.line().await;
        assert_eq!(ready["method"], "ready");
        assert!(ready["params"]["shell"].as_str().unwrap().ends_with("sh"));
        tools
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("tree").join(path)
    }

    async fn raw(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
    }

    async fn send(&mut self, message: Value) {
        self.raw(message.to_string().as_bytes()).await;
    }

    async fn line(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("a line in time").unwrap();
        serde_json::from_str(&line.expect("not the end")).unwrap()
    }

    /// Begin a call.
    async fn begin(&mut self, tool: &str, input: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        let params = json!({ "tool": tool, "input": input });
        self.send(json!({ "id": id, "method": "call", "params": params }))
            .await;
        id
    }

    async fn shell(&mut self, command: &str) -> u64 {
        self.begin("shell", json!({ "command": command })).await
    }

    async fn cancel(&mut self, id: u64) {
        self.send(json!({ "method": "cancel", "params": { "id": id } }))
            .await;
    }

    /// The next answer, whichever call's.
    async fn answer(&mut self) -> (u64, Value) {
        loop {
            let line = self.line().await;
            match line["id"].as_u64() {
                Some(id) => return (id, line),
                None => self.streamed.push(line),
            }
        }
    }

    /// The result of the only call that runs.
    async fn result(&mut self, id: u64) -> Value {
        let (answered, line) = self.answer().await;
        assert_eq!(answered, id, "{line}");
        line["result"].clone()
    }

    async fn call(&mut self, tool: &str, input: Value) -> Value {
        let id = self.begin(tool, input).await;
        self.result(id).await
    }

    async fn run(&mut self, command: &str) -> Value {
        self.call("shell", json!({ "command": command })).await
    }

    /// Wait until a command has written a process id to a file.
    async fn pid(&self, file: &str) -> Pid {
        let path = self.path(file);
        eventually("a process id", PATIENCE, || async {
            number(&path).is_some()
        })
        .await;
        Pid::from_raw(number(&path).unwrap())
    }

    async fn gone(&self, pid: Pid) {
        eventually("the process is gone", PATIENCE, || async { !lives(pid) }).await;
    }

    fn text_of(&self, id: u64) -> String {
        let of = self.streamed.iter().map(|line| &line["params"]);
        let of = of.filter(|params| params["id"] == id);
        of.map(|params| params["text"].as_str().unwrap()).collect()
    }

    fn peak_memory_kb(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        words[1].parse().unwrap()
    }
}

fn number(path: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(path).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

/// A dead process that nobody waited for does not count.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, after)| !after.trim_start().starts_with(['Z', 'X']))
}

fn output(result: &Value) -> &str {
    result["output"].as_str().unwrap()
}

#[tokio::test]
async fn calls_are_answered_beside_one_another_and_a_command_streams() {
    let mut tools = Tools::start().await;
    std::fs::write(tools.path("a"), "one\n").unwrap();
    let slow = tools
        .shell("echo out; echo err >&2; while [ ! -e go ]; do :; done; echo end")
        .await;
    let read = tools.begin("read", json!({ "path": "a" })).await;
    let (first, line) = tools.answer().await;
    assert_eq!(first, read, "the reader does not wait for the command");
    assert_eq!(line["result"]["output"], "     1\tone\n");
    assert_eq!(line["result"]["is_error"], false);
    let write = tools.begin("write", json!({ "path": "go", "content": "" }));
    let write = write.await;
    // The command may see the file, and end, before the writer has answered.
    let mut answers = [tools.answer().await, tools.answer().await];
    answers.sort_by_key(|(id, _)| *id != slow);
    assert_eq!(answers.each_ref().map(|(id, _)| *id), [slow, write]);
    let result = answers[0].1["result"].clone();
    assert_eq!(result["detail"]["exit_code"], 0);
    // Which of its two pipes is read first is chance.
    for word in ["out\n", "err\n", "end\n"] {
        assert!(output(&result).contains(word), "{}", output(&result));
    }
    assert_eq!(tools.text_of(slow), output(&result));
    let streams: Vec<&Value> = tools
        .streamed
        .iter()
        .map(|line| &line["params"]["stream"])
        .collect();
    assert!(streams.contains(&&json!("stdout")) && streams.contains(&&json!("stderr")));
}

#[tokio::test]
async fn the_end_of_a_command_is_told() {
    let mut tools = Tools::start().await;
    let result = tools.run("true").await;
    assert_eq!(
        (output(&result), &result["is_error"]),
        ("exit code 0", &json!(false))
    );
    let result = tools.run("echo no; exit 3").await;
    assert_eq!(output(&result), "no\nexit code 3");
    assert_eq!(result["is_error"], true);
    assert_eq!(result["detail"]["exit_code"], 3);
    let result = tools.run("printf x; kill -9 $$").await;
    assert_eq!(output(&result), "x\nended by signal 9");
    let result = tools.run("cat; echo $PAGER $GIT_EDITOR $TERM").await;
    assert_eq!(output(&result), "cat true dumb\n", "there is no input");
    std::fs::create_dir(tools.path("sub")).unwrap();
    let result = tools
        .call("shell", json!({ "command": "basename $PWD", "cwd": "sub" }))
        .await;
    assert_eq!(output(&result), "sub\n");
    let result = tools
        .call("shell", json!({ "command": "pwd", "cwd": ".." }))
        .await;
    assert!(output(&result).contains("outside the worktree"));
}

#[tokio::test]
async fn a_cancel_ends_a_command_with_all_that_it_started() {
    let mut tools = Tools::start().await;
    let command = "trap 'echo heard' TERM; (trap '' TERM; echo $BASHPID > child; sleep 1000) & \
                   echo $$ > leader; wait; sleep 1000";
    let id = tools.shell(command).await;
    let (leader, child) = (tools.pid("leader").await, tools.pid("child").await);
    tools.cancel(id).await;
    tools.cancel(4_711).await;
    let result = tools.result(id).await;
    assert!(output(&result).starts_with("cancelled\nheard"), "{result}");
    assert_eq!(result["is_error"], true);
    tools.gone(leader).await;
    tools.gone(child).await;
    assert_eq!(output(&tools.run("echo on").await), "on\n");
}

#[tokio::test]
async fn a_command_has_its_time_and_no_more() {
    let mut tools = Tools::start().await;
    let begun = Instant::now();
    let input = json!({ "command": "echo $$ > pid; echo begun; sleep 1000", "timeout_s": 1 });
    let result = tools.call("shell", input).await;
    assert_eq!(output(&result), "begun\ntimed out after 1 s");
    assert_eq!(result["detail"]["timed_out"], true);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    tools.gone(tools.pid("pid").await).await;
}

#[tokio::test]
async fn what_is_left_in_the_background_neither_holds_the_call_nor_stays_unless_it_left_the_group()
{
    let mut tools = Tools::start().await;
    let begun = Instant::now();
    let result = tools.run("sleep 1000 & echo $! > pid; echo done").await;
    assert_eq!(output(&result), "done\n");
    tools.gone(tools.pid("pid").await).await;
    let command = "setsid sh -c 'echo $$ > own; exec sleep 1000' & \
                   while [ ! -s own ]; do :; done; echo done";
    let result = tools.run(command).await;
    assert_eq!(output(&result), "done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let own = tools.pid("own").await;
    assert!(lives(own), "with setsid it lives on");
    kill(own, Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn endless_output_is_bounded_in_memory_and_kept_in_a_file() {
    let mut tools = Tools::start().await;
    let before = tools.peak_memory_kb();
    let command = "echo first; head -c 100000000 /dev/zero | tr '\\0' 'x'; echo; echo last";
    let id = tools.shell(command).await;
    let result = tools.result(id).await;
    let peak = tools.peak_memory_kb();
    assert!(peak < MEMORY_KB_MAX, "{before} kB grew to {peak} kB");
    let text = output(&result);
    assert!(text.starts_with("first\nxxx") && text.ends_with("xxx\nlast\n"));
    assert!(text.chars().count() < 50_400);
    assert!(text.contains("bytes left out here"));
    assert_eq!(result["detail"]["truncated"], true);
    let streamed = tools.text_of(id);
    assert!(streamed.len() < 1024 * 1024 + 100, "{}", streamed.len());
    assert!(streamed.ends_with("[the rest of the output is not shown while it runs]\n"));
    // Up to its bound.
    let file = result["detail"]["output_file"].as_str().unwrap();
    assert!(text.contains(file));
    assert_eq!(std::fs::metadata(file).unwrap().len(), 64 * 1024 * 1024);
    // What is whole can be read and searched.
    let result = tools.run("seq 20000").await;
    let file = result["detail"]["output_file"].as_str().unwrap().to_owned();
    assert!(output(&result).contains("the whole output is in"));
    let read = tools
        .call("read", json!({ "path": file, "offset": 9_999, "limit": 1 }))
        .await;
    assert!(output(&read).contains("9999\t9999\n"), "{read}");
    let grep = json!({ "path": file, "pattern": "^1234$", "mode": "count" });
    assert!(output(&tools.call("grep", grep).await).ends_with(":1"));
}

#[tokio::test]
async fn bytes_become_valid_text_however_they_are_cut() {
    let mut tools = Tools::start().await;
    // The halves of the character come in two reads: the second waits until the first was told.
    let command = "printf 'a\\303'; while [ ! -e go ]; do :; done; printf '\\251\\000b\\377'";
    let id = tools.shell(command).await;
    let told = tools.line().await;
    assert_eq!(told["params"]["text"], "a");
    std::fs::write(tools.path("go"), "").unwrap();
    let result = tools.result(id).await;
    assert_eq!(output(&result), "aé\u{FFFD}b\u{FFFD}");
}

#[tokio::test]
async fn no_tool_follows_a_directory_that_is_swapped_for_a_link() {
    let mut tools = Tools::start().await;
    std::fs::write(tools.dir.path().join("outside/secret"), "secret\n").unwrap();
    std::fs::create_dir(tools.path("dir")).unwrap();
    std::fs::write(tools.path("dir/secret"), "inside\n").unwrap();
    let (dir, link) = (tools.path("dir"), tools.path("link"));
    symlink("../outside", &link).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let swapping = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let flags = RenameFlags::RENAME_EXCHANGE;
            renameat2(AT_FDCWD, &dir, AT_FDCWD, &link, flags).unwrap();
        }
    });
    for n in 0..100 {
        let read = tools.call("read", json!({ "path": "dir/secret" })).await;
        assert!(!output(&read).contains("\tsecret"), "{read}");
        let grep = tools.call("grep", json!({ "pattern": "secret" })).await;
        assert!(!output(&grep).contains(":secret"), "{grep}");
        let content = format!("{n}\n");
        tools
            .call("write", json!({ "path": "dir/new", "content": content }))
            .await;
        let patch = format!("*** Begin Patch\n*** Add File: dir/n{n}\n+x\n*** End Patch");
        tools.call("apply_patch", json!({ "patch": patch })).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    let outside = std::fs::read_dir(tools.dir.path().join("outside")).unwrap();
    assert_eq!(outside.count(), 1, "nothing was written there");
    let secret = std::fs::read_to_string(tools.dir.path().join("outside/secret")).unwrap();
    assert_eq!(secret, "secret\n");
}

#[tokio::test]
async fn the_end_of_input_ends_the_program_and_what_it_started() {
    let mut tools = Tools::start().await;
    tools.shell("echo $$ > pid; sleep 1000").await;
    let pid = tools.pid("pid").await;
    tools.stdin = None;
    let status = timeout(PATIENCE, tools.child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    assert!(!lives(pid));
}

#[tokio::test]
async fn what_is_no_call_is_refused_or_ignored_and_never_ends_the_program() {
    let mut tools = Tools::start().await;
    tools.send(json!({ "id": 900, "method": "dance" })).await;
    let (id, line) = tools.answer().await;
    assert_eq!((id, &line["error"]["code"]), (900, &json!(-32_601)));
    tools
        .send(json!({ "id": 901, "method": "call", "params": [] }))
        .await;
    let (_, line) = tools.answer().await;
    assert_eq!(line["error"]["code"], -32_602);
    let unknown = tools.call("fly", json!({})).await;
    assert_eq!(unknown["is_error"], true);
    let bad = tools.call("read", json!({ "path": [] })).await;
    assert_eq!(
        output(&bad),
        "the field `path` must be a string, not an array"
    );
    let junk = tools.call("read", json!("x")).await;
    assert!(output(&junk).contains("JSON object"));
}

#[tokio::test]
async fn garbage_never_ends_the_program() {
    let mut tools = Tools::start().await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80);
    let words = "(\\{|\\}|\\[|\"id\"|\"method\"|:|,|\"call\"|\"cancel\"|\"params\"|\"tool\"|\"glob\"|null|-1|7e99|\"\\\\ud800\"){0,20}";
    let tool = proptest::sample::select(vec![
        "read",
        "list",
        "glob",
        "grep",
        "edit",
        "write",
        "apply_patch",
        "shell",
    ]);
    let text = "[ -~\u{0}é\n*]{0,12}";
    let field = proptest::sample::select(vec![
        "path",
        "pattern",
        "patch",
        "offset",
        "limit",
        "depth",
        "context",
        "cwd",
        "old_string",
        "new_string",
        "content",
        "glob",
    ]);
    let input = proptest::collection::hash_map(field, text, 0..5);
    let call = (tool, input);
    for n in 0..200 {
        let line = bytes.new_tree(&mut runner).unwrap().current();
        let line: Vec<u8> = line.into_iter().filter(|byte| *byte != b'\n').collect();
        tools.raw(&line).await;
        let line = words.new_tree(&mut runner).unwrap().current();
        tools.raw(line.as_bytes()).await;
        let (tool, input) = call.new_tree(&mut runner).unwrap().current();
        tools.begin(tool, json!(input)).await;
        if n % 10 == 9 {
            for _ in 0..10 {
                tools.answer().await;
            }
        }
    }
    assert_eq!(output(&tools.run("echo on").await), "on\n");
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered_once() {
    let mut tools = Tools::start().await;
    std::fs::write(tools.path("a"), "x\n").unwrap();
    let mut open = Vec::new();
    for n in 0..60 {
        open.push(match n % 3 {
            0 => tools.begin("read", json!({ "path": "a" })).await,
            1 => tools.begin("grep", json!({ "pattern": "x" })).await,
            _ => tools.shell("echo x").await,
        });
    }
    let mut answered = Vec::new();
    for _ in 0..60 {
        let (id, line) = tools.answer().await;
        assert_eq!(line["result"]["is_error"], false, "{line}");
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, open);
}
