//! What surrounds an agent's process: its program, its environment, its HOME. A list of what is
//! allowed, never the worker's environment minus something.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{AgentError, MARK_VARIABLE, TurnRequest, seed};
use crate::blocking;
use crate::config::agent_check::ENV_FORBIDDEN;
use crate::config::agent_spec::AgentSpec;
use crate::config::secret_file;
use crate::domain::error_class::ErrorClass;
use crate::sandbox::visible::is_program;

/// Variables of a child process, in the order in which they win.
pub(crate) type Variables = Vec<(String, String)>;

/// The environment of an attempt's processes. `term` is the value of TERM. Reads the files of
/// variables that stand in one.
pub(crate) fn variables(
    spec: &AgentSpec,
    turn: &TurnRequest,
    term: &str,
) -> Result<Variables, AgentError> {
    let worker = |name: &str| std::env::var(name).ok();
    let mut all: Variables = vec![
        ("PATH".to_owned(), search_path(&turn.worktree)),
        ("TMPDIR".to_owned(), text(&turn.tmp)),
        (
            "LANG".to_owned(),
            worker("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()),
        ),
        ("TERM".to_owned(), term.to_owned()),
        ("SHELL".to_owned(), "/bin/sh".to_owned()),
        // Nobody sits before the screen: no browser for a login, no password prompt of git.
        ("NO_BROWSER".to_owned(), "1".to_owned()),
        ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
    ];
    all.extend(home_variables(spec, turn));
    all.extend(turn.confinement.variables());
    for name in ["USER", "LOGNAME", "TZ"] {
        all.extend(worker(name).map(|value| (name.to_owned(), value)));
    }
    for name in &spec.env_allow {
        let value = secret_file::variable(name).map_err(|why| {
            let message = format!("agent {} cannot be started: {why}", spec.name);
            AgentError::new(ErrorClass::AgentUnavailable, message)
        })?;
        all.extend(value.map(|value| (name.clone(), value)));
    }
    let home = value_of(&all, "HOME");
    all.extend(
        spec.env
            .iter()
            .map(|(name, value)| (name.clone(), value.replace("{home}", &home))),
    );
    all.retain(|(name, _)| !ENV_FORBIDDEN.contains(&name.as_str()));
    all.push((MARK_VARIABLE.to_owned(), turn.mark.clone()));
    Ok(all)
}

fn value_of(all: &Variables, name: &str) -> String {
    let found = all.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn home_variables(spec: &AgentSpec, turn: &TurnRequest) -> Variables {
    let inherited = std::env::var("HOME").ok().filter(|_| spec.inherit_home);
    if let Some(home) = inherited {
        return vec![("HOME".to_owned(), home)];
    }
    let below = |name: &str, path: &str| (name.to_owned(), text(&turn.home.join(path)));
    vec![
        ("HOME".to_owned(), text(&turn.home)),
        below("XDG_CONFIG_HOME", ".config"),
        below("XDG_DATA_HOME", ".local/share"),
        below("XDG_STATE_HOME", ".local/state"),
        below("XDG_CACHE_HOME", ".cache"),
    ]
}

/// Copy the entry's credential files into the attempt's HOME. A missing one is skipped: whether
/// it was needed is the agent's to say.
pub(crate) async fn seed_home(spec: &AgentSpec, turn: &TurnRequest) -> Result<(), AgentError> {
    if spec.inherit_home {
        return Ok(());
    }
    let failed = |what: &Path, error: &std::io::Error| {
        let message = format!(
            "cannot prepare {} in the attempt's HOME: {error}",
            what.display()
        );
        AgentError::new(ErrorClass::Workspace, message)
    };
    for dir in [&turn.home, &turn.tmp] {
        tokio::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .await
            .map_err(|error| failed(dir, &error))?;
    }
    let own_home = std::env::var_os("HOME").map(PathBuf::from);
    for (file, own_home) in spec.home_files.iter().zip(own_home.iter().cycle()) {
        let (home, to) = (turn.home.clone(), file.clone());
        let from = own_home.join(file);
        let copied = blocking::run(move || {
            let facts = std::fs::metadata(&from);
            if !facts.as_ref().is_ok_and(std::fs::Metadata::is_file) {
                return Ok(());
            }
            // The mode stays, so that a private key stays private.
            let mode = facts?.permissions().mode() & 0o777;
            seed::put(&home, &to, &mut std::fs::File::open(&from)?, mode)
        });
        match copied.await {
            Ok(copied) => copied.map_err(|error| failed(file, &error))?,
            Err(panicked) => {
                return Err(AgentError::new(ErrorClass::Internal, panicked.to_string()));
            }
        }
    }
    let confinement = turn.confinement.clone();
    let dirs = [turn.home.clone(), turn.tmp.clone()];
    let given = blocking::run(move || dirs.iter().try_for_each(|dir| confinement.give(dir))).await;
    match given {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(Path::new("."), &error)),
        Err(panicked) => Err(AgentError::new(ErrorClass::Internal, panicked.to_string())),
    }
}

/// The program of an entry as an absolute path, found on the worker's PATH and never in the
/// worktree, where an agent could put its own.
pub(crate) fn resolve_program(spec: &AgentSpec, worktree: &Path) -> Result<PathBuf, AgentError> {
    let name = spec.command.first().map_or("", String::as_str);
    let named = Path::new(name);
    if named.is_absolute() {
        if is_program(named) {
            return Ok(named.to_owned());
        }
        return Err(unavailable(
            spec,
            &format!("{name} is not an executable file"),
        ));
    }
    if name.contains('/') {
        let message = format!("{name} must be absolute; write {{config_dir}}/{name}");
        return Err(unavailable(spec, &message));
    }
    find_program(name, &search_path(worktree))
        .ok_or_else(|| unavailable(spec, &format!("`{name}` is not on the worker's PATH")))
}

fn unavailable(spec: &AgentSpec, why: &str) -> AgentError {
    let hint = spec
        .install
        .as_deref()
        .unwrap_or("install it, or correct `command` in agents.toml");
    AgentError::new(
        ErrorClass::AgentUnavailable,
        format!("agent {} cannot be started: {why}; {hint}", spec.name),
    )
}

/// The first program of this name in the directories of a search path.
pub(super) fn find_program(name: &str, path: &str) -> Option<PathBuf> {
    let mut places = std::env::split_paths(path).map(|dir| dir.join(name));
    places.find(|path| is_program(path))
}

/// The absolute directories of the worker's PATH outside the worktree.
pub(super) fn search_path(worktree: &Path) -> String {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let sane =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute() && !dir.starts_with(worktree));
    std::env::join_paths(sane).map_or_else(
        |_| "/usr/local/bin:/usr/bin:/bin".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    #[test]
    fn a_providers_key_is_not_in_the_environment_of_a_native_agents_tools() {
        // A variable that every run of the tests has.
        let text = "[providers.p]\napi = \"openai\"\napi_key_env = \"CARGO_PKG_NAME\"\n\
                    [agents.n]\npath = \"native\"\n\
                    [agents.open]\nextends = \"n\"\nenv_allow = [\"CARGO_PKG_NAME\"]\n";
        let catalogue = Catalogue::parse(text).unwrap();
        assert!(catalogue.providers["p"].key().unwrap().is_some());
        let has = |agent: &str| {
            let turn = TurnRequest::bare(String::new());
            let all = variables(&catalogue.agents[agent], &turn, "dumb").unwrap();
            all.iter().any(|(name, _)| name == "CARGO_PKG_NAME")
        };
        assert!(!has("n"), "by default");
        assert!(has("open"), "the operator's word");
    }
}
