//! What was approved against what there is: the digest that a reviewer named, and the rows that they
//! saw, are made anew from the objects before any of it goes into a branch. A login that may store
//! changes, as a worker's may, could have stored others.

use super::{ApplyRequest, WorkspaceError, diff};
use crate::domain::change::{FileChange, ShownFile, show_path};
use crate::domain::error_class::ErrorClass;

/// Refuse a change that is not the approved one, or was shown as something else than it is. `rows`:
/// what its objects say.
pub(super) fn refuse_other(
    request: &ApplyRequest,
    result_tree: &str,
    rows: &[FileChange],
) -> Result<(), WorkspaceError> {
    let found = diff::digest(&request.base_commit, result_tree, rows);
    if found != request.digest {
        return Err(other(
            request,
            &format!("its digest is {found}, and {} was approved", request.digest),
        ));
    }
    let is: Vec<ShownFile> = rows.iter().map(ShownFile::of).collect();
    if is == request.files {
        return Ok(());
    }
    let mut pairs = is.iter().zip(&request.files);
    let first = pairs.position(|(file, shown)| file != shown);
    // None among the pairs: one of the two has more.
    let first = first.unwrap_or(is.len().min(request.files.len()));
    let file = is.get(first).or_else(|| request.files.get(first));
    let name = file.map_or_else(String::new, |file| show_path(&file.path));
    Err(other(
        request,
        &format!("{name} was shown as something else than it is"),
    ))
}

fn other(request: &ApplyRequest, why: &str) -> WorkspaceError {
    WorkspaceError::new(
        ErrorClass::Workspace,
        format!(
            "change {} is not what was approved: {why}. Nothing was applied. Find out who stored it \
             so, reject it, and let its task run again",
            request.change
        ),
    )
}
