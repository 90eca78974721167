//! What a person or a program can ask for. Each operation is declared once, as the type of its
//! input; the command line, HTTP and the OpenAPI document are derived from the list in `ALL`.
//! Knows nothing of any surface.

pub mod agent;
pub mod agent_try;
pub mod amount;
pub mod audit;
pub mod batch;
pub mod capture;
pub mod change;
pub mod context;
pub mod conversation;
pub mod doctor;
pub mod entry;
pub mod error;
pub mod limit;
pub mod look;
mod lookup;
pub mod message;
mod notice;
pub mod page;
pub mod permission;
pub mod project;
pub mod project_check;
pub mod provider;
pub mod review;
pub mod setting;
pub mod sql;
pub mod step;
pub mod stream;
pub mod submit;
pub mod task;
pub mod token;
pub mod usage;
pub mod values;
pub mod wait;
pub mod worker;

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::scope::Scope;

pub use context::{CheckDepth, OpContext, ProbeReport, Prober};
pub use entry::OpEntry;
pub use error::{OpError, OpErrorKind};

/// What an operation does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Read,
    /// Adds or changes something.
    Write,
    /// Takes something away, or cannot be undone.
    Destructive,
}

impl Effect {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Destructive];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        }
    }
}

/// How an operation is called over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The input is in the path and the query.
    Get,
    /// The input is in the path and the body.
    Post,
    /// As `Post`, for changing settings.
    Patch,
    /// As `Get`, for removing.
    Delete,
}

/// The declaration of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// `noun.verb`.
    pub name: &'static str,
    /// How it is called over HTTP.
    pub method: Method,
    /// Where it is over HTTP, below the version prefix; `{field}` is a field of the input.
    pub path: &'static str,
    /// What it does.
    pub effect: Effect,
    /// Whether who sends it again, not knowing whether it arrived, is answered as if it was the first time,
    /// and nothing more is changed. What takes something away may answer that it is not there.
    pub idempotent: bool,
    /// What the holder of a token needs for it.
    pub scope: Scope,
    /// One sentence.
    pub summary: &'static str,
}

impl Spec {
    /// The name as one word, where dots are none.
    pub fn word(&self) -> String {
        self.name.replace(['.', '-'], "_")
    }

    /// Whether it makes something new, when it does not say otherwise.
    pub fn makes(&self) -> bool {
        let names = [
            "task.submit",
            "task.submit-many",
            "project.add",
            "token.create",
        ];
        names.contains(&self.name)
    }

    /// The noun and the verb of the name.
    pub fn noun_verb(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, "show"))
    }
}

/// One call, as documentation and as the test vector that all surfaces must agree on.
#[derive(Clone, Debug)]
pub struct Example {
    /// What it is for.
    pub about: &'static str,
    /// Arguments on the command line, after `dispatch noun verb`.
    pub cli: &'static [&'static str],
    /// The same input as JSON.
    pub input: Value,
}

/// An operation is the type of its input.
pub trait Op: DeserializeOwned + Serialize + JsonSchema + clap::Args + Send + 'static {
    /// Its declaration.
    const SPEC: Spec;
    /// What it gives back.
    type Output: Serialize + JsonSchema;
    /// At least one call.
    fn examples() -> Vec<Example>;
    /// Do it.
    fn run(self, context: &OpContext)
    -> impl Future<Output = Result<Self::Output, OpError>> + Send;
}

/// Every operation.
pub static ALL: &[OpEntry] = &[
    OpEntry::of::<submit::SubmitTask>(),
    OpEntry::of::<batch::SubmitTasks>(),
    OpEntry::of::<task::ListTasks>(),
    OpEntry::of::<task::ShowTask>(),
    OpEntry::of::<wait::WaitTask>(),
    OpEntry::of::<task::TaskEvents>(),
    OpEntry::of::<step::TaskSteps>(),
    OpEntry::of::<capture::ListRequests>(),
    OpEntry::of::<capture::ShowRequest>(),
    OpEntry::of::<task::CancelTask>(),
    OpEntry::of::<task::RequeueTask>(),
    OpEntry::of::<conversation::ListConversations>(),
    OpEntry::of::<conversation::ShowConversation>(),
    OpEntry::of::<conversation::ConversationItems>(),
    OpEntry::of::<conversation::CompactConversation>(),
    OpEntry::of::<message::SendMessage>(),
    OpEntry::of::<message::ListMessages>(),
    OpEntry::of::<message::CancelMessage>(),
    OpEntry::of::<change::ListChanges>(),
    OpEntry::of::<change::ShowChange>(),
    OpEntry::of::<look::ShowFile>(),
    OpEntry::of::<look::DiffChange>(),
    OpEntry::of::<look::PreviewChange>(),
    OpEntry::of::<review::ApproveChange>(),
    OpEntry::of::<review::RejectChange>(),
    OpEntry::of::<review::RestoreFiles>(),
    OpEntry::of::<review::UndoChange>(),
    OpEntry::of::<review::RequestChanges>(),
    OpEntry::of::<permission::ListPermissions>(),
    OpEntry::of::<permission::AnswerPermission>(),
    OpEntry::of::<agent::ListAgents>(),
    OpEntry::of::<agent::ShowAgent>(),
    OpEntry::of::<agent_try::ProbeAgent>(),
    OpEntry::of::<agent_try::CheckAgent>(),
    OpEntry::of::<project::ListProjects>(),
    OpEntry::of::<project::ShowProject>(),
    OpEntry::of::<project::AddProject>(),
    OpEntry::of::<project::UpdateProject>(),
    OpEntry::of::<project_check::CheckProject>(),
    OpEntry::of::<project::RemoveProject>(),
    OpEntry::of::<worker::ListWorkers>(),
    OpEntry::of::<worker::DrainWorker>(),
    OpEntry::of::<worker::ResumeWorker>(),
    OpEntry::of::<provider::ListProviders>(),
    OpEntry::of::<provider::ResumeProvider>(),
    OpEntry::of::<limit::ListLimits>(),
    OpEntry::of::<limit::SetLimit>(),
    OpEntry::of::<setting::ListSettings>(),
    OpEntry::of::<setting::SetSetting>(),
    OpEntry::of::<usage::ShowUsage>(),
    OpEntry::of::<token::CreateToken>(),
    OpEntry::of::<token::ListTokens>(),
    OpEntry::of::<token::RevokeToken>(),
    OpEntry::of::<audit::ListAudit>(),
    OpEntry::of::<doctor::ShowDoctor>(),
];

/// The operation of this name.
pub fn find(name: &str) -> Option<&'static OpEntry> {
    ALL.iter().find(|entry| entry.spec.name == name)
}
