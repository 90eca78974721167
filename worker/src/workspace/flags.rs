//! Which changed files a reviewer must not overlook: those that act by themselves somewhere, or on
//! those who work here next. Pure. Names are compared as a file system without case would.

use Rule::{Begins, Dir, DirIn, Ends, EndsIn, File};
use serde_json::Value;

use super::flag_rules::{RULES, Rule};
use super::tree_check::fold;
use crate::domain::change::{FileChange, FileKind};
use crate::domain::flag::Flag;

/// Contents of a changed file as far as its flags depend on them; absent: too large, or not read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contents<'c> {
    pub(super) old: Option<&'c [u8]>,
    pub(super) new: Option<&'c [u8]>,
}

/// Fields of a package.json that nothing runs; any other one may be.
const PACKAGE_IDLE: [&str; 11] = [
    "name",
    "version",
    "description",
    "keywords",
    "homepage",
    "bugs",
    "license",
    "author",
    "contributors",
    "repository",
    "funding",
];

/// Fields of a Cargo.toml that nothing runs, in `[package]` and `[workspace.package]` …
const CARGO_IDLE: [&str; 14] = [
    "name",
    "version",
    "authors",
    "description",
    "documentation",
    "readme",
    "homepage",
    "repository",
    "license",
    "license-file",
    "keywords",
    "categories",
    "publish",
    "rust-version",
];

/// … and tables of it. Every other one may bring code that the build runs: its own script, scripts
/// and macros of dependencies, wrappers of the compiler.
const CARGO_IDLE_TABLES: [&str; 2] = ["badges", "lints"];

/// The flags of a file, the worst first.
pub(super) fn of(row: &FileChange, contents: Contents<'_>) -> Vec<Flag> {
    let mut flags = Vec::new();
    for (flag, rules) in RULES {
        let paths = [Some(&row.path), row.old_path.as_ref()];
        if paths.into_iter().flatten().any(|path| meets(path, rules)) {
            flags.push(*flag);
        }
    }
    if row.old_path.is_none() && is_idle(&name_of(&row.path), contents) {
        flags.retain(|flag| *flag != Flag::RunsInBuild);
    }
    match row.kind {
        FileKind::Symlink => {
            let target = contents.new.or(contents.old).unwrap_or(b"/");
            flags.extend(leads_out(&row.path, target).then_some(Flag::LinkOutside));
            flags.push(Flag::Symlink);
        }
        FileKind::Submodule => flags.push(Flag::Submodule),
        FileKind::Text | FileKind::Binary => {}
    }
    if row.new_mode == Some(0o100_755) && row.old_mode != row.new_mode {
        flags.push(Flag::Executable);
    }
    if let (Some(old), Some(new)) = (row.old_mode, row.new_mode)
        && old != new
    {
        if old & 0o170_000 != new & 0o170_000 {
            flags.push(Flag::TypeChanged);
        }
        flags.push(Flag::ModeChanged);
    }
    flags
}

/// Whether the flags of a file of this name depend on what is in it.
pub(super) fn needs_contents(row: &FileChange) -> bool {
    let name = name_of(&row.path);
    row.kind == FileKind::Symlink || matches!(name.as_str(), "package.json" | "cargo.toml")
}

