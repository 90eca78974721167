//! Projects.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::values;
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::remote::Place;
use crate::domain::scope::Scope;
use crate::store::StoreErrorKind;
use crate::store::projects::{self, ProjectSettings};

pub use crate::store::projects::Project;

/// What the name of a project looks like.
const SLUG: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

/// List projects by name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListProjects {
    /// Rows of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    pub cursor: Option<String>,
}

impl Op for ListProjects {
    const SPEC: Spec = Spec {
        name: "project.list",
        method: Method::Get,
        path: "/projects",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "List projects by name",
    };
    type Output = Page<Project>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The page after one",
            cli: &["--limit", "10", "--cursor", "shop"],
            input: json!({"limit": 10, "cursor": "shop"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let rows = projects::list(&context.store, self.cursor.as_deref(), size + 1).await?;
        Ok(Page::cut(rows, size, |project| project.name.clone()))
    }
}

/// Show a project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowProject {
    /// The project
    #[arg(value_name = "PROJECT")]
    pub name: String,
}

impl Op for ShowProject {
    const SPEC: Spec = Spec {
        name: "project.show",
        method: Method::Get,
        path: "/projects/{name}",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Read,
        summary: "Show a project",
    };
    type Output = Project;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One project",
            cli: &["shop"],
            input: json!({"name": "shop"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        projects::get(&context.store, &self.name)
            .await?
            .ok_or_else(|| missing(&self.name))
    }
}

/// Settings that a project can be added with or changed to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, clap::Args)]
pub struct Settings {
    /// Branch that results are applied to, such as refs/heads/main; else the one HEAD names
    #[arg(long = "target", value_name = "REF")]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub target_ref: Option<String>,
    /// `private` or `linked`: how an attempt's worktree is made
    #[arg(long, value_name = "KIND")]
    #[schemars(regex(pattern = "^(private|linked)$"))]
    pub worktree: Option<String>,
    /// Whether agents may be given a linked worktree without a sandbox
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub trusted: Option<bool>,
    /// Whether a change needs the approval of somebody whose words its agent did not follow
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub four_eyes: Option<bool>,
    /// `optional` or `none` lets agents work here without the sandbox that their entries demand;
    /// `required` takes that back
    #[arg(long, value_name = "DEMAND")]
    #[schemars(regex(pattern = "^(required|optional|none)?$"))]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub sandbox: Option<String>,
    /// Agent of tasks that name none
    #[arg(long, value_name = "AGENT")]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub default_agent: Option<String>,
    /// Tasks that may run at a time; 0: no limit
    #[arg(long, value_name = "N")]
    #[schemars(range(min = 0))]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub max_running: Option<i32>,
    /// Untracked file (glob) copied into each worktree, such as .env; give it again for more
    #[arg(long = "copy", value_name = "GLOB")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_files: Option<Vec<String>>,
    /// Command run in a fresh worktree before the agent
    #[arg(long, value_name = "COMMAND")]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub setup: Option<String>,
    /// Command run in a worktree before it is removed
    #[arg(long, value_name = "COMMAND")]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "values::or_default"
    )]
    pub teardown: Option<String>,
}

impl Settings {
    fn into_store(self, path: Option<String>) -> ProjectSettings {
        ProjectSettings {
            path,
            target_ref: self.target_ref,
            worktree: self.worktree,
            trusted: self.trusted,
            four_eyes: self.four_eyes,
            sandbox: self.sandbox,
            default_agent: self.default_agent,
            max_running: self.max_running,
            copy_files: self.copy_files,
            setup: self.setup,
            teardown: self.teardown,
        }
    }
}

/// Add a repository that tasks may be submitted for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
pub struct AddProject {
    /// Its name: lower-case letters, digits, dots, dashes and underscores
    #[arg(value_name = "PROJECT")]
    #[schemars(regex(pattern = SLUG))]
    pub name: String,
    /// Where the repository is: a directory on the hosts of the workers, or an address that they
    /// fetch from and push to, such as `https://git.example.com/shop.git`
    pub path: String,
    /// Do not look whether the path is a repository on this host
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// Its settings.
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: Settings,
}

impl Op for AddProject {
    const SPEC: Spec = Spec {
        name: "project.add",
        method: Method::Post,
        path: "/projects",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Admin,
        summary: "Add a project",
    };
    type Output = Project;

