//! Long answers go through the pager of the person, and through nobody else's.

use crate::harness::db::TestDb;
use crate::harness::program::Program;
use crate::harness::terminal::Terminal;

const LONG: &str = "
    INSERT INTO projects (name, path) VALUES ('shop', '/nowhere');
    INSERT INTO tasks (project, input, agent) VALUES ('shop', 'x', 'fake');
    INSERT INTO pending_changes (task_id, attempt, token, project, base_commit, result_tree,
        result_commit, result_ref, digest, files, added_lines, removed_lines)
    VALUES (1, 1, 1, 'shop', 'b', 't', 'c', 'refs/dispatch/1/1', 'd1', 1, 2, 0);
    INSERT INTO pending_change_files (change_id, n, path, path_bytes, operation, kind, patch)
    SELECT 1, 1, 'a.rs', 'a.rs', 'edit', 'text', string_agg('+line ' || n, E'\\n' ORDER BY n)
      FROM generate_series(1, 20000) n;";

#[tokio::test]
async fn a_diff_at_a_terminal_goes_through_the_pager_that_is_named() {
    let db = TestDb::new().await;
    db.client().await.batch_execute(LONG).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shown");
    let url = db.url();
    let recorder = format!("cat > '{}'; env | grep ^LESS >> '{0}'", file.display());
    let at = |args: &[&str], more: &[(&str, &str)]| {
        let mut environment = vec![("DATABASE_URL", url.as_str()), ("PAGER", recorder.as_str())];
        environment.extend(more);
        let (code, screen) = Terminal::start(args, &environment).ends();
        assert_eq!(code, 0, "{screen}");
        let recorded = std::fs::read_to_string(&file).ok();
        let _again = std::fs::remove_file(&file);
        (screen, recorded)
    };
    let show = ["changes", "show", "1"];
    let (screen, paged) = at(&show, &[]);
    let paged = paged.unwrap();
    assert_eq!(screen, "");
    for part in [
        "\x1b[32m+line 1\x1b[0m\n",
        "+line 20000",
        "Decide:",
        "LESS=FRX",
    ] {
        assert!(paged.contains(part), "{part}");
    }
    let (_, plain) = at(&show, &[("NO_COLOR", "1")]);
    assert!(!plain.unwrap().contains('\x1b'));
    // Ours comes before everybody's, also to say that none is wanted.
    let own = recorder.as_str();
    for (more, on_screen) in [
        ([("DISPATCH_PAGER", own), ("PAGER", "false")], false),
        ([("DISPATCH_PAGER", ""), ("PAGER", own)], true),
        ([("DISPATCH_PAGER", "cat"), ("PAGER", own)], true),
        ([("LESS", "R"), ("PAGER", "")], true),
        // One that is not there is no reason to show nothing …
        ([("LESS", "R"), ("PAGER", "no-such-pager")], true),
    ] {
        let (screen, paged) = at(&show, &more);
        assert_eq!(screen.contains("+line 20000"), on_screen, "{more:?}");
        assert_eq!(paged.is_some(), !on_screen, "{more:?}");
    }
    // … and one that was left early is no fault.
    assert_eq!(at(&show, &[("PAGER", "head -n 1 > /dev/null")]).0, "");
    let (screen, paged) = at(&["--no-pager", "changes", "show", "1"], &[]);
    assert!(screen.contains("+line 20000") && paged.is_none());
    let (screen, paged) = at(&["--json", "changes", "show", "1"], &[]);
    assert!(screen.contains("+line 20000") && paged.is_none());
    assert!(at(&["tasks", "events", "1"], &[]).1.is_some());
    assert!(at(&["list"], &[]).1.is_none());
    let environment = [("DATABASE_URL", url.as_str()), ("PAGER", own)];
    let (code, piped) = Program::run(&show, &environment);
    assert_eq!(code, Some(0));
    assert!(piped.contains("+line 20000") && !piped.contains('\x1b') && !file.exists());
    let forced = [environment[0], ("CLICOLOR_FORCE", "1")];
    assert!(
        Program::run(&show, &forced)
            .1
            .contains("\x1b[32m+line 1\x1b")
    );
    let never = [forced[0], forced[1], ("NO_COLOR", "1")];
    assert!(!Program::run(&show, &never).1.contains('\x1b'));
}
