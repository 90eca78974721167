//! What the types of agents.toml cannot say: which settings make sense together.

use std::path::{Component, Path, PathBuf};

use super::agent_spec::{AgentSpec, Output, PromptVia, UsageFormat};
use super::secret_file;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::sandbox::{Demand, Network};

/// Kinds a permission policy may name.
const PERMISSION_KINDS: [&str; 10] = [
    "read",
    "edit",
    "delete",
    "move",
    "search",
    "execute",
    "think",
    "fetch",
    "switch_mode",
    "other",
];

/// Names that never reach an agent, whatever an entry says: the queue's credentials and the
/// variables that make an agent believe it runs inside another one.
pub const ENV_FORBIDDEN: [&str; 9] = [
    "DATABASE_URL",
    "DATABASE_LISTEN_URL",
    "DISPATCH_HTTP_TOKEN",
    "PGPASSWORD",
    "DISPATCH_ATTEMPT",
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SSE_PORT",
    "CLAUDE_AGENT_SDK_VERSION",
];

/// What the types cannot say; the key and the message of the first fault.
pub(super) fn check(spec: &AgentSpec) -> Result<(), (&'static str, String)> {
    let fault = |key, message: &str| Err((key, message.to_owned()));
    let uses = |placeholder: &str| spec.command.iter().any(|part| part.contains(placeholder));
    let starts_program = match spec.path {
        ExecutionPath::Acp | ExecutionPath::Pipe | ExecutionPath::Pty => true,
        ExecutionPath::Native | ExecutionPath::Noop => false,
    };
    if starts_program && spec.command.first().is_none_or(String::is_empty) {
        return fault(
            "command",
            "is missing; write the program and its arguments as a list",
        );
    }
    if spec
        .command
        .first()
        .is_some_and(|program| program.contains('{'))
    {
        return fault("command", "its program may not hold a placeholder");
    }
    if let Some(name) = spec
        .env
        .keys()
        .chain(&spec.env_allow)
        .find(|name| ENV_FORBIDDEN.contains(&name.as_str()))
    {
        return Err(("env", format!("{name} is never passed to an agent")));
    }
    if let Some(kind) = spec
        .permissions
        .kinds
        .keys()
        .find(|kind| !PERMISSION_KINDS.contains(&kind.as_str()))
    {
        let known = PERMISSION_KINDS.join(", ");
        return Err((
            "permissions.kinds",
            format!("`{kind}` is no kind; known are {known}"),
        ));
    }
    if spec.slots == 0 {
        return fault(
            "slots",
            "must be at least 1; use enabled = false to switch an agent off",
        );
    }
    let escapes = |path: &PathBuf| !path.components().all(|c| matches!(c, Component::Normal(_)));
    if spec.home_files.iter().any(escapes) {
        return fault(
            "home_files",
            "paths are relative to HOME and may not leave it",
        );
    }
    check_options(spec)?;
    check_sandbox(spec)?;
    check_readable(spec)?;
    check_errors(spec)?;
    let cli = matches!(spec.path, ExecutionPath::Pipe | ExecutionPath::Pty);
    if cli {
        check_cli(spec, uses("{prompt}") || uses("{prompt_file}"))?;
    }
    match (&spec.usage.format, &spec.usage.pattern) {
        (UsageFormat::Regex, None) => fault("usage.pattern", "is missing for format = \"regex\""),
        (UsageFormat::Regex, Some(pattern)) => regex::Regex::new(pattern)
            .map(drop)
            .map_err(|error| ("usage.pattern", error.to_string())),
        (UsageFormat::Acp, _) if spec.path != ExecutionPath::Acp => {
            fault("usage.format", "acp is only for path = \"acp\"")
        }
        _ => Ok(()),
    }
}

/// Classes that an agent's own words may tell. The others are what the worker sees for itself.
const TOLD: [ErrorClass; 5] = [
    ErrorClass::Auth,
    ErrorClass::RateLimited,
    ErrorClass::InvalidOption,
    ErrorClass::Refused,
    ErrorClass::AgentFailed,
];

