//! What the command line makes of what was typed before an operation runs: the text that stands in a
//! file, a path as this machine knows it.

use std::io::{self, IsTerminal};

use serde_json::{Value, json};

use super::extras::Extras;
use crate::domain::limits;
use crate::domain::remote::Place;
use crate::ops::submit::SubmitTask;
use crate::ops::{OpEntry, OpError};

/// Bytes of a file of tasks: more than a batch of usual prompts, less than what fills the memory.
const TASKS_BYTES_MAX: usize = 16 * limits::INPUT_BYTES_MAX;

/// The input as the operation needs it, from what was typed.
pub fn input(entry: &OpEntry, mut input: Value, extras: &Extras) -> Result<Value, OpError> {
    match entry.spec.name {
        "task.submit" => {
            let file = extras.file.as_deref();
            input["input"] = json!(prompt(text(&input, "input"), file)?);
        }
        "task.submit-many" => {
            input["tasks"] = json!(tasks(&extras.tasks)?);
            return (entry.normalize)(input);
        }
        "message.send" => input["text"] = json!(letter(text(&input, "text"))?),
        "project.add" => input["path"] = json!(place(text(&input, "path"))?),
        "project.update" if input["path"].is_string() => {
            input["path"] = json!(place(text(&input, "path"))?);
        }
        _ => {}
    }
    Ok(input)
}

fn text<'a>(input: &'a Value, name: &str) -> &'a str {
    input[name].as_str().unwrap_or("")
}

fn prompt(typed: &str, file: Option<&str>) -> Result<String, OpError> {
    match file {
        Some(_) if typed != "-" => Err(OpError::invalid(
            "say what to do either as text or with --file",
        )),
        Some(path) if path != "-" => prompt_of(path, std::fs::File::open(path)),
        _ if typed != "-" => Ok(typed.to_owned()),
        _ if io::stdin().is_terminal() => {
            Err(OpError::invalid("say what the agent shall do")
                .hint("dispatch submit PROJECT \"what to do\", --file FILE, or a pipe into standard input"))
        }
        _ => prompt_of(STDIN, Ok(io::stdin())),
    }
}

fn letter(typed: &str) -> Result<String, OpError> {
    if typed != "-" {
        return Ok(typed.to_owned());
    }
    if io::stdin().is_terminal() {
        return Err(OpError::invalid("say what the agent shall know")
            .hint("dispatch send TASK \"what to say\", or a pipe into standard input"));
    }
    prompt_of(STDIN, Ok(io::stdin()))
}

const STDIN: &str = "standard input";

fn prompt_of(name: &str, from: io::Result<impl io::Read>) -> Result<String, OpError> {
    bounded(name, from, limits::INPUT_BYTES_MAX)
}

/// Read no more than this, and one byte that shows that there is more.
fn bounded(name: &str, from: io::Result<impl io::Read>, most: usize) -> Result<String, OpError> {
    let unreadable = |e: io::Error| OpError::invalid(format!("cannot read {name}: {e}"));
    let most = u64::try_from(most + 1).unwrap_or(u64::MAX);
    let from = io::Read::take(from.map_err(unreadable)?, most);
    io::read_to_string(from).map_err(unreadable)
}

/// The tasks of a batch, from JSON and from where it stands.
fn tasks(words: &[String]) -> Result<Vec<SubmitTask>, OpError> {
    let mut tasks = Vec::new();
    for word in words {
        let (name, text) = match word.trim_start().as_bytes().first() {
            Some(b'{' | b'[') => ("the tasks", word.clone()),
            _ if word == "-" && io::stdin().is_terminal() => {
                return Err(OpError::invalid("say what the tasks are")
                    .hint("dispatch tasks submit-many FILE, or a pipe into standard input"));
            }
            _ if word == "-" => (STDIN, bounded(STDIN, Ok(io::stdin()), TASKS_BYTES_MAX)?),
            _ => {
                let file = std::fs::File::open(word);
                (word.as_str(), bounded(word, file, TASKS_BYTES_MAX)?)
            }
        };
        if text.len() > TASKS_BYTES_MAX {
            let most = TASKS_BYTES_MAX >> 20;
            return Err(OpError::invalid(format!("{name}: more than {most} MiB")));
        }
        tasks.extend(tasks_of(name, &text)?);
    }
    Ok(tasks)
}

