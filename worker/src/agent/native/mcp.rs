//! MCP servers of the agent's entry, started inside its sandbox; their tools are the model's. A
//! server that does not work costs its own tools and nothing else.

mod pipes;
mod schema;
mod tools;

use std::borrow::Cow;
use std::time::Duration;

use futures::future::join_all;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock,
    Implementation, PaginatedRequestParams,
};
use rmcp::service::{RoleClient, RunningService, ServiceError, serve_client};
use serde_json::{Value, json};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tool_host::Outcome;
use crate::agent::environment;
use crate::agent::process::{AgentProcess, Input, Launch, Manner};
use crate::agent::{AgentError, AgentEvent, EventSink, MARK_VARIABLE, TurnRequest};
use crate::config::agent_spec::AgentSpec;
use crate::config::native_spec::McpServer;
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;
use crate::domain::llm::ToolDefinition;
use crate::sandbox::process_set::ProcessSet;

use pipes::Silence;
use tools::{Names, Picked, Tool};

/// The servers of a turn and their processes.
#[derive(Default)]
pub(crate) struct Servers {
    /// Those that work.
    servers: Vec<Server>,
    processes: Vec<AgentProcess>,
}

/// One that works.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    tools: Vec<Tool>,
    call_timeout: Duration,
    service: RunningService<RoleClient, ClientConfig>,
    silence: Silence,
}

impl Servers {
    /// Start all servers of an entry at once; what they use counts for the limits of `agent`.
    pub(crate) async fn start(
        spec: &AgentSpec,
        turn: &TurnRequest,
        agent: &ProcessSet,
        events: &EventSink,
        stop: &CancellationToken,
    ) -> Self {
        let mut started = Self::default();
        let starts = spec.native.mcp.iter().map(async |(name, server)| {
            let result = start(spec, turn, name, server, agent, stop).await;
            (name, result)
        });
        for (name, result) in join_all(starts).await {
            let remarks = match result {
                Ok((server, process, remarks)) => {
                    started.servers.push(server);
                    started.processes.push(process);
                    remarks
                }
                Err(error) => vec![format!("it is left out: {error}")],
            };
            for remark in remarks {
                let remark = turn
                    .secrets
                    .head_chars(&remark, limits::MCP_FAULT_CHARS_MAX);
                let text = format!("the MCP server {name}: {remark}");
                events.send(AgentEvent::Notice { text }).await;
            }
        }
        started
    }

    /// The servers themselves, for whoever calls them.
    pub(crate) fn take(&mut self) -> Vec<Server> {
        std::mem::take(&mut self.servers)
    }

    /// End their processes; returns when nothing of them is left.
    pub(crate) async fn end(self) -> Result<(), AgentError> {
        let ends = self.processes.into_iter();
        let ends = ends.map(|process| process.end(Manner::Firm, None));
        let mut worst = Ok(());
        for ended in join_all(ends).await {
            if let Err(error) = ended {
                worst = Err(error);
            }
        }
        worst
    }
}

impl Server {
    /// Call a tool by the server's own name for it. The result is cut by whoever cleans it, after that.
    pub(crate) async fn call(&self, tool: &str, input: Value) -> Outcome {
        let Value::Object(arguments) = input else {
            return Outcome::failed("the input of the call is no JSON object");
        };
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = Some(arguments);
        // Dropped, the call is withdrawn: a server that knows the word stops working on it.
        let calling = timeout(self.call_timeout, self.service.peer().call_tool(params));
        let called = tokio::select! {
            biased;
            called = calling => called,
            // The library waits until the server has read what it is told, which may be never.
            why = self.silence.begins() => return self.failed(&why),
        };
        match called {
            Ok(Ok(result)) => self.outcome(&result),
            Ok(Err(error)) => self.failed(&self.fault(&error)),
            Err(_) => {
                let seconds = self.call_timeout.as_secs();
                self.failed(&format!("it did not answer within {seconds} s"))
            }
        }
    }

    fn failed(&self, why: &str) -> Outcome {
        Outcome::failed(format!("the MCP server {}: {why}", self.name))
    }

    fn outcome(&self, result: &CallToolResult) -> Outcome {
        Outcome {
            output: text_of(&result.content, result.structured_content.as_ref()),
            is_error: result.is_error.unwrap_or(false),
            detail: json!({ "server": self.name }),
        }
    }

    /// Why a call failed; of a server that says nothing any more, why that is so.
    fn fault(&self, error: &ServiceError) -> String {
        match error {
            ServiceError::McpError(error) => error.message.clone().into_owned(),
            other => match self.silence.reason() {
                Some(reason) => reason,
                None => other.to_string(),
            },
        }
    }
}

/// What the model is told of their tools: the server's place, the definition, the tool's own name.
pub(crate) fn definitions(servers: &[Server]) -> Vec<(usize, ToolDefinition, String)> {
    let mut names = Names::default();
    let mut all = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        for tool in &server.tools {
            let definition = ToolDefinition {
                name: names.name(&server.name, &tool.name),
                description: tool.description.clone(),
                schema: tool.schema.clone(),
            };
            all.push((at, definition, tool.name.clone()));
        }
    }
    all
}

