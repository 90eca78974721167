//! What a probe says of a native agent, and what its tools are given.

use std::path::Path;

use dispatch_worker::agent::catalog::{self, Probe};
use dispatch_worker::agent::confine;
use dispatch_worker::config::agent_spec::AgentSpec;
use dispatch_worker::config::agents::Catalogue;
use dispatch_worker::domain::error_class::ErrorClass;
use dispatch_worker::sandbox::Places;
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::sandbox;
use crate::harness::worker::HELPER;

fn spec(providers: &str) -> AgentSpec {
    let text = format!("{providers}\n[agents.n]\npath = \"native\"\n");
    Catalogue::parse(&text).unwrap().agents["n"].clone()
}

async fn probe(spec: &AgentSpec, dir: &Path) -> Probe {
    catalog::probe(spec, sandbox::usual().await, dir).await
}

#[tokio::test]
async fn a_native_agent_is_ready_when_one_provider_has_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a-made-up-key\n").unwrap();
    let spec = spec(&format!(
        "[providers.a]\napi = \"anthropic\"\napi_key_file = {key:?}\ndefault_model = \"large\"\n\
         models = {{ \"small\" = {{}} }}\n\
         [providers.b]\napi = \"openai\"\napi_key_env = \"DISPATCH_TEST_NO_SUCH_KEY\"\ndefault_model = \"x\"\n"
    ));
    let found = probe(&spec, dir.path()).await;
    assert_eq!((found.status.as_str(), &found.error), ("ready", &None));
    assert_eq!(found.models, ["a/large", "a/small"]);
    assert_eq!(found.modes, ["build", "plan"]);
    assert_eq!(found.thinking_options.len(), 6);
    assert!(found.version.is_some());
    let providers = &found.capabilities["providers"];
    assert_eq!(
        providers[0],
        json!({"name": "a", "usable": true, "why": null})
    );
    assert_eq!(providers[1]["usable"], false);
    let why = providers[1]["why"].as_str().unwrap();
    assert!(why.contains("set DISPATCH_TEST_NO_SUCH_KEY"), "{why}");
    assert!(!serde_json::to_string(&found).unwrap().contains("made-up"));
}

#[tokio::test]
async fn a_native_agent_without_a_provider_is_unavailable_and_says_what_to_set() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = "[providers.a]\napi = \"anthropic\"\napi_key_env = \"DISPATCH_TEST_NO_SUCH_KEY\"\n";
    for (providers, fix) in [
        (keyed, "set DISPATCH_TEST_NO_SUCH_KEY"),
        ("", "[providers.NAME]"),
    ] {
        let found = probe(&spec(providers), dir.path()).await;
        assert_eq!(found.status.as_str(), "unavailable");
        assert_eq!(found.error_class, Some(ErrorClass::AgentUnavailable));
        let error = found.error.unwrap();
        assert!(
            error.starts_with("no LLM provider is set up") && error.contains(fix),
            "{error}"
        );
        assert!(found.models.is_empty());
    }
}

#[tokio::test]
async fn a_server_without_a_key_counts_when_it_takes_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let spec = spec(&format!(
        "[providers.o]\napi = \"ollama\"\nbase_url = {url:?}\n"
    ));
    assert_eq!(probe(&spec, dir.path()).await.status.as_str(), "ready");
    drop(server);
    let found = probe(&spec, dir.path()).await;
    assert_eq!(found.status.as_str(), "unavailable");
    assert!(
        found.error.unwrap().contains(&url),
        "says where it was looked for"
    );
}

#[tokio::test]
async fn the_confined_program_of_a_native_agent_is_the_worker_itself_and_key_files_are_not_in_sight()
 {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let key = root.join("open/key");
    std::fs::create_dir(root.join("open")).unwrap();
    std::fs::write(&key, "a-made-up-key").unwrap();
    let mut spec = spec(&format!(
        "[providers.a]\napi = \"anthropic\"\napi_key_file = {key:?}\n"
    ));
    spec.network = dispatch_worker::domain::sandbox::Network::Full;
    let sandbox = sandbox::usual().await;
    let places = Places {
        tree: root.join("t"),
        home: root.join("h"),
        tmp: root.join("x"),
        ..Places::default()
    };
    for place in [&places.tree, &places.home, &places.tmp] {
        std::fs::create_dir(place).unwrap();
    }
    let means = confine::means(sandbox, &spec, spec.sandbox).unwrap();
    let confinement = confine::confine(sandbox, &spec, means, places.clone()).unwrap();
    assert_eq!(confinement.helper(), Path::new(HELPER));
    let (_, args) = confinement
        .command(Path::new(HELPER), &[], &places.tree)
        .unwrap();
    let plan: serde_json::Value = serde_json::from_str(args[2].to_str().unwrap()).unwrap();
    let lists = |list: &str, path: &Path| plan[list].as_array().unwrap().contains(&json!(path));
    assert!(lists("hidden", &key), "{plan}");
    assert!(
        lists("lent", Path::new(HELPER)) && !lists("read", Path::new(HELPER).parent().unwrap())
    );
}
