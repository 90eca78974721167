//! The check of one agent: whether it is there, starts, speaks, works, asks, obeys and leaves nothing,
//! found out by doing it once, with the adapter and the sandbox that a worker would use. Nothing here
//! knows a database, or whose machine it is: a worker's, or that of whoever asks.

mod memory;
mod place;
mod rows;
mod turn;
mod turns;

use std::path::Path;
use std::time::Duration;

use crate::agent::{AgentError, TurnRequest, catalog};
use crate::config::agent_spec::AgentSpec;
use crate::config::credentials;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::finding::Finding;
use crate::domain::limits;
use crate::domain::lookup::CheckDepth;
use crate::domain::redact::Redactor;
use crate::sandbox::Sandbox;

use rows::{Rows, Step};

/// What is checked, and where.
pub struct Subject<'a> {
    /// Its entry.
    pub spec: &'a AgentSpec,
    /// What it is confined with.
    pub sandbox: Sandbox,
    /// A directory of the check's own, which the caller removes.
    pub scratch: &'a Path,
    /// What must not be told.
    pub secrets: Redactor,
    /// How the marks of its processes begin.
    pub marks: String,
    /// Who hears how it goes.
    pub tell: Tell,
}

/// Who hears what is looked at now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Whoever sits before the terminal.
    Terminal,
    /// Nobody.
    Nobody,
}

/// Find out. What does not work is in the findings.
pub async fn check(of: &Subject<'_>, depth: CheckDepth) -> Vec<Finding> {
    let mut rows = Rows::new(&of.spec.name, of.tell, of.secrets.clone());
    let ready = free(of, &mut rows).await;
    let mut steps = Step::FREE.to_vec();
    if depth == CheckDepth::Whole {
        steps.extend(Step::TURNS);
        if let Some(turn) = ready {
            turns::all(of, turn, &mut rows).await;
        }
    }
    rows.done(&steps)
}

/// The steps that cost nothing. What they leave is ready for a prompt; nothing: no use in one.
async fn free(of: &Subject<'_>, rows: &mut Rows) -> Option<TurnRequest> {
    if of.spec.path == ExecutionPath::Noop {
        does_nothing(rows);
        return None;
    }
    rows.begin(Step::Found);
    if !found(of, rows).await {
        return None;
    }
    rows.begin(Step::Sandbox);
    let turn = match place::turn(of).await {
        Ok(turn) => turn,
        Err(error) => {
            failed(rows, Step::Sandbox, of.spec, &error);
            return None;
        }
    };
    let (rung, network) = (turn.confinement.rung(), of.spec.network);
    rows.ok(
        Step::Sandbox,
        &format!("{rung}, network {}", network.as_str()),
    );
    let turn = TurnRequest {
        secrets: rows.redactor().clone(),
        ..turn
    };
    match of.spec.path {
        ExecutionPath::Native => of_native(of.spec, rows).await,
        ExecutionPath::Acp => of_acp(of.spec, &turn, rows).await,
        ExecutionPath::Pipe | ExecutionPath::Pty | ExecutionPath::Noop => {
            of_program(of.spec, &turn, rows).await
        }
    }
    .then_some(turn)
}

fn does_nothing(rows: &mut Rows) {
    rows.ok(Step::Found, "built in, for benchmarks");
    let others = Step::FREE.iter().chain(&Step::TURNS).skip(1);
    for step in others {
        rows.ok(*step, "not applicable: it does nothing");
    }
}

async fn found(of: &Subject<'_>, rows: &mut Rows) -> bool {
    let spec = of.spec;
    let there = match spec.path {
        // No key is shown to anybody: only who would be asked.
        ExecutionPath::Native => {
            let enabled = AgentSpec {
                enabled: true,
                ..spec.clone()
            };
            let probe = catalog::probe(&enabled, &of.sandbox, of.scratch).await;
            match probe.error {
                None => Ok(usable(&probe.capabilities)),
                Some(error) => Err(AgentError::new(
                    probe.error_class.unwrap_or(ErrorClass::Internal),
                    error,
                )),
            }
        }
        ExecutionPath::Acp | ExecutionPath::Pipe | ExecutionPath::Pty | ExecutionPath::Noop => {
            catalog::program(spec).map(|program| program.display().to_string())
        }
    };
    match there {
        Ok(there) if spec.enabled => rows.ok(Step::Found, &there),
        Ok(there) => rows.warn(
            Step::Found,
            &format!("{there}; switched off in agents.toml (enabled = false)"),
            "No worker gives it tasks: set enabled = true.",
        ),
        Err(error) => {
            failed(rows, Step::Found, spec, &error);
            return false;
        }
    }
    true
}

/// The providers that have what they need.
fn usable(capabilities: &serde_json::Value) -> String {
    let providers = capabilities["providers"].as_array();
    let usable = providers
        .into_iter()
        .flatten()
        .filter(|one| one["usable"] == true);
    let names: Vec<&str> = usable.filter_map(|one| one["name"].as_str()).collect();
    format!("built in; with a key: {}", names.join(", "))
}