async fn start(
    spec: &AgentSpec,
    turn: &TurnRequest,
    name: &str,
    server: &McpServer,
    agent: &ProcessSet,
    stop: &CancellationToken,
) -> Result<(Server, AgentProcess, Vec<String>), AgentError> {
    let mut process = launch(spec, turn, name, server)?.start()?;
    agent.join(process.set());
    let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(failed("it has no pipes"));
    };
    let patience = call_timeout(server).min(limits::TOOLS_START_TIMEOUT);
    let silence = Silence::default();
    let pipes = (stdin, stdout, silence.clone());
    let greeting = timeout(patience, greet(name, server, pipes));
    let greeted = tokio::select! {
        biased;
        () = stop.cancelled() => Err(failed("the attempt is ending")),
        greeted = greeting => greeted.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(failed(&format!("it did not list its tools within {seconds} s of its start")))
        }),
        why = silence.begins() => Err(failed(&why)),
    };
    match greeted {
        Ok((server, remarks)) => Ok((server, process, remarks)),
        Err(error) => {
            // What it did says more than what the library makes of it.
            let error = silence.reason().unwrap_or_else(|| error.to_string());
            let exit = process.end(Manner::Firm, None).await?;
            let last = exit.stderr_tail.lines().last().unwrap_or_default();
            let told = if last.is_empty() { "" } else { "; it said: " };
            Err(failed(&format!("{error}{told}{last}")))
        }
    }
}

fn call_timeout(server: &McpServer) -> Duration {
    let seconds = server.timeout_s.map(Duration::from_secs);
    seconds.unwrap_or(limits::MCP_CALL_TIMEOUT)
}

fn failed(message: &str) -> AgentError {
    AgentError::new(ErrorClass::Protocol, message)
}

fn launch(
    spec: &AgentSpec,
    turn: &TurnRequest,
    name: &str,
    server: &McpServer,
) -> Result<Launch, AgentError> {
    let program = server.command.first().map_or("", String::as_str);
    let path = environment::search_path(&turn.worktree);
    let program = environment::find_program(program, &path).ok_or_else(|| {
        failed(&format!(
            "its program `{program}` is not on the worker's PATH; install it, or correct `command`"
        ))
    })?;
    // A mark of its own, so that its end is not that of the agent.
    let mark = format!("{}/mcp-{name}", turn.mark);
    let mut variables = environment::variables(spec, turn, "dumb")?;
    let own = server.env.iter();
    variables.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    variables.retain(|(key, _)| key != MARK_VARIABLE);
    variables.push((MARK_VARIABLE.to_owned(), mark.clone()));
    Ok(Launch {
        program,
        args: server.command.iter().skip(1).cloned().collect(),
        cwd: turn.worktree.clone(),
        variables,
        mark,
        stdin: Input::Pipe,
        kill_grace: spec.kill_grace,
        confinement: turn.confinement.clone(),
        secrets: turn.secrets.clone(),
    })
}

async fn greet(
    name: &str,
    server: &McpServer,
    (stdin, stdout, silence): (ChildStdin, ChildStdout, Silence),
) -> Result<(Server, Vec<String>), AgentError> {
    let reader = pipes::reader(stdout, silence.clone());
    let transport = (Box::pin(pipes::writer(stdin, silence.clone())), reader);
    let this = Implementation::new("dispatch", env!("CARGO_PKG_VERSION"));
    let client = ClientConfig::new(ClientCapabilities::default(), this);
    let service = serve_client(client, transport)
        .await
        .map_err(|error| failed(&format!("it does not speak MCP: {error}")))?;
    let mut picked = Picked::default();
    let mut cursor = None;
    // Pages without an end would be an attack.
    for _ in 0..limits::MCP_PAGES_MAX {
        let mut params = PaginatedRequestParams::default();
        params.cursor = cursor;
        let page = service
            .list_tools(Some(params))
            .await
            .map_err(|error| failed(&format!("it does not list its tools: {error}")))?;
        for tool in page.tools {
            picked.take(tool, &server.tools);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let remarks = picked.remarks(&server.tools);
    let server = Server {
        name: name.to_owned(),
        tools: picked.tools,
        call_timeout: call_timeout(server),
        service,
        silence,
    };
    Ok((server, remarks))
}

/// The words of a result; of what has none, what it is.
fn text_of(content: &[ContentBlock], structured: Option<&Value>) -> String {
    let parts: Vec<Cow<'_, str>> = content
        .iter()
        .map(|block| match block {
            ContentBlock::Text(text) => Cow::Borrowed(text.text.as_str()),
            ContentBlock::Image(_) => Cow::Borrowed("[an image, which cannot be shown]"),
            ContentBlock::Audio(_) => Cow::Borrowed("[a sound, which cannot be played]"),
            // Resources, and what a later version of the protocol adds.
            _ => Cow::Owned(serde_json::to_string(block).unwrap_or_default()),
        })
        .collect();
    let mut text = parts.join("\n");
    if text.is_empty()
        && let Some(structured) = structured
    {
        text = structured.to_string();
    }
    text
}
