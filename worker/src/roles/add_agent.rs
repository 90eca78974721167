//! `dispatch agents add`: entries of known agents for the agents.toml of this machine, as they are
//! written, comments included. What is in the file stays as it is, to the byte.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item, Table};

use super::catalogue::{DEFAULT_FILE, READY_MADE};
use crate::config::agents::Catalogue;
use crate::domain::safe_text;
use crate::ops::OpError;
use crate::surface::cli::roles::{AddAgentArgs, Report};

/// Known beside the ready-made ones.
const MORE: &str = include_str!("../config/more_agents.toml");

/// Mode of a file that is made: other logins of the machine run workers with it. Secrets are named in
/// it and do not stand there.
const NEW_FILE_MODE: u32 = 0o644;

const AGENTS: &str = "agents";
const PROVIDERS: &str = "providers";

/// The role.
pub(super) fn add_agent(args: &AddAgentArgs) -> Result<Report, OpError> {
    let known = Known::new()?;
    let Some(name) = &args.name else {
        let all = known.agents().map(|one| {
            let about = known.word(one, "label").unwrap_or(one);
            (one, about, known.word(one, "install"))
        });
        let (text, data): (Vec<String>, Vec<Value>) = all
            .map(|(one, about, install)| {
                let how = install.unwrap_or("is built in");
                let data = json!({"name": one, "label": about, "install": install});
                (format!("{one:<18} {about:<32} {how}"), data)
            })
            .unzip();
        return Ok(Report {
            text: text.join("\n"),
            document: json!({ "data": data }),
        });
    };
    let told = add(&known, name, &args.agents)?;
    let lines: Vec<String> = told.iter().map(|line| safe_text::line(line)).collect();
    Ok(Report {
        text: lines.join("\n"),
        document: json!({"name": name, "file": args.agents, "notes": told}),
    })
}

/// Add it; what to tell about it.
fn add(known: &Known, name: &str, file: &Path) -> Result<Vec<String>, OpError> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(OpError::invalid(format!(
                "cannot read {}: {error}",
                file.display()
            )));
        }
    };
    if !known.agents().any(|one| one == name) {
        let names: Vec<&str> = known.agents().collect();
        return Err(
            OpError::not_found(format!("no agent {name:?} is known")).hint(format!(
                "Known are: {}. Others need an entry of your own: docs/agents.md.",
                names.join(", ")
            )),
        );
    }
    let dir = config_dir(file);
    let there = parsed(before.as_deref().unwrap_or_default(), &dir, file)?;
    if there.agents.contains_key(name) {
        return Err(OpError::wrong_state(format!(
            "{} has an agent {name:?} already",
            file.display()
        ))
        .code("agent_exists")
        .hint("Nothing was changed. Edit that entry, or take it out first."));
    }
    let mut missing = known.needed(name);
    missing.retain(|part| match part.group {
        PROVIDERS => !there.providers.contains_key(&part.name),
        _ => !there.agents.contains_key(&part.name),
    });
    let texts: Vec<String> = missing.iter().map(|part| known.text(part)).collect();
    let mut text = match &before {
        Some(text) => text.trim_end_matches('\n').to_owned(),
        None => format!("{HEAD}\ndefault_agent = \"{name}\""),
    };
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(&texts.join("\n"));
    let after = parsed(&text, &dir, file)?;
    replace(file, &text).map_err(|error| {
        OpError::invalid(format!("cannot write {}: {error}", file.display())).hint(
            "Its directory has to be there, and yours to write in; --agents names another file.",
        )
    })?;
    let others: Vec<String> = missing
        .iter()
        .filter(|part| part.name != name || part.group != AGENTS)
        .map(Part::shown)
        .collect();
    Ok(told(
        known,
        &after,
        &Added {
            name,
            file,
            is_new: before.is_none(),
            others,
            needs_files: texts.iter().any(|text| text.contains("{config_dir}")),
        },
    ))
}

/// What a file begins with that is made.
const HEAD: &str = "# The agents that this machine can run; the agents.toml of dispatch explains each key, docs/agents.md each agent. More: dispatch agents add.";

/// What was done.
struct Added<'a> {
    name: &'a str,
    file: &'a Path,
    is_new: bool,
    others: Vec<String>,
    needs_files: bool,
}

fn told(known: &Known, after: &Catalogue, added: &Added<'_>) -> Vec<String> {
    let (name, file) = (added.name, added.file.display());
    let mut told = vec![match added.is_new {
        true => format!("Made {file} with the agent {name}."),
        false => format!("Added {name} to {file}."),
    }];
    if !added.others.is_empty() {
        told.push(format!("It needs, and got: {}.", added.others.join(", ")));
    }
    if added.is_new {
        let hidden: Vec<&str> = known
            .ready_made()
            .filter(|one| !after.agents.contains_key(*one))
            .collect();
        told.push(format!(
            "Tasks that name no agent go to {name} (default_agent)."
        ));
        told.push(format!(
            "Note: a worker without an agents.toml has the ready-made agents; one that reads {file} has only those in it. Add what you use of the others: {}.",
            hidden.join(", ")
        ));
    }
    if added.needs_files {
        told.push(format!(
            "Note: {{config_dir}} in it is the directory of {file}: what its command names must be there."
        ));
    }
    let spec = after.agents.get(name);
    if let Some(install) = spec.and_then(|spec| spec.install.as_deref()) {
        told.push(format!("If it is not there yet: {install}."));
    }
    let with = match added.file == Path::new(DEFAULT_FILE) {
        true => String::new(),
        false => format!("DISPATCH_AGENTS={file} "),
    };
    told.push(format!(
        "See whether it works here: {with}dispatch agents check {name} --here"
    ));
    told
}

