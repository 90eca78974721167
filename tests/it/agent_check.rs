//! `dispatch agents check`: what it finds of agents that work and of agents that do not, from the
//! command line, on a machine without a database.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use dispatch_worker::config::native_spec::Api;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::llm::FakeLlm;
use crate::harness::native::catalogue;
use crate::harness::sandbox::open_dir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dispatch-under-test");
const FAKE: &str = env!("CARGO_BIN_EXE_fake-agent");

const STEPS: [&str; 10] = [
    "found",
    "sandbox",
    "version",
    "handshake",
    "session",
    "prompt",
    "permission",
    "cancel",
    "resume",
    "leftovers",
];

/// A machine with these agents and no database.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn with(agents: &str) -> Self {
        let dir = open_dir();
        std::fs::write(dir.path().join("agents.toml"), agents).unwrap();
        Self { dir }
    }

    /// With one that speaks ACP and is set like this.
    fn of_acp(setting: &Value) -> Self {
        Self::with(&acp("fake", setting, ""))
    }

    fn agents(&self) -> PathBuf {
        self.dir.path().join("agents.toml")
    }

    async fn run(&self, args: &[&str]) -> Output {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program under test is started as a person starts it"
        )]
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .env("DISPATCH_AGENTS", self.agents())
            .env("DISPATCH_DATA", self.dir.path().join("data"))
            .env("CHECK_SECRET_TOKEN", "Zk3x9Qw7Lm2p8Rt5")
            .env_remove("DATABASE_URL")
            .env_remove("DATABASE_LISTEN_URL")
            .stdin(Stdio::null());
        command.output().await.unwrap()
    }

    async fn check(&self, agent: &str) -> Told {
        self.told(&["--json", "agents", "check", agent, "--here"])
            .await
    }

    async fn told(&self, args: &[&str]) -> Told {
        let done = self.run(args).await;
        let text = String::from_utf8(done.stdout).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&done.stderr))
        });
        Told {
            code: done.status.code().unwrap(),
            body,
        }
    }
}

struct Told {
    code: i32,
    body: Value,
}

impl Told {
    fn of(&self, check: &str) -> (&str, &str) {
        let all = self.body["data"].as_array().unwrap();
        let found = all.iter().find(|one| one["check"] == check);
        let found = found.unwrap_or_else(|| panic!("nothing about {check} in {}", self.body));
        assert_eq!(
            found["verdict"] == "ok",
            found["advice"].is_null(),
            "{found}"
        );
        let text = |name: &str| found[name].as_str().unwrap();
        (text("verdict"), text("found"))
    }

    fn steps(&self) -> Vec<&str> {
        let all = self.body["data"].as_array().unwrap();
        let of_agent = all.iter().filter(|one| one["area"] == "agent");
        of_agent.map(|one| one["check"].as_str().unwrap()).collect()
    }

    /// This step has failed, with these words, and the program says so.
    fn fails(&self, check: &str, words: &str) {
        let (verdict, found) = self.of(check);
        assert_eq!(verdict, "fail", "{}", self.body);
        assert!(found.contains(words), "{found}");
        assert_eq!((self.code, &self.body["verdict"]), (12, &json!("fail")));
    }

    fn is_ok(&self, checks: &[&str]) {
        for check in checks {
            assert_eq!(self.of(check).0, "ok", "{check}: {}", self.body);
        }
    }
}

pub(crate) fn acp(name: &str, setting: &Value, more: &str) -> String {
    format!(
        "[agents.{name}]\npath = \"acp\"\ncommand = [{FAKE:?}, \"acp\", '''{setting}''']\n\
         version_args = [\"--version\"]\nkill_grace = \"500ms\"\n{more}\n\
         [agents.{name}.usage]\nformat = \"acp\"\nsemantics = \"turn\"\ninput = \"/inputTokens\"\n"
    )
}

/// An agent that does everything right.
pub(crate) fn healthy() -> Value {
    json!({
        "capabilities": {"loadSession": true},
        "by_words": {
            "make the file": [
                {"ask": {"tool": {"toolCallId": "w", "kind": "edit", "title": "write"}}},
                {"write": {"path": "dispatch-check.txt", "text": "dispatch"}},
                {"usage": {"result": {"usage": {"inputTokens": 7}}}},
            ],
            "Run this one command": [
                {"ask": {"obey": true}},
                {"write": {"path": "dispatch-refused.txt", "text": ""}},
            ],
            "Count from one": [{"say": "one"}, {"wait_for_cancel": "obeyed.txt"}],
            "Which word": [{"say": "dispatch"}],
        },
    })
}

fn but(words: &str, script: Value) -> Value {
    let mut setting = healthy();
    setting["by_words"][words] = script;
    setting
}

