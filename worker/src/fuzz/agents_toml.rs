//! agents.toml.

use std::path::Component;

use crate::config::agent_spec::AgentSpec;
use crate::config::agents::Catalogue;
use crate::domain::attempt::ExecutionPath;
use crate::domain::llm::Effort;

/// A file is refused with a message that names a place, or every entry of it can be run.
pub fn agents_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let catalogue = match Catalogue::parse(text) {
        Ok(catalogue) => catalogue,
        Err(error) => {
            assert!(error.to_string().contains("line"), "no place: {error}");
            return;
        }
    };
    let known = |name: &String| catalogue.agents.contains_key(name);
    assert!(catalogue.default_agent.as_ref().is_none_or(known));
    for (name, spec) in &catalogue.agents {
        assert_eq!(*name, spec.name);
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
        assert!(
            name.bytes()
                .all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        );
        assert!(spec.slots >= 1);
        assert!(
            spec.fallback
                .as_ref()
                .is_none_or(|other| known(other) && other != name)
        );
        let program = spec.command.first();
        let own = matches!(spec.path, ExecutionPath::Noop | ExecutionPath::Native);
        assert!(own || program.is_some_and(|p| !p.is_empty()));
        if spec.path == ExecutionPath::Native {
            native(spec);
        }
        assert!(program.is_none_or(|program| !program.contains("{prompt")));
        for forbidden in [
            "DATABASE_URL",
            "DATABASE_LISTEN_URL",
            "DISPATCH_HTTP_TOKEN",
            "PGPASSWORD",
        ] {
            assert!(!spec.env.contains_key(forbidden));
            assert!(!spec.env_allow.iter().any(|allowed| allowed == forbidden));
        }
        for file in &spec.home_files {
            assert!(
                file.components()
                    .all(|part| matches!(part, Component::Normal(_)))
            );
        }
        assert!(spec.cli.cols > 0 && spec.cli.rows > 0 || !spec.path.as_str().starts_with('p'));
        let shown = spec.describe().to_string();
        for value in spec.env.values().filter(|value| value.len() > 40) {
            assert!(
                !shown.contains(value.as_str()),
                "a value of the environment is shown"
            );
        }
    }
    for (name, provider) in catalogue.providers.iter() {
        assert_eq!(*name, provider.name);
        assert!(provider.base_url.ends_with('/') && provider.address().is_some());
        let authority = provider.base_url.split('/').nth(2).unwrap_or_default();
        assert!(!authority.contains('@') && !provider.base_url.contains(['?', '#']));
        let clear = provider.base_url.starts_with("http://") && !provider.is_local();
        assert!(
            !(clear && provider.wants_key()),
            "a key is sent in the clear"
        );
    }
    let again = Catalogue::parse(text).ok();
    assert!(
        again.as_ref() == Some(&catalogue),
        "the same text means the same"
    );
}

/// What the loop relies on.
fn native(spec: &AgentSpec) {
    assert!(spec.command.is_empty());
    let native = &spec.native;
    assert!(
        native
            .allowed
            .iter()
            .all(|name| native.providers.contains_key(name))
    );
    for id in spec.models.iter().chain(&spec.model) {
        let (provider, model) = id.split_once('/').unwrap_or_default();
        assert!(native.providers.contains_key(provider) && !model.is_empty());
    }
    assert!(
        spec.mode
            .as_ref()
            .is_some_and(|mode| spec.modes.contains(mode))
    );
    assert!(
        spec.thinking_options
            .iter()
            .all(|option| Effort::parse(option).is_some())
    );
    assert!(native.compact_at_percent <= 100);
    assert!(
        native
            .mcp
            .values()
            .all(|server| server.command.first().is_some_and(|p| !p.is_empty()))
    );
}
