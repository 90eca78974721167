//! What a model calls tools with.

use serde_json::Value;

use super::tool_stage::{SECRET, Stage};
use crate::domain::limits;
use crate::toolhost::rehearsal;

/// Each with whether it may change something.
const TOOLS: [(&str, bool); 8] = [
    ("read", false),
    ("list", false),
    ("glob", false),
    ("grep", false),
    ("shell", false),
    ("edit", true),
    ("write", true),
    ("apply_patch", true),
];

/// The first byte names a tool, the rest is its input: JSON, or else a text in its place. A tool says
/// something of bounded size, changes nothing when it fails or only looks, and neither shows nor
/// touches what is not in the worktree.
pub fn tool_input(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Some((tool, changes)) = TOOLS.get(usize::from(*first) % TOOLS.len()) else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let input = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    // A tool may say again what it was asked.
    let asked = input.to_string().contains(SECRET);
    let Ok(stage) = Stage::new(
        b"one\ntwo\nthree\n",
        "fn f() {\n\tz\u{e9}ro();\n}\n".as_bytes(),
    ) else {
        return;
    };
    let Ok(before) = stage.files() else {
        return;
    };
    let told = rehearsal::call(tool, &stage.tree(), input);
    let Ok(after) = stage.files() else {
        unreachable!("a file cannot be read any more");
    };
    after.are_in_order_after(&before);
    assert!(
        told.is_ok() && *changes || after == before,
        "{tool}: {told:?}"
    );
    let (Ok(said) | Err(said)) = &told;
    assert!(said.len() <= limits::TOOL_RESULT_BYTES_MAX, "{tool}");
    assert!(!said.is_empty() || *tool == "shell", "{tool}");
    assert!(
        asked || !said.contains(SECRET),
        "{tool} shows what is outside"
    );
}