#[tokio::test]
async fn an_agent_that_works_passes_every_step() {
    let told = Machine::of_acp(&healthy()).check("fake").await;
    assert_eq!(told.steps(), STEPS);
    told.is_ok(&STEPS);
    assert_eq!((told.code, &told.body["verdict"]), (0, &json!("ok")));
    assert!(told.of("version").1.contains("1.2.3"));
    let (_, prompt) = told.of("prompt");
    for words in ["end_turn", "1 questions", "made the file"] {
        assert!(prompt.contains(words), "{prompt}");
    }
    assert!(told.of("permission").1.contains("1 times (execute)"));
    assert!(told.of("resume").1.contains("went on"));
}

#[tokio::test]
async fn without_a_prompt_only_what_costs_nothing_is_tried() {
    let machine = Machine::of_acp(&but("make the file", json!([{"exit": 1}])));
    let told = machine
        .told(&[
            "--json",
            "agents",
            "check",
            "fake",
            "--without-prompt",
            "--here",
        ])
        .await;
    assert_eq!(told.steps(), STEPS[..5]);
    told.is_ok(&STEPS[..5]);
    assert_eq!(told.code, 0);
}

#[tokio::test]
async fn an_agent_that_is_missing_is_said_to_be_and_nothing_else_is_tried() {
    let text =
        "[agents.gone]\npath = \"acp\"\ncommand = [\"no-such-agent\"]\ninstall = \"npm i -g it\"\n";
    let told = Machine::with(text).check("gone").await;
    told.fails("found", "not on the worker's PATH");
    assert!(told.body.to_string().contains("npm i -g it"));
    for step in &STEPS[1..] {
        let (verdict, found) = told.of(step);
        assert_eq!(
            (verdict, found),
            ("warn", "not tried: found failed"),
            "{step}"
        );
    }
}

#[tokio::test]
async fn an_agent_that_hangs_at_its_handshake_is_found_in_its_start_timeout() {
    let setting = json!({"never_initialize": true});
    let machine = Machine::with(&acp("fake", &setting, "start_timeout = \"1s\""));
    let told = machine.check("fake").await;
    told.is_ok(&["found", "version"]);
    told.fails("handshake", "did not answer to initialize within 1 s");
    assert_eq!(told.of("prompt").1, "not tried: handshake failed");
}

#[tokio::test]
async fn an_agent_that_wants_a_login_fails_at_its_session_and_not_before() {
    let told = Machine::of_acp(&json!({"auth": true})).check("fake").await;
    told.is_ok(&["handshake"]);
    told.fails("session", "fake-login");
}

#[tokio::test]
async fn an_agent_that_leaves_processes_behind_is_told_of() {
    let script = json!([{"fork": "closed"}, {"say": "one"}, {"wait_for_cancel": "obeyed.txt"}]);
    let told = Machine::of_acp(&but("Count from one", script))
        .check("fake")
        .await;
    told.is_ok(&["cancel", "resume"]);
    told.fails(
        "leftovers",
        "1 processes detached themselves from it during the cancel",
    );
}

#[tokio::test]
async fn an_agent_that_does_what_was_refused_is_told_of() {
    let script = json!([{"ask": {}}, {"write": {"path": "dispatch-refused.txt", "text": ""}}]);
    let told = Machine::of_acp(&but("Run this one command", script))
        .check("fake")
        .await;
    told.fails("permission", "did it all the same");
    told.is_ok(&["prompt", "cancel", "leftovers"]);
}

#[tokio::test]
async fn an_agent_that_ignores_a_cancel_is_told_of() {
    let script = json!([{"ignore_term": true}, {"say": "one"}, {"hang": true}]);
    let told = Machine::of_acp(&but("Count from one", script))
        .check("fake")
        .await;
    let (verdict, found) = told.of("cancel");
    assert_eq!(verdict, "warn", "{}", told.body);
    assert!(found.contains("ignored the cancel"), "{found}");
    told.is_ok(&["prompt", "resume", "leftovers"]);
}

#[tokio::test]
async fn what_an_agent_says_of_its_failure_is_one_safe_line_without_secrets() {
    let message = "no\u{1b}[2J\nkey Zk3x9Qw7Lm2p8Rt5".to_owned() + &"x".repeat(2_000);
    let script = json!([{"error": {"code": -32603, "message": message}}]);
    let setting = but("make the file", script);
    let entry = acp("fake", &setting, "env_allow = [\"CHECK_SECRET_TOKEN\"]");
    let told = Machine::with(&entry).check("fake").await;
    told.fails("prompt", "[secret CHECK_SECRET_TOKEN]");
    let (_, found) = told.of("prompt");
    assert!(
        !found.contains(['\u{1b}', '\n']) && !found.contains("Zk3x9Qw7"),
        "{found}"
    );
    assert!(found.chars().count() <= 401, "{found}");
    for step in ["permission", "cancel", "resume"] {
        assert_eq!(told.of(step).1, "not tried: prompt failed");
    }
}

#[tokio::test]
async fn the_examples_pass_on_pipes_and_in_a_terminal_too() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agents.toml");
    let examples = file.parent().unwrap().canonicalize().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let machine = Machine::with(&text.replace("{config_dir}", &examples.display().to_string()));
    for name in ["example-acp", "example-cli", "example-tty"] {
        let told = machine.check(name).await;
        assert_eq!(told.steps(), STEPS);
        told.is_ok(&[
            "found",
            "handshake",
            "prompt",
            "permission",
            "cancel",
            "leftovers",
        ]);
        assert_eq!(told.code, 0, "{}", told.body);
    }
}

