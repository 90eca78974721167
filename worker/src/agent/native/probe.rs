//! Whether a native agent has a provider to ask. No process is started and nothing is asked of a
//! model: a key may still be refused.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::choose::{known_ids, none_usable};
use crate::agent::AgentError;
use crate::agent::catalog::Probe;
use crate::blocking;
use crate::config::agent_spec::AgentSpec;
use crate::config::native_spec::{Api, ProviderSpec};
use crate::domain::limits;

/// Look at its providers, and note what they offer.
pub(crate) async fn look(spec: &AgentSpec, probe: &mut Probe) -> Result<(), AgentError> {
    let providers: Vec<Arc<ProviderSpec>> = spec.native.offered().cloned().collect();
    let found: Vec<(String, Result<(), String>)> = futures::stream::iter(providers)
        .map(|provider| async move { (provider.name.clone(), usable(&provider).await) })
        .buffered(limits::PROVIDERS_AT_ONCE)
        .collect()
        .await;
    let works = |name: &str| {
        found
            .iter()
            .any(|(known, works)| known == name && works.is_ok())
    };
    let listed: Vec<Value> = found
        .iter()
        .map(|(name, works)| json!({"name": name, "usable": works.is_ok(), "why": works.as_ref().err()}))
        .collect();
    probe.capabilities = json!({ "providers": listed });
    probe.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    probe.models = match spec.models.is_empty() {
        true => known_ids(spec, |provider| works(&provider.name)),
        false => {
            let of = |id: &&String| id.split_once('/').is_some_and(|(name, _)| works(name));
            spec.models.iter().filter(of).cloned().collect()
        }
    };
    match found.iter().any(|(_, works)| works.is_ok()) {
        true => Ok(()),
        false => Err(none_usable(spec)),
    }
}

/// Whether requests to it make sense; the error says why not, and what to do.
async fn usable(provider: &Arc<ProviderSpec>) -> Result<(), String> {
    let asked = provider.clone();
    let key = blocking::run(move || asked.key()).await;
    match key {
        Ok(Ok(Some(_))) => Ok(()),
        Ok(Ok(None)) if provider.api == Api::Ollama || provider.is_local() => {
            answers(provider).await
        }
        Ok(Ok(None)) => Ok(()),
        Ok(Err(why)) => Err(why),
        Err(panicked) => Err(panicked.to_string()),
    }
}

/// Whether its server takes a connection.
async fn answers(provider: &ProviderSpec) -> Result<(), String> {
    let fault = |why: &str| {
        let (name, url) = (&provider.name, &provider.base_url);
        Err(format!(
            "no server of provider {name} answers at {url}: {why}; start it, or correct base_url"
        ))
    };
    let Some((host, port)) = provider.address() else {
        return fault("it names no host");
    };
    let wait = limits::PROVIDER_CONNECT_TIMEOUT;
    match timeout(wait, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_open)) => Ok(()),
        Ok(Err(error)) => fault(&error.to_string()),
        Err(_late) => fault(&format!("no connection within {} s", wait.as_secs())),
    }
}
