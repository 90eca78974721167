//! Which session of its agent a home holds. A path says it not: another host, or another data
//! directory, has homes of its own, and may have its worktrees at the same place.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Beside what the agent keeps in its home.
const NOTE: &str = ".dispatch-session";

/// Note that the session went on with this home.
pub async fn keep(home: &Path, session: &str) {
    let (to, session) = (home.to_owned(), session.to_owned());
    let written = crate::blocking::run(move || {
        // Renamed into place: what the agent put there is not followed.
        let mut file = tempfile::NamedTempFile::new_in(&to)?;
        io::Write::write_all(&mut file, session.as_bytes())?;
        file.persist(to.join(NOTE))?;
        Ok::<_, io::Error>(())
    });
    let error = match written.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(path = %home.display(), error, "a follow-up may begin a new session");
}

/// Whether it is the one that went on here last. The home is the agent's: what lies there under the
/// note's name may be a pipe, a link or endless.
pub async fn is_kept(home: &Path, session: &str) -> bool {
    let (note, session) = (home.join(NOTE), session.to_owned());
    let read = crate::blocking::run(move || {
        let file = fs::File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(note)?;
        let facts = file.metadata()?;
        if !facts.is_file() || facts.len() != session.len() as u64 {
            return Ok(false);
        }
        let mut found = Vec::with_capacity(session.len());
        file.take(session.len() as u64).read_to_end(&mut found)?;
        Ok::<_, io::Error>(found == session.as_bytes())
    });
    matches!(read.await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_plain_note_with_the_very_name_counts() {
        let home = tempfile::tempdir().unwrap();
        let note = home.path().join(NOTE);
        assert!(!is_kept(home.path(), "s1").await, "no note");
        keep(home.path(), "s1").await;
        assert!(is_kept(home.path(), "s1").await);
        assert!(!is_kept(home.path(), "s").await && !is_kept(home.path(), "s11").await);
        fs::rename(&note, home.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &note).unwrap();
        assert!(!is_kept(home.path(), "s1").await, "a link");
        fs::remove_file(&note).unwrap();
        nix::unistd::mkfifo(&note, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(!is_kept(home.path(), "s1").await, "a pipe");
        keep(home.path(), "s1").await;
        assert!(is_kept(home.path(), "s1").await, "what is in the way goes");
    }
}
