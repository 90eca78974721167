//! Which changed files a reviewer must not overlook: those that act by themselves somewhere, or on
//! those who work here next. Pure. Names are compared as a file system without case would.

use serde_json::Value;

use super::tree_check::fold;
use crate::domain::change::{FileChange, FileKind};
use crate::domain::flag::Flag;

/// Contents of a changed file as far as its flags depend on them; absent: too large, or not read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contents<'c> {
    pub(super) old: Option<&'c [u8]>,
    pub(super) new: Option<&'c [u8]>,
}

/// A rule about names. The last component of a path is its file name, the others are directories.
enum Rule {
    /// Files of this name.
    File(&'static str),
    /// Files whose names begin so.
    Begins(&'static str),
    /// Files whose names end so.
    Ends(&'static str),
    /// All below a directory of this name.
    Dir(&'static str),
    /// All below a directory of this name in one of that name.
    DirIn(&'static str, &'static str),
    /// Files of such names in a directory of this name: its name, and how theirs end.
    EndsIn(&'static str, &'static str),
}

use Rule::{Begins, Dir, DirIn, Ends, EndsIn, File};

const RULES: &[(Flag, &[Rule])] = &[
    (
        Flag::RunsInCi,
        &[
            DirIn(".github", "workflows"),
            DirIn(".github", "actions"),
            File("action.yml"),
            File("action.yaml"),
            EndsIn(".github", ".yml"),
            EndsIn(".github", ".yaml"),
            Begins(".gitlab-ci"),
            Dir(".gitlab"),
            Dir(".gitea"),
            Dir(".forgejo"),
            Dir(".circleci"),
            Dir(".buildkite"),
            Dir(".teamcity"),
            Dir(".woodpecker"),
            Dir(".azure-pipelines"),
            Dir(".semaphore"),
            Dir(".ci"),
            Begins("jenkinsfile"),
            Begins("azure-pipelines"),
            Begins(".drone."),
            Begins(".woodpecker."),
            Begins("bitbucket-pipelines"),
            Begins("cloudbuild."),
            Begins("buildspec."),
            File(".travis.yml"),
            File(".cirrus.yml"),
            File("appveyor.yml"),
            File(".appveyor.yml"),
        ],
    ),
    (
        Flag::RunsAsHook,
        &[
            Dir(".husky"),
            Dir(".githooks"),
            Dir("githooks"),
            Begins("lefthook."),
            Begins(".lefthook."),
            Begins(".pre-commit-"),
            Begins(".huskyrc"),
            Begins(".lintstagedrc"),
            File(".overcommit.yml"),
            File(".envrc"),
            Dir(".direnv"),
            File(".autoenv"),
            File(".mise.toml"),
            File("mise.toml"),
        ],
    ),
    (
        Flag::RunsInBuild,
        &[
            File("makefile"),
            File("gnumakefile"),
            File("bsdmakefile"),
            Ends(".mk"),
            Ends(".mak"),
            File("justfile"),
            File(".justfile"),
            Begins("taskfile."),
            File("rakefile"),
            Ends(".rake"),
            File("cmakelists.txt"),
            Ends(".cmake"),
            File("configure"),
            File("configure.ac"),
            File("meson.build"),
            File("build.rs"),
            Dir(".cargo"),
            File("rust-toolchain.toml"),
            File("setup.py"),
            File("setup.cfg"),
            File("pyproject.toml"),
            File("conftest.py"),
            File("noxfile.py"),
            File("tox.ini"),
            File("sitecustomize.py"),
            File("usercustomize.py"),
            Ends(".pth"),
            File("package.json"),
            File(".npmrc"),
            Begins(".yarnrc"),
            Dir(".yarn"),
            File(".pnpmfile.cjs"),
            File("binding.gyp"),
            Begins("gruntfile."),
            Begins("gulpfile."),
            Begins("vite.config."),
            Begins("webpack.config."),
            Begins("rollup.config."),
            Begins("jest.config."),
            Begins("vitest.config."),
            Begins("babel.config."),
            Begins("eslint.config."),
            Begins(".eslintrc"),
            Begins("next.config."),
            Begins("dockerfile"),
            Ends(".dockerfile"),
            Begins("containerfile"),
            Begins("docker-compose"),
            File("compose.yml"),
            File("compose.yaml"),
            Ends(".gradle"),
            Ends(".gradle.kts"),
            File("gradlew"),
            File("gradle-wrapper.properties"),
            Dir("buildsrc"),
            File("pom.xml"),
            Dir(".mvn"),
            File("mvnw"),
            File("build.xml"),
            File("build.sbt"),
            Ends(".csproj"),
            Ends(".fsproj"),
            Ends(".vcxproj"),
            Ends(".targets"),
            Ends(".props"),
            Ends(".gemspec"),
            File("gemfile"),
            Ends(".bzl"),
            File("build.bazel"),
            Begins("workspace.bazel"),
            File(".bazelrc"),
            File("package.swift"),
            File("mix.exs"),
            File("flake.nix"),
            File("shell.nix"),
            File("default.nix"),
            File("vagrantfile"),
            File("procfile"),
        ],
    ),
    (
        Flag::RunsInEditor,
        &[
            Dir(".vscode"),
            Dir(".idea"),
            Dir(".devcontainer"),
            Dir(".zed"),
            Dir(".fleet"),
            Ends(".code-workspace"),
            File(".devcontainer.json"),
            File(".vimrc"),
            File(".exrc"),
            File(".nvimrc"),
            File(".nvim.lua"),
            File(".dir-locals.el"),
        ],
    ),
    (
        Flag::SteersAgents,
        &[
            File("claude.md"),
            File("claude.local.md"),
            File("agents.md"),
            File("agents.override.md"),
            File("agent.md"),
            File("gemini.md"),
            File("qwen.md"),
            File("codex.md"),
            File("warp.md"),
            File("conventions.md"),
            File("copilot-instructions.md"),
            Ends(".instructions.md"),
            Ends(".prompt.md"),
            Ends(".chatmode.md"),
            Ends(".agent.md"),
            File("skill.md"),
            DirIn(".github", "instructions"),
            DirIn(".github", "prompts"),
            DirIn(".github", "chatmodes"),
            DirIn(".github", "agents"),
            DirIn(".github", "copilot"),
            File("mcp.json"),
            File(".mcp.json"),
            Begins(".cursorrules"),
            File(".cursorignore"),
            File(".windsurfrules"),
            Begins(".clinerules"),
            Begins(".roorules"),
            Begins(".roomodes"),
            Begins(".aider"),
            File(".goosehints"),
            File("opencode.json"),
            File("opencode.jsonc"),
            File("llms.txt"),
            Dir(".claude"),
            Dir(".codex"),
            Dir(".gemini"),
            Dir(".qwen"),
            Dir(".cursor"),
            Dir(".opencode"),
            Dir(".agents"),
            Dir(".agent"),
            Dir(".windsurf"),
            Dir(".continue"),
            Dir(".clinerules"),
            Dir(".cline"),
            Dir(".roo"),
            Dir(".kiro"),
            Dir(".kilocode"),
            Dir(".amazonq"),
            Dir(".junie"),
            Dir(".goose"),
            Dir(".aider"),
            Dir(".trae"),
            Dir(".augment"),
            Dir(".factory"),
            // A server for tools may be named there.
            EndsIn(".vscode", "mcp.json"),
            EndsIn(".vscode", "settings.json"),
        ],
    ),
    (
        Flag::SteersGit,
        &[
            File(".gitattributes"),
            File(".gitmodules"),
            File(".gitignore"),
            File(".gitconfig"),
            File(".lfsconfig"),
            File(".mailmap"),
        ],
    ),
    (Flag::SteersReview, &[File("codeowners")]),
];

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

/// The flags of a file, the worst first.
pub(super) fn of(row: &FileChange, contents: Contents<'_>) -> Vec<Flag> {
    let mut flags = Vec::new();
    for (flag, rules) in RULES {
        let paths = [Some(&row.path), row.old_path.as_ref()];
        if paths.into_iter().flatten().any(|path| meets(path, rules)) {
            flags.push(*flag);
        }
    }
    if row.old_path.is_none() && name_of(&row.path) == "package.json" && is_idle(contents) {
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
    row.kind == FileKind::Symlink || name_of(&row.path) == "package.json"
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

/// Whether a package.json changed only where nothing runs.
fn is_idle(contents: Contents<'_>) -> bool {
    let parsed = |bytes: Option<&[u8]>| serde_json::from_slice::<Value>(bytes?).ok();
    let (Some(Value::Object(old)), Some(Value::Object(new))) =
        (parsed(contents.old), parsed(contents.new))
    else {
        return false;
    };
    let mut names = old.keys().chain(new.keys());
    names.all(|name| PACKAGE_IDLE.contains(&name.as_str()) || old.get(name) == new.get(name))
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
    use crate::domain::change::FileOperation;

    fn edit(path: &str) -> FileChange {
        FileChange {
            path: path.as_bytes().to_vec(),
            old_path: None,
            operation: FileOperation::Edit,
            kind: FileKind::Text,
            old_mode: Some(0o100_644),
            new_mode: Some(0o100_644),
            old_blob: Some("a".repeat(40)),
            new_blob: Some("b".repeat(40)),
            added_lines: None,
            removed_lines: None,
            patch: None,
            patch_cut: false,
            flags: Vec::new(),
        }
    }

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
                ".vscode/tasks.json",
                ".idea/x.xml",
                ".devcontainer/x",
                ".exrc",
            ],
        ),
        (
            "steers_git",
            &[".gitattributes", ".gitmodules", "sub/.gitignore"],
        ),
        (
            "steers_review",
            &["CODEOWNERS", ".github/CODEOWNERS", "docs/codeowners"],
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
            "Cargo.toml",
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
}
