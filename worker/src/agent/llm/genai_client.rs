//! LLM providers through the crate `genai`: its wire formats, and our own reading of the frames.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;

use crate::config::native_spec::{Api, ProviderSpec};
use crate::domain::limits::{LLM_CONNECT_MAX, LLM_MODELS_BYTES, LLM_MODELS_MAX, LLM_MODELS_WAIT};

use super::answer::Answer;
use super::fault::Asked;
use super::frames::Tap;
use super::key;
use super::{Llm, LlmError, LlmEvent, LlmFault, LlmRequest};
use super::{ollama, request, written};

/// A client of all providers.
#[derive(Clone, Debug)]
pub struct GenaiLlm {
    /// For providers elsewhere, by way of the environment's proxy.
    remote: Clients,
    /// For those on this machine: what is said to them, keys too, does not leave it.
    local: Clients,
}

#[derive(Clone, Debug)]
struct Clients {
    library: genai::Client,
    http: reqwest::Client,
}

/// What stands between a client and its server.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// What the environment says.
    Environment,
    Direct,
}

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the client of LLM providers cannot be set up: {0}")]
pub struct SetupError(String);

impl GenaiLlm {
    /// A client with connections of its own; it trusts whom the system trusts.
    pub fn new() -> Result<Self, SetupError> {
        let failed = |e: &dyn std::fmt::Display| SetupError(e.to_string());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A certificate of the system that rustls cannot read verifies nothing.
            let _unreadable = roots.add(certificate);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            remote: Clients::new(tls.clone(), Way::Environment)?,
            local: Clients::new(tls, Way::Direct)?,
        })
    }

    fn clients(&self, provider: &ProviderSpec) -> &Clients {
        match provider.is_local() {
            true => &self.local,
            false => &self.remote,
        }
    }

    /// The models that a provider says it has.
    pub async fn list_models(&self, provider: &ProviderSpec) -> Result<Vec<String>, LlmError> {
        let (asked, key) = introduced(provider)?;
        let listing = self.listing(provider, &asked, key.as_deref());
        let models = tokio::time::timeout(LLM_MODELS_WAIT, listing).await;
        models.unwrap_or_else(|_| {
            let words = format!("did not list its models within {LLM_MODELS_WAIT:?}");
            Err(asked.error(LlmFault::Unreachable, &words))
        })
    }

    async fn listing(
        &self,
        provider: &ProviderSpec,
        asked: &Asked,
        key: Option<&str>,
    ) -> Result<Vec<String>, LlmError> {
        let (page, size): (&[&str], _) = match provider.api {
            Api::Openai | Api::OpenaiResponses => (&["models"], None),
            Api::Anthropic => (&["models"], Some("limit")),
            Api::Gemini => (&["models"], Some("pageSize")),
            Api::Ollama => (&["api", "tags"], None),
        };
        let url = request::address(provider, page);
        let mut url = url.map_err(|words| asked.unasked(&words))?;
        if let Some(size) = size {
            let most = LLM_MODELS_MAX.to_string();
            url.query_pairs_mut().append_pair(size, &most);
        }
        let mut request = self.clients(provider).http.get(url);
        for (name, value) in request::headers(provider, key) {
            request = request.header(name, value);
        }
        let sent = request.send().await;
        let mut response = sent.map_err(|e| asked.of_transport(e))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| asked.of_transport(e))? {
            body.extend_from_slice(&chunk);
            if body.len() > LLM_MODELS_BYTES {
                return Err(asked.garbage("its list of models does not end"));
            }
        }
        if !response.status().is_success() {
            let text = String::from_utf8_lossy(&body);
            let status = response.status().as_u16();
            return Err(asked.of_answer(status, response.headers(), &text));
        }
        let body: Value =
            serde_json::from_slice(&body).map_err(|e| asked.garbage(&e.to_string()))?;
        names(&body).ok_or_else(|| asked.garbage("there is no list of models in it"))
    }

    fn ask(&self, request: &LlmRequest) -> Result<Answer, LlmError> {
        let provider = &request.provider;
        let (asked, key) = introduced(provider)?;
        let url = request::url(request).map_err(|words| asked.unasked(&words))?;
        let calls = request.messages.iter().flat_map(|message| message.calls());
        let taken: HashSet<String> = calls.map(|call| call.id.clone()).collect();
        let tap = Tap::new(provider.api, taken);
        let key = key.as_deref();
        let clients = self.clients(provider);
        let stream = match provider.api {
            Api::Ollama => {
                let mut post = clients.http.post(url).json(&request::body(request));
                for (name, value) in request::headers(provider, key) {
                    post = post.header(name, value);
                }
                ollama::stream(post, tap.clone())
            }
            Api::Openai | Api::OpenaiResponses | Api::Anthropic | Api::Gemini => {
                let target = request::target(request, &url, request::headers(provider, key));
                let options = request::options(request).with_raw_frame_sink(tap.clone());
                let library = clients.library.clone();
                let chat = request::chat(request);
                futures::stream::once(async move {
                    match library.exec_chat_stream(target, chat, Some(&options)).await {
                        Ok(answer) => answer.stream.boxed(),
                        Err(error) => futures::stream::iter([Err(error)]).boxed(),
                    }
                })
                .flatten()
                .boxed()
            }
        };
        let model = request::carried_for(request);
        Ok(Answer::new(provider.api, model, asked, stream, tap))
    }
}

