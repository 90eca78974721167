//! `dispatch review` at a real terminal: what is shown is what is decided on, and only named keys
//! decide.

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use crate::harness::db::TestDb;
use crate::harness::program::Program;
use crate::harness::terminal::Terminal;

/// Changes of two projects, each of two files.
const CHANGES: &str = "
    INSERT INTO projects (name, path) VALUES ('shop', '/nowhere'), ('site', '/nowhere');
    INSERT INTO tasks (project, input, agent) VALUES ('shop', 'mend the cart', 'fake'), ('site', 'x', 'fake');
    DELETE FROM ready_tasks;
    INSERT INTO outcomes (task_id, token, seq, attempt, state)
    SELECT id, id, 2, 1, 'completed' FROM tasks;
    INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree,
        result_commit, result_ref, digest, files, added_lines, removed_lines)
    SELECT id, 1, id, project, 'b', 't', 'c', 'refs/dispatch/1/1', 'd' || id, 2, 2, 0 FROM tasks ORDER BY id;
    INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind, patch)
    SELECT c.id, f.n, f.path, f.path::bytea, 'edit', 'text', E'@@ -1 +1 @@\\n-old\\n+new ' || f.path || E'\\n'
      FROM pending_changes c, (VALUES (1, 'a.rs'), (2, 'b.rs')) f(n, path);";

struct Desk {
    db: TestDb,
    sql: Client,
}

