//! Provider, model and effort of a turn: what was asked for, or else what the entry says, checked
//! against what is offered. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::agent::AgentError;
use crate::agent::options::{Choice, invalid};
use crate::config::agent_spec::AgentSpec;
use crate::config::credentials;
use crate::config::native_spec::{ModelSpec, ProviderSpec};
use crate::domain::error_class::ErrorClass;
use crate::domain::llm::Effort;

/// What a turn is made with.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Where to.
    pub provider: Arc<ProviderSpec>,
    /// The provider's name of the model.
    pub model: String,
    /// What is known of it.
    pub model_spec: ModelSpec,
    /// How hard to think; absent: the provider's default.
    pub effort: Option<Effort>,
}

impl Chosen {
    /// The model's id, as tasks and prices have it.
    pub fn id(&self) -> String {
        self.provider.id_of(&self.model)
    }
}

/// Choose them. `usable`: whether a provider has its key, or wants none.
pub fn choose(
    spec: &AgentSpec,
    asked_model: Option<&str>,
    asked_effort: Option<&str>,
    usable: impl Fn(&ProviderSpec) -> bool,
) -> Result<Chosen, AgentError> {
    let (provider, model) = match asked_model.or(spec.model.as_deref()) {
        Some(asked) => named(spec, asked)?,
        None => usual(spec, &usable)?,
    };
    if !usable(provider) {
        return Err(unusable(spec, provider, &usable));
    }
    let id = provider.id_of(model);
    if !spec.models.is_empty() && !spec.models.contains(&id) {
        return Err(invalid(&spec.name, Choice::Model, &id, &spec.models));
    }
    let model_spec = provider.models.get(model).cloned().unwrap_or_default();
    Ok(Chosen {
        effort: effort(spec, asked_effort, &model_spec, &id)?,
        provider: provider.clone(),
        model: model.to_owned(),
        model_spec,
    })
}

/// A choice of provider and of its name for the model.
type Found<'a> = (&'a Arc<ProviderSpec>, &'a str);

/// What `provider/model` says, or a bare name that one provider alone knows.
fn named<'a>(spec: &'a AgentSpec, asked: &'a str) -> Result<Found<'a>, AgentError> {
    let offered = || spec.native.offered();
    let split = asked.split_once('/').filter(|(_, model)| !model.is_empty());
    let by_id = split.and_then(|(name, model)| {
        let provider = offered().find(|provider| provider.name == name)?;
        Some((provider, model))
    });
    if let Some(found) = by_id {
        return Ok(found);
    }
    let mut by_name = offered().filter(|provider| provider.known_models().any(|one| one == asked));
    match (by_name.next(), by_name.next()) {
        (Some(only), None) => Ok((only, asked)),
        (Some(_), Some(_)) => {
            let several =
                offered().filter(|provider| provider.known_models().any(|one| one == asked));
            let ids: Vec<String> = several.map(|provider| provider.id_of(asked)).collect();
            let message = format!(
                "several providers of agent {} have the model `{asked}`; name one of them: {}",
                spec.name,
                ids.join(", ")
            );
            Err(AgentError::new(ErrorClass::InvalidOption, message))
        }
        (None, _) => Err(unknown(spec, asked)),
    }
}

fn unknown(spec: &AgentSpec, asked: &str) -> AgentError {
    let known = known_ids(spec, |_| true);
    let list = match known.is_empty() {
        true => "none by name".to_owned(),
        false => known.join(", "),
    };
    let providers: Vec<&str> = spec.native.offered().map(|one| one.name.as_str()).collect();
    let message = format!(
        "agent {} does not know the model `{asked}`; write PROVIDER/MODEL with one of its providers ({}). \
         Known models: {list}",
        spec.name,
        providers.join(", ")
    );
    AgentError::new(ErrorClass::InvalidOption, message)
}

/// The ids of the models that the file knows, of providers that `wanted` takes, in order.
pub fn known_ids(spec: &AgentSpec, wanted: impl Fn(&ProviderSpec) -> bool) -> Vec<String> {
    let providers = spec.native.offered().filter(|provider| wanted(provider));
    let mut seen = BTreeSet::new();
    providers
        .flat_map(|provider| provider.known_models().map(|model| provider.id_of(model)))
        .filter(|id| seen.insert(id.clone()))
        .collect()
}

