//! What a repository says to agents that work in it, as its base commit has it: what an attempt
//! writes there is the next reviewer's to judge, not the next model's to obey.

use git2::{ObjectType, Repository};

use super::objects::{self, Objects};
use super::workspaces::Workspaces;
use super::{ProjectSpec, WorkspaceError, internal};
use crate::domain::limits;

/// The file that has them, by the convention of the field (agents.md).
const FILE: &str = "AGENTS.md";

impl Workspaces {
    /// The instructions in the root of a commit of the project, cut to what a model is told; nothing
    /// when there are none.
    pub async fn instructions(
        &self,
        project: &ProjectSpec,
        commit: &str,
    ) -> Result<Option<String>, WorkspaceError> {
        let store = Objects::open(&self.inner.root, project)?.base();
        let commit = objects::parse(commit)?;
        let read = move || {
            let repo = objects::open(&store)?;
            read(&repo, commit).map_err(|error| internal(format!("{FILE} of {commit}: {error}")))
        };
        crate::blocking::run(read)
            .await
            .map_err(|error| internal(error.to_string()))?
    }
}

fn read(repo: &Repository, commit: git2::Oid) -> Result<Option<String>, git2::Error> {
    let tree = repo.find_commit(commit)?.tree()?;
    let Some(entry) = tree.get_name(FILE) else {
        return Ok(None);
    };
    // A link is what it says, and leads nowhere from here.
    let plain = matches!(entry.filemode(), 0o100_644 | 0o100_755);
    if !plain || entry.kind() != Some(ObjectType::Blob) {
        return Ok(None);
    }
    let blob = repo.find_blob(entry.id())?;
    let bytes = blob.content();
    let most = limits::INSTRUCTIONS_BYTES_MAX;
    // Cut as bytes first: the file may have gigabytes.
    let seen = bytes.get(..most).unwrap_or(bytes);
    let mut text = String::from_utf8_lossy(seen).into_owned();
    if bytes.len() > most {
        let more = bytes.len() - most;
        text.push_str(&format!("\n[{more} more bytes of {FILE} are in the file]"));
    }
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit whose AGENTS.md is this, with this mode.
    fn commit(repo: &Repository, text: &[u8], mode: i32) -> git2::Oid {
        let blob = repo.blob(text).unwrap();
        let mut builder = repo.treebuilder(None).unwrap();
        builder.insert(FILE, blob, mode).unwrap();
        let tree = repo.find_tree(builder.write().unwrap()).unwrap();
        let who = git2::Signature::now("a", "a@example.com").unwrap();
        repo.commit(None, &who, &who, "c", &tree, &[]).unwrap()
    }

    #[test]
    fn instructions_are_those_of_a_plain_file_and_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path()).unwrap();
        let of = |text: &[u8], mode| read(&repo, commit(&repo, text, mode)).unwrap();
        assert_eq!(of(b"Use tabs.", 0o100_644).as_deref(), Some("Use tabs."));
        assert_eq!(of(b"/etc/passwd", 0o120_000), None, "a link");
        assert_eq!(of(b" \n", 0o100_644), None, "nothing in it");
        let long = of(&[b'x'; 100_000], 0o100_644).unwrap();
        assert!(
            long.len() < 33_000 && long.contains("more bytes"),
            "{}",
            long.len()
        );
        assert!(of(b"\xff\xfe", 0o100_644).is_some(), "no text");
    }
}