impl Desk {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let sql = db.client().await;
        sql.batch_execute(CHANGES).await.unwrap();
        Self { db, sql }
    }

    fn review(&self, args: &[&str], environment: &[(&str, &str)]) -> Terminal {
        let args: Vec<&str> = ["review"].iter().chain(args).copied().collect();
        self.command(&args, environment)
    }

    fn command(&self, args: &[&str], environment: &[(&str, &str)]) -> Terminal {
        let url = self.db.url();
        let mut all = vec![("DATABASE_URL", url.as_str()), ("DISPATCH_ACTOR", "rea")];
        all.extend(environment);
        Terminal::start(args, &all)
    }

    async fn text(&self, query: &str) -> String {
        let query = format!("SELECT ({query})::text");
        let row = self.sql.query_one(&query, &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// States of the change and its files.
    async fn states(&self, change: i64) -> String {
        self.text(&format!(
            "SELECT c.state || ':' || string_agg(f.path || ' ' || f.state, ',' ORDER BY f.n)
               FROM pending_changes c JOIN pending_change_files f ON f.change_id = c.id
              WHERE c.id = {change} GROUP BY c.state"
        ))
        .await
    }

    /// All decisions, in order.
    async fn decisions(&self) -> String {
        self.text(
            "SELECT string_agg(concat_ws(' ', change_id, actor, verdict, files, digest, comment), '; ' ORDER BY id)
               FROM reviews",
        )
        .await
    }
}

const UNDECIDED: &str = "pending:a.rs pending,b.rs pending";

#[tokio::test]
async fn one_file_is_approved_and_another_set_aside_with_a_key_each() {
    let desk = Desk::new().await;
    let mut person = desk.review(&[], &[]);
    for shown in [
        "1 of 2 changes",
        "Change 1",
        "shop",
        "mend the cart",
        "edit a.rs",
        "+new a.rs",
    ] {
        person.sees(shown);
    }
    person.sees("Change 1, file 1 of 2");
    person.types("a");
    person.sees("+new b.rs");
    person.sees("file 2 of 2");
    person.types("r");
    person.sees("Why not this file?");
    person.types("too much\n");
    person.sees("Approve change 1, 1 of 2 files?");
    person.types("y");
    person.sees("Change 1 is approved");
    person.sees("2 of 2 changes");
    person.sees("Change 2, file 1 of 2");
    person.types("R");
    person.sees("Why not this change?");
    person.types("\n");
    person.sees("Nothing is rejected without a reason");
    person.types("R");
    person.sees("Why not this change?");
    person.types("no\n");
    person.sees("That was the last one.");
    assert_eq!(person.ends().0, 0);
    assert_eq!(desk.states(1).await, "approved:a.rs approved,b.rs rejected");
    assert_eq!(desk.states(2).await, "rejected:a.rs rejected,b.rs rejected");
    let decisions = "1 rea rejected {b.rs} d1 too much; 1 rea approved d1; 2 rea rejected d2 no";
    assert_eq!(desk.decisions().await, decisions);
}

#[tokio::test]
async fn a_change_that_became_another_one_is_shown_again_before_it_is_decided_on() {
    let desk = Desk::new().await;
    for (key, done, verdict) in [
        ("A", "is approved", "1 rea approved d1x"),
        (
            "R",
            "is rejected",
            "1 rea approved d1x; 2 rea rejected d2x why",
        ),
    ] {
        let id = if key == "A" { "1" } else { "2" };
        let mut person = desk.review(&[id], &[]);
        let decides = |person: &mut Terminal| {
            person.types(key);
            if key == "A" {
                person.sees("2 files? [y");
                person.types("y");
            } else {
                person.sees("Why");
                person.types("why\n");
            }
        };
        person.sees("file 1 of 2");
        let other = format!(
            "UPDATE pending_changes SET digest = digest || 'x' WHERE id = {id};
             UPDATE pending_change_files SET patch = '+another' WHERE change_id = {id}"
        );
        desk.sql.batch_execute(&other).await.unwrap();
        decides(&mut person);
        person.sees("Not done:");
        person.sees("as it is now");
        person.sees("+another");
        person.sees("file 1 of 2");
        decides(&mut person);
        person.sees(done);
        assert_eq!(person.ends().0, 0);
        assert_eq!(desk.decisions().await, verdict);
    }
}

#[tokio::test]
async fn a_change_that_somebody_else_decided_on_is_left() {
    let desk = Desk::new().await;
    let mut person = desk.review(&[], &[]);
    person.sees("Change 1, file 1 of 2");
    let gone = "SELECT reject_change(1, 'no', 'bob'), reject_change(2, 'no', 'bob')";
    desk.sql.batch_execute(gone).await.unwrap();
    person.types("A");
    person.sees("2 files? [y");
    person.types("y");
    person.sees("Change 1 is rejected now.");
    person.sees("That was the last one.");
    assert_eq!(person.ends().0, 0);
    let late = desk.review(&["1"], &[]);
    let (code, shown) = late.ends();
    assert_eq!(code, 5, "{shown}");
    assert!(shown.contains("dispatch changes show 1"), "{shown}");
}

#[tokio::test]
async fn comments_are_sent_as_a_request_that_the_editor_or_lines_complete() {
    let desk = Desk::new().await;
    let comments = |person: &mut Terminal| {
        person.sees("file 1 of 2");
        person.types("c");
        person.sees("What about this file?");
        person.types("a test, please\n");
        person.sees("1 comment, not sent yet");
        person.types("m");
    };
    let dir = tempfile::tempdir().unwrap();
    let editor = dir.path().join("an editor");
    let script = "#!/bin/sh\ngrep -q 'is sent to the agent' \"$1\" || exit 1\n\
                  { echo 'Shorter.'; cat \"$1\"; } > \"$1.new\" && mv \"$1.new\" \"$1\"\n";
    crate::harness::repo::write(&editor, script);
    crate::harness::repo::executable(&editor);
    let editor = format!("'{}'", editor.display());
    let mut person = desk.review(&["--project", "shop"], &[("VISUAL", &editor)]);
    comments(&mut person);
    person.sees("Shorter.");
    person.sees("Send this to the agent?");
    person.types("n");
    person.sees("Nothing is sent.");
    person.types("m");
    person.sees("Send this to the agent?");
    person.types("y");
    person.sees("works on it further: dispatch watch 3");
    person.sees("That was the last one.");
    assert_eq!(person.ends().0, 0);
    let mut person = desk.review(&["2"], &[]);
    comments(&mut person);
    person.sees("A line with nothing but a dot");
    person.types("And faster.\n.\n");
    person.sees("Send this to the agent?");
    person.types("y");
    person.sees("works on it further: dispatch watch 4");
    assert_eq!(person.ends().0, 0);
    let sent = "SELECT string_agg(input, '|' ORDER BY id) FROM tasks WHERE id > 2";
    assert_eq!(
        desk.text(sent).await,
        "Shorter.\na.rs: a test, please|a.rs: a test, please\nAnd faster."
    );
    assert_eq!(desk.states(1).await, UNDECIDED);
    assert!(
        desk.decisions()
            .await
            .contains("1 rea changes_requested d1")
    );
    // An editor that is left with an error sends nothing.
    let mut person = desk.review(&["1"], &[("EDITOR", "false")]);
    comments(&mut person);
    person.sees("nothing is sent");
    person.types("q");
    person.sees("Leave all the same?");
    person.types("y");
    assert_eq!(person.ends().0, 0);
    assert_eq!(desk.text("SELECT count(*) FROM tasks").await, "4");
}

#[tokio::test]
async fn leaving_decides_nothing_and_loses_no_comment_unsaid() {
    let desk = Desk::new().await;
    let mut person = desk.review(&[], &[]);
    person.sees("Change 1, file 1 of 2");
    // No key by itself decides, nor does one that has no meaning, nor what was typed ahead.
    person.types("\n\t\x1bzAyy");
    person.sees("2 files? [y");
    person.types("\n");
    person.sees("Nothing is approved.");
    person.types("c");
    person.sees("What about this file?");
    person.types("why?\n");
    person.sees("not sent yet");
    person.types("n\x1b[D");
    person.sees("You: why?");
    person.types("a");
    person.sees("file 2 of 2");
    person.types("q");
    person.sees("1 comment and 1 approved file are not sent.");
    person.types("q");
    person.sees("Change 1, file 2 of 2");
    person.types("s");
    person.sees("Leave all the same?");
    person.types("y");
    person.sees("a.rs: why?");
    person.sees("Change 2, file 1 of 2");
    person.types("q");
    assert_eq!(person.ends().0, 0);
    for change in [1, 2] {
        assert_eq!(desk.states(change).await, UNDECIDED);
    }
    assert_eq!(desk.decisions().await, "");
}

#[tokio::test]
async fn the_end_of_input_and_signals_decide_nothing_and_give_the_terminal_back() {
    let desk = Desk::new().await;
    type Ends = fn(&mut Terminal);
    let ways: [(Ends, u32); 4] = [
        (|person| person.types("\x04"), 0),
        (|person| person.types("\x03"), 130),
        (|person| person.signal(Signal::SIGTERM), 130),
        (|person| person.signal(Signal::SIGHUP), 130),
    ];
    for (end, code) in ways {
        let mut person = desk.review(&[], &[]);
        person.sees("file 1 of 2");
        person.types("c");
        person.sees("What about this file?");
        person.types("why?\n");
        person.sees("not sent yet");
        person.sees("[n p a r");
        assert!(!person.is_as_usual(), "keys are read one by one");
        end(&mut person);
        let (ended, shown) = person.ends();
        assert_eq!(ended, code, "{shown}");
        assert!(shown.contains("not sent:\na.rs: why?"), "{shown}");
    }
    // While a line is asked for, the end of input takes the question back, and Ctrl-C ends it all.
    let mut person = desk.review(&[], &[]);
    person.sees("file 1 of 2");
    person.types("R");
    person.sees("Why not");
    person.types("\x04");
    person.sees("Nothing is rejected");
    person.types("R");
    person.sees("Why not");
    person.types("half a reason\x03");
    assert_eq!(person.ends().0, 130);
    assert_eq!(desk.states(1).await, UNDECIDED);
    assert_eq!(desk.decisions().await, "");
}

#[tokio::test]
async fn a_terminal_without_single_keys_is_asked_for_lines() {
    let desk = Desk::new().await;
    let mut person = desk.review(&["1"], &[("TERM", "dumb")]);
    person.sees("file 1 of 2");
    assert!(person.is_as_usual());
    person.types("n\n");
    person.sees("file 2 of 2");
    person.types("A\n");
    person.sees("2 files? [y");
    person.types("y\n");
    let (code, shown) = person.ends();
    assert_eq!(code, 0);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert_eq!(desk.states(1).await, "approved:a.rs approved,b.rs approved");
}

#[tokio::test]
async fn nothing_of_an_agent_is_obeyed_by_the_reviewers_terminal() {
    let desk = Desk::new().await;
    let attack = "x\x1b]52;c;ZXZpbA==\x07\x1b[2J\u{9b}31m\u{202e}\r\x1b[KApprove";
    let lies = "UPDATE pending_change_files SET path = $1, patch = '+' || $1, flags = ARRAY[$1] WHERE change_id = 1 AND n = 1";
    desk.sql.execute(lies, &[&attack]).await.unwrap();
    desk.sql
        .execute(
            "UPDATE pending_changes SET notices = jsonb_build_array($1::text) WHERE id = 1",
            &[&attack],
        )
        .await
        .unwrap();
    let mut person = desk.review(&["1"], &[("DISPATCH_PAGER", "cat -u")]);
    person.sees("file 1 of 2");
    person.types("v");
    person.sees("ZXZpbA");
    person.sees("[n p a r");
    person.types("c");
    person.sees("What about");
    person.types("said\n");
    person.sees("1 comment");
    person.types("m");
    person.sees("nothing but a dot");
    person.types(".\n");
    person.sees("Send this");
    person.types("n");
    person.sees("Nothing is sent");
    person.types("q");
    person.sees("Leave");
    person.types("y");
    let (_, shown) = person.ends();
    let mut plain = shown;
    for code in ["0", "1", "2", "31", "32", "33", "36"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    let obeyed = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
    assert!(!plain.contains(obeyed), "{plain:?}");
    assert!(plain.contains("␛]52;c;"), "{plain}");
}

#[tokio::test]
async fn a_review_without_a_person_names_the_commands_for_programs() {
    let desk = Desk::new().await;
    let url = desk.db.url();
    let (code, said) = Program::run(&["review"], &[("DATABASE_URL", &url)]);
    assert_eq!(code, Some(2), "{said}");
    for command in ["dispatch changes show", "dispatch changes approve"] {
        assert!(said.contains(command), "{said}");
    }
    assert!(
        desk.review(&["--json"], &[])
            .ends()
            .1
            .contains("no_terminal")
    );
    let none = "UPDATE pending_changes SET state = 'superseded'";
    desk.sql.batch_execute(none).await.unwrap();
    let (code, said) = desk.review(&[], &[]).ends();
    assert_eq!(code, 0);
    assert!(said.contains("No change waits for review."), "{said}");
}

#[tokio::test]
async fn who_approves_without_a_digest_is_shown_the_diff_and_asked() {
    let desk = Desk::new().await;
    let plain = [("PAGER", "cat")];
    for answer in ["n", "\n", "\x04"] {
        let mut person = desk.command(&["changes", "approve", "1"], &plain);
        person.sees("+new a.rs");
        person.sees("+new b.rs");
        person.sees("Approve change 1, 2 files? y/N ");
        person.types(answer);
        let (code, shown) = person.ends();
        assert_eq!(code, 130, "{shown}");
        assert!(shown.ends_with("Nothing is decided.\n"), "{shown}");
    }
    assert_eq!(desk.decisions().await, "");
    let mut person = desk.command(&["changes", "reject", "1", "--file", "a.rs"], &plain);
    person.sees("Reject change 1, 1 of 2 files? y/N ");
    person.types("y");
    assert_eq!(person.ends().0, 0);
    let mut person = desk.command(&["changes", "approve", "1"], &plain);
    person.sees("Approve change 1");
    person.types("y");
    let (code, shown) = person.ends();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Approved."), "{shown}");
    let decisions = "1 rea rejected {a.rs} d1; 1 rea approved d1";
    assert_eq!(desk.decisions().await, decisions);
    // What is decided on already is no question.
    let (code, shown) = desk.command(&["changes", "approve", "1"], &plain).ends();
    assert_eq!(code, 5, "{shown}");
    assert!(!shown.contains("y/N"), "{shown}");
}

#[tokio::test]
async fn the_answer_is_for_the_change_that_was_shown_and_not_for_what_it_became() {
    let desk = Desk::new().await;
    let record = desk.db.client().await;
    let mut person = desk.command(&["changes", "approve", "1"], &[("PAGER", "cat")]);
    person.sees("y/N ");
    let other = "UPDATE pending_changes SET digest = 'd1x' WHERE id = 1";
    record.batch_execute(other).await.unwrap();
    person.types("y");
    let (code, shown) = person.ends();
    assert_eq!(code, 5, "{shown}");
    assert_eq!(desk.decisions().await, "");
}

#[tokio::test]
async fn without_a_person_a_decision_names_its_digest_or_is_refused() {
    let desk = Desk::new().await;
    let url = desk.db.url();
    let environment = [("DATABASE_URL", url.as_str())];
    for args in [
        &["changes", "approve", "1"][..],
        &["changes", "reject", "1", "--file", "a.rs"],
        &["--json", "changes", "approve", "1"],
    ] {
        let (code, said) = Program::run(args, &environment);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--digest"), "{said}");
        assert!(!said.contains("d1"), "no program is handed it: {said}");
    }
    let json = desk.command(&["--json", "changes", "approve", "1"], &[]);
    assert!(json.ends().1.contains("digest_required"));
    assert_eq!(desk.decisions().await, "");
    let named = ["changes", "approve", "1", "--digest", "d1"];
    assert_eq!(Program::run(&named, &environment).0, Some(0));
}
