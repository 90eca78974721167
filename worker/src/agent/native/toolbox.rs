//! The tools that a turn offers to its model, and what happens when it calls one: the policy of the
//! agent's entry, then the place where the tool runs.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{RwLock, Semaphore};

use super::mcp;
use super::todo;
use super::tool_host::{Outcome, ToolHost};
use crate::agent::acp::project::cut;
use crate::agent::conversation::Conversation;
use crate::agent::event::ToolCall as ShownCall;
use crate::agent::permission::{Permission, PermissionAnswer, PermissionAsk};
use crate::agent::{AgentEvent, EventSink};
use crate::config::agent_spec::{AgentSpec, Verdict};
use crate::domain::limits;
use crate::domain::llm::{ToolCall, ToolDefinition, ToolResult};
use crate::domain::redact::Redactor;
use crate::toolhost::{self, Concurrency};

/// What a turn's model may call.
pub(crate) struct Toolbox<'a> {
    definitions: Arc<[ToolDefinition]>,
    offered: HashMap<String, Offered>,
    host: ToolHost,
    servers: Vec<mcp::Server>,
    conversation: Arc<dyn Conversation>,
    spec: &'a AgentSpec,
    permission: &'a dyn Permission,
    events: EventSink,
    secrets: Redactor,
    /// Who changes something has it alone; first come, first served.
    turnstile: RwLock<()>,
    at_once: Semaphore,
}

/// One of them.
#[derive(Clone, Debug)]
struct Offered {
    kind: String,
    concurrency: Concurrency,
    route: Route,
}

#[derive(Clone, Debug)]
enum Route {
    /// The program inside the sandbox.
    Host,
    /// The list of what is to be done.
    Todo,
    /// An MCP server, with its own name for the tool.
    Mcp { server: usize, name: String },
}

/// What a turn may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Change things.
    Build,
    /// Look at things.
    Plan,
}

impl Mode {
    /// The mode with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "build" => Some(Self::Build),
            "plan" => Some(Self::Plan),
            _ => None,
        }
    }
}

/// Where the tools of a turn run and whom they ask.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: ToolHost,
    pub(crate) servers: Vec<mcp::Server>,
    pub(crate) conversation: Arc<dyn Conversation>,
    pub(crate) permission: &'a dyn Permission,
    pub(crate) events: EventSink,
    pub(crate) secrets: Redactor,
}

impl<'a> Toolbox<'a> {
    /// The tools of an entry in this mode.
    pub(crate) fn new(spec: &'a AgentSpec, mode: Mode, around: Surroundings<'a>) -> Self {
        let disabled = |name: &str| spec.native.disabled_tools.iter().any(|tool| tool == name);
        let mut definitions = Vec::new();
        let mut offered = HashMap::new();
        let mut offer = |definition: ToolDefinition, tool: Offered| {
            let seen = mode == Mode::Build || tool.concurrency == Concurrency::Shared;
            if !seen || disabled(&definition.name) || offered.contains_key(&definition.name) {
                return;
            }
            offered.insert(definition.name.clone(), tool);
            definitions.push(definition);
        };
        for tool in toolhost::definitions() {
            let definition = ToolDefinition {
                name: tool.name.to_owned(),
                description: tool.description.to_owned(),
                schema: tool.schema.clone(),
            };
            let route = Route::Host;
            offer(
                definition,
                Offered {
                    kind: tool.kind.to_owned(),
                    concurrency: tool.concurrency,
                    route,
                },
            );
        }
        offer(
            todo::definition(),
            Offered {
                kind: "think".to_owned(),
                // It changes no file, so that a plan may have one.
                concurrency: Concurrency::Shared,
                route: Route::Todo,
            },
        );
        for (server, definition, name) in mcp::definitions(&around.servers) {
            let route = Route::Mcp { server, name };
            offer(
                definition,
                Offered {
                    kind: "other".to_owned(),
                    concurrency: Concurrency::Alone,
                    route,
                },
            );
        }
        let at_once = match spec.native.max_concurrent {
            0 => Semaphore::MAX_PERMITS,
            most => most as usize,
        };
        Self {
            definitions: definitions.into(),
            offered,
            host: around.host,
            servers: around.servers,
            conversation: around.conversation,
            spec,
            permission: around.permission,
            events: around.events,
            secrets: around.secrets,
            turnstile: RwLock::new(()),
            at_once: Semaphore::new(at_once),
        }
    }

