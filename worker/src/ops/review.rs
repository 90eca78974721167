//! Deciding on changes. A decision names the digest of what the reviewer saw.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::change::{self, ChangeView};
use super::values::{self, ChangeRef, SOMETHING};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::store::changes::{self, Decision};
use crate::store::{StoreError, StoreErrorKind};

/// Approve a change; a worker applies it to the project's branch.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ApproveChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Digest of the change that was seen, as its `digest` and its `ETag` say; the command shows the
    /// change and asks when it is left out at a terminal
    #[arg(long, default_value = "", hide_default_value = true)]
    pub digest: String,
    /// Only this file; give it again for more. The others are rejected
    #[arg(long = "file", value_name = "PATH")]
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::some_names"
    )]
    #[schemars(length(min = 1))]
    pub files: Vec<String>,
    /// A word for the record
    #[arg(long)]
    pub comment: Option<String>,
}

impl Op for ApproveChange {
    const SPEC: Spec = Spec {
        name: "change.approve",
        method: Method::Post,
        path: "/changes/{id}/approve",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Review,
        summary: "Approve a change, or only some files of it",
    };
    type Output = ChangeView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Two files of it",
            cli: &[
                "7",
                "--digest",
                "d1",
                "--file",
                "a.rs",
                "--file",
                "b.rs",
                "--comment",
                "good",
            ],
            input: json!({"id": 7, "digest": "d1", "files": ["a.rs", "b.rs"], "comment": "good"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        seen(&self.digest)?;
        short(self.comment.as_deref())?;
        let only = (!self.files.is_empty()).then_some(self.files.as_slice());
        let decision = Decision {
            actor: &context.actor,
            digest: &self.digest,
            comment: self.comment.as_deref(),
        };
        let approved = changes::approve(&context.store, self.id.0, only, decision).await;
        decided(context, self.id, approved).await?;
        change::existing(&context.store, self.id.0).await
    }
}

/// Reject a change, or set some files of it aside.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RejectChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Only this file; give it again for more. The rest stays for a decision
    #[arg(long = "file", value_name = "PATH")]
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "values::some_names"
    )]
    #[schemars(length(min = 1))]
    pub files: Vec<String>,
    /// Digest of the change that was seen; needed to decide on files
    #[arg(long)]
    pub digest: Option<String>,
    /// Why
    #[arg(long, alias = "comment")]
    pub reason: Option<String>,
}

impl Op for RejectChange {
    const SPEC: Spec = Spec {
        name: "change.reject",
        method: Method::Post,
        path: "/changes/{id}/reject",
        effect: Effect::Destructive,
        idempotent: false,
        scope: Scope::Review,
        summary: "Reject a change, or set some files of it aside",
    };
    type Output = ChangeView;

    fn examples() -> Vec<Example> {
        vec![
            Example {
                about: "All of it",
                cli: &["7", "--reason", "breaks the import"],
                input: json!({"id": 7, "reason": "breaks the import"}),
            },
            Example {
                about: "One file",
                cli: &["7", "--file", "a.rs", "--digest", "d1"],
                input: json!({"id": 7, "files": ["a.rs"], "digest": "d1"}),
            },
        ]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let reason = self.reason.as_deref();
        short(reason)?;
        if self.files.is_empty() {
            // A whole change may be rejected unseen; a digest that is named must still fit.
            refuse_another(context, self.id, self.digest.as_deref()).await?;
            changes::reject(&context.store, self.id.0, reason, &context.actor).await?;
        } else {
            let digest = self.digest.as_deref().unwrap_or("");
            seen(digest)?;
            let decision = Decision {
                actor: &context.actor,
                digest,
                comment: reason,
            };
            let aside =
                changes::reject_files(&context.store, self.id.0, &self.files, decision).await;
            decided(context, self.id, aside).await?;
        }
        change::existing(&context.store, self.id.0).await
    }
}

/// Take files back that were set aside. Nothing is approved by that.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RestoreFiles {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// This file; give it again for more
    #[arg(long = "file", value_name = "PATH", required = true)]
    #[schemars(length(min = 1))]
    pub files: Vec<String>,
    /// Digest of the change that was seen, as its `digest` and its `ETag` say; the command shows the
    /// change and asks when it is left out at a terminal
    #[arg(long, default_value = "", hide_default_value = true)]
    pub digest: String,
}

