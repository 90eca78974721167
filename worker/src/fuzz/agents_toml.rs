//! agents.toml.

use std::path::Component;

use crate::config::agents::Catalogue;
use crate::domain::attempt::ExecutionPath;

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
        assert!(spec.path == ExecutionPath::Noop || program.is_some_and(|p| !p.is_empty()));
        assert!(program.is_none_or(|program| !program.contains("{prompt")));
        for forbidden in ["DATABASE_URL", "PGPASSWORD"] {
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
    let again = Catalogue::parse(text).ok();
    assert!(
        again.as_ref() == Some(&catalogue),
        "the same text means the same"
    );
}