/// The tasks of a text: arrays of them, or one after another.
fn tasks_of(name: &str, text: &str) -> Result<Vec<SubmitTask>, OpError> {
    let form = "A task is a JSON object, such as {\"project\": \"shop\", \"input\": \"fix the cart\"}; a file has an array of them or one a line.";
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value
            .map_err(|error| OpError::invalid(format!("{name}: no JSON: {error}")).hint(form))?;
        match value {
            Value::Array(several) => found.extend(several),
            one => found.push(one),
        }
    }
    let read = |(n, value): (usize, Value)| {
        serde_json::from_value(value).map_err(|error| {
            OpError::invalid(format!("{name}, task {}: {error}", n + 1)).hint(form)
        })
    };
    found.into_iter().enumerate().map(read).collect()
}

/// A repository's place: a path as this machine knows it. An address, or what the operation refuses as
/// one, is the same everywhere.
fn place(typed: &str) -> Result<String, OpError> {
    match Place::parse(typed) {
        Ok(Place::Path) => absolute(typed),
        Ok(Place::Remote(_)) | Err(_) => Ok(typed.to_owned()),
    }
}

fn absolute(path: &str) -> Result<String, OpError> {
    let unfit = |e: io::Error| OpError::invalid(format!("{path:?} is no path: {e}"));
    let path = std::path::absolute(path).map_err(unfit)?;
    // A path that is there is named as it really is, so that `.` and links do not end up in rows.
    let path = path.canonicalize().unwrap_or(path);
    path.into_os_string()
        .into_string()
        .map_err(|_| OpError::invalid("the path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn a_path_is_made_absolute_and_an_address_stays_as_it_was_typed() {
        let place = |op: &str, typed: &str| {
            let entry = ops::find(op).unwrap();
            let given = input(
                entry,
                json!({"name": "p", "path": typed}),
                &Extras::default(),
            );
            let given = given.unwrap();
            text(&given, "path").to_owned()
        };
        for op in ["project.add", "project.update"] {
            for address in [
                "https://git.example.com/docs.git",
                "ssh://git@git.example.com:2222/docs.git",
                "git@git.example.com:docs.git",
                "file:///srv/docs.git",
                // Not git's; the operation says so, and names it as it was typed.
                "ftp://git.example.com/docs.git",
            ] {
                assert_eq!(place(op, address), address);
            }
            let here = std::env::current_dir().unwrap().canonicalize().unwrap();
            assert_eq!(place(op, "."), here.to_str().unwrap());
            assert_eq!(place(op, "/nowhere/at/all"), "/nowhere/at/all");
            // As git reads it, too: a slash before the colon makes it a path.
            assert_eq!(place(op, "./a:b"), here.join("a:b").to_str().unwrap());
        }
    }

    #[test]
    fn tasks_are_read_from_an_array_and_from_one_object_a_line() {
        let one = r#"{"project": "shop", "input": "a"}"#;
        let other = r#"{"project": "shop", "input": "b", "priority": 9}"#;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tasks.json");
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            tasks(&words).map(|all| all.into_iter().map(|task| task.input).collect::<Vec<_>>())
        };
        assert_eq!(read(&[one, other]).unwrap(), ["a", "b"]);
        for text in [
            format!("[{one}, {other}]"),
            format!("{one}\n{other}\n"),
            format!("\n {one}\n\n[{other}]"),
        ] {
            std::fs::write(&file, &text).unwrap();
            assert_eq!(read(&[file.to_str().unwrap()]).unwrap(), ["a", "b"]);
            assert_eq!(read(&[&text.replace('\n', " ")]).unwrap(), ["a", "b"]);
        }
        std::fs::write(&file, format!("{one}\n{{\"input\": 7}}\n")).unwrap();
        let refused = read(&[file.to_str().unwrap()]).unwrap_err();
        assert!(
            refused.message.contains("tasks.json, task 2: "),
            "{refused}"
        );
        std::fs::write(&file, format!("{one}\nfix the cart\n")).unwrap();
        let refused = read(&[file.to_str().unwrap()]).unwrap_err();
        assert!(refused.message.contains("at line 2"), "{refused}");
        assert!(refused.hint.unwrap().contains("one a line"));
        let missing = read(&["no-such-file"]).unwrap_err();
        assert!(
            missing.message.contains("cannot read no-such-file"),
            "{missing}"
        );
    }
}
