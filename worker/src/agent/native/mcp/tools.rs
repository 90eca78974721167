//! The tools of MCP servers, in the form in which a model is told of them.

use std::collections::HashSet;

use rmcp::model::Tool as Told;
use serde_json::Value;

use super::schema;
use crate::domain::limits;

/// Longest name that every provider takes.
const NAME_CHARS_MAX: usize = 64;

/// A tool.
#[derive(Debug)]
pub(super) struct Tool {
    /// The server's own name for it.
    pub(super) name: String,
    pub(super) description: String,
    pub(super) schema: Value,
}

/// The tools of one server that are wanted and within bounds, and what is left out.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) tools: Vec<Tool>,
    /// Names of those that are too large.
    large: Vec<String>,
    /// How many there are beyond the bound.
    beyond: usize,
}

impl Picked {
    /// Take a tool, if the entry wants it: one that it names, or any when it names none.
    pub(super) fn take(&mut self, tool: Told, wanted: &[String]) {
        if !wanted.is_empty() && !wanted.iter().any(|name| *name == tool.name) {
            return;
        }
        if self.tools.len() + self.large.len() >= limits::MCP_TOOLS_MAX {
            self.beyond += 1;
            return;
        }
        let schema = schema::plain(&tool.input_schema);
        let size = tool.name.len() + schema.to_string().len();
        if size > limits::MCP_SCHEMA_BYTES_MAX {
            self.large
                .push(tool.name.chars().take(NAME_CHARS_MAX).collect());
            return;
        }
        let mut description = tool.description.unwrap_or_default().into_owned();
        let end = description.floor_char_boundary(limits::MCP_DESCRIPTION_BYTES_MAX);
        description.truncate(end);
        self.tools.push(Tool {
            name: tool.name.into_owned(),
            description,
            schema,
        });
    }

    /// What whoever wrote the entry should know.
    pub(super) fn remarks(&self, wanted: &[String]) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.beyond > 0 {
            remarks.push(format!(
                "{} of its tools are left out, since {} are offered at most: name those that are \
                 wanted in its `tools`",
                self.beyond,
                limits::MCP_TOOLS_MAX
            ));
        }
        for name in &self.large {
            let kib = limits::MCP_SCHEMA_BYTES_MAX >> 10;
            remarks.push(format!(
                "its tool `{name}` is left out: the schema of its input is larger than {kib} KiB"
            ));
        }
        let known = |name: &&String| {
            let has = self.tools.iter().any(|tool| tool.name == **name);
            has || self.large.contains(*name) || self.beyond > 0
        };
        for name in wanted.iter().filter(|name| !known(name)) {
            remarks.push(format!("it has no tool `{name}`, which its `tools` names"));
        }
        remarks
    }
}

/// Names that every provider takes, each given once.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The name of a server's tool.
    pub(super) fn name(&mut self, server: &str, tool: &str) -> String {
        let plain = |c: char| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
            _ => '_',
        };
        let whole: String = format!("mcp__{server}__{tool}")
            .chars()
            .map(plain)
            .collect();
        let cut = |most: usize| whole.chars().take(most).collect::<String>();
        let mut name = cut(NAME_CHARS_MAX);
        let mut n = 2;
        // Two names may differ only in what providers do not take.
        while !self.0.insert(name.clone()) {
            let tail = format!("_{n}");
            name = cut(NAME_CHARS_MAX - tail.len()) + &tail;
            n += 1;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(name: &str, schema: &Value) -> Told {
        let tool = json!({ "name": name, "description": "é".repeat(9_000), "inputSchema": schema });
        serde_json::from_value(tool).unwrap()
    }

    #[test]
    fn a_tool_has_a_name_that_every_provider_takes_and_no_other_tool_has() {
        let mut names = Names::default();
        let mut name = |tool: &str| names.name("docs", tool);
        assert_eq!(name("find.all pages"), "mcp__docs__find_all_pages");
        assert_eq!(name("find all pages"), "mcp__docs__find_all_pages_2");
        assert_eq!(name("find/all/pages"), "mcp__docs__find_all_pages_3");
        let long = "é".repeat(99);
        let (first, second) = (name(&long), name(&long));
        assert_eq!((first.len(), second.len()), (64, 64));
        assert!(first != second && second.ends_with("_2"));
    }

    #[test]
    fn what_is_too_much_is_left_out_and_told() {
        let mut picked = Picked::default();
        let members =
            (0..200).map(|n| (format!("p{n}"), json!({ "description": "x".repeat(400) })));
        let large = Value::Object(members.collect());
        picked.take(told("large", &json!({ "properties": large })), &[]);
        for n in 0..limits::MCP_TOOLS_MAX + 4 {
            picked.take(told(&n.to_string(), &json!({})), &[]);
        }
        assert_eq!(picked.tools.len(), limits::MCP_TOOLS_MAX - 1);
        let description = &picked.tools[0].description;
        assert!(description.len() <= limits::MCP_DESCRIPTION_BYTES_MAX);
        let remarks = picked.remarks(&[]).join("\n");
        assert!(remarks.contains("5 of its tools"), "{remarks}");
        assert!(remarks.contains("`large` is left out"), "{remarks}");
    }

    #[test]
    fn a_wanted_tool_that_is_not_there_is_told() {
        let wanted = ["a", "b"].map(str::to_owned);
        let mut picked = Picked::default();
        picked.take(told("a", &json!({})), &wanted);
        picked.take(told("c", &json!({})), &wanted);
        assert_eq!(picked.tools.len(), 1);
        let remarks = picked.remarks(&wanted);
        assert_eq!(remarks, ["it has no tool `b`, which its `tools` names"]);
    }
}