/// Rules that could never match, or always would.
fn check_errors(spec: &AgentSpec) -> Result<(), (&'static str, String)> {
    if spec.cli.output == Output::Jsonl && !spec.errors.is_empty() {
        let message = "are for text; with cli.output = \"jsonl\" write cli.jsonl.error";
        return Err(("errors", message.to_owned()));
    }
    for rule in &spec.errors {
        let pattern = regex::Regex::new(&rule.pattern);
        let pattern = pattern.map_err(|error| ("errors.pattern", error.to_string()))?;
        if pattern.is_match("") {
            let message = "`{}` matches where nothing was said: each turn would fail";
            return Err(("errors.pattern", message.replace("{}", &rule.pattern)));
        }
        if !TOLD.contains(&rule.class) {
            let (class, told) = (rule.class, TOLD.map(ErrorClass::as_str).join(", "));
            let message = format!("`{class}` is not for an agent to tell; write one of {told}");
            return Err(("errors.class", message));
        }
    }
    Ok(())
}

/// What a sandbox cannot hold together.
fn check_sandbox(spec: &AgentSpec) -> Result<(), (&'static str, String)> {
    let fault = |key, message: &str| Err((key, message.to_owned()));
    let confined = spec.sandbox != Demand::None;
    if spec.inherit_home && confined {
        return fault(
            "inherit_home",
            "needs sandbox = \"none\", because the worker's HOME holds logins; list what the agent needs in home_files",
        );
    }
    if spec.network != Network::Full && spec.sandbox != Demand::Required {
        return fault("network", "can only be kept with sandbox = \"required\"");
    }
    if spec.network == Network::Gateway && spec.hosts.is_empty() {
        return fault("hosts", "is missing: list what the agent may reach");
    }
    if spec.network != Network::Gateway && !spec.hosts.is_empty() {
        return fault("hosts", "is only for network = \"gateway\"");
    }
    if let Some(path) = spec
        .readable
        .iter()
        .find(|path| !path.is_absolute() && !path.starts_with("~"))
    {
        let path = path.display();
        let message = format!("{path} must be absolute or begin with ~/ or {{config_dir}}/");
        return Err(("readable", message));
    }
    let limits = &spec.limits;
    for (key, value) in [
        ("memory_mb", limits.memory_mb),
        ("pids", limits.pids),
        ("file_mb", limits.file_mb),
        ("disk_mb", limits.disk_mb),
    ] {
        if value == Some(0) {
            return fault(key, "must be at least 1");
        }
    }
    Ok(())
}

/// What an entry shows is shown whatever hides it: also the key of a provider, of this agent or not.
fn check_readable(spec: &AgentSpec) -> Result<(), (&'static str, String)> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for path in &spec.readable {
        let full = match (path.strip_prefix("~"), &home) {
            (Ok(rest), Some(home)) => home.join(rest),
            (Ok(_), None) | (Err(_), _) => path.clone(),
        };
        let shown = [plain(&full), real(&full)];
        let seen = |file: &PathBuf| {
            let file = [plain(file), real(file)];
            file.iter()
                .any(|file| shown.iter().any(|shown| file.starts_with(shown)))
        };
        let own = secret_file::OWN
            .into_iter()
            .chain(spec.env_allow.iter().map(|n| &**n));
        let own = own.filter_map(secret_file::file_of);
        if let Some(file) = spec.native.key_files().chain(own).find(seen) {
            let message = format!(
                "{} would show the agent {}, which holds a secret of the worker; keep that \
                 elsewhere (such as by api_key_file), or list what it needs one by one",
                path.display(),
                file.display()
            );
            return Err(("readable", message));
        }
    }
    Ok(())
}

/// Without links; what is not there yet, as it would be if its directory has none.
fn real(path: &Path) -> PathBuf {
    let whole = path.canonicalize().ok();
    let by_dir = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    whole.or_else(by_dir).unwrap_or_else(|| plain(path))
}

/// Without `.` and `..`, by the text alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// A default that the entry's own list does not allow would fail every task.
fn check_options(spec: &AgentSpec) -> Result<(), (&'static str, String)> {
    for (key, value, allowed) in [
        ("model", &spec.model, &spec.models),
        ("mode", &spec.mode, &spec.modes),
        ("thinking", &spec.thinking, &spec.thinking_options),
    ] {
        if let Some(value) = value
            && !allowed.is_empty()
            && !allowed.contains(value)
        {
            return Err((
                key,
                format!("`{value}` is not among {}", allowed.join(", ")),
            ));
        }
    }
    Ok(())
}