impl Op for RestoreFiles {
    const SPEC: Spec = Spec {
        name: "change.restore",
        method: Method::Post,
        path: "/changes/{id}/restore",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Review,
        summary: "Take files of a change back that were set aside, without approving them",
    };
    type Output = ChangeView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One file",
            cli: &["7", "--file", "a.rs", "--digest", "d1"],
            input: json!({"id": 7, "files": ["a.rs"], "digest": "d1"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if self.files.is_empty() {
            return Err(OpError::invalid("no file is named")
                .hint("Name those that shall be taken back; dispatch changes show lists them."));
        }
        seen(&self.digest)?;
        let decision = Decision {
            actor: &context.actor,
            digest: &self.digest,
            comment: None,
        };
        let back = changes::restore_files(&context.store, self.id.0, &self.files, decision).await;
        decided(context, self.id, back).await?;
        change::existing(&context.store, self.id.0).await
    }
}

/// Take an applied change out of its branch again, as long as nothing stands on it there.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct UndoChange {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// Why
    #[arg(long)]
    pub reason: Option<String>,
}

impl Op for UndoChange {
    const SPEC: Spec = Spec {
        name: "change.undo",
        method: Method::Post,
        path: "/changes/{id}/undo",
        effect: Effect::Destructive,
        idempotent: false,
        scope: Scope::Review,
        summary: "Take an applied change out of its branch again",
    };
    type Output = ChangeView;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "As long as it is the last commit of the branch",
            cli: &["7", "--reason", "broke the build"],
            input: json!({"id": 7, "reason": "broke the build"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let reason = self.reason.as_deref();
        short(reason)?;
        changes::undo(&context.store, self.id.0, reason, &context.actor).await?;
        change::existing(&context.store, self.id.0).await
    }
}

/// Keep a change and ask its agent for more work on it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RequestChanges {
    /// The change, such as 7
    #[arg(value_name = "CHANGE")]
    pub id: ChangeRef,
    /// What the agent shall do about it
    #[schemars(regex(pattern = SOMETHING))]
    pub comment: String,
    /// Digest of the change that was seen; another one is refused
    #[arg(long)]
    pub digest: Option<String>,
}

/// The task that works on a change further.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FollowUp {
    /// The change that was kept.
    pub change_id: i64,
    /// The task that was submitted into its conversation.
    pub task_id: i64,
}

impl Op for RequestChanges {
    const SPEC: Spec = Spec {
        name: "change.request-changes",
        method: Method::Post,
        path: "/changes/{id}/request-changes",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Review,
        summary: "Send a follow-up task into the change's conversation, on top of its result",
    };
    type Output = FollowUp;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "Ask for a test",
            cli: &["7", "add a test for the empty list", "--digest", "d1"],
            input: json!({"id": 7, "comment": "add a test for the empty list", "digest": "d1"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if self.comment.trim().is_empty() {
            return Err(OpError::invalid("the comment is empty")
                .hint("Say what the agent shall do about the change."));
        }
        refuse_another(context, self.id, self.digest.as_deref()).await?;
        let task =
            changes::request_changes(&context.store, self.id.0, &self.comment, &context.actor)
                .await?;
        Ok(FollowUp {
            change_id: self.id.0.0,
            task_id: task.0,
        })
    }
}

/// Refuse when a digest is named and it is not the change's.
async fn refuse_another(
    context: &OpContext,
    id: ChangeRef,
    seen: Option<&str>,
) -> Result<(), OpError> {
    let Some(seen) = seen else {
        return Ok(());
    };
    let change = change::existing(&context.store, id.0).await?;
    if change.digest == seen {
        return Ok(());
    }
    Err(OpError::stale(change.id, &change.digest))
}

/// What came of a decision: one on what is no longer there is told what is.
async fn decided<T>(
    context: &OpContext,
    id: ChangeRef,
    done: Result<T, StoreError>,
) -> Result<T, OpError> {
    match done {
        Err(error) if error.kind == StoreErrorKind::Stale => {
            let now = change::existing(&context.store, id.0).await?;
            Err(OpError::stale(now.id, &now.digest))
        }
        done => Ok(done?),
    }
}

fn seen(digest: &str) -> Result<(), OpError> {
    if digest.is_empty() {
        return Err(
            OpError::invalid("a decision names the digest of the change that was seen")
                .code("digest_required")
                .hint("Read the change and give its digest."),
        );
    }
    Ok(())
}

fn short(comment: Option<&str>) -> Result<(), OpError> {
    if comment.is_some_and(|text| text.len() > limits::COMMENT_BYTES_MAX) {
        return Err(OpError::invalid(format!(
            "a comment has at most {} bytes",
            limits::COMMENT_BYTES_MAX
        )));
    }
    Ok(())
}