fn parsed(text: &str, dir: &Path, file: &Path) -> Result<Catalogue, OpError> {
    Catalogue::parse_in(text, dir).map_err(|error| {
        OpError::invalid(format!("{}: {error}", file.display()))
            .code("invalid_agents_toml")
            .hint("Nothing was changed. Mend the file; `dispatch config check` reads it as a worker would.")
    })
}

fn config_dir(file: &Path) -> std::path::PathBuf {
    let full = file.canonicalize().or_else(|_| std::path::absolute(file));
    let full = full.unwrap_or_else(|_| file.to_owned());
    full.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Put a text in the place of a file, whole or not at all. Of a link, what it leads to is replaced.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let before = target.metadata().ok();
    let mode = before
        .as_ref()
        .map_or(NEW_FILE_MODE, |facts| facts.mode() & 0o7777);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut new = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    new.write_all(text.as_bytes())?;
    if let Some(facts) = before {
        // Only root can give it to somebody else; then it is as if they had edited it.
        let _own = fchown(new.as_file(), Some(facts.uid()), Some(facts.gid()));
    }
    new.as_file()
        .set_permissions(PermissionsExt::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(&target)?;
    Ok(())
}

/// A table of one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    group: &'static str,
    name: String,
}

impl Part {
    fn shown(&self) -> String {
        match self.group {
            PROVIDERS => format!("provider {}", self.name),
            _ => format!("agent {}", self.name),
        }
    }
}

/// The entries that come with this program.
struct Known([DocumentMut; 2]);

impl Known {
    fn new() -> Result<Self, OpError> {
        let read = |text: &str| {
            text.parse::<DocumentMut>()
                .map_err(|error| OpError::internal(format!("the known agents: {error}")))
        };
        Ok(Self([read(READY_MADE)?, read(MORE)?]))
    }

    fn agents(&self) -> impl Iterator<Item = &str> {
        let [ready_made, more] = &self.0;
        let first = self.ready_made();
        let second = names(more).filter(|name| {
            ready_made
                .get(AGENTS)
                .and_then(|all| all.get(name))
                .is_none()
        });
        first.chain(second)
    }

    fn ready_made(&self) -> impl Iterator<Item = &str> {
        names(&self.0[0])
    }

    fn table(&self, group: &str, name: &str) -> Option<&Table> {
        let mut found = self.0.iter().filter_map(|document| {
            let table = document.get(group)?.get(name)?;
            table.as_table()
        });
        found.next()
    }

    /// A text of an agent's entry, or of the one that it extends.
    fn word(&self, name: &str, key: &str) -> Option<&str> {
        let mut next = Some(name);
        // No entry extends itself: a test parses them all.
        while let Some(table) = next.and_then(|name| self.table(AGENTS, name)) {
            if let Some(word) = table.get(key).and_then(Item::as_str) {
                return Some(word);
            }
            next = table.get("extends").and_then(Item::as_str);
        }
        None
    }

    /// The agent with all that its entry names, what is named before what names it.
    fn needed(&self, name: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        self.gather(name, &mut Vec::new(), &mut parts);
        parts
    }

    fn gather<'a>(&'a self, name: &'a str, seen: &mut Vec<&'a str>, parts: &mut Vec<Part>) {
        let Some(table) = self.table(AGENTS, name).filter(|_| !seen.contains(&name)) else {
            return;
        };
        seen.push(name);
        for key in ["extends", "fallback"] {
            if let Some(other) = table.get(key).and_then(Item::as_str) {
                self.gather(other, seen, parts);
            }
        }
        let native = table
            .get("native")
            .and_then(|native| native.get("providers"));
        let providers = native.and_then(Item::as_array).into_iter().flatten();
        parts.extend(providers.filter_map(|provider| {
            Some(Part {
                group: PROVIDERS,
                name: provider.as_str()?.to_owned(),
            })
        }));
        parts.push(Part {
            group: AGENTS,
            name: name.to_owned(),
        });
    }

    /// A table with what stands below it, as it is written, with the comment that is its own.
    fn text(&self, part: &Part) -> String {
        let Some(mut table) = self.table(part.group, &part.name).cloned() else {
            return String::new();
        };
        let before = table.decor().prefix().and_then(|prefix| prefix.as_str());
        let comment = own_comment(before.unwrap_or_default());
        table.decor_mut().set_prefix(comment);
        let mut group = Table::new();
        group.set_implicit(true);
        group.insert(&part.name, Item::Table(table));
        let mut document = DocumentMut::new();
        document.insert(part.group, Item::Table(group));
        document.to_string()
    }
}