/// Nobody names a model: the first provider that works and has a model for that.
fn usual<'a>(
    spec: &'a AgentSpec,
    usable: &impl Fn(&ProviderSpec) -> bool,
) -> Result<Found<'a>, AgentError> {
    let mut working = spec
        .native
        .offered()
        .filter(|provider| usable(provider))
        .peekable();
    let Some(first) = working.peek().map(|provider| provider.name.clone()) else {
        return Err(none_usable(spec));
    };
    let found = working.find_map(|provider| Some((provider, provider.default_model.as_deref()?)));
    found.ok_or_else(|| {
        let message = format!(
            "agent {} does not know which model to use: name one with the task, such as {first}/MODEL, \
             or set default_model under [providers.{first}] in agents.toml",
            spec.name
        );
        AgentError::new(ErrorClass::InvalidOption, message)
    })
}

/// The provider that was named does not work.
fn unusable(
    spec: &AgentSpec,
    provider: &ProviderSpec,
    usable: &impl Fn(&ProviderSpec) -> bool,
) -> AgentError {
    if !spec.native.offered().any(|provider| usable(provider)) {
        return none_usable(spec);
    }
    let name = &provider.name;
    if provider.wants_key() {
        let message = format!("provider {name} has no key: {}", provider.key_fix());
        return AgentError::new(ErrorClass::Auth, message);
    }
    let message = format!("provider {name} does not answer at {}", provider.base_url);
    AgentError::new(ErrorClass::AgentUnavailable, message)
}

/// No provider of the entry works.
pub fn none_usable(spec: &AgentSpec) -> AgentError {
    if let Some(why) = credentials::unusable(spec) {
        let message = format!("no LLM provider is set up: {why}");
        return AgentError::new(ErrorClass::AgentUnavailable, message);
    }
    let mut ways: Vec<String> = Vec::new();
    let variables: Vec<&str> = spec
        .native
        .offered()
        .filter_map(|provider| provider.api_key_env.as_deref())
        .collect();
    if !variables.is_empty() {
        ways.push(format!("set {} for the worker", variables.join(" or ")));
    }
    let keyless = spec
        .native
        .offered()
        .filter(|provider| !provider.wants_key());
    ways.extend(keyless.map(|one| format!("start the server of {} ({})", one.name, one.base_url)));
    ways.push("add [providers.NAME] to agents.toml (docs/agents.md)".to_owned());
    let message = format!("no LLM provider is set up: {}", ways.join(", or "));
    AgentError::new(ErrorClass::AgentUnavailable, message)
}

