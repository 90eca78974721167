//! Tokens of those who call over HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::page::{self, Page};
use super::values::{Span, TokenRef};
use super::{Effect, Example, Method, Op, OpContext, OpError, Spec};
use crate::domain::scope::Scope;
use crate::store::tokens;

pub use crate::store::tokens::TokenView;

/// How long a token is valid when nobody says: 90 days.
const VALID_DEFAULT_S: f64 = 90.0 * 86_400.0;

/// How each token begins.
pub const PREFIX: &str = "dt_";

/// Whose token has this SHA-256, and what it is good for; `None`: nobody's, or it has ended.
pub async fn holder(
    context: &OpContext,
    hash: &[u8; 32],
) -> Result<Option<(String, Vec<Scope>)>, OpError> {
    Ok(tokens::find(&context.store, hash).await?)
}

/// What the name of a holder looks like: 1 to 200 bytes, something in them, and no control characters.
const HOLDER: &str = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f]{1,200}$";

/// Make a token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Who holds it: their name stands as the actor of what they do
    #[schemars(regex(pattern = HOLDER))]
    pub name: String,
    /// What it is good for: read, submit, review, admin (everything); give it again for more
    #[arg(
        long = "scope",
        short = 's',
        value_name = "SCOPE",
        value_delimiter = ',',
        required = true
    )]
    #[schemars(length(min = 1))]
    pub scopes: Vec<Scope>,
    /// How long it is valid; else 90d
    #[arg(long, value_name = "TIME")]
    pub valid: Option<Span>,
}

/// A new token. It is shown this once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    /// Its number.
    pub id: i64,
    /// Send it as `Authorization: Bearer …`.
    pub token: String,
    /// When it ends, RFC 3339.
    pub expires_at: String,
}

impl Op for CreateToken {
    const SPEC: Spec = Spec {
        name: "token.create",
        method: Method::Post,
        path: "/tokens",
        effect: Effect::Write,
        idempotent: false,
        scope: Scope::Admin,
        summary: "Make a token for somebody who calls over HTTP; it is shown once",
    };
    type Output = CreatedToken;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "For a program that submits tasks and looks at them",
            cli: &["ci", "--scope", "read,submit", "--valid", "30d"],
            input: json!({"name": "ci", "scopes": ["read", "submit"], "valid": "30d"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        if self.name.contains(char::is_control) {
            return Err(OpError::invalid("the name of a token has no control characters")
                .hint("It is shown wherever its holder acted: a short word for a person or a program."));
        }
        let seconds = self.valid.map_or(VALID_DEFAULT_S, Span::seconds);
        let (store, actor) = (&context.store, &context.actor);
        let made = tokens::create(store, &self.name, &self.scopes, seconds, actor).await?;
        Ok(CreatedToken {
            id: made.id,
            token: made.token,
            expires_at: made.expires_at.to_rfc3339(),
        })
    }
}

/// List the tokens, newest first. Tokens themselves are not kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ListTokens {
    /// Tokens of a page, 1 to 200
    #[arg(long, short = 'n', value_name = "N")]
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<i64>,
    /// Where the page before ended
    #[arg(long)]
    #[schemars(regex(pattern = page::NUMBER))]
    pub cursor: Option<String>,
}

impl Op for ListTokens {
    const SPEC: Spec = Spec {
        name: "token.list",
        method: Method::Get,
        path: "/tokens",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "List who may call over HTTP, for what and how long",
    };
    type Output = Page<TokenView>;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "The newest",
            cli: &["--limit", "20"],
            input: json!({"limit": 20}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let size = page::size(self.limit)?;
        let before = page::number(self.cursor.as_deref())?.unwrap_or(i64::MAX);
        let rows = tokens::list(&context.store, before, size + 1).await?;
        Ok(Page::cut(rows, size, |token| token.id.to_string()))
    }
}

/// End a token now. Doing it twice is harmless.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    /// The token's number, such as 3
    #[arg(value_name = "TOKEN")]
    pub id: TokenRef,
}

/// A token that nobody can use any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RevokedToken {
    /// Its number.
    pub id: i64,
    /// Whether it was not revoked before.
    pub was_valid: bool,
}

impl Op for RevokeToken {
    const SPEC: Spec = Spec {
        name: "token.revoke",
        method: Method::Delete,
        path: "/tokens/{id}",
        effect: Effect::Destructive,
        idempotent: true,
        scope: Scope::Admin,
        summary: "End a token now",
    };
    type Output = RevokedToken;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One that leaked",
            cli: &["3"],
            input: json!({"id": 3}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let id = self.id.0.0;
        let was_valid = tokens::revoke(&context.store, id, &context.actor).await?;
        Ok(RevokedToken { id, was_valid })
    }
}
