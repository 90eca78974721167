//! From an entry of agents.toml to the confinement of one attempt of it.

use super::{AgentError, environment};
use crate::config::agent_spec::AgentSpec;
use crate::domain::attempt::ExecutionPath;
use crate::domain::error_class::ErrorClass;
use crate::domain::sandbox::Demand;
use crate::sandbox::{Confinement, Means, Places, Sandbox};

/// Choose them. `demand` is the weaker of what the entry and the project ask for. The error is one
/// of the machine: another worker may have what is missing here.
pub fn means(sandbox: &Sandbox, spec: &AgentSpec, demand: Demand) -> Result<Means, AgentError> {
    let means = sandbox
        .means(demand.min(spec.sandbox), spec.network, spec.nested_sandbox)
        .map_err(|why| unavailable(spec, &why))?;
    Ok(Means {
        hosts: Some(spec.hosts.clone()),
        limits: spec.limits,
        ..means
    })
}

/// Everything else. Reads the disk to see what the agent's program needs.
pub fn confine(
    sandbox: &Sandbox,
    spec: &AgentSpec,
    means: Means,
    mut places: Places,
) -> Result<Confinement, AgentError> {
    let program = match spec.path {
        // Its tools are the worker's own, in a process of their own.
        ExecutionPath::Native => sandbox.helper().to_owned(),
        ExecutionPath::Acp | ExecutionPath::Pty | ExecutionPath::Pipe | ExecutionPath::Noop => {
            environment::resolve_program(spec, &places.tree)?
        }
    };
    let path = environment::search_path(&places.tree);
    let servers = spec.native.mcp.values();
    let commands = servers.filter_map(|server| server.command.first());
    // One that is not there is left out when the servers are started, and said.
    places.programs = commands
        .filter_map(|program| environment::find_program(program, &path))
        .collect();
    places.search_path = std::env::split_paths(&path).collect();
    let Means { rung, owner, .. } = means;
    Confinement::of_agent(sandbox, rung, owner, &places, spec, &program)
        .map_err(|why| unavailable(spec, &why))
}

fn unavailable(spec: &AgentSpec, why: &str) -> AgentError {
    let message = format!("agent {} cannot be confined: {why}", spec.name);
    AgentError::new(ErrorClass::AgentUnavailable, message)
}
