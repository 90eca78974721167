//! What a session offers to choose from, and which request chooses it. Agents announce it in
//! three generations of the protocol: config options, modes, legacy models.

use serde_json::{Value, json};

use crate::agent::options::Choice;

/// The announcements of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers {
    config: Vec<Value>,
    modes: Value,
    models: Value,
}

/// How to choose a value.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It is chosen already.
    Chosen,
    /// By this request.
    Request(&'static str, Value),
    /// It is not among these.
    NotOffered(Vec<String>),
}

impl Offers {
    /// From the answer to session/new, load or resume.
    pub(crate) fn of(session: &Value) -> Self {
        let mut offers = Self {
            modes: session.get("modes").cloned().unwrap_or(Value::Null),
            models: session.get("models").cloned().unwrap_or(Value::Null),
            config: Vec::new(),
        };
        offers.configured(session);
        offers
    }

    /// Take over a complete list of config options, where a message holds one.
    pub(crate) fn configured(&mut self, message: &Value) {
        if let Some(options) = message.get("configOptions").and_then(Value::as_array) {
            self.config.clone_from(options);
        }
    }

    /// Values that can be chosen.
    pub(crate) fn values(&self, choice: Choice) -> Vec<String> {
        if let Some(option) = self.option(choice) {
            return select_values(option);
        }
        let (list, key) = match choice {
            Choice::Mode => (self.modes.get("availableModes"), "id"),
            Choice::Model => (self.models.get("availableModels"), "modelId"),
            Choice::Thinking => (None, ""),
        };
        let entries = list.and_then(Value::as_array).into_iter().flatten();
        entries
            .filter_map(|entry| entry.get(key)?.as_str().map(str::to_owned))
            .collect()
    }

    /// The value in force.
    pub(crate) fn current(&self, choice: Choice) -> Option<String> {
        let value = match (self.option(choice), choice) {
            (Some(option), _) => option.get("currentValue"),
            (None, Choice::Mode) => self.modes.get("currentModeId"),
            (None, Choice::Model) => self.models.get("currentModelId"),
            (None, Choice::Thinking) => None,
        };
        value.and_then(Value::as_str).map(str::to_owned)
    }

    /// How to choose `wanted`.
    pub(crate) fn step(&self, choice: Choice, wanted: &str, session_id: &str) -> Step {
        let values = self.values(choice);
        if !values.iter().any(|value| value == wanted) {
            return Step::NotOffered(values);
        }
        if self.current(choice).as_deref() == Some(wanted) {
            return Step::Chosen;
        }
        if let Some(id) = self.option(choice).and_then(|option| option.get("id")) {
            let params = json!({"sessionId": session_id, "configId": id, "value": wanted});
            return Step::Request("session/set_config_option", params);
        }
        match choice {
            Choice::Mode => {
                let params = json!({"sessionId": session_id, "modeId": wanted});
                Step::Request("session/set_mode", params)
            }
            _ => {
                let params = json!({"sessionId": session_id, "modelId": wanted});
                Step::Request("session/set_model", params)
            }
        }
    }

    /// A request was answered: what is in force now. Without a list in the answer the value that
    /// was asked for counts.
    pub(crate) fn chosen(&mut self, choice: Choice, wanted: &str, answer: &Value) {
        if answer.get("configOptions").is_some() {
            self.configured(answer);
            return;
        }
        match choice {
            Choice::Mode if self.modes.is_object() => self.modes["currentModeId"] = json!(wanted),
            Choice::Model if self.models.is_object() => {
                self.models["currentModelId"] = json!(wanted);
            }
            _ => {}
        }
    }