    /// What the model is told; the same for the whole turn.
    pub(crate) fn definitions(&self) -> Arc<[ToolDefinition]> {
        Arc::clone(&self.definitions)
    }

    /// Whether the same call twice in one answer is one call: it only looks.
    pub(crate) fn only_looks(&self, call: &ToolCall) -> bool {
        let tool = self.offered.get(&call.name);
        tool.is_some_and(|tool| tool.concurrency == Concurrency::Shared)
    }

    /// Do it. Always gives a result: a tool that fails is something the model can deal with.
    pub(crate) fn run<'b>(&'b self, call: ToolCall, step_id: String) -> BoxFuture<'b, ToolResult> {
        Box::pin(async move {
            let told = self.told(&call, &step_id);
            self.show(ShownCall {
                status: Some("pending".to_owned()),
                ..told.clone()
            })
            .await;
            let mut outcome = self.outcome(&call, &told).await;
            // What a model reads goes to its provider.
            self.secrets.clean(&mut outcome.output);
            let end = outcome
                .output
                .floor_char_boundary(limits::TOOL_RESULT_BYTES_MAX);
            outcome.output.truncate(end);
            let status = if outcome.is_error {
                "failed"
            } else {
                "completed"
            };
            let output = json!({ "text": outcome.output, "detail": outcome.detail });
            self.show(ShownCall {
                status: Some(status.to_owned()),
                output: Some(cut(&output, &self.secrets)),
                paths: paths_of(&outcome.detail),
                ..ShownCall {
                    id: told.id.clone(),
                    step_id: told.step_id.clone(),
                    ..ShownCall::default()
                }
            })
            .await;
            ToolResult {
                call_id: call.id,
                name: call.name,
                output: outcome.output,
                is_error: outcome.is_error,
            }
        })
    }

    async fn outcome(&self, call: &ToolCall, told: &ShownCall) -> Outcome {
        let Some(tool) = self.offered.get(&call.name) else {
            let names: Vec<&str> = self.definitions.iter().map(|d| d.name.as_str()).collect();
            let names = names.join(", ");
            return Outcome::failed(format!(
                "there is no tool `{}`; there are: {names}",
                call.name
            ));
        };
        if !call.input.is_object() {
            return Outcome::failed(
                "the input of the call is no JSON object; call the tool again with a complete one",
            );
        }
        if let Some(refusal) = self.refusal(call, tool, told).await {
            return Outcome::failed(refusal);
        }
        let (_shared, _alone);
        match tool.concurrency {
            Concurrency::Shared => _shared = self.turnstile.read().await,
            Concurrency::Alone => _alone = self.turnstile.write().await,
        }
        // Never closed.
        let _slot = self.at_once.acquire().await;
        self.show(ShownCall {
            id: told.id.clone(),
            step_id: told.step_id.clone(),
            status: Some("in_progress".to_owned()),
            ..ShownCall::default()
        })
        .await;
        match &tool.route {
            Route::Host => {
                self.host
                    .call(&call.id, &call.name, call.input.clone())
                    .await
            }
            Route::Todo => todo::write(&*self.conversation, &self.events, &call.input).await,
            Route::Mcp { server, name } => match self.servers.get(*server) {
                Some(server) => server.call(name, call.input.clone()).await,
                None => Outcome::failed("the tool's server is gone"),
            },
        }
    }

    /// Why it may not be done, if it may not. What the entry allows is not asked.
    async fn refusal(&self, call: &ToolCall, tool: &Offered, told: &ShownCall) -> Option<String> {
        // The tools themselves stay below the worktree.
        let inside = matches!(tool.route, Route::Host | Route::Todo);
        for kind in kinds(tool, call) {
            if self.spec.permissions.verdict(kind, !inside) == Verdict::Allow {
                continue;
            }
            let ask = PermissionAsk {
                tool_call_id: Some(call.id.clone()),
                kind: kind.to_owned(),
                title: told.title.clone().unwrap_or_default(),
                detail: told.input.clone().unwrap_or_default(),
                outside: !inside,
                options: Value::Array(Vec::new()),
            };
            match self.permission.ask(ask).await {
                PermissionAnswer::Allow => {}
                PermissionAnswer::Deny => {
                    let no = format!(
                        "this was not allowed ({kind}). Go on without it, or say in your answer what you need."
                    );
                    return Some(no);
                }
                PermissionAnswer::Cancelled => return Some("the attempt is ending".to_owned()),
            }
        }
        None
    }

    fn told(&self, call: &ToolCall, step_id: &str) -> ShownCall {
        let kind = self.offered.get(&call.name).map(|tool| tool.kind.clone());
        ShownCall {
            id: call.id.clone(),
            step_id: Some(step_id.to_owned()),
            title: Some(title(call, &self.secrets)),
            kind: Some(kind.unwrap_or_else(|| "other".to_owned())),
            input: Some(cut(&call.input, &self.secrets)),
            paths: paths_of(&call.input),
            ..ShownCall::default()
        }
    }

    async fn show(&self, call: ShownCall) {
        self.events.send(AgentEvent::ToolCall(call)).await;
    }
}

