//! Patches of a model.

use serde_json::json;

use super::tool_stage::Stage;
use crate::toolhost::rehearsal;

/// Two files and a patch, with a NUL between them. The patch is applied or changes nothing, and
/// never touches what is not in the worktree.
pub fn apply_patch(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let (Some(a), Some(b), Some(patch)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    // A disk that is full is no find.
    let Ok(stage) = Stage::new(a, b) else {
        return;
    };
    let Ok(before) = stage.files() else {
        return;
    };
    let input = json!({ "patch": String::from_utf8_lossy(patch) });
    let told = rehearsal::call("apply_patch", &stage.tree(), input);
    let Ok(after) = stage.files() else {
        unreachable!("a file cannot be read any more");
    };
    after.are_in_order_after(&before);
    match told {
        Ok(told) => assert!(told.starts_with("applied the patch:\n"), "{told}"),
        Err(why) => {
            assert!(!why.is_empty());
            assert_eq!(after, before, "a part of it was applied: {why}");
        }
    }
}