fn effort(
    spec: &AgentSpec,
    asked: Option<&str>,
    model: &ModelSpec,
    id: &str,
) -> Result<Option<Effort>, AgentError> {
    let Some(wanted) = asked.or(spec.thinking.as_deref()) else {
        return Ok(None);
    };
    let listed = spec.thinking_options.iter().any(|option| option == wanted);
    let Some(effort) = Effort::parse(wanted).filter(|_| listed) else {
        return Err(invalid(
            &spec.name,
            Choice::Thinking,
            wanted,
            &spec.thinking_options,
        ));
    };
    if model.efforts.is_empty() || model.efforts.contains(&effort) {
        return Ok(Some(effort));
    }
    let taken: Vec<&str> = model.efforts.iter().map(|effort| effort.as_str()).collect();
    let message = format!(
        "model {id} does not take the effort `{wanted}`; it takes: {}",
        taken.join(", ")
    );
    Err(AgentError::new(ErrorClass::InvalidOption, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    const FILE: &str = r#"
        [providers.anthropic]
        api = "anthropic"
        api_key_env = "ANTHROPIC_API_KEY"
        default_model = "large"
        models = { "large" = { efforts = ["low", "high"] }, "shared" = {} }
        [providers.router]
        api = "openai"
        api_key_env = "ROUTER_KEY"
        models = { "maker/large" = { context_window = 1000 }, "shared" = {} }
        [providers.off]
        api = "openai"
        enabled = false
        default_model = "never"
        [providers.other]
        api = "openai"
        default_model = "of-other"
        [agents.n]
        path = "native"
        native = { providers = ["router", "anthropic", "off"] }
    "#;

    fn spec(more: &str) -> AgentSpec {
        let text = FILE.replace("path =", &format!("{more}\npath ="));
        Catalogue::parse(&text).unwrap().agents["n"].clone()
    }

    fn id(model: Option<&str>) -> Result<String, AgentError> {
        choose(&spec(""), model, None, |_| true).map(|chosen| chosen.id())
    }

    #[test]
    fn an_id_is_split_at_its_first_slash_and_may_name_a_model_that_nobody_listed() {
        assert_eq!(
            id(Some("router/maker/large")).unwrap(),
            "router/maker/large"
        );
        assert_eq!(id(Some("anthropic/next")).unwrap(), "anthropic/next");
        let chosen = choose(&spec(""), Some("router/maker/large"), None, |_| true).unwrap();
        assert_eq!(chosen.model_spec.context_window, Some(1000));
    }

    #[test]
    fn a_bare_name_is_enough_when_one_provider_has_it() {
        assert_eq!(id(Some("large")).unwrap(), "anthropic/large");
        assert_eq!(id(Some("maker/large")).unwrap(), "router/maker/large");
        let error = id(Some("shared")).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidOption);
        assert!(
            error.message.contains("router/shared, anthropic/shared"),
            "{error}"
        );
    }

    #[test]
    fn providers_that_are_off_or_not_the_entrys_are_never_chosen() {
        for model in [
            "never",
            "off/never",
            "of-other",
            "other/of-other",
            "anthropic/",
            "",
        ] {
            let error = id(Some(model)).unwrap_err();
            assert_eq!(error.class, ErrorClass::InvalidOption);
            assert!(error.message.contains("router/maker/large"), "{error}");
        }
    }

    #[test]
    fn without_a_name_the_entrys_model_counts_then_the_first_working_providers() {
        assert_eq!(id(None).unwrap(), "anthropic/large");
        let entry = spec("model = \"router/shared\"");
        assert_eq!(
            choose(&entry, None, None, |_| true).unwrap().id(),
            "router/shared"
        );
        let error = choose(&spec(""), None, None, |one| one.name == "router").unwrap_err();
        assert!(error.message.contains("router/MODEL"), "{error}");
    }

    #[test]
    fn without_a_working_provider_the_error_names_what_to_set() {
        for model in [None, Some("anthropic/large")] {
            let error = choose(&spec(""), model, None, |_| false).unwrap_err();
            assert_eq!(error.class, ErrorClass::AgentUnavailable);
            assert!(
                error.message.starts_with("no LLM provider is set up"),
                "{error}"
            );
            assert!(
                error.message.contains("ROUTER_KEY or ANTHROPIC_API_KEY"),
                "{error}"
            );
        }
        let one = |provider: &ProviderSpec| provider.name == "router";
        let error = choose(&spec(""), Some("anthropic/large"), None, one).unwrap_err();
        assert_eq!(error.class, ErrorClass::Auth);
        assert!(error.message.contains("set ANTHROPIC_API_KEY"), "{error}");
    }

    #[test]
    fn an_effort_that_the_model_or_the_entry_does_not_take_is_refused_with_what_is() {
        let with = |effort| choose(&spec(""), Some("anthropic/large"), Some(effort), |_| true);
        assert_eq!(with("high").unwrap().effort, Some(Effort::High));
        for (effort, list) in [("max", "low, high"), ("hard", "none, low, medium")] {
            let error = with(effort).unwrap_err();
            assert_eq!(error.class, ErrorClass::InvalidOption);
            assert!(error.message.contains(list), "{error}");
        }
        let any = choose(&spec(""), Some("router/x"), Some("max"), |_| true).unwrap();
        assert_eq!(any.effort, Some(Effort::Max));
    }

    #[test]
    fn a_model_that_the_entry_does_not_list_is_refused_by_whatever_name() {
        let entry = spec("models = [\"anthropic/large\"]");
        assert!(choose(&entry, Some("large"), None, |_| true).is_ok());
        let error = choose(&entry, Some("maker/large"), None, |_| true).unwrap_err();
        assert!(
            error.message.contains("it offers: anthropic/large"),
            "{error}"
        );
    }
}
