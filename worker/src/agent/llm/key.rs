//! The key of a provider: where it is, and that nobody reads it in an error.

use crate::config::native_spec::ProviderSpec;

use super::{LlmError, LlmFault};

/// Shorter literal headers are no secrets.
const SECRET_MIN: usize = 8;

/// The provider's key; `None`: it wants none. Read each time, so that a new one needs no restart.
pub(super) fn read(provider: &ProviderSpec) -> Result<Option<String>, LlmError> {
    let key = provider.key().map_err(|message| LlmError {
        fault: LlmFault::Auth,
        status: None,
        retry_after: None,
        message,
    })?;
    Ok(key.map(|key| key.value().to_owned()))
}

/// What must not be in a message: the key and the literal headers.
pub(super) fn secrets(provider: &ProviderSpec, key: Option<&str>) -> Vec<String> {
    let headers = provider.headers.values();
    let mut secrets: Vec<String> = headers
        .filter(|value| value.len() >= SECRET_MIN)
        .cloned()
        .collect();
    secrets.extend(key.map(str::to_owned));
    // What holds another goes first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}
