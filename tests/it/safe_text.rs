//! No text of an agent, a repository or a submitter reaches a terminal as a command.

use std::collections::BTreeSet;

use dispatch_worker::surface::safe_text;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::worker::{Stage, agents, write};

const ATTACKS: [&str; 15] = [
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x1b\\",
    "\x1bP$q\"p\x1b\\",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H\x1b[8m",
    "\u{9b}31m \u{9d}0;t\u{9c}",
    "\r\x1b[Kfake prompt $ ",
    "user\u{202e}gpj.exe \u{2066}x\u{2069}",
    "zero\u{200b}width\u{200d}\u{feff}\u{ad}",
    "line\u{2028}para\u{2029}",
    "tags\u{e0041}\u{e007f}",
    "bell\x07 back\x08 del\x7f nul\0",
    "\u{61c}\u{200e}\u{200f}",
    "smuggled\u{fff0}\u{fff8}\u{fe00}\u{e0101}\u{1d173}\u{180e}",
    "<img src=x onerror=alert(1)>",
];

fn dangerous(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(u32::from(c), 0xad | 0x61c | 0x200b..=0x200f | 0x2028..=0x202e
            | 0x2060..=0x206f | 0xfeff | 0x180b..=0x180f | 0xfe00..=0xfe0e | 0x1d173..=0x1d17a | 0xfff0..=0xfffb
            | 0xe0000..=0xe0fff)
}

#[test]
fn no_control_reaches_the_terminal_and_none_is_hidden() {
    for attack in ATTACKS {
        for shown in [safe_text::line(attack), safe_text::block(attack)] {
            assert!(!shown.chars().any(dangerous), "{attack:?} became {shown:?}");
            assert!(
                shown.chars().count() >= attack.chars().count(),
                "{attack:?} was shortened"
            );
        }
        assert!(!safe_text::line(attack).contains(['\n', '\t']));
    }
}

#[test]
fn json_for_a_terminal_has_no_control_and_the_same_value() {
    for attack in ATTACKS {
        let shown = safe_text::json(&serde_json::to_string(attack).unwrap());
        assert!(!shown.chars().any(dangerous), "{attack:?} became {shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), attack);
    }
}

/// What is left of a terminal's text without what we paint there ourselves.
fn unpainted(text: &str) -> String {
    let mut plain = text.to_owned();
    for code in ["0", "1", "2", "3", "31", "32", "33", "34", "35", "36"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    plain
}

/// A task whose agent attacks in everything it says, asks and leaves.
fn attack_everywhere() -> Value {
    let all = ATTACKS.join(" ");
    let mut steps = vec![
        json!({ "plan": [{ "content": all, "status": "pending", "priority": "high" }] }),
        json!({ "ask": { "tool": { "toolCallId": "9", "title": all, "kind": "execute" } } }),
        json!({ "garbage": all.replace('\n', " ") }),
        json!({ "stderr": all }),
        json!({ "usage": { "result": { "usage": { "inputTokens": 1, "outputTokens": 1, "totalTokens": 2 } } } }),
    ];
    for (n, attack) in ATTACKS.iter().enumerate() {
        steps.push(json!({ "say": format!("{attack}\n") }));
        steps.push(json!({ "thought": attack }));
        steps.push(
            json!({ "tool": { "toolCallId": n.to_string(), "title": attack, "kind": attack,
            "status": "failed", "rawInput": { *attack: attack }, "locations": [{ "path": attack }],
            "content": [{ "type": "content", "content": { "type": "text", "text": attack } }] } }),
        );
        steps.push(json!({ "update": { "sessionUpdate": attack, "x": attack } }));
    }
    for name in [
        "user\u{202e}gpj.exe",
        "zero\u{200b}\u{feff}width.txt",
        "c1\u{9b}31m.txt",
        "tag\u{e0041}.md",
    ] {
        steps.push(write(name, &all));
    }
    json!(steps)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_others_wrote_is_obeyed_by_the_terminal_of_any_command_or_log() {
    let stage = Stage::new().await;
    let all = ATTACKS.join(" ").replace('\0', "");
    let flags = ["--log", "text"];
    let attacked = agents().replace(
        "path = \"acp\"",
        "path = \"acp\"\npermissions.default = \"allow\"",
    );
    let worker = Program::worker_in(&stage, "calm", &attacked, &flags, &[]).await;
    let script = attack_everywhere();
    let task = stage.submit("acp", &script).await;
    stage.reaches(task, "completed").await;
    let mut failing = script.as_array().unwrap().clone();
    failing.push(json!({ "error": { "code": -32000, "message": format!("{all}\nERROR forged"), "data": all } }));
    let failed = stage.submit("acp", &json!(failing)).await;
    stage.reaches(failed, "failed").await;
    // People write by SQL as well, and names of branches have few rules.
    stage
        .sql
        .execute("SELECT request_changes(1, $1, $2)", &[&all, &ATTACKS[0]])
        .await
        .unwrap();
    let odd = "INSERT INTO tasks (project, input, agent, base_ref) VALUES ('p', $1, 'acp', $2) RETURNING id";
    let branch = "no/such\u{202e}\u{9b}31m\u{200b}branch";
    let odd: i64 = stage
        .sql
        .query_one(odd, &[&all, &branch])
        .await
        .unwrap()
        .get(0);
    stage.reaches(odd, "failed").await;
    let cancelled: i64 = {
        let later = "INSERT INTO tasks (project, input, agent, run_at) VALUES ('p', $1, 'acp', now() + interval '1 day') RETURNING id";
        stage.sql.query_one(later, &[&all]).await.unwrap().get(0)
    };
    let cancel = "SELECT cancel_task($1, $2)";
    stage
        .sql
        .execute(cancel, &[&cancelled, &all])
        .await
        .unwrap();

    let url = stage.db.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let mut commands: Vec<String> = [
        "list",
        "changes list",
        "changes show 1",
        "changes files 1",
        "permissions list",
        "agents list",
        "projects list",
        "workers list",
        "usage",
        "audit",
        "conversations show 1",
        "conversations items 1",
        "agents show acp",
        "tasks events 1",
        "sql TABLE\u{a0}events",
    ]
    .map(str::to_owned)
    .to_vec();
    for id in [task, failed, odd, cancelled] {
        commands.extend([format!("show {id}"), format!("watch {id}")]);
    }
    commands.push(format!("submit {} x", all.replace(' ', "")));
    let mut shows_attacks = BTreeSet::new();
    for command in &commands {
        let plain: Vec<String> = command
            .split(' ')
            .map(|w| w.replace('\u{a0}', " "))
            .collect();
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
        let json: Vec<&str> = plain.iter().copied().chain(["--json"]).collect();
        let at_terminal = unpainted(&Program::run_at_terminal(&plain, &environment));
        for shown in [
            Program::run(&json, &environment).1,
            // A line of status is drawn over the last one.
            at_terminal.replace("\r\x1b[2K", ""),
        ] {
            let bad = shown.find(dangerous);
            let around = bad.map(|at| &shown[shown.floor_char_boundary(at.saturating_sub(80))..at]);
            assert_eq!(around, None, "{command} after this");
            if shown.contains(['␛', '<']) || shown.contains("\\u001b") {
                shows_attacks.insert(plain[0].to_owned());
            }
        }
    }
    // They were there to be shown.
    for command in [
        "show",
        "watch",
        "list",
        "changes",
        "sql",
        "audit",
        "permissions",
        "tasks",
        "conversations",
    ] {
        assert!(shows_attacks.contains(command), "{command} shows no attack");
    }
    let log = unpainted(&worker.log());
    let told = log.contains("attempt ended") && log.contains("http://evil");
    assert!(told, "{log}");
    assert!(!log.chars().any(dangerous), "{log:?}");
    assert!(
        !log.lines().any(|line| line.starts_with("ERROR forged")),
        "{log}"
    );
}
