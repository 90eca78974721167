//! What a program on pipes and one in a terminal have in common: its arguments, and what its end
//! means.

use std::path::Path;

use super::options::{self, Choice, invalid};
use super::process::{Input, Launch};
use super::{AgentError, Exit, TurnRequest, classify, environment, seed};
use crate::blocking;
use crate::config::agent_spec::{AgentSpec, PromptVia};
use crate::domain::error_class::ErrorClass;
use crate::domain::limits;

/// Name of the prompt's file in the attempt's temporary directory.
const PROMPT_FILE: &str = "prompt.txt";

/// Make a turn ready to start: its files are written, its arguments and environment are there.
pub(crate) async fn launch(
    spec: &AgentSpec,
    turn: &TurnRequest,
    input: Input,
    terminal: &str,
) -> Result<Launch, AgentError> {
    let args = arguments(spec, turn)?;
    environment::seed_home(spec, turn).await?;
    write_prompt(spec, turn).await?;
    Launch::of(spec, turn, args, input, terminal)
}

/// The arguments of a turn. Placeholders are replaced once and within their element, so that no
/// prompt can become an option of its own or be read by a shell.
fn arguments(spec: &AgentSpec, turn: &TurnRequest) -> Result<Vec<String>, AgentError> {
    options::check_listed(spec, turn)?;
    let mut groups = Vec::new();
    for choice in Choice::ALL {
        let group = match choice {
            Choice::Mode => &spec.cli.mode_args,
            Choice::Model => &spec.cli.model_args,
            Choice::Thinking => &spec.cli.thinking_args,
        };
        match choice.wanted(spec, turn) {
            Some(wanted) if group.is_empty() => {
                return Err(invalid(&spec.name, choice, wanted, &[""; 0]));
            }
            Some(_) => groups.extend(group.iter()),
            None => {}
        }
    }
    if turn.resume.is_some() {
        groups.extend(&spec.cli.session_args);
    }
    let command: Vec<&String> = spec.command.iter().skip(1).collect();
    let place = command
        .iter()
        .position(|part| *part == "{options}")
        .unwrap_or(command.len());
    let (before, after) = command.split_at(place);
    let prompt_in_args = command.iter().any(|part| part.contains("{prompt}"));
    if prompt_in_args && turn.prompt.len() > limits::ARGUMENT_BYTES_MAX {
        let message = format!(
            "the prompt is {} bytes and agent {} takes it as one argument of at most {}; use \
             {{prompt_file}} or cli.prompt_via = \"stdin\" in its entry",
            turn.prompt.len(),
            spec.name,
            limits::ARGUMENT_BYTES_MAX
        );
        return Err(AgentError::new(ErrorClass::InvalidOption, message));
    }
    let prompt_file = turn.tmp.join(PROMPT_FILE);
    let value = |name: &str| match name {
        "prompt" => Some(turn.prompt.replace('\0', "\u{FFFD}")),
        "prompt_file" => Some(prompt_file.to_string_lossy().into_owned()),
        "mode" => Choice::Mode.wanted(spec, turn).map(str::to_owned),
        "model" => Choice::Model.wanted(spec, turn).map(str::to_owned),
        "thinking" => Choice::Thinking.wanted(spec, turn).map(str::to_owned),
        "session" => turn.resume.clone(),
        "worktree" => Some(turn.worktree.to_string_lossy().into_owned()),
        _ => None,
    };
    let after = after.iter().copied().skip(1);
    let parts = before.iter().copied().chain(groups).chain(after);
    Ok(parts.map(|part| expand(part, value)).collect())
}

/// Whether the program can continue the session that the turn names; else why not.
pub(crate) fn resume_failed(spec: &AgentSpec, turn: &TurnRequest) -> Option<String> {
    (turn.resume.is_some() && spec.cli.session_args.is_empty())
        .then(|| "the agent's entry has no cli.session_args".to_owned())
}

/// Write the prompt's file when the command names it.
async fn write_prompt(spec: &AgentSpec, turn: &TurnRequest) -> Result<(), AgentError> {
    let named = spec
        .command
        .iter()
        .any(|part| part.contains("{prompt_file}"));
    if spec.cli.prompt_via != PromptVia::Args || !named {
        return Ok(());
    }
    let (tmp, prompt) = (turn.tmp.clone(), turn.prompt.clone());
    let put = move || seed::put(&tmp, Path::new(PROMPT_FILE), &mut prompt.as_bytes(), 0o644);
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("cannot write the prompt to {PROMPT_FILE}: {error}");
        AgentError::new(ErrorClass::Workspace, message)
    };
    match blocking::run(put).await {
        Ok(written) => written.map_err(|error| failed(&error)),
        Err(panicked) => Err(failed(&panicked)),
    }
}