async fn of_native(spec: &AgentSpec, rows: &mut Rows) -> bool {
    rows.ok(Step::Version, env!("CARGO_PKG_VERSION"));
    rows.begin(Step::Handshake);
    match turns::native_address(spec) {
        Err(error) => {
            failed(rows, Step::Handshake, spec, &error);
            return false;
        }
        Ok((name, at)) => match place::answers(&at).await {
            Ok(()) => rows.ok(Step::Handshake, &format!("{name} answers")),
            Err(why) => rows.warn(
                Step::Handshake,
                &format!("no connection to {name}: {why}"),
                "Without a proxy in the environment nothing of it will work: is base_url right, and the network there?",
            ),
        },
    }
    rows.ok(
        Step::Session,
        "not applicable: the worker keeps its conversations",
    );
    true
}

/// How long it may take to begin.
fn start(spec: &AgentSpec) -> Duration {
    spec.timeouts.start.min(limits::CHECK_TURN_MAX)
}

async fn of_acp(spec: &AgentSpec, turn: &TurnRequest, rows: &mut Rows) -> bool {
    let asked = !spec.version_args.is_empty();
    if asked {
        version(spec, turn, rows).await;
    }
    rows.begin(Step::Handshake);
    let greeted = catalog::greet(spec, turn, start(spec)).await;
    let probed = match greeted {
        Ok(probed) => probed,
        Err(error) => {
            failed(rows, Step::Handshake, spec, &error);
            return false;
        }
    };
    if !asked {
        match &probed.version {
            Some(version) => rows.ok(Step::Version, version),
            None => rows.ok(Step::Version, "it tells none"),
        }
    }
    let named = probed.version.as_deref().unwrap_or("no version told");
    rows.ok(
        Step::Handshake,
        &format!("speaks version 1 of ACP; {named}"),
    );
    if let Some(refused) = probed.refused {
        failed(rows, Step::Session, spec, &refused);
        return false;
    }
    let offers = [
        ("models", probed.models.len()),
        ("modes", probed.modes.len()),
        ("thinking options", probed.thinking_options.len()),
    ];
    let offers: Vec<String> = offers
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    match offers.is_empty() {
        true => rows.ok(Step::Session, "opened"),
        false => rows.ok(
            Step::Session,
            &format!("opened; offers {}", offers.join(", ")),
        ),
    }
    true
}

async fn of_program(spec: &AgentSpec, turn: &TurnRequest, rows: &mut Rows) -> bool {
    let works = match spec.version_args.is_empty() {
        true => {
            rows.ok(Step::Version, "not asked: its entry has no version_args");
            true
        }
        false => version(spec, turn, rows).await,
    };
    match (works, spec.version_args.is_empty()) {
        (true, false) => rows.ok(Step::Handshake, "it starts; there is no protocol to speak"),
        (true, true) => rows.ok(Step::Handshake, "not applicable: it has no protocol"),
        (false, _) => return false,
    }
    rows.ok(Step::Session, "not applicable: it begins with the prompt");
    true
}

async fn version(spec: &AgentSpec, turn: &TurnRequest, rows: &mut Rows) -> bool {
    rows.begin(Step::Version);
    match catalog::version(spec, turn).await {
        Ok(Some(version)) => rows.ok(Step::Version, &version),
        Ok(None) => rows.warn(
            Step::Version,
            "it started, and told none",
            "Correct version_args in agents.toml, or leave them out.",
        ),
        Err(error) => {
            failed(rows, Step::Version, spec, &error);
            return false;
        }
    }
    true
}

/// A step that failed, with what a person can do about it.
fn failed(rows: &mut Rows, step: Step, spec: &AgentSpec, error: &AgentError) {
    let mut found = error.message.clone();
    let tail = error.exit.stderr_tail.trim();
    if !tail.is_empty() && !found.contains(tail) {
        found = format!("{found}; it said: {tail}");
    }
    rows.fail(step, &found, &advice(spec, error.class));
}

fn advice(spec: &AgentSpec, class: ErrorClass) -> String {
    let install = spec.install.as_deref();
    let install = install.unwrap_or("Install it, or correct `command` in agents.toml.");
    match class {
        ErrorClass::AgentUnavailable if credentials::unusable(spec).is_some() => {
            "Mend that where the worker starts: the file is named by a variable there.".to_owned()
        }
        ErrorClass::AgentUnavailable if spec.path == ExecutionPath::Native => {
            "Set the key of a provider where the worker starts (docs/agents.md).".to_owned()
        }
        ErrorClass::AgentUnavailable => install.to_owned(),
        ErrorClass::Auth => format!(
            "Log in, or give it its key (env_allow, home_files) in agents.toml. {}",
            spec.install.as_deref().unwrap_or_default()
        ),
        ErrorClass::StartTimeout => {
            "Start it by hand and see what it waits for; if it only needs longer, raise start_timeout.".to_owned()
        }
        ErrorClass::Timeout | ErrorClass::IdleTimeout | ErrorClass::RateLimited => {
            "Does its provider answer? Try again, or with a smaller model.".to_owned()
        }
        ErrorClass::InvalidOption => {
            "Correct model, mode or thinking of its entry in agents.toml.".to_owned()
        }
        ErrorClass::Workspace | ErrorClass::DiffFailed | ErrorClass::Internal => {
            "A fault of this machine or of dispatch, not of the agent.".to_owned()
        }
        ErrorClass::SpawnFailed
        | ErrorClass::Protocol
        | ErrorClass::Refused
        | ErrorClass::AgentFailed
        | ErrorClass::Budget
        | ErrorClass::Cancelled
        | ErrorClass::Orphaned => {
            let program = spec.command.first().map_or("it", String::as_str);
            format!("Run {program} by hand with a prompt; docs/agents.md says what each agent needs.")
        }
    }
}