fn name_of(path: &[u8]) -> String {
    fold(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}

fn meets(path: &[u8], rules: &[Rule]) -> bool {
    let mut parts: Vec<String> = path.split(|byte| *byte == b'/').map(fold).collect();
    let Some(name) = parts.pop() else {
        return false;
    };
    let dirs = parts;
    let below = |wanted: &str| dirs.iter().any(|dir| dir == wanted);
    rules.iter().any(|rule| match *rule {
        File(wanted) => name == wanted,
        Begins(wanted) => name.starts_with(wanted),
        Ends(wanted) => name.ends_with(wanted),
        // A file in the place of the directory counts as well: a link may lead to one.
        Dir(wanted) => below(wanted) || name == wanted,
        DirIn(outer, inner) => {
            let mut all = dirs.iter().chain([&name]);
            all.any(|dir| dir == outer) && all.any(|dir| dir == inner)
        }
        EndsIn(dir, wanted) => {
            dirs.last().is_some_and(|last| last == dir) && name.ends_with(wanted)
        }
    })
}

/// Whether a list of what a build needs changed only where nothing runs.
fn is_idle(name: &str, contents: Contents<'_>) -> bool {
    let (Some(old), Some(new)) = (contents.old, contents.new) else {
        return false;
    };
    match name {
        "package.json" => {
            let parsed = |bytes| serde_json::from_slice::<Value>(bytes).ok();
            let busy = |bytes| without(parsed(bytes)?, &PACKAGE_IDLE);
            busy(old).is_some() && busy(old) == busy(new)
        }
        "cargo.toml" => busy_of_cargo(old).is_some() && busy_of_cargo(old) == busy_of_cargo(new),
        _ => false,
    }
}

/// What of a Cargo.toml decides about what runs; `None`: it cannot be read.
fn busy_of_cargo(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut all = without(toml::from_str::<Value>(text).ok()?, &CARGO_IDLE_TABLES)?;
    if let Some(workspace) = all.get_mut("workspace") {
        *workspace = without(workspace.take(), &CARGO_IDLE_TABLES)?;
    }
    for place in ["/package", "/workspace/package"] {
        if let Some(package) = all.pointer_mut(place) {
            *package = without(package.take(), &CARGO_IDLE)?;
        }
    }
    Some(all)
}

/// A document without these fields; `None`: it has none.
fn without(document: Value, fields: &[&str]) -> Option<Value> {
    let Value::Object(mut all) = document else {
        return None;
    };
    all.retain(|name, _| !fields.contains(&name.as_str()));
    Some(Value::Object(all))
}

/// Whether a link at this path leads to something outside of the tree (or into a git directory).
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    if target.starts_with(b"/") || target.contains(&b'\\') || target.contains(&b':') {
        return true;
    }
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            part if fold(part) == ".git" => return true,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::change::{FileOperation, edited as edit};

    fn flags(row: &FileChange) -> Vec<&'static str> {
        of(row, Contents::default())
            .into_iter()
            .map(Flag::as_str)
            .collect()
    }

    const TABLE: &[(&str, &[&str])] = &[
        (
            "steers_agents",
            &[
                "fast-agent.yaml",
                "fastagent.config.yaml",
                "sub/fastagent.secrets.yaml",
                ".fast-agent/skills/x.md",
                "opencode.json",
                "agents.toml",
                ".vibe/config.toml",
                "crush.json",
                "CLAUDE.md",
                "sub/AGENTS.md",
                "a/b/Gemini.MD",
                ".claude/settings.json",
                ".claude",
                ".codex/config.toml",
                ".gemini/settings.json",
                ".cursor/rules/x.mdc",
                ".cursorrules",
                ".mcp.json",
                "pkg/.mcp.json",
                ".aider.conf.yml",
                ".github/copilot-instructions.md",
                ".github/instructions/x.md",
                "x.instructions.md",
                ".windsurfrules",
                ".clinerules/x.md",
                "\u{ff21}GENTS.md",
                "AGENTS\u{200b}.md",
                ".kiro/steering/a.md",
            ],
        ),
        (
            "runs_as_hook",
            &[
                ".tool-versions",
                ".commitlintrc.yml",
                ".config/mise/config.toml",
                ".husky/pre-commit",
                ".githooks/pre-push",
                "lefthook.yml",
                ".envrc",
                "sub/.envrc",
                ".pre-commit-config.yaml",
                ".HUSKY/x",
            ],
        ),
        (
            "runs_in_ci",
            &[
                "renovate.json",
                ".tekton/x.yaml",
                ".github/workflows/ci.yml",
                ".github/actions/x/index.js",
                ".gitlab-ci.yml",
                ".circleci/config.yml",
                "Jenkinsfile",
                "Jenkinsfile.release",
                "azure-pipelines.yml",
                ".buildkite/pipeline.yml",
                ".drone.yml",
                ".github/dependabot.yml",
                "sub/action.yml",
                ".travis.yml",
                "bitbucket-pipelines.yml",
                ".GitHub/Workflows/x.yml",
                ".ci/run",
            ],
        ),
        (
            "runs_in_build",
            &[
                "Cargo.toml",
                "crates/x/Cargo.toml",
                "rust-toolchain",
                "rust-toolchain.toml",
                "pytest.ini",
                "composer.json",
                "bunfig.toml",
                "tailwind.config.js",
                "BUILD",
                "MODULE.bazel",
                "deps/build.jl",
                "tools/bazel",
                "app.xcodeproj/project.pbxproj",
                ".rspec",
                "build.zig",
                "Makefile",
                "a/rules.mk",
                "crates/x/build.rs",
                "package.json",
                "setup.py",
                "tests/conftest.py",
                ".cargo/config.toml",
                ".npmrc",
                "Dockerfile",
                "Dockerfile.dev",
                "app/build.gradle.kts",
                "pyproject.toml",
                "docker-compose.override.yml",
                "CMakeLists.txt",
                "x.csproj",
                "gradlew",
                "vite.config.ts",
            ],
        ),
        (
            "runs_in_editor",
            &[
                ".helix/languages.toml",
                ".gitpod.yml",
                ".gdbinit",
                ".run/x.run.xml",
                ".vscode/tasks.json",
                ".idea/x.xml",
                ".devcontainer/x",
                ".exrc",
            ],
        ),
        (
            "steers_git",
            &[
                ".gitattributes",
                ".gitmodules",
                "sub/.gitignore",
                ".git-blame-ignore-revs",
            ],
        ),
        (
            "steers_review",
            &[
                "CODEOWNERS",
                ".github/CODEOWNERS",
                "docs/codeowners",
                ".mergify.yml",
            ],
        ),
    ];

    #[test]
    fn files_that_act_by_themselves_are_flagged() {
        for (flag, paths) in TABLE {
            for path in *paths {
                assert_eq!(flags(&edit(path)), [*flag], "{path}");
            }
        }
        assert_eq!(
            flags(&edit(".vscode/mcp.json")),
            ["runs_in_editor", "steers_agents"]
        );
        let harmless = [
            "src/lib.rs",
            "README.md",
            "docs/makefile.md",
            "src/claude.rs",
            "github/workflows.md",
            ".github/ISSUE_TEMPLATE/bug.md",
            "package-lock.json",
            "agents/main.py",
            "src/hooks.ts",
            "a.github/workflows/x",
            "workflows/x.yml",
            "tests/ci_test.py",
            "Cargo.lock",
            "src/config.js",
            "build/main.rs",
            "docs/fast-agent.md",
            "owners/list.txt",
        ];
        for path in harmless {
            assert_eq!(flags(&edit(path)), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_rename_counts_at_both_of_its_places() {
        let mut moved = edit("old/ci.yml");
        moved.operation = FileOperation::Rename;
        moved.old_path = Some(b".github/workflows/ci.yml".to_vec());
        assert_eq!(flags(&moved), ["runs_in_ci"]);
    }

    #[test]
    fn modes_links_and_submodules_are_flagged() {
        let mut program = edit("run.sh");
        program.new_mode = Some(0o100_755);
        assert_eq!(flags(&program), ["executable", "mode_changed"]);
        program.old_mode = None;
        assert_eq!(flags(&program), ["executable"]);
        let mut module = edit("lib");
        (module.kind, module.new_mode) = (FileKind::Submodule, Some(0o160_000));
        assert_eq!(
            flags(&module),
            ["submodule", "type_changed", "mode_changed"]
        );
        let mut link = edit("a/b/link");
        (link.kind, link.new_mode, link.old_mode) = (FileKind::Symlink, Some(0o120_000), None);
        let with = |target: &str| {
            let contents = Contents {
                old: None,
                new: Some(target.as_bytes()),
            };
            of(&link, contents).contains(&Flag::LinkOutside)
        };
        for target in [
            "/etc/passwd",
            "../../../x",
            "../../c/../../x",
            "C:\\x",
            "../../.git/hooks",
            "x/../../../..",
        ] {
            assert!(with(target), "{target}");
        }
        for target in ["x", "../x", "../../x", "../c/../../x", "./x//y"] {
            assert!(!with(target), "{target}");
        }
        assert!(
            flags(&link).contains(&"link_outside"),
            "a target nobody read"
        );
    }

    #[test]
    fn a_package_json_counts_unless_only_its_description_changed() {
        let row = edit("web/package.json");
        let flagged = |old: &str, new: &str| {
            let contents = Contents {
                old: Some(old.as_bytes()),
                new: Some(new.as_bytes()),
            };
            !of(&row, contents).is_empty()
        };
        let old = r#"{"name": "a", "version": "1", "scripts": {"test": "x"}}"#;
        assert!(!flagged(
            old,
            r#"{"name": "a", "version": "2", "scripts": {"test": "x"}}"#
        ));
        assert!(flagged(
            old,
            r#"{"name": "a", "version": "1", "scripts": {"test": "y"}}"#
        ));
        assert!(flagged(old, r#"{"name": "a", "version": "1"}"#));
        assert!(flagged(
            old,
            r#"{"name": "a", "version": "1", "scripts": {"test": "x"}, "dependencies": {"b": "1"}}"#
        ));
        assert!(flagged(old, "no JSON"));
        assert!(flagged("{}", "[]"));
    }

    #[test]
    fn a_cargo_toml_counts_unless_only_its_description_changed() {
        let row = edit("crates/x/Cargo.toml");
        let flagged = |old: &str, new: &str| {
            let contents = Contents {
                old: Some(old.as_bytes()),
                new: Some(new.as_bytes()),
            };
            !of(&row, contents).is_empty()
        };
        assert!(needs_contents(&row));
        let old = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n[dependencies]\nb = \"1\"\n";
        let idle = "# a\n[package]\nversion = \"2.0.0\"\nname = \"c\"\n[lints.rust]\nunsafe_code = \"deny\"\n[dependencies]\nb = \"1\"\n";
        assert!(!flagged(old, idle));
        let workspace = "[workspace]\nmembers = []\n[workspace.package]\nlicense = \"MIT\"\n";
        assert!(!flagged(workspace, &workspace.replace("MIT", "ISC")));
        for more in [
            "[build-dependencies]\nc = \"1\"\n",
            "[patch.crates-io]\nb = { path = \"b\" }\n",
            "[profile.dev]\nopt-level = 1\n",
            "[lib]\nproc-macro = true\n",
            "c = \"1\"\n",
            "[package.metadata.x]\nrun = \"y\"\n",
            "not TOML",
        ] {
            assert!(flagged(old, &format!("{old}{more}")), "{more}");
        }
        assert!(flagged(
            old,
            &old.replace("version", "build = \"x.rs\"\nversion")
        ));
        assert!(flagged(workspace, &workspace.replace("[]", "[\"x\"]")));
    }
}