fn check_cli(spec: &AgentSpec, prompt_in_args: bool) -> Result<(), (&'static str, String)> {
    let fault = |key, message: &str| Err((key, message.to_owned()));
    for (placeholder, key) in [
        ("{model}", "cli.model_args"),
        ("{mode}", "cli.mode_args"),
        ("{thinking}", "cli.thinking_args"),
        ("{session}", "cli.session_args"),
    ] {
        if spec.command.iter().any(|part| part.contains(placeholder)) {
            return Err((
                "command",
                format!("{placeholder} may be absent; put it into {key}"),
            ));
        }
    }
    match (spec.cli.prompt_via, spec.path) {
        (PromptVia::Args, _) if !prompt_in_args => {
            return fault(
                "command",
                "needs {prompt} or {prompt_file}, or set cli.prompt_via",
            );
        }
        (PromptVia::Stdin, ExecutionPath::Pty) => {
            return fault(
                "cli.prompt_via",
                "stdin is for path = \"pipe\"; use type or args",
            );
        }
        (PromptVia::Type, ExecutionPath::Pipe) => {
            return fault(
                "cli.prompt_via",
                "type is for path = \"pty\"; use stdin or args",
            );
        }
        _ => {}
    }
    if spec.cli.output == Output::Jsonl && spec.path == ExecutionPath::Pty {
        return fault(
            "cli.output",
            "a terminal shows text; use path = \"pipe\" for jsonl",
        );
    }
    if spec.usage.format == UsageFormat::Jsonl && spec.cli.output != Output::Jsonl {
        return fault("usage.format", "jsonl needs cli.output = \"jsonl\"");
    }
    if spec.cli.cols == 0 || spec.cli.rows == 0 {
        return fault("cli.cols", "a terminal has at least one column and one row");
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let mut letters = name.chars();
    let head = letters.next().is_some_and(|c| c.is_ascii_lowercase());
    let tail = letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if head && tail {
        return Ok(());
    }
    Err("names are lower-case letters, digits and hyphens, and begin with a letter")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::config::agents::Catalogue;

    #[test]
    fn a_rule_for_errors_that_says_nothing_is_refused() {
        let parsed = |errors: &str, more: &str| {
            let text = format!(
                "[agents.x]\npath = \"pipe\"\ncommand = [\"x\", \"{{prompt}}\"]\nerrors = [{errors}]\n{more}"
            );
            Catalogue::parse(&text).map_err(|error| error.to_string())
        };
        let good = "{ pattern = 'key refused\\z', class = \"auth\" }";
        let rules = parsed(good, "").unwrap().agents["x"].errors.len();
        assert_eq!(rules, 1);
        for (errors, more, told) in [
            (
                "{ pattern = '(', class = \"auth\" }",
                "",
                "errors.pattern: ",
            ),
            (
                "{ pattern = 'a*', class = \"auth\" }",
                "",
                "each turn would fail",
            ),
            (
                "{ pattern = 'a', class = \"timeout\" }",
                "",
                "write one of auth, ",
            ),
            (
                "{ pattern = 'a', class = \"key\" }",
                "",
                "unknown variant `key`",
            ),
            (
                good,
                "cli = { output = \"jsonl\" }\n",
                "write cli.jsonl.error",
            ),
        ] {
            let error = parsed(errors, more).unwrap_err();
            assert!(error.contains(told), "{errors}: {error}");
        }
    }

    #[test]
    fn no_agent_may_be_shown_a_directory_with_the_key_of_a_provider() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(at("keys")).unwrap();
        std::fs::create_dir_all(at("docs")).unwrap();
        std::fs::write(at("keys/a"), "k").unwrap();
        symlink(at("keys"), at("link")).unwrap();
        let parsed = |file: &str, readable: &str| {
            let text = format!(
                "[providers.p]\napi = \"openai\"\napi_key_file = \"{}\"\n[agents.x]\n\
                 path = \"acp\"\ncommand = [\"x\"]\nreadable = [\"{readable}\"]\n",
                at(file)
            );
            Catalogue::parse(&text).map_err(|error| error.to_string())
        };
        for (file, readable) in [
            ("keys/a", at("keys")),
            ("keys/a", at("keys/a")),
            ("keys/a", at("link")),
            ("link/a", at("keys")),
            ("keys/a", at("docs/../keys")),
            ("docs/../keys/a", at("keys")),
            ("keys/later", at("link")),
            ("later/a", at("later")),
            ("keys/a", at("")),
        ] {
            let error = parsed(file, &readable).unwrap_err();
            assert!(
                error.contains("line 4, agents.x.readable: ") && error.contains("api_key_file"),
                "{file} {readable}: {error}"
            );
        }
        assert!(parsed("keys/a", &at("docs")).is_ok());
        assert!(parsed("keys/a", &at("key")).is_ok());
    }
}