/// What a call does, in the words of a policy: a patch may also delete and move.
fn kinds<'a>(tool: &'a Offered, call: &ToolCall) -> Vec<&'a str> {
    let mut kinds = vec![tool.kind.as_str()];
    if call.name == "apply_patch" {
        // Whatever member it stands in, and also where it is only a line of a file: rather asked once
        // more than not at all.
        let said = |word: &str| says(&call.input, word);
        kinds.extend(said("*** Delete File:").then_some("delete"));
        kinds.extend(said("*** Move to:").then_some("move"));
    }
    kinds
}

fn says(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.contains(word),
        Value::Array(values) => values.iter().any(|value| says(value, word)),
        Value::Object(members) => members.values().any(|value| says(value, word)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// One line for people: the tool and what it is about, by the member that the tool itself reads. What else
/// a model writes into the input must not stand for it.
pub(crate) fn title(call: &ToolCall, secrets: &Redactor) -> String {
    const PATH: &[&str] = &["path", "file_path", "filePath"];
    let members: &[&str] = match call.name.as_str() {
        "shell" => &["command", "cmd"],
        "read" | "list" | "write" | "edit" => PATH,
        "glob" | "grep" => &["pattern"],
        _ => &[],
    };
    let about = members
        .iter()
        .find_map(|key| call.input.get(key).and_then(Value::as_str))
        .unwrap_or_default();
    let mut lines = about.lines().filter(|line| !line.trim().is_empty());
    let (first, more) = (lines.next().unwrap_or_default(), lines.next().is_some());
    let mark = if more { " …" } else { "" };
    let title = format!("{} {}{mark}", call.name, secrets.head_chars(first, 120));
    title.trim_end().to_owned()
}

fn paths_of(value: &Value) -> Vec<String> {
    let one = value.get("path").and_then(Value::as_str);
    let many = value.get("paths").and_then(Value::as_array);
    let many = many.into_iter().flatten().filter_map(Value::as_str);
    one.into_iter()
        .chain(many)
        .filter(|path| path.len() <= limits::PATH_BYTES_MAX)
        .take(limits::TOOL_CALL_FILES_MAX)
        .map(str::to_owned)
        .collect()
}