/// What the end of a program means: `said` is the end of what it wrote.
pub(crate) fn judge(spec: &AgentSpec, exit: &Exit, said: &str) -> Result<String, AgentError> {
    let told = [said, &exit.stderr_tail]
        .into_iter()
        .find_map(|text| classify::told(&spec.errors, text));
    match (exit.code, exit.signal) {
        (Some(code), _) if spec.cli.success_codes.contains(&code) => {
            told.map_or_else(|| Ok(format!("exit {code}")), Err)
        }
        (Some(code), _) => {
            let tail = last_lines(if exit.stderr_tail.trim().is_empty() {
                said
            } else {
                &exit.stderr_tail
            });
            let mut error = told.unwrap_or_else(|| classify::reported(&tail));
            error.message = format!("it ended with exit code {code}; {}", error.message);
            Err(error)
        }
        (None, Some(signal)) => Err(AgentError::new(
            ErrorClass::AgentFailed,
            format!(
                "the agent was ended by signal {signal}; {}",
                last_lines(&exit.stderr_tail)
            ),
        )),
        (None, None) => Err(AgentError::new(
            ErrorClass::Internal,
            "the agent's exit could not be read",
        )),
    }
}

/// The last lines of a text, which is where programs put the reason.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines
        .get(lines.len().saturating_sub(10)..)
        .unwrap_or_default()
        .join("\n")
}

/// Replace `{name}` where `value` knows the name; everything else stays, also in the values.
fn expand(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, from)) = rest.split_once('{') {
        out.push_str(before);
        let known = from
            .split_once('}')
            .and_then(|(name, after)| Some((value(name)?, after)));
        match known {
            Some((text, after)) => {
                out.push_str(&text);
                rest = after;
            }
            None => {
                out.push('{');
                rest = from;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agents::Catalogue;

    fn spec() -> AgentSpec {
        let text = "[agents.a]\npath = \"pipe\"\nmodes = [\"plan\"]\n\
            command = [\"a\", \"run\", \"{options}\", \"--\", \"say {prompt}\"]\n\
            cli.model_args = [\"--model\", \"{model}\"]\ncli.mode_args = [\"--mode={mode}\"]\n";
        Catalogue::parse(text).unwrap().agents["a"].clone()
    }

    fn turn() -> TurnRequest {
        TurnRequest {
            native: None,
            prompt: "use {model}; $(rm -rf /) \"'".to_owned(),
            worktree: "/w".into(),
            home: "/h".into(),
            tmp: "/t".into(),
            confinement: crate::sandbox::Confinement::none(std::path::PathBuf::new()),
            secrets: Default::default(),
            mark: "m".to_owned(),
            model: None,
            mode_id: None,
            thinking_option_id: None,
            resume: None,
            session_worktree: None,
            session_used: Default::default(),
        }
    }

    #[test]
    fn a_prompt_stays_one_element_and_is_not_expanded_again() {
        let turn = TurnRequest {
            model: Some("x".to_owned()),
            ..turn()
        };
        let found = arguments(&spec(), &turn).unwrap();
        let prompt = format!("say {}", turn.prompt);
        assert_eq!(found, ["run", "--model", "x", "--", prompt.as_str()]);
    }

    #[test]
    fn groups_without_a_value_are_left_out() {
        assert_eq!(arguments(&spec(), &turn()).unwrap().len(), 3);
    }

    #[test]
    fn what_the_program_does_not_offer_is_refused_with_what_it_does() {
        let refused = |turn: TurnRequest| arguments(&spec(), &turn).unwrap_err();
        let error = refused(TurnRequest {
            mode_id: Some("yolo".to_owned()),
            ..turn()
        });
        assert_eq!(error.class, ErrorClass::InvalidOption);
        assert!(error.message.contains("plan"), "{error}");
        let error = refused(TurnRequest {
            thinking_option_id: Some("high".to_owned()),
            ..turn()
        });
        assert_eq!(error.class, ErrorClass::InvalidOption);
    }
}
