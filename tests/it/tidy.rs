//! House rules as tests. Each failure says what to do; a rule that needs an exception has a table
//! of them here, with the reason.

use std::path::{Path, PathBuf};

use crate::harness::db::migration_files;

/// Lines of a source file, its tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Which module may import which; a longer path allows only what is below it. `blocking` and
/// `telemetry` are for all.
const IMPORTS: [(&str, &[&str]); 22] = [
    ("domain", &[]),
    ("config", &["domain"]),
    ("store", &["domain", "config"]),
    // Confines what agent and workspace start; knows neither.
    ("sandbox", &["domain", "config", "gateway", "sys"]),
    ("sys", &[]),
    ("agent", &["domain", "config", "sandbox", "sys", "toolhost"]),
    // A program of its own, inside the sandbox.
    ("toolhost", &["domain"]),
    ("workspace", &["domain", "config", "sandbox"]),
    ("gateway", &["domain", "config"]),
    ("broker", &["domain", "store"]),
    (
        "run",
        &[
            "domain",
            "config",
            "store",
            "agent",
            "workspace",
            "broker",
            "sandbox",
        ],
    ),
    // The queue probes agents and ends those of killed workers; it never drives one.
    (
        "queue",
        &[
            "domain",
            "config",
            "store",
            "workspace",
            "broker::writer",
            "run",
            "sandbox",
            "agent::catalog",
            "agent::process",
            // Whose provider is paused gets no tasks.
            "agent::native",
            // Made once for a worker.
            "agent::llm",
            // Tries an agent when somebody asks.
            "check",
        ],
    ),
    // Drives an agent as `run` does, and stores nothing.
    ("check", &["domain", "config", "agent", "sandbox"]),
    ("ops", &["domain", "config", "store", "broker"]),
    ("surface", &["domain", "config", "broker", "ops", "localpg"]),
    ("localpg", &["domain", "config"]),
    ("telemetry", &["domain", "config"]),
    ("blocking", &[]),
    (
        "bench",
        &[
            "domain", "config", "store", "broker", "queue", "agent", "sandbox",
        ],
    ),
    // Built for tests and fuzz targets only.
    (
        "fuzz",
        &[
            "domain",
            "config",
            "agent",
            "workspace",
            "gateway",
            "toolhost",
        ],
    ),
    // The two that put the parts together.
    (
        "roles",
        &[
            "domain",
            "config",
            "store",
            "broker",
            "agent",
            "workspace",
            "sandbox",
            "queue",
            "run",
            "check",
            "ops",
            "surface",
            "localpg",
            "bench",
        ],
    ),
    (
        "main",
        &[
            "config",
            "surface",
            "roles",
            "bench",
            "sandbox",
            "telemetry",
            "toolhost",
        ],
    ),
];

/// Imported from everywhere.
const FOR_ALL: [&str; 2] = ["blocking", "telemetry"];

/// The only places that may start programs or detached work (what clippy.toml forbids), by the
/// beginning of their path, with what they start.
const STARTERS: [(&str, &str); 14] = [
    (
        "worker/src/sandbox/stages.rs",
        "what stands between the worker and an agent",
    ),
    ("worker/src/sandbox/probe.rs", "the same, for a trial"),
    ("worker/src/blocking.rs", "blocking work"),
    ("worker/src/localpg/command.rs", "Postgres"),
    ("worker/src/workspace/git.rs", "git"),
    (
        "worker/src/workspace/process.rs",
        "git and hooks, for the two files beside it",
    ),
    (
        "worker/src/workspace/hooks.rs",
        "the operator's setup and teardown lines",
    ),
    ("worker/src/agent/process.rs", "agents"),
    (
        "worker/src/toolhost/shell/group.rs",
        "commands of the native agent, inside its sandbox",
    ),
    ("worker/src/agent/pty/", "agents in a terminal"),
    ("worker/src/agent/pty.rs", "agents in a terminal"),
    (
        "worker/src/bench/sandbox.rs",
        "a bare spawn beside confined ones",
    ),
    ("worker/src/main.rs", "psql for dispatch sql"),
    (
        "worker/src/surface/cli/programs.rs",
        "the pager and the editor of the person at the terminal",
    ),
];

/// Texts outside the store that look like SQL and are none.
const NOT_SQL: [(&str, &str); 0] = [];

