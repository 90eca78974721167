//! Runs every statement of docs/sql.md that says so, in order, against a fresh database.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::db::TestDb;

/// What the page takes as given, by the comment that stands before a block.
const GIVENS: [(&str, &str); 7] = [
    (
        "a project with two agents",
        "INSERT INTO projects(name, path) VALUES ('shop', '/srv/repos/shop');
         INSERT INTO settings VALUES ('default_agent', 'quick');
         INSERT INTO catalogue_agents(name) VALUES ('careful'), ('quick');
         INSERT INTO agent_offers(worker_id, name, status, execution_path, expires_at)
         SELECT gen_random_uuid(), a, 'ready', 'acp', now() + interval '1 hour'
           FROM unnest(ARRAY['careful', 'quick']) a;",
    ),
    (
        "a live worker",
        "INSERT INTO workers(id, name, version, slots, tries_agents) VALUES (gen_random_uuid(), 'build-7', '1', 1, true);
         INSERT INTO agent_offers(worker_id, name, status, execution_path, expires_at)
         SELECT id, 'careful', 'ready', 'acp', now() + interval '1 hour' FROM workers;",
    ),
    (
        "three changes",
        "WITH done AS (INSERT INTO tasks(project, input)
                       SELECT 'shop', 'task of a change' FROM generate_series(1, 3) RETURNING id),
              ended AS (INSERT INTO outcomes(task_id, seq, attempt, state)
                        SELECT id, 2, 1, 'completed' FROM done),
              made AS (INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree,
                           result_commit, result_ref, digest, files, added_lines, removed_lines)
                       SELECT id, 1, id, 'shop', 'base', 'tree', 'commit', 'refs/dispatch/' || id || '/1',
                              'd' || row_number() OVER (ORDER BY id), 2, 3, 1 FROM done ORDER BY id
                       RETURNING id)
         INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind, patch)
         SELECT m.id, f.n, f.path, f.path::bytea, 'edit', 'text', '@@'
           FROM made m, (VALUES (1, 'src/cart.py'), (2, 'src/extra.py')) f(n, path);
         DELETE FROM ready_tasks r USING outcomes o WHERE o.task_id = r.task_id;",
    ),
    (
        "somebody's change",
        "WITH made AS (INSERT INTO tasks(project, input, submitted_by) VALUES ('shop', 'x', 'ada') RETURNING id),
              change AS (INSERT INTO pending_changes(task_id, attempt, token, project, base_commit, result_tree,
                             result_commit, result_ref, digest, files, added_lines, removed_lines)
                         SELECT id, 1, id, 'shop', 'base', 'tree', 'commit', 'ref', 'd4', 1, 3, 1 FROM made
                         RETURNING id)
         INSERT INTO pending_change_files(change_id, n, path, path_bytes, operation, kind)
         SELECT id, 1, 'src/cart.py', 'src/cart.py', 'edit', 'text' FROM change;",
    ),
    (
        "something was said",
        "INSERT INTO conversations(id, project, agent) VALUES (1, 'shop', 'quick');
         INSERT INTO messages(conversation_id, seq, ord, task_id, attempt, step, role, parts)
         VALUES (1, 1, 1, 1, 1, 0, 'user', '[{\"type\": \"text\", \"text\": \"Fix it\"}]');",
    ),
    (
        "a provider that is paused",
        "INSERT INTO provider_pauses(provider, until, class, message)
         VALUES ('anthropic', now() + interval '1 hour', 'billing', 'Your credit balance is too low.');",
    ),
    (
        "an open question",
        "INSERT INTO permission_requests(task_id, attempt, token, agent, kind, title, deadline_at)
         VALUES (1, 1, 1, 'careful', 'execute', 'ls -l', now() + interval '1 minute');",
    ),
];

struct Block {
    line: usize,
    given: Option<String>,
    sql: String,
    /// SQLSTATE that the block must end with.
    error: Option<String>,
    /// First value of the last result.
    answer: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut given = None;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(what) = line
            .strip_prefix("<!-- given: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
        {
            given = Some(what.to_owned());
        }
        let Some(mode) = line.strip_prefix("```sql") else {
            continue;
        };
        let mut block = Block {
            line: number + 1,
            given: given.take(),
            sql: String::new(),
            error: mode.strip_prefix(" tested error ").map(str::to_owned),
            answer: None,
        };
        assert!(
            mode == " tested" || block.error.is_some(),
            "line {}: say ```sql tested",
            number + 1
        );
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            match line.strip_prefix("-- → ") {
                Some(answer) => block.answer = Some(answer.to_owned()),
                None => block.sql.push_str(&format!("{line}\n")),
            }
        }
        found.push(block);
    }
    found
}

async fn check(client: &Client, block: &Block) {
    let at = format!("docs/sql.md line {}", block.line);
    if let Some(what) = &block.given {
        let (_, sql) = GIVENS
            .iter()
            .find(|(name, _)| name == what)
            .unwrap_or_else(|| panic!("{at}: given {what}"));
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{at}: given {what}: {error:?}"));
    }
    match (client.simple_query(&block.sql).await, &block.error) {
        (Ok(_), Some(code)) => panic!("{at}: it succeeds, error {code} is documented"),
        (Err(error), Some(code)) => {
            let db = error
                .as_db_error()
                .unwrap_or_else(|| panic!("{at}: {error:?}"));
            assert_eq!(db.code().code(), code, "{at}: {}", db.message());
        }
        (Err(error), None) => panic!("{at}: {error:?}"),
        (Ok(messages), None) => {
            let mut last = None;
            let mut in_result = false;
            for message in &messages {
                match message {
                    SimpleQueryMessage::Row(row) if !in_result => {
                        last = Some(row.get(0).unwrap_or("").to_owned());
                        in_result = true;
                    }
                    SimpleQueryMessage::CommandComplete(_) => in_result = false,
                    _ => {}
                }
            }
            if block.answer.is_some() {
                assert_eq!(last, block.answer, "{at}");
            }
        }
    }
}

#[tokio::test]
async fn the_sql_page_says_what_happens() {
    let page = include_str!("../../docs/sql.md");
    let blocks = blocks(page);
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    let db = TestDb::new().await;
    let client = db.client().await;
    for block in &blocks {
        check(&client, block).await;
    }
}

/// The tables of the page name every column that people can set or read, and no other.
#[tokio::test]
async fn the_sql_page_names_every_column_and_function() {
    let page = include_str!("../../docs/sql.md");
    let db = TestDb::new().await;
    let client = db.client().await;
    let columns = "SELECT table_name::text, column_name::text FROM information_schema.columns
                   WHERE table_schema = 'public' AND table_name IN ('tasks', 'task_status', 'projects')";
    for row in client.query(columns, &[]).await.unwrap() {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        assert!(
            page.contains(&format!("`{column}`"))
                || (table == "projects" && column == "created_at"),
            "docs/sql.md does not name {table}.{column}"
        );
    }
    let functions = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    let all: Vec<String> = client
        .query(functions, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let named = page.lines().filter_map(|line| {
        line.strip_prefix("| `")?
            .split_once('(')
            .map(|(name, _)| name)
    });
    let named: Vec<&str> = named
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(named.len() >= 8, "{named:?}");
    for function in named {
        assert!(
            all.iter().any(|known| known == function),
            "there is no function {function}"
        );
    }
}
