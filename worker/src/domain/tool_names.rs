//! The names of the native agent's own tools, for what may not know the tools themselves.

/// In the order in which models are told of them.
pub const BUILT_IN: [&str; 9] = [
    "read",
    "list",
    "glob",
    "grep",
    "edit",
    "write",
    "apply_patch",
    "shell",
    "todo_write",
];
