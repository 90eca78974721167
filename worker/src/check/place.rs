//! Where an agent is checked: a small repository of its own, in the sandbox that a task gets.

use std::path::Path;

use git2::{Repository, Signature};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Subject;
use crate::agent::{AgentError, TurnRequest, catalog};
use crate::blocking;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// A turn in a repository with one commit.
pub(super) async fn turn(of: &Subject<'_>) -> Result<TurnRequest, AgentError> {
    let tree = of.scratch.join("worktree");
    let made = blocking::run(move || repository(&tree)).await;
    let failed = |why: String| {
        let message = format!("cannot make a repository to try it in: {why}");
        AgentError::new(ErrorClass::Workspace, message)
    };
    match made {
        Ok(Ok(())) => catalog::scratch_turn(of.spec, &of.sandbox, of.scratch).await,
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(panicked) => Err(failed(panicked.to_string())),
    }
}

fn repository(tree: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if tree.join(".git").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(tree)?;
    std::fs::write(
        tree.join("README.md"),
        "A place to try a coding agent in.\n",
    )?;
    let repository = Repository::init(tree)?;
    let mut index = repository.index()?;
    index.add_path(Path::new("README.md"))?;
    index.write()?;
    let tree = repository.find_tree(index.write_tree()?)?;
    let who = Signature::now("dispatch", "dispatch@localhost")?;
    repository.commit(Some("HEAD"), &who, &who, "Begin", &tree, &[])?;
    Ok(())
}

/// Whether something takes a connection there.
pub(super) async fn answers(at: &(String, u16)) -> Result<(), String> {
    let wait = limits::PROVIDER_CONNECT_TIMEOUT;
    match timeout(wait, TcpStream::connect((at.0.as_str(), at.1))).await {
        Ok(Ok(_open)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err(format!("none within {} s", wait.as_secs())),
    }
}
