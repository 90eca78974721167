//! Which session of its agent a home holds. A path says it not: another host, or another data
//! directory, has homes of its own, and may have its worktrees at the same place.

use std::io;
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

/// Whether it is the one that went on here last.
pub async fn is_kept(home: &Path, session: &str) -> bool {
    let note = tokio::fs::read(home.join(NOTE)).await;
    note.is_ok_and(|note| note == session.as_bytes())
}