    /// The config option of a choice. Categories are hints: well-known ids count without one, and tell
    /// which option of the category it is (cline has its provider in `model` too).
    fn option(&self, choice: Choice) -> Option<&Value> {
        let (category, ids): (_, &[&str]) = match choice {
            Choice::Mode => ("mode", &["mode"]),
            Choice::Model => ("model", &["model"]),
            Choice::Thinking => (
                "thought_level",
                &["thought_level", "reasoning_effort", "effort", "thinking"],
            ),
        };
        let in_category = |option: &&Value| option["category"].as_str() == Some(category);
        let is_named = |option: &&Value| option["id"].as_str().is_some_and(|id| ids.contains(&id));
        let select = || {
            self.config
                .iter()
                .filter(|option| option["options"].is_array())
        };
        select()
            .find(|option| in_category(option) && is_named(option))
            .or_else(|| select().find(in_category))
            .or_else(|| select().find(is_named))
    }
}

/// Values of a select, whose options may be grouped.
fn select_values(option: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let flat = list(&option["options"]).into_iter().flat_map(|entry| {
        if entry["options"].is_array() {
            list(&entry["options"])
        } else {
            vec![entry]
        }
    });
    flat.filter_map(|entry| entry["value"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_with_the_known_id_is_the_one_of_its_category() {
        // Cline 3.0.65.
        let session = json!({
            "models": {"availableModels": [{"modelId": "gpt-4o", "name": "gpt-4o"}], "currentModelId": "gpt-4o"},
            "configOptions": [
                {"type": "select", "id": "provider", "name": "Provider", "category": "model",
                 "description": "The authentication provider to use", "currentValue": "openai-compatible",
                 "options": [{"value": "cline", "name": "Cline Usage-Billing"},
                             {"value": "cline-pass", "name": "ClinePass"},
                             {"value": "openai-codex", "name": "OpenAI ChatGPT Subscription"}]},
                {"type": "select", "id": "model", "name": "Model", "category": "model",
                 "currentValue": "gpt-4o", "options": [{"value": "gpt-4o", "name": "gpt-4o"}]},
                {"type": "boolean", "id": "auto_approve", "name": "Auto-approve tools", "currentValue": false},
            ],
        });
        let offers = Offers::of(&session);
        assert_eq!(offers.current(Choice::Model).as_deref(), Some("gpt-4o"));
        assert_eq!(offers.step(Choice::Model, "gpt-4o", "s"), Step::Chosen);
        assert_eq!(
            offers.step(Choice::Model, "cline", "s"),
            Step::NotOffered(vec!["gpt-4o".to_owned()])
        );
        // Without a well-known id the category tells, and it goes before the id of another category.
        let session = json!({"configOptions": [
            {"id": "model", "category": "other", "currentValue": "x", "options": []},
            {"id": "llm", "category": "model", "currentValue": "y", "options": []},
        ]});
        let current = Offers::of(&session).current(Choice::Model);
        assert_eq!(current.as_deref(), Some("y"));
    }

    #[test]
    fn config_options_win_then_modes_then_legacy_models() {
        let session = json!({
            "modes": {"currentModeId": "ask", "availableModes": [{"id": "ask"}, {"id": "code"}]},
            "models": {"currentModelId": "a", "availableModels": [{"modelId": "a"}, {"modelId": "b"}]},
            "configOptions": [{
                "id": "m", "category": "model", "type": "select", "currentValue": "x",
                "options": [{"group": "g", "name": "G", "options": [{"value": "x"}, {"value": "y"}]}],
            }],
        });
        let offers = Offers::of(&session);
        assert_eq!(offers.values(Choice::Model), ["x", "y"]);
        let Step::Request(method, params) = offers.step(Choice::Model, "y", "s") else {
            panic!("a request")
        };
        assert_eq!(
            (method, &params["configId"]),
            ("session/set_config_option", &json!("m"))
        );
        assert_eq!(offers.step(Choice::Mode, "ask", "s"), Step::Chosen);
        assert!(matches!(
            offers.step(Choice::Mode, "code", "s"),
            Step::Request("session/set_mode", _)
        ));
        let refused = offers.step(Choice::Mode, "yolo", "s");
        assert_eq!(
            refused,
            Step::NotOffered(vec!["ask".to_owned(), "code".to_owned()])
        );
        assert_eq!(
            offers.step(Choice::Thinking, "high", "s"),
            Step::NotOffered(Vec::new())
        );
    }
}