    fn examples() -> Vec<Example> {
        let elsewhere = Example {
            about: "A repository on another host",
            cli: &["docs", "https://git.example.com/docs.git"],
            input: json!({"name": "docs", "path": "https://git.example.com/docs.git"}),
        };
        vec![
            elsewhere,
            Example {
                about: "A repository with a branch for results",
                cli: &[
                    "shop",
                    "/srv/shop",
                    "--target",
                    "refs/heads/main",
                    "--trusted",
                    "true",
                    "--four-eyes",
                    "true",
                    "--max-running",
                    "2",
                    "--copy",
                    ".env",
                    "--unchecked",
                ],
                input: json!({
                    "name": "shop", "path": "/srv/shop", "target_ref": "refs/heads/main",
                    "trusted": true, "four_eyes": true, "max_running": 2, "copy_files": [".env"], "unchecked": true,
                }),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        check_place(&self.path, self.unchecked).await?;
        let settings = self.settings.into_store(Some(self.path));
        projects::add(&context.store, &self.name, &settings, &context.actor)
            .await
            .map_err(|error| match error.kind {
                StoreErrorKind::Duplicate => {
                    OpError::wrong_state(format!("there is a project {:?} already", self.name))
                        .code("duplicate")
                        .hint(format!(
                            "Change it: dispatch projects update {}.",
                            self.name
                        ))
                }
                _ => error.into(),
            })
    }
}

/// Change settings of a project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
pub struct UpdateProject {
    /// The project
    #[arg(value_name = "PROJECT")]
    pub name: String,
    /// Where the repository is: a directory on the hosts of the workers, or an address
    #[arg(long)]
    pub path: Option<String>,
    /// Do not look whether the path is a repository on this host
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// What shall change; an empty text takes a setting away.
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: Settings,
}

impl Op for UpdateProject {
    const SPEC: Spec = Spec {
        name: "project.update",
        method: Method::Patch,
        path: "/projects/{name}",
        effect: Effect::Write,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Change settings of a project; what is left out stays, null or an empty text takes it away",
    };
    type Output = Project;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Another default agent",
            cli: &["shop", "--default-agent", "opencode", "--setup", ""],
            input: json!({"name": "shop", "default_agent": "opencode", "setup": ""}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if let Some(path) = &self.path {
            check_place(path, self.unchecked).await?;
        }
        let settings = self.settings.into_store(self.path);
        projects::update(&context.store, &self.name, &settings, &context.actor)
            .await?
            .ok_or_else(|| missing(&self.name))
    }
}

/// Remove a project. Its tasks and their history stay, and so does the repository.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RemoveProject {
    /// The project
    #[arg(value_name = "PROJECT")]
    pub name: String,
}

/// A removed project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedProject {
    /// Its name.
    pub name: String,
}

impl Op for RemoveProject {
    const SPEC: Spec = Spec {
        name: "project.remove",
        method: Method::Delete,
        path: "/projects/{name}",
        effect: Effect::Destructive,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Remove a project that has no open work",
    };
    type Output = RemovedProject;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One project",
            cli: &["shop"],
            input: json!({"name": "shop"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if !projects::remove(&context.store, &self.name, &context.actor).await? {
            return Err(missing(&self.name));
        }
        Ok(RemovedProject { name: self.name })
    }
}

pub(super) fn missing(name: &str) -> OpError {
    OpError::not_found(format!("there is no project {name:?}"))
        .code("unknown_project")
        .hint("dispatch projects list shows them.")
}

/// Look whether a place is one: the top of a repository on this host, or an address that git knows. Only
/// a worker can say whether it gets there.
async fn check_place(place: &str, unchecked: bool) -> Result<(), OpError> {
    match Place::parse(place) {
        Ok(Place::Path) if unchecked => Ok(()),
        Ok(Place::Path) => check_path(place).await,
        Ok(Place::Remote(_)) => Ok(()),
        Err(why) => Err(
            OpError::invalid(format!("{place:?} is no place of a repository: {why}"))
                .code("no_repository"),
        ),
    }
}

/// Look whether a path is the top of a repository on this host.
async fn check_path(path: &str) -> Result<(), OpError> {
    let top = Path::new(path);
    if !top.is_absolute() {
        return Err(OpError::invalid(format!(
            "the path {path:?} is not absolute"
        )));
    }
    let is_there = |part: &'static str| async move {
        let at = if part.is_empty() {
            top.to_owned()
        } else {
            top.join(part)
        };
        tokio::fs::try_exists(at).await.unwrap_or(false)
    };
    let elsewhere =
        "If only the hosts of the workers have it, add it with --unchecked (`unchecked` by HTTP).";
    if !is_there("").await {
        return Err(
            OpError::invalid(format!("there is nothing at {path:?} on this host"))
                .code("no_repository")
                .hint(elsewhere),
        );
    }
    let bare = is_there("HEAD").await && is_there("objects").await;
    if bare || is_there(".git").await {
        return Ok(());
    }
    Err(
        OpError::invalid(format!("{path:?} is not the top of a git repository"))
            .code("no_repository")
            .hint(
                "Run git init there and commit something, or name the repository's top directory.",
            ),
    )
}