/// A source file with its path from the repository's root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// What ships: everything above the unit tests.
    fn product(&self) -> &str {
        let tests = self
            .text
            .match_indices("\n#[cfg(test)]\n")
            .find(|(at, marker)| {
                let below = &self.text[at + marker.len()..];
                below.lines().take(3).any(|line| line.starts_with("mod "))
            });
        &self.text[..tests.map_or(self.text.len(), |(at, _)| at)]
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Files below a directory with one of these extensions ("" for none), in order.
fn sources(below: &str, extensions: &[&str]) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.join(below)];
    while let Some(dir) = open.pop() {
        for entry in
            std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.unwrap().path();
            let relative = path
                .strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let is_link = path.symlink_metadata().unwrap().is_symlink();
            if path.is_dir() && !is_link {
                if !is_private(&path) {
                    open.push(path);
                }
                continue;
            }
            if path.ends_with(".env") {
                continue;
            }
            let extension = path
                .extension()
                .map_or("", |extension| extension.to_str().unwrap_or(""));
            if !is_link && extensions.contains(&extension) {
                // Fixtures may hold bytes that are no text; those are nobody's source.
                if let Ok(text) = std::fs::read_to_string(&path) {
                    found.push(Source {
                        path: relative,
                        text,
                    });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        !found.is_empty(),
        "nothing found below {below}: the rule would check nothing"
    );
    found
}

/// Build output, and what a person's tools keep beside the sources.
fn is_private(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let ours = [".ci", ".config", ".github", ".cargo"].contains(&name.as_ref());
    name == "target" || name == "node_modules" || (name.starts_with('.') && !ours)
}

#[track_caller]
fn none(faults: &[String], advice: &str) {
    assert!(faults.is_empty(), "\n{}\n\n{advice}\n", faults.join("\n"));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn a_file_is_one_noun_and_fits_a_mind() {
    let faults: Vec<String> = sources("worker/src", &["rs"])
        .iter()
        .filter(|source| !source.path.ends_with("/tests.rs"))
        .map(|source| (source, source.product().lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(source, lines)| format!("{} has {lines} lines without its tests", source.path))
        .collect();
    none(
        &faults,
        &format!("Split it by noun: 300 lines are wanted, {FILE_LINES_MAX} are the limit."),
    );
}

/// Clippy counts the lines of functions better than a search does; this keeps it switched on.
#[test]
fn a_function_fits_a_screen() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    assert!(
        read("clippy.toml").contains("too-many-lines-threshold = 90"),
        "clippy.toml must keep too-many-lines-threshold = 90"
    );
    assert!(
        read("Cargo.toml").contains("too_many_lines = \"warn\""),
        "Cargo.toml must keep the lint too_many_lines on"
    );
}

/// Paths below the crate's root that a text names, groups taken apart.
fn crate_paths(text: &str, root_name: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root_name) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        expand("", &code[at + root_name.len()..], &mut found);
    }
    found
}

/// Read one path (`a::b`, `a::{b, c::d}`, `{a, b}`) from the start of `rest`; give back what
/// follows it.
fn expand<'a>(prefix: &str, rest: &'a str, found: &mut Vec<String>) -> &'a str {
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(rest.len());
    let (path, mut rest) = rest.split_at(end);
    let here = format!("{prefix}{path}");
    let Some(inside) = rest.strip_prefix('{') else {
        let whole = here.trim_end_matches(':').to_owned();
        if !path.is_empty() {
            found.push(whole);
        }
        return rest;
    };
    rest = inside;
    while !rest.is_empty() {
        let item = rest.trim_start();
        if let Some(after) = item.strip_prefix('}') {
            return after;
        }
        let after = expand(&here, item, found);
        // A comma, a rename or a glob up to the next item.
        let next = after.find([',', '}']).unwrap_or(after.len());
        rest = after[next..].strip_prefix(',').unwrap_or(&after[next..]);
    }
    rest
}

fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("worker/src/").unwrap_or(path);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn modules_import_only_downwards() {
    let mut faults = Vec::new();
    for source in sources("worker/src", &["rs"]) {
        let module = module_of(&source.path);
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            faults.push(format!(
                "{}: module {module} has no row in the table IMPORTS",
                source.path
            ));
            continue;
        };
        let mut named = crate_paths(source.product(), "crate::");
        if module == "main" {
            named.extend(crate_paths(source.product(), "dispatch_worker::"));
        }
        for path in named {
            let top = path.split("::").next().unwrap_or_default();
            let inside = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
            let is_module = IMPORTS.iter().any(|(name, _)| *name == top);
            if is_module
                && top != module
                && !FOR_ALL.contains(&top)
                && !allowed.iter().any(|a| inside(a))
            {
                faults.push(format!("{}: {module} must not know {path}", source.path));
            }
        }
    }
    none(
        &faults,
        "Move the code to the module that may know it, or pass what it needs as an argument. The table is IMPORTS in tests/it/tidy.rs.",
    );
}

#[test]
fn imports_are_read_in_each_form() {
    let text = "use crate::store::tasks;\nuse crate::{agent::{x, y::Z}, run};\nlet a = crate::queue::Slot;\n\
                // crate::ops\nother_crate::surface\nuse crate::config::{\n    self, a as b,\n    c,\n};";
    let found = crate_paths(text, "crate::");
    let wanted = [
        "store::tasks",
        "agent::x",
        "agent::y::Z",
        "run",
        "queue::Slot",
        "config::self",
        "config::a",
        "config::c",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn only_the_store_has_sql() {
    const BEGINNINGS: [&str; 12] = [
        "SELECT ",
        "INSERT INTO ",
        "UPDATE ",
        "DELETE FROM ",
        "WITH ",
        "CREATE TABLE ",
        "CREATE DATABASE ",
        "ALTER ",
        "DROP ",
        "TRUNCATE ",
        "LISTEN {",
        "NOTIFY {",
    ];
    let mut faults = Vec::new();
    for source in sources("worker/src", &["rs"]) {
        if source.path.starts_with("worker/src/store/")
            || NOT_SQL.iter().any(|(path, _)| *path == source.path)
        {
            continue;
        }
        for (n, line) in source
            .product()
            .lines()
            .enumerate()
            .filter(|(_, line)| !is_comment(line))
        {
            let begins = |text: &str| {
                BEGINNINGS
                    .iter()
                    .any(|word| text.trim_start().starts_with(word))
            };
            if line.split('"').skip(1).step_by(2).any(begins) {
                faults.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    none(
        &faults,
        "Put the statement into worker/src/store/sql and a function into worker/src/store. A text for people that only looks like SQL goes into the table NOT_SQL.",
    );
}

#[test]
fn a_silenced_lint_has_a_reason() {
    let mut faults = Vec::new();
    for source in ["worker", "tests"]
        .iter()
        .flat_map(|below| sources(below, &["rs"]))
    {
        for opening in ["[allow(", "[expect("] {
            for (at, _) in source.text.match_indices(opening) {
                let line_start = source.text[..at].rfind('\n').map_or(0, |end| end + 1);
                let before = source.text[line_start..at].trim();
                if before != "#" && before != "#!" {
                    continue;
                }
                let attribute = source.text[at..].split(")]").next().unwrap_or_default();
                if !attribute.contains("reason") {
                    let line = source.text[..at].lines().count();
                    faults.push(format!(
                        "{}:{line}: {}",
                        source.path,
                        attribute.lines().next().unwrap_or_default()
                    ));
                }
            }
        }
    }
    none(
        &faults,
        "Write #[expect(lint, reason = \"…\")], or better, remove the cause.",
    );
}

#[test]
fn programs_are_started_in_few_places() {
    let mut faults = Vec::new();
    for source in sources("worker/src", &["rs"]) {
        let known = STARTERS
            .iter()
            .any(|(place, _)| source.path.starts_with(place));
        for (n, line) in source
            .product()
            .lines()
            .enumerate()
            .filter(|(_, line)| !is_comment(line))
        {
            let starts =
                line.contains("clippy::disallowed_methods") || line.contains("CommandBuilder::new");
            if starts && !known {
                faults.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    let places: Vec<String> = STARTERS
        .iter()
        .map(|(place, what)| format!("{what}: {place}"))
        .collect();
    none(
        &faults,
        &format!("Use the one place that starts it:\n{}", places.join("\n")),
    );
}

#[test]
fn tests_wait_for_facts_and_never_for_time() {
    let mut faults = Vec::new();
    for source in sources("tests/it", &["rs"]) {
        if source.path == "tests/it/harness/mod.rs" {
            continue;
        }
        for (n, line) in source.lines().filter(|(_, line)| !is_comment(line)) {
            if line.contains(concat!("sleep", "(")) {
                faults.push(format!("{}:{n}: {}", source.path, line.trim()));
            }
        }
    }
    none(
        &faults,
        "Await the signal, or poll the condition with harness::eventually(what, bound, …).",
    );
}

#[test]
fn no_source_file_is_forgotten() {
    let mut faults = Vec::new();
    for (below, tops) in [
        ("tests/it", ["tests/it/main.rs", ""]),
        ("worker/src", ["worker/src/lib.rs", "worker/src/main.rs"]),
    ] {
        let all = sources(below, &["rs"]);
        for source in &all {
            if tops.contains(&source.path.as_str()) || source.path.contains("/bin/") {
                continue;
            }
            let own = source
                .path
                .strip_suffix("/mod.rs")
                .or(source.path.strip_suffix(".rs"))
                .unwrap_or_default();
            let (dir, name) = own.rsplit_once('/').unwrap_or_default();
            let parents = [format!("{dir}/mod.rs"), format!("{dir}.rs")];
            let is_parent = |path: &String| {
                parents.contains(path) || (dir == below && tops.contains(&path.as_str()))
            };
            let declaration = format!("mod {name};");
            let declared = all
                .iter()
                .filter(|parent| is_parent(&parent.path))
                .any(|parent| {
                    parent
                        .text
                        .lines()
                        .any(|line| line.trim().ends_with(&declaration) && !is_comment(line))
                });
            if !declared {
                faults.push(source.path.clone());
            }
        }
    }
    none(
        &faults,
        "Nobody compiles these files: add the mod line, or delete them.",
    );
}

#[test]
fn nothing_committed_is_of_one_machine_or_unfinished() {
    let machine = [concat!("/wo", "rk/"), concat!("/tmp", "/w/")];
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let kinds = [
        "rs", "sql", "toml", "sh", "py", "yml", "yaml", "md", "json", "html", "css", "js", "txt",
        "",
    ];
    let mut faults = Vec::new();
    for source in sources(".", &kinds) {
        let is_code = !source.path.ends_with(".md") && !source.path.contains("fixtures/");
        for (n, line) in source.lines() {
            let from_here = machine.iter().any(|path| {
                line.match_indices(path).any(|(at, _)| {
                    // Part of a longer path, such as …/my/work/, is nobody's machine.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.~}$*/".contains(c))
                })
            });
            let left = is_code && unfinished.iter().any(|word| line.contains(word));
            if from_here || left {
                faults.push(format!("{}:{n}: {}", source.path, line.trim()));
            }
        }
    }
    none(
        &faults,
        "Paths come from the environment or a temporary directory; unfinished work is finished or an issue.",
    );
}

#[test]
fn dependencies_come_from_the_public_registry_only() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let lock = read("Cargo.lock") + &read("fuzz/Cargo.lock");
    let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let faults: Vec<String> = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != public)
        .map(str::to_owned)
        .collect();
    none(&faults, "Depend on a release on crates.io.");
}

#[test]
fn migrations_are_numbered_without_gaps_and_have_sense_in_their_names() {
    let names: Vec<String> = migration_files()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(!names.is_empty());
    let all = std::fs::read_dir(root().join("migrations"))
        .unwrap()
        .count();
    let others = ["README.md"]
        .iter()
        .filter(|name| root().join("migrations").join(name).exists())
        .count();
    assert_eq!(
        all,
        names.len() + others,
        "only V<number>__<what>.sql files live in migrations/"
    );
    for (n, name) in names.iter().enumerate() {
        let what = name
            .strip_prefix(&format!("V{}__", n + 1))
            .and_then(|rest| rest.strip_suffix(".sql"));
        let what =
            what.unwrap_or_else(|| panic!("{name}: the next migration is V{}__<what>.sql", n + 1));
        let plain = what
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(
            plain && what.len() > 2,
            "{name}: name it in lower_case words"
        );
    }
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(root().join("scripts")).expect("scripts/") {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let runnable = path.metadata().unwrap().permissions().mode() & 0o111 != 0;
        if text.starts_with("#!") != runnable {
            faults.push(path.display().to_string());
        }
    }
    none(
        &faults,
        "A script has a #! line and is executable; a library of functions is neither.",
    );
}