fn names(document: &DocumentMut) -> impl Iterator<Item = &str> {
    let agents = document.get(AGENTS).and_then(Item::as_table);
    agents
        .into_iter()
        .flat_map(|all| all.iter().map(|(name, _)| name))
}

/// Of what stands before an entry, what is about it: below the last ruled line, or else its last
/// paragraph.
fn own_comment(before: &str) -> String {
    let lines: Vec<&str> = before.lines().collect();
    let ruled = lines.iter().rposition(|line| line.starts_with("# ---"));
    let own = match ruled {
        Some(at) => lines.get(at + 1..).unwrap_or_default(),
        None => {
            let filled = lines.iter().rposition(|line| !line.is_empty());
            let upto = filled.map_or(0, |at| at + 1);
            let begin = lines[..upto].iter().rposition(|line| line.is_empty());
            &lines[begin.map_or(0, |at| at + 1)..upto]
        }
    };
    let text = own.join("\n");
    match text.trim() {
        "" => String::new(),
        text => format!("{text}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_agent_can_be_added_to_an_empty_file_and_to_one_with_all_others() {
        let known = Known::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("all.toml");
        let mut count = 0;
        for name in known.agents() {
            let file = dir.path().join(format!("{name}.toml"));
            add(&known, name, &file).unwrap_or_else(|error| panic!("{name}: {error}"));
            let catalogue = Catalogue::load(&file).unwrap();
            assert_eq!(catalogue.default_agent.as_deref(), Some(name));
            assert!(catalogue.agents.contains_key(name));
            assert!(known.word(name, "label").is_some(), "{name} has no label");
            // What another one brought along is there.
            let there = all.exists() && Catalogue::load(&all).unwrap().agents.contains_key(name);
            assert_eq!(add(&known, name, &all).is_err(), there, "{name}");
            count += 1;
        }
        assert!(count > 8, "{count}");
        let together = Catalogue::load(&all).unwrap();
        assert_eq!(together.agents.len(), count);
        // They mean what they mean where they are written.
        let shipped = Catalogue::parse_in(READY_MADE, dir.path()).unwrap();
        let at_home = Catalogue::parse_in(&std::fs::read_to_string(&all).unwrap(), dir.path());
        let at_home = at_home.unwrap();
        for (name, spec) in &shipped.agents {
            assert_eq!(at_home.agents[name].describe(), spec.describe(), "{name}");
        }
    }

    #[test]
    fn a_persons_file_stays_as_it_is_and_an_entry_keeps_its_comments() {
        let known = Known::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agents.toml");
        let theirs =
            "# mine\n[agents.a]   # keep\npath = \"acp\"\ncommand = [ \"a\" ]\n\n# the end\n";
        std::fs::write(&file, theirs).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        add(&known, "opencode", &file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(theirs), "{text}");
        assert!(text.contains("# opencode over ACP. Asks only"), "{text}");
        assert!(text.contains("\n[agents.opencode.usage]\n"), "{text}");
        assert!(
            text.contains("# It reports the last request of a turn only"),
            "{text}"
        );
        assert!(!text.contains("# ---"), "{text}");
        let mode = file.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(Catalogue::load(&file).unwrap().default_agent, None);
    }

    #[test]
    fn what_cannot_be_added_changes_nothing_and_says_what_can() {
        let known = Known::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agents.toml");
        let unknown = add(&known, "nobody", &file).unwrap_err();
        assert!(unknown.hint.unwrap().contains("opencode, "), "lists them");
        assert!(!file.exists());
        let broken = "[agents.x]\nlabel = 1\n";
        let entry = "[agents.opencode]\npath = \"acp\"\ncommand = [\"mine\"]\n";
        let inline = "agents = { a = { path = \"acp\", command = [\"a\"] } }\n";
        for text in [broken, entry, inline] {
            std::fs::write(&file, text).unwrap();
            let refused = add(&known, "opencode", &file).unwrap_err();
            assert!(
                refused.hint.unwrap().contains("Nothing was changed"),
                "{text}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1, "no temporary file");
    }

    #[test]
    fn a_new_file_says_what_it_hides_and_brings_what_the_entry_needs() {
        let known = Known::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agents.toml");
        let told = add(&known, "opencode-run", &file).unwrap().join("\n");
        assert!(told.contains("got: agent opencode."), "{told}");
        assert!(told.contains("the others: native, "), "{told}");
        assert!(
            told.contains("dispatch agents check opencode-run --here"),
            "{told}"
        );
        assert_eq!(file.metadata().unwrap().mode() & 0o777, NEW_FILE_MODE);
        let native = dir.path().join("native.toml");
        let told = add(&known, "native", &native).unwrap().join("\n");
        assert!(told.contains("provider anthropic"), "{told}");
        assert_eq!(Catalogue::load(&native).unwrap().providers.len(), 5);
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&native, &link).unwrap();
        add(&known, "claude", &link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(
            Catalogue::load(&native)
                .unwrap()
                .agents
                .contains_key("claude")
        );
    }
}