#[tokio::test]
async fn the_agent_that_does_nothing_is_well() {
    let told = Machine::with("[agents.n]\npath = \"noop\"\n")
        .check("n")
        .await;
    told.is_ok(&STEPS);
    assert_eq!(told.code, 0);
}

#[tokio::test]
async fn a_native_agent_without_a_key_is_told_what_it_lacks() {
    let text = "[providers.p]\napi = \"openai\"\napi_key_env = \"NO_SUCH_KEY_OF_A_CHECK\"\ndefault_model = \"m\"\n\
                [agents.n]\npath = \"native\"\n";
    let told = Machine::with(text).check("n").await;
    told.fails("found", "NO_SUCH_KEY_OF_A_CHECK");
}

#[tokio::test]
async fn a_native_agent_is_asked_through_its_real_loop() {
    let llm = FakeLlm::start();
    let of = |llm: &FakeLlm| Machine::with(&catalogue(llm, Api::Openai, ""));
    let told = of(&llm).check("native").await;
    assert_eq!(told.steps(), STEPS);
    told.is_ok(&[
        "found",
        "version",
        "handshake",
        "session",
        "cancel",
        "resume",
        "leftovers",
    ]);
    // It only says "ok", and nothing is claimed that was not seen.
    for step in ["prompt", "permission"] {
        let (verdict, found) = told.of(step);
        assert!(
            verdict == "warn" && found.contains("it said: ok"),
            "{found}"
        );
    }
    assert_eq!(told.code, 0);
    let asked = llm.bodies().len();
    assert!(asked >= 4, "{asked}");
    let refused = FakeLlm::start_with(&["--key", "another"]);
    let told = of(&refused).check("native").await;
    told.fails("prompt", "401");
}

#[tokio::test]
async fn the_doctor_without_a_database_tells_of_the_machine_and_what_is_missing() {
    let machine = Machine::of_acp(&healthy());
    let told = machine.told(&["--json", "doctor"]).await;
    told.fails("connection", "no database");
    assert!(told.body.to_string().contains("dispatch up"));
    told.is_ok(&["agents.toml", "git"]);
    let told = machine
        .told(&["--json", "doctor", "fake", "--without-prompt"])
        .await;
    told.fails("connection", "no database");
    told.is_ok(&STEPS[..5]);
    assert_eq!(told.steps(), STEPS[..5]);
    let told = machine.told(&["--json", "doctor", "fake"]).await;
    told.is_ok(&STEPS);
    let nobody = machine.run(&["doctor", "nobody"]).await;
    assert_eq!(nobody.status.code(), Some(4));
}

#[tokio::test]
async fn a_database_that_is_away_keeps_nobody_from_a_check_of_this_host() {
    let machine = Machine::of_acp(&healthy());
    let url = "--database-url=postgres://nobody@127.0.0.1:1/none";
    let told = machine
        .told(&[
            "--json",
            url,
            "agents",
            "check",
            "fake",
            "--without-prompt",
            "--here",
        ])
        .await;
    told.is_ok(&STEPS[..5]);
    assert_eq!((told.of("record").0, told.code), ("warn", 0));
    // Whoever wants a worker's word is told that there is none: nothing is paid for on another machine.
    let asked = machine.run(&[url, "agents", "check", "fake"]).await;
    assert_eq!(asked.status.code(), Some(8), "{asked:?}");
    let asked = machine.run(&["agents", "check", "fake"]).await;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(8), "{said}");
    assert!(
        said.contains("DATABASE_URL") && said.contains("--here"),
        "{said}"
    );
}

#[tokio::test]
async fn a_known_agent_is_added_from_the_command_line_and_can_be_checked() {
    let machine = Machine::with("");
    std::fs::remove_file(machine.agents()).unwrap();
    let said = |done: &Output| String::from_utf8_lossy(&done.stdout).into_owned();
    let list = machine.run(&["agents", "add", "--list"]).await;
    for words in ["opencode ", "aider ", "npm install -g"] {
        assert!(said(&list).contains(words), "{}", said(&list));
    }
    let done = machine.run(&["agents", "add", "codex"]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(said(&done).contains("dispatch agents check codex --here"));
    assert!(
        said(&done).contains("has only those in it"),
        "{}",
        said(&done)
    );
    let before = std::fs::read_to_string(machine.agents()).unwrap();
    for (name, code) in [("codex", 5), ("nobody", 4)] {
        let refused = machine.run(&["agents", "add", name]).await;
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
    }
    assert_eq!(std::fs::read_to_string(machine.agents()).unwrap(), before);
    let shown = machine.run(&["config", "check"]).await;
    assert_eq!(shown.status.code(), Some(0));
    assert!(said(&shown).contains("\"default_agent\": \"codex\""));
}