impl Clients {
    fn new(tls: rustls::ClientConfig, way: Way) -> Result<Self, SetupError> {
        let failed = |e: &dyn std::fmt::Display| SetupError(e.to_string());
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A key is for one server; it does not travel to where that one points.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(LLM_CONNECT_MAX)
            .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")));
        let builder = match way {
            Way::Environment => builder,
            Way::Direct => builder.no_proxy(),
        };
        let http = builder.build().map_err(|e| failed(&e))?;
        let library = genai::Client::builder().with_reqwest(http.clone()).build();
        let library = library.map_err(|e| failed(&e))?;
        Ok(Self { library, http })
    }
}

/// Whom we speak to, and with which key.
fn introduced(provider: &ProviderSpec) -> Result<(Asked, Option<String>), LlmError> {
    let key = key::read(provider)?;
    let asked = Asked {
        provider: provider.name.clone(),
        secrets: key::secrets(provider, key.as_deref()),
    };
    Ok((asked, key))
}

/// The names in a list of models, which has one of three shapes.
fn names(body: &Value) -> Option<Vec<String>> {
    let list = body.get("data").or_else(|| body.get("models"))?;
    let one = |model: &Value| {
        let name = model.get("id").or_else(|| model.get("name"))?.as_str()?;
        Some(name.strip_prefix("models/").unwrap_or(name).to_owned())
    };
    let models = list.as_array()?.iter().filter_map(one);
    Some(models.take(LLM_MODELS_MAX).collect())
}

impl Llm for GenaiLlm {
    fn stream(&self, request: LlmRequest) -> BoxStream<'static, Result<LlmEvent, LlmError>> {
        match self.ask(&request) {
            Ok(answer) => answer.events(),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn written(&self, request: LlmRequest) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        // The listener is on this machine.
        let library = self.local.library.clone();
        async move {
            match request.provider.api {
                Api::Ollama => {
                    serde_json::to_vec(&request::body(&request)).map_err(|e| e.to_string())
                }
                Api::Openai | Api::OpenaiResponses | Api::Anthropic | Api::Gemini => {
                    written::body(&library, &request).await
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::agents::Catalogue;

    #[tokio::test]
    async fn a_provider_on_this_machine_is_asked_directly() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _asked = socket.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.0 200 OK\r\n\r\n{\"data\":[{\"id\":\"small\"}]}";
            socket.write_all(answer).await.unwrap();
        });
        let text = format!("[providers.p]\napi = \"openai\"\nbase_url = \"http://{address}\"\n");
        let catalogue = Catalogue::parse(&text).unwrap();
        let llm = GenaiLlm::new().unwrap();
        let models = llm.list_models(&catalogue.providers["p"]).await.unwrap();
        assert_eq!(models, ["small"]);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a proxy is read from the environment, which only a process of its own can have"
    )]
    fn a_proxy_in_the_environment_is_not_for_this_machine() {
        let same = "agent::llm::genai_client::tests::a_provider_on_this_machine_is_asked_directly";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", same])
            // Nobody listens there.
            .env("http_proxy", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(said.contains("1 passed"), "{said}");
    }
}
