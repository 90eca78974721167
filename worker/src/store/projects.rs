//! Projects: repositories that tasks may be submitted for, and how their worktrees are made.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};

crate::statements! {
    /// One project by name.
    GET = "project_get";
    /// A page of projects by name.
    LIST = "project_list";
    /// A new project.
    ADD = "project_add";
    /// Change the settings that are given.
    UPDATE = "project_update", slow;
    /// Remove a project that has no open work.
    REMOVE = "project_remove";
}

crate::record! {
    /// A repository that tasks may be submitted for.
    pub struct Project {
        /// Its name, a slug.
        pub name: String,
        /// Where the repository is: a directory on the hosts of the workers, or an address.
        pub path: String,
        /// Branch that results are applied to, as refs/heads/…; absent: the one HEAD names.
        pub target_ref: Option<String>,
        /// `private` or `linked`: how an attempt's worktree is made.
        pub worktree: String,
        /// Whether its agents may be given a linked worktree without a sandbox.
        pub trusted: bool,
        /// Whether nobody approves a change that their own words led to.
        pub four_eyes: bool,
        /// `optional` or `none`: what is demanded of the sandbox here; absent: what agents' entries say.
        pub sandbox: Option<String>,
        /// Agent of tasks that name none.
        pub default_agent: Option<String>,
        /// At most this many of its tasks run at a time; absent: no limit of its own.
        pub max_running: Option<i32>,
        /// Untracked files (globs) copied into each worktree.
        pub copy_files: Vec<String>,
        /// Command run in a fresh worktree before the agent.
        pub setup: Option<String>,
        /// Command run in a worktree before it is removed.
        pub teardown: Option<String>,
        /// When it was added.
        pub created_at: DateTime<Utc>,
    }
}

/// What a new project is made of, or what shall change of one; absent: the default, or no change.
#[derive(Clone, Debug, Default)]
pub struct ProjectSettings {
    /// Where the repository is.
    pub path: Option<String>,
    /// Branch that results are applied to; empty: the one HEAD names.
    pub target_ref: Option<String>,
    /// `private` or `linked`.
    pub worktree: Option<String>,
    /// Whether linked worktrees are allowed.
    pub trusted: Option<bool>,
    /// Whether nobody approves a change that their own words led to.
    pub four_eyes: Option<bool>,
    /// `optional` or `none`: lowers what agents' entries demand; empty or `required`: does not.
    pub sandbox: Option<String>,
    /// Agent of tasks that name none; empty: none.
    pub default_agent: Option<String>,
    /// Tasks that may run at a time; 0: no limit.
    pub max_running: Option<i32>,
    /// Untracked files (globs) copied into each worktree.
    pub copy_files: Option<Vec<String>>,
    /// Command run in a fresh worktree; empty: none.
    pub setup: Option<String>,
    /// Command run before a worktree is removed; empty: none.
    pub teardown: Option<String>,
}

/// The project of this name, if there is one.
pub async fn get(store: &Store, name: &str) -> Result<Option<Project>, StoreError> {
    let row = store.query_opt(&GET, &[&name]).await?;
    row.as_ref().map(Project::read).transpose()
}

/// Projects by name, after `after`, at most `most`.
pub async fn list(
    store: &Store,
    after: Option<&str>,
    most: i64,
) -> Result<Vec<Project>, StoreError> {
    let rows = store.query(&LIST, &[&after, &most]).await?;
    rows.iter().map(Project::read).collect()
}

/// Add a project; a taken name is a `Duplicate`.
pub async fn add(
    store: &Store,
    name: &str,
    settings: &ProjectSettings,
    actor: &str,
) -> Result<Project, StoreError> {
    write(store, &ADD, name, settings, actor)
        .await?
        .ok_or_else(|| StoreError::no_row(ADD.name))
}

/// Change what is given; `None` when there is no such project.
pub async fn update(
    store: &Store,
    name: &str,
    settings: &ProjectSettings,
    actor: &str,
) -> Result<Option<Project>, StoreError> {
    write(store, &UPDATE, name, settings, actor).await
}

async fn write(
    store: &Store,
    statement: &super::Statement,
    name: &str,
    settings: &ProjectSettings,
    actor: &str,
) -> Result<Option<Project>, StoreError> {
    let row = store
        .query_opt(
            statement,
            &[
                &name,
                &settings.path,
                &settings.target_ref,
                &settings.worktree,
                &settings.trusted,
                &settings.default_agent,
                &settings.max_running,
                &settings.copy_files,
                &settings.setup,
                &settings.teardown,
                &actor,
                &settings.four_eyes,
                &settings.sandbox,
            ],
        )
        .await?;
    row.as_ref().map(Project::read).transpose()
}

/// Remove a project that has no open work; its tasks and their history stay. `false`: there was none.
pub async fn remove(store: &Store, name: &str, actor: &str) -> Result<bool, StoreError> {
    Ok(store.query_opt(&REMOVE, &[&name, &actor]).await?.is_some())
}
